"""Scheduled runs that fail, and go on: the result says what was done, and the copy equals the source."""

import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest

from headwater import Pipeline
from headwater.errors import HeadwaterError, StorageError
from headwater.events import Event
from headwater.schedule import MODES, run_scheduled
from headwater.schedule.watch import Watch
from headwater.state import hold
from notebooks.conftest import NOTEBOOKS, SCHEMA, Place
from servers.postgres import Database
from servers.proxy import TcpProxy

pytestmark = pytest.mark.live


@pytest.fixture
def place(pg: Database, tmp_path: Path) -> Place:
    pg.run(SCHEMA)
    return Place(tmp_path / "work", pg)


def steps(result: Any) -> dict[str, str]:
    return {step["step"]: step["did"] for step in result["steps"]}


def attempt(place: Place, mode: str = "auto", **given: Any) -> Any:
    """One attempt in this process; the document that it left."""
    log = io.StringIO()
    path = place.folder / "runs" / "result.json"
    run_scheduled(place.path, mode, result=path, log=log, **given)
    found = json.loads(path.read_text())
    return found | {"log": log.getvalue()}


def papermill(place: Place, name: str, *words: str, **environment: str) -> tuple[int, Any, str]:
    """The notebook as cron runs it: exit code, result, log."""
    runs = place.folder / "runs"
    runs.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOKS / "scheduled_run.ipynb"), f"runs/{name}.ipynb",
         "-p", "result", f"runs/{name}.json", *words, "--log-output", "--no-progress-bar"],
        cwd=place.folder, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, json.loads((runs / f"{name}.json").read_text()), done.stdout + done.stderr


def equal(place: Place) -> bool:
    with Pipeline.open(place.path) as pipeline:
        return pipeline.verify().equal


def test_a_full_load_that_failed_goes_on_under_papermill(place: Place) -> None:
    """Another program has the warehouse open; once it lets go, what is left is dbt alone."""
    place.write("warehouse: duckdb:///warehouse.duckdb", "mode: mirror", tables="nyc.airlines")
    locked = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", locked, str(place.folder / "warehouse.duckdb")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        code, result, said = papermill(place, "first", "-p", "mode", "full")
    finally:
        other.communicate()
    assert code == 1 and result["outcome"] == "failed"
    assert steps(result) == {"capture": "ran", "fold": "ran", "build": "failed"}
    assert result["error"]["step"] == "build" and result["error"]["kind"] == "WarehouseError"
    assert "nyc.airlines: 16 rows read" in said and "try: close the other program" in said
    code, result, said = papermill(place, "second", "-p", "mode", "full")
    assert code == 0, said
    assert steps(result) == {"capture": "already done", "fold": "already done", "build": "ran"}
    assert result["outcome"] == "done" and result["rows_read"] == 0 and result["tables_begun_before"] == 1
    assert result["resumes"]["step"] == "build" and "cannot be opened" in result["resumes"]["error"]
    assert "goes on with run" in said and "dbt: 2 models built" in said
    assert equal(place)
    assert place.database.server.password not in said + (place.folder / "runs" / "second.ipynb").read_text()


