"""Published views: one committed version of a mirror or history in another format, for other engines.

Delta stays the one table whose commits are the truth. A view follows it: made after the commit, whole or not
at all, with the same mark. To add a format: a class that satisfies `views.View`, a row in `VIEWS`, its cells
in `cells.CELLS`, and a subclass of the contract suite in ``tests/contracts/views.py``. docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headwater.config import TableSpec
from headwater.formats.cells import catalog_columns, refuse_unheld
from headwater.formats.iceberg import Iceberg, require_pyiceberg
from headwater.formats.symlink import Symlinks
from headwater.formats.views import Catalog, Listing, Shown, Target, View
from headwater.lake import Kind
from headwater.lake.delta import Lake
from headwater.lake.layout import history_layout, plain_layout
from headwater.model import TableId, TableSchema
from headwater.naming import relation_name
from headwater.storage import Storage

__all__ = ["Catalog", "Formats", "Listing", "Shown", "Target", "View", "catalog_name", "kinds", "refuse"]

_BASES: tuple[Kind, ...] = ("mirror", "history")

#: How each format is made.
VIEWS: Mapping[str, Callable[[Storage, Lake, TableSpec], View]] = {
    "iceberg": lambda storage, lake, _: Iceberg(storage, lake),
    "parquet": lambda storage, lake, _: Symlinks(storage, lake, "parquet"),
    "orc": lambda storage, lake, _: Symlinks(storage, lake, "orc"),
    "csv": lambda storage, lake, spec: Symlinks(storage, lake, "csv", spec.csv_compression),
}


class Formats:
    """The views of the lake tables of one store."""

    def __init__(self, storage: Storage, lake: Lake, catalog: Catalog | None = None) -> None:
        self._storage, self._lake, self._catalog = storage, lake, catalog

    def publish(self, spec: TableSpec) -> Sequence[Shown]:
        """Bring every view of a table to the newest version of its lake tables; returns where they stand.

        Doing it again is cheap and changes nothing. Raises the first error; views made before it stay.
        """
        done = []
        for view in spec.formats:
            for kind in kinds(spec):
                held = self._lake.open(spec.table, kind)
                if held is None:
                    continue
                listing = VIEWS[view](self._storage, self._lake, spec).publish(held)
                if self._catalog is not None:
                    self._catalog.register(listing, catalog_name(spec, listing.shown.target))
                done.append(listing.shown)
        return done

    def shown(self, spec: TableSpec) -> Sequence[Shown]:
        """Where the views of a table stand that there are."""
        made = ((VIEWS[view](self._storage, self._lake, spec), view) for view in spec.formats)
        found = [one.shown(Target(spec.table, kind, view)) for one, view in made for kind in kinds(spec)]
        return [shown for shown in found if shown is not None]


def refuse(spec: TableSpec, schema: TableSchema, *, registered: bool) -> None:
    """Raise what `publish` would for the columns of a table: SchemaConflict names the first that does not go.

    `registered`: its views go into a catalogue too.
    """
    layout = history_layout(schema, spec.history) if spec.mode == "history" else plain_layout(schema)
    for view in spec.formats:
        refuse_unheld(spec.table, view, layout)
        if view == "iceberg":
            require_pyiceberg()
    if registered and spec.formats:
        catalog_columns(spec.table, layout)


def catalog_name(spec: TableSpec, target: Target) -> str:
    """What a view is called in a catalogue: the first format of a table has the plain name."""
    return _name(target.table, target.kind, "" if target.view == spec.formats[0] else target.view)


def _name(table: TableId, kind: Kind, view: str) -> str:
    parts = [table.namespace, table.name, "history" if kind == "history" else "", view]
    return relation_name(*filter(None, parts))


def kinds(spec: TableSpec) -> Sequence[Kind]:
    """The lake tables of a table that have views."""
    return _BASES if spec.mode == "history" else ("mirror",)
