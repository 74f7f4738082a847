"""The publication: made or extended when we may, refused with the exact SQL when we may not. Never shrunk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from headwater.errors import PositionLost, PreflightFailed
from headwater.model import TableId
from headwater.sources.postgres import catalog
from headwater.sources.postgres.catalog import Relation
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.quoting import quote_name, quote_table


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication as the catalogue has it."""

    name: str
    owner: str
    every_table: bool
    operations: tuple[bool, bool, bool, bool]  # insert, update, delete, truncate
    via_root: bool
    generated: bool  # PostgreSQL 18 can publish generated columns
    members: frozenset[int]  # oids of the tables it publishes under their own name
    filtered: frozenset[int]  # of these, the ones with a row filter or a column list


def look_at_publication(session: psycopg.Connection, name: str) -> Publication | None:
    """The publication of that name, or None."""
    version = session.info.server_version
    generated = "p.pubgencols <> 'n'" if version >= 180000 else "false"
    row = session.execute(
        "select pg_get_userbyid(p.pubowner), p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete,"
        f" p.pubtruncate, p.pubviaroot, {generated} from pg_publication p where p.pubname = %s".encode(),
        [name],
    ).fetchone()
    if row is None:
        return None
    members = session.execute("select relid from pg_get_publication_tables(%s)", [name]).fetchall()
    filtered: Sequence[tuple[int]] = ()
    if version >= 150000:
        filtered = session.execute(
            "select r.prrelid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid"
            " where p.pubname = %s and (r.prqual is not null or r.prattrs is not null)",
            [name],
        ).fetchall()
    return Publication(
        name, row[0], row[1], tuple(row[2:6]), row[6], row[7],
        frozenset(m[0] for m in members), frozenset(f[0] for f in filtered),
    )  # fmt: skip


def find_oid(session: psycopg.Connection, name: str) -> int:
    """The oid of the publication, or 0."""
    row = session.execute("select oid from pg_publication where pubname = %s", [name]).fetchone()
    return int(row[0]) if row else 0


def refuse_another(session: psycopg.Connection, name: str, oid: int) -> None:
    """Raise when the publication is not the one under which the position was reached."""
    found = find_oid(session, name)
    if oid and found != oid:
        state = "was dropped and made again" if found else "is gone"
        raise PositionLost(f"the publication {name} {state}: changes in between were not published")


def refuse_missing(session: psycopg.Connection, name: str, tables: Collection[TableId]) -> None:
    """Raise when tables that exist are not published (any more): their changes would be missed in silence."""
    names = {"namespaces": [t.namespace for t in tables], "names": [t.name for t in tables], "name": name}
    rows = session.execute(_UNPUBLISHED, names)
    missing = [TableId(*row) for row in rows.fetchall()]
    if missing:
        found = catalog.find_relations(session, missing)
        raise PreflightFailed(
            f"{', '.join(map(str, missing[:3]))}: not in the publication {name}, so that changes are missed",
            hint=f"{add_statement(name, [*found.values()])}   and then: headwater run --full",
        )


_UNPUBLISHED = """
with members as materialized (
    select m.relid from pg_publication p, pg_get_publication_tables(p.pubname) m where p.pubname = %(name)s
)
select w.namespace, w.name from unnest(%(namespaces)s::text[], %(names)s::text[]) as w(namespace, name)
join pg_namespace n on n.nspname = w.namespace
join pg_class c on c.relnamespace = n.oid and c.relname = w.name and c.relkind in ('r', 'p')
where c.oid not in (select relid from members)
order by 1, 2 limit 100
"""


def create_statement(name: str, relations: Sequence[Relation]) -> str:
    """The statement that makes the publication."""
    members = f" FOR TABLE {_listed(relations)}" if relations else ""
    return f"CREATE PUBLICATION {quote_name(name)}{members} WITH (publish_via_partition_root = true);"


def add_statement(name: str, relations: Sequence[Relation]) -> str:
    """The statement that adds tables to it."""
    return f"ALTER PUBLICATION {quote_name(name)} ADD TABLE {_listed(relations)};"


