"""Imported by jobs of ours: what Python loads once in a process is start-up, and not measured."""

import deltalake  # noqa: F401
import duckdb
import psycopg  # noqa: F401
import pyarrow as pa
import pyarrow.parquet  # noqa: F401

from headwater.startup import spare_pandas

# As our own processes do; the peers' jobs do not import this.
spare_pandas()
pa.array([None, 1])
duckdb.sql("select timestamptz '2026-01-01 00:00:00+00'").fetchall()
