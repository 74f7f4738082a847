"""A cut: every table as of one LSN, through the snapshot that a temporary slot exports."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime

import psycopg
import pyarrow as pa
from psycopg import pq

from headwater.errors import SourceError
from headwater.model import ChangeBatch, Digest, Position, TableId, TableSchema
from headwater.sources.postgres import catalog
from headwater.sources.postgres.command import (
    Identity,
    explain_result,
    field,
    identify,
    run_command,
    wait_readable,
)
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.decode import decode_copy
from headwater.sources.postgres.digest import digest_query
from headwater.sources.postgres.position import Place, format_lsn, parse_lsn
from headwater.sources.postgres.quoting import quote_name, quote_table, quote_text
from headwater.sources.postgres.slot import explain_wait
from headwater.sources.postgres.window import arrange

#: Bytes of COPY text decoded at once; twice as much lies in memory at most.
CHUNK = 32 << 20
_SILENCE = 600.0


class PostgresCut:
    """The database frozen at one LSN."""

    def __init__(
        self,
        server: Server,
        reader: psycopg.Connection,
        session: Callable[[], psycopg.Connection],
        place: Place,
        at: datetime,
    ) -> None:
        self._server, self._reader, self._session = server, reader, session
        self._place, self._at = place, at
        self._locked: set[TableId] = set()

    @property
    def position(self) -> Position:
        """Where the cut is; commits that start before it are in the reads, all others are not."""
        return self._place.position()

    def read(self, table: TableId) -> Iterator[ChangeBatch]:
        """Every row as `r`, the last batch ``snapshot_end``; raises where row security would hide rows."""
        relation = self._hold(table)
        schema, natives = relation.schema, [c.native for c in relation.kept]
        first = 0
        held: list[bytes] = []
        size = 0
        for row in self._copy(table, select_all(relation)):
            held.append(row)
            size += len(row)
            if size >= CHUNK:
                rows = decode_copy(b"".join(held), natives, schema, first)
                held, size, first = [], 0, first + rows.num_rows
                yield ChangeBatch(schema, self._complete(rows, schema), "snapshot")
        rows = decode_copy(b"".join(held), natives, schema, first)
        yield ChangeBatch(schema, self._complete(rows, schema), "snapshot_end")

    def digest(self, schema: TableSchema, where: str = "") -> Digest:
        """The digest of the table's rows, computed by the server; `where` is SQL of the source."""
        relation = self._hold(schema.table)
        with self._server.guard(f"compute the digest of {schema.table}"):
            row = self._reader.execute(digest_query(schema, from_clause(relation), where).encode()).fetchone()
        rows, *words = row or (0, 0, 0, 0, 0)
        return Digest(int(rows), (int(words[0]), int(words[1]), int(words[2]), int(words[3])))

    def _hold(self, table: TableId) -> catalog.Relation:
        """Keep others from changing the table, and make sure that it is still the one of the snapshot."""
        if table not in self._locked:
            with self._server.guard(f"lock {table} for reading"):
                self._reader.execute(f"lock table {quote_table(table)} in access share mode".encode())
                rows = self._reader.execute(_MOVED, [quote_table(table)] * 2).fetchone()
            if rows is None or rows[0]:
                raise SourceError(
                    f"{table} was truncated or rewritten while the snapshot was being read",
                    hint="headwater run",
                )
            self._locked.add(table)
        with self._server.guard(f"look up {table}"):
            relation = catalog.find_relations(self._session(), [table]).get(table)
        if relation is None:
            raise SourceError(f"{table} does not exist any more", hint="headwater tables")
        return relation

    def _copy(self, table: TableId, query: str) -> Iterator[bytes]:
        raw = self._reader.pgconn
        doing = f"read {table}"
        run_command(self._server, self._reader, f"copy ({query}) to stdout", doing, seconds=_SILENCE)
        with self._server.guard(doing):
            heard = time.monotonic()
            while (data := raw.get_copy_data(1))[0] >= 0:
                if data[0] > 0:
                    heard = time.monotonic()
                    yield bytes(data[1])
                    continue
                if time.monotonic() - heard > _SILENCE:
                    raise SourceError(f"cannot {doing}: no word from the server for {_SILENCE:.0f} s")
                wait_readable(raw, 1.0)
                raw.consume_input()
            result = raw.get_result()
            while raw.get_result() is not None:
                pass
        if result is None or result.status == pq.ExecStatus.FATAL_ERROR:
            raise explain_result(self._server, result, doing) if result else SourceError(f"cannot {doing}")

    def _complete(self, rows: pa.Table, schema: TableSchema) -> pa.Table:
        count = rows.num_rows
        meta = {
            "_hw_pos": pa.repeat(pa.scalar(format_lsn(self._place.lsn)), count),
            "_hw_at": pa.repeat(pa.scalar(self._at, pa.timestamp("us", "UTC")), count),
            "_hw_tx": pa.nulls(count, pa.string()),
        }
        return arrange(rows, schema, meta)


def select_all(relation: catalog.Relation) -> str:
    """The query that reads the columns the log carries too."""
    return f"select {', '.join(quote_name(c.name) for c in relation.kept)} from {from_clause(relation)}"


def from_clause(relation: catalog.Relation) -> str:
    """A partitioned table is its whole tree; an ordinary one is itself, without children by inheritance."""
    return ("" if relation.kind == "p" else "only ") + quote_table(relation.table)


@contextmanager
def open_cut(
    server: Server,
    session: Callable[[], psycopg.Connection],
    place: Callable[[Identity, int], Place],
    seconds: float,
) -> Iterator[PostgresCut]:
    """Freeze the database. Waits for open transactions, at most `seconds`, then says which they are."""
    with closing(server.reader()) as reader:
        with closing(server.sender()) as sender:
            here = identify(server, sender)
            name = f"headwater_cut_{sender.info.backend_pid}"
            export = "(SNAPSHOT 'export')" if sender.info.server_version >= 150000 else "EXPORT_SNAPSHOT"
            made = run_command(
                server,
                sender,
                f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput {export}",
                "freeze the database (create a temporary slot)",
                seconds=seconds,
                late=lambda: explain_wait(session(), sender.info.backend_pid, seconds),
            )
            point, snapshot = field(made, 1), field(made, 2)
            if not re.fullmatch(r"[0-9A-Fa-f-]+", snapshot):
                raise SourceError("the server exported no snapshot")
            with server.guard("import the snapshot"):
                reader.execute("begin isolation level repeatable read read only")
                reader.execute(f"set transaction snapshot {quote_text(snapshot)}".encode())
                row = reader.execute("select clock_timestamp()").fetchone()
        # The slot is gone from here on; the imported snapshot lives as long as its transaction.
        if row is None:
            raise SourceError("the server told no time")
        yield PostgresCut(server, reader, session, place(here, parse_lsn(point)), row[0])


# The file each table had in the snapshot against the one of now: after TRUNCATE and most rewrites an older
# snapshot finds the new file empty.
_MOVED = """
select bool_or(c.relfilenode <> pg_relation_filenode(c.oid))
from pg_class c where c.relkind = 'r' and (c.oid = to_regclass(%s)
    or c.oid in (select t.relid from pg_partition_tree(to_regclass(%s)) t))
"""
