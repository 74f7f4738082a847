"""Canonical text: one spelling of a value in every engine, as DuckDB SQL. No I/O; the table: docs/verify.md.

`verify` hashes it, and a lake column that became text holds it. A source writes the same in its own SQL
(sources/postgres/digest.py); tests/verify compares the two on real servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from headwater.model import TableSchema

#: Which spelling this is: another number where a value would be spelt otherwise.
CANONICAL = "headwater-canonical/1"

_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")

_DUCKDB: dict[pa.DataType, str] = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.time64("us"): "TIME",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}

_NAN = f"'{0x7FF8000000000000}'"

#: DuckDB expressions of the types whose text is not simply `CAST(x AS VARCHAR)`; `{x}` is the value.
_TEXT: dict[str, str] = {
    "BOOLEAN": "CASE WHEN {x} THEN 't' ELSE 'f' END",
    "BLOB": "lower(hex({x}))",
    "DATE": "CAST({x} - DATE '1970-01-01' AS VARCHAR)",
    "TIME": "CAST(epoch_us({x}) AS VARCHAR)",
    "TIMESTAMP": "CAST(epoch_us({x}) AS VARCHAR)",
    "TIMESTAMP WITH TIME ZONE": "CAST(epoch_us({x}) AS VARCHAR)",
    # A float4 is widened first, which is exact, so that a column may be widened without a change of text.
    "FLOAT": "CASE WHEN isnan({x}) THEN {nan} ELSE CAST({x}::DOUBLE::BIT::BIGINT AS VARCHAR) END",
    "DOUBLE": "CASE WHEN isnan({x}) THEN {nan} ELSE CAST({x}::BIT::BIGINT AS VARCHAR) END",
}


def quote(name: str) -> str:
    """A DuckDB identifier for any name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A DuckDB string literal for any text without NUL."""
    return "'" + text.replace("'", "''") + "'"


def duckdb_type(arrow: pa.DataType) -> str:
    """The DuckDB type that a column of this Arrow type is read as."""
    if pa.types.is_decimal(arrow):
        return f"DECIMAL({arrow.precision},{arrow.scale})"
    return _DUCKDB[arrow]


def canonical_text(value: str, held: str, wanted: pa.DataType | None = None) -> str:
    """DuckDB SQL for the canonical text of `value`, an expression of DuckDB type `held`; NULL stays NULL.

    `wanted` is the type at the source where it may be narrower than the held one: a decimal that the lake
    holds with a larger scale gets its text at the source's scale, unless that would lose a digit.
    """
    decimal = _DECIMAL.fullmatch(held)
    if decimal:
        return _decimal_text(value, int(decimal[1]), int(decimal[2]), wanted)
    return _TEXT.get(held, "CAST({x} AS VARCHAR)").format(x=value, nan=_NAN)


def _decimal_text(value: str, precision: int, scale: int, wanted: pa.DataType | None) -> str:
    own = _with_leading_zero(value, precision, scale)
    target = _scale(wanted)
    if target is None or target == scale:
        return own
    size = min(38, max(precision - scale, 1) + target)
    moved = f"TRY_CAST({value} AS DECIMAL({size},{target}))"
    text = _with_leading_zero(moved, size, target)
    return f"CASE WHEN {moved} = {value} THEN {text} ELSE {own} END"


def _with_leading_zero(value: str, precision: int, scale: int) -> str:
    """DuckDB writes .50 for a DECIMAL(2,2), where every other type and engine writes 0.50."""
    text = f"CAST({value} AS VARCHAR)"
    if precision > scale:
        return text
    return rf"regexp_replace({text}, '^(-?)\.', '\10.')"


def _scale(arrow: pa.DataType | None) -> int | None:
    """Digits after the point at the source; None where the type has no such notion."""
    if arrow is None:
        return None
    if pa.types.is_decimal(arrow):
        return int(arrow.scale)
    return 0 if pa.types.is_integer(arrow) else None


def column_texts(schema: TableSchema, held: Mapping[str, str] | None = None) -> dict[str, str]:
    """For each column of `schema` the SQL of its canonical text, over a relation of `held` column types.

    `held` maps column names to DuckDB types (None: as the schema says, with `_hw_text`). A column that the
    relation lacks is NULL in every row. A cell that `_hw_text` carries is that text after a `~`.
    """
    types = held_types(schema) if held is None else held
    texts = {}
    for column in schema.columns:
        if column.name not in types:
            texts[column.name] = "CAST(NULL AS VARCHAR)"
            continue
        name = quote(column.name)
        text = canonical_text(name, types[column.name], column.type)
        other = (
            f" WHEN _hw_text IS NOT NULL THEN '~' || {beside_text(column.name)}"
            if "_hw_text" in types
            else ""
        )
        texts[column.name] = f"CASE WHEN {name} IS NOT NULL THEN {text}{other} END"
    return texts


def shown_text(name: str, held: str, beside: bool) -> str:
    """DuckDB SQL of a column's value as people read it, in UTC; a CAST to its type reads it back.

    `beside`: the relation has `_hw_text`.
    """
    value = quote(name)
    zoned = held == "TIMESTAMP WITH TIME ZONE"
    text = f"CAST(timezone('UTC', {value}) AS VARCHAR) || '+00'" if zoned else f"CAST({value} AS VARCHAR)"
    return f"coalesce({text}, {beside_text(name)})" if beside else text


def held_types(schema: TableSchema) -> dict[str, str]:
    """The DuckDB types of a relation that holds the schema's own columns and `_hw_text`."""
    return {c.name: duckdb_type(c.type) for c in schema.columns} | {"_hw_text": "VARCHAR"}


