"""The foreign keys of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from headwater.model import Reference, TableId


def find_references(session: psycopg.Connection) -> Sequence[Reference]:
    """The foreign keys that hold over all rows: those that were validated, of tables and not of partitions.

    Left out are temporal ones (PERIOD, PostgreSQL 18), which say something else, and those by which values
    are the same that are written otherwise: citext, collations without case, 1.0 and 1.00, blanks of char.
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
  and not exists (
      select 1 from unnest(f.conkey, f.confkey, f.conpfeqop) as k (here, there, operator)
      join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.here
      join pg_attribute b on b.attrelid = f.confrelid and b.attnum = k.there
      join pg_operator o on o.oid = k.operator
      where o.oprleft::regtype::text <> all (array[
                'boolean', 'smallint', 'integer', 'bigint', 'oid', 'real', 'double precision', 'numeric',
                'money', 'text', 'name', 'character', '"char"', 'anyenum', 'bytea', 'uuid', 'bit',
                'bit varying', 'date', 'time without time zone', 'timestamp without time zone',
                'timestamp with time zone', 'inet', 'macaddr', 'macaddr8'])
         or exists (select 1 from pg_collation l
                    where l.oid in (a.attcollation, b.attcollation)
                      and to_jsonb(l) ->> 'collisdeterministic' = 'false')
         or ('bpchar'::regtype in (o.oprleft, a.atttypid, b.atttypid)
             and (a.atttypid, a.atttypmod) <> (b.atttypid, b.atttypmod))
         or (o.oprleft = 'numeric'::regtype and exists (
                 select 1
                 from (values (a.atttypid, a.atttypmod), (b.atttypid, b.atttypmod)) as c (type, modifier)
                 where c.type::regtype::text <> all (array['smallint', 'integer', 'bigint'])
                   and (c.modifier < 0 or ((c.modifier - 4) >> 16) > 38))))
order by f.oid
"""
