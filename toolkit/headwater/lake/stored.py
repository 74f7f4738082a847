"""What a type becomes at rest where the format has no such type, and the SQL for the way there and back."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from headwater.canonical import duckdb_type, quote

#: Delta has no time of day and no unsigned numbers.
_STORED: Mapping[pa.DataType, pa.DataType] = {
    pa.time64("us"): pa.string(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}


def stored_type(wanted: pa.DataType) -> pa.DataType:
    """The Arrow type of a column in the lake's files."""
    return _STORED.get(wanted, wanted)


def to_stored(name: str, wanted: pa.DataType) -> str:
    """SQL of a column as it is written. A time is HH:MM:SS.ffffff, so that text order is time order."""
    column = quote(name)
    if wanted == pa.time64("us"):
        return f"strftime(DATE '2000-01-01' + {column}, '%H:%M:%S.%f') AS {column}"
    if wanted in _STORED:
        return f"CAST({column} AS {duckdb_type(_STORED[wanted])}) AS {column}"
    # A cell that is NULL throughout has no type to DuckDB, which then writes a file that few readers take.
    return f"CAST({column} AS {duckdb_type(wanted)}) AS {column}"


def from_stored(name: str, wanted: pa.DataType) -> str:
    """SQL of a column as readers see it."""
    column = quote(name)
    return f"CAST({column} AS {duckdb_type(wanted)}) AS {column}" if wanted in _STORED else column
