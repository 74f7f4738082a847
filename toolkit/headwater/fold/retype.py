"""Type changes in the fold: raw cells become cells of the types that the configuration casts them to.

A value that does not fit is NULL with the source's text in `_hw_text`. So in these rows, a text beside a cast
column says that its value does not fit; what becomes of the row is decided in `headwater.refresh.parking`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa

from headwater.canonical import duckdb_type, quote
from headwater.casts import Cast, arrow_type, cast_sql
from headwater.columns import cast_from, ident, odd_text
from headwater.errors import ConfigError
from headwater.model import Column, TableSchema

Casts = Mapping[str, Cast]  # by the column's name at the source


def cast_of(column: Column, casts: Casts) -> Cast | None:
    """The cast of a raw column; None where there is none, or where it would change nothing."""
    cast = casts.get(column.source_name)
    return cast if cast and not column.mask and arrow_type(cast) != column.type else None


def retyped(schema: TableSchema, casts: Casts) -> TableSchema:
    """A raw schema with the types that the lake has. What is cast may be NULL, whatever the source says.

    What older rows hold is known of the source's type alone, so they hold NULL.
    """
    if not casts:
        return schema
    changed = [(c, cast_of(c, casts)) for c in schema.columns]
    return replace(schema, columns=tuple(_changed(c, its) if its else c for c, its in changed))


def as_called_now(schema: TableSchema, newest: TableSchema) -> TableSchema:
    """A schema of the raw log with its columns under the names at the source that they have now.

    By these go the casts, whatever a column was called when its rows came.
    """
    names = {c.origin: c.source_name for c in newest.columns if c.origin}
    columns = tuple(replace(c, source_name=names.get(c.origin, c.source_name)) for c in schema.columns)
    return replace(schema, columns=columns)


def _changed(column: Column, cast: Cast) -> Column:
    return replace(column, type=arrow_type(cast), nullable=True, fill=None)


@dataclass
class Cells:
    """How the cells of raw rows become those of the lake.

    inner    columns to compute beside the raw ones
    columns  the lake's columns, over raw and `inner` columns
    texts    of each lake column that the rows have, SQL of its `_hw_text`
    bad      SQL of whether some value does not fit; "" where nothing is cast
    """

    inner: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    bad: str = ""


def cells_of(raw: TableSchema, wanted: TableSchema, casts: Casts, gone: Collection[str] = ()) -> Cells:
    """The cells of raw rows of one schema version in the columns `wanted`; ConfigError for an unfit type.

    Columns go by their `ident`; those `gone` by then are NULL.
    """
    cells, had = Cells(), {ident(c): c for c in raw.columns}
    plain = cast_from(retyped(raw, casts), wanted, gone)
    flags = []
    for number, (column, cell) in enumerate(zip(wanted.columns, plain, strict=True)):
        there = had.get(ident(column))
        cast = cast_of(there, casts) if there else None
        if there is None or cast is None:
            cells.columns.append(cell)
            cells.texts |= {column.name: odd_text(there.name)} if there else {}
            continue
        value, bad = _cast(raw, there, cast)
        flag = f"_hw_b{number}"
        cells.inner += [f"CAST({value} AS {duckdb_type(column.type)}) AS _hw_v{number}", f"{bad} AS {flag}"]
        cells.columns.append(f"_hw_v{number} AS {quote(column.name)}")
        cells.texts[column.name] = f"CASE WHEN {flag} THEN {_shown(there)} ELSE {odd_text(there.name)} END"
        flags.append(flag)
    cells.bad = " OR ".join(flags)
    return cells


def _cast(raw: TableSchema, column: Column, cast: Cast) -> tuple[str, str]:
    try:
        return cast_sql(cast, column.type, quote(column.name))
    except ConfigError as failed:
        name = column.source_name
        raise ConfigError(
            f"{raw.table}: the column {name} is {column.native or column.type} now: {failed}",
            hint=f"take {name} out of the table's `cast`   ({failed.hint})",
        ) from None


def _shown(column: Column) -> str:
    """The source's text of a value."""
    name = quote(column.name)
    return name if pa.types.is_string(column.type) else f"CAST({name} AS VARCHAR)"
