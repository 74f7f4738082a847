"""Relations whose names or places changed: moved where that is all it takes, and never put over others'.

dbt would leave a view behind under its old name, and would drop whatever stands under the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.canonical import quote
from headwater.config import WarehouseConfig, quote_table
from headwater.errors import WarehouseError
from headwater.handoff.built import Built, Place
from headwater.handoff.stage import opened
from headwater.handoff.tables import TableModel

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Move:
    """A relation that is in another place from the next build on."""

    table: TableModel
    model: str
    old: Place
    new: Place

    @property
    def anew(self) -> bool:
        """Whether it is built anew there, and stays in the old place too."""
        return self.old[0] != self.new[0]

    def drop(self) -> str:
        """The statement that takes away what stays."""
        kind = "VIEW" if self.model in (self.table.current, self.table.past) else "TABLE"
        return f"DROP {kind} {_named(self.old)};"


def moves(warehouse: WarehouseConfig, models: Sequence[TableModel], built: Built) -> list[Move]:
    """What leaves the place where dbt last put it; names that the user's own project chose are left alone."""
    found = []
    for table in models:
        for model, name in table.relations.items():
            known = built.models.get(model)
            if known is None:
                continue
            other = (known.asked or model) != name and known.place[1] != name
            new = (built.schema(model, warehouse), name if other else known.place[1])
            if new != known.place:
                found.append(Move(table, model, known.place, new))
    return found


def make_room(warehouse: WarehouseConfig, models: Sequence[TableModel], built: Built) -> None:
    """Rename the views whose names changed; all or none. Raises WarehouseError where a name is taken.

    A stop before dbt has run again does no harm: what is renamed already is not there under its old name.
    """
    renamed = [move for move in moves(warehouse, models, built) if not move.anew]
    named = [m for m in models if m.current_as or m.past_as]
    if not renamed and not named:
        return
    with opened(warehouse.path) as con:
        con.begin()
        views, tables = _views(con), _tables(con)
        leaving = {_folded(move.old) for move in renamed}
        for table, place in _wanted(named, built, warehouse):
            at = _folded(place)
            if at in tables or (at in views and at not in leaving and not _reads(views[at], table)):
                raise _taken(table, place)
        for move in renamed:
            _rename(con, move, views)
        con.commit()


def _wanted(
    named: Sequence[TableModel], built: Built, warehouse: WarehouseConfig
) -> Iterator[tuple[TableModel, Place]]:
    """Where the views under names of the user's will stand."""
    for table in named:
        for model in (table.current, table.past):
            if model:
                yield table, (built.schema(model, warehouse), table.relations[model])


def _reads(query: str, table: TableModel) -> bool:
    """Whether a view is one of this table's: it reads a `base_` model of it."""
    return re.search(rf"\b{table.base}(__history)?\b", query) is not None


def _rename(con: DuckDBPyConnection, move: Move, views: Mapping[Place, str]) -> None:
    if _folded(move.old) not in views:
        return
    if _folded(move.new) in views:
        # Only another spelling, or built already: dbt makes the view that is wanted.
        con.execute(f"DROP VIEW {_named(move.old)}")
    else:
        con.execute(f"ALTER VIEW {_named(move.old)} RENAME TO {quote(move.new[1])}")


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


def _named(place: Place) -> str:
    return f"{quote(place[0])}.{quote(place[1])}"


def _taken(table: TableModel, place: Place) -> WarehouseError:
    name = quote_table(table.schema.table).replace("'", "''")
    return WarehouseError(
        f"the warehouse has a {place[0]}.{place[1]} already, which is not ours; {table.schema.table} would "
        "take its place",
        hint=f"tables: [{{name: '{name}', as: {table.relation}}}]",
    )
