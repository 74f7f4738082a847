"""A cut: every table as of one LSN, through the snapshot that a temporary slot exports."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
import pyarrow as pa

from headwater.errors import SourceError
from headwater.model import ChangeBatch, Digest, Position, TableId, TableSchema
from headwater.sources import Begun
from headwater.sources.postgres import keyed, parts
from headwater.sources.postgres.binary import select_item
from headwater.sources.postgres.catalog import Relation
from headwater.sources.postgres.command import Identity, field, identify, run_command
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.copies import ahead, receive
from headwater.sources.postgres.copybinary import decode_copy
from headwater.sources.postgres.digest import digests_query, slice_condition
from headwater.sources.postgres.position import Place, format_lsn, parse_lsn
from headwater.sources.postgres.quoting import quote_table
from headwater.sources.postgres.readers import Look, Readers, start_reading
from headwater.sources.postgres.slot import explain_wait
from headwater.sources.postgres.throttle import Throttle
from headwater.sources.postgres.window import arrange

#: Bytes of rows, as they come, that become one batch.
BATCH = 32 << 20


@dataclass(frozen=True, slots=True)
class Gentle:
    """What reading whole tables may cost the server."""

    connections: int = 2  # that read at the same time
    seconds: float = 1800.0  # after which a snapshot should end: it keeps VACUUM from removing old rows
    bytes_per_second: int = 0  # over all connections; 0: no bound


class PostgresCut:
    """The database frozen at one LSN."""

    def __init__(self, server: Server, readers: Readers, place: Place, at: datetime, gentle: Gentle) -> None:
        self._server, self._readers = server, readers
        self._place, self._at, self._gentle = place, at, gentle
        self._throttle = Throttle(gentle.bytes_per_second)
        self._end = time.monotonic() + gentle.seconds
        self._sizes: dict[TableId, int] = {}  # bytes of a part, about

    @property
    def position(self) -> Position:
        """Where the cut is; commits that start before it are in the reads, all others are not."""
        return self._place.position()

    @property
    def readers(self) -> int:
        """How many connections may read at once."""
        return self._gentle.connections

    @property
    def expired(self) -> bool:
        """Whether the snapshot has been held for as long as it should."""
        return time.monotonic() >= self._end

    def parts(self, table: TableId, begun: Begun | None = None) -> Sequence[str] | None:
        """Ranges of heap blocks; None where schema, files or keys do not let the reading go on."""
        with self._readers.borrow(table) as (reader, relation):
            if begun and (begun.schema != relation.schema or not keyed.findable(relation, begun.keys)):
                return None
            with self._server.guard(f"look at the size of {table}"):
                rows = reader.execute(_FILES, [quote_table(table)] * 2).fetchall()
        if not rows or not all(row[4] for row in rows):
            return None if begun else [""]
        files = [parts.File(*row[:4]) for row in rows]
        names = parts.name_parts(files, begun.parts if begun else ())
        self._sizes[table] = sum(file.bytes for file in files) // max(len(names or ()), 1)
        return names

    def read(self, table: TableId, part: str = "") -> Iterator[ChangeBatch]:
        """Rows as `r`, the last batch ``snapshot_end``; raises where row security would hide rows."""
        with self._readers.borrow(table) as (reader, relation):
            query = select_all(relation)
            if part:
                query += f" where {parts.condition(part)}"
            yield from self._batches(reader, relation, [query])

    def find(self, table: TableId, keys: pa.Table) -> Iterator[ChangeBatch]:
        """The rows with these keys, as `read` gives them."""
        with self._readers.borrow(table) as (reader, relation):
            yield from self._batches(reader, relation, keyed.queries(relation, from_clause(relation), keys))

    def stop(self) -> None:
        """Make every read end soon, with an error."""
        self._readers.stop()

    def digests(self, schema: TableSchema, slices: int = 1, part: str = "") -> Mapping[int, Digest]:
        """The digests of the slices of a part, computed by the server in one statement."""
        where = parts.condition(part) if part else ""
        with (
            self._readers.borrow(schema.table) as (reader, relation),
            self._server.guard(f"compute the digest of {schema.table}"),
        ):
            query = digests_query(schema, from_clause(relation), slices, where)
            rows = reader.execute(query.encode()).fetchall()
        # Nothing of it comes to us, but the server has read it.
        self._pace(self._sizes.get(schema.table, 0))
        return {number: Digest(int(n), (int(a), int(b), int(c), int(d))) for number, n, a, b, c, d in rows}

    def pick(
        self, schema: TableSchema, slices: int, chosen: Collection[int], part: str = ""
    ) -> Iterator[ChangeBatch]:
        """The rows of some slices, as `read` gives them."""
        with self._readers.borrow(schema.table) as (reader, relation):
            query = f"{select_all(relation)} where {slice_condition(schema, slices, chosen)}"
            if part:
                query += f" and {parts.condition(part)}"
            yield from self._batches(reader, relation, [query])

    def _batches(
        self, reader: psycopg.Connection, relation: Relation, queries: Iterable[str]
    ) -> Iterator[ChangeBatch]:
        received = receive(self._server, reader, relation.table, queries, self._pace)
        natives = [c.native for c in relation.kept]
        decoded: list[pa.Table] = []
        size = count = 0
        with closing(ahead(received, reader)) as pieces:
            for parts, more in pieces:
                decoded.append(decode_copy(parts, natives, relation.schema, count))
                size += sum(part.size for part in parts)
                count += decoded[-1].num_rows
                if size < BATCH and more:
                    continue
                rows = self._complete(pa.concat_tables(decoded), relation.schema)
                decoded, size, count = [], 0, 0
                yield ChangeBatch(relation.schema, rows, "snapshot" if more else "snapshot_end")

    def _pace(self, size: int) -> None:
        self._throttle.wait(size, self._readers.stopped)

    def _complete(self, rows: pa.Table, schema: TableSchema) -> pa.Table:
        count = rows.num_rows
        meta = {
            "_hw_pos": pa.repeat(pa.scalar(format_lsn(self._place.lsn)), count),
            "_hw_at": pa.repeat(pa.scalar(self._at, pa.timestamp("us", "UTC")), count),
            "_hw_tx": pa.nulls(count, pa.string()),
        }
        return arrange(rows, schema, meta)


def select_all(relation: Relation) -> str:
    """The query that reads the columns the log carries too."""
    wanted = ", ".join(select_item(c.name, c.native) for c in relation.kept)
    return f"select {wanted} from {from_clause(relation)}"


def from_clause(relation: Relation) -> str:
    """A partitioned table is its whole tree; an ordinary one is itself, without children by inheritance."""
    return ("only " if relation.kind == "r" else "") + quote_table(relation.table)


@contextmanager
def open_cut(
    server: Server,
    look: Look,
    place: Callable[[Identity, int], Place],
    wait: float,
    gentle: Gentle,
) -> Iterator[PostgresCut]:
    """Freeze the database. Waits for open transactions, at most `wait` seconds, then says which they are."""
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
                seconds=wait,
                late=lambda: explain_wait(look.session(), sender.info.backend_pid, wait),
            )
            point, snapshot = field(made, 1), field(made, 2)
            if not re.fullmatch(r"[0-9A-Fa-f-]+", snapshot):
                raise SourceError("the server exported no snapshot")
            with server.guard("import the snapshot"):
                start_reading(reader, snapshot)
                row = reader.execute("select clock_timestamp(), pg_export_snapshot()").fetchone()
        # The slot is gone from here on; the imported snapshot lives as long as its transaction.
        if row is None:
            raise SourceError("the server told no time")
        with closing(Readers(server, reader, row[1], gentle.connections, look)) as readers:
            yield PostgresCut(server, readers, place(here, parse_lsn(point)), row[0], gentle)


# The heaps that hold the rows, and whether they are heaps at all.
_FILES = """
select c.oid, c.relfilenode, pg_relation_size(c.oid) / current_setting('block_size')::bigint,
       pg_table_size(c.oid), coalesce(a.amname = 'heap', false)
from pg_class c left join pg_am a on a.oid = c.relam
where c.relkind <> 'p' and (c.oid = to_regclass(%s)
    or c.oid in (select t.relid from pg_partition_tree(to_regclass(%s)) t))
"""
