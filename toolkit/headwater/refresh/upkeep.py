"""Keeping a lake table in shape: small files of `changes` merged, files that nobody reads any more deleted.

Delta makes its own checkpoints, every 100 commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater.config import Files
from headwater.failpoints import reach
from headwater.lake import Change, Held, Kind
from headwater.lake.placing import Placing
from headwater.lake.tail import through
from headwater.refresh.parts import Work

#: So many files of `changes` of about one size become one of the next size, so a row moves log(n) times.
MERGED = 16
#: Files of so many rows stay as they are, and those that take more than one over this of a fold's room.
FULL_ROWS, FULL_SHARE = 200_000, 4
#: A lake table is swept after so many commits at most ...
SWEPT_AFTER = 1_000
#: ... and a mirror or a history, which leaves old files with each, before they take much more than this.
SWEPT_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    low: int
    rows: int

    @property
    def tier(self) -> int:
        """Its size in powers of `MERGED`."""
        rows, tier = self.rows, 0
        while rows >= MERGED:
            rows, tier = rows // MERGED, tier + 1
        return tier


def keep_up(work: Work, before: Mapping[Kind, int]) -> None:
    """Merge and sweep where it is time, after a fold; `before`: the versions that the tables had."""
    changes, mirror = work.held["changes"], work.held["mirror"]
    if changes is not None and changes.schema.key and changes.files.num_rows >= MERGED:
        reached = through(mirror) if mirror is not None else None
        reached = -1 if reached is None else reached
        run = _mergeable(changes, reached, FULL_ROWS)
        if run:
            # Files of wide rows are full with fewer, and would become as many of the same. Their width is
            # looked at only now, because that reads a few files.
            width = work.lake.width(changes)
            fitting = work.room // FULL_SHARE // max(width, 1)
            run = _mergeable(changes, reached, min(FULL_ROWS, work.lake.file_rows(width) // 2, fitting))
            if run:
                _merge(work, changes, run, width)
    for kind, held in list(work.held.items()):
        if held is not None:
            often = _sweep_after(held)
            if held.version // often > before.get(kind, 0) // often:
                work.held[kind] = work.lake.sweep(held)


def _mergeable(changes: Held, reached: int, full: int) -> list[_File]:
    """The newest files that make one of the next size; not across `reached`, where the tail begins.

    A file of `full` rows stays as it is.
    """
    files = changes.files
    lows = files["min._hw_seq"].to_pylist() if "min._hw_seq" in files.column_names else [None]
    if None in lows:
        return []
    newest = sorted(
        map(_File, files["path"].to_pylist(), lows, files["num_records"].to_pylist()),
        key=lambda file: file.low,
        reverse=True,
    )
    for tier in range(max(file.tier for file in newest) + 1):
        run: list[_File] = []
        for file in newest:
            apart = (file.low > reached) != (newest[0].low > reached)
            if file.tier > tier or file.rows >= full or apart:
                break
            run.append(file)
        if sum(file.tier == tier for file in run) >= MERGED:
            return run
    return []


def _merge(work: Work, changes: Held, run: Sequence[_File], width: int) -> None:
    paths = [file.path for file in run]
    rows = f"SELECT * FROM {work.lake.scan(changes, paths)}"
    codec = Placing(files=Files(work.spec.files.compression))
    add = work.lake.write(work.con, rows, changes.layout, ["_hw_seq"], width, codec)
    change = Change(changes.mark, changes.schema, changes.layout, add, paths, notes=changes.notes)
    reach("merge.before")
    work.held["changes"] = work.lake.commit(changes.table, "changes", changes, change)
    reach("merge.after")


def _sweep_after(held: Held) -> int:
    """After how many commits a table is swept: changes lose only small files."""
    if held.kind == "changes":
        return SWEPT_AFTER
    size: int = sum(held.files["size_bytes"].to_pylist())
    return min(SWEPT_AFTER, max(1, SWEPT_BYTES // max(size, 1)))
