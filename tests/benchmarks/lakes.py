"""Jobs that make lakes and raw batches of any size, without a source: numpy to Arrow to `RawLog.stage`.

The key is 2k for k = 0 .. rows - 1, in the order of the table; inserts take odd keys.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.ours import MEMORY, open_storage
from benchmarks.stopwatch import Stopwatch
from headwater.config import TableSpec
from headwater.lake.delta import Lake
from headwater.model import META, STRIDE, BatchRef, ChangeBatch, Column, Position, TableId, TableSchema
from headwater.raw import RawLog
from headwater.refresh import compact, refresh

TABLE = TableId("bench", "orders")
SCHEMA = TableSchema(
    TABLE,
    (
        Column("id", pa.int64(), "bigint", False),
        Column("customer", pa.int32(), "integer"),
        Column("status", pa.string(), "text"),
        Column("amount", pa.decimal128(12, 2), "numeric(12,2)"),
        Column("quantity", pa.int32(), "integer"),
        Column("score", pa.float64(), "double precision"),
        Column("ordered", pa.timestamp("us", "UTC"), "timestamp with time zone"),
        Column("changed", pa.timestamp("us"), "timestamp without time zone"),
        Column("note", pa.string(), "text"),
        Column("paid", pa.bool_(), "boolean"),
    ),
    ("id",),
)
#: Rows of a raw file.
STEP = 200_000

_AT = pa.scalar(datetime(2026, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC"))
_OTHERS = [c.name for c in SCHEMA.columns[1:]]


def make_rows(ids: np.ndarray, dice: np.random.Generator) -> pa.Table:
    """Rows of these keys in the columns of `SCHEMA`, without meta columns."""
    size = len(ids)
    cents = np.zeros((size, 2), np.int64)  # decimal128: the low word first
    cents[:, 0] = dice.integers(0, 10_000_000, size)
    when = 1_767_225_600_000_000 + ids * 1_000_371
    notes = pa.array(dice.integers(0, 1 << 60, size)).cast(pa.string())
    columns = [
        pa.array(ids),
        pa.array(dice.integers(0, 100_000, size, np.int32)),
        pa.array(["new", "paid", "sent", "returned"]).take(pa.array(dice.integers(0, 4, size))),
        pa.Array.from_buffers(pa.decimal128(12, 2), size, [None, pa.py_buffer(cents)]),
        pa.array(dice.integers(0, 100, size, np.int32)),
        pa.array(dice.random(size)),
        pa.array(when).cast(pa.timestamp("us", "UTC")),
        pa.array(when + dice.integers(0, 1 << 40, size)).cast(pa.timestamp("us")),
        pa.compute.binary_join_element_wise("order ", notes, ""),
        pa.array(dice.random(size) < 0.5),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA.arrow())


def make_batch(ids: np.ndarray, ops: np.ndarray, first: int, dice: np.random.Generator) -> pa.Table:
    """Raw rows; a delete carries its key alone, as under REPLICA IDENTITY DEFAULT."""
    rows, size = make_rows(ids, dice), len(ids)
    deleted = pa.array(ops == "d")
    columns = [
        column
        if column.type == pa.int64()
        else pa.compute.if_else(deleted, pa.scalar(None, column.type), column)
        for column in rows.columns
    ]
    unset = pa.array([_OTHERS, None], pa.list_(pa.string())).take(pa.array(np.where(ops == "d", 0, 1)))
    meta = [
        pa.array(ops.astype(object), pa.string()), pa.array((first + np.arange(size)) * STRIDE + 2),
        pa.repeat("0/16B3748", size), pa.repeat(_AT, size), pa.repeat("771", size), unset,
        pa.nulls(size, pa.string()),
    ]  # fmt: skip
    return pa.Table.from_arrays([*columns, *meta], schema=pa.schema([*SCHEMA.arrow(), *META]))


def pick_range(rows: int, count: int, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Changes in the last 16 of 51 equal key ranges: 70 % updates, 20 % inserts, 10 % deletes."""
    start = rows * 35 // 51
    known = start + dice.choice(rows - start, count * 8 // 10, replace=False)
    new = start + dice.choice(rows - start, count - len(known), replace=False)
    return _mix(known, new, count // 10, dice)


def pick_random(
    rows: int, count: int, dice: np.random.Generator, turn: int = 0, turns: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Changes at random keys: 80 % updates, 10 % inserts, 10 % deletes.

    Each of `turns` batches has keys of another remainder: none meets a row that an earlier one deleted.
    """
    known = turn + turns * dice.choice(rows // turns, count * 9 // 10, replace=False)
    new = turn + turns * dice.choice(rows // turns, count - len(known), replace=False)
    return _mix(known, new, count // 10, dice)


def _mix(
    known: np.ndarray, new: np.ndarray, deletes: int, dice: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    ids = np.concatenate([known * 2, new * 2 + 1])
    ops = np.repeat(["d", "u", "c"], [deletes, len(known) - deletes, len(new)])
    order = dice.permutation(len(ids))
    return ids[order], ops[order]


def append(log: RawLog, ids: np.ndarray, ops: np.ndarray, dice: np.random.Generator) -> list[BatchRef]:
    """One entry of changes."""
    last = log.last()
    assert last is not None
    refs = [
        log.stage(ChangeBatch(SCHEMA, make_batch(ids[at : at + STEP], ops[at : at + STEP], at, dice)), 1,
                  last.next_row)
        for at in range(0, len(ids), STEP)
    ]  # fmt: skip
    log.append(refs, Position(f"after {last.seq}"), last.next_row + len(ids) * STRIDE)
    return refs


def seed(watch: Stopwatch, store: str, rows: int) -> dict[str, Any]:
    """A snapshot of so many rows in the raw log, folded into mirror and history; the fold is timed."""
    dice = np.random.default_rng(1)
    with open_storage(store) as storage:
        log, lake = RawLog(storage), Lake(storage, MEMORY)
        for first in range(0, rows, STEP):
            ids = np.arange(first, min(first + STEP, rows)) * 2
            table = make_batch(ids, np.repeat("r", len(ids)), first, dice)
            phase = "snapshot_end" if first + STEP >= rows else "snapshot"
            refs = [log.stage(ChangeBatch(SCHEMA, table, phase), 1, 0)]
            log.append(refs, Position(f"row {first}"), (first + len(ids)) * STRIDE)
        specs = {TABLE: TableSpec(TABLE)}
        with watch:
            refresh(log, lake, specs, memory_limit=MEMORY)
            compact(lake, specs, memory_limit=MEMORY)
    return {"rows": rows}


def change(watch: Stopwatch, store: str, rows: int, count: int, ranged: bool) -> dict[str, Any]:
    """One entry of changes to a table of so many rows; tells the raw files."""
    dice = np.random.default_rng(2)
    with open_storage(store) as storage, watch:
        log = RawLog(storage)
        chosen = pick_range(rows, count, dice) if ranged else pick_random(rows, count, dice)
        refs = append(log, *chosen, dice)
        return {"files": [str(log.fetch(ref)) for ref in refs]}


def fold_batches(watch: Stopwatch, store: str, rows: int, count: int, batches: int) -> dict[str, Any]:
    """So many entries of changes at random keys, each folded before the next comes; the folds are timed."""
    dice = np.random.default_rng(3)
    specs = {TABLE: TableSpec(TABLE)}
    logged, written = 0, 0
    with open_storage(store) as storage:
        log, lake = RawLog(storage), Lake(storage, MEMORY)
        for turn in range(batches):
            refs = append(log, *pick_random(rows, count, dice, turn, batches), dice)
            before = _written()
            with watch:
                refresh(log, lake, specs, after=_seq(log) - 1, memory_limit=MEMORY)
            written += _written() - before
            logged += sum(ref.bytes for ref in refs)
    return {"logged": logged, "written": written}


def _seq(log: RawLog) -> int:
    last = log.last()
    return last.seq if last else -1


def _written() -> int:
    """Bytes that this process handed to `write`, spill files included."""
    with open("/proc/self/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar:"))
