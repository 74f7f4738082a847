"""Runs in a process of their own: paused, resumed, stopped, killed, and left alone by their parent."""

import subprocess
import sys
from pathlib import Path

import pytest

from headwater import Pipeline
from headwater.background import Background
from headwater.errors import ConfigError, Conflict
from headwater.events.gauges import Gauges
from servers import wait_for
from servers.postgres import Database

pytestmark = pytest.mark.live


def write(folder: Path, pg: Database, port: int | None = None) -> Path:
    (folder / "password").write_text(pg.server.password)
    path = folder / "headwater.yml"
    path.write_text(f"""
pipeline: behind
source: {{kind: postgres, host: 127.0.0.1, port: {port or pg.server.port}, user: postgres, dbname: {pg.name},
  password: "file:password", sslmode: disable}}
store: ./lake
tables: [public.*]
""")
    return path


def rows(path: Path, table: str = "public.t") -> int:
    with Pipeline.open(path) as pipeline:
        return int(pipeline.table(table).shape[0])


def make(pg: Database) -> None:
    pg.run("create table t (id int primary key); insert into t select generate_series(1, 1000)")


def test_a_run_ends_by_itself_with_its_record(pg: Database, tmp_path: Path) -> None:
    make(pg)
    gauges = Gauges()
    behind = Background(write(tmp_path, pg), [gauges])
    behind.start("run")
    with pytest.raises(Conflict):
        behind.start("run")
    assert behind.wait(60) and behind.state == "idle" and behind.failure is None
    assert behind.last is not None and behind.last.outcome == "done"
    assert gauges.counts() == (1, 1000) and rows(behind.path) == 1000
    with pytest.raises(ConfigError, match="no run mode"):
        behind.start("other")  # type: ignore[arg-type]


def test_a_follower_is_paused_resumed_and_stopped(pg: Database, tmp_path: Path) -> None:
    make(pg)
    gauges = Gauges()
    behind = Background(write(tmp_path, pg), [gauges])
    behind.start("follow")
    wait_for(lambda: gauges.drained_at is not None, "the source to be read")
    behind.pause()
    assert behind.state == "pausing" and behind.wait(60) and behind.state == "paused"
    pg.run("insert into t values (2001)")
    behind.resume()
    wait_for(lambda: gauges.counts() == (1, 1), "the row of the pause")
    with pytest.raises(Conflict, match="pid|process|held|runs"), Pipeline.open(behind.path) as pipeline:
        pipeline.run()
    behind.stop()
    assert behind.wait(60) and behind.state == "idle" and behind.failure is None
    assert rows(behind.path) == 1001


def test_a_full_load_that_was_paused_reads_what_it_had_not_begun(pg: Database, tmp_path: Path) -> None:
    make(pg)
    for n in range(4):
        pg.run(f"create table u{n} (id int primary key, v text)")
        pg.run(f"insert into u{n} select n, repeat(md5(n::text), 9) from generate_series(1, 30000) n")
    path = write(tmp_path, pg)
    with Pipeline.open(path) as pipeline:
        pipeline.run()
        before = {t: s.epoch for t, s in pipeline.parts.log.tables().items()}
    gauges = Gauges()
    behind = Background(path, [gauges])
    behind.start("full")
    wait_for(lambda: gauges.counts()[0] > 0, "the first table")
    behind.pause()
    assert behind.wait(60)
    if behind.state == "paused":
        behind.resume()
        assert behind.wait(60)
    assert behind.state == "idle" and behind.failure is None
    with Pipeline.open(path) as pipeline:
        now = {t: s.epoch for t, s in pipeline.parts.log.tables().items()}
        assert all(now[t] > epoch for t, epoch in before.items()), "a table was not read again"
        assert pipeline.verify().equal


def test_what_failed_is_said_with_what_to_do(pg: Database, tmp_path: Path) -> None:
    behind = Background(write(tmp_path, pg, port=1), [])
    behind.start("run")
    assert behind.wait(60) and behind.state == "idle"
    assert behind.failure is not None and "127.0.0.1" in behind.failure.message and behind.failure.hint


def test_killed_it_blocks_nobody(pg: Database, tmp_path: Path) -> None:
    make(pg)
    gauges = Gauges()
    behind = Background(write(tmp_path, pg), [gauges])
    behind.start("follow")
    wait_for(lambda: gauges.drained_at is not None, "the source to be read")
    assert behind._process is not None
    behind._process.kill()
    assert behind.wait(60) and behind.failure is not None and "-9" in behind.failure.message
    behind.start("run")
    assert behind.wait(60) and behind.last is not None and behind.last.outcome == "done"


def test_it_stops_when_its_parent_is_gone(pg: Database, tmp_path: Path) -> None:
    make(pg)
    path = write(tmp_path, pg)
    code = f"""
import os, time
from headwater.background import Background
from headwater.events.gauges import Gauges
gauges = Gauges()
behind = Background({str(path)!r}, [gauges])
behind.start("follow")
while gauges.drained_at is None:
    time.sleep(0.05)
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 9
    with Pipeline.open(path) as pipeline:
        wait_for(lambda: not pipeline.pulse().holder, "the run to end by itself")
        pulse = pipeline.pulse()
    assert pulse.behind_bytes is not None and pulse.read_until is not None and pulse.wal is not None
    assert rows(path) == 1000
