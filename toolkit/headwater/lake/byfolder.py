"""Rewriting a lake table whose files lie in folders: what is not touched stays, rows move between folders.

A row that leaves its folder is dropped from the file it is in, and comes fresh into another. A folder of at
most one file's worth of rows is written together with all others of that kind, in one pass; a larger one on
its own, as a table without folders would be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from headwater.canonical import literal, quote
from headwater.lake import NewFile
from headwater.lake.placing import folder_of_file
from headwater.lake.rewrite import Rewritten, Swap, kept, pack_rows, rewrite, small_first, small_rows
from headwater.lake.touched import Target

_Files = Mapping[str, Sequence[tuple[str, int]]]


def rewrite_placed(target: Target, paths: Sequence[str], swap: Swap) -> Rewritten:
    """Do the swap in the files `paths`, each row into its folder."""
    assert target.held is not None
    if target.placing.whole:
        return rewrite(target, paths, swap)
    if swap.everything:
        rows = f"{kept(target, paths, swap)} UNION ALL SELECT * FROM ({swap.fresh})"
        return Rewritten(_write(target, rows, swap.order), list(paths))
    touched = set(swap.look(target, paths).paths)
    plan = _plan(target, _by_folder(target, paths), touched, _counts(target, swap.fresh))
    add = []
    if plan.together or plan.fresh:
        fresh = f"SELECT * FROM ({swap.fresh}) WHERE {_elsewhere(target, plan.alone)}"
        rows = f"{kept(target, plan.together, swap)} UNION ALL {fresh}" if plan.together else fresh
        # A folder's one file need not be sorted, which costs a sixth of writing it; slices are cut by order.
        add += _write(target, rows, swap.order if target.placing.files.slices > 1 else ())
    gone = list(plan.together)
    for folder, (files, rows_each) in plan.alone.items():
        inside = replace(target, placing=replace(target.placing.inside(), rows=rows_each))
        fresh = f"SELECT * FROM ({swap.fresh}) WHERE {target.placing.folder} = {literal(folder)}"
        done = rewrite(inside, files, replace(swap, fresh=fresh))
        add += [replace(file, folder=folder) for file in done.add]
        gone += done.remove
    return Rewritten(add, gone)


def append_placed(target: Target, paths: Sequence[str], rows: str, order: Sequence[str]) -> Rewritten:
    """Add rows to a table; small ones of `paths` in the folders they go to become one with them."""
    undivided = replace(target, placing=target.placing.undivided())
    if not target.placing.segments:
        return Rewritten(_write(undivided, rows, order), [])
    news, merged = _counts(target, rows), []
    for folder, files in _by_folder(target, paths).items() if target.held else ():
        if folder in news:
            merged += small_first(dict(files), news[folder], small_rows(target))
    if merged:
        assert target.held is not None
        columns = ", ".join(map(quote, target.layout))
        old = f"SELECT {target.cells} FROM {target.lake.scan(target.held, merged)}"
        rows = f"SELECT {columns} FROM ({old}) UNION ALL {rows}"
    return Rewritten(_write(undivided, rows, order), merged)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Files to write together, whether fresh rows come with them, and each folder that is written alone.

    alone   folder -> its files, and how many rows a file is to have
    """

    together: Sequence[str]
    fresh: bool
    alone: Mapping[str, tuple[Sequence[str], int]]


def _plan(target: Target, there: _Files, touched: Collection[str], news: Mapping[str, int]) -> _Plan:
    most, slices = pack_rows(target), max(target.placing.files.slices, 1)
    together: list[str] = []
    alone: dict[str, tuple[Sequence[str], int]] = {}
    fresh = False
    for folder in sorted(news.keys() | {folder_of_file(path) for path in touched}):
        files, coming = there.get(folder, ()), news.get(folder, 0)
        total = coming + sum(rows for _, rows in files)
        if files and total > most:
            alone[folder] = [path for path, _ in files], min(most, -(-total // slices)) if slices > 1 else (
                target.placing.rows
            )  # fmt: skip
            continue
        fresh = fresh or bool(coming)
        if slices > 1:
            together += [path for path, _ in files]
            continue
        mine = [path for path, _ in files if path in touched]
        written = coming + sum(rows for path, rows in files if path in touched)
        rest = {path: rows for path, rows in files if path not in touched}
        together += mine + (small_first(rest, written, small_rows(target)) if written else [])
    return _Plan(together, fresh, alone)


def _by_folder(target: Target, paths: Collection[str]) -> _Files:
    assert target.held is not None
    files, wanted = target.held.files, set(paths)
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for path, rows in zip(files["path"].to_pylist(), files["num_records"].to_pylist(), strict=True):
        if path in wanted:
            found[folder_of_file(path)].append((path, rows or 0))
    return found


def _counts(target: Target, rows: str) -> Mapping[str, int]:
    """How many rows of a query go into each folder."""
    query = f"SELECT {target.placing.folder} AS _hw_folder, count(*) FROM ({rows}) GROUP BY _hw_folder"
    return dict(target.con.execute(query).fetchall())


def _elsewhere(target: Target, alone: Collection[str]) -> str:
    """SQL of which rows belong into none of these folders."""
    if not alone:
        return "TRUE"
    return f"{target.placing.folder} NOT IN ({', '.join(map(literal, alone))})"


def _write(target: Target, rows: str, order: Sequence[str]) -> list[NewFile]:
    return target.lake.write(target.con, rows, target.layout, order, target.row_bytes, target.placing)
