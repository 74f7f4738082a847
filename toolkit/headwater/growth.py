"""Growth: how the columns of a lake table follow those of its source. Pure; docs/schema-changes.md.

A column of the source is the lake's column of the same origin, else of the same name where origins do not
tell. It keeps its rows when it is renamed or widened. One of another type is a column of its own: the one
before stays, retired, under a name that says so. Nothing is ever lost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from headwater.columns import ident, widen
from headwater.model import Column, TableSchema

DROPPED, RETYPED = "dropped", "retyped"


@dataclass(frozen=True, slots=True)
class Placed:
    """A schema of the raw log with the idents of its columns, and those that the table had lost by then."""

    schema: TableSchema
    gone: frozenset[str]


@dataclass(frozen=True, slots=True)
class Growth:
    """The lake's schema after all of the given ones, and these in their places."""

    schema: TableSchema
    placed: tuple[Placed, ...]


def grow(held: TableSchema | None, seen: Sequence[TableSchema], *, discard: bool = False) -> Growth:
    """Bring the schemas `seen` in the raw log, in order, into the lake's.

    With `discard`, columns that the lake `held` lacks are left out, and named in `left_out`.
    """
    columns = list(held.columns) if held else []
    left_out: tuple[Column, ...] = held.left_out if held else ()
    placed = []
    for schema in seen:
        found, marks = _take_in(columns, schema.columns)
        if discard and held is not None:
            known = {ident(c) for c in columns}
            extra = {marks[c.name] for c in found if ident(c) not in known and not c.retired}
            left_out = tuple(c for c in schema.columns if marks[c.name] in extra)
            found = [c for c in found if ident(c) not in extra]
            marks = {name: mark for name, mark in marks.items() if mark not in extra}
        columns = found
        own = tuple(replace(c, ident=marks[c.name]) for c in schema.columns if c.name in marks)
        gone = frozenset(ident(c) for c in columns) - frozenset(marks.values())
        placed.append(Placed(replace(schema, columns=own), gone))
    newest = seen[-1]
    columns = _name_apart(columns)
    named = replace(newest, columns=tuple(map(_plain, columns)), left_out=left_out if discard else ())
    return Growth(named, tuple(placed))


def unite(schemas: Sequence[TableSchema]) -> TableSchema:
    """The lake's schema of rows of all these, oldest first."""
    return grow(None, schemas).schema


def _take_in(held: Sequence[Column], fresh: Sequence[Column]) -> tuple[list[Column], dict[str, str]]:
    """The lake's columns after those of one version, and the ident of each of these by its name."""
    columns = list(held)
    marks: dict[str, str] = {}
    for column, place in pair_columns(columns, fresh):
        if place is None:
            found = replace(column, ident=_free(columns, column))
            columns.append(found)
        else:
            known = columns[place]
            wider = _continue(known, column)
            columns[place] = wider or replace(known, retired=RETYPED, nullable=True)
            found = wider or replace(column, ident=_free(columns, column), fill=None)
            if wider is None:
                columns.append(found)
        marks[column.name] = ident(found)
    there = set(marks.values())
    return [
        c if ident(c) in there else replace(c, retired=c.retired or DROPPED, nullable=True) for c in columns
    ], marks


def pair_columns(held: Sequence[Column], fresh: Sequence[Column]) -> list[tuple[Column, int | None]]:
    """Each column with the place of the one it goes on from: by origin first, then by name."""
    usable = [n for n, c in enumerate(held) if c.retired != RETYPED]
    found: dict[str, int] = {}
    for column in fresh:
        same = [n for n in usable if _numbered(column) and held[n].origin == column.origin]
        if same:
            found[column.name] = same[-1]
    taken = set(found.values())
    for column in fresh:
        if column.name in found:
            continue
        # DuckDB and Delta take names that differ only in case for one; so does the lake.
        name = column.name.casefold()
        same = [n for n in usable if n not in taken and held[n].name.casefold() == name]
        same = [n for n in same if not _apart(held[n].origin, column.origin)]
        if same:
            found[column.name] = same[-1]
            taken.add(same[-1])
    return [(column, found.get(column.name)) for column in fresh]


def _numbered(column: Column) -> bool:
    return "." in column.origin


def _apart(one: str, other: str) -> bool:
    """Whether these are two columns of one table. Those of two tables with one name go on from each other."""
    (table_a, dot_a, _), (table_b, dot_b, _) = one.partition("."), other.partition(".")
    return bool(dot_a and dot_b) and table_a == table_b and one != other


def _continue(held: Column, column: Column) -> Column | None:
    """The lake's column that holds both; None where no type does."""
    kind = widen(held.type, column.type)
    if kind == pa.string() and held.type != column.type and _word(held) != _word(column):
        return None
    return replace(column, type=kind, fill=held.fill, ident=ident(held))


def _word(column: Column) -> str:
    """The type at the source without its bounds."""
    return re.sub(r"\(.*?\)", "", column.native)


def _free(columns: Sequence[Column], column: Column) -> str:
    """An ident that no column has."""
    taken, name = {ident(c) for c in columns}, column.name.casefold()
    number, mark = 1, name
    while mark in taken:
        number, mark = number + 1, f"{name}#{number + 1}"
    return mark


def _name_apart(columns: Sequence[Column]) -> list[Column]:
    """Retired columns under names that the ones of today leave free."""
    live = {c.name.casefold() for c in columns if not c.retired}
    taken = live | {c.name.casefold() for c in columns}
    named = []
    for column in columns:
        name, number = column.name, 0
        if column.retired and name.casefold() in live:
            while name.casefold() in taken:
                number += 1
                name = f"{column.name}__v{number}"
            taken.add(name.casefold())
        named.append(replace(column, name=name, ident=ident(column)))
    return named


def _plain(column: Column) -> Column:
    """Without an ident that says no more than the name."""
    return replace(column, ident="") if column.ident == column.name.casefold() else column
