"""Folding changes into a lake table, beside the bare rewrite in SQL and `deltalake` MERGE."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import measure
from benchmarks.bench import Bench
from benchmarks.measure import Sample
from benchmarks.report import cpu, make_row, pairwise, seconds
from benchmarks.rewrites import PARTS, TOUCHED

ROWS = 10_000_000
CHANGES = 500_000
RANDOM = 1_000
#: history_growth: so many batches of so many changes, one after the other.
BATCHES, BATCH = 5, 10_000
TABLE = ("bench", "orders")


def clone(source: Path, target: Path) -> Path:
    """A copy of a folder whose files are only ever created: hard links will do."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-al", str(source), str(target)], check=True)
    return target


class Fold:
    """Lakes, and jobs on fresh copies of them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.rows = bench.rows(ROWS, 20_000)
        self.changes = bench.rows(CHANGES)
        self.place = bench.folder / "fold"
        self.place.mkdir()
        self._files: dict[str, list[str]] = {}

    def seed(self) -> None:
        """The lake of `rows`, the one of a tenth, the base of the others, and the changes to fold."""
        for name, rows in (("big", self.rows), ("small", self.rows // 10)):
            self._bench.say(f"a lake of {rows:,} rows")
            sample = measure.run("lakes:seed", store=str(self.place / name), rows=rows)
            self._bench.report.rows.append(
                make_row(f"fold_first_{name}", [sample], "rows/s", lambda s, rows=rows: rows / s.seconds)
            )
        measure.run("rewrites:seed", folder=str(self.place / "base"), rows=self.rows)
        for name, count, ranged in (("ranged", self.changes, True), ("random", self._random(), False)):
            store = clone(self.place / "big", self.place / name)
            said = measure.run("lakes:change", store=str(store), rows=self.rows, count=count, ranged=ranged)
            self._files[name] = said.facts["files"]

    def _random(self) -> int:
        return min(RANDOM, self.rows // 20)

    def ours(self, name: str, mode: str = "mirror", profile: str = "", *, compact: bool = True) -> Sample:
        """What the raw log of a lake holds beyond it, folded in a fresh copy, which stays."""
        fresh = clone(self.place / name, self.place / "fresh")
        return measure.run(
            "ours:fold", store=str(fresh), table=TABLE, mode=mode, compact=compact, profile=profile
        )

    def read(self, *, through: bool) -> Sample:
        """The mirror that the last fold left."""
        return measure.run("ours:read", store=str(self.place / "fresh"), table=TABLE, through=through)

    def rewrite(self, name: str, parts: range, *, ordered: bool = False) -> Sample:
        """The same changes by hand."""
        shutil.rmtree(self.place / "base" / "rewritten", ignore_errors=True)
        return measure.run(
            "rewrites:rewrite", folder=str(self.place / "base"), changes=self._files[name],
            parts=list(parts), ordered=ordered, rows=self.rows,
        )  # fmt: skip

    def merge(self) -> Sample:
        """The same changes by `deltalake`."""
        fresh = clone(self.place / "base", self.place / "merged")
        return measure.run("rewrites:merge", folder=str(fresh), changes=self._files["ranged"], rows=self.rows)

    def grow(self, name: str, rows: int, batches: int, count: int) -> Sample:
        """One batch after the other into mirror and history."""
        fresh = clone(self.place / name, self.place / "grown")
        return measure.run("lakes:fold_batches", store=str(fresh), rows=rows, count=count, batches=batches)


def run(bench: Bench) -> None:
    """The rows fold_* and history_growth."""
    fold = Fold(bench)
    fold.seed()
    _ranged(bench, fold)
    _random(bench, fold)
    _growth(bench, fold)
    shutil.rmtree(fold.place)


def _ranged(bench: Bench, fold: Fold) -> None:
    jobs: dict[str, Callable[[], Sample]] = {
        "ours": partial(fold.ours, "ranged"),
        "sql": partial(fold.rewrite, "ranged", TOUCHED),
        "sql ordered": partial(fold.rewrite, "ranged", TOUCHED, ordered=True),
        "deltalake": fold.merge,
        "with history": partial(fold.ours, "ranged", "history"),
    }
    samples = bench.rounds(jobs)
    ours, sql, merged = samples["ours"], samples["sql"], samples["deltalake"]
    ordered = samples["sql ordered"]
    assert {s.facts["rows"] for s in ours} == {fold.changes}
    assert {s.facts["num_target_rows_deleted"] for s in merged} == {fold.changes // 10}
    bench.report.rows += [
        make_row("fold_sql", ours, "CPU s", cpu, "DuckDB SQL, unordered", pairwise(sql, ours, cpu)),
        make_row("fold_sql_limit", sql, "CPU s", cpu),
        make_row("fold_sql_ordered", ours, "CPU s", cpu, "DuckDB SQL, by key", pairwise(ordered, ours, cpu)),
        make_row("fold_deltalake", ours, "s", seconds, "deltalake MERGE", pairwise(merged, ours, seconds)),
        make_row("fold_deltalake_peer", merged, "s", seconds),
        make_row("fold_with_history", samples["with history"], "s", seconds),
    ]
    profiled = fold.ours("ranged", profile="headwater")
    bench.report.profiles[f"fold of {fold.changes:,} changes (mirror)"] = profiled.facts["profile"]


def _random(bench: Bench, fold: Fold) -> None:
    jobs: dict[str, Callable[[], Sample]] = {
        "ours": partial(fold.ours, "random", "history", compact=False),
        "read through us": partial(fold.read, through=True),
        "read base": partial(fold.read, through=False),
        "rewrite": partial(fold.rewrite, "random", range(PARTS)),
    }
    samples = bench.rounds(jobs)
    ours, whole = samples["ours"], samples["rewrite"]
    through, base = samples["read through us"], samples["read base"]
    assert {s.facts["rows"] for s in through} == {s.facts["rows"] for s in whole}, "not the same table"
    bench.report.rows += [
        make_row("fold_random", ours, "s", seconds, "rewrite in SQL", pairwise(ours, whole, seconds)),
        make_row("fold_random_limit", whole, "s", seconds),
        make_row(
            "fold_random_read", through, "s", seconds, "base files alone", pairwise(through, base, seconds)
        ),
    ]


def _growth(bench: Bench, fold: Fold) -> None:
    # A hundredth of the smaller table: no batch of these makes a compaction due, in neither table.
    count = min(BATCH, fold.rows // 10 // 100)
    jobs: dict[str, Callable[[], Sample]] = {
        "a tenth": partial(fold.grow, "small", fold.rows // 10, BATCHES, count),
        "all": partial(fold.grow, "big", fold.rows, BATCHES, count),
    }
    samples = bench.rounds(jobs)
    big, small = samples["all"], samples["a tenth"]
    against = f"a table of {fold.rows // 10:,} rows"
    ratios = pairwise(big, small, seconds)
    bench.report.rows.append(
        make_row("history_growth", big, "s a batch", lambda s: s.seconds / BATCHES, against, ratios)
    )
    if bench.full:
        _thousand(bench, fold)


def _thousand(bench: Bench, fold: Fold) -> None:
    """1,000 batches of 1,000 changes, compacted by policy on the way."""
    sample = fold.grow("big", fold.rows, 1000, min(RANDOM, fold.rows // 2000))
    written = sample.facts["written"] / sample.facts["logged"]
    bench.report.rows += [
        make_row("fold_thousand", [sample], "s a batch", lambda s: s.seconds / 1000),
        make_row("fold_thousand_written", [sample], "bytes / raw byte", lambda _: written),
    ]
