"""Writing a lake table anew where it must be: the files that hold a touched key, and small ones with them.

Files whose keys do not overlap stay so: they are written one by one, or a few small ones together, each with
the fresh rows of its own range of keys. So a rewrite takes the memory of a file, whatever it touches. Where
no key is new, fresh rows take the places of those they replace, and nothing is sorted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headwater.canonical import duckdb_type, literal, quote
from headwater.lake import NewFile
from headwater.lake.keys import Keys
from headwater.lake.stored import stored_type
from headwater.lake.touched import Found, Target, files_with, within_bounds

#: Files below this many rows are merged into what is written anyway.
SMALL_ROWS = 120_000
#: Files are written together up to so many rows.
PACK_ROWS = 245_760


@dataclass(frozen=True, slots=True)
class Swap:
    """What a rewrite is to do: rows of `drop` out, rows of the query `fresh` in.

    only         SQL of which rows may be dropped
    everything   write every file anew, because types change
    in_order     fresh rows come in `order`
    found        where the rows of `drop` are, if somebody looked before
    in_place     each key has one row, there and among the fresh ones
    """

    drop: Keys
    fresh: str
    order: Sequence[str]
    only: str = "TRUE"
    everything: bool = False
    in_order: bool = False
    found: Found | None = None
    in_place: bool = True

    def look(self, target: Target, paths: Sequence[str]) -> Found:
        """Where the rows of `drop` are in `paths`."""
        if self.found is not None:
            among = set(paths)
            return Found(self.found.table, [path for path in self.found.paths if path in among])
        return Found("_hw_places", files_with(target, paths, self.drop, "_hw_places", self.only))


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
    """Files that are written together, with the fresh rows of a range: SQL over the key column `{0}`."""

    paths: Sequence[str]
    where: str

    def fresh(self, swap: Swap) -> str:
        """The range over fresh rows."""
        return self.where.format(quote(swap.drop.column)) if swap.drop.column else self.where


def rewrite(target: Target, paths: Sequence[str], swap: Swap) -> Rewritten:
    """Do the swap in the files `paths` of a table; files that need not change are left alone."""
    assert target.held is not None
    spans = _spans(target, paths, swap)
    found, touched = Found("", ()), list(paths)
    if not swap.everything:
        found = swap.look(target, paths)
        touched = list(found.paths)
        if _disjoint(spans):
            new = f"(SELECT {quote(swap.drop.column)} AS _hw_k0 FROM ({swap.fresh}))"
            into = within_bounds(target.con, target.held, set(paths), swap.drop.like(new))
            touched += [path for path in into if path not in set(touched)]
            touched += _small_beside(target, spans, set(touched), swap)
        else:
            touched += _small(target, set(paths) - set(touched), touched, swap.fresh)
    # A row of a key has one file that it can be in, and the range of keys of that file.
    apart = swap.in_place and not swap.everything and _disjoint(spans) and not _odd_keys(target, swap.drop)
    if apart:
        _note_new(target, swap, found.table)
    add: list[NewFile] = []
    fills = _few_behind(target, spans, swap)
    for group in _groups(target, spans, set(touched), swap.drop, fills=fills):
        add += _write(target, group, swap, in_place=apart and not _brings_new(target, group))
    return Rewritten(add, touched)


def _write(target: Target, group: _Group, swap: Swap, *, in_place: bool) -> list[NewFile]:
    fresh = f"SELECT * FROM ({swap.fresh}) WHERE {group.fresh(swap)}"
    order: Sequence[str] = swap.order
    if in_place and group.paths:
        rows, order = _replaced(target, group, swap), ()
    elif group.paths:
        rows = f"{kept(target, group.paths, swap)} UNION ALL {fresh}"
    else:
        rows, order = fresh, () if swap.in_order else swap.order
    return target.lake.write(target.con, rows, target.layout, order, target.row_bytes, target.placing)


def pack_rows(target: Target) -> int:
    """Up to how many rows files are written together."""
    return target.placing.rows or PACK_ROWS


def small_rows(target: Target) -> int:
    """Below how many rows a file is merged into what is written anyway."""
    return target.placing.rows // 2 or SMALL_ROWS


def _odd_keys(target: Target, keys: Keys) -> bool:
    found = target.con.execute(f"SELECT count(*) FROM {keys.relation} WHERE _hw_k0 IS NULL").fetchall()
    return bool(found[0][0])


def _note_new(target: Target, swap: Swap, found: str) -> None:
    """Leave the keys of fresh rows that are not among those found in the files."""
    fresh = f"SELECT {swap.drop.named} FROM ({swap.fresh})"
    new = f"SELECT f._hw_k0 FROM ({fresh}) AS f ANTI JOIN {found} AS p ON {swap.drop.same('f', 'p')}"
    target.con.execute(f"CREATE OR REPLACE TEMP TABLE _hw_new AS {new}").fetchall()


def _brings_new(target: Target, group: _Group) -> bool:
    """Whether a fresh row of the range has a new key."""
    found = f"SELECT 1 FROM _hw_new WHERE {group.where.format('_hw_k0')} LIMIT 1"
    return bool(target.con.execute(found).fetchall())


def _replaced(target: Target, group: _Group, swap: Swap) -> str:
    """The rows of some files in their order, fresh ones in the place of theirs."""
    assert target.held is not None
    drop, names = swap.drop, swap.drop.names
    fresh = f"SELECT *, {drop.named} FROM ({swap.fresh}) WHERE {group.fresh(swap)}"
    news = (
        f"SELECT {', '.join(f'd.{n}' for n in names)}, f.* EXCLUDE ({', '.join(names)}), "
        f"f.{names[0]} IS NOT NULL AS _hw_hit "
        f"FROM (SELECT * FROM {drop.relation} WHERE {group.where.format(names[0])}) AS d "
        f"LEFT JOIN ({fresh}) AS f ON {drop.same('d', 'f')}"
    )
    cells = ", ".join(
        f"CASE WHEN o._hw_droppable AND k._hw_hit THEN k.{name} ELSE o.{name} END AS {name}"
        for name in map(quote, target.layout)
    )
    return (
        f"SELECT {cells} FROM (SELECT *, {drop.named}, {swap.only} AS _hw_droppable "
        f"FROM (SELECT {target.cells} FROM {target.lake.scan(target.held, group.paths)})) AS o "
        f"LEFT JOIN ({news}) AS k ON {drop.same('o', 'k')} "
        "WHERE NOT o._hw_droppable OR coalesce(k._hw_hit, TRUE)"
    )


def kept(target: Target, paths: Sequence[str], swap: Swap) -> str:
    """SQL of the rows of some files that stay."""
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
            _values(files[low]) if usable else nothing,
            _values(files[high]) if usable else nothing,
            strict=True,
        )
        if path in set(paths)
    ]
    if any(span.low is None or span.high is None for span in found):
        return [_Span(span.path, span.rows, None, None) for span in found]
    return sorted(found, key=lambda span: (span.low, span.high))


def _values(bounds: pa.ChunkedArray) -> list[Any]:
    """Bounds as values that compare; other writers keep some that Python has no dates for."""
    try:
        values: list[Any] = bounds.to_pylist()
    except (OverflowError, ValueError):
        return [None] * len(bounds)
    return values


def _disjoint(spans: Sequence[_Span]) -> bool:
    """Whether each key has one file that it belongs to."""
    return bool(spans) and all(
        one.high is not None and one.high < next_.low for one, next_ in zip(spans, spans[1:], strict=False)
    )


def _few_behind(target: Target, spans: Sequence[_Span], swap: Swap) -> bool:
    """Whether the fresh rows behind all files may fill up the last one: many make files of their own."""
    if not spans or spans[0].low is None:
        return False
    most = _literal(max(span.high for span in spans), swap.drop)
    behind = f"SELECT count(*) FROM ({swap.fresh}) WHERE {quote(swap.drop.column)} > {most}"
    return bool(target.con.execute(behind).fetchall()[0][0] <= pack_rows(target))


def _groups(
    target: Target, spans: Sequence[_Span], touched: Collection[str], keys: Keys, *, fills: bool
) -> list[_Group]:
    """What to write together: each fresh row goes to one group, those beyond all files to the last."""
    packs = _packs(spans, touched, pack_rows(target))
    if not packs or spans[0].low is None:
        rest = [_Group([s.path for s in pack], "FALSE") for pack in packs[1:]]
        return [_Group([s.path for s in packs[0]] if packs else [], "TRUE"), *rest]
    lows = [min(span.low for span in pack) for pack in packs]
    most = max(span.high for span in spans)
    # What comes behind all files makes files of its own, unless the last of them is to be filled up anyway.
    open_end = (
        fills
        and any(s.high == most for s in packs[-1])
        and sum(s.rows for s in packs[-1]) < small_rows(target)
    )
    groups = []
    for n, pack in enumerate(packs):
        above = f"{{0}} >= {_literal(lows[n], keys)}" if n else "TRUE"
        below = "TRUE"
        if n < len(packs) - 1:
            below = f"{{0}} < {_literal(lows[n + 1], keys)}"
        elif not open_end:
            below = f"{{0}} <= {_literal(most, keys)}"
        where = f"({above} AND {below})" if n else f"coalesce({below}, TRUE)"
        groups.append(_Group([s.path for s in pack], where))
    if not open_end:
        groups.append(_Group([], f"{{0}} > {_literal(most, keys)}"))
    return groups


def _packs(spans: Sequence[_Span], touched: Collection[str], most: int) -> list[list[_Span]]:
    """The touched files in their order, small neighbours together."""
    packs: list[list[_Span]] = []
    apart = False  # whether a file that stays lies between
    for span in spans:
        if span.path not in touched:
            apart = span.low is not None
            continue
        if not packs or apart or sum(s.rows for s in packs[-1]) + span.rows > most:
            packs.append([])
        packs[-1].append(span)
        apart = False
    return packs


def _literal(value: Any, keys: Keys) -> str:
    text = literal(str(value)).replace("{", "{{").replace("}", "}}")
    return f"CAST({text} AS {duckdb_type(keys.kind)})"


def _small_beside(target: Target, spans: Sequence[_Span], touched: Collection[str], swap: Swap) -> list[str]:
    """Small files next to what is written anyway, and a small last one where keys come behind it."""
    limit = small_rows(target)
    small = [n for n, span in enumerate(spans) if span.path not in touched and span.rows < limit]
    column, last = quote(swap.drop.column), len(spans) - 1
    merged = []
    for n in small:
        beside = [spans[at].path for at in (n - 1, n + 1) if 0 <= at <= last]
        if n == last:
            behind = (
                f"SELECT 1 FROM ({swap.fresh}) WHERE {column} > {_literal(spans[n].high, swap.drop)} LIMIT 1"
            )
            if target.con.execute(behind).fetchall():
                merged.append(spans[n].path)
                continue
        if any(path in touched for path in beside):
            merged.append(spans[n].path)
    return merged


def _small(target: Target, untouched: Collection[str], touched: Sequence[str], fresh: str) -> list[str]:
    """Files worth merging where their keys do not tell."""
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
    return small_first({path: sizes[path] or 0 for path in untouched}, total, small_rows(target))


def small_first(sizes: Mapping[str, int], written: int, limit: int) -> list[str]:
    """Files below `limit` rows that are worth merging into `written` rows, smallest first.

    None is much bigger than what is written anyway, so a row moves log(n) times.
    """
    merged = []
    for path, rows in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        if rows >= limit or rows > 2 * written:
            break
        merged.append(path)
        written += rows
    return merged
