"""What a user expects, by Great Expectations' names: understood, refused, and judged in bounded memory.

Rows are judged piece by piece and the numbers added up; a figure over all rows is computed by DuckDB, and a
frame of one row is judged; what can be done in neither way is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.canonical import quote
from headwater.config import Expectation
from headwater.errors import ConfigError, HeadwaterError
from headwater.model import Column, TableSchema
from headwater.quality import Check, Outcome
from headwater.quality.gx import Judge, Told, make, to_frame
from headwater.quality.rows import Rows, name_keys, read_pieces
from headwater.quality.rules import Rule, is_null

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Judged row by row, whatever rows are beside.
_BY_ROW = ("ColumnMapExpectation", "ColumnPairMapExpectation", "MulticolumnMapExpectation")
#: Of these, what only all rows together can tell.
_UNIQUE = {"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"}
_BY_ORDER = {
    "expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing",
    "expect_column_value_z_scores_to_be_less_than", "expect_column_values_to_not_be_outliers",
}  # fmt: skip
_NULLS = {"expect_column_values_to_not_be_null", "expect_column_values_to_be_null"}
_TYPES = {"expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list"}

#: One figure of a column or the table, and the SQL of it.
_FIGURES: Mapping[str, str] = {
    "expect_column_max_to_be_between": "max({c})",
    "expect_column_min_to_be_between": "min({c})",
    "expect_column_mean_to_be_between": "avg({c})",
    "expect_column_median_to_be_between": "median({c})",
    "expect_column_sum_to_be_between": "sum({c})",
    "expect_column_stdev_to_be_between": "stddev_samp({c})",
    "expect_column_unique_value_count_to_be_between": "count(DISTINCT {c})",
    "expect_column_proportion_of_unique_values_to_be_between":
        "CASE WHEN count({c}) > 0 THEN count(DISTINCT {c}) / CAST(count({c}) AS DOUBLE) END",
    "expect_column_proportion_of_non_null_values_to_be_between":
        "CASE WHEN count(*) > 0 THEN count({c}) / CAST(count(*) AS DOUBLE) END",
    "expect_table_row_count_to_be_between": "count(*)",
    "expect_table_row_count_to_equal": "count(*)",
}  # fmt: skip
#: Judged by the values that there are, each once.
_DISTINCT = {
    "expect_column_distinct_values_to_be_in_set", "expect_column_distinct_values_to_contain_set",
    "expect_column_distinct_values_to_equal_set",
}  # fmt: skip
_DISTINCT_MOST = 100_000
#: Judged by the columns alone.
_SHAPE = {
    "expect_column_to_exist", "expect_table_columns_to_match_set",
    "expect_table_columns_to_match_ordered_list", "expect_table_column_count_to_be_between",
    "expect_table_column_count_to_equal",
}  # fmt: skip

_ONE, _SEVERAL = ("column", "column_A", "column_B"), ("column_list",)
_VALUE = "value"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One expectation understood. `columns` and `made`, the library's own, have the names that rows have."""

    given: Expectation
    check: Check
    columns: tuple[str, ...]
    made: Any

    @property
    def by_row(self) -> bool:
        """Whether each row is judged by itself, or rows by what is beside them."""
        return _by_row(self.made)

    @property
    def made_of_double(self) -> bool:
        """Whether it looks at the column as doubles."""
        return len(self.columns) == 1 and getattr(self.made, "column", "") == _double(self.columns[0])

    @property
    def mostly(self) -> float:
        """Which part of the values has to be as wanted."""
        return float(self.given.kwargs.get("mostly", 1.0))


def understand(schema: TableSchema, expectations: Sequence[Expectation]) -> Sequence[Wanted]:
    """What a table is to be judged by; raises ConfigError that names the place of what cannot be."""
    return [_understand(schema, given) for given in expectations]


