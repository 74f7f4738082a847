"""What a mirror or a history holds by rights: out of `changes` alone, whatever its own files say."""

from __future__ import annotations

from dataclasses import replace

from headwater.lake import Held, TableFormat
from headwater.lake.layout import history_layout, names_of, plain_layout
from headwater.lake.tail import emptied, history_rows, mirror_rows, tail_beyond, through


def from_changes(lake: TableFormat, base: Held, changes: Held, upto: int | None = None) -> str:
    """SQL to stand after FROM: the rows of a base and its tail; with `upto` only as far as that number."""
    past = base.kind == "history"
    schema = changes.schema
    layout = history_layout(schema, names_of(base.notes)) if past else plain_layout(schema)
    none = emptied(base, changes, layout)
    tail = replace(tail_beyond(changes, through(none) or -1), upto=upto)
    return history_rows(lake, none, tail) if past else mirror_rows(lake, none, tail, schema)
