"""Batches for tests of the raw log."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from headwater.model import META, STRIDE, ChangeBatch, Column, Phase, TableId, TableSchema
from headwater.storage import Storage
from servers.s3 import Bucket

ORDERS = TableId("sales", "orders")
SCHEMA = TableSchema(
    ORDERS, (Column("id", pa.int64(), "bigint"), Column("note", pa.string(), "text")), ("id",)
)
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def make_batch(
    rows: int, first: int = 0, phase: Phase = "changes", schema: TableSchema = SCHEMA, reload: bool = False
) -> ChangeBatch:
    """Inserts number `first`, `first + 1`, ... of a source call."""
    ids = range(first, first + rows)
    columns = [pa.array(ids, pa.int64()), pa.array([f"note {i}" for i in ids], pa.string())]
    return ChangeBatch(schema, with_meta(schema, columns, first), phase, reload)


def with_meta(schema: TableSchema, columns: list[pa.Array], first: int = 0) -> pa.Table:
    """The table's columns and META for as many inserts."""
    count = len(columns[0])
    meta = [
        pa.array(["c"] * count, pa.string()),
        pa.array([(first + i) * STRIDE + 2 for i in range(count)], pa.int64()),
        pa.array([f"0/{i:X}" for i in range(count)], pa.string()),
        pa.array([AT] * count, pa.timestamp("us", "UTC")),
        pa.array(["77"] * count, pa.string()),
        pa.array([["note"] if i % 3 == 0 else None for i in range(count)], pa.list_(pa.string())),
        pa.array([None] * count, pa.string()),
    ]
    return pa.Table.from_arrays([*columns, *meta], schema=pa.schema([*schema.arrow(), *META]))


def options_of(bucket: Bucket) -> dict[str, str]:
    """What `Storage.open` wants to know of a test's bucket."""
    return {
        "endpoint": bucket.endpoint,
        "access_key_id": bucket.key,
        "secret_access_key": bucket.secret,
        "allow_http": "true",
    }


def open_bucket(bucket: Bucket, cache: Path, prefix: str = "some/where", **options: str) -> Storage:
    """The storage in a test's bucket."""
    return Storage.open(f"{bucket.url}/{prefix}", {**options_of(bucket), **options}, cache=cache)
