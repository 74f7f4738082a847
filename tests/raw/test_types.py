"""Every value of every Arrow type of the raw log comes back as it was, from Arrow and from DuckDB."""

import math
import struct
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.model import ChangeBatch, Column, TableId, TableSchema, arrow_type
from headwater.raw import RawLog
from headwater.storage import Storage
from raw.batches import with_meta


def ints(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 0]))


# Dates and times by their number: Python's own end in the year 9999, the files do not.
VALUES: dict[str, st.SearchStrategy[object]] = {
    "bool": st.booleans(),
    **{f"int{b}": ints(b) for b in (8, 16, 32, 64)},
    **{f"uint{b}": ints(b, False) for b in (8, 16, 32, 64)},
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": st.text(),
    "binary": st.binary(),
    "date32[day]": ints(32),
    "time64[us]": st.integers(0, 86_400_000_000),
    "timestamp[us]": ints(64),
    "timestamp[us, tz=UTC]": ints(64),
    "decimal128(38, 0)": st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
    "decimal128(38, 38)": st.integers(-(10**38) + 1, 10**38 - 1).map(lambda i: Decimal(f"{i}E-38")),
    "decimal128(10, 2)": st.decimals(-99999999, 99999999, places=2, allow_nan=False, allow_infinity=False),
    "decimal128(1, 0)": st.integers(-9, 9).map(Decimal),
}
STORED_AS = {"date32[day]": pa.int32(), "time64[us]": pa.int64(), "timestamp[us]": pa.int64()}
STORED_AS["timestamp[us, tz=UTC]"] = pa.int64()


def column(text: str, values: list[object]) -> pa.Array:
    """An array of the type, made from plain numbers where Python has no value for all of them."""
    if text in STORED_AS:
        return pa.array(values, STORED_AS[text]).view(arrow_type(text))
    return pa.array(values, arrow_type(text))


def plain(text: str, array: pa.ChunkedArray) -> list[object]:
    """Values that compare as bits: NaN equals itself, -0.0 differs from 0.0."""
    if text in STORED_AS:
        array = pa.chunked_array([c.view(STORED_AS[text]) for c in array.chunks], STORED_AS[text])
    values = array.to_pylist()
    if text in ("float", "double"):
        return [None if v is None else "nan" if math.isnan(v) else struct.pack(">d", v) for v in values]
    return values


def test_all_types_are_here() -> None:
    from headwater.model import _SIMPLE

    assert {t for t in VALUES if not t.startswith("decimal")} == set(_SIMPLE)


@settings(max_examples=40)
@given(st.data())
def test_values_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    drawn = {
        text: data.draw(st.lists(st.none() | values, min_size=count, max_size=count), text)
        for text, values in VALUES.items()
    }
    arrays = [column(text, values) for text, values in drawn.items()]
    schema = TableSchema(TableId("s", "t"), tuple(Column(f"c{i}", a.type) for i, a in enumerate(arrays)))
    folder = tmp_path_factory.mktemp("types")
    with Storage.open(str(folder), cache=folder) as storage:
        log = RawLog(storage)
        made = log.stage(ChangeBatch(schema, with_meta(schema, arrays)), 1, 0)
        found = pq.read_table(log.fetch(made))
        assert RawLog(storage).schema(schema.table, made.schema) == schema
    assert [f.type for f in found.schema][: len(arrays)] == [a.type for a in arrays]
    for number, (text, array) in enumerate(zip(drawn, arrays, strict=True)):
        assert plain(text, found.column(number)) == plain(text, pa.chunked_array([array])), text


def test_duckdb_reads_the_same(tmp_path: Path) -> None:
    import duckdb

    samples: dict[str, list[object]] = {
        "uint64": [0, (1 << 64) - 1, None],
        "int8": [-128, 127, None],
        "double": [math.inf, -0.0, 5e-324],
        "string": ["", "a\0b", "\U0001f600\u202e"],
        "binary": [b"", b"\0\xff", None],
        "date32[day]": [date(1, 1, 1), date(9999, 12, 31), date(1970, 1, 1)],
        "time64[us]": [time(0), time(23, 59, 59, 999999), None],
        "timestamp[us]": [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), None],
        "decimal128(38, 10)": [Decimal("1234567890123456789012345678.0123456789"), Decimal("-1E-10"), None],
    }
    arrays = [pa.array(values, arrow_type(text)) for text, values in samples.items()]
    schema = TableSchema(TableId("s", "t"), tuple(Column(f"c{i}", a.type) for i, a in enumerate(arrays)))
    with Storage.open(str(tmp_path), cache=tmp_path) as storage:
        log = RawLog(storage)
        file = log.fetch(log.stage(ChangeBatch(schema, with_meta(schema, arrays)), 1, 0))
        names = ", ".join(f"c{i}" for i in range(len(arrays)))
        found = duckdb.execute(
            f"select {names} from read_parquet(?) order by _hw_seq", [str(file)]
        ).fetchall()
    assert [list(values) for values in zip(*found, strict=True)] == list(samples.values())
