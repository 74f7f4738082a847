"""dlt: extract, normalise and load a table into a folder of Parquet files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import Stopwatch


def load(watch: Stopwatch, url: str, table: str, file: str, backend: str) -> dict[str, Any]:
    """A whole table with one of dlt's backends."""
    place = Path(file)
    os.environ |= {
        "DLT_DATA_DIR": str(place / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DESTINATION__FILESYSTEM__BUCKET_URL": (place / "out").as_uri(),
        "RUNTIME__LOG_LEVEL": "ERROR",
        "DATA_WRITER__COMPRESSION": "zstd",
    }
    import dlt
    import pyarrow.parquet as pq
    from dlt.sources.sql_database import sql_table

    pipeline = dlt.pipeline("bench", destination="filesystem", dataset_name="bench")
    # ConnectorX takes no driver's name in a URL, SQLAlchemy wants one for psycopg 3.
    told: dict[str, Any] = {"backend_kwargs": {"conn": url}} if backend == "connectorx" else {}
    credentials = url.replace("postgresql://", "postgresql+psycopg://")
    with watch:
        rows = sql_table(credentials=credentials, table=table, backend=backend, **told)
        pipeline.run(rows, loader_file_format="parquet")
    counts = pipeline.last_trace.last_normalize_info.row_counts
    written = next((place / "out").rglob(f"{table}/*.parquet"))
    codec = pq.read_metadata(written).row_group(0).column(0).compression
    assert codec == "ZSTD", codec
    return {"rows": counts[table]}
