"""A source made of Python lists that keeps the whole contract, and can be told to fail."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa

from headwater.errors import PositionLost, SourceError
from headwater.model import (
    META,
    STRIDE,
    ChangeBatch,
    Column,
    Digest,
    Finding,
    Position,
    Reference,
    TableId,
    TableInfo,
    TableSchema,
)
from headwater.sources import Begun

AT = datetime(2026, 1, 1, tzinfo=UTC)
Change = tuple[TableId, str, int, int | None]  # table, op, id, v
#: As `v` of an update: the value stays, and the log does not say what it is.
KEPT = -1
#: Rows lie in this many blocks; every write puts its row into another one.
BLOCKS = 6


def schema_of(table: TableId) -> TableSchema:
    return TableSchema(table, (Column("id", pa.int64()), Column("v", pa.int64())), ("id",))


def info_of(table: TableId) -> TableInfo:
    return TableInfo(schema_of(table))


class ScriptSource:
    """Positions are transaction numbers: `Position("3")` is before the fourth transaction."""

    def __init__(self, tables: Sequence[TableId], window: int = 2) -> None:
        self.names = list(tables)
        self.transactions: list[list[Change]] = []
        self.window = window
        self.confirmed = 0
        self.kept_from: int | None = None
        self.reload_at: set[tuple[int, TableId]] = set()
        self.during_cut: list[list[Change]] = []
        self.silent = False
        self.lost = False
        self.altered: set[TableId] = set()
        self.pieces = 1  # parts of a table
        self.rewrites = 0  # of all heaps
        self.patience = 1000  # how many parts a cut has time for
        self.readers = 2
        self.reads: list[tuple[TableId, str]] = []
        self.fail_at: str | None = None  # reading this part fails

    def commit(self, *changes: Change) -> None:
        self.transactions.append(list(changes))

    def rows(self, table: TableId, upto: int) -> dict[int, int | None]:
        return {key: value for key, (value, _) in self.heap(table, upto).items()}

    def heap(self, table: TableId, upto: int) -> dict[int, tuple[int | None, int]]:
        """Of each key the value and the block."""
        now: dict[int, tuple[int | None, int]] = {}
        for number, changes in enumerate(self.transactions[:upto]):
            for n, (name, op, key, value) in enumerate(changes):
                if name == table:
                    before, _ = now.pop(key, (None, 0))
                    if op != "d":
                        now[key] = before if value == KEPT else value, (number * 5 + n * 3 + key) % BLOCKS
        return now

    def check(self, tables: Sequence[TableId]) -> Sequence[Finding]:
        return []

    def tables(self) -> Sequence[TableInfo]:
        return [info_of(t) for t in self.names]

    def head(self) -> Position:
        return Position(str(len(self.transactions)))

    def behind(self, position: Position) -> int:
        return (len(self.transactions) - int(position.token)) * 100

    def show(self, position: Position) -> str:
        return position.token

    def facts(self) -> Mapping[str, str | int | None]:
        return {}

    def prepare(self, tables: Sequence[TableId], since: Position | None) -> Sequence[TableId]:
        if self.lost and since is not None:
            raise PositionLost("the slot was recreated")
        self.lost = False
        if self.kept_from is None:
            self.kept_from = len(self.transactions)
        if since and int(since.token) < self.confirmed:
            raise PositionLost("confirmed beyond what was logged")
        return []

    def evolved(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableSchema]:
        return []

    def unlogged(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableId]:
        return [t for t in known if t in self.altered]

    @contextmanager
    def cut(self) -> Iterator["ScriptCut"]:
        cut = ScriptCut(self, len(self.transactions))
        self.transactions += self.during_cut
        self.during_cut = []
        yield cut

    def changes(
        self,
        tables: Sequence[TableId],
        since: Position,
        until: Position | None = None,
        *,
        known: Mapping[TableId, TableSchema],
    ) -> Iterator[ChangeBatch | Position]:
        start, end = int(since.token), int(until.token) if until else len(self.transactions)
        assert self.kept_from is not None and start >= self.kept_from
        if self.silent:
            yield since
            return
        number = 0
        for first in range(start, end, self.window):
            last = min(first + self.window, end)
            grouped: dict[TableId, list[dict[str, object]]] = {}
            reload: set[TableId] = set()
            for place in range(first, last):
                for table, op, key, value in self.transactions[place]:
                    if table in tables:
                        seq = number * STRIDE + 2
                        grouped.setdefault(table, []).append(row(op, seq, str(place), key, value))
                        number += 1
                        reload |= {table} if (place, table) in self.reload_at else set()
            for table, rows in grouped.items():
                assert table in known
                yield ChangeBatch(schema_of(table), arrow(table, rows), "changes", table in reload)
            yield Position(str(last))
        if start == end:
            yield Position(str(end))

    def references(self) -> Sequence[Reference]:
        return ()

    def confirm(self, position: Position) -> None:
        assert int(position.token) >= self.confirmed
        self.confirmed = int(position.token)

    def close(self) -> None:
        pass


class ScriptCut:
    def __init__(self, source: ScriptSource, upto: int) -> None:
        self._source = source
        self._upto = upto
        self._read = 0
        self._stopped = False

    @property
    def position(self) -> Position:
        return Position(str(self._upto))

    @property
    def readers(self) -> int:
        return self._source.readers

    @property
    def expired(self) -> bool:
        return self._read >= self._source.patience

    def parts(self, table: TableId, begun: Begun | None = None) -> list[str] | None:
        step = BLOCKS // self._source.pieces
        names = [f"{self._source.rewrites}:{n}-{n + step}" for n in range(0, BLOCKS, step)]
        if begun is None:
            return names if self._source.pieces > 1 else [""]
        if begun.schema != schema_of(table) or not all(
            part.startswith(f"{self._source.rewrites}:") for part in begun.parts
        ):
            return None
        return [name for name in names if name not in begun.parts]

    def read(self, table: TableId, part: str = "") -> Iterator[ChangeBatch]:
        first, last = map(int, part.partition(":")[2].split("-")) if part else (0, BLOCKS)
        heap = self._source.heap(table, self._upto).items()
        return self._batches(table, part, [(k, v) for k, (v, block) in heap if first <= block < last])

    def find(self, table: TableId, keys: pa.Table) -> Iterator[ChangeBatch]:
        wanted = set(keys["id"].to_pylist())
        now = self._source.rows(table, self._upto)
        return self._batches(table, "keys", [(k, v) for k, v in now.items() if k in wanted])

    def stop(self) -> None:
        self._stopped = True

    def _batches(self, table: TableId, part: str, now: list[tuple[int, int | None]]) -> Iterator[ChangeBatch]:
        self._read += part != "keys"
        self._source.reads.append((table, part))
        if self._stopped or (self._source.fail_at is not None and self._source.fail_at == part):
            raise SourceError(f"{part} cannot be read")
        now.sort()
        half = len(now) // 2
        if half:
            yield ChangeBatch(schema_of(table), arrow(table, self._rows(now[:half])), "snapshot")
        yield ChangeBatch(schema_of(table), arrow(table, self._rows(now[half:])), "snapshot_end")

    def _rows(self, now: list[tuple[int, int | None]]) -> list[dict[str, object]]:
        return [row("r", n * STRIDE + 2, str(self._upto), k, v) for n, (k, v) in enumerate(now)]

    def digest(self, schema: TableSchema, where: str = "") -> Digest:
        raise NotImplementedError


def row(op: str, seq: int, position: str, key: int, value: int | None) -> dict[str, object]:
    kept = value == KEPT or op == "d"
    values = {"id": key, "v": None if kept else value, "_hw_op": op, "_hw_seq": seq, "_hw_pos": position}
    return {**values, "_hw_at": AT, "_hw_tx": None, "_hw_unset": ["v"] if kept else None, "_hw_text": None}


def arrow(table: TableId, rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([*schema_of(table).arrow(), *META]))
