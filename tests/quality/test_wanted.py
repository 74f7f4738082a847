"""What users expect: judged in pieces as in one, on every type, or refused with its place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from headwater.config import Expectation
from headwater.errors import ConfigError
from headwater.model import Column
from headwater.quality import Check, gx, rows
from headwater.quality.wanted import understand
from quality.tables import expect, judged, make_rows, the_judge

ID = Column("id", pa.int64(), nullable=False)
SOURCE = 'Pri"ce <b>'
COLUMNS = [
    ID, Column("n", pa.int64()),
    Column("amount", pa.decimal128(30, 2)), Column("f", pa.float64()),
    Column("s", pa.string()), Column("d", pa.date32()), Column("t", pa.timestamp("us")),
    Column("z", pa.timestamp("us", "UTC")), Column("b", pa.bool_()), Column("y", pa.binary()),
    Column("tm", pa.time64("us")), Column("r", pa.float32()),
    Column("price_0a1b2c3d", pa.int32(), source_name=SOURCE),
]  # fmt: skip
NAN = float("nan")
RECENT = {"min_value": "2000-01-01", "max_value": "2030-01-01"}
CELLS: dict[str, list[Any]] = {
    "id": [1, 2, 3, 4, 5],
    "n": [1, None, 2**53 + 1, -5, 7],
    "amount": [Decimal("1.10"), None, Decimal("9999999999999999999999999999.99"), Decimal(-1), Decimal(2)],
    "f": [1.0, NAN, None, float("inf"), 2.0],
    "s": ["a", None, "", "bb", "xé"],
    "d": [date(2020, 1, 1), None, date(9999, 12, 31), date(1, 1, 1), date(2024, 1, 1)],
    "t": [datetime(2020, 1, 1), None, datetime(9999, 12, 31), datetime(1, 1, 1), datetime(2024, 1, 1)],
    "z": [datetime(y, 1, 1, tzinfo=UTC) if y else None for y in (2020, 0, 9999, 1, 2024)],
    "b": [True, None, False, True, True],
    "y": [b"a", None, b"", b"\x00", b"a"],
    "tm": [time(1), None, time(0), time(5), time(23, 59)],
    "r": [0.1, None, 0.1, 0.1, 0.1],
    "price_0a1b2c3d": [5, None, -1, 0, 3],
}
#: An expectation, and the ids of the rows that are not as wanted.
SINGLE = [
    (expect("column_values_to_not_be_null", column="n"), [2]),
    (expect("column_values_to_be_null", column="s"), [1, 3, 4, 5]),
    (expect("column_values_to_be_between", column="n", min_value=0, max_value=2**53), [3, 4]),
    (expect("column_values_to_be_in_set", column="n", value_set=[1, 7, 2**53]), [3, 4]),
    (expect("column_values_to_be_between", column="amount", min_value=0, max_value=100), [3, 4]),
    (expect("column_values_to_be_between", column="amount", min_value=1.1), [4]),
    (expect("column_values_to_be_in_set", column="amount", value_set=[1.1, 2, -1]), [3]),
    (expect("column_values_to_be_between", column="r", max_value=0.1), []),
    (expect("column_values_to_be_between", column="f", min_value=0, max_value=10), [2, 4]),
    (expect("column_values_to_match_regex", column="s", regex="^[a-z]+$"), [3, 5]),
    (expect("column_value_lengths_to_be_between", column="s", min_value=1, max_value=1), [3, 4, 5]),
    (expect("column_values_to_not_be_in_set", column="s", value_set=["bb"]), [4]),
    (expect("column_values_to_be_between", column="d", **RECENT), [3, 4]),
    (expect("column_values_to_be_in_set", column="d", value_set=["2020-01-01", "2024-01-01"]), [3, 4]),
    (expect("column_values_to_be_between", column="t", **RECENT), [3, 4]),
    (expect("column_values_to_be_between", column="z", min_value="2000-01-01T00:00:00+02:00"), [4]),
    (expect("column_values_to_be_in_set", column="b", value_set=[True]), [3]),
    (expect("column_values_to_be_between", column=SOURCE, min_value=0), [3]),
    (expect("column_values_to_be_between", column="n", min_value=0, row_condition="id > 4"), []),
    (expect("column_pair_values_a_to_be_greater_than_b", column_A="n", column_B=SOURCE, or_equal=True,
            ignore_row_if="either_value_is_missing"), [1, 4]),
    (expect("select_column_values_to_be_unique_within_record", column_list=["id", "n"],
            ignore_row_if="any_value_is_missing"), [1]),
    (expect("column_values_to_be_unique", column="y"), [1, 5]),
    (expect("compound_columns_to_be_unique", column_list=["y", "b"]), [1, 5]),
]  # fmt: skip
#: One that is judged over all rows, and whether it is as wanted.
WHOLE = [
    (expect("column_max_to_be_between", column="n", min_value=2**53), True),
    (expect("column_max_to_be_between", column="n", max_value=2**53), False),
    (expect("column_max_to_be_between", column="r", min_value=0.1, max_value=0.1), True),
    (expect("column_distinct_values_to_be_in_set", column="r", value_set=[0.1]), True),
    (expect("column_min_to_be_between", column="d", min_value="0001-01-01"), True),
    (expect("column_mean_to_be_between", column=SOURCE, min_value=1.7, max_value=1.8), True),
    (expect("column_median_to_be_between", column=SOURCE, min_value=1.5, max_value=1.5), True),
    (expect("column_sum_to_be_between", column=SOURCE, min_value=8), False),
    (expect("column_stdev_to_be_between", column=SOURCE, min_value=2, max_value=3), True),
    (expect("column_unique_value_count_to_be_between", column="b", min_value=2, max_value=2), True),
    (expect("column_proportion_of_non_null_values_to_be_between", column="b", min_value=0.9), False),
    (expect("column_proportion_of_unique_values_to_be_between", column="id", min_value=1), True),
    (expect("table_row_count_to_be_between", min_value=1, max_value=4), False),
    (expect("table_row_count_to_equal", value=5), True),
    (expect("column_distinct_values_to_be_in_set", column="s", value_set=["a", "", "bb", "xé"]), True),
    (expect("column_distinct_values_to_contain_set", column="n", value_set=[8]), False),
    (expect("column_distinct_values_to_equal_set", column="b", value_set=[True, False]), True),
    (expect("column_to_exist", column=SOURCE), True),
    (expect("column_to_exist", column="gone"), False),
    (expect("table_column_count_to_equal", value=13), True),
    (expect("table_columns_to_match_set", column_set=["id"], exact_match=False), True),
]  # fmt: skip


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def ids(check: Check) -> list[int]:
    return [int(key.removeprefix("id=")) for key in check.keys]


@pytest.mark.parametrize("size", [2, 200_000])
def test_rows_of_every_type(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(rows, "PIECE_ROWS", size)
    monkeypatch.setattr(rows, "_READ_ROWS", min(size, 16_384))
    made = make_rows(con, COLUMNS, CELLS)
    checks = judged(con, made, *(e for e, _ in SINGLE))
    assert [c.why for c in checks if c.why] == []
    # DuckDB counts what is not unique; for Great Expectations to judge, the outcome comes later.
    found = [(c.rule, ids(c), c.unexpected) for c in checks]
    assert found == [(e.type, wrong, len(wrong)) for e, wrong in SINGLE]
    between = next(c.says for c in checks if c.rule == "expect_column_values_to_be_between")
    assert between == "column values to be between: min_value 0, max_value 9007199254740992"
    assert [c.rows for c in checks] == [1 if "row_condition" in e.kwargs else 5 for e, _ in SINGLE]


def test_figures_of_all_rows(con: duckdb.DuckDBPyConnection) -> None:
    made = make_rows(con, COLUMNS, CELLS)
    found = [judged(con, made, e)[0] for e, _ in WHOLE]
    assert [c.why for c in found if c.why] == []
    assert [c.outcome for c in found] == ["passed" if good else "failed" for _, good in WHOLE]


def test_pieces_are_judged_as_the_whole_is(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle: Great Expectations itself, over all rows at once, in plain Python objects."""
    lots = random.Random(7)
    cells = {
        "id": list(range(300)),
        "n": [lots.choice([None, 1, 2, 3, 2**60]) for _ in range(300)],
        "s": [lots.choice([None, "a", "b", "ccc"]) for _ in range(300)],
    }
    columns = [ID, Column("n", pa.int64()), Column("s", pa.string())]
    wanted = [
        expect("column_values_to_be_between", column="n", max_value=m, mostly=mostly)
        for m in (0, 2, 2**60 - 1) for mostly in (0.2, 0.5, 0.74, 0.76, 1.0)
    ]  # fmt: skip
    wanted += [expect("column_values_to_be_in_set", column="s", value_set=v, mostly=m)
               for v in (["a"], ["a", "b"]) for m in (0.3, 0.34, 0.6, 0.7)]  # fmt: skip
    wanted += [expect("column_values_to_not_be_null", column="n", mostly=m) for m in (0.7, 0.8, 0.85, 1.0)]
    monkeypatch.setattr(rows, "PIECE_ROWS", 64)
    monkeypatch.setattr(rows, "_READ_ROWS", 64)
    made = make_rows(con, columns, cells)
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in cells.items()})
    whole = the_judge().frame(frame, [gx.make(e.type, e.kwargs) for e in wanted])
    for given, told, check in zip(wanted, whole, judged(con, made, *wanted), strict=True):
        assert (check.outcome == "passed", check.unexpected, check.rows) == (
            told.success, told.unexpected, told.rows,
        ), given  # fmt: skip