def _listed(relations: Sequence[Relation]) -> str:
    # ONLY: children of an ordinary table by inheritance are tables of their own to us.
    return ", ".join(
        f"{'' if r.kind == 'p' else 'ONLY '}{quote_table(r.table)}"
        for r in sorted(relations, key=lambda r: r.table)
    )


def refuse_unusable(relations: Mapping[TableId, Relation], tables: Collection[TableId]) -> None:
    """Raise for the first table that is not there or that capture would break."""
    for table in tables:
        relation = relations.get(table)
        if relation is None:
            raise PreflightFailed(f"{table} does not exist (dropped or renamed?)", hint="headwater tables")
        if relation.obstacle:
            raise PreflightFailed(f"{table}: {relation.obstacle}", hint=identity_choices(relation))


def identity_choices(relation: Relation) -> str:
    """What the owner of a table without a replica identity can choose from."""
    if relation.unkept:
        return "headwater tables   (shows the columns); then mend the table's key"
    if relation.identified and not relation.carried >= set(relation.chosen):
        return (
            f"ALTER TABLE {quote_table(relation.table)} REPLICA IDENTITY FULL;   or  ... REPLICA IDENTITY"
            f" USING INDEX <unique index over NOT NULL columns, {', '.join(relation.chosen)} among them>;"
        )
    if not relation.logged or relation.persistence != "p" or relation.parent:
        return f"exclude {relation.table} from the tables of the pipeline"
    name = (
        relation.naked_parts[0]
        if relation.identified and relation.naked_parts
        else quote_table(relation.table)
    )
    return (
        f"ALTER TABLE {name} ADD PRIMARY KEY (...);   or  ALTER TABLE {name} REPLICA IDENTITY USING INDEX"
        f" <unique index over NOT NULL columns>;   or  ALTER TABLE {name} REPLICA IDENTITY FULL;"
        + ("   (its primary key is DEFERRABLE, which cannot be an identity)" if relation.deferrable else "")
    )


def set_up_publication(
    server: Server, session: psycopg.Connection, name: str, relations: Mapping[TableId, Relation]
) -> tuple[TableId, ...]:
    """Make the publication hold these tables; returns those it did not hold before."""
    found = look_at_publication(session, name)
    if found is None:
        statement = create_statement(name, [*relations.values()])
        _attempt(server, session, f"create the publication {name}", statement)
        return tuple(relations)
    refuse_shape(found, relations.values())
    missing = [r for r in relations.values() if r.oid not in found.members]
    if missing:
        _attempt(server, session, f"extend the publication {name}", add_statement(name, missing))
    return tuple(r.table for r in missing)


def refuse_shape(found: Publication, relations: Collection[Relation]) -> None:
    """Raise when it leaves out operations, rows or columns, or partitions would come under own names."""
    for broken, why, fix in shape_faults(found, relations):
        if broken:
            raise PreflightFailed(f"publication {found.name}: {why}", hint=fix)


def shape_faults(found: Publication, relations: Collection[Relation]) -> list[tuple[bool, str, str]]:
    """Each condition a publication must meet: (broken, why, the statement that mends it)."""
    name = quote_name(found.name)
    filtered = [r for r in relations if r.oid in found.filtered]
    lists = _listed(filtered)
    return [
        (
            not all(found.operations),
            "does not publish insert, update, delete and truncate",
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');",
        ),
        (
            not found.via_root and any(r.kind == "p" for r in relations),
            "publishes partitions under their own names",
            f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true);",
        ),
        (
            found.generated,
            "publishes generated columns, which a snapshot does not hold",
            f"ALTER PUBLICATION {name} SET (publish_generated_columns = none);",
        ),
        (
            bool(filtered),
            f"has row filters or column lists on {lists}, which a snapshot would not follow",
            f"ALTER PUBLICATION {name} DROP TABLE {lists}; ALTER PUBLICATION {name} ADD TABLE {lists};",
        ),
    ]


def _attempt(server: Server, session: psycopg.Connection, doing: str, statement: str) -> None:
    refused = ""
    with server.guard(doing):
        try:
            session.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege as failed:
            refused = failed.diag.message_primary or "permission denied"
    if refused:
        raise PreflightFailed(f"cannot {doing}: {refused}; its owner must run the statement", hint=statement)