def test_a_full_load_that_failed_in_the_middle_reads_only_what_is_left(place: Place) -> None:
    place.database.run("create table nyc.zones (id int primary key); insert into nyc.zones values (1)")
    assert attempt(place)["outcome"] == "done"
    with Pipeline.open(place.path) as pipeline:
        before = {str(t): s.epoch for t, s in pipeline.parts.log.tables().items()}
    child = """
from headwater import capture
from headwater.events import Event
from headwater.schedule import MODES, run_scheduled
from headwater.schedule.watch import Watch
capture.ENTRY_BYTES = 1  # an entry for each table, as big ones have
run_scheduled("headwater.yml", "full", result="runs/killed")
"""
    killed = subprocess.run(
        [sys.executable, "-c", child], cwd=place.folder,
        env={**os.environ, "HEADWATER_FAILPOINT": "entry.after:1"}, 
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    left = json.loads((place.folder / "runs" / "killed").read_text())
    assert left["outcome"] == "running" and left["ended_at"] is None
    with Pipeline.open(place.path) as pipeline:
        then = {str(t): s.epoch for t, s in pipeline.parts.log.tables().items()}
    begun = [name for name, epoch in then.items() if epoch > before[name]]
    assert 0 < len(begun) < len(before), "the kill was to come in the middle"
    result = attempt(place, "full")
    assert result["outcome"] == "done" and result["tables_begun_before"] == len(begun)
    assert result["resumes"]["step"] == "capture" and result["resumes"]["error"] == ""
    with Pipeline.open(place.path) as pipeline:
        now = {str(t): s.epoch for t, s in pipeline.parts.log.tables().items()}
    assert now == {name: epoch + 1 for name, epoch in before.items()}, "read twice, or not at all"
    assert equal(place)
    # The next one has nothing to go on with, so it reads everything.
    assert attempt(place, "full")["rows_read"] == 16 + 2000 + 1


def test_what_was_read_goes_on_while_the_source_is_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TcpProxy(place.database.server.port) as proxy:
        place.write(port=proxy.port)
        with monkeypatch.context() as patch:
            patch.setattr("headwater.deliver.refresh", broken)
            failed = attempt(place)
        assert steps(failed) == {"capture": "ran", "fold": "failed"}
        assert failed["error"]["kind"] == "StorageError" and failed["rows_read"] == 2016
    away = attempt(place)  # the proxy is gone
    assert away["outcome"] == "failed" and away["error"]["kind"] == "SourceError"
    assert steps(away)["fold"] == "ran"
    with Pipeline.open(place.path) as pipeline:
        assert pipeline.table("nyc.flights").shape[0] == 2000
    place.write()
    again = attempt(place)
    assert again["outcome"] == "done" and again["resumes"] is not None
    assert equal(place)


def broken(*_: object, **__: object) -> Iterator[None]:
    raise StorageError("the disk is full", hint="make room")


def test_the_second_of_two_says_who_holds_the_pipeline(place: Place) -> None:
    with Pipeline.open(place.path) as pipeline, hold(pipeline.parts.state, "lab"):
        result = attempt(place)
    assert result["error"]["kind"] == "Conflict" and str(os.getpid()) in result["error"]["message"]
    assert steps(result) == {"capture": "not reached", "fold": "not reached"}
    assert attempt(place)["resumes"] is None, "an attempt that never ran left something"


def test_wrong_words_are_refused_with_a_result(place: Place) -> None:
    assert "one of: auto" in attempt(place, "sometimes")["error"]["hint"]
    assert attempt(place, "delta")["error"]["message"] == "pipeline lab has read no table yet"
    assert "takes no tables" in attempt(place, tables="nyc.flights")["error"]["message"]
    assert "nyc.flites" in attempt(place, "full", tables=["nyc.flites"])["error"]["message"]
    for odd in (7, {"nyc": 1}, [["nyc.*"]]):
        assert "tables are patterns" in attempt(place, "full", tables=odd)["error"]["message"]
    result = run_scheduled(place.folder / "absent.yml", result=place.folder / "r.json", log=io.StringIO())
    with pytest.raises(HeadwaterError, match="absent"):
        result.check()
    with pytest.raises(StorageError, match="cannot be written"):
        run_scheduled(place.path, result=place.path / "r.json", log=io.StringIO())


def test_single_tables_are_read_again_and_verified(place: Place) -> None:
    assert attempt(place)["rows_read"] == 2016
    assert attempt(place, "full", tables="nyc.airlines")["rows_read"] == 16
    good = attempt(place, "verify", tables=["nyc.airlines"])
    assert good["outcome"] == "done" and good["report"]["equal"] and steps(good)["compare"] == "ran"
    mirror = deltalake.DeltaTable(str(place.folder / "lake" / "lake" / "nyc.airlines" / "mirror"))
    mirror.update(predicate="carrier = 'A7'", new_values={"name": "someone else"})
    bad = attempt(place, "verify", tables=["nyc.airlines"])
    assert bad["error"]["kind"] == "VerifyFailed" and steps(bad)["compare"] == "failed"
    assert bad["error"]["hint"] == "headwater verify --table nyc.airlines"


def test_an_interrupt_is_a_failure_that_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """papermill interrupts a cell that takes too long."""

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headwater.deliver.refresh", stopped)
        result = attempt(place)
    assert result["outcome"] == "failed" and result["error"]["message"] == "stopped; nothing is lost"
    again = attempt(place)
    assert steps(again) == {"capture": "already done", "fold": "ran"} and again["resumes"]["step"] == "fold"


def test_a_full_load_that_failed_days_ago_begins_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("headwater.deliver.refresh", broken)
        assert attempt(place, "full")["rows_read"] == 2016
    with monkeypatch.context() as patch:
        patch.setattr("headwater.schedule.journal._CONTINUES", timedelta(0))
        anew = attempt(place, "full")
    assert anew["outcome"] == "done" and anew["rows_read"] == 2016 and anew["tables_begun_before"] == 0


def test_every_field_of_the_result_is_documented(place: Place) -> None:
    page = (NOTEBOOKS.parent / "docs" / "scheduling.md").read_text()
    result = attempt(place)
    assert set(result) - {"log"} <= set(re.findall(r"`(\w+)`", page))
    assert set(MODES) <= set(re.findall(r"`(\w+)`", page))
    assert result["outcome"] == "done" and result["to_position"] and result["behind_bytes"] is not None


def test_a_long_load_says_how_far_it_is_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 4)
    monkeypatch.setattr("headwater.schedule.watch.monotonic", lambda: float(next(clock)))
    log = io.StringIO()
    watch = Watch(log)
    for rows in range(1000, 9000, 1000):
        watch(
            Event(
                "load.progress",
                "shop",
                None,
                {"rows": rows, "total": 9000, "tables": 3, "loaded": 1, "eta": 300},
            )
        )
    lines = log.getvalue().splitlines()
    assert 2 <= len(lines) < 8 and lines[0].endswith("1 of 3 tables, 3,000 of ~9,000 rows, about 5 min left")
