"""tests/cases/partition*.txt: layouts, the folders they give, what is refused. A new case needs no Python."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from headwater.canonical import duckdb_type, literal, quote
from headwater.errors import ConfigError
from headwater.folders import unfold
from headwater.model import Column, TableId, TableSchema
from headwater.partition import CODES, Code, bind, folder_sql, parse

CASES = Path(__file__).parents[1] / "cases"
_CELL = re.compile(
    r'(?:(?P<index>\d+)|(?P<name>"(?:[^"\\]|\\.)*")) (?P<type>[\w(),]+): (?P<value>.*)', re.DOTALL
)
_TYPES = {
    "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"), "date": pa.date32(),
    "string": pa.string(), "bool": pa.bool_(), "binary": pa.binary(), "int8": pa.int8(), "int16": pa.int16(),
    "int32": pa.int32(), "int64": pa.int64(), "uint64": pa.uint64(),
}  # fmt: skip


def rows() -> list[tuple[str, str, str]]:
    layout, found = "", []
    for line in (CASES / "partition.txt").read_text().splitlines():
        if line.startswith("/@"):
            layout = line
        elif line and not line.startswith("#"):
            cells, _, folder = line.rpartition(" => ")
            found.append((layout, cells, folder))
    return found


def arrow(text: str) -> pa.DataType:
    decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", text)
    return pa.decimal128(int(decimal[1]), int(decimal[2])) if decimal else _TYPES[text]


def make_table(cells: str) -> tuple[TableSchema, str]:
    """The schema that the cells tell, with other columns before and between them, and its one row."""
    columns: list[Column] = []
    values: list[str] = []
    for cell in map(_CELL.fullmatch, cells.split(" & ")):
        assert cell is not None, cells
        while cell["index"] and len(columns) < int(cell["index"]) - 1:
            columns.append(Column(f"c{len(columns)}", pa.string()))
            values.append("NULL")
        name = json.loads(cell["name"]) if cell["name"] else f"col {cell['index']}"
        columns.append(Column(name, arrow(cell["type"])))
        values.append(value(cell["value"], arrow(cell["type"])))
    schema = TableSchema(TableId("public", "t"), tuple(columns))
    names = ", ".join(quote(c.name) for c in columns)
    return schema, f"(VALUES ({', '.join(values)})) AS t({names})"


def value(text: str, kind: pa.DataType) -> str:
    if text == "NULL":
        return f"CAST(NULL AS {duckdb_type(kind)})"
    if text.startswith('"'):
        text = json.loads(text)
    shown = " || chr(0) || ".join(map(literal, text.split("\0")))
    zone = " || '+00'" if kind == pa.timestamp("us", "UTC") else ""
    return f"CAST({shown}{zone} AS {duckdb_type(kind)})"


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'Asia/Kolkata'")  # folders are the same wherever they are computed
    return con


@pytest.mark.parametrize(("layout", "cells", "folder"), rows(), ids=[f"{r[0]} {r[1]}"[:60] for r in rows()])
def test_folder(db: duckdb.DuckDBPyConnection, layout: str, cells: str, folder: str) -> None:
    schema, relation = make_table(cells)
    found = db.execute(f"SELECT {', '.join(folder_sql(parse(layout), schema))} FROM {relation}").fetchone()
    assert found is not None and "/".join(found) == folder
    assert str(parse(layout)) == layout
    assert all(len(name.encode()) <= 255 and unfold(name) for name in found)


def test_every_code_has_a_case() -> None:
    text = (CASES / "partition.txt").read_text()
    for spelling in CODES:
        pattern = re.escape(spelling).replace("<n>", r"\d+").replace("<m>", r"\d+")
        assert re.search(rf"\(([a-z]+=)?{pattern}\)\n", text), spelling


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_the_example_of_the_documentation_is_true(db: duckdb.DuckDBPyConnection, code: Code) -> None:
    shown, _, spelt = code.value.partition(" as ")
    kind = {"TIMESTAMP": "timestamp", "INTEGER": "int32", "VARCHAR": "string"}[code.takes]
    schema, relation = make_table(f"1 {kind}: {shown}")
    [folder] = folder_sql(parse(f"/@1({spelt or code.spelling})"), schema)
    assert db.execute(f"SELECT {folder} FROM {relation}").fetchone() == (code.gives,)


PEOPLE = TableSchema(
    TableId("public", "people"),
    (
        Column("id", pa.int64()),
        Column("fullname", pa.string()),
        Column("born", pa.date32()),
        Column("price", pa.decimal128(10, 2)),
        Column("odd_name_1a2b3c4d", pa.string(), source_name='odd "name'),
    ),
    ("id",),
)


def refusals() -> list[tuple[str, str, str]]:
    text = (CASES / "partition_refusals.txt").read_text().split("\n", 3)[3]
    parts = [re.fullmatch(r"(.*?)\n?--- (.*?)\n(.*)", part, re.DOTALL) for part in text.split("===\n")]
    assert all(parts)
    return [(p[2], p[1], p[3].rstrip("\n")) for p in parts if p]


@pytest.mark.parametrize(("given", "expected"), [r[1:] for r in refusals()], ids=[r[0] for r in refusals()])
def test_refusal(given: str, expected: str) -> None:
    with pytest.raises(ConfigError) as failed:
        bind(parse(given), PEOPLE)
    assert f"{failed.value}\ntry: {failed.value.hint}" == expected


@pytest.mark.parametrize(
    ("layout", "lint"),
    [
        ("/@2(Year=%s)", "/@2(Year=%s): for Athena write the name in a-z, 0-9 and _: `year`"),
        ("/@2(my-name=%s)", "/@2(my-name=%s): for Athena write the name in a-z, 0-9 and _: `my_name`"),
        ("/@2(%s)", "/@2(%s): without `name=` no engine sees the folder as a column"),
        ("/@2(id=%s)", "/@2(id=%s): the table has a column `id` too, and readers take one for the other"),
        ("/@3(h=%H)", "/@3(h=%H): the hour of a date is always 00"),
        ("/@3(d=%s)", "/@3(d=%s): %s writes date32[day] as a plain number (docs/verify.md)"),
        (
            "/@2(a=%s)/@2(b=%s)/@2(c=%s)/@2(d=%s)",
            "long values may exceed the 1,024 bytes of an S3 key: give %s a width",
        ),
    ],
)
def test_lint(layout: str, lint: str) -> None:
    assert bind(parse(layout), PEOPLE).lints == (lint,)


@pytest.mark.parametrize(
    "layout", ["/@2(first=%1s)", "/@3(yr=%y)/@3(mth=%M)", '/@"odd ""name"(x=%s)', "/@1(n=%8i)"]
)
def test_no_lint(layout: str) -> None:
    assert bind(parse(layout), PEOPLE).lints == ()


def test_a_column_goes_by_its_name_at_the_source_or_in_our_files() -> None:
    for name in ('"odd ""name"', "odd_name_1a2b3c4d", "5"):
        assert bind(parse(f"/@{name}(x=%s)"), PEOPLE).columns == (PEOPLE.columns[4],)


def test_leading_zeros_of_numbers_print_back_without() -> None:
    assert str(parse("/@007(a=%08.02i)")) == "/@7(a=%8.2i)"
    assert str(parse('/@"plain"(a=%s)')) == "/@plain(a=%s)"
