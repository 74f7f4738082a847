"""The permanent slot: made once, looked at before every use; whatever could hide a gap is an error."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import psycopg

from headwater.errors import Conflict, PositionLost, PreflightFailed, SourceError
from headwater.sources.postgres.command import Identity, field, run_command
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.position import Place, format_lsn, parse_lsn
from headwater.sources.postgres.quoting import quote_name, quote_text


@dataclass(frozen=True, slots=True)
class SlotState:
    """A row of pg_replication_slots. LSNs are numbers; None: the server has none."""

    name: str
    plugin: str
    database: str
    here: bool  # belongs to the database we are connected to
    temporary: bool
    pid: int | None
    restart: int | None
    confirmed: int | None
    status: str  # wal_status: reserved extended unreserved lost
    safe_bytes: int | None
    retained: int | None  # bytes of log behind it
    cause: str  # why it is invalid, from PostgreSQL 16 on; "" when it is not
    end: int | None  # bytes of log the server ever wrote

    @property
    def lost(self) -> bool:
        """Whether it can never be used again."""
        return self.status == "lost" or bool(self.cause)


def look_at_slot(session: psycopg.Connection, name: str) -> SlotState | None:
    """The slot of that name, or None."""
    row = session.execute(_slot_query(session.info.server_version), [name]).fetchone()
    if row is None:
        return None
    (found, plugin, database, here, temporary, pid, restart, confirmed, status, safe, retained, *rest) = row
    cause, end = rest
    return SlotState(
        found, plugin or "", database or "", bool(here), temporary, pid, restart and parse_lsn(restart),
        confirmed and parse_lsn(confirmed), status or "", safe, retained, cause or "", end,
    )  # fmt: skip


def _slot_query(version: int) -> bytes:
    cause = "null"
    if version >= 170000:
        cause = "invalidation_reason"
    elif version >= 160000:
        cause = "case when conflicting then 'it conflicted with recovery' end"
    return f"""
        select slot_name, plugin, database, database = current_database(), temporary, active_pid,
               restart_lsn::text, confirmed_flush_lsn::text, wal_status, safe_wal_size,
               case when not pg_is_in_recovery() then pg_current_wal_lsn() - restart_lsn end::bigint, {cause},
               case when not pg_is_in_recovery() then pg_current_wal_lsn() - '0/0' end::bigint
        from pg_replication_slots where slot_name = %s""".encode()


def make_slot(
    server: Server, session: psycopg.Connection, name: str, *, failover: bool, seconds: float
) -> None:
    """Create the slot unless it is there; one of ours that is beyond use is made again."""
    found = look_at_slot(session, name)
    if found is not None:
        if not found.here or found.plugin != "pgoutput" or found.temporary:
            raise PreflightFailed(
                f"the replication slot {name} belongs to somebody else (database {found.database or 'none'},"
                f" plugin {found.plugin or 'none'})",
                hint="choose another name: source.slot in headwater.yml",
            )
        if not found.lost:
            return
        refuse_active(session, found)
        with server.guard(f"drop the lost slot {name}"):
            session.execute("select pg_drop_replication_slot(%s)", [name])
    _create(server, session, name, failover, seconds)


def _create(server: Server, session: psycopg.Connection, name: str, failover: bool, seconds: float) -> None:
    version = session.info.server_version
    options = "(SNAPSHOT 'nothing')" if version >= 150000 else "NOEXPORT_SNAPSHOT"
    if failover and version >= 170000:
        options = "(SNAPSHOT 'nothing', FAILOVER true)"
    with closing(server.sender()) as sender:
        run_command(
            server,
            sender,
            f"CREATE_REPLICATION_SLOT {quote_name(name)} LOGICAL pgoutput {options}",
            f"create the replication slot {name}",
            seconds=seconds,
            late=lambda: explain_wait(session, sender.info.backend_pid, seconds),
        )


def explain_wait(session: psycopg.Connection, pid: int, seconds: float) -> SourceError:
    """Why a slot is not made yet: that waits for every transaction that was open when it began."""
    rows = session.execute(
        "select b.pid, a.usename, a.application_name from unnest(pg_blocking_pids(%s)) as b(pid)"
        " left join pg_stat_activity a on a.pid = b.pid",
        [pid],
    ).fetchall()
    sessions = [f"{p} ({user or '?'}, {name or 'unnamed'})" for p, user, name in rows if p]
    prepared = [r[0] for r in session.execute("select gid from pg_prepared_xacts order by prepared limit 3")]
    if sessions:
        pids = [p for p, _, _ in rows if p]
        return SourceError(
            f"waited {seconds:.0f} s for an open transaction to end: process {', '.join(sessions)}",
            hint=f"wait for it, or end it: select pg_terminate_backend({pids[0]});",
        )
    if prepared:
        return SourceError(
            f"waited {seconds:.0f} s for a prepared transaction to end: {', '.join(prepared)}",
            hint=f"COMMIT PREPARED {quote_text(prepared[0])};   or ROLLBACK PREPARED",
        )
    return SourceError(f"the server did not make the slot within {seconds:.0f} s", hint="headwater run")


def refuse_active(session: psycopg.Connection, slot: SlotState) -> None:
    """Raise Conflict when a process is reading from the slot."""
    if slot.pid is None:
        return
    row = session.execute(
        "select application_name, client_addr::text from pg_stat_activity where pid = %s", [slot.pid]
    ).fetchone()
    name, address = row or ("", None)
    raise Conflict(
        f"the replication slot {slot.name} is in use by process {slot.pid} of the server"
        f" ({name or 'unnamed'}, {address or 'local'})",
        hint=f"stop the other run, or: select pg_terminate_backend({slot.pid});",
    )


def check_resume(
    server: Server, sender: psycopg.Connection, session: psycopg.Connection, here: Identity, since: Place
) -> SlotState:
    """Raise PositionLost unless all after `since` will still come out of its slot; `here` is the server."""
    _check_cluster(server, sender, here, since)
    name = since.slot
    slot = look_at_slot(session, name)
    if slot is None:
        raise PositionLost(
            f"the replication slot {name} is gone: changes since {format_lsn(since.lsn)} are lost"
        )
    if slot.plugin != "pgoutput" or not slot.here:
        raise PositionLost(
            f"the replication slot {name} is another one now (database {slot.database or 'none'})"
        )
    if slot.lost:
        cause = slot.cause or "the log it needs was removed (max_slot_wal_keep_size)"
        raise PositionLost(f"the replication slot {name} is invalid: {cause}")
    if slot.confirmed is None or slot.confirmed > since.lsn:
        reached = format_lsn(slot.confirmed) if slot.confirmed else "nothing"
        raise PositionLost(
            f"the replication slot {name} starts at {reached}, after our position {format_lsn(since.lsn)}:"
            " it was created again, or somebody else read from it"
        )
    return slot


def _check_cluster(server: Server, sender: psycopg.Connection, here: Identity, since: Place) -> None:
    if here.system != since.system:
        raise PositionLost(
            f"this is another server: system identifier {here.system}, ours was {since.system}"
        )
    if here.database != since.database:
        raise PositionLost(
            f"this is another database: {server.place()} has oid {here.database}, ours was {since.database}"
        )
    if here.timeline != since.timeline:
        _check_promotion(server, sender, here, since)
    if parse_lsn(here.flushed) < since.lsn:
        raise PositionLost(
            f"the server's log ends at {here.flushed}, before our position {format_lsn(since.lsn)}:"
            " it was restored from an older copy"
        )


def _check_promotion(server: Server, sender: psycopg.Connection, here: Identity, since: Place) -> None:
    """A promoted standby continues our log only if it left our timeline after our position."""
    lost = f"the server is on timeline {here.timeline}, our position on {since.timeline}"
    if here.timeline < since.timeline:
        raise PositionLost(f"{lost}: it was restored from an older copy")
    command = f"TIMELINE_HISTORY {here.timeline}"
    history = field(run_command(server, sender, command, "read the timeline's history"), 1)
    for line in history.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == str(since.timeline):
            if parse_lsn(words[1]) >= since.lsn:
                return
            raise PositionLost(f"{lost}, which it left at {words[1]}, before our {format_lsn(since.lsn)}")
    raise PositionLost(f"{lost}, which is not in its history")
