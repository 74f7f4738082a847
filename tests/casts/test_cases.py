"""tests/cases/cast*.txt: type changes, what values become, what is refused. A new case needs no Python."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from headwater.canonical import duckdb_type, literal
from headwater.casts import TARGETS, Cast, arrow_type, cast_sql, read_cast
from headwater.datepattern import LETTERS, Letter
from headwater.errors import ConfigError

CASES = Path(__file__).parents[1] / "cases"
_TYPES = {
    "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "uint64": pa.uint64(),
    "double": pa.float64(), "float": pa.float32(), "binary": pa.binary(),
}  # fmt: skip


def given(text: str) -> Cast:
    return read_cast(json.loads(text) if text.startswith("{") else text)


def column_type(text: str) -> pa.DataType:
    decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", text)
    return pa.decimal128(int(decimal[1]), int(decimal[2])) if decimal else _TYPES[text]


def blocks() -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    found: list[tuple[str, str, str, list[tuple[str, str]]]] = []
    for line in (CASES / "casts.txt").read_text().splitlines():
        head = re.fullmatch(r"([@{].*) of (\S+) => (.*)", line)
        if head:
            found.append((head[1], head[2], head[3], []))
        elif line and not line.startswith("#"):
            text, _, value = line.rpartition(" | ")
            found[-1][3].append((text, value))
    return found


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'America/Chicago'")  # a value is the same wherever it is computed
    return con


@pytest.mark.parametrize(
    ("change", "kind", "becomes", "values"), blocks(), ids=[f"{b[0]} of {b[1]}" for b in blocks()]
)
def test_values(
    db: duckdb.DuckDBPyConnection, change: str, kind: str, becomes: str, values: list[tuple[str, str]]
) -> None:
    cast, held = given(change), column_type(kind)
    assert str(arrow_type(cast)) == becomes
    value, bad = cast_sql(cast, held, "c")
    shown = f"timezone('UTC', {value})" if becomes.endswith("UTC]") else value
    rows = ", ".join(f"({n}, {_literal(text, held)})" for n, (text, _) in enumerate(values))
    found = db.execute(
        f"SELECT CAST({shown} AS VARCHAR), {bad}, typeof({value}) FROM (VALUES {rows}) AS t(n, c) ORDER BY n"
    ).fetchall()
    zone = "+00" if becomes.endswith("UTC]") else ""
    said = ["bad" if wrong else "NULL" if text is None else text + zone for text, wrong, _ in found]
    assert list(zip([t for t, _ in values], said, strict=True)) == values
    assert all(text is None for text, wrong, _ in found if wrong)
    assert {wrong for _, wrong, _ in found} <= {True, False}
    assert {made for _, _, made in found} == {duckdb_type(arrow_type(cast))}


def _literal(text: str, held: pa.DataType) -> str:
    if text == "NULL":
        return f"CAST(NULL AS {duckdb_type(held)})"
    text = json.loads(text) if text.startswith('"') else text
    return f"CAST({literal(text)} AS {duckdb_type(held)})"


@pytest.mark.parametrize("change", [b[0] for b in blocks()])
def test_both_spellings_read_back_as_they_print(change: str) -> None:
    cast = given(change)
    assert read_cast(cast.words()) == cast
    letters = cast.letters()
    if letters is not None:
        assert read_cast(letters) == cast
    assert letters == change or change.startswith("{")


def test_every_letter_and_type_has_a_case() -> None:
    changes = [given(b[0]) for b in blocks()]
    runs = {run[0] for c in changes for run in re.finditer(r"([A-Za-z])\1*", re.sub("'[^']*'", "", c.format))}
    missing = set(LETTERS) - runs - {"E", "S"}  # these stand for longer spellings, which have cases
    assert not missing
    assert {c.to.partition("(")[0] for c in changes} == set(TARGETS)


@pytest.mark.parametrize("row", LETTERS.values(), ids=list(LETTERS))
def test_the_example_of_the_documentation_matches(row: Letter) -> None:
    assert re.fullmatch(row.regex or "[0-9]", row.example)
    assert row.digits in (0, len(row.example))


def test_words_are_read_in_any_case_and_a_plain_word_is_enough() -> None:
    assert read_cast("BIGINT") == read_cast("@L") == read_cast({"to": "bigint"})
    assert read_cast({"to": "Decimal( 10 , 2 )"}) == Cast("decimal(10,2)")


def refusals() -> list[tuple[str, str, str]]:
    text = (CASES / "cast_refusals.txt").read_text().split("\n", 2)[2]
    parts = [re.fullmatch(r"(.*?)\n--- (.*?)\n(.*)", part, re.DOTALL) for part in text.split("===\n")]
    assert all(parts)
    return [(p[2], p[1], p[3].rstrip("\n")) for p in parts if p]


@pytest.mark.parametrize(("change", "expected"), [r[1:] for r in refusals()], ids=[r[0] for r in refusals()])
def test_refusal(change: str, expected: str) -> None:
    with pytest.raises(ConfigError) as failed:
        given(change)
    assert f"{failed.value}\ntry: {failed.value.hint}" == expected


@pytest.mark.parametrize(
    ("change", "held"),
    [
        ("@I", pa.bool_()), ("@I", pa.date32()), ("@D(yyyyMMdd)", pa.date32()),
        ("@D(yyyyMMdd)", pa.timestamp("us")), ("@D(yyyyMMdd)", pa.float64()), ("@F", pa.binary()),
        ("@T(yyyyMMdd)", pa.timestamp("us", "UTC")), ("@L", pa.time64("us")), ("hex", pa.string()),
        ("decimal(10,2)", pa.float64()),
    ],
)  # fmt: skip
def test_a_column_that_is_no_text_and_no_exact_number_is_refused(change: str, held: pa.DataType) -> None:
    with pytest.raises(ConfigError, match="a column of type .* cannot become") as failed:
        cast_sql(read_cast(change), held, "c")
    assert failed.value.hint
