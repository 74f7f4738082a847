"""Columns: types a lake column can grow to, and the SQL that brings rows of one schema into another.

Columns are told apart by `ident`, so one keeps its rows under another name (`growth.py`). Only plain
widenings keep a type (WIDER, decimals that lose no digit, a type that lost its bounds); any other pair is two
columns. Nothing is ever cast by force.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from headwater.canonical import canonical_text, column_texts, duckdb_type, literal, quote, row_text
from headwater.model import META, Column, TableSchema

#: Each type holds every value of those before it.
WIDER: tuple[tuple[pa.DataType, ...], ...] = (
    (pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    (pa.float32(), pa.float64()),
)
#: The digits of whole numbers.
_DIGITS = {pa.int8(): 3, pa.int16(): 5, pa.int32(): 10, pa.int64(): 19}

_NEVER_ODD = (pa.types.is_integer, pa.types.is_string, pa.types.is_binary, pa.types.is_boolean)

_CARRIED = [field.name for field in META if field.name != "_hw_unset"]


def widen(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that holds both without loss; text when there is none."""
    if one == other:
        return one
    for ladder in WIDER:
        if one in ladder and other in ladder:
            return max(one, other, key=ladder.index)
    sizes = [_digits(one), _digits(other)]
    if None not in sizes:
        (whole_a, scale_a), (whole_b, scale_b) = (size or (0, 0) for size in sizes)
        whole, scale = max(whole_a, whole_b), max(scale_a, scale_b)
        if whole + scale <= 38:
            return pa.decimal128(whole + scale, scale)
    return pa.string()


def _digits(kind: pa.DataType) -> tuple[int, int] | None:
    """Digits before and after the point."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, kind.scale
    return (_DIGITS[kind], 0) if kind in _DIGITS else None


def ident(column: Column) -> str:
    """What a column of the lake is known by, whatever it is called now."""
    return column.ident or column.name.casefold()


def spelling(schema: TableSchema, wanted: TableSchema) -> dict[str, str]:
    """Column names of `schema` -> what `wanted` calls them, where that differs."""
    names = {ident(c): c.name for c in wanted.columns}
    found = {c.name: names[ident(c)] for c in schema.columns if ident(c) in names}
    return {old: new for old, new in found.items() if old != new}


def changed_types(held: TableSchema, wanted: TableSchema) -> bool:
    """Whether rows at rest must be written again: for a type, a name, or what a new column holds in them."""
    new, old = ({ident(c): c for c in s.columns} for s in (wanted, held))
    came = any(c.fill is not None for mark, c in new.items() if mark not in old)
    return came or any(
        mark not in new or (new[mark].type, new[mark].name) != (c.type, c.name) for mark, c in old.items()
    )


def cast_from(schema: TableSchema, wanted: TableSchema, gone: Collection[str] = ()) -> list[str]:
    """For each wanted column, SQL of its value over rows of `schema`.

    Where these never had it, that is what older rows hold; of the columns `gone` (by `ident`), NULL.
    """
    had = {ident(c): c for c in schema.columns}
    return [f"{_cast(c, had.get(ident(c)), ident(c) in gone)} AS {quote(c.name)}" for c in wanted.columns]


def _cast(column: Column, had: Column | None, gone: bool) -> str:
    wanted = duckdb_type(column.type)
    if had is None:
        if column.fill is None or gone:
            return f"CAST(NULL AS {wanted})"
        filled = literal(column.fill)
        return f"from_hex({filled})" if column.type == pa.binary() else f"CAST({filled} AS {wanted})"
    name = quote(had.name)
    if had.type == column.type:
        return name
    if column.type == pa.string():
        return canonical_text(name, duckdb_type(had.type))
    return f"CAST({name} AS {wanted})"


def meta_from(schema: TableSchema, wanted: TableSchema) -> str:
    """The select list of the meta columns of the lake over rows of `schema`: `_hw_text` names columns too."""
    old_names = {new: old for old, new in spelling(schema, wanted).items()}
    if not old_names:
        return ", ".join(_CARRIED)
    had = {ident(c) for c in schema.columns}
    names = [c.name for c in wanted.columns if ident(c) in had]
    texts = [odd_text(old_names.get(name, name)) for name in names]
    told = f"CASE WHEN _hw_text IS NOT NULL THEN {json_of(names, texts)} END AS _hw_text"
    return ", ".join(told if name == "_hw_text" else name for name in _CARRIED)


def key_parts(schema: TableSchema) -> list[str]:
    """SQL of what tells the rows of a table with a key apart: its cells, and the texts of odd ones.

    A key cell may be one that only `_hw_text` can hold, so its text is a part too where its type allows that.
    """
    return [*map(quote, schema.key), *map(odd_text, odd_keys(schema))]


def odd_keys(schema: TableSchema) -> list[str]:
    """The key columns of types that `_hw_text` may hold values of."""
    types = {c.name: c.type for c in schema.columns}
    return [name for name in schema.key if not any(test(types[name]) for test in _NEVER_ODD)]


def key_idents(schema: TableSchema) -> tuple[str, ...]:
    """The columns of the key, by `ident`."""
    marks = {c.name: ident(c) for c in schema.columns}
    return tuple(marks[name] for name in schema.key)


def odd_text(name: str) -> str:
    """SQL of the text that `_hw_text` carries for a column, NULL for most."""
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    return f"json_extract_string(_hw_text, {literal(pointer)})"


def json_of(names: Sequence[str], texts: Sequence[str]) -> str:
    """SQL of `_hw_text` in its one form: the odd cells in the order given, NULL for none."""
    cells = ", ".join(f"{{'k': {literal(n)}, 'v': {t}}}" for n, t in zip(names, texts, strict=True))
    some = f"coalesce({', '.join(texts)}) IS NOT NULL"
    pairs = f"list_filter([{cells}], lambda _hw_cell: _hw_cell.v IS NOT NULL)"
    return f"CASE WHEN {some} THEN CAST(to_json(map_from_entries({pairs})) AS VARCHAR) END"


def image(schema: TableSchema, present: Collection[str]) -> str:
    """SQL of a hash of the `present` columns, equal for equal rows only: float bits and odd cells count."""
    texts = column_texts(schema)
    return f"md5({row_text([texts[c.name] for c in schema.columns if c.name in present])})"