def beside_text(name: str) -> str:
    """SQL of the text that `_hw_text` carries for a column."""
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    return f"json_extract_string(_hw_text, {literal(pointer)})"


def row_text(texts: list[str]) -> str:
    """SQL that joins canonical texts (column names or cheap expressions) so that no two rows collide."""
    fields = [f"coalesce(strlen({t}) || ':' || {t}, 'N')" for t in texts]
    return f"concat({', '.join(fields)})" if fields else "''"


def digests_sql(
    schema: TableSchema, relation: str, held: Mapping[str, str] | None = None, slices: int = 1
) -> str:
    """DuckDB SQL of the digest of each slice that has rows: its number, the count, the four sums.

    `relation` is SQL that can stand after FROM. `held` maps its columns to DuckDB types where they are not
    the schema's (the lake may hold wider ones); columns that are not in it count as NULL. Which slice a row
    is in depends on its key alone, without one on the whole row.
    """
    texts = list(column_texts(schema, held).values())
    named = ", ".join(f"{text} AS t{n}" for n, text in enumerate(texts)) or "1"
    row = row_text([f"t{n}" for n in range(len(texts))])
    places = {c.name: f"t{n}" for n, c in enumerate(schema.columns)}
    told = f"md5({row_text([places[name] for name in schema.key])})" if schema.key and slices > 1 else ""
    hashed = f"SELECT md5({row}) AS h{f', {told} AS g' if told else ''} FROM (SELECT {named} FROM {relation})"
    sliced = f"SELECT h, {slice_of('g' if told else 'h', slices)} AS slice FROM ({hashed})"
    return f"SELECT slice, {_SUMS} FROM ({sliced}) GROUP BY slice"


def slice_of(md5: str, slices: int) -> str:
    """SQL of the number of the slice that an MD5 falls into."""
    return f"{_word(md5, 1)} % {slices}" if slices > 1 else "0"


def _word(md5: str, at: int) -> str:
    return f"CAST('0x' || substr({md5}, {at}, 8) AS UBIGINT)"


_SUMS = "count(*), " + ", ".join(f"coalesce(sum({_word('h', at)}), 0)" for at in (1, 9, 17, 25))
