"""Writing a lake table anew where it must be: the files that hold a touched key, and small ones with them.

Files whose keys do not overlap stay so: they are written one by one, or a few small ones together, each with
the fresh rows of its own range of keys. So a rewrite takes the memory of a file, whatever it touches.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.canonical import duckdb_type, literal, quote
from headwater.lake import NewFile
from headwater.lake.keys import Keys
from headwater.lake.stored import stored_type
from headwater.lake.touched import Target, files_with, within_bounds

#: Files below this many rows are merged into what is written anyway.
SMALL_ROWS = 500_000
#: Files are written together up to so many rows.
PACK_ROWS = 1_000_000


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


@dataclass(frozen=True, slots=True)
class _Span:
    """A file with the bounds of its keys; None where they are not known."""

    path: str
    rows: int
    low: Any
    high: Any


@dataclass(frozen=True, slots=True)
class _Group:
    """Files that are written together, with the fresh rows that `fresh` (SQL) is true for."""

    paths: Sequence[str]
    fresh: str


def rewrite(target: Target, paths: Sequence[str], swap: Swap) -> Rewritten:
    """Do the swap in the files `paths` of a table; files that need not change are left alone."""
    assert target.held is not None
    spans = _spans(target, paths, swap)
    touched = list(paths)
    if not swap.everything:
        touched = files_with(target, paths, swap.drop)
        if _disjoint(spans):
            new = f"(SELECT {quote(swap.drop.column)} AS _hw_k0 FROM ({swap.fresh}))"
            into = within_bounds(target.con, target.held, set(paths), swap.drop.like(new))
            touched += [path for path in into if path not in set(touched)]
        touched += _small(target, set(paths) - set(touched), touched, swap.fresh)
    add: list[NewFile] = []
    for group in _groups(spans, set(touched), swap.drop):
        fresh = f"SELECT * FROM ({swap.fresh}) WHERE {group.fresh}"
        rows = f"{_kept(target, group.paths, swap)} UNION ALL {fresh}" if group.paths else fresh
        add += target.lake.write(target.con, rows, target.layout, swap.order, target.row_bytes)
    return Rewritten(add, touched)


def _kept(target: Target, paths: Sequence[str], swap: Swap) -> str:
    assert target.held is not None
    columns = ", ".join(f"o.{quote(name)}" for name in target.layout)
    return (
        f"SELECT {columns} FROM (SELECT *, {swap.drop.named}, {swap.only} AS _hw_droppable "
        f"FROM (SELECT {target.cells} FROM {target.lake.scan(target.held, paths)})) AS o "
        f"ANTI JOIN {swap.drop.relation} AS k ON o._hw_droppable AND {swap.drop.same('o', 'k')}"
    )


def _spans(target: Target, paths: Collection[str], swap: Swap) -> list[_Span]:
    """The files in the order of their keys, where bounds tell it."""
    assert target.held is not None
    files, column = target.held.files, swap.drop.column
    low, high = f"min.{column}", f"max.{column}"
    kind = target.held.layout.get(column)
    usable = kind is not None and kind == stored_type(kind) == swap.drop.kind
    usable = usable and low in files.column_names and high in files.column_names
    nothing = [None] * files.num_rows
    found = [
        _Span(path, rows or 0, least, most)
        for path, rows, least, most in zip(
            files["path"].to_pylist(),
            files["num_records"].to_pylist(),
            files[low].to_pylist() if usable else nothing,
            files[high].to_pylist() if usable else nothing,
            strict=True,
        )
        if path in set(paths)
    ]
    if any(span.low is None or span.high is None for span in found):
        return [_Span(span.path, span.rows, None, None) for span in found]
    return sorted(found, key=lambda span: (span.low, span.high))


def _disjoint(spans: Sequence[_Span]) -> bool:
    """Whether each key has one file that it belongs to."""
    return bool(spans) and all(
        one.high is not None and one.high <= next_.low for one, next_ in zip(spans, spans[1:], strict=False)
    )


def _groups(spans: Sequence[_Span], touched: Collection[str], keys: Keys) -> list[_Group]:
    """What to write together: each fresh row goes to one group, those beyond all files to the last."""
    packs: list[list[_Span]] = []
    for span in spans:
        if span.path in touched:
            if not packs or sum(s.rows for s in packs[-1]) + span.rows > PACK_ROWS:
                packs.append([])
            packs[-1].append(span)
    if not packs or spans[0].low is None:
        return [*(_Group([s.path for s in pack], "FALSE") for pack in packs[1:]),
                _Group([s.path for s in packs[0]] if packs else [], "TRUE")]  # fmt: skip
    lows = [min(span.low for span in pack) for pack in packs]
    most = max(span.high for span in spans)
    # What comes behind all files makes files of its own, unless the last of them is to be filled up anyway.
    open_end = any(s.high == most for s in packs[-1]) and sum(s.rows for s in packs[-1]) < SMALL_ROWS
    groups = []
    for n, pack in enumerate(packs):
        above = f"{quote(keys.column)} >= {_literal(lows[n], keys)}" if n else "TRUE"
        last = n == len(packs) - 1
        below = f"{quote(keys.column)} < {_literal(lows[n + 1], keys)}" if not last else "TRUE"
        if last and not open_end:
            below = f"{quote(keys.column)} <= {_literal(most, keys)}"
        where = f"({above} AND {below})" if n else f"coalesce({below}, TRUE)"
        groups.append(_Group([s.path for s in pack], where))
    if not open_end:
        groups.append(_Group([], f"{quote(keys.column)} > {_literal(most, keys)}"))
    return groups


def _literal(value: Any, keys: Keys) -> str:
    return f"CAST({literal(str(value))} AS {duckdb_type(keys.kind)})"


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
