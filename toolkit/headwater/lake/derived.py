"""What a mirror or a history holds by rights: out of `changes` alone, whatever its own files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from headwater.canonical import quote
from headwater.columns import cast_from, meta_from
from headwater.errors import StorageError
from headwater.lake import Held, TableFormat
from headwater.lake.layout import history_layout, history_meta, names_of, plain_layout
from headwater.lake.tail import KEYED, emptied, history_rows, mirror_rows, tail_beyond, through
from headwater.model import TableSchema


def layout_of(base: Held, schema: TableSchema) -> Mapping[str, pa.DataType]:
    """The columns of a base under the schema of its changes."""
    past = base.kind == "history"
    return history_layout(schema, names_of(base.notes)) if past else plain_layout(schema)


def cells_of(base: Held, schema: TableSchema) -> str:
    """The select list that brings the rows of a base into that layout."""
    own = ", ".join(cast_from(base.schema, schema))
    if base.kind != "history":
        return f"{own}, {meta_from(base.schema, schema)}"
    return f"{own}, {history_meta(base.schema, schema, layout_of(base, schema))}"


def derivable(base: Held, changes: Held) -> str:
    """SQL of which rows of a base the changes tell of.

    Versions from before the table had its key are in a history alone: changes cannot tell them by it.
    """
    keyed = changes.notes.get(KEYED)
    return f"_hw_seq > {int(keyed)}" if keyed is not None and base.kind == "history" else "TRUE"


def base_rows(lake: TableFormat, base: Held, changes: Held, paths: Sequence[str] | None = None) -> str:
    """SQL to stand after FROM: the rows in files (default: all) of a base that its changes tell of."""
    named = ", ".join(map(quote, layout_of(base, changes.schema)))
    cells, which = cells_of(base, changes.schema), derivable(base, changes)
    return f"(SELECT {named} FROM (SELECT {cells} FROM {lake.scan(base, paths)}) WHERE {which})"


def broken_files(lake: TableFormat, held: Held) -> list[str]:
    """The files of a lake table that are gone, or not of the size that its commits say."""
    return [path for path in held.files["path"].to_pylist() if _is_broken(lake, held, path)]


def _is_broken(lake: TableFormat, held: Held, path: str) -> bool:
    try:
        lake.locate(held, [path])
    except StorageError:
        return True
    return False


def from_changes(lake: TableFormat, base: Held, changes: Held, upto: int | None = None) -> str:
    """SQL to stand after FROM: the rows of a base and its tail; with `upto` only as far as that number."""
    schema = changes.schema
    layout = layout_of(base, schema)
    none = emptied(base, changes, layout)
    tail = replace(tail_beyond(changes, through(none) or -1), upto=upto)
    past = base.kind == "history"
    rows = history_rows(lake, none, tail) if past else mirror_rows(lake, none, tail, schema)
    return f"(SELECT {', '.join(map(quote, layout))} FROM {rows})"
