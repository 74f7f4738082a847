"""Imported by jobs of ours: what Python loads once in a process is start-up, and not measured."""

import sys

# The demo's data set brings pandas, and pyarrow imports it where it is: a second that users do not pay.
sys.modules["pandas"] = None  # type: ignore[assignment]

import deltalake  # noqa: E402, F401
import duckdb  # noqa: E402
import psycopg  # noqa: E402, F401
import pyarrow as pa  # noqa: E402
import pyarrow.parquet  # noqa: E402, F401

pa.array([None, 1])
duckdb.sql("select timestamptz '2026-01-01 00:00:00+00'").fetchall()
