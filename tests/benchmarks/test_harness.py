"""The harness measures what it says: a tiny run gives every figure, and a job's cost is the job's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from benchmarks import measure, report
from benchmarks.bench import BINARIES, Bench
from benchmarks.lakes import pick_random, pick_range
from benchmarks.measure import JobFailed, Sample
from benchmarks.report import BEGIN, END, TARGETS, Report, Row, make_row, pairwise
from benchmarks.rewrites import PARTS, TOUCHED, part_of
from servers import need


def run_bench(tmp_path: Path, *words: str) -> dict[str, dict[str, Any]]:
    """A tiny run in a process of its own; the rows of bench.json by name."""
    need(BINARIES.exists(), "make setup  (PostgreSQL 15)")
    command = [sys.executable, "-m", "benchmarks", "--repeats", "1", "--out", str(tmp_path), *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads((tmp_path / "bench.json").read_text())
    for row in rows:
        assert list(row) == ["name", "value", "unit", "against", "ratio", "cpu_s", "peak_mb"]
        assert row["value"] > 0, row
    assert not list(tmp_path.glob("bench-*/")), "the run left its folder"
    return {row["name"]: row for row in rows}


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ("cdc", {"cdc_insert", "cdc_mixed_default", "cdc_mixed_full"}),
        ("full,memory", {"full_copy", "memory_transaction", "memory_snapshot"}),
        ("fold", {"fold_sql", "fold_deltalake", "fold_random", "fold_random_read", "history_growth"}),
        ("freshness,idle", {"freshness_p50", "freshness_p99", "idle_run"}),
    ],
)
def test_a_tiny_run_gives_every_figure(tmp_path: Path, parts: str, names: set[str]) -> None:
    rows = run_bench(tmp_path, "--only", parts, "--scale", "0.002", "--no-peers")
    assert {name for name in rows if name in TARGETS} == names
    for name in names:
        assert rows[name]["ratio"] > 0 and rows[name]["against"] and rows[name]["cpu_s"] > 0
        assert rows[name]["peak_mb"] > 20
    written = Report.load(tmp_path)
    assert "FAILED" not in " ".join(written.notes)


def test_the_parts_give_all_that_is_asked_for() -> None:
    """The cases above and the peers' two rows are the whole list of targets."""
    cases = next(m for m in test_a_tiny_run_gives_every_figure.pytestmark if m.name == "parametrize").args[1]
    given = set().union(*(names for _, names in cases))
    assert given | {"cdc_debezium", "full_peer"} == set(TARGETS)


def test_a_job_is_charged_its_block_and_its_whole_tree() -> None:
    sample = measure.run("trial:spend", megabytes=150, seconds=0.4)
    assert 0.8 <= sample.cpu_s < 1.5
    assert sample.seconds >= sample.cpu_s * 0.9
    assert 300 < sample.peak_mb < 450
    assert sample.facts == {"kept": 150 << 20}


def test_a_job_that_fails_says_why() -> None:
    with pytest.raises(JobFailed, match=r"(?s)break_down.*no such table"):
        measure.run("trial:break_down")


def test_a_profile_names_the_function_that_is_busy() -> None:
    shares = measure.run("trial:burn", profile="benchmarks", seconds=0.5).facts["profile"]
    assert (shares[0]["function"], shares[0]["waits"]) == ("benchmarks.trial._burn", False)
    assert shares[0]["share"] > 0.9
    waiting = measure.run("trial:wait", profile="benchmarks").facts["profile"][0]
    assert (waiting["function"], waiting["waits"]) == ("benchmarks.trial.wait", True)


def test_jobs_take_turns(tmp_path: Path) -> None:
    turns: list[str] = []

    def job(name: str) -> Sample:
        turns.append(name)
        return Sample(len(turns), 1.0, 1.0)

    bench = Bench(tmp_path, repeats=2)
    samples = bench.rounds({"a": lambda: job("a"), "b": lambda: job("b")})
    assert turns == ["a", "b", "a", "b"]
    assert [s.seconds for s in samples["a"]] == [1, 3]


