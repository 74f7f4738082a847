"""How fast raw rows become lake tables: a first load, changes at random keys, changes at new keys.

    python tests/benchmarks/bench_fold.py [rows] [changes]

Prints seconds, CPU seconds and peak memory for each step; the machine's noise is not taken out.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from headwater.config import TableSpec
from headwater.lake.delta import Lake
from headwater.model import META, STRIDE, ChangeBatch, Column, Phase, Position, TableId, TableSchema
from headwater.raw import RawLog
from headwater.refresh import refresh
from headwater.storage import Storage

TABLE = TableId("bench", "orders")
WIDTH = 16
SCHEMA = TableSchema(
    TABLE,
    (
        Column("id", pa.int64()),
        *(Column(f"n{i}", pa.int64()) for i in range(WIDTH // 2)),
        *(Column(f"t{i}", pa.string()) for i in range(WIDTH // 2)),
    ),
    ("id",),
)
STEP = 100_000


def batch(ids: np.ndarray, op: str, first: int, dice: np.random.Generator) -> pa.Table:
    """Rows of these ids; updates leave the last text column out, deletes all but the key."""
    size = len(ids)
    cells = {"id": pa.array(ids)}
    for i in range(WIDTH // 2):
        cells[f"n{i}"] = pa.array(dice.integers(0, 1 << 40, size))
        cells[f"t{i}"] = pa.array(dice.integers(0, 1 << 40, size).astype(str))
    unset = {"u": [f"t{WIDTH // 2 - 1}"], "d": [c.name for c in SCHEMA.columns[1:]]}.get(op)
    meta = {
        "_hw_op": pa.array([op] * size),
        "_hw_seq": pa.array((first + np.arange(size)) * STRIDE + 2),
        "_hw_pos": pa.array(["0/1"] * size),
        "_hw_at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * size, pa.timestamp("us", "UTC")),
        "_hw_tx": pa.array(["1"] * size),
        "_hw_unset": pa.array([unset] * size, pa.list_(pa.string())),
        "_hw_text": pa.nulls(size, pa.string()),
    }
    return pa.table({**cells, **meta}, schema=pa.schema([*SCHEMA.arrow(), *META]))


def append(
    log: RawLog, pieces: list[tuple[np.ndarray, str]], phase: Phase, dice: np.random.Generator
) -> None:
    """One entry."""
    last = log.last()
    base, done, refs = last.next_row if last else 0, 0, []
    parts = [(ids[at : at + STEP], op) for ids, op in pieces for at in range(0, len(ids), STEP)]
    for number, (ids, op) in enumerate(parts):
        ends = phase == "snapshot" and number == len(parts) - 1
        rows = batch(ids, op, done, dice)
        refs.append(log.stage(ChangeBatch(SCHEMA, rows, "snapshot_end" if ends else phase), 1, base))
        done += len(ids)
    log.append(refs, Position(str(base)), base + done * STRIDE)


def main(rows: int, changes: int) -> None:
    """Run the steps."""
    dice = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage.open(folder + "/store", cache=Path(folder) / "cache")
        log, lake, spec = RawLog(storage), Lake(storage), {TABLE: TableSpec(TABLE)}

        def fold(name: str, count: int) -> None:
            cpu, began = time.process_time(), time.monotonic()
            done = refresh(log, lake, spec, memory_limit="1GB")[TABLE]
            took = time.monotonic() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            print(
                f"{name:<34}{took:7.1f} s {time.process_time() - cpu:7.1f} CPU s "
                f"{count / took:12,.0f} rows/s  peak {peak} MB  ({done.versions} versions)"
            )

        ids = dice.permutation(rows)
        append(log, [(ids, "r")], "snapshot", dice)
        fold(f"first load of {rows:,}", rows)
        some = dice.choice(rows, changes, replace=False)
        cut = changes // 10
        append(log, [(some[cut:], "u"), (some[:cut], "d")], "changes", dice)
        fold(f"{changes:,} changes at random keys", changes)
        append(log, [(np.arange(rows, rows + changes), "c")], "changes", dice)
        fold(f"{changes:,} inserts at the end", changes)
        storage.close()


def test_fold_rates() -> None:
    main(1_000_000, 50_000)


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], *["1000000", "10000"][len(sys.argv) - 1 :]]))
