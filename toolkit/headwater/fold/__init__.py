"""The fold: change rows of the raw log into full-row versions, as SQL over a DuckDB connection.

Two kinds of work for a table with a key, two for one without, each one statement in a `.sql` file here:

  changes    the change rows since the mark, on top of the rows the mirror holds for the touched keys
  snapshot   a new epoch against the whole mirror: the difference, not the table again

All of them leave the temporary table `_hw_versions`: one full row for each version (deletes with the values
they deleted), with what ended it. History and mirror follow from it alone. `_hw_raw` (change rows in the
lake's column types), `_hw_base` (mirror rows) and `_hw_open` (open history rows) are their only input.
"""

from __future__ import annotations

from headwater.columns import cast_from, changed_types, unite, widen
from headwater.fold.segments import Batch, Segment, cut_segments
from headwater.fold.statements import Gone, Shape, sql

__all__ = [
    "Batch",
    "Gone",
    "Segment",
    "Shape",
    "cast_from",
    "changed_types",
    "cut_segments",
    "sql",
    "unite",
    "widen",
]
