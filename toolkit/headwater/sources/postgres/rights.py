"""What the role we are logged in as may do with tables."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights on one table. `filtered`: row security hides rows of it from us."""

    role: str
    usage: bool
    select: bool
    owner: bool
    filtered: bool


def load_rights(session: psycopg.Connection, oids: Collection[int]) -> dict[int, Rights]:
    """The rights on each table, in one query."""
    rows = session.execute(_RIGHTS, [list(oids)]).fetchall()
    return {row[0]: Rights(*row[1:]) for row in rows}


# Generated columns are not read, so that no right on them is needed. row_security_active is false for those
# whom policies do not bind: owners, superusers and BYPASSRLS.
_RIGHTS = """
select c.oid, current_user::text, has_schema_privilege(c.relnamespace, 'usage'),
       has_table_privilege(c.oid, 'select') or coalesce((
           select bool_and(has_column_privilege(c.oid, a.attnum, 'select')) from pg_attribute a
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''), false),
       pg_has_role(c.relowner, 'usage'), c.relrowsecurity and row_security_active(c.oid)
from pg_class c where c.oid = any(%s::oid[])
"""
