"""What staging costs over a plain Parquet write, in one run: `python tests/benchmarks/bench_raw_log.py`.

Both write the same rows with the same compression; staging also checks and moves `_hw_seq`, hashes, fsyncs
and links. Alternating rounds, the best of each: other work on the machine only ever makes a round slower.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headwater.model import META, STRIDE, ChangeBatch, Column, Position, TableId, TableSchema
from headwater.raw import RawLog
from headwater.storage import Storage

ROUNDS = 5


def make_rows(count: int) -> ChangeBatch:
    """Rows like those of an orders table: keys, amounts, short texts."""
    chance = np.random.default_rng(7)
    words = pa.array([f"customer {n} of many" for n in range(5000)])
    columns = {
        "id": pa.array(np.arange(count)),
        "customer": pa.array(chance.integers(0, 50_000, count)),
        "amount": pa.array(chance.normal(100, 20, count)),
        "note": words.take(pa.array(chance.integers(0, 5000, count))),
        "state": pa.array(["new", "paid", "sent"]).take(pa.array(chance.integers(0, 3, count))),
    }
    schema = TableSchema(
        TableId("s", "orders"), tuple(Column(n, c.type) for n, c in columns.items()), ("id",)
    )
    meta = {
        "_hw_op": pa.repeat("c", count),
        "_hw_seq": pa.array(np.arange(count) * STRIDE + 2),
        "_hw_pos": pa.array(["0/16B3748", "0/16B3750"]).take(pa.array(np.arange(count) // (count // 2 + 1))),
        "_hw_at": pa.repeat(pa.scalar(1_700_000_000_000_000, pa.timestamp("us", "UTC")), count),
        "_hw_tx": pa.repeat("771", count),
        "_hw_unset": pa.nulls(count, pa.list_(pa.string())),
        "_hw_text": pa.nulls(count, pa.string()),
    }
    table = pa.Table.from_arrays(
        [*columns.values(), *meta.values()], schema=pa.schema([*schema.arrow(), *META])
    )
    return ChangeBatch(schema, table)


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def main(count: int) -> None:
    batch = make_rows(count)
    with (
        tempfile.TemporaryDirectory() as folder,
        Storage.open(f"{folder}/lake", cache=Path(folder)) as storage,
    ):
        log = RawLog(storage)
        plain, staged, added = [], [], []
        next_row = 0
        for _ in range(ROUNDS):
            file = Path(folder) / "plain.parquet"
            plain.append(seconds(partial(pq.write_table, batch.rows, file, compression="zstd")))
            staged.append(seconds(partial(log.stage, batch, 1, next_row)))
            next_row += count * STRIDE
            added.append(seconds(partial(log.append, [], Position("x"), next_row)))
        size = file.stat().st_size
    print(f"{count} rows, {size / 1e6:.1f} MB of Parquet, best of {ROUNDS}")
    print(f"  pyarrow write_table  {count / min(plain):12,.0f} rows/s")
    times = min(staged) / min(plain)
    print(f"  RawLog.stage         {count / min(staged):12,.0f} rows/s   x{times:.2f} the time")
    print(f"  RawLog.append        {min(added) * 1000:12.1f} ms")


def test_stage_rates() -> None:
    main(1_000_000)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