def _understand(schema: TableSchema, given: Expectation) -> Wanted:
    try:
        by_source = {c.source_name: c for c in schema.columns if not c.retired}
        shape = given.type in _SHAPE
        named = [] if shape else [_column(by_source, schema, name) for name in _names(given)]
        kwargs = given.kwargs if shape else _translated(given, named, by_source)
        made = make(given.type, kwargs)
        _refuse(given, made)
    except ConfigError as failed:
        where = f"{given.at}: " if given.at else ""
        raise ConfigError(f"{where}{schema.table}: {failed}", hint=failed.hint) from None
    columns = tuple(c.name for c in named)
    shown = tuple(map(str, _names(given))) or (
        (str(given.kwargs["column"]),) if "column" in given.kwargs else ()
    )
    words = given.type.removeprefix("expect_").replace("_", " ")
    bounds = {word: value for word, value in given.kwargs.items() if word not in (*_ONE, *_SEVERAL)}
    more = ", ".join(f"{word} {value}" for word, value in bounds.items())
    words += f": {more:.80}" if more else ""
    check = Check(given.type, shown, "user", given.severity, words)
    return Wanted(given, check, columns, made)


def _names(given: Expectation) -> list[Any]:
    named = [given.kwargs[word] for word in _ONE if word in given.kwargs]
    lists = [given.kwargs[word] for word in _SEVERAL if isinstance(given.kwargs.get(word), Sequence)]
    return [*named, *(name for names in lists for name in names)]


def _column(by_source: Mapping[str, Column], schema: TableSchema, name: object) -> Column:
    found = by_source.get(str(name)) or next((c for c in schema.columns if c.name == name), None)
    if found is None:
        import difflib

        near = difflib.get_close_matches(str(name), by_source, n=1)
        hint = f"did you mean {near[0]}?" if near else f"its columns: {', '.join(by_source)}"
        raise ConfigError(f"there is no column {str(name)!r}", hint=hint)
    return found


def _refuse(given: Expectation, made: Any) -> None:
    """Raise ConfigError for what cannot be judged in bounded memory, or would be judged wrongly."""
    if given.type in _TYPES:
        raise ConfigError(f"{given.type}: the rule `types` judges them always", hint="take it out")
    by_row = _by_row(made)
    if given.type in _BY_ORDER or not (
        by_row or given.type in _FIGURES or given.type in _DISTINCT or given.type in _SHAPE
    ):
        raise ConfigError(
            f"{given.type} needs all rows in memory at once", hint="docs/quality.md has what is judged"
        )
    extra = [w for w in ("mostly", "row_condition", "ignore_row_if") if w in given.kwargs]
    if extra and (not by_row or given.type in _UNIQUE):
        raise ConfigError(f"{given.type} takes no {extra[0]} here", hint="take it out")
    if "row_condition" in given.kwargs and not isinstance(given.kwargs["row_condition"], str):
        raise ConfigError(f"{given.type}: row_condition is text", hint='row_condition: "price > 0"')


def _by_row(made: Any) -> bool:
    return any(base.__name__ in _BY_ROW for base in type(made).__mro__)


