"""Our own rules, made from the schema and from what was seen; DuckDB counts what breaks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.canonical import literal, quote
from headwater.columns import odd_text, widen
from headwater.config import TableSpec
from headwater.model import Column, TableSchema
from headwater.quality import Check
from headwater.quality.rows import Rows, name_keys
from headwater.quality.seen import (
    SET_VALUES,
    Seen,
    Span,
    bounds,
    is_few,
    length_of,
    lengths,
    measure,
    read_span,
    seen_columns,
    span_cells,
    spanned,
    usual,
    values_of,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Of so many rules of a table, the keys of wrong rows are looked for: each is a query.
NAMED = 50

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, and how what breaks it is counted.

    check   as it is when it holds
    wrong   SQL over one row: whether it breaks the rule
    among   or a query: the rows (or groups of them) that do
    told    or how many of how many do, known without a query
    kwargs  what Great Expectations takes for `check.rule`; None for a rule that is only ours
    """

    check: Check
    wrong: str = ""
    among: str = ""
    told: tuple[int, int] | None = None
    kwargs: Mapping[str, Any] | None = None


def schema_rules(rows: Rows) -> Iterator[Rule]:
    """Keys, and columns that are never NULL."""
    schema = rows.schema
    for column in schema.columns:
        if column.retired or (column.nullable and column.name not in schema.key):
            continue
        what = "a key is never NULL" if column.name in schema.key else "never NULL at the source"
        check = Check("expect_column_values_to_not_be_null", (column.name,), "schema", "critical", what)
        yield Rule(check, wrong=is_null(column), kwargs={"column": column.name})
    if schema.key and rows.table:
        keys = ", ".join(map(quote, (*schema.key,)))
        odd = [odd_text(name) for name in schema.key]
        parts = ", ".join([keys, *odd])
        near = "" if rows.relation == rows.table else f" SEMI JOIN {rows.relation} USING ({keys})"
        one = len(schema.key) == 1
        rule = "expect_column_values_to_be_unique" if one else "expect_compound_columns_to_be_unique"
        kwargs: dict[str, Any] = {"column": schema.key[0]} if one else {"column_list": list(schema.key)}
        among = (
            f"SELECT {keys}, any_value(_hw_text) AS _hw_text FROM {rows.table}{near} "
            f"GROUP BY {parts} HAVING count(*) > 1"
        )
        check = Check(rule, schema.key, "schema", "critical", "one row for each key")
        yield Rule(check, among=among, kwargs=kwargs)


def is_null(column: Column) -> str:
    """SQL: a cell is NULL, and no text stands beside it for a value that its type cannot hold."""
    return f"({quote(column.name)} IS NULL AND {odd_text(column.name)} IS NULL)"


def type_rule(rows: Rows, wanted: TableSchema, spec: TableSpec) -> Rule:
    """The lake has every captured column in a type that holds its values. `wanted`: after the casts."""
    held = {c.name: c for c in rows.schema.columns if not c.retired}
    missing = [c.name for c in wanted.columns if c.name not in held]
    missing = [] if spec.policies.schema == "discard" else missing
    narrow = [
        c.name
        for c in wanted.columns
        if c.name in held and held[c.name].type not in (c.type, widen(held[c.name].type, c.type))
    ]
    what = "the lake has every column of the source, in a type that holds its values"
    broken = (*missing, *narrow)
    return Rule(Check("types", broken, "schema", "critical", what), told=(len(broken), len(wanted.columns)))


def contract_rule(rows: Rows, seen: Seen) -> Rule:
    """No column that was there went, or has another type."""
    now = seen_columns(rows.schema)
    other = tuple(name for name, kind in seen.columns.items() if now.get(name) != kind)
    what = "the columns of before are there, with the types they had"
    return Rule(Check("columns", other, "observed", "warning", what), told=(len(other), len(seen.columns)))


def seen_rules(rows: Rows, seen: Seen) -> Iterator[Rule]:
    """What was seen before, with room."""
    for column in spanned(rows.schema):
        span = seen.spans.get(column.name)
        if span is None:
            continue
        yield from _span_rules(column, span)


def _span_rules(column: Column, span: Span) -> Iterator[Rule]:
    name, number, length = column.name, measure(column), length_of(column)
    ends, sizes, values = bounds(column, span), lengths(column, span), values_of(column, span)

    def made(rule: str, what: str, wrong: str, kwargs: Mapping[str, Any] | None) -> Rule:
        check = Check(rule, (name,), "observed", "warning", what)
        return Rule(check, wrong=wrong, kwargs=None if kwargs is None else {"column": name, **kwargs})

    if ends is not None and number is not None:
        low, high = ends
        timed = pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)
        yield made(
            "expect_column_values_to_be_between", "not far from the values seen before",
            f"NOT coalesce({number} BETWEEN {low!r} AND {high!r}, true)",
            None if timed else {"min_value": low, "max_value": high},
        )  # fmt: skip
    if values is not None:
        texts = ", ".join(map(literal, values))
        wrong = f"NOT coalesce({quote(name)} IN ({texts}), true)"
        kwargs = {"value_set": list(values)}
        yield made("expect_column_values_to_be_in_set", "one of the values seen before", wrong, kwargs)
    elif sizes is not None and length is not None:
        low, high = sizes
        text = column.type == pa.string()
        yield made(
            "expect_column_value_lengths_to_be_between", "about as long as the values seen before",
            f"NOT coalesce({length} BETWEEN {low} AND {high}, true)",
            {"min_value": low, "max_value": high} if text else None,
        )  # fmt: skip