def test_what_raises_is_not_judged_and_fails(con: duckdb.DuckDBPyConnection) -> None:
    made = make_rows(con, COLUMNS, CELLS)
    broken = [
        expect("column_values_to_match_regex", column="s", regex="("),
        expect("column_values_to_be_between", column="id", min_value=1, row_condition="secret ==== 'x'"),
        expect("column_mean_to_be_between", column="id", min_value={"$PARAMETER": "none"}),
    ]
    for given in broken:
        (check,) = judged(con, made, given)
        assert (check.outcome, check.fails) == ("unjudged", True), given
        assert check.why and "secret" not in check.why
    # One that raises takes no other with it.
    checks = judged(con, made, broken[0], expect("column_values_to_be_between", column="id", min_value=0))
    assert [c.outcome for c in checks] == ["unjudged", "passed"]


def test_no_rows_at_all(con: duckdb.DuckDBPyConnection) -> None:
    made = make_rows(con, COLUMNS, {name: [] for name in CELLS})
    checks = judged(con, made, *(e for e, _ in SINGLE))
    assert {(c.why, c.unexpected) for c in checks} == {("", 0)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (expect("column_values_to_be_betwen", column="n"), "has no expect_column_values_to_be_betwen"),
        (expect("column_values_to_be_between", column="n", min=1), "takes no min"),
        (expect("column_values_to_be_between", column="nn", min_value=1), "there is no column 'nn'"),
        (expect("column_values_to_be_between", column="n"), "cannot both be None"),
        (expect("column_values_to_be_between", min_value=1), "field required"),
        (expect("column_values_to_be_between", column="d", min_value="soon"), "'soon' is no date or time"),
        (expect("column_values_to_be_increasing", column="n"), "needs all rows in memory at once"),
        (expect("column_kl_divergence_to_be_less_than", column="n"), "needs all rows in memory at once"),
        (Expectation("unexpected_rows_expectation", {"unexpected_rows_query": "x"}), "needs all rows"),
        (expect("column_values_to_be_of_type", column="n", type_="int"), "the rule `types` judges them"),
        (expect("column_values_to_be_unique", column="n", mostly=0.5), "takes no mostly here"),
        (expect("column_values_to_be_in_set", column="n", value_set=[1], severity="x"), "takes no severity"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_with_its_place(given: Expectation, says: str) -> None:
    from dataclasses import replace

    schema = make_rows(duckdb.connect(), COLUMNS, CELLS).schema
    with pytest.raises(ConfigError) as refused:
        understand(schema, [replace(given, at="headwater.yml:7")])
    assert str(refused.value).startswith("headwater.yml:7: public.t: ") and says in str(refused.value)
    assert refused.value.hint
