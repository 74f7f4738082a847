"""Columns: which types a lake column can grow to, and the SQL that brings a row of one schema into another.

Only plain widenings keep a type (WIDER, and decimals that lose no digit); any other pair becomes text, in the
canonical spelling that `verify` uses too. Nothing is ever cast by force.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import pyarrow as pa

from headwater.canonical import canonical_text, column_texts, duckdb_type, literal, quote, row_text
from headwater.model import Column, TableSchema

#: Each type holds every value of those before it.
WIDER: tuple[tuple[pa.DataType, ...], ...] = (
    (pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    (pa.float32(), pa.float64()),
)

_NEVER_ODD = (pa.types.is_integer, pa.types.is_string, pa.types.is_binary, pa.types.is_boolean)


def widen(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that holds both without loss; text when there is none."""
    if one == other:
        return one
    for ladder in WIDER:
        if one in ladder and other in ladder:
            return max(one, other, key=ladder.index)
    if pa.types.is_decimal(one) and pa.types.is_decimal(other):
        scale = max(one.scale, other.scale)
        whole = max(one.precision - one.scale, other.precision - other.scale)
        if scale + whole <= 38:
            return pa.decimal128(scale + whole, scale)
    return pa.string()


def unite(schemas: Sequence[TableSchema]) -> TableSchema:
    """One schema that holds the rows of all, oldest first: columns are never lost, types only grow."""
    columns: dict[str, Column] = {}
    for schema in schemas:
        for column in schema.columns:
            # DuckDB and Delta take names that differ only in case for one; so does the lake.
            name = column.name.casefold()
            held = columns.get(name)
            columns[name] = replace(column, type=widen(held.type, column.type)) if held else column
    newest = schemas[-1]
    present = {c.name for c in newest.columns}
    kept = tuple(c if c.name in present else replace(c, nullable=True) for c in columns.values())
    return replace(newest, columns=kept, left_out=())


def spelling(schema: TableSchema, wanted: TableSchema) -> dict[str, str]:
    """Column names of `schema` -> how `wanted` spells them, where that differs."""
    names = {c.name.casefold(): c.name for c in wanted.columns}
    return {c.name: names[c.name.casefold()] for c in schema.columns if names[c.name.casefold()] != c.name}


def changed_types(held: TableSchema, wanted: TableSchema) -> bool:
    """Whether rows at rest must be written again to be of the wanted types and names."""
    types = {c.name: c.type for c in wanted.columns}
    return any(types.get(c.name) != c.type for c in held.columns)


def cast_from(schema: TableSchema, wanted: TableSchema) -> list[str]:
    """For each wanted column, SQL of its value over rows of `schema`; NULL where these never had it."""
    types = {c.name.casefold(): c.type for c in schema.columns}
    return [f"{_cast(c, types.get(c.name.casefold()))} AS {quote(c.name)}" for c in wanted.columns]


def _cast(column: Column, had: pa.DataType | None) -> str:
    name, wanted = quote(column.name), duckdb_type(column.type)
    if had is None:
        return f"CAST(NULL AS {wanted})"
    if had == column.type:
        return name
    if column.type == pa.string():
        return canonical_text(name, duckdb_type(had))
    return f"CAST({name} AS {wanted})"


def key_parts(schema: TableSchema) -> list[str]:
    """SQL of what tells the rows of a table with a key apart: its cells, and the texts of odd ones.

    A key cell may be one that only `_hw_text` can hold, so its text is a part too where its type allows that.
    """
    return [*map(quote, schema.key), *map(odd_text, odd_keys(schema))]


def odd_keys(schema: TableSchema) -> list[str]:
    """The key columns of types that `_hw_text` may hold values of."""
    types = {c.name: c.type for c in schema.columns}
    return [name for name in schema.key if not any(test(types[name]) for test in _NEVER_ODD)]


def odd_text(name: str) -> str:
    """SQL of the text that `_hw_text` carries for a column, NULL for most."""
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    return f"json_extract_string(_hw_text, {literal(pointer)})"


def image(schema: TableSchema, present: Collection[str]) -> str:
    """SQL of a hash of the `present` columns, equal for equal rows only: float bits and odd cells count."""
    texts = column_texts(schema)
    return f"md5({row_text([texts[c.name] for c in schema.columns if c.name in present])})"
