"""`show`: rows of any kind as one small table, in a notebook and in what is saved or printed of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from headwater.canonical import quote
from headwater.printable import printable, width
from headwater_widgets import pages

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

#: Rows shown of more, and characters of a long cell.
_ROWS, _CHARACTERS = 20, 120


class Sheet:
    """A table that shows itself; names and values are harmless text in it."""

    def __init__(
        self,
        title: str,
        said: str,
        head: Sequence[str],
        rows: Sequence[Sequence[object]],
        more: str = "",
        *,
        null: str = "",
    ) -> None:
        self._title, self._said, self._more, self._head = title, said, more, head
        self._rows = [[null if value is None else _cell(value) for value in row] for row in rows]
        numbers = [[row[n] for row in rows if row[n] is not None] for n in range(len(head))]
        self._figures = [n for n, column in enumerate(numbers) if column and all(map(_is_number, column))]

    def _repr_html_(self) -> str:
        return pages.sheet(self._title, self._said, self._head, self._rows, self._more, self._figures)

    def __repr__(self) -> str:
        return "\n".join(
            [*filter(None, (self._title, self._said)), *self._lines(), *filter(None, [self._more])]
        )

    def _lines(self) -> Sequence[str]:
        rows = [[printable(c) for c in row] for row in [self._head, *self._rows]]
        widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(
                " " * (w - width(cell)) + cell if n in self._figures else cell + " " * (w - width(cell))
                for n, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]


def show(what: Any, *columns: str, title: str = "", said: str = "") -> Sheet:
    """A table of a DuckDB relation, of rows (dataclasses or mappings), of one mapping, or of lines of text.

    columns   which, in this order; default: all
    """
    if hasattr(what, "fetchall") and hasattr(what, "columns"):
        return _of_relation(what, columns, title, said)
    if isinstance(what, Mapping):
        return Sheet(title, said, ["", " "], [(name, _grouped(value)) for name, value in what.items()])
    return _of_rows(what, columns, title, said)


def relation_html(relation: DuckDBPyRelation) -> str:
    """What a notebook shows of a relation, once `%load_ext headwater` was said."""
    return show(relation)._repr_html_()


def _of_relation(relation: Any, columns: Sequence[str], title: str, said: str) -> Sheet:
    chosen = relation.project(", ".join(map(quote, columns))) if columns else relation
    rows = chosen.limit(_ROWS + 1).fetchall()
    more = "and more rows" if len(rows) > _ROWS else ""
    # A NULL is not an empty text, and in data the difference matters.
    return Sheet(title, said, chosen.columns, rows[:_ROWS], more, null="NULL")


def _of_rows(given: Iterable[Any], columns: Sequence[str], title: str, said: str) -> Sheet:
    rows = list(islice(given, _ROWS + 1))
    more = "and more" if len(rows) > _ROWS else ""
    found = [_mapping(row) for row in rows[:_ROWS]]
    names = list(columns or {name: None for row in found for name in row})
    # Fields of ours are words; what a mapping calls its values may be a column of somebody's table.
    head = [name.replace("_", " ") for name in names] if rows and is_dataclass(rows[0]) else names
    cells = [[_grouped(row.get(name)) for name in names] for row in found]
    return Sheet(title, said or ("" if rows else "none"), head, cells, more)


def _mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in fields(row)}
    return {"": row}


class _Count(int):
    """A number of ours, for people; one from a table may be a key or a year."""


def _grouped(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return _Count(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, _Count):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:.15g}"
    elif isinstance(value, bytes):
        text = value[:_CHARACTERS].hex()
    elif isinstance(value, list | tuple):
        text = ", ".join(map(_cell, value[:_CHARACTERS]))
    else:
        text = str(value)
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + "…"
