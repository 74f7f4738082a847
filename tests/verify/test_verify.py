"""The DuckDB digest against a few lines of Python, and the naming of keys, over cuts made of Arrow tables."""

import hashlib
import json
import math
import struct
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import SourceError
from headwater.model import ChangeBatch, Column, Digest, Position, TableId, TableSchema
from headwater.verify import LIMIT, KeyDifference, Options, TableCheck, VerifyReport, digest, verify

T = TableId("public", "t")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def schema(*columns: tuple[str, pa.DataType], key: Sequence[str] = ()) -> TableSchema:
    return TableSchema(T, tuple(Column(name, its) for name, its in columns), tuple(key))


def rows_of(its: TableSchema, rows: Sequence[dict[str, object]]) -> pa.Table:
    """Rows as a source reads them: the schema's columns and `_hw_text`, which may be given as a dict."""
    given = [
        {**row, "_hw_text": json.dumps(row["_hw_text"]) if row.get("_hw_text") else None} for row in rows
    ]
    return pa.Table.from_pylist(given, pa.schema([*its.arrow(), ("_hw_text", pa.string())]))


def say(value: object, its: pa.DataType) -> str:  # noqa: PLR0911
    """Canonical text, the slow and plain way."""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        bits = 0x7FF8000000000000 if math.isnan(value) else struct.unpack(">q", struct.pack(">d", value))[0]
        return str(bits)
    if isinstance(value, Decimal):
        return f"{value:f}" if its.scale else str(int(value))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return str((aware - EPOCH) // timedelta(microseconds=1))
    if isinstance(value, date):
        return str((value - EPOCH.date()).days)
    if isinstance(value, time):
        return str(((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond)
    return str(value)


def md5_of(its: TableSchema, row: dict[str, object], names: Sequence[str]) -> str:
    beside = json.loads(str(row["_hw_text"] or "{}"))
    types = {c.name: c.type for c in its.columns}
    fields = []
    for name in names:
        value = row[name]
        text = say(value, types[name]) if value is not None else None
        if text is None and name in beside:
            text = "~" + beside[name]
        fields.append("N" if text is None else f"{len(text.encode())}:{text}")
    return hashlib.md5("".join(fields).encode()).hexdigest()


def slice_of_row(its: TableSchema, row: dict[str, object], slices: int) -> int:
    if slices == 1:
        return 0
    return int(md5_of(its, row, its.key or [c.name for c in its.columns])[:8], 16) % slices


def reference(its: TableSchema, table: pa.Table) -> Digest:
    words = [0, 0, 0, 0]
    for row in table.to_pylist():
        md5 = md5_of(its, row, [c.name for c in its.columns])
        words = [total + int(md5[8 * n : 8 * n + 8], 16) for n, total in enumerate(words)]
    return Digest(table.num_rows, (words[0], words[1], words[2], words[3]))


class FakeCut:
    """A cut over Arrow tables; counts how often it was read."""

    def __init__(self, *tables: tuple[TableSchema, pa.Table]) -> None:
        self.held = {its.table: (its, table) for its, table in tables}
        self.position = Position("here")
        self.reads = self.rows = 0

    def parts(self, table: TableId) -> list[str]:
        return [""]

    def read(self, table: TableId, part: str = "") -> Iterator[ChangeBatch]:
        its, rows = self.held[table]
        return self.batches(its, rows)

    def pick(
        self, its: TableSchema, slices: int, chosen: Collection[int], part: str
    ) -> Iterator[ChangeBatch]:
        full, rows = self.held[its.table]
        keep = [slice_of_row(its, row, slices) in chosen for row in rows.to_pylist()]
        return self.batches(full, rows.filter(pa.array(keep, pa.bool_())))

    def batches(self, its: TableSchema, rows: pa.Table) -> Iterator[ChangeBatch]:
        self.reads += 1
        self.rows += rows.num_rows
        for batch in rows.to_batches(max_chunksize=7):
            yield ChangeBatch(its, pa.Table.from_batches([batch]), "snapshot")
        yield ChangeBatch(its, rows.slice(0, 0), "snapshot_end")

    def digests(self, its: TableSchema, slices: int = 1, part: str = "") -> dict[int, Digest]:
        found: dict[int, list[int]] = {}
        rows = self.held[its.table][1]
        for n, row in enumerate(rows.to_pylist()):
            found.setdefault(slice_of_row(its, row, slices), []).append(n)
        return {number: reference(its, rows.take(places)) for number, places in found.items()}


def check(
    its: TableSchema,
    source: pa.Table,
    lake: pa.Table | None,
    warehouse: pa.Table | None = None,
    reads: int = 1,
) -> TableCheck:
    """Verify one table whose lake and warehouse are Arrow tables."""
    cut = FakeCut((its, source))
    with duckdb.connect() as connection, duckdb.connect() as other:
        if lake is not None:
            connection.register("lake_rows", lake)
        if warehouse is not None:
            other.register("warehouse_rows", warehouse)
        (found,) = verify(
            cut,
            [its],
            lambda _: ("lake_rows", connection) if lake is not None else None,
            (lambda _: ("warehouse_rows", other)) if warehouse is not None else None,
        )
    assert cut.reads == (0 if found.equal else reads)
    return found


_EVERY: dict[str, tuple[pa.DataType, st.SearchStrategy[object]]] = {
    "b": (pa.bool_(), st.booleans()),
    "i2": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "i8": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "u8": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "f4": (pa.float32(), st.floats(width=32)),
    "f8": (pa.float64(), st.floats()),
    "n": (pa.decimal128(10, 2), st.decimals(-99999999, 99999999, places=2, allow_nan=False)),
    "whole": (pa.decimal128(38, 0), st.decimals(-(10**20), 10**20, places=0, allow_nan=False)),
    "part": (pa.decimal128(4, 4), st.decimals("-0.9999", "0.9999", places=4, allow_nan=False)),
    "deep": (pa.decimal128(38, 38), st.just(Decimal("-0.1"))),
    "s": (pa.string(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    "y": (pa.binary(), st.binary()),
    "d": (pa.date32(), st.dates()),
    "t": (pa.time64("us"), st.times()),
    "ts": (pa.timestamp("us"), st.datetimes()),
    "tz": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
}
EVERY = schema(*((name, its) for name, (its, _) in _EVERY.items()))
_ROW = st.fixed_dictionaries(
    {name: st.none() | values for name, (_, values) in _EVERY.items()},
    optional={
        "_hw_text": st.dictionaries(st.sampled_from(list(_EVERY)), st.text("infity~-\"'é"), max_size=3)
    },
)


@given(st.lists(_ROW, max_size=5))
def test_digest_is_the_reference_for_every_type(rows: list[dict[str, object]]) -> None:
    table = rows_of(EVERY, rows)
    expected = reference(EVERY, table)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        connection.register("held", table)
        assert digest(EVERY, "held", connection) == expected


def test_null_empty_text_and_neighbours_are_told_apart() -> None:
    its = schema(("a", pa.string()), ("b", pa.string()))
    rows = [
        (None, ""),
        ("", None),
        ("", ""),
        (None, None),
        ("ab", "c"),
        ("a", "bc"),
        ("N", None),
        ("1:a", "b"),
    ]
    seen = {digest_of(its, rows_of(its, [{"a": a, "b": b}])).words for a, b in rows}
    assert len(seen) == len(rows)


def test_duplicates_do_not_cancel() -> None:
    its = schema(("a", pa.int64()))
    with duckdb.connect() as connection:
        digests = {
            digest(its, f"(SELECT * FROM (VALUES {values}) v(a))", connection).words
            for values in ("(1), (1), (2), (2)", "(3), (3), (4), (4)", "(1), (2), (2), (2)")
        }
    assert len(digests) == 3


def test_signed_zero_and_bits_of_a_float_count() -> None:
    its = schema(("f", pa.float64()))
    values = ["0.0", "-0.0", "5e-324", "1e15", "100000", "'nan'", "'inf'", "'-inf'", "0.1", "0.1::FLOAT"]
    with duckdb.connect() as connection:
        seen = {digest(its, f"(SELECT {v}::DOUBLE AS f)", connection).words for v in values}
    assert len(seen) == len(values)


def test_hostile_names_are_only_names() -> None:
    names = ["t0", "t1", "h", "k", "s0", "n", 'x" FROM y --', "q'q", "a/b~c", "select", "Ü"]
    its = schema(*((name, pa.string()) for name in names), key=names[:3])
    source = rows_of(its, [{name: f"{name}{n}" for name in names} for n in range(5)])
    other = rows_of(its, [{name: f"{name}{n}" for name in names} for n in range(4)])
    assert digest_of(its, source) == reference(its, source)
    found = check(its, source, other)
    assert [d.kind for d in found.differing] == ["missing"]
    beside = rows_of(its, [{"t0": "x", "t1": "y", "h": "z", "_hw_text": {"a/b~c": "infinity", "q'q": "NaN"}}])
    assert digest_of(its, beside) == reference(its, beside)


def digest_of(its: TableSchema, table: pa.Table) -> Digest:
    with duckdb.connect() as connection:
        connection.register("held", table)
        return digest(its, "held", connection)


def test_many_columns() -> None:
    its = schema(*((f"c{n}", pa.int64()) for n in range(1600)))
    table = rows_of(its, [{f"c{n}": n for n in range(1600)}])
    assert digest_of(its, table) == reference(its, table)


def test_a_table_without_columns_is_its_count() -> None:
    its = TableSchema(T, ())
    with duckdb.connect() as connection:
        found = digest(its, "(SELECT NULL::VARCHAR AS _hw_text FROM range(3))", connection)
    one = hashlib.md5(b"").hexdigest()
    assert found == Digest(3, tuple(3 * int(one[n : n + 8], 16) for n in (0, 8, 16, 24)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source_type", "value", "lake_type", "held"),
    [
        (pa.int16(), 5, pa.int64(), 5),
        (pa.int32(), 5, pa.string(), "5"),
        (pa.float32(), 0.1, pa.float64(), struct.unpack("f", struct.pack("f", 0.1))[0]),
        (pa.float64(), 1.5, pa.string(), "4609434218613702656"),
        (pa.decimal128(10, 2), Decimal("1.50"), pa.decimal128(20, 6), Decimal("1.500000")),
        (pa.decimal128(10, 2), Decimal("-0.05"), pa.decimal128(38, 38), Decimal("-0.05")),
        (pa.decimal128(2, 2), Decimal("0.50"), pa.decimal128(10, 4), Decimal("0.5")),
        (pa.decimal128(38, 2), Decimal("0.50"), pa.decimal128(10, 1), Decimal("0.5")),
        (pa.int64(), 7, pa.decimal128(20, 3), Decimal(7)),
        (pa.decimal128(5, 0), Decimal(7), pa.int64(), 7),
        (pa.string(), "x", pa.string(), "x"),
        (pa.timestamp("us"), datetime(1969, 12, 31, 23, 59, 59), pa.string(), "-1000000"),
        (pa.time64("us"), time(0, 0, 1), pa.int64(), 1_000_000),
        (pa.date32(), date(1970, 1, 2), pa.string(), "1"),
    ],
)
def test_a_lake_column_of_a_wider_type_is_equal(
    source_type: pa.DataType, value: object, lake_type: pa.DataType, held: object
) -> None:
    its = schema(("id", pa.int64()), ("x", source_type), key=["id"])
    wide = schema(("gone", pa.string()), ("x", lake_type), ("id", pa.int64()))
    source = rows_of(its, [{"id": 1, "x": value}, {"id": 2}])
    lake = rows_of(wide, [{"id": 1, "x": held, "gone": "kept"}, {"id": 2}])
    assert check(its, source, lake).equal


def test_a_digit_more_in_the_lake_is_a_difference() -> None:
    its = schema(("id", pa.int64()), ("x", pa.decimal128(10, 2)), key=["id"])
    wide = schema(("id", pa.int64()), ("x", pa.decimal128(10, 4)))
    source = rows_of(its, [{"id": 1, "x": Decimal("1.50")}])
    found = check(its, source, rows_of(wide, [{"id": 1, "x": Decimal("1.5001")}]))
    assert found.differing == (KeyDifference("lake", "id=1", "different", ("x",)),)


def test_a_column_the_lake_lacks_differs_only_where_it_has_values() -> None:
    its = schema(("id", pa.int64()), ("x", pa.string()), key=["id"])
    lake = rows_of(schema(("id", pa.int64())), [{"id": 1}, {"id": 2}])
    assert check(its, rows_of(its, [{"id": 1}, {"id": 2}]), lake).equal
    found = check(its, rows_of(its, [{"id": 1}, {"id": 2, "x": ""}]), lake)
    assert found.differing == (KeyDifference("lake", "id=2", "different", ("x",)),)


def test_text_beside_a_cell_counts_and_is_named() -> None:
    its = schema(("id", pa.int64()), ("n", pa.decimal128(10, 2)), key=["id"])
    source = rows_of(its, [{"id": 1, "_hw_text": {"n": "NaN"}}, {"id": 2, "_hw_text": {"n": "Infinity"}}])
    assert check(its, source, source).equal
    found = check(its, source, rows_of(its, [{"id": 1}, {"id": 2, "_hw_text": {"n": "Infinity"}}]))
    assert found.differing == (KeyDifference("lake", "id=1", "different", ("n",)),)


PEOPLE = schema(
    ("a", pa.int64()), ("b", pa.string()), ("secret", pa.string()), ("c", pa.int64()), key=["a", "b"]
)


def people(count: int) -> list[dict[str, object]]:
    return [{"a": n, "b": f"x,{n}", "secret": f"canary{n}", "c": n * n} for n in range(count)]


def test_names_keys_and_columns_but_no_values() -> None:
    source = people(300)
    lake = [dict(row) for row in source]
    lake[17]["secret"] = None
    lake[18] |= {"secret": "canary", "c": -1}
    del lake[100]
    lake.append({"a": 9000, "b": "new", "secret": "canary", "c": 0})
    lake.append(dict(lake[5]))
    found = check(PEOPLE, rows_of(PEOPLE, source), rows_of(PEOPLE, lake), rows_of(PEOPLE, source[1:]))
    assert set(found.differing) == {
        KeyDifference("lake", 'a=17,b="x,17"', "different", ("secret",)),
        KeyDifference("lake", 'a=18,b="x,18"', "different", ("secret", "c")),
        KeyDifference("lake", 'a=100,b="x,100"', "missing"),
        KeyDifference("lake", "a=9000,b=new", "extra"),
        KeyDifference("lake", 'a=5,b="x,5"', "extra"),
        KeyDifference("warehouse", 'a=0,b="x,0"', "missing"),
    }
    lines = VerifyReport(Position("0/1"), (found,)).lines()
    assert "canary" not in "\n".join(lines)
    assert '  lake: a=18,b="x,18"  different in secret, c' in lines
    assert lines[-1] == "verify: 1 of 1 tables differ"


def test_names_a_few_keys_when_all_differ() -> None:
    source = people(5000)
    lake = [{**row, "c": -1} for row in source]
    found = check(PEOPLE, rows_of(PEOPLE, source), rows_of(PEOPLE, lake))
    assert len(found.differing) == LIMIT
    assert {d.columns for d in found.differing} == {("c",)}
    assert any("only the first 20" in line for line in VerifyReport(Position("x"), (found,)).lines())


def test_one_key_in_a_large_table_is_found() -> None:
    its = schema(("id", pa.int64()), ("x", pa.int64()), key=["id"])
    ids = pa.array(range(40_000))
    source = pa.table({"id": ids, "x": ids, "_hw_text": pa.nulls(len(ids), pa.string())})
    cut = FakeCut((its, source))
    with duckdb.connect() as connection:
        relation = "(SELECT id, CASE id WHEN 12345 THEN 0 ELSE id END AS x FROM range(40000) r(id))"
        (found,) = verify(cut, [its], lambda _: (relation, connection))
    assert found.differing == (KeyDifference("lake", "id=12345", "different", ("x",)),)
    # Of one slice only the rows are read.
    assert 0 < cut.rows == found.rows_read < 40_000 // 20


def test_tables_without_a_key_are_bags() -> None:
    its = schema(("a", pa.string()))
    source = rows_of(its, [{"a": "x"}, {"a": "x"}, {"a": "y"}])
    assert check(its, source, rows_of(its, [{"a": "y"}, {"a": "x"}, {"a": "x"}])).equal
    found = check(its, source, rows_of(its, [{"a": "x"}, {"a": "y"}, {"a": "y"}]))
    named = {(d.key, d.kind) for d in found.differing}
    md5 = {v: hashlib.md5(f"1:{v}".encode()).hexdigest() for v in "xy"}
    assert named == {(f"row {md5['x']}", "missing"), (f"row {md5['y']}", "extra")}


def test_keys_of_every_type_are_shown_as_explain_reads_them() -> None:
    its = schema(
        ("t", pa.timestamp("us", "UTC")), ("d", pa.date32()), ("y", pa.binary()), key=["t", "d", "y"]
    )
    row = {"t": datetime(2013, 1, 1, 5, tzinfo=UTC), "d": date(2013, 1, 1), "y": b"\x00a"}
    odd = {"t": None, "d": date(2013, 1, 1), "y": b"", "_hw_text": {"t": "infinity"}}
    found = check(its, rows_of(its, [row, odd]), rows_of(its, []))
    assert {d.key for d in found.differing} == {
        't=2013-01-01 05:00:00+00,d=2013-01-01,y="\\\\x00a"',
        't=infinity,d=2013-01-01,y=""',
    }


def test_a_table_missing_from_the_lake_differs() -> None:
    found = check(PEOPLE, rows_of(PEOPLE, people(2)), None, reads=0)
    assert (found.equal, found.lake, found.differing) == (False, Digest(0), ())
    assert "lake: nothing there; headwater run" in VerifyReport(Position("x"), (found,)).lines()[1]
    assert check(PEOPLE, rows_of(PEOPLE, []), None).equal


def test_a_column_dropped_in_the_middle_is_an_error_not_a_difference() -> None:
    narrow = schema(("a", pa.int64()), key=["a"])
    cut = FakeCut((narrow, rows_of(narrow, [{"a": 1}])))
    cut.digests = lambda *_: {0: Digest(7)}  # type: ignore[method-assign]
    with duckdb.connect() as connection, pytest.raises(SourceError, match="lost the columns b, c, secret"):
        verify(cut, [PEOPLE], lambda _: ("(SELECT 1 AS a)", connection))


def test_the_temporary_file_is_where_it_is_asked_for_and_gone_after(tmp_path: Path) -> None:
    cut = FakeCut((PEOPLE, rows_of(PEOPLE, people(3))))
    with duckdb.connect() as connection:
        verify(cut, [PEOPLE], lambda _: ("(SELECT 1 AS a)", connection), options=Options(tmp_path))
    assert not list(tmp_path.iterdir())
    with duckdb.connect() as connection, pytest.raises(FileNotFoundError):
        verify(cut, [PEOPLE], lambda _: ("(SELECT 1 AS a)", connection), options=Options(tmp_path / "absent"))


def test_the_report_says_equal_and_becomes_json() -> None:
    same = check(PEOPLE, rows_of(PEOPLE, people(2)), rows_of(PEOPLE, people(2)), rows_of(PEOPLE, people(2)))
    report = VerifyReport(Position("0/1"), (same, same))
    assert report.lines()[-1] == "verify: 2 tables equal"
    doc = json.loads(json.dumps(report.to_json()))
    assert (doc["equal"], doc["position"], doc["tables"][0]["table"]) == (True, "0/1", "public.t")
    assert doc["tables"][0]["source"] == doc["tables"][0]["warehouse"]
