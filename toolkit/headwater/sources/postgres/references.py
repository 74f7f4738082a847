"""The foreign keys of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from headwater.model import Reference, TableId


def find_references(session: psycopg.Connection) -> Sequence[Reference]:
    """The foreign keys that hold over all rows: those that were validated, of tables and not of partitions.

    A temporal one (PERIOD, PostgreSQL 18) says something else and is left out.
    """
    rows = session.execute(_REFERENCES).fetchall()
    return [Reference(TableId(*row[:2]), tuple(row[2]), TableId(*row[3:5]), tuple(row[5])) for row in rows]


_REFERENCES = """
select cn.nspname::text, c.relname::text,
       array(select a.attname::text from unnest(f.conkey) with ordinality as k (number, place)
             join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.number order by k.place),
       pn.nspname::text, p.relname::text,
       array(select a.attname::text from unnest(f.confkey) with ordinality as k (number, place)
             join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.number order by k.place)
from pg_constraint f
join pg_class c on c.oid = f.conrelid join pg_namespace cn on cn.oid = c.relnamespace
join pg_class p on p.oid = f.confrelid join pg_namespace pn on pn.oid = p.relnamespace
where f.contype = 'f' and f.convalidated and f.conparentid = 0
  and coalesce(to_jsonb(f) ->> 'conperiod', 'false') = 'false'
order by f.oid
"""
