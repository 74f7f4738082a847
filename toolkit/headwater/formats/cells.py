"""What a cell of each Arrow type becomes in each published format: one table. No I/O; docs/formats.md.

Iceberg and Hive Parquet are the lake's own files, so they hold what `lake.stored` says. ORC and CSV are made
from these. docs/decisions/0082 says why times are text in ORC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headwater.canonical import canonical_text, duckdb_type, quote
from headwater.errors import SchemaConflict
from headwater.lake.stored import stored_type, to_stored
from headwater.model import TableId

_YEAR = (
    "CASE WHEN year({x}) BETWEEN 0 AND 9999 THEN lpad(CAST(year({x}) AS VARCHAR), 4, '0') "
    "WHEN year({x}) > 9999 THEN '+' || year({x}) ELSE '-' || lpad(CAST(-year({x}) AS VARCHAR), 4, '0') END"
)
_ISO_DATE = f"{_YEAR} || strftime({{x}}, '-%m-%d')"
_ISO_TIME = f"{_YEAR} || strftime({{x}}, '-%m-%dT%H:%M:%S.%f')"
_ISO_UTC = _ISO_TIME.replace("{x}", "timezone('UTC', {x})") + " || 'Z'"
_FLOAT = (
    "CASE WHEN isnan({x}) THEN 'NaN' WHEN isinf({x}) THEN CASE WHEN {x} > 0 THEN 'Infinity' "
    "ELSE '-Infinity' END ELSE CAST({x} AS VARCHAR) END"
)


@dataclass(frozen=True, slots=True)
class Cell:
    """How a view holds a type.

    held   for people
    glue   the column's type in the Glue catalogue
    sql    DuckDB SQL of the cell over `{x}`, the column in its true type; "" for as the lake stores it
    text   a CSV cell that is always in quotation marks
    """

    held: str
    glue: str
    sql: str = ""
    text: bool = False


#: The types of the raw log, by the word that stands for them below.
TYPES: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "decimal128(p, s)": pa.decimal128(38, 9),
    "string": pa.string(),
    "binary": pa.binary(),
    "date32": pa.date32(),
    "time64[us]": pa.time64("us"),
    "timestamp[us]": pa.timestamp("us"),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}

_TIME_TEXT = "text `HH:MM:SS.ffffff`"
_PARQUET: Mapping[str, Cell] = {
    "bool": Cell("boolean", "boolean"),
    "int8": Cell("tinyint", "tinyint"),
    "int16": Cell("smallint", "smallint"),
    "int32": Cell("int", "int"),
    "int64": Cell("bigint", "bigint"),
    "uint8": Cell("smallint", "smallint"),
    "uint16": Cell("int", "int"),
    "uint32": Cell("bigint", "bigint"),
    "uint64": Cell("decimal(20, 0)", "decimal(20,0)"),
    "float32": Cell("float", "float"),
    "float64": Cell("double", "double"),
    "decimal128(p, s)": Cell("decimal(p, s)", "decimal({p},{s})"),
    "string": Cell("string", "string"),
    "binary": Cell("binary", "binary"),
    "date32": Cell("date", "date"),
    "time64[us]": Cell(_TIME_TEXT, "string"),
    "timestamp[us]": Cell("timestamp", "timestamp"),
    "timestamp[us, UTC]": Cell("timestamp, UTC", "timestamp"),
}
_ORC: Mapping[str, Cell] = {
    **_PARQUET,
    "date32": Cell("text `YYYY-MM-DD`", "string", _ISO_DATE),
    "timestamp[us]": Cell("text `YYYY-MM-DDTHH:MM:SS.ffffff`", "string", _ISO_TIME),
    "timestamp[us, UTC]": Cell("text `YYYY-MM-DDTHH:MM:SS.ffffffZ`", "string", _ISO_UTC),
}
_DIGITS = Cell("digits", "string")
_CSV: Mapping[str, Cell] = {
    **{name: _DIGITS for name in TYPES if "int" in name},
    "bool": Cell("`true` or `false`", "string"),
    "float32": Cell(
        "shortest digits that read back the same, `NaN`, `Infinity`, `-Infinity`", "string", _FLOAT
    ),
    "float64": Cell(
        "shortest digits that read back the same, `NaN`, `Infinity`, `-Infinity`", "string", _FLOAT
    ),
    "decimal128(p, s)": Cell("digits, all s after the point", "string"),
    "string": Cell("in quotation marks", "string", text=True),
    "binary": Cell("small hex digits, in quotation marks", "string", "lower(hex({x}))", text=True),
    "date32": Cell("`YYYY-MM-DD`", "string", _ISO_DATE),
    "time64[us]": Cell("`HH:MM:SS.ffffff`", "string"),
    "timestamp[us]": Cell("`YYYY-MM-DDTHH:MM:SS.ffffff`", "string", _ISO_TIME),
    "timestamp[us, UTC]": Cell("`YYYY-MM-DDTHH:MM:SS.ffffffZ`", "string", _ISO_UTC),
}

CELLS: Mapping[str, Mapping[str, Cell]] = {"iceberg": _PARQUET, "parquet": _PARQUET, "orc": _ORC, "csv": _CSV}


def word_of(kind: pa.DataType) -> str:
    """The word of a type in the tables above; "" for one that they do not know."""
    if pa.types.is_decimal128(kind):
        return "decimal128(p, s)"
    return next((word for word, known in TYPES.items() if known == kind), "")


def cell_of(view: str, kind: pa.DataType) -> Cell | None:
    """How a view holds a type; None where it cannot."""
    return CELLS[view].get(word_of(kind))


def glue_type(view: str, kind: pa.DataType) -> str:
    """The type of a column in the Glue catalogue."""
    made = cell_of(view, kind)
    assert made is not None
    return made.glue.format(p=kind.precision, s=kind.scale) if "{" in made.glue else made.glue


def refuse_unheld(table: TableId, view: str, layout: Mapping[str, pa.DataType]) -> None:
    """Raise SchemaConflict that names the first column that a view cannot hold."""
    for name, kind in layout.items():
        if cell_of(view, kind) is None:
            raise SchemaConflict(
                f"{table}: column {name} is {kind}, which {view} cannot hold",
                hint=f"tables: [{{name: {table}, format: delta}}]",
            )


def catalog_columns(table: TableId, columns: Iterable[str]) -> Mapping[str, str]:
    """Column -> its name in a catalogue that knows small letters only; SchemaConflict where two meet."""
    names: dict[str, str] = {}
    for column in columns:
        other = next((c for c, name in names.items() if name == column.lower()), None)
        if other is not None:
            raise SchemaConflict(
                f"{table}: columns {other} and {column} are one column to Athena",
                hint="leave one out: tables: [{name: ..., columns: [...]}]",
            )
        names[column] = column.lower()
    return names


def select_cells(view: str, layout: Mapping[str, pa.DataType]) -> str:
    """SQL of all columns of a layout as a view holds them."""
    cells = []
    for name, kind in layout.items():
        made = cell_of(view, kind)
        assert made is not None
        cells.append(_select(view, made, name, kind))
    return ", ".join(cells)


def _select(view: str, made: Cell, name: str, kind: pa.DataType) -> str:
    column = quote(name)
    if made.sql:
        # DuckDB's CASE looks at NULL as at any other value: the rest of an expression of NULL is NULL.
        return f"CASE WHEN {column} IS NOT NULL THEN {made.sql.replace('{x}', column)} END AS {column}"
    if view == "csv" and pa.types.is_decimal(kind):
        return f"{canonical_text(column, duckdb_type(kind))} AS {column}"
    return to_stored(name, kind)


def quoted_columns(layout: Mapping[str, pa.DataType]) -> Sequence[str]:
    """The columns whose CSV cells are always in quotation marks."""
    return [name for name, kind in layout.items() if (made := cell_of("csv", kind)) and made.text]


def file_layout(layout: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The Arrow types in the lake's own Parquet files."""
    return {name: stored_type(kind) for name, kind in layout.items()}
