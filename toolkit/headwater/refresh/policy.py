"""When a tail is compacted, and when a fold looks at the rows under the changes before it commits them."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.config import TableSpec
from headwater.lake import Held, Kind
from headwater.lake.layout import is_spelt
from headwater.lake.placing import place, placed_anew
from headwater.lake.tail import tail_of, through
from headwater.refresh.step import WHOLE

#: A table of at most so many rows is compacted after each fold, and its changes are checked before.
SMALL_TABLE = 10_000
#: A larger one when its tail has one row for so many of its mirror: so for a changed row, at most
#: `1 + WRITES` rows of the mirror are written again, and as many of the history.
WRITES = 10


def is_small(held: Mapping[Kind, Held | None], news: int) -> bool:
    """Whether a table stays small with `news` more rows."""
    return _rows(held["mirror"]) + tail_rows(held) + news <= SMALL_TABLE


def is_due(spec: TableSpec, held: Mapping[Kind, Held | None]) -> bool:
    """Whether to compact a table now."""
    if _is_broken(spec, held):
        return True
    tail = tail_rows(held)
    if not tail and not _has_other_columns(held):
        return False
    if _renamed(spec, held) or lies_elsewhere(spec, held) or spec.compact == "always" or is_small(held, 0):
        return True
    return tail > 0 and tail * WRITES >= _rows(held["mirror"])


def has_tail(spec: TableSpec, held: Mapping[Kind, Held | None]) -> bool:
    """Whether there is anything to compact."""
    behind = tail_rows(held) > 0 or _has_other_columns(held)
    return behind or _is_broken(spec, held) or lies_elsewhere(spec, held)


def _has_other_columns(held: Mapping[Kind, Held | None]) -> bool:
    """Whether the mirror of a table with a key has not its columns of today."""
    changes, mirror = held["changes"], held["mirror"]
    if changes is None or mirror is None or not changes.schema.key:
        return False
    return changes.layout != mirror.layout


def _is_broken(spec: TableSpec, held: Mapping[Kind, Held | None]) -> bool:
    """Whether a base is missing, does not know how far it goes, or ends before the newest full load.

    A load ends compacted: what did not fit before it must not stay in the way.
    """
    changes = held["changes"]
    if changes is None or not changes.schema.key:
        return False
    bases = [held["mirror"], held["history"]] if spec.mode == "history" else [held["mirror"]]
    reached = [through(base) if base and base.schema.key else None for base in bases]
    return any(r is None or r < int(changes.notes.get(WHOLE, -1)) for r in reached)


def _renamed(spec: TableSpec, held: Mapping[Kind, Held | None]) -> bool:
    history = held["history"]
    if history is None or spec.mode != "history":
        return False
    return not is_spelt(history.notes, spec.history)


def lies_elsewhere(spec: TableSpec, held: Mapping[Kind, Held | None]) -> bool:
    """Whether a base of a table with a key lies in other folders than those of its layout."""
    changes = held["changes"]
    if changes is None or not changes.schema.key:
        return False
    placing = place(spec, changes.schema)
    bases = [held["mirror"], held["history"]] if spec.mode == "history" else [held["mirror"]]
    return any(base is not None and placed_anew(base, placing) for base in bases)


def _rows(held: Held | None) -> int:
    return sum(held.files["num_records"].to_pylist()) if held else 0


def tail_rows(held: Mapping[Kind, Held | None]) -> int:
    """The rows that `changes` holds beyond the mirror, or a few more."""
    tail = tail_of(held["mirror"], held["changes"]) if held["mirror"] else None
    return tail.rows if tail else 0
