"""Views that people read under names of the user's: moved when the rules change, and never put over others'.

dbt would leave a view behind under its old name, and would drop whatever stands under the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.canonical import literal, quote
from headwater.config import WarehouseConfig, quote_table
from headwater.errors import WarehouseError
from headwater.handoff.stage import Place, opened
from headwater.handoff.tables import TableModel

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ASKED = re.compile(r"\{\{ config\(materialized='view', alias='([^']*)'\) \}\}")


@dataclass(frozen=True, slots=True)
class Move:
    """A view that is called otherwise from the next build on."""

    model: str
    old: Place
    new: str


def asked(code: str) -> str:
    """The name that a generated model asks for; "" when it leaves that to dbt."""
    found = _ASKED.match(code)
    return found[1] if found else ""


def moves(models: Sequence[TableModel], built: Mapping[str, tuple[Place, str]]) -> list[Move]:
    """What changed since dbt last built: `built` has where each model was put, and the name it asked for.

    A name that the user's own dbt project chose is left alone.
    """
    found = []
    for table in models:
        for model, name in table.relations.items():
            place, before = built.get(model, (("", name), name))
            if (before or model) != name and place[1] != name:
                found.append(Move(model, place, name))
    return found


def make_room(
    warehouse: WarehouseConfig, models: Sequence[TableModel], built: Mapping[str, tuple[Place, str]]
) -> None:
    """Rename the views whose names changed; all or none. Raises WarehouseError where a name is taken.

    A stop before dbt has run again does no harm: what is renamed already is not there under its old name.
    """
    changed = moves(models, built)
    named = [m for m in models if m.current_as or m.past_as]
    if not changed and not named:
        return
    with opened(warehouse.path) as con:
        con.begin()
        views, tables = _views(con), _tables(con)
        leaving = {_folded(move.old) for move in changed}
        for table, place in _wanted(named, built, warehouse.schema):
            at = _folded(place)
            if at in tables or (at in views and at not in leaving and not _reads(views[at], table)):
                raise _taken(table, place)
        for move in changed:
            _move(con, move, views)
        con.commit()


def _wanted(
    named: Sequence[TableModel], built: Mapping[str, tuple[Place, str]], schema: str
) -> Iterator[tuple[TableModel, Place]]:
    """Where the views under names of the user's will stand."""
    for table in named:
        for model in (table.current, table.past):
            if model:
                yield table, (built[model][0][0] if model in built else schema, table.relations[model])


def _reads(query: str, table: TableModel) -> bool:
    """Whether a view is one of this table's: it reads a `base_` model of it."""
    return re.search(rf"\b{table.base}(__history)?\b", query) is not None


def _move(con: DuckDBPyConnection, move: Move, views: Mapping[Place, str]) -> None:
    old, new = move.old, (move.old[0], move.new)
    if _folded(old) not in views:
        return
    name = f"{quote(old[0])}.{quote(old[1])}"
    if _folded(new) in views:
        # Only another spelling, or built already: dbt makes the view that is wanted.
        con.execute(f"DROP VIEW {name}")
    else:
        con.execute(f"ALTER VIEW {name} RENAME TO {quote(move.new)}")


def _views(con: DuckDBPyConnection) -> Mapping[Place, str]:
    """Place in lower case -> SQL."""
    rows = con.execute(
        "SELECT schema_name, view_name, coalesce(sql, '') FROM duckdb_views() "
        "WHERE NOT internal AND database_name = current_database()"
    ).fetchall()
    return {_folded((schema, name)): query for schema, name, query in rows}


def _tables(con: DuckDBPyConnection) -> frozenset[Place]:
    rows = con.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() "
        "WHERE NOT internal AND database_name = current_database()"
    ).fetchall()
    return frozenset(_folded((schema, name)) for schema, name in rows)


def _folded(place: Place) -> Place:
    return place[0].casefold(), place[1].casefold()


def _taken(table: TableModel, place: Place) -> WarehouseError:
    return WarehouseError(
        f"the warehouse has a {place[0]}.{place[1]} already, which is not ours; {table.schema.table} would "
        "take its place",
        hint=f"tables: [{{name: {literal(quote_table(table.schema.table))}, as: {table.relation}}}]",
    )
