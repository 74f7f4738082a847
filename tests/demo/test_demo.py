"""The demo for real: a first run, a second over what it left, and every command that it says to type next."""

import fcntl
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headwater import Pipeline
from headwater.demo.show import run_demo
from headwater.demo.workload import NEW_TAIL, OLD_TAIL, TRANSACTIONS
from headwater.errors import ConfigError, Conflict

pytestmark = [pytest.mark.live, pytest.mark.slow]

FLIGHTS, WEATHER = 336_776, 26_115


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headwater", "demo", *words],
        cwd=folder, check=False, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a place with 'quotes'")


@pytest.fixture(scope="module")
def first(place: Path) -> list[str]:
    """The lines of a first run."""
    done = demo(place)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def second(place: Path, first: Sequence[str]) -> Any:
    """The document of a second run over what the first left."""
    assert first
    done = demo(place, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_it_ends_with_the_proof(first: Sequence[str]) -> None:
    assert first[-1] == "verify: 6 tables equal"
    start = next(
        n for n, line in enumerate(first) if line.split() == ["table", "source", "lake", "warehouse"]
    )
    compared = [line.split() for line in first[start + 1 : start + 7]]
    assert all(len(set(sides)) == 1 for _, *sides in compared)
    assert dict((name, source) for name, source, *_ in compared)["nyc.flights"] == "336,357"
    assert not any("\x1b" in line for line in first), "colours in a file"


def test_it_runs_again_over_what_it_left(second: Any, place: Path) -> None:
    assert second["verify"]["equal"]
    assert {s["name"] for s in second["stages"]} >= {"full load", "delta", "dbt build", "verify"}
    left = {p.name for p in (place / "headwater-demo").iterdir()}
    assert left == {".headwater-demo", "headwater.yml", "server-password", "lake", "dbt", "warehouse.duckdb"}


def test_what_it_says_to_type_next_works(second: Any, place: Path) -> None:
    said = []
    for what, command in second["next"]:
        done = subprocess.run(
            command, shell=True, cwd=place, check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{what}: {command}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    assert len(said) == 3
    assert OLD_TAIL in said[0] and NEW_TAIL in said[0] and "the key changes" in said[0]
    assert re.search(rf"{NEW_TAIL}.*true", said[1]) and re.search(rf"{OLD_TAIL}.*false", said[1])
    assert "6 of 6 loaded" in said[2]


@pytest.fixture(scope="module")
def pipeline(second: Any, place: Path) -> Iterator[Pipeline]:
    assert second
    with Pipeline.open(place / "headwater-demo" / "headwater.yml") as opened:
        yield opened


def test_every_statement_is_in_the_log_once(second: Any, pipeline: Pipeline) -> None:
    rows: Counter[tuple[str, str]] = Counter()
    for deed in second["deeds"]:
        if not deed["undone"]:
            rows[deed["table"], deed["op"]] += deed["rows"]
    assert rows["flights", "insert"] > 0 < rows["weather", "insert"]

    def changes(table: str) -> dict[str, int]:
        found = pipeline.changes(f"nyc.{table}").aggregate("_hw_op, count(*)").fetchall()
        return {op: count for op, count in found if op != "r"}

    assert changes("flights") == {
        "c": rows["flights", "insert"], "u": rows["flights", "update"], "d": rows["flights", "delete"],
    }  # fmt: skip
    assert changes("planes") == {"c": 1, "d": 1}
    assert changes("weather") == {"d": WEATHER, "c": rows["weather", "insert"]}
    flights = pipeline.table("nyc.flights").aggregate("count(*)").fetchall()[0][0]
    assert flights == FLIGHTS + rows["flights", "insert"] - rows["flights", "delete"]


def test_a_long_text_that_did_not_change_is_whole_in_every_version(pipeline: Pipeline) -> None:
    measures = "id, count(*) AS versions, count(DISTINCT remark) AS texts, min(length(remark)) AS length"
    found = pipeline.history("nyc.remarks").aggregate(measures).filter("versions > 1").fetchall()
    assert found
    assert all((versions, texts, length) == (2, 1, 6400) for _, versions, texts, length in found)
    longest = pipeline.table("nyc.remarks").aggregate("max(length(remark))").fetchall()
    assert longest == [(60_000 * 32,)]


def test_a_default_of_a_new_column_reaches_rows_that_nobody_touched(pipeline: Pipeline) -> None:
    served = dict(pipeline.table("nyc.airports").aggregate("served, count(*)").fetchall())
    assert set(served) == {True, False} and sum(served.values()) == 1458


def test_the_work_covers_what_it_promises() -> None:
    ops = {deed.op for deeds in TRANSACTIONS for deed in deeds}
    assert ops == {"insert", "update", "delete", "key", "truncate", "alter"}
    assert any(deed.undone for deeds in TRANSACTIONS for deed in deeds)


def test_it_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        run_demo(tmp_path, print)
    with pytest.raises(ConfigError, match="not empty"):
        run_demo(tmp_path / "lake" / "mine", print)
    assert (tmp_path / "lake" / "mine").read_text() == "mine"


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with (tmp_path / ".headwater-demo").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another demo"):
            run_demo(tmp_path, print)
    assert os.listdir(tmp_path) == [".headwater-demo"]
