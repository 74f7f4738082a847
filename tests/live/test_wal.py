"""The log that piles up on the server: forecast while nobody reads, and well again when it was read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headwater.demo.server import EmbeddedPostgres
from headwater.sources.postgres import PostgresSource
from live.pipelines import Runner, stop
from servers import wait_for

pytestmark = pytest.mark.live

SETUP = """
create table t (id int primary key, v int);
insert into t select n, n from generate_series(1, 100) n;
create table busy (what text);
alter table busy alter column what set storage external;
"""
#: About 12 MB of log that the publication leaves out.
BURST = "insert into busy select repeat('x', 8000) from generate_series(1, 1400)"


def start(pg_own: Callable[..., EmbeddedPostgres], folder: Path, **settings: str) -> tuple[Any, Runner]:
    server = pg_own(15, **settings)
    con = psycopg.connect(server.url, autocommit=True)
    con.execute(SETUP)
    runner = Runner(folder / "p", server.url, tables=("public.t",), warehouse=False)
    runner.run("run")
    return con, runner


def test_a_stopped_pipeline_is_warned_of_and_recovers(
    pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    con, runner = start(pg_own, tmp_path, max_slot_wal_keep_size="64MB")
    assert runner.json("status")["wal"]["level"] == "ok"
    levels = []
    for _ in range(5):
        con.execute(BURST)
        status = runner.json("status")
        levels.append(status["wal"]["level"])
    late = time.monotonic() + 30
    while levels[-1] != "critical" and time.monotonic() < late:  # a rate takes two looks some seconds apart
        time.sleep(0.5)
        status = runner.json("status")
        levels.append(status["wal"]["level"])
    assert levels[-1] == "critical" and status["wal"]["room_bytes"] < 24 << 20, status["wal"]
    assert status["source"]["wal_status"] in ("reserved", "extended")
    text = runner.run("status").stdout
    assert "log critical: the source keeps" in text and "try: headwater run" in text
    # Capture drains; what was near is in its record, and the server lets go.
    record = runner.json("run")
    assert "of log for this pipeline" in record["warnings"][0]
    con.execute("checkpoint; update t set v = v + 1")
    runner.run("run")
    con.execute("checkpoint")
    runner.run("run")
    after = runner.json("status")["wal"]
    assert (after["level"], after["says"]) == ("ok", "")
    assert after["retained_bytes"] < 16 << 20


def test_a_follower_tells_of_it_and_keeps_it_short(
    pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    con, runner = start(pg_own, tmp_path)
    before = runner.json("status")["entries"]
    follower = runner.start("run", "--follow", "--json")
    wait_for(lambda: bool(runner.json("status")["holder"]), "the follower to hold the pipeline")
    for _ in range(6):
        con.execute(BURST)
        time.sleep(0.5)
    con.execute("checkpoint; update t set v = v + 1 where id = 1")
    wait_for(lambda: runner.json("status")["entries"] > before, "an entry", 60)
    wait_for(lambda: runner.json("status")["behind_bytes"] < 1 << 20, "the follower to catch up", 60)
    assert stop(follower) == 0, (runner.folder / "follow.log").read_text()
    status = runner.json("status")
    # An entry for a segment's worth of log that brings nothing, not one for each look.
    assert status["entries"] - before <= 8
    assert status["wal"]["level"] == "ok"


def test_what_else_holds_the_log_is_named(
    pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.sources.postgres import holders

    con, runner = start(pg_own, tmp_path)
    monkeypatch.setattr(holders, "OLD_SECONDS", 0)
    url = con.info.dsn
    con.execute("select pg_create_physical_replication_slot('standby', true)")
    con.execute("begin; insert into busy values ('prepared'); prepare transaction 'left_behind'")
    slot = con.execute("select slot_name from pg_replication_slots where plugin = 'pgoutput'").fetchone()[0]
    password = {"password": con.info.password}
    with psycopg.connect(url, application_name="report", **password) as other:
        other.execute("insert into busy values ('open')")
        source = PostgresSource(
            url=url, slot=slot, publication="headwater_soak", wal_budget="1GiB", **password
        )
        facts = source.facts()
        source.close()
        pid = other.info.backend_pid
    assert f"a transaction of process {pid} (postgres, report)" in str(facts["held_by"])
    assert "the prepared transaction left_behind" in str(facts["held_by"])
    assert "the slot standby, which nobody reads" in str(facts["held_by"])
    assert f"pg_terminate_backend({pid})" in str(facts["release"])
    assert facts["wal_budget"] == 1 << 30
    assert int(facts["wal_on_disk"] or 0) >= 16 << 20


def test_a_role_that_sees_little_gets_what_it_may_see(
    pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    con, runner = start(pg_own, tmp_path)
    con.execute("create role few login replication password 'few'")
    slot = con.execute("select slot_name from pg_replication_slots").fetchone()[0]
    source = PostgresSource(
        host=con.info.host, port=con.info.port, user="few", password="few", dbname=con.info.dbname,
        sslmode="disable", slot=slot, publication="headwater_soak",
    )  # fmt: skip
    facts = source.facts()
    source.close()
    assert facts["wal_on_disk"] is None and facts["held_by"] is None
    assert isinstance(facts["retained_bytes"], int) and isinstance(facts["log_end_bytes"], int)


def test_a_lost_slot_is_critical(pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path) -> None:
    con, runner = start(pg_own, tmp_path, max_slot_wal_keep_size="32MB")
    for _ in range(6):
        con.execute(BURST)
        con.execute("select pg_switch_wal()")
        con.execute("checkpoint")
    status = runner.json("status")
    assert (status["source"]["wal_status"], status["wal"]["level"]) == ("lost", "critical")
    assert "headwater run --full" in status["wal"]["hint"]
