"""Pages of a table for people to look at: some rows as text, cut to a bearable length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.canonical import shown_text
from headwater.columns import key_parts
from headwater.keys import format_key
from headwater.model import META, TableSchema

if TYPE_CHECKING:
    import duckdb

#: So many characters of a cell are read.
LONGEST = 200

_META = frozenset(META.names)

Cell = tuple[str | None, int]


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a table.

    columns  the names of the table's own columns
    keys     the key of each row, as `explain` takes it; "" in a table without one
    rows     of each row the cells: the first `LONGEST` characters (None: NULL), and how many there are
    count    how many rows the table has
    """

    columns: tuple[str, ...]
    keys: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    first: int
    count: int


def read_page(rows: duckdb.DuckDBPyRelation, schema: TableSchema, first: int, most: int) -> Page:
    """`most` rows behind the `first` ones, by their key; of a table without one, the newest come first."""
    names = [name for name in rows.columns if name not in _META]
    texts = _texts(rows)
    cells = ", ".join(f"[left({texts[n]}, {LONGEST}), CAST(length({texts[n]}) AS VARCHAR)]" for n in names)
    order = ", ".join(key_parts(schema)) if schema.key else "_hw_seq DESC"
    # The page first, then its texts: else those of every row would be made.
    some = f"SELECT * FROM _hw_rows ORDER BY {order} LIMIT {most} OFFSET {first}"
    asked = f"SELECT {_key(texts, schema)}, [{cells}] FROM ({some}) ORDER BY {order}"
    found = _ask(rows, asked)
    [[count]] = _ask(rows, "SELECT count(*) FROM _hw_rows")
    return Page(
        tuple(names),
        tuple(_key_text(schema, key) for key, _ in found),
        tuple(tuple((text, int(length or 0)) for text, length in cells) for _, cells in found),
        first,
        count,
    )


def read_keys(rows: duckdb.DuckDBPyRelation, schema: TableSchema, most: int) -> list[str]:
    """The keys of the rows that changed last, as `explain` takes them."""
    asked = f"SELECT {_key(_texts(rows), schema)} FROM _hw_rows ORDER BY _hw_seq DESC LIMIT {most}"
    return [_key_text(schema, key) for (key,) in _ask(rows, asked)]


def _ask(rows: duckdb.DuckDBPyRelation, sql: str) -> list[tuple[Any, ...]]:
    answer = rows.query("_hw_rows", sql)
    return answer.fetchall() if answer else []


def _texts(rows: duckdb.DuckDBPyRelation) -> dict[str, str]:
    """SQL of each column's text."""
    types = dict(zip(rows.columns, map(str, rows.types), strict=True))
    return {name: shown_text(name, held, beside="_hw_text" in types) for name, held in types.items()}


def _key(texts: dict[str, str], schema: TableSchema) -> str:
    return f"[{', '.join(texts[name] for name in schema.key)}]::VARCHAR[]"


def _key_text(schema: TableSchema, texts: Sequence[str | None]) -> str:
    return format_key({name: text or "" for name, text in zip(schema.key, texts, strict=True)})
