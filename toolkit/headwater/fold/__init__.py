"""The fold: change rows of the raw log into versions, as SQL over a DuckDB connection.

Two kinds of work for a table with a key, two for one without, each one statement in a `.sql` file here:

  changes    the change rows since the mark; those that lack cells on top of the rows that have them
  snapshot   a new epoch against the whole mirror: the difference, not the table again

All of them leave `_hw_versions`: one full row for each version, deletes with what the log carried of them.
Of a table with a key they go to `changes`, and compaction (`order`, `fresh`, `closed`, `opened`) makes mirror
and history of these. `_hw_raw` (change rows in the lake's column types) and `_hw_base` (rows that are there)
are the only input.
"""

from __future__ import annotations

from headwater.columns import cast_from, changed_types, json_of, widen
from headwater.fold.retype import as_called_now, retyped
from headwater.fold.segments import Batch, Segment, cut_segments
from headwater.fold.statements import Gone, Shape, sql
from headwater.growth import Placed, grow, unite

__all__ = [
    "Batch",
    "Gone",
    "Placed",
    "Segment",
    "Shape",
    "as_called_now",
    "cast_from",
    "changed_types",
    "cut_segments",
    "json_of",
    "retyped",
    "grow",
    "sql",
    "unite",
    "widen",
]