def volume_rule(count: int, seen: Seen) -> tuple[Check, int] | None:
    """Whether a batch is about as large as the ones before (0) or not (1); None before there were enough."""
    between = usual(seen.sizes)
    if between is None:
        return None
    odd = not between[0] <= count <= between[1]
    what = f"{between[0]:,} to {between[1]:,} rows in a batch"
    return Check("volume", (), "observed", "warning", what), int(odd)


def age_rule(limit: str, newest: datetime | None) -> Rule:
    """The newest change is not older than the limit."""
    check = Check("freshness", (), "limit", "critical", f"a change in the last {limit}")
    if newest is None:
        return Rule(check, told=(1, 1))
    return Rule(check, told=(int((datetime.now(UTC) - newest).total_seconds() > seconds(limit)), 1))


def seconds(limit: str) -> int:
    """The seconds of a limit such as `2h`."""
    unit = limit.lstrip("0123456789")
    return int(limit.removesuffix(unit)) * _UNITS[unit]


@dataclass(frozen=True, slots=True)
class Counted:
    """What DuckDB counted: the rows, each rule's check with its numbers and keys, and what columns held."""

    rows: int
    checks: Sequence[Check]
    spans: Mapping[str, Span]


def count(con: DuckDBPyConnection, rows: Rows, rules: Sequence[Rule], *, look: bool) -> Counted:
    """Count what breaks the rules, in one pass over the rows for all that look at one row.

    look  also at what the columns hold

    The checks say `failed` or `passed` by the numbers alone; it is for Great Expectations to judge them.
    """
    columns = spanned(rows.schema) if look else []
    single = [rule for rule in rules if rule.wrong]
    cells = ["count(*)", *(f"count(*) FILTER (WHERE {rule.wrong})" for rule in single)]
    for column in columns:
        cells += span_cells(column)
    total, *found = con.execute(f"SELECT {', '.join(cells)} FROM {rows.relation}").fetchall()[0]
    broken = dict(zip(map(id, single), found, strict=False))
    checks: list[Check] = []
    for rule in rules:
        named = sum(bool(check.keys) for check in checks) < NAMED
        checks.append(_count(con, rows, rule, broken.get(id(rule)), total, named=named))
    aggregates = found[len(single) :]
    held = {c.name: aggregates[6 * n : 6 * n + 6] for n, c in enumerate(columns)}
    spans = {c.name: read_span(c, held[c.name]) for c in columns}
    few = [c for c in columns if is_few(held[c.name])]
    values = _values(con, rows, few)
    spans |= {name: replace(spans[name], values=texts) for name, texts in values.items()}
    return Counted(total, checks, spans)


def _count(  # noqa: PLR0913
    con: DuckDBPyConnection, rows: Rows, rule: Rule, broken: int | None, total: int, *, named: bool
) -> Check:
    wrong = rule.among or f"SELECT * FROM {rows.relation} WHERE {rule.wrong}"
    if rule.told is not None:
        broken, total = rule.told
    elif rule.among:
        broken = con.execute(f"SELECT count(*) FROM ({rule.among})").fetchall()[0][0]
    keys = name_keys(con, rows, wrong) if named and broken and rule.told is None else ()
    return replace(rule.check, rows=total, unexpected=broken or 0, keys=keys)


def _values(
    con: DuckDBPyConnection, rows: Rows, columns: Sequence[Column]
) -> Mapping[str, tuple[str, ...] | None]:
    """The texts of columns that have few, None for one that has more than was thought."""
    if not columns:
        return {}
    names = [f"v{n}" for n in range(len(columns))]
    cells = ", ".join(f"{quote(c.name)} AS {v}" for v, c in zip(names, columns, strict=True))
    found = con.execute(
        f"SELECT DISTINCT _hw_name, _hw_value FROM (SELECT {cells} FROM {rows.relation}) "
        f"UNPIVOT (_hw_value FOR _hw_name IN ({', '.join(names)}))"
    ).fetchall()
    texts: dict[str, list[str]] = {name: [] for name in names}
    for name, text in found:
        texts[name].append(text)
    few = [tuple(sorted(texts[name])) for name in names]
    return {c.name: its if len(its) <= SET_VALUES else None for c, its in zip(columns, few, strict=True)}
