"""PostgresSource: the `Source` protocol over the rooms beside it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing

import psycopg

from headwater.config import memory_bytes
from headwater.errors import ConfigError, Conflict, SourceError
from headwater.model import ChangeBatch, Finding, Position, Reference, TableId, TableInfo, TableSchema
from headwater.sources import Cut
from headwater.sources.postgres import catalog, check, grants, holders, publish, slot
from headwater.sources.postgres.catalog import ChosenKeys
from headwater.sources.postgres.command import Identity, identify
from headwater.sources.postgres.connect import make_server
from headwater.sources.postgres.cut import Gentle, open_cut
from headwater.sources.postgres.fills import with_fills
from headwater.sources.postgres.follow import Follower, Limits, Reached
from headwater.sources.postgres.position import Place, format_lsn, parse_lsn, read_place
from headwater.sources.postgres.readers import Look
from headwater.sources.postgres.references import find_references
from headwater.sources.postgres.stream import Stream
from headwater.sources.postgres.versions import Versions, must_reload
from headwater.sources.postgres.window import Window

#: For so long (seconds) an idle server that was seen to be ours is believed over the same session.
_CHECK_SECONDS = 10.0


class PostgresSource:
    """One database, one publication, one slot. Keyword arguments win over the same ones in `url`.

    cut_seconds       how long a cut or a new slot waits for transactions that are open
    takeover_seconds  how long to wait for another process of ours to let go of the slot
    window_bytes      changes decoded at once, in bytes of log; a multiple of it is the memory taken
    window_rows       the same in changes
    failover          (PostgreSQL 17) let the slot follow to standbys
    connections       how many connections a full load reads with
    cut_minutes       how long one snapshot is read from; then a new one is taken for what is missing
    max_bytes_per_second  what a full load takes from the server, over all connections; 0: no bound
    wal_budget        how much log the server may keep for us, such as 20GB, where it has no bound itself
    keys              which columns the user chose as the key of a table, instead of its own
    """

    def __init__(  # noqa: PLR0913  each is one word of the source section of headwater.yml
        self,
        *,
        slot: str,
        publication: str,
        url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        user: str | None = None,
        password: str | None = None,
        dbname: str | None = None,
        sslmode: str | None = None,
        sslrootcert: str | None = None,
        sslcert: str | None = None,
        sslkey: str | None = None,
        connect_timeout: int = 10,
        cut_seconds: float = 300.0,
        takeover_seconds: float = 10.0,
        window_bytes: int = 16 << 20,
        window_rows: int = 100_000,
        failover: bool = False,
        connections: int = 2,
        cut_minutes: float = 30,
        max_bytes_per_second: int = 0,
        wal_budget: str | None = None,
        keys: ChosenKeys = catalog.no_keys,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9_]{1,63}", slot):
            raise ConfigError(
                f"{slot!r} is no name for a replication slot",
                hint="1 to 63 of a-z, 0-9 and _, such as headwater",
            )
        if not 0 < len(publication.encode()) <= 63 or "\0" in publication:
            raise ConfigError(
                f"{publication!r} is no name for a publication", hint="1 to 63 bytes, such as headwater"
            )
        given = {
            "host": host, "port": port, "user": user, "password": password, "dbname": dbname,
            "sslmode": sslmode, "sslrootcert": sslrootcert, "sslcert": sslcert, "sslkey": sslkey,
        }  # fmt: skip
        self._server = make_server(url, given, connect_timeout=connect_timeout)
        self._slot, self._publication = slot, publication
        self._cut_seconds, self._takeover_seconds = cut_seconds, takeover_seconds
        self._limits = Limits(bytes=window_bytes, rows=window_rows)
        self._failover = failover
        self._gentle = Gentle(connections, cut_minutes * 60, max_bytes_per_second)
        self._wal_budget = memory_bytes(wal_budget) if wal_budget else None
        self._keys = keys
        self._unlogged: frozenset[TableId] = frozenset()  # views and the like, as `tables` last saw them
        self._look: psycopg.Connection | None = None
        self._here: Identity | None = None  # of the server that `_look` is connected to
        self._stream: Stream | None = None
        self._last_pid = 0
        # Where it was last seen that the log goes on behind a place: LSN, through which session, when.
        self._checked: tuple[int, psycopg.Connection | None, float] = 0, None, 0.0
        self._published = 0  # oid of the publication; 0: not looked up yet
        self._confirmed = 0

    def check(self, tables: Sequence[TableId], whole: Sequence[TableId] = ()) -> Sequence[Finding]:
        """The preflight of server, role, publication, slot and the given tables; changes nothing."""
        with self._server.guard("check the server"):
            session = self._session()
            relations = catalog.find_relations(session, [*tables, *whole], self._keys)
            return [
                *check.inspect(
                    session, self._slot, self._publication, tables, relations, self._gentle.connections
                ),
                *check.inspect_whole(session, whole, relations),
            ]

    def tables(self) -> Sequence[TableInfo]:
        """Every table and view that could be captured, partitions under their root."""
        with self._server.guard("list the tables"):
            infos = catalog.list_tables(self._session(), self._keys)
        self._unlogged = frozenset(i.schema.table for i in infos if not i.logged)
        return infos

    def head(self) -> Position:
        """The end of the log that is safe on the server's disk."""
        flushed = self._flushed()
        if self._here is None:
            with closing(self._server.sender()) as sender:
                self._here = identify(self._server, sender)
        return self._place(self._here, flushed).position()

    def behind(self, position: Position) -> int:
        """Bytes of log between the position and the head."""
        return max(0, self._flushed() - read_place(position).lsn)

    def show(self, position: Position) -> str:
        """The position's LSN."""
        return format_lsn(read_place(position).lsn)

    def prepare(self, tables: Sequence[TableId], since: Position | None) -> Sequence[TableId]:
        """Publication first, then slot; returns the tables whose changes were not kept until now.

        A publication made after the slot would break the decoding of what lies between.
        """
        with self._server.guard("prepare the capture"):
            session = self._session()
            relations = catalog.find_relations(session, tables, self._keys)
            publish.refuse_unusable(relations, tables)
            if since is not None and self._stream is None:
                self._check_resume(read_place(since))
            added = publish.set_up_publication(self._server, session, self._publication, relations)
            self._published = publish.find_oid(session, self._publication)
            if since is None:
                slot.make_slot(
                    self._server, session, self._slot, failover=self._failover, seconds=self._cut_seconds
                )
        return added

    def unlogged(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableId]:
        """The tables altered since they had the known schema in a way that the log does not show."""
        with self._server.guard("look up the tables"):
            relations = catalog.find_relations(self._session(), list(known), self._keys)
        return [
            table
            for table, now in relations.items()
            if must_reload(known[table], *_next(known[table], now), rewritten=now.rewritten)
        ]

    def evolved(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableSchema]:
        """The schemas of the tables that were altered since they had the known one."""
        with self._server.guard("look up the tables"):
            relations = catalog.find_relations(self._session(), list(known), self._keys)
        found = [_next(known[table], now)[0] for table, now in relations.items()]
        return [schema for schema in found if schema != known[schema.table]]

    def cut(self) -> AbstractContextManager[Cut]:
        """The database frozen at an LSN, for reading whole tables."""
        look = Look(self._session, self._keys, self._unlogged)
        return open_cut(self._server, look, self._place, self._cut_seconds, self._gentle)

    def changes(
        self,
        tables: Sequence[TableId],
        since: Position,
        until: Position | None = None,
        *,
        known: Mapping[TableId, TableSchema] | None = None,
    ) -> Iterator[ChangeBatch | Position]:
        """Changes of the tables up to `until`, else up to the head; see `Source.changes`."""
        place = read_place(since)
        goal = read_place(until).lsn if until is not None else self._flushed()
        if goal <= place.lsn:
            self._check_standstill(place, goal if until is None else place.lsn)
            yield since
            return
        stream, expected = self._stream_at(place)
        with self._server.guard("look at the publication"):
            publish.refuse_missing(self._session(), self._publication, tables)
        versions = Versions(self._session, known or {}, self._keys)
        window = Window(tables, versions, stream.relations)
        follower = Follower(stream, window, goal, self._limits, exact=until is not None, witness=expected)
        complete = False
        try:
            with self._server.guard("read the log"):
                for item in follower.run(self._nudge):
                    if not isinstance(item, Reached):
                        yield item
                        continue
                    complete = item.end
                    yield (
                        until
                        if item.end and until is not None
                        else self._place(stream.identity, item.lsn, item.witness).position()
                    )
        finally:
            # Broken, or left in the middle: where it stands is not known any more.
            if not complete:
                self._drop_stream(orderly=False)

    def confirm(self, position: Position) -> None:
        """Let the server forget what lies before the position."""
        place = read_place(position)
        if place.lsn <= self._confirmed:
            return
        stream = self._stream or self._stream_at(place)[0]
        stream.confirm(place.lsn)
        self._confirmed = place.lsn

    def facts(self) -> Mapping[str, str | int | None]:
        """What the server keeps for the slot, and what else holds its log; see docs/postgres.md."""
        with self._server.guard("look at the slot"):
            session = self._session()
            found = slot.look_at_slot(session, self._slot)
            if found is None:
                return {"slot": self._slot, "wal_status": "missing"}
            held_by, release, disk = holders.look(session, self._slot)
        return {
            "slot": self._slot,
            "wal_status": found.status,
            "retained_bytes": found.retained,
            "safe_wal_size": found.safe_bytes,
            "wal_budget": self._wal_budget,
            "wal_on_disk": disk,
            "log_end_bytes": found.end,
            "held_by": held_by or None,
            "release": release or None,
            "active_pid": found.pid,
            "invalid": found.cause or None,
        }

    def references(self) -> Sequence[Reference]:
        """The foreign keys that the server enforces over all rows."""
        with self._server.guard("look up the foreign keys"):
            return find_references(self._session())

    def grants(self, tables: Sequence[TableId], role: str = "headwater") -> list[str]:
        """The statements with which an administrator gives a role exactly what capture needs."""
        with self._server.guard("look up the tables"):
            relations = catalog.find_relations(self._session(), tables)
        return grants.statements(
            role,
            self._session().info.dbname,
            self._publication,
            [relations[t] for t in tables if t in relations],
        )

    def close(self) -> None:
        """Let go of every connection; slot and publication stay."""
        self._drop_stream()
        if self._look is not None:
            self._look.close()
            self._look = None

    def _session(self) -> psycopg.Connection:
        if self._look is not None and self._look.closed:
            # What ended it most likely ended the stream too.
            self._look = None
            self._drop_stream()
        if self._look is None:
            self._look, self._here = self._server.session(), None
        return self._look

    def _flushed(self) -> int:
        """The end of the flushed log: nothing beyond it is committed for good, nor ever sent."""
        query = b"select pg_current_wal_flush_lsn()::text"
        with self._server.guard("ask for the end of the log"):
            try:
                row = self._session().execute(query).fetchone()
            except psycopg.OperationalError:
                # The server may have been restarted since we last asked.
                if self._look is None or not self._look.closed:
                    raise
                row = self._session().execute(query).fetchone()
        if row is None:
            raise SourceError("the server told no end of its log")
        return parse_lsn(row[0])

    def _nudge(self) -> None:
        """Make an idle server flush its log: half a record at its end would keep us from reaching it."""
        with contextlib.suppress(psycopg.Error):
            self._session().execute("select pg_logical_emit_message(true, 'headwater', '')")

    def _stream_at(self, place: Place) -> tuple[Stream, str]:
        """A stream that stands at the place, and the transaction that must come first to prove it right."""
        if self._stream is not None and self._stream.at == place.lsn:
            return self._stream, ""
        self._drop_stream()
        with self._server.guard("open the log"):
            found = self._check_resume(place)
            sender = self._server.sender()
            try:
                stream = Stream(self._server, sender, self._slot, self._publication)
                self._published = place.publication
                stream.witness = place.witness
                # Should the server start before our position, what it sends first proves it to be ours.
                proof = place.witness_lsn() >= (found.confirmed or 0)
                stream.start(place.lsn, replay=proof)
            except BaseException:
                sender.close()
                raise
        self._stream, self._last_pid = stream, stream.pid
        return stream, place.witness if proof else ""

    def _check_standstill(self, place: Place, head: int) -> None:
        """Nothing to read is good news only from the server and slot that we know."""
        if head < place.lsn:
            self._drop_stream(orderly=False)
        lsn, session, at = self._checked
        fresh = lsn == place.lsn and session is self._session() and time.monotonic() - at < _CHECK_SECONDS
        if self._stream is None and not fresh:
            with self._server.guard("look at the slot"):
                self._check_resume(place)

    def _check_resume(self, place: Place) -> slot.SlotState:
        """Make sure that the log goes on behind the place, and that the slot is free or ours."""
        if place.slot != self._slot:
            raise Conflict(
                f"the raw log was captured through the slot {place.slot}, this source names {self._slot}",
                hint=f"slot: {place.slot}   in the source section of headwater.yml",
            )
        session = self._session()
        with closing(self._server.sender()) as sender:
            self._here = identify(self._server, sender)
            found = slot.check_resume(self._server, sender, session, self._here, place)
        self._checked = place.lsn, session, time.monotonic()
        publish.refuse_another(self._session(), self._publication, place.publication)
        if found.pid is not None:
            self._wait_for_slot(found.pid)
        return found

    def _wait_for_slot(self, pid: int | None) -> None:
        """Give a process that is about to end the time for it; our own lost one is ended."""
        session = self._session()
        deadline = time.monotonic() + self._takeover_seconds
        if pid is not None and pid == self._last_pid:
            session.execute("select pg_terminate_backend(%s)", [pid])
        while (found := slot.look_at_slot(session, self._slot)) is not None and found.pid is not None:
            if time.monotonic() > deadline:
                slot.refuse_active(session, found)
            time.sleep(0.1)

    def _place(self, here: Identity, lsn: int, witness: str = "") -> Place:
        if not self._published:
            self._published = publish.find_oid(self._session(), self._publication)
        return Place(lsn, here.system, here.timeline, here.database, self._slot, self._published, witness)

    def _drop_stream(self, *, orderly: bool = True) -> None:
        if self._stream is not None:
            self._stream.close(orderly=orderly)
            self._stream = None


def _next(before: TableSchema, now: catalog.Relation) -> tuple[TableSchema, Sequence[catalog.SourceColumn]]:
    """The schema that the next change would come under, and its columns."""
    return with_fills(before, now.schema, now.kept), now.kept
