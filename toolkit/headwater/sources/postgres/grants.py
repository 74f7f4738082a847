"""Least privilege: the statements an administrator runs once, and no more than capture needs."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.sources.postgres.catalog import Relation
from headwater.sources.postgres.publish import create_statement
from headwater.sources.postgres.quoting import quote_name, quote_table


def statements(role: str, database: str, publication: str, relations: Sequence[Relation]) -> list[str]:
    """SQL for a role that reads these tables and their log, and nothing else.

    The administrator makes the publication, so that the role needs no right to create or own anything. The
    password is left to be set with `\\password`, which keeps it out of the server's log.
    """
    name = quote_name(role)
    schemas = sorted({r.table.namespace for r in relations})
    lines = [
        f"CREATE ROLE {name} LOGIN REPLICATION;",
        f"GRANT CONNECT ON DATABASE {quote_name(database)} TO {name};",
    ]
    if schemas:
        lines.append(f"GRANT USAGE ON SCHEMA {', '.join(map(quote_name, schemas))} TO {name};")
    if relations:
        listed = ", ".join(quote_table(r.table) for r in sorted(relations, key=lambda r: r.table))
        lines.append(f"GRANT SELECT ON TABLE {listed} TO {name};")
        lines.append(create_statement(publication, relations))
    if any(r.guarded for r in relations):
        lines.append(f"ALTER ROLE {name} BYPASSRLS;")
    return lines
