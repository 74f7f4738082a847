"""The preflight: what capture needs of server, role, publication, slot and tables. Reads only.

A failure's `fix` is the statement to run as it stands, or the choice between several.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import psycopg

from headwater.model import Finding, TableId
from headwater.sources.postgres import publish, slot
from headwater.sources.postgres.catalog import Relation
from headwater.sources.postgres.publish import Publication
from headwater.sources.postgres.quoting import quote_name, quote_table
from headwater.sources.postgres.rights import Rights, load_rights

_RESTART = "   -- then restart the server"
_RELOAD = " SELECT pg_reload_conf();"
_SPARE = 5  # connections that we leave to others, and say so
_SETTINGS = (
    "wal_level", "max_replication_slots", "max_wal_senders", "wal_sender_timeout", "max_slot_wal_keep_size",
    "idle_replication_slot_timeout", "synchronous_standby_names", "server_encoding",
)  # fmt: skip


def inspect(
    session: psycopg.Connection,
    slot_name: str,
    publication: str,
    tables: Sequence[TableId],
    known: Mapping[TableId, Relation],
    connections: int,
) -> list[Finding]:
    """Every finding; no `fail` among them means that a run can start. `connections` read a full load."""
    rows = session.execute("select name, setting from pg_settings where name = any(%s)", [list(_SETTINGS)])
    settings: dict[str, str] = dict(rows.fetchall())
    relations = {t: known[t] for t in tables if t in known}
    rights = load_rights(session, [r.oid for r in relations.values()])
    return [
        *_check_server(session, settings),
        *_check_settings(settings),
        *_check_room(session, settings, slot_name),
        *_check_connections(session, connections),
        *_check_role(session),
        *_check_slot(session, slot_name, settings),
        *_check_publication(session, publication, relations, rights),
        *(f for table in tables for f in _check_table(table, relations.get(table), rights)),
    ]


def inspect_whole(
    session: psycopg.Connection, tables: Sequence[TableId], known: Mapping[TableId, Relation]
) -> list[Finding]:
    """The same of tables and views that are read whole with each run."""
    if not tables:
        return []
    rights = load_rights(session, [known[t].oid for t in tables if t in known])
    return [f for t in tables for f in _check_whole(t, known.get(t), rights)]


def _judge(good: bool, what: str, found: str, fix: str) -> Finding:
    return Finding("ok" if good else "fail", what, found, "" if good else fix)


def _check_server(session: psycopg.Connection, settings: Mapping[str, str]) -> Iterator[Finding]:
    version = session.info.server_version
    found = f"PostgreSQL {version // 10000}.{version % 10000}"
    if version >= 190000:
        yield Finding("warn", "server version", f"{found}, newer than what was tested (14 to 18)")
    else:
        yield _judge(version >= 140000, "server version", found, "upgrade to PostgreSQL 14 or newer")
    row = session.execute("select pg_is_in_recovery()").fetchone()
    standby = bool(row and row[0])
    role = "a standby, which cannot be captured from" if standby else "primary"
    yield _judge(not standby, "server role", role, "give the source the address of the primary")
    encoding = settings["server_encoding"]
    yield _judge(
        encoding != "SQL_ASCII",
        "server encoding",
        encoding + (", which promises nothing about its bytes" if encoding == "SQL_ASCII" else ""),
        "dump the database and load it into one made WITH ENCODING 'UTF8'",
    )


def _check_settings(settings: Mapping[str, str]) -> Iterator[Finding]:
    level = settings["wal_level"]
    yield _judge(level == "logical", "wal_level", level, f"ALTER SYSTEM SET wal_level = 'logical';{_RESTART}")
    timeout = int(settings["wal_sender_timeout"])
    yield Finding("ok", "wal_sender_timeout", f"{timeout} ms here; our sessions set 60 s for themselves")
    keep = int(settings["max_slot_wal_keep_size"])
    if keep < 0:
        yield Finding(
            "warn",
            "max_slot_wal_keep_size",
            "unlimited: if nothing reads the slot for long, its log fills the server's disk",
            f"ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';{_RELOAD}",
        )
    else:
        yield Finding("ok", "max_slot_wal_keep_size", f"{keep} MB, then the slot is lost")
    if int(settings.get("idle_replication_slot_timeout", "0")):
        yield Finding(
            "warn",
            "idle_replication_slot_timeout",
            f"{settings['idle_replication_slot_timeout']}: a longer pause between runs loses the slot",
            f"ALTER SYSTEM SET idle_replication_slot_timeout = 0;{_RELOAD}",
        )
    if "*" in settings["synchronous_standby_names"]:
        yield Finding(
            "warn",
            "synchronous_standby_names",
            "names every standby (*), us too: commits would wait until we have written them",
            "ALTER SYSTEM SET synchronous_standby_names = '<the standbys by name>';" + _RELOAD,
        )


def _check_room(session: psycopg.Connection, settings: Mapping[str, str], name: str) -> Iterator[Finding]:
    row = session.execute(
        "select (select count(*) from pg_replication_slots where slot_name <> %s),"
        " (select count(*) from pg_stat_activity where backend_type = 'walsender'"
        "  and pid not in (select active_pid from pg_replication_slots"
        "                  where slot_name = %s and active_pid is not null))",
        [name, name],
    ).fetchone()
    slots, senders = row or (0, 0)
    for what, used in (("max_replication_slots", slots), ("max_wal_senders", senders)):
        most = int(settings[what])
        yield _judge(
            most - used >= 2,
            what,
            f"{most}, of which others use {used}; we need 2, one of them while tables are read whole",
            f"ALTER SYSTEM SET {what} = {used + 2};{_RESTART}",
        )


def _check_connections(session: psycopg.Connection, readers: int) -> Iterator[Finding]:
    """Connections that are free: a full load must not take the last one from the applications."""
    row = session.execute(
        "select current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - (select count(*) from pg_stat_activity where backend_type = 'client backend'"
        "    and pid <> pg_backend_pid())"
    ).fetchone()
    free = row[0] if row else 0
    # Beside the readers: one that looks things up. What reads the log counts as a sender.
    needed = readers + 1
    found = f"{free} are free; a full load takes {needed}, {readers} of them to read tables side by side"
    if free >= needed + _SPARE:
        yield Finding("ok", "max_connections", found)
    else:
        yield Finding(
            "warn" if free >= needed else "fail",
            "max_connections",
            found,
            f"connections: {max(1, free - 1 - _SPARE)}   in the source section of headwater.yml,"
            " or raise max_connections",
        )


def _check_role(session: psycopg.Connection) -> Iterator[Finding]:
    row = session.execute(
        "select current_user, rolreplication or rolsuper or exists (select from pg_roles m"
        " where m.rolname = 'rds_replication' and pg_has_role(m.oid, 'member')),"
        " has_database_privilege(current_database(), 'connect'), current_database()"
        " from pg_roles r where r.rolname = current_user"
    ).fetchone()
    user, replication, connect, database = row or ("", False, False, "")
    yield _judge(
        replication,
        "role attribute REPLICATION",
        f"{user} {'has it' if replication else 'lacks it'}",
        f"ALTER ROLE {quote_name(user)} REPLICATION;"
        f"   -- Amazon RDS: GRANT rds_replication TO {quote_name(user)};",
    )
    yield _judge(
        connect,
        "privilege CONNECT",
        f"{user} {'has it' if connect else 'lacks it'}",
        f"GRANT CONNECT ON DATABASE {quote_name(database)} TO {quote_name(user)};",
    )


def _check_slot(session: psycopg.Connection, name: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    found = slot.look_at_slot(session, name)
    what = f"replication slot {name}"
    if found is None:
        yield Finding("ok", what, "not there yet; the first run makes it")
    elif not found.here or found.plugin != "pgoutput" or found.temporary:
        where = f"belongs to database {found.database or 'none'}, plugin {found.plugin or 'none'}"
        yield Finding("fail", what, where, "slot: <another name>   in the source section of headwater.yml")
    elif found.lost:
        cause = found.cause or "its log was removed"
        yield Finding("fail", what, f"lost: {cause}", "headwater run --full")
    else:
        yield _judge_slot(found, what, int(settings["max_slot_wal_keep_size"]) << 20)


def _judge_slot(found: slot.SlotState, what: str, keep: int) -> Finding:
    used = f", in use by process {found.pid}" if found.pid else ""
    state = f"{found.status}, holds back {found.retained or 0} bytes of log{used}"
    scarce = found.safe_bytes is not None and keep > 0 and found.safe_bytes < keep // 5
    if found.status == "unreserved" or scarce:
        return Finding("warn", what, f"{state}; {found.safe_bytes} bytes until it is lost", "headwater run")
    return Finding("ok", what, state)


def _check_publication(
    session: psycopg.Connection,
    name: str,
    relations: Mapping[TableId, Relation],
    rights: Mapping[int, Rights],
) -> Iterator[Finding]:
    found = publish.look_at_publication(session, name)
    what = f"publication {name}"
    usable = [r for r in relations.values() if not r.obstacle]
    owned = all(rights[r.oid].owner for r in usable)
    if found is None:
        row = session.execute("select has_database_privilege(current_database(), 'create')").fetchone()
        if not usable or (owned and row and row[0]):
            yield Finding("ok", what, "not there yet; the first run makes it")
        else:
            fix = publish.create_statement(name, usable)
            yield Finding("fail", what, "not there, and this role may not make it", fix)
        return
    faults = [(why, fix) for broken, why, fix in publish.shape_faults(found, usable) if broken]
    for why, fix in faults:
        yield Finding("fail", what, why, fix)
    if not faults:
        yield Finding("ok", what, f"owned by {found.owner}")
    if found.every_table:
        yield Finding(
            "warn", what, "FOR ALL TABLES: a table dropped and made again between two runs is not noticed"
        )
    yield from _check_members(session, found, usable, owned=owned)


def _check_members(
    session: psycopg.Connection, found: Publication, usable: Collection[Relation], *, owned: bool
) -> Iterator[Finding]:
    missing = [r for r in usable if r.oid not in found.members]
    if not missing:
        return
    what = f"publication {found.name}"
    row = session.execute("select pg_has_role(%s, 'usage')", [found.owner]).fetchone()
    if owned and row and row[0]:
        yield Finding("ok", what, f"{len(missing)} tables are not in it yet; the next run adds them")
    else:
        fix = publish.add_statement(found.name, missing)
        yield Finding("fail", what, f"lacks {len(missing)} tables, and this role may not add them", fix)


def _check_table(
    table: TableId, relation: Relation | None, rights: Mapping[int, Rights]
) -> Iterator[Finding]:
    if relation is None:
        yield Finding("fail", "table", "does not exist, or is no table", "headwater tables", table)
        return
    faults = [*_privilege_faults(relation, rights[relation.oid])]
    if relation.obstacle:
        faults.append(("capture", relation.obstacle, publish.identity_choices(relation)))
    for what, found, fix in faults:
        yield Finding("fail", what, found, fix, table)
    for what, found in _remarks(relation):
        yield Finding("warn", what, found, "", table)
    if not faults:
        key = ", ".join(relation.schema.key)
        yield Finding("ok", "table", f"key: {key}" if key else "no key: its rows are counted", "", table)


def _check_whole(
    table: TableId, relation: Relation | None, rights: Mapping[int, Rights]
) -> Iterator[Finding]:
    if relation is None:
        yield Finding("fail", "table", "does not exist", "headwater tables", table)
        return
    faults = [*_privilege_faults(relation, rights[relation.oid])]
    if relation.unkept:
        missing = ", ".join(relation.unkept)
        faults.append(("key", f"has no column {missing}, which its key names", "headwater tables"))
    for what, found, fix in faults:
        yield Finding("fail", what, found, fix, table)
    if not faults:
        key = ", ".join(relation.schema.key)
        found = f"read whole with each run; {f'key: {key}' if key else 'no key: its rows are counted'}"
        yield Finding("ok", "table", found, "", table)


def _privilege_faults(relation: Relation, rights: Rights) -> Iterator[tuple[str, str, str]]:
    name, role = quote_table(relation.table), quote_name(rights.role)
    if not rights.usage:
        schema = quote_name(relation.table.namespace)
        yield "privilege USAGE", f"{rights.role} lacks it", f"GRANT USAGE ON SCHEMA {schema} TO {role};"
    if not rights.select:
        yield "privilege SELECT", f"{rights.role} lacks it", f"GRANT SELECT ON TABLE {name} TO {role};"
    if rights.filtered:
        yield (
            "row security",
            f"hides rows from {rights.role}, while the log holds them all",
            f"ALTER ROLE {role} BYPASSRLS;",
        )


def _remarks(relation: Relation) -> Iterator[tuple[str, str]]:
    generated = [c.name for c in relation.columns if c.generated]
    if generated:
        yield "generated columns", f"not captured, since the log lacks them: {', '.join(generated)}"
    nullable = [c.name for c in relation.kept if c.nullable and c.name in relation.chosen]
    if nullable:
        names = ", ".join(nullable)
        yield "key", f"{names} may be NULL: a row with NULL there stops the table"
    if relation.chosen:
        return
    if relation.identity == "i" and relation.primary and set(relation.index) != set(relation.primary):
        yield "replica identity", "is another index than the primary key: its columns are the key of the copy"
    if relation.identity == "f" and not relation.primary:
        yield "replica identity", "FULL without a primary key: each update is logged with its old row"
