"""A filter as DuckDB SQL over rows of a schema. Nothing of the user's text gets into it but quoted constants.

Unknown is unknown, as in SQL. A value that its column cannot hold (`infinity`, `NaN`: its text is in
`_hw_text`) is compared by its rank: it lies above or below all others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping

import pyarrow as pa

from headwater.canonical import beside_text, literal, quote
from headwater.errors import ConfigError
from headwater.filters import constants
from headwater.filters.constants import HIGHEST, LOWEST, NAN, Bound, Misfit
from headwater.model import Column, TableSchema
from headwater.predicate import (
    All,
    Among,
    Constant,
    Flag,
    IsNull,
    Like,
    Name,
    Node,
    Not,
    Predicate,
    Some,
    Test,
)

#: Texts of these types are one of many writings of a value, or mean something else than they spell.
_OPAQUE = re.compile(
    r"(jsonb?|xml|interval|money|bit|bit varying|inet|cidr|macaddr8?|point|line|lseg|box|path|polygon|circle"
    r"|tsvector|tsquery|citext|hstore|.*range|.*\.citext)(\(.*)?|.*\[\]"
)
_ORDERED = re.compile(r"(text|name|uuid|character varying.*|character\(.*|bpchar)")


def compile_predicate(predicate: Predicate, schema: TableSchema) -> str:
    """SQL that is TRUE for rows that fit; raises ConfigError that points at what does not go together."""
    return _Compiler(predicate, schema).write(predicate.node)


def columns_of(predicate: Predicate, schema: TableSchema) -> list[str]:
    """The names in our files of the columns that a filter looks at; raises ConfigError for one not there."""
    compiler = _Compiler(predicate, schema)
    return sorted({compiler.find(name).name for name in predicate.names()})


class _Compiler:
    def __init__(self, predicate: Predicate, schema: TableSchema) -> None:
        self._predicate, self._table = predicate, schema.table
        self._columns = {c.source_name: c for c in schema.columns}

    def find(self, name: Name) -> Column:
        """The column of a name."""
        if name.name not in self._columns:
            near = difflib.get_close_matches(name.name, self._columns, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else "one of: " + ", ".join([*self._columns][:20])
            raise self._predicate.refuse(name, f"{self._table} has no column {name.name}", hint)
        return self._columns[name.name]

    def write(self, node: Node) -> str:
        """SQL of a node, in parentheses where it needs them."""
        if isinstance(node, All | Some):
            word = " AND " if isinstance(node, All) else " OR "
            return f"({word.join(map(self.write, node.inner))})"
        if isinstance(node, Not):
            return f"(NOT {self.write(node.inner)})"
        return self._leaf(node)

    def _leaf(self, node: Test | Among | Like | IsNull | Flag) -> str:
        if isinstance(node, Among):
            return f"({' OR '.join(self._test(node.column, '=', value) for value in node.values)})"
        if isinstance(node, Like):
            return self._like(node.column, node.pattern)
        if isinstance(node, IsNull):
            return f"(NOT {self._present(self.find(node.column))})"
        if isinstance(node, Flag):
            return self._test(node.column, "=", True)
        if isinstance(node.value, Name):
            return self._pair(node.column, node.op, node.value)
        return self._test(node.column, node.op, node.value)

    def _refuse(self, name: Name, what: str, hint: str) -> ConfigError:
        column = self.find(name)
        return self._predicate.refuse(
            name, f"{self._table}.{column.source_name} ({column.native}): {what}", hint
        )

    def _test(self, name: Name, op: str, value: Constant) -> str:
        column = self.find(name)
        try:
            if _is_long_number(column):
                return _long_number(quote(column.name), op, value)
            return self._bounded(column, _bind(column, op, value))
        except Misfit as misfit:
            raise self._refuse(name, str(misfit), misfit.hint) from None

    def _bounded(self, column: Column, bound: Bound) -> str:
        if bound.always is not None:
            held = "TRUE" if bound.always else "FALSE"
        elif bound.rank:
            held = f"(0 {bound.op} {bound.rank})"
        else:
            held = f"{_value(column)} {bound.op} {bound.sql}"
        beside = f"{_rank(column)} {bound.op} {bound.rank}"
        return _either(column, held, beside)

    def _like(self, name: Name, pattern: str) -> str:
        column = self.find(name)
        if column.type != pa.string() or _OPAQUE.fullmatch(column.native) or _is_long_number(column):
            raise self._refuse(name, "is no text", "`like` looks into texts only")
        return rf"{_value(column)} LIKE {literal(pattern)} ESCAPE '\'"

    def _pair(self, name: Name, op: str, other: Name) -> str:
        one, two = self.find(name), self.find(other)
        kinds = _kind(one), _kind(two)
        if "" in kinds or kinds[0] != kinds[1]:
            raise self._refuse(other, f"cannot be compared with {one.source_name} ({one.native})",
                               "compare columns of one kind, or with a constant")  # fmt: skip
        if op not in ("=", "<>") and not (_has_order(one) and _has_order(two)):
            raise self._refuse(other, "has no order", "write = or <>")
        if kinds[0] == "number":
            return _numbers(one, op, two)
        held = f"{_value(one)} {op} {_value(two)}"
        if kinds[0] not in _BESIDE:
            return held
        known = f"{self._present(one)} AND {self._present(two)}"
        both = f"{quote(one.name)} IS NOT NULL AND {quote(two.name)} IS NOT NULL"
        return f"CASE WHEN {both} THEN {held} WHEN {known} THEN {_rank(one)} {op} {_rank(two)} END"

    def _present(self, column: Column) -> str:
        if not _may_be_beside(column):
            return f"({quote(column.name)} IS NOT NULL)"
        return f"({quote(column.name)} IS NOT NULL OR {beside_text(column.name)} IS NOT NULL)"


#: Kinds of columns whose values may stand in `_hw_text`.
_BESIDE = ("date", "timestamp", "zoned", "time")


def _kind(column: Column) -> str:
    """What a column can be compared with: columns of the same kind; "" for nothing."""
    kind = column.type
    tests: Mapping[str, Callable[[pa.DataType], bool]] = {
        "bool": pa.types.is_boolean,
        "number": lambda t: pa.types.is_integer(t) or pa.types.is_decimal(t) or _is_long_number(column),
        "real": pa.types.is_floating,
        "date": pa.types.is_date,
        "timestamp": lambda t: pa.types.is_timestamp(t) and t.tz is None,
        "zoned": pa.types.is_timestamp,
        "time": pa.types.is_time,
    }
    found = next((name for name, fits in tests.items() if fits(kind)), "")
    if found or kind != pa.string() or _OPAQUE.fullmatch(column.native):
        return found
    return "text" if _ORDERED.fullmatch(column.native) and column.native != "uuid" else column.native


def _has_order(column: Column) -> bool:
    return (
        column.type not in (pa.string(), pa.bool_())
        or bool(_ORDERED.fullmatch(column.native))
        or (_is_long_number(column))
    )


def _bind(column: Column, op: str, value: Constant) -> Bound:
    kind = _kind(column)
    if not kind:
        raise Misfit("values of this type cannot be compared", "only `is null` and `is not null`")
    if kind == "number":
        return constants.number(column.type, op, value)
    if kind in _BIND:
        return _BIND[kind](op, value)
    if op not in ("=", "<>") and not _has_order(column):
        raise Misfit("values of this type have no order here", "write =, <>, in or like")
    return constants.text(op, value, column.native)


_BIND: Mapping[str, Callable[[str, Constant], Bound]] = {
    "bool": constants.flag,
    "real": constants.real,
    "date": constants.day,
    "timestamp": constants.local_moment,
    "zoned": constants.moment,
    "time": constants.clock,
}


def _value(column: Column) -> str:
    """SQL of a column's value as its constants are written."""
    name = quote(column.name)
    if pa.types.is_timestamp(column.type):
        return f"epoch_us({name})"
    if pa.types.is_floating(column.type):
        return f"CAST({name} AS DOUBLE)"
    if column.type == pa.string() and constants.is_padded(column.native):
        return f"rtrim({name}, ' ')"
    return name


