"""Writing a lake table anew where it must be: the files that hold a touched key, and small ones with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from headwater.canonical import quote
from headwater.lake import NewFile
from headwater.lake.keys import Keys
from headwater.lake.touched import Target, files_with

#: Files below this many rows are merged into what is written anyway.
SMALL_ROWS = 500_000


@dataclass(frozen=True, slots=True)
class Swap:
    """What a rewrite is to do: rows of `drop` out, rows of the query `fresh` in.

    only         SQL of which rows may be dropped
    everything   write every file anew, because types change
    """

    drop: Keys
    fresh: str
    order: Sequence[str]
    only: str = "TRUE"
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Files to take in, and paths to let go."""

    add: list[NewFile]
    remove: list[str]


def rewrite(target: Target, paths: Sequence[str], swap: Swap) -> Rewritten:
    """Do the swap in the files `paths` of a table; files that need not change are left alone."""
    assert target.held is not None
    drop, touched = swap.drop, list(paths)
    if not swap.everything:
        touched = files_with(target, paths, drop)
        touched += _small(target, set(paths) - set(touched), touched, swap.fresh)
    rows = swap.fresh
    if touched:
        columns = ", ".join(f"o.{quote(name)}" for name in target.layout)
        kept = (
            f"SELECT {columns} FROM (SELECT *, {drop.named}, {swap.only} AS _hw_droppable "
            f"FROM (SELECT {target.cells} FROM {target.lake.scan(target.held, touched)})) AS o "
            f"ANTI JOIN {drop.relation} AS k ON o._hw_droppable AND {drop.same('o', 'k')}"
        )
        rows = f"{kept} UNION ALL {swap.fresh}"
    return Rewritten(
        target.lake.write(target.con, rows, target.layout, swap.order, target.row_bytes), touched
    )


def _small(target: Target, untouched: Collection[str], touched: Sequence[str], fresh: str) -> list[str]:
    """Files worth merging: none much bigger than what is written anyway, so a row moves log(n) times."""
    assert target.held is not None
    sizes = dict(
        zip(
            target.held.files["path"].to_pylist(), target.held.files["num_records"].to_pylist(), strict=True
        )
    )  # fmt: skip
    total = target.con.execute(f"SELECT count(*) FROM ({fresh})").fetchall()[0][0]
    if not total:
        return []
    total += sum(sizes[path] or 0 for path in touched)
    merged = []
    for path in sorted(untouched, key=lambda p: (sizes[p] or 0, p)):
        rows = sizes[path] or 0
        if rows >= SMALL_ROWS or rows > 2 * total:
            break
        merged.append(path)
        total += rows
    return merged
