"""A lake of any size made quickly, and raw batches to fold into it: for benchmarks."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from headwater.config import Mode, TableSpec
from headwater.lake.delta import Lake
from headwater.model import META, STRIDE, ChangeBatch, Column, Phase, Position, TableId, TableSchema
from headwater.raw import RawLog
from headwater.refresh import Refreshed, compact, refresh
from headwater.storage import Storage

TABLE = TableId("bench", "orders")
SCHEMA = TableSchema(
    TABLE,
    (
        Column("id", pa.int64()),
        Column("customer", pa.int32()),
        Column("status", pa.string()),
        Column("price", pa.decimal128(12, 2)),
        Column("quantity", pa.int32()),
        Column("weight", pa.float64()),
        Column("placed_at", pa.timestamp("us", "UTC")),
        Column("local_time", pa.timestamp("us")),
        Column("note", pa.string()),
        Column("paid", pa.bool_()),
    ),
    ("id",),
)
STEP = 500_000
_DAY = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Lap:
    """What one piece of work took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: int = 0
    found: object = None


@contextmanager
def lap() -> Iterator[Lap]:
    """Measure what happens inside; the peak is that of the process so far."""
    told, cpu, began = Lap(), time.process_time(), time.monotonic()
    yield told
    told.wall_s, told.cpu_s = time.monotonic() - began, time.process_time() - cpu
    told.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@dataclass
class Rig:
    """One store with one table. `dice` makes the same rows for the same seed."""

    folder: Path
    mode: Mode = "mirror"
    memory_limit: str = "1GB"
    seed: int = 1
    spec: TableSpec = field(init=False)

    def __post_init__(self) -> None:
        self.storage = Storage.open(str(self.folder / "store"), cache=self.folder / "cache")
        self.log, self.lake = RawLog(self.storage), Lake(self.storage, self.memory_limit)
        self.spec = TableSpec(TABLE, self.mode)
        self.dice = np.random.default_rng(self.seed)

    def load(self, rows: int) -> Lap:
        """Ids 0 to `rows` - 1 as a first full load, folded; returns what the fold took."""
        self.write([(np.arange(at, min(at + STEP, rows)), "r") for at in range(0, rows, STEP)], "snapshot")
        return self.fold()

    def write(self, pieces: Sequence[tuple[np.ndarray, str]], phase: Phase = "changes") -> None:
        """One raw entry: rows of these ids with these ops, in this order."""
        last = self.log.last()
        base, done, refs = last.next_row if last else 0, 0, []
        for number, (ids, op) in enumerate(pieces):
            ends = phase == "snapshot" and number == len(pieces) - 1
            rows = self.rows(ids, op, done)
            refs.append(self.log.stage(ChangeBatch(SCHEMA, rows, "snapshot_end" if ends else phase), 1, base))
            done += len(ids)
        self.log.append(refs, Position(str(base)), base + done * STRIDE)

    def rows(self, ids: np.ndarray, op: str, first: int) -> pa.Table:
        """Change rows; a delete carries its key alone."""
        size, dice = len(ids), self.dice
        words = pa.array([f"word {n:04d} of some note" for n in range(1000)])
        day = int(_DAY.timestamp() * 1e6)
        cells = {
            "id": pa.array(ids),
            "customer": pa.array(dice.integers(0, 1 << 20, size), pa.int32()),
            "status": pa.array(["new", "paid", "sent", "back"]).take(pa.array(dice.integers(0, 4, size))),
            "price": _cents(dice.integers(0, 1 << 30, size)),
            "quantity": pa.array(dice.integers(1, 100, size), pa.int32()),
            "weight": pa.array(dice.random(size)),
            "placed_at": pa.array(day + dice.integers(0, 1 << 40, size), pa.timestamp("us", "UTC")),
            "local_time": pa.array(day + dice.integers(0, 1 << 40, size), pa.timestamp("us")),
            "note": words.take(pa.array(dice.integers(0, 1000, size))),
            "paid": pa.array(dice.integers(0, 2, size).astype(bool)),
        }
        others = [c.name for c in SCHEMA.columns[1:]]
        if op == "d":
            cells |= {name: pa.nulls(size, SCHEMA.arrow().field(name).type) for name in others}
        kind = pa.list_(pa.string())
        meta = {
            "_hw_op": pa.array([op] * size),
            "_hw_seq": pa.array((first + np.arange(size)) * STRIDE + 2),
            "_hw_pos": pa.array(["0/1"] * size),
            "_hw_at": pa.array([_DAY] * size, pa.timestamp("us", "UTC")),
            "_hw_tx": pa.array(["1"] * size),
            "_hw_unset": pa.array([others] * size, kind) if op == "d" else pa.nulls(size, kind),
            "_hw_text": pa.nulls(size, pa.string()),
        }
        return pa.table({**cells, **meta}, schema=pa.schema([*SCHEMA.arrow(), *META]))

    def fold(self, *, always: bool = False) -> Lap:
        """Refresh; with `always` the tail is compacted at once."""
        spec = replace(self.spec, compact="always") if always else self.spec
        with lap() as told:
            done: Refreshed | None = refresh(
                self.log, self.lake, {TABLE: spec}, memory_limit=self.memory_limit
            ).get(TABLE)
        told.found = done
        return told

    def compact(self) -> Lap:
        """Move the tail into the bases."""
        with lap() as told:
            compact(self.lake, {TABLE: self.spec}, memory_limit=self.memory_limit)
        return told

    def read(self, *, base: bool = False) -> Lap:
        """Read every cell of the table through us, or of its base alone."""
        held = self.lake.open(TABLE, "mirror")
        assert held is not None
        sums = ", ".join(f"count({c.name}), max({c.name})" for c in SCHEMA.columns)
        with self.lake.connect() as con, lap() as told:
            rows = self.lake.scan(held) if base else self.lake.relation(con, TABLE)
            told.found = con.execute(f"SELECT count(*), {sums} FROM {rows}").fetchall()
        return told

    def close(self) -> None:
        """Let go of scratch files."""
        self.storage.close()


def _cents(numbers: np.ndarray) -> pa.Array:
    """Whole numbers of cents as decimal(12, 2)."""
    words = np.zeros((len(numbers), 2), dtype=np.int64)
    words[:, 0] = numbers
    return pa.Array.from_buffers(pa.decimal128(12, 2), len(numbers), [None, pa.py_buffer(words.tobytes())])