def _may_be_beside(column: Column) -> bool:
    return _kind(column) in _BESIDE or pa.types.is_decimal(column.type)


def _either(column: Column, held: str, beside: str) -> str:
    """The answer for a value in its column, or for one beside it; unknown without a value."""
    if not _may_be_beside(column):
        return f"CASE WHEN {quote(column.name)} IS NOT NULL THEN {held} END"
    text = beside_text(column.name)
    return (
        f"CASE WHEN {quote(column.name)} IS NOT NULL THEN {held}"
        f" WHEN _hw_text IS NOT NULL AND {text} IS NOT NULL THEN {beside} END"
    )


def _rank(column: Column) -> str:
    """SQL of where a value beside its column lies: 0 for one in it."""
    return _rank_of(beside_text(column.name), plain=False)


def _rank_of(text: str, *, plain: bool) -> str:
    other = (
        "0" if plain else f"CASE WHEN {text} IS NULL THEN 0 WHEN starts_with({text}, '-') THEN -1 ELSE 1 END"
    )
    return (
        f"(CASE lower({text}) WHEN 'nan' THEN {NAN} WHEN 'infinity' THEN {HIGHEST}"
        f" WHEN '-infinity' THEN {LOWEST} ELSE {other} END)"
    )


def _is_long_number(column: Column) -> bool:
    """Whether a number has more digits than any column of numbers here, and so is kept as its text."""
    return (
        column.type == pa.string() and column.native.startswith("numeric") and not column.native.endswith("]")
    )


def _long_number(text: str, op: str, value: Constant) -> str:
    return f"CASE WHEN {text} IS NOT NULL THEN {_digits(text, op, constants.plain(value))} END"


def _numbers(one: Column, op: str, two: Column) -> str:
    """Two columns of numbers, digit by digit: no cast, and so none that could fail."""
    texts = []
    for column in (one, two):
        text = f"CAST({quote(column.name)} AS VARCHAR)"
        texts.append(f"coalesce({text}, {beside_text(column.name)})" if _may_be_beside(column) else text)
    known = " AND ".join(f"{text} IS NOT NULL" for text in texts)
    return f"CASE WHEN {known} THEN {_digits(texts[0], op, texts[1])} END"


def _digits(one: str, op: str, two: str) -> str:
    """SQL that compares two numbers in plain writing."""
    ranks = _rank_of(one, plain=True), _rank_of(two, plain=True)
    sizes = constants.magnitude(one), constants.magnitude(two)
    below = f"starts_with({one}, '-')", f"starts_with({two}, '-')"
    return (
        f"CASE WHEN {ranks[0]} <> 0 OR {ranks[1]} <> 0 THEN {ranks[0]} {op} {ranks[1]}"
        f" WHEN {below[0]} AND {below[1]} THEN {sizes[1]} {op} {sizes[0]}"
        f" WHEN {below[0]} THEN -1 {op} 1 WHEN {below[1]} THEN 1 {op} -1"
        f" ELSE {sizes[0]} {op} {sizes[1]} END"
    )
