# ruff: noqa: E501  one case, one line
"""Delta: the contract on a folder and a bucket, and what any other Delta reader finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from contracts.lake import LAYOUT, SCHEMA, TABLE, FormatContract
from headwater.errors import ConfigError
from headwater.lake import Change
from headwater.lake.delta import Lake
from headwater.lake.stats import FileFacts, stats_json
from headwater.model import Mark
from headwater.storage import Storage
from raw.batches import open_bucket


class TestDelta(FormatContract):
    @pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.live)])
    def again(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Lake]]:
        bucket = request.getfixturevalue("s3") if request.param == "s3" else None
        with ExitStack() as cleanup:
            count = iter(range(100))

            def open_lake() -> Lake:
                cache = tmp_path / f"cache{next(count)}"
                storage = (
                    open_bucket(bucket, cache) if bucket else Storage.open(str(tmp_path / "s"), cache=cache)
                )
                return Lake(cleanup.enter_context(storage))

            yield open_lake

    @pytest.fixture
    def format(self, again: Callable[[], Lake]) -> Lake:
        return again()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Storage.open(str(tmp_path / "store"), cache=tmp_path / "cache") as storage:
        yield Lake(storage)


TYPES: dict[str, tuple[pa.DataType, str]] = {
    "bool": (pa.bool_(), "true"),
    "i16": (pa.int16(), "-32768"),
    "u64": (pa.uint64(), "18446744073709551615"),
    "f32": (pa.float32(), "'nan'"),
    "f64": (pa.float64(), "-0.0::DOUBLE"),
    "text": (pa.string(), "repeat('\U0001f600', 30) || chr(10) || '\"'"),
    "blob": (pa.binary(), "'\\x00\\xFF'::BLOB"),
    "day": (pa.date32(), "DATE '0044-03-15 (BC)'"),
    "far": (pa.date32(), "DATE '5000000-01-01'"),
    "hour": (pa.time64("us"), "TIME '23:59:59.000001'"),
    "naive": (pa.timestamp("us"), "TIMESTAMP '0044-03-15 (BC) 00:00:00.000001'"),
    "zoned": (pa.timestamp("us", "UTC"), "TIMESTAMPTZ '29000-01-01 00:00:00.5+00'"),
    "tiny": (pa.decimal128(2, 2), "-0.50::DECIMAL(2,2)"),
    "huge": (pa.decimal128(38, 3), "99999999999999999999999999999999999.999::DECIMAL(38,3)"),
}


def test_values_come_back_as_they_were(lake: Lake) -> None:
    cells = ", ".join(f"CAST({text} AS {_duck(kind)}) AS {name}" for name, (kind, text) in TYPES.items())
    layout = {name: kind for name, (kind, _) in TYPES.items()} | {"_hw_seq": pa.int64()}
    with lake.connect() as con:
        wanted = f"(SELECT {cells}, 2::BIGINT AS _hw_seq)"
        add = lake.write(con, f"SELECT * FROM {wanted}", layout, ["_hw_seq"])
        held = lake.commit(TABLE, "mirror", None, Change(Mark(1, 0), SCHEMA, layout, add))
        found = lake.scan(held)
        types = "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {})"
        assert con.execute(types.format(found)).fetchall() == con.execute(types.format(wanted)).fetchall()
        for name in TYPES:
            exact = (
                f"SELECT hash(CAST({{}}.{name} AS VARCHAR)), CAST({{}}.{name} AS VARCHAR) FROM {{}} AS {{}}"
            )
            got, want = (
                con.execute(exact.format(a, a, rows, a)).fetchall()
                for a, rows in (("f", found), ("w", wanted))
            )
            assert got == want, name


def test_another_reader_finds_the_same_rows_and_bounds(lake: Lake) -> None:
    layout = {name: kind for name, (kind, _) in TYPES.items()} | {"_hw_seq": pa.int64()}
    cells = ", ".join(f"CAST({text} AS {_duck(kind)}) AS {name}" for name, (kind, text) in TYPES.items())
    with lake.connect() as con:
        add = lake.write(con, f"SELECT {cells}, 2 AS _hw_seq", layout, ["_hw_seq"])
        lake.commit(TABLE, "mirror", None, Change(Mark(1, 0), SCHEMA, layout, add))
    uri, options = lake._storage.delta("lake/s.~57eird~20~4e~c3~a4me~2f~2e~2e/mirror")
    delta = DeltaTable(uri, storage_options=options)
    table = pa.table(delta.to_pyarrow_table())
    assert table.num_rows == 1
    assert table["hour"].to_pylist() == ["23:59:59.000001"]
    assert str(table["huge"][0].as_py()) == "99999999999999999999999999999999999.999"
    bounds = pa.table(delta.get_add_actions(flatten=True)).to_pylist()[0]
    assert bounds["min._hw_seq"] == bounds["max._hw_seq"] == 2
    assert str(bounds["max.huge"]) == "99999999999999999999999999999999999.999"
    assert str(bounds["min.tiny"]) == "-0.50"
    assert bounds["min.day"] is None and bounds["max.far"] is None and bounds["max.zoned"] is None
    text = "\U0001f600" * 30 + '\n"'
    assert bounds["min.text"] <= text <= bounds["max.text"]


def _duck(kind: pa.DataType) -> str:
    from headwater.canonical import duckdb_type

    return duckdb_type(kind)


@pytest.mark.parametrize(
    ("kind", "said", "low", "high"),
    [
        (pa.string(), ("a" * 100, "b" * 100), "a" * 64, "b" * 64 + "\U0010ffff"),
        (pa.string(), ("tab\there", "a" * 64 + "\U0010ffff!"), "tab\there", None),
        (pa.decimal128(2, 2), ("-.50", ".25"), -0.5, 0.25),
        (pa.int64(), ("-5", "9"), -5, 9),
        (pa.float64(), ("1.0", "2.0"), None, None),
        (pa.date32(), ("0044-03-15 (BC)", "2020-01-01"), None, "2020-01-01"),
        (pa.timestamp("us", "UTC"), ("2020-01-01 00:00:00.5+00", "infinity"), "2020-01-01T00:00:00.500000Z", None),
        (pa.timestamp("us"), ("2020-01-01 00:00:00", "10000-01-01 00:00:00"), "2020-01-01T00:00:00.000000", None),
        (pa.binary(), ("00", "FF"), None, None),
    ],
)  # fmt: skip
def test_bounds_hold(kind: pa.DataType, said: tuple[str, str], low: object, high: object) -> None:
    column = {
        "min": said[0],
        "min_is_exact": "true",
        "max": said[1],
        "max_is_exact": "true",
        "null_count": "1",
    }
    doc = json.loads(stats_json(FileFacts(3, {'"a ""b"': column}), {'a "b': kind}, ()))
    assert doc["numRecords"] == 3
    assert doc["nullCount"] == {'a "b': 1}
    assert doc["minValues"].get('a "b') == low
    assert doc["maxValues"].get('a "b') == high


def test_bounds_that_are_not_exact_are_left_out() -> None:
    said = {"min": "a", "min_is_exact": "false", "max": "b", "max_is_exact": "false"}
    doc = json.loads(stats_json(FileFacts(3, {'"t"': said}), {"t": pa.string()}, ()))
    assert doc["minValues"] == doc["maxValues"] == {}


@pytest.mark.parametrize("name", ["100%25", "a?b", "c#d"])
def test_folders_that_the_library_cannot_name_are_refused(tmp_path: Path, name: str) -> None:
    with (
        Storage.open(str(tmp_path / name), cache=tmp_path) as storage,
        pytest.raises(ConfigError, match="%, ?"),
    ):
        Lake(storage)


@pytest.mark.parametrize("name", ["it's", "sp ace", "[a]*", "{é}", 'semi;"colon'])
def test_other_folder_names_work(tmp_path: Path, name: str) -> None:
    with Storage.open(str(tmp_path / name), cache=tmp_path) as storage:
        lake = Lake(storage)
        with lake.connect() as con:
            for n in range(2):
                add = lake.write(con, f"SELECT {n} AS id, 'x' AS t, {n} AS _hw_seq", LAYOUT, [])
                lake.commit(
                    TABLE, "mirror", lake.open(TABLE, "mirror"), Change(Mark(1, n), SCHEMA, LAYOUT, add)
                )
            assert con.execute(f"SELECT count(*) FROM {lake.relation(con, TABLE)}").fetchall() == [(2,)]


def test_a_mark_outlives_the_maintenance_of_others(lake: Lake) -> None:
    with lake.connect() as con:
        held = None
        for n in range(3):
            add = lake.write(con, f"SELECT {n} AS id, 'x' AS t, {n} AS _hw_seq", LAYOUT, [])
            held = lake.commit(TABLE, "mirror", held, Change(Mark(1, n), SCHEMA, LAYOUT, add))
    uri, _ = lake._storage.delta("lake/s.~57eird~20~4e~c3~a4me~2f~2e~2e/mirror")
    DeltaTable(uri).optimize.compact()
    assert lake.mark(TABLE) == Mark(1, 2)
    assert lake.version(TABLE) == 3
    with duckdb.connect() as con:
        assert con.execute(f"SELECT count(*) FROM {lake.relation(con, TABLE)}").fetchall() == [(3,)]


def test_a_column_of_nothing_but_null_has_its_type_in_the_file(lake: Lake) -> None:
    import pyarrow.parquet as pq

    layout = {"id": pa.int64(), "t": pa.timestamp("us", "UTC"), "_hw_seq": pa.int64()}
    with lake.connect() as con:
        (file,) = lake.write(con, "SELECT 1 AS id, NULL AS t, 4 AS _hw_seq", layout, [])
        assert {f.name: f.type for f in pq.read_schema(file.path)} == layout


def test_bounds_of_every_plane_come_back(lake: Lake) -> None:
    for plane in range(1, 17):
        text = chr(plane << 16 | 0xBB7)
        with lake.connect() as con:
            add = lake.write(con, f"SELECT {plane} AS id, '{text}' AS t, {plane} AS _hw_seq", LAYOUT, [])
        held = lake.commit(
            TABLE, "mirror", lake.open(TABLE, "mirror"), Change(Mark(1, plane), SCHEMA, LAYOUT, add)
        )
        bounds = {r["min.id"]: (r["min.t"], r["max.t"]) for r in held.files.to_pylist()}
        assert bounds[plane] == (text, text)
