"""ADBC: a result as Arrow batches, written as they come. Numerics arrive as text."""

from __future__ import annotations

from typing import Any

from benchmarks.stopwatch import Stopwatch


def load(watch: Stopwatch, url: str, table: str, file: str) -> dict[str, Any]:
    """A whole table into one zstd Parquet file; it has no way to read with several connections."""
    import adbc_driver_postgresql.dbapi as driver
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    with watch, driver.connect(url) as session, session.cursor() as cursor:
        cursor.execute(f"select * from {table}")
        reader = cursor.fetch_record_batch()
        plain = pa.schema([(f.name, getattr(f.type, "storage_type", f.type)) for f in reader.schema])
        with pq.ParquetWriter(file, plain, compression="zstd") as writer:
            for batch in reader:
                columns = [getattr(column, "storage", column) for column in batch.columns]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=plain))
                rows += batch.num_rows
    return {"rows": rows}
