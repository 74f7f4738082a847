"""Connections that all see one snapshot, so that threads can read tables side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from headwater.errors import SourceError
from headwater.model import TableId
from headwater.sources.postgres import catalog
from headwater.sources.postgres.catalog import ChosenKeys, Relation
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.quoting import quote_table, quote_text


@dataclass(eq=False, slots=True)
class Reader:
    """One connection, and the tables that it keeps others from changing."""

    connection: psycopg.Connection
    held: set[TableId] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Look:
    """How tables are looked up; `unlogged` are those that nobody can lock: views and the like."""

    session: Callable[[], psycopg.Connection]
    keys: ChosenKeys = catalog.no_keys
    unlogged: frozenset[TableId] = frozenset()


class Readers:
    """At most `most` connections; the first is given, the others are opened when they are needed."""

    def __init__(
        self,
        server: Server,
        first: psycopg.Connection,
        snapshot: str,
        most: int,
        look: Look,
    ) -> None:
        self._server, self._snapshot, self._most, self._look = server, snapshot, most, look
        self._all = [Reader(first)]
        self._free = list(self._all)
        self._opening = 0
        self._change = threading.Condition()
        self._looking = threading.Lock()
        self._relations: dict[TableId, Relation] = {}
        self.stopped = threading.Event()

    @contextmanager
    def borrow(self, table: TableId) -> Iterator[tuple[psycopg.Connection, Relation]]:
        """A connection that holds the table, and what the table looks like for as long as it is held."""
        reader = self._take(table)
        try:
            held = self._hold(reader, table)
        except BaseException:
            self._give(reader)
            raise
        if not held:
            # Somebody waits to alter the table: only who holds it already gets in before him.
            self._give(reader)
            reader = self._take(table, holding=True)
        try:
            yield reader.connection, self._relations[table]
        finally:
            self._give(reader)

    def stop(self) -> None:
        """Make every read end soon, with an error; any thread may ask for it."""
        self.stopped.set()
        with self._change:
            self._change.notify_all()
            busy = [r for r in self._all if r not in self._free]
        for reader in busy:
            with suppress(psycopg.Error):
                reader.connection.cancel_safe(timeout=3)

    def close(self) -> None:
        """Close what was opened beside the first connection."""
        for reader in self._all[1:]:
            reader.connection.close()

    def _take(self, table: TableId, *, holding: bool = False) -> Reader:
        with self._change:
            while True:
                if self.stopped.is_set():
                    raise SourceError("reading was stopped")
                fitting = [r for r in self._free if table in r.held] or ([] if holding else self._free)
                if fitting:
                    self._free.remove(found := fitting[0])
                    return found
                if not holding and len(self._all) + self._opening < self._most:
                    self._opening += 1
                    break
                self._change.wait()
        return self._open()

    def _open(self) -> Reader:
        made: Reader | None = None
        try:
            connection = self._server.reader()
            with self._server.guard("import the snapshot"):
                start_reading(connection, self._snapshot)
            made = Reader(connection)
        finally:
            with self._change:
                self._opening -= 1
                if made is not None:
                    self._all.append(made)
        return made

    def _give(self, reader: Reader) -> None:
        with self._change:
            self._free.append(reader)
            self._change.notify_all()

    def _hold(self, reader: Reader, table: TableId) -> bool:
        """Keep others from changing the table; False when only who holds it already may have it."""
        if table in reader.held:
            return True
        if table not in self._look.unlogged and not self._lock(reader, table):
            return False
        if table not in self._relations:
            self._relations[table] = self._find(table)
        with self._change:
            reader.held.add(table)
        return True

    def _lock(self, reader: Reader, table: TableId) -> bool:
        with self._change:
            shared = any(table in r.held for r in self._all)
        with self._server.guard(f"lock {table} for reading"):
            if shared:
                return _lock_at_once(reader.connection, table)
            reader.connection.execute(f"lock table {quote_table(table)} in access share mode".encode())
            _refuse_moved(reader.connection, table)
        return True

    def _find(self, table: TableId) -> Relation:
        with self._looking, self._server.guard(f"look up {table}"):
            look = self._look
            relation = catalog.find_relations(look.session(), [table], look.keys).get(table)
        if relation is None:
            raise SourceError(f"{table} does not exist any more", hint="headwater tables")
        return relation


def start_reading(connection: psycopg.Connection, snapshot: str) -> None:
    """Begin the transaction that sees the snapshot."""
    connection.execute("begin isolation level repeatable read read only")
    connection.execute(f"set transaction snapshot {quote_text(snapshot)}".encode())


def _lock_at_once(connection: psycopg.Connection, table: TableId) -> bool:
    lock = f"lock table {quote_table(table)} in access share mode nowait"
    try:
        connection.execute(f"savepoint headwater; {lock}; release savepoint headwater".encode())
    except psycopg.errors.LockNotAvailable:
        connection.execute("rollback to savepoint headwater; release savepoint headwater")
        return False
    return True


def _refuse_moved(connection: psycopg.Connection, table: TableId) -> None:
    """The file each table had in the snapshot against the one of now.

    After TRUNCATE and most rewrites an older snapshot finds the new file empty.
    """
    row = connection.execute(_MOVED, [quote_table(table)] * 2).fetchone()
    if row is None or row[0]:
        raise SourceError(
            f"{table} was truncated or rewritten while the snapshot was being read", hint="headwater run"
        )


_MOVED = """
select bool_or(c.relfilenode <> pg_relation_filenode(c.oid))
from pg_class c where c.relkind = 'r' and (c.oid = to_regclass(%s)
    or c.oid in (select t.relid from pg_partition_tree(to_regclass(%s)) t))
"""
