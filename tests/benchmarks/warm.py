"""Imported by jobs of ours: what Python loads once in a process is start-up, and not measured."""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(importlib.abc.MetaPathFinder):
    """The demo's data set brings pandas, and pyarrow imports it where it is: not at users'."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)
        return None


sys.meta_path.insert(0, _NoPandas())

import deltalake  # noqa: E402, F401
import duckdb  # noqa: E402
import psycopg  # noqa: E402, F401
import pyarrow as pa  # noqa: E402
import pyarrow.parquet  # noqa: E402, F401

pa.array([None, 1])
duckdb.sql("select timestamptz '2026-01-01 00:00:00+00'").fetchall()
