"""pgbench writes while we capture, and while we are killed: nothing lost, nothing twice, history exact.

The long forms of the issue: HEADWATER_SOAK=60 (seconds of load), HEADWATER_KILLS=200.
"""

import os
import random
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from headwater import Pipeline
from live.pipelines import Runner, kill_after, stop
from live.workload import prepare, start_load
from servers.postgres import Database

SECONDS = int(os.environ.get("HEADWATER_SOAK", "8"))
KILLS = int(os.environ.get("HEADWATER_KILLS", "8"))
SEED = int(os.environ.get("HEADWATER_SEED", str(random.randrange(1 << 30))))

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(3600)]


def check_everything(pg: Database, runner: Runner) -> None:
    """Source = lake = warehouse; every version in its order; every change once in the raw log."""
    report = runner.run("verify")
    assert report.stdout.splitlines()[-1].endswith("tables equal"), report.stdout
    truth: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    for key, *version in pg.run("select id, op, v, note, big from audit order by n"):
        truth[key].append(tuple(version))
    with runner.open() as pipeline:
        told, logged = read_history(pipeline), read_raw(pipeline)
    for key, versions in truth.items():
        assert told[key] == [values for op, *values in versions if op == "c"], f"history of {key}"
        loaded = 1 if key <= 500 else 0  # the row that the full load read
        assert logged[key] == [op for op, *_ in versions][loaded:], f"raw changes of {key}"


def read_history(pipeline: Pipeline) -> dict[int, list[list[object]]]:
    """Every version of every key of `acct`, in order."""
    told: dict[int, list[list[object]]] = defaultdict(list)
    rows = pipeline.history("public.acct").project("_hw_seq, id, v, note, md5(big)").order("_hw_seq")
    for _, key, *values in rows.fetchall():
        told[key].append(values)
    return told


def read_raw(pipeline: Pipeline) -> dict[int, list[str]]:
    """The kind of every logged change of every key of `acct`, in order."""
    log, seen = pipeline.parts.log, []
    for ref in (ref for entry in log.entries() for ref in entry.batches):
        if ref.rows and ref.phase == "changes" and ref.table.name == "acct":
            for row in pq.read_table(log.fetch(ref), columns=["id", "_hw_op", "_hw_seq"]).to_pylist():
                seen.append((row["_hw_seq"], row["id"], "d" if row["_hw_op"] == "d" else "c"))
    assert len({seq for seq, _, _ in seen}) == len(seen)
    logged: dict[int, list[str]] = defaultdict(list)
    for _, key, op in sorted(seen):
        logged[key].append(op)
    return logged


def test_follow_under_load(pg: Database, tmp_path: Path) -> None:
    prepare(pg)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    load = start_load(pg, tmp_path, SECONDS)
    follower = runner.start("run", "--follow")
    load.wait()
    assert stop(follower, 300) == 0, (runner.folder / "follow.log").read_text()
    check_everything(pg, runner)


@pytest.mark.crash
def test_killed_at_random_instants(pg: Database, tmp_path: Path) -> None:
    print(f"HEADWATER_SEED={SEED}")
    chance = random.Random(SEED)
    prepare(pg)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    load = start_load(pg, tmp_path, 10 * KILLS, rate=150)
    for _ in range(KILLS):
        kill_after(
            runner.start("run", "--follow"), chance.uniform(0.2, 4.0) if chance.random() < 0.8 else 8.0
        )
    load.terminate()
    load.wait()
    started = time.monotonic()
    runner.run("run")
    print(f"caught up in {time.monotonic() - started:.1f} s after {KILLS} kills")
    check_everything(pg, runner)
