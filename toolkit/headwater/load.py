"""Load: the rows of whole tables from a cut into the raw log, several parts of them side by side.

Threads read, decode and store. Each batch is given its place in the log before it is stored, and whoever
iterates gets the stored ones in the order of these places: any number of them, from the first on, can be
committed.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.model import (
    KEYS_PART,
    META,
    SKIPPED,
    STRIDE,
    BatchRef,
    ChangeBatch,
    Op,
    TableId,
    TableInfo,
    TableSchema,
)
from headwater.raw import RawLog, TableState
from headwater.sources import Begun, Cut

#: A table that is smaller by the source's own estimate is read in one piece, and nothing is asked beforehand.
SMALL = 64 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """One batch stored, and the first place behind it."""

    ref: BatchRef
    next_row: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What one thread reads in one go."""

    table: TableId
    epoch: int
    part: str
    keys: pa.Table | None = None
    kept: bool = True  # whether the log shall say that this part is whole
    skipped: TableSchema | None = None  # the first load is left out: no row is read


@dataclass(frozen=True, slots=True)
class _Placed:
    """A batch with its place among all, its first number and the one behind it, and the part it completes."""

    batch: ChangeBatch
    epoch: int
    place: int
    base: int
    after: int
    part: str


class Loading:
    """Reads tables as of a cut, those in `begun` from where earlier cuts stopped; `steps` does it.

    When the cut has expired, no further part is begun. A table without a key has to be read under one cut,
    so it is read to its end then; others stay open for the next cut.
    """

    def __init__(  # noqa: PLR0913
        self,
        log: RawLog,
        cut: Cut,
        tables: Sequence[TableInfo],
        epochs: Mapping[TableId, int],
        begun: Mapping[TableId, Begun],
        next_row: int,
    ) -> None:
        """`epochs` holds the newest epoch of each table that has one."""
        self._log, self._cut = log, cut
        self._tables = deque(tables)
        self._epochs, self._begun = epochs, begun
        self._seen = self._next_row = next_row
        self._place = 0
        self._started = False
        self._pieces: deque[Piece] = deque()
        self._left: dict[TableId, int] = {}
        self._planning, self._placing = threading.Lock(), threading.Lock()
        self._stored: SimpleQueue[tuple[int, Step] | BaseException | None] = SimpleQueue()

    def steps(self) -> Generator[Step, None, None]:
        """Every batch, in the order of the log. Close it: what still runs is stopped then."""
        threads = [
            threading.Thread(target=self._work, name=f"headwater-load-{n}", daemon=True)
            for n in range(self._cut.readers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._ordered(len(threads))
        except BaseException:
            self._cut.stop()
            raise
        finally:
            for thread in threads:
                thread.join()

    def _ordered(self, running: int) -> Iterator[Step]:
        early: dict[int, Step] = {}
        place = 0
        while running:
            found = self._stored.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                running -= 1
                continue
            early[found[0]] = found[1]
            while place in early:
                yield early.pop(place)
                place += 1

    def _work(self) -> None:
        try:
            # A batch is stored while the next one is read and decoded.
            with ThreadPoolExecutor(1, "headwater-load-store") as store:
                storing: Future[None] | None = None
                while (piece := self._take()) is not None:
                    for batch in self._read(piece):
                        placed = self._place_batch(piece, batch)
                        if storing is not None:
                            storing.result()
                        storing = store.submit(self._store, placed)
                if storing is not None:
                    storing.result()
        except BaseException as failed:  # noqa: BLE001  raised again where the steps are taken
            self._stored.put(failed)
        else:
            self._stored.put(None)

    def _read(self, piece: Piece) -> Iterator[ChangeBatch]:
        if piece.skipped is not None:
            nothing = pa.schema([*piece.skipped.arrow(), *META]).empty_table()
            return iter([ChangeBatch(piece.skipped, nothing, "snapshot_end")])
        if piece.keys is not None:
            return self._cut.find(piece.table, piece.keys)
        return self._cut.read(piece.table, piece.part)

    def _take(self) -> Piece | None:
        """The next piece to read; None when there is none, or no more should be begun."""
        with self._planning:
            over = self._started and self._cut.expired
            if over:
                self._pieces = deque(p for p in self._pieces if not p.kept)
            while not self._pieces and self._tables and not over:
                self._pieces.extend(self._plan(self._tables.popleft()))
            if not self._pieces:
                return None
            piece = self._pieces.popleft()
            # One part at least is read from each cut, however short its time: else nothing ever got done.
            self._started = self._started or piece.keys is None
            return piece

    def _plan(self, info: TableInfo) -> list[Piece]:
        table = info.schema.table
        begun = self._begun.get(table)
        pieces = self._continue(table, begun) if begun else None
        if pieces is None:
            pieces = self._begin(info)
        with self._placing:
            self._left[table] = len(pieces)
        return pieces

    def _continue(self, table: TableId, begun: Begun) -> list[Piece] | None:
        done = [part for part in begun.parts if not part.startswith(KEYS_PART)]
        missing = self._cut.parts(table, replace(begun, parts=done))
        if missing is None:
            return None
        epoch = self._epochs[table]
        # Rows of which the log left values out. Always there: one piece must be left to end the load, to say
        # how far the log was looked through, and to tell readers that the load went on.
        keys = Piece(table, epoch, f"{KEYS_PART}{self._seen}", begun.keys)
        return [keys, *(Piece(table, epoch, part) for part in missing)]

    def _begin(self, info: TableInfo) -> list[Piece]:
        table = info.schema.table
        if info.schema.loaded == SKIPPED and table not in self._epochs:
            return [Piece(table, 1, "", kept=False, skipped=info.schema)]
        small = info.bytes is not None and info.bytes < SMALL
        parts = [""] if small else self._cut.parts(table) or [""]
        # Of rows without a log, and of those whose key is not sure to be one, all must be of one moment.
        kept = bool(info.schema.key) and info.logged and not info.schema.key_chosen and len(parts) > 1
        return [Piece(table, self._epochs.get(table, 0) + 1, part, kept=kept) for part in parts]

    def _place_batch(self, piece: Piece, batch: ChangeBatch) -> _Placed:
        ends = batch.phase == "snapshot_end"
        with self._placing:
            place, base = self._place, self._next_row
            self._place += 1
            if batch.rows.num_rows:
                self._next_row += (batch.rows["_hw_seq"][-1].as_py() // STRIDE + 1) * STRIDE
            after = self._next_row
            if ends:
                self._left[piece.table] -= 1
            whole = ends and not self._left[piece.table]
        placed = replace(batch, phase="snapshot_end" if whole else "snapshot")
        return _Placed(placed, piece.epoch, place, base, after, piece.part if ends and piece.kept else "")

    def _store(self, placed: _Placed) -> None:
        ref = self._log.stage(placed.batch, placed.epoch, placed.base, placed.part)
        self._stored.put((placed.place, Step(ref, placed.after)))


def find_begun(log: RawLog, tables: Collection[TableId]) -> dict[TableId, Begun]:
    """Those of the tables whose newest epoch can go on, with what a cut needs to know for it."""
    state = {t: s for t, s in log.tables().items() if t in tables and _can_go_on(s)}
    schemas = {t: log.schema(t, s.schema) for t, s in state.items()}
    found = {t: [_no_keys(schema.arrow(), schema.key)] for t, schema in schemas.items()}
    marks = {t: _looked_through(s) for t, s in state.items()}
    odd: set[TableId] = set()
    first = min((s.snapshot_entry for s in state.values()), default=0)
    for entry in log.entries(first - 1) if state else ():
        for ref in entry.batches:
            at = state.get(ref.table)
            if at is None or ref.epoch != at.epoch or ref.phase != "changes" or not ref.rows:
                continue
            if ref.first_seq < marks[ref.table]:
                continue
            keys = _incomplete(log, ref, schemas[ref.table].key)
            if keys is None:
                odd.add(ref.table)
            else:
                found[ref.table].append(keys)
    return {
        t: Begun(schemas[t], s.parts, _distinct(pa.concat_tables(found[t])))
        for t, s in state.items()
        if t not in odd
    }


def _can_go_on(state: TableState) -> bool:
    return not state.complete and bool(state.parts) and not state.reload


def _looked_through(state: TableState) -> int:
    return max((int(p.removeprefix(KEYS_PART)) for p in state.parts if p.startswith(KEYS_PART)), default=0)


def _no_keys(columns: pa.Schema, key: Sequence[str]) -> pa.Table:
    return pa.schema([columns.field(name) for name in key]).empty_table()


def _incomplete(log: RawLog, ref: BatchRef, key: Sequence[str]) -> pa.Table | None:
    """Keys of the batch's rows that lack values; None where a key is kept as text beside its column."""
    rows = pq.read_table(log.fetch(ref), columns=[*key, "_hw_op", "_hw_unset", "_hw_text"])
    rows = rows.filter(pc.and_(pc.is_valid(rows["_hw_unset"]), pc.not_equal(rows["_hw_op"], Op.DELETE.value)))
    for text in rows["_hw_text"].drop_null().to_pylist():
        if set(key) & set(cast(dict[str, str], json.loads(text))):
            return None
    return rows.select(list(key))


def _distinct(keys: pa.Table) -> pa.Table:
    return keys.group_by(keys.column_names).aggregate([]) if keys.num_rows else keys