def test_a_row_has_medians_spread_and_the_ratio_within_rounds() -> None:
    ours = [Sample(2.0, 1.0, 10.0), Sample(4.0, 3.0, 30.0), Sample(8.0, 2.0, 20.0)]
    limit = [Sample(1.0, 1.0, 1.0), Sample(1.0, 1.0, 1.0), Sample(8.0, 1.0, 1.0)]
    rate = report.per_second(80)
    row = make_row("cdc_insert", ours, "changes/s", rate, "the limit", pairwise(ours, limit, rate))
    assert (row.value, row.ratio, row.cpu_s, row.peak_mb) == (20.0, 0.5, 2.0, 30.0)
    assert row.spread == (40 - 10) / 20
    assert row.met is False


@pytest.mark.parametrize(
    ("name", "ratio", "met"),
    [
        ("cdc_insert", 0.9, True), ("cdc_insert", 0.89, False), ("fold_random", 0.02, True),
        ("fold_random", 0.021, False), ("cdc_small", 0.1, None), ("cdc_debezium", None, None),
    ],
)  # fmt: skip
def test_a_target_is_met_or_not(name: str, ratio: float | None, met: bool | None) -> None:
    assert Row(name, 1.0, "s", "x", ratio).met is met


def test_the_page_gets_the_figures_and_keeps_its_words(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    profiles = {"a run": [{"thread": "MainThread", "function": "f", "waits": True, "share": 0.25}]}
    written = Report(
        {"machine": "2 cores"}, [Row("idle_run", 0.25, "s", "0.3 s", 0.83)], ["a note"], profiles
    )
    written.save(tmp_path)
    report.write_page(Report.load(tmp_path), page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert "- machine: 2 cores" in text and "- a note" in text
    assert "| `idle_run` | 0.25 | s | 0% | 0.3 s | 0.83 | <= 1 met | 0.00 | 0 |" in text
    assert "| MainThread | `f` (waits) | 25% |" in text
    again = page.read_text()
    report.write_page(Report.load(tmp_path), page)
    assert page.read_text() == again


def test_the_page_tells_what_each_target_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    before = page[: page.index(BEGIN)]
    assert {name for name in TARGETS if f"`{name}`" not in before} == set()


def test_batches_of_one_lake_never_meet_a_deleted_row() -> None:
    dice, gone, made = np.random.default_rng(5), set(), set()
    for turn in range(4):
        ids, ops = pick_random(1000, 100, dice, turn, 4)
        chosen = {op: set(ids[ops == op].tolist()) for op in "ucd"}
        assert [len(chosen[op]) for op in "ucd"] == [80, 10, 10]
        assert all(key % 2 == 0 for key in chosen["u"] | chosen["d"]) and all(key % 2 for key in chosen["c"])
        assert not gone & (chosen["u"] | chosen["d"]) and not made & chosen["c"]
        gone |= chosen["d"]
        made |= chosen["c"]


def test_changes_of_a_range_lie_in_the_parts_that_are_rewritten() -> None:
    rows = 5123
    ids, _ = pick_range(rows, 200, np.random.default_rng(5))
    con = duckdb.connect()
    parts = con.sql(f"SELECT {part_of(rows)} FROM (SELECT unnest({ids.tolist()}) AS id)").fetchall()
    assert {part for (part,) in parts} == set(TOUCHED)
    first = [rows * part // PARTS * 2 for part in range(PARTS)]
    assert con.sql(f"SELECT {part_of(rows)} FROM (SELECT unnest({first}) AS id)").fetchall() == [
        (part,) for part in range(PARTS)
    ]


def test_a_page_without_its_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("words\n")
    with pytest.raises(ValueError, match="markers"):
        report.write_page(Report({}), page)