def _translated(
    given: Expectation, named: Sequence[Column], by_source: Mapping[str, Column]
) -> dict[str, Any]:
    """The kwargs with the columns' names in our files, and text where a column holds dates or times read."""
    names = {name: c.name for name, c in by_source.items()}
    column = named[0] if len(named) == 1 else None

    def translate(word: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [translate(word, one) for one in value] if word in (*_SEVERAL, "value_set") else value
        if word in (*_ONE, *_SEVERAL):
            return names.get(str(value), value)
        if column is not None and word in ("min_value", "max_value", "value_set"):
            return _as_held(value, column)
        return value

    kwargs = {word: translate(word, value) for word, value in given.kwargs.items()}
    if given.type in _NULLS and column is not None:
        kwargs["column"] = _presence(column.name)
    elif column is not None and _as_double(given, column):
        kwargs["column"] = _double(column.name)
    return kwargs


def _presence(name: str) -> str:
    """The column that is NULL where a cell is and no text stands beside it."""
    return f"_hw_there_{name}"


def _as_double(given: Expectation, column: Column) -> bool:
    """Whether values are compared as doubles: bounds with a fraction are, and 1.10 is not below 1.1."""
    if column.type == pa.float32():
        return True
    bounds = [given.kwargs.get(word) for word in ("min_value", "max_value")]
    bounds += given.kwargs.get("value_set") or []
    fractions = [b for b in bounds if isinstance(b, float) and not b.is_integer()]
    return bool(fractions) and bool(pa.types.is_decimal(column.type))


def _double(name: str) -> str:
    return f"_hw_double_{name}"


def _double_cell(column: Column) -> str:
    """SQL of the double that is written like the value."""
    name = quote(column.name)
    return (
        f"CAST(CAST({name} AS VARCHAR) AS DOUBLE)"
        if column.type == pa.float32()
        else f"CAST({name} AS DOUBLE)"
    )


def _as_held(value: Any, column: Column) -> Any:
    """A bound as the column's values are."""
    kind = column.type
    if not isinstance(value, str) or not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return value
    try:
        if pa.types.is_date(kind):
            return date.fromisoformat(value)
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{value!r} is no date or time", hint="2026-05-01 or 2026-05-01T12:00:00") from None
    if kind.tz is None:
        return moment.replace(tzinfo=None)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def unique_rules(rows: Rows, wanted: Sequence[Wanted]) -> list[Rule]:
    """The rules that DuckDB counts for those that want values to be unique."""
    return [_unique_rule(rows, one) for one in wanted if one.given.type in _UNIQUE]


def _unique_rule(rows: Rows, one: Wanted) -> Rule:
    cells = ", ".join(map(quote, one.columns))
    there = " AND ".join(f"{quote(name)} IS NOT NULL" for name in one.columns)
    among = rows.table or rows.relation
    near = "" if among == rows.relation else f" SEMI JOIN {rows.relation} USING ({cells})"
    query = (
        f"SELECT * FROM (SELECT * FROM {among}{near}) WHERE {there} "
        f"QUALIFY count(*) OVER (PARTITION BY {cells}) > 1"
    )
    return Rule(one.check, among=query)


def judge(con: DuckDBPyConnection, rows: Rows, wanted: Sequence[Wanted], judge_by: Judge) -> list[Check]:
    """Judge all but those that want values to be unique."""
    by_row = [one for one in wanted if one.by_row and one.given.type not in _UNIQUE]
    others = [one for one in wanted if not one.by_row]
    checks = [_judge_whole(con, rows, one, judge_by) for one in others]
    return [*_judge_rows(con, rows, by_row, judge_by), *checks]


def _judge_rows(
    con: DuckDBPyConnection, rows: Rows, wanted: Sequence[Wanted], judge_by: Judge
) -> list[Check]:
    if not wanted:
        return []
    needed = {name for one in wanted for name in one.columns if one.given.type not in _NULLS}
    if any("row_condition" in one.given.kwargs for one in wanted):
        needed |= {c.name for c in rows.schema.columns if not c.retired}
    nulls = {one.columns[0] for one in wanted if one.given.type in _NULLS}
    columns = {c.name: c for c in rows.schema.columns}
    cells = ["_hw_seq", *map(quote, sorted(needed))]
    cells += [
        f"CASE WHEN NOT {is_null(columns[n])} THEN true END AS {quote(_presence(n))}" for n in sorted(nulls)
    ]
    doubles = {one.columns[0] for one in wanted if one.made_of_double}
    cells += [f"{_double_cell(columns[n])} AS {quote(_double(n))}" for n in sorted(doubles)]
    plain = frozenset(name for one in wanted if len(one.columns) > 1 for name in one.columns)
    told: list[Told] | None = None
    for piece in read_pieces(con, rows, cells):
        found = judge_by.frame(to_frame(piece, plain), [one.made for one in wanted], index="_hw_seq")
        told = list(found) if told is None else [a.add(b) for a, b in zip(told, found, strict=True)]
    return [_concluded(con, rows, one, its) for one, its in zip(wanted, told or [], strict=True)]


def _concluded(con: DuckDBPyConnection, rows: Rows, one: Wanted, told: Told) -> Check:
    """The check of numbers that were added up."""
    if told.error:
        return replace(one.check, outcome="unjudged", rows=told.rows, why=told.error)
    judged = told.rows - told.missing
    good = told.unexpected == 0 or (judged > 0 and (judged - told.unexpected) / judged >= one.mostly)
    keys: tuple[str, ...] = ()
    if not good and told.seqs:
        keys = name_keys(
            con, rows, f"SELECT * FROM {rows.relation} WHERE _hw_seq IN ({', '.join(map(str, told.seqs))})"
        )
    outcome: Outcome = "passed" if good else "failed"
    return replace(one.check, outcome=outcome, rows=told.rows, unexpected=told.unexpected, keys=keys)


def _judge_whole(con: DuckDBPyConnection, rows: Rows, one: Wanted, judge_by: Judge) -> Check:
    import pandas as pd

    total, found = 0, Told(False)
    try:
        if one.given.type in _SHAPE:
            names = [c.source_name for c in rows.schema.columns if not c.retired]
            (found,) = judge_by.frame(pd.DataFrame({name: [] for name in names}), [one.made])
        elif one.given.type in _DISTINCT:
            name = one.columns[0]
            column = next(c for c in rows.schema.columns if c.name == name)
            cell = f"{_double_cell(column)} AS {quote(_double(name))}" if one.made_of_double else quote(name)
            query = f"SELECT DISTINCT {cell} FROM {rows.relation} LIMIT {_DISTINCT_MOST + 1}"
            values: pa.Table = con.sql(query).to_arrow_table()
            if values.num_rows > _DISTINCT_MOST:
                return replace(
                    one.check, outcome="unjudged", why=f"more than {_DISTINCT_MOST:,} distinct values"
                )
            (found,) = judge_by.frame(to_frame(values, frozenset()), [one.made])
        else:
            total, found = _judge_figure(con, rows, one, judge_by)
    except HeadwaterError as failed:
        return replace(one.check, outcome="unjudged", why=str(failed))
    if found.error:
        return replace(one.check, outcome="unjudged", rows=total, why=found.error)
    return replace(
        one.check,
        outcome="passed" if found.success else "failed",
        rows=total,
        unexpected=int(not found.success),
    )


def _judge_figure(con: DuckDBPyConnection, rows: Rows, one: Wanted, judge_by: Judge) -> tuple[int, Told]:
    """Judge one figure over all rows by the bounds that were given for it."""
    column = quote(one.columns[0]) if one.columns else ""
    if one.made_of_double:
        column = _double_cell(next(c for c in rows.schema.columns if c.name == one.columns[0]))
    figure = _FIGURES[one.given.type].format(c=column)
    query = f"SELECT count(*) AS n, {figure} AS {_VALUE} FROM {rows.relation}"
    table: pa.Table = con.sql(query).to_arrow_table()
    total = table["n"][0].as_py()
    limits = {w: getattr(one.made, w) for w in _LIMITS if getattr(one.made, w, None) is not None}
    if (equal := getattr(one.made, "value", None)) is not None:
        limits = {"min_value": equal, "max_value": equal}
    expectation = make("expect_column_values_to_be_between", {"column": _VALUE, **limits})
    (told,) = judge_by.frame(to_frame(table.select([_VALUE]), frozenset()), [expectation])
    # Of no rows there is no largest one: nothing is wrong with it.
    return total, told


_LIMITS = ("min_value", "max_value", "strict_min", "strict_max")
