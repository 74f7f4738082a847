"""ConnectorX: a result as Arrow, read by key ranges in parallel. Numerics are forced to scale 10."""

from __future__ import annotations

from typing import Any

from benchmarks.stopwatch import Stopwatch


def load(watch: Stopwatch, url: str, table: str, file: str, connections: int) -> dict[str, Any]:
    """A whole table into one zstd Parquet file."""
    import connectorx
    import pyarrow.parquet as pq

    split = {"return_type": "arrow", "partition_on": "id", "partition_num": connections}
    with watch:
        rows = connectorx.read_sql(url, f"select * from {table}", **split)
        pq.write_table(rows, file, compression="zstd")
    return {"rows": rows.num_rows}


def stream(watch: Stopwatch, url: str, table: str, file: str) -> dict[str, Any]:
    """The same with its stream of batches: one connection, and nothing waits for the whole result."""
    import connectorx
    import pyarrow.parquet as pq

    count = 0
    with watch:
        reader = connectorx.read_sql(
            url, f"select * from {table}", return_type="arrow_stream", batch_size=100_000
        )
        with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
                count += batch.num_rows
    return {"rows": count}
