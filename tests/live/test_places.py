"""The same pipeline in other places and in bad company: S3, a lost warehouse, two runners, a cut network."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import psycopg
import pytest

from headwater.demo.server import EmbeddedPostgres
from live.pipelines import Runner, stop
from servers import wait_for
from servers.postgres import Database
from servers.proxy import TcpProxy
from servers.s3 import Bucket

pytestmark = pytest.mark.live

SETUP = """
create table orders (id int primary key, total numeric(12, 2), note text);
insert into orders select n, n * 1.5, 'note ' || n from generate_series(1, 3000) n;
create table lines (order_id int, line int, sku text, primary key (order_id, line));
insert into lines select n, 1, 'sku' || n from generate_series(1, 3000) n;
"""
CHANGES = """
update orders set total = total + 1 where id % 3 = 0;
delete from lines where order_id % 5 = 0;
update orders set id = id + 100000 where id % 100 = 0;
insert into orders values (0, 'NaN', null);
truncate lines;
insert into lines values (1, 1, 'after');
"""


def test_store_on_a_real_s3_server(pg: Database, s3_real: Bucket, tmp_path: Path) -> None:
    pg.run(SETUP)
    store = {
        "url": f"s3://{s3_real.name}/some/prefix",
        "endpoint": s3_real.endpoint,
        "access_key_id": "env:LAKE_KEY",
        "secret_access_key": "env:LAKE_SECRET",
    }
    keys = {"LAKE_KEY": s3_real.key, "LAKE_SECRET": s3_real.secret}
    here = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    runner = Runner(tmp_path / "p", pg.url, store=store, environment={**keys, **here})
    runner.run("run")
    pg.run(CHANGES)
    runner.run("run")
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"
    # Neither cache nor state holds anything that the bucket does not.
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "state")
    (runner.folder / "warehouse.duckdb").unlink()
    pg.run("update orders set note = 'later' where id < 10")
    runner.run("run")
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"
    assert all(s3_real.secret not in key for key in [*s3_real.keys()])


def test_a_relation_goes_on_when_its_own_process_runs(pg: Database, s3: Bucket, tmp_path: Path) -> None:
    """A run gives back its copies of a bucket's files; a notebook that holds a relation still reads them."""
    pg.run(SETUP)
    store = {
        "url": s3.url, "endpoint": s3.endpoint, "access_key_id": "env:S3_KEY",
        "secret_access_key": "env:S3_SECRET",
    }  # fmt: skip
    given = {"S3_KEY": s3.key, "S3_SECRET": s3.secret, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    given["XDG_STATE_HOME"] = str(tmp_path / "state")
    runner = Runner(tmp_path / "p", pg.url, store=store, warehouse=False)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        with runner.open() as pipeline:
            pipeline.run()
            orders = pipeline.table("public.orders").order("id")
            before = orders.fetchall()
            pg.run(CHANGES)
            pipeline.run()
            assert orders.filter("id > 0").fetchall() == before
            assert len(pipeline.table("public.orders").fetchall()) == len(before) + 1


def test_a_lost_warehouse_is_built_again_and_an_idle_run_leaves_it_alone(
    pg: Database, tmp_path: Path
) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    pg.run(CHANGES)
    runner.run("run")
    warehouse = runner.folder / "warehouse.duckdb"
    before = warehouse.read_bytes()
    idle = runner.json("run")
    assert (idle["models_built"], idle["entries"]) == (0, 0)
    assert warehouse.read_bytes() == before
    warehouse.unlink()
    assert runner.json("run")["models_built"] > 0
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"


def test_an_idle_run_opens_neither_lake_nor_warehouse(pg: Database, tmp_path: Path) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    look = "import sys; from headwater import Pipeline; p = Pipeline.open(); p.run(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", look],
        cwd=runner.folder, env=runner.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert "headwater.sources.postgres.source" in loaded
    assert not {"duckdb", "deltalake", "dbt"} & loaded


def test_two_runners(pg: Database, tmp_path: Path) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url, warehouse=False)
    runner.run("run")
    follower = runner.start("run", "--follow")
    wait_for(lambda: bool(runner.json("status")["holder"]), "the follower to hold the pipeline")
    second = runner.run("run", ok=False)
    assert second.returncode == 1
    assert str(follower.pid) in second.stderr
    pg.run(CHANGES)
    assert stop(follower) == 0
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"


def test_network_cut_in_a_run_and_under_a_follower(pg: Database, tmp_path: Path) -> None:
    pg.run(SETUP)
    with TcpProxy(pg.server.port) as proxy:
        runner = Runner(tmp_path / "p", proxy.through(pg.url), warehouse=False)
        proxy.cut_after(60_000)
        cut = runner.run("run", ok=False)
        assert (cut.returncode, "Traceback" in cut.stderr) == (1, False), cut.stderr
        proxy.resume()
        runner.run("run")
        follower = runner.start("run", "--follow")
        pg.run(CHANGES)
        wait_for(lambda: runner.json("status")["entries"] > 1, "the follower's first entry", 60)
        proxy.cut()
        pg.run("update orders set note = 'while the line was cut'")
        time.sleep(1)
        proxy.resume()
        wait_for(lambda: "trying again" in (runner.folder / "follow.log").read_text(), "a retry", 60)
        time.sleep(3)
        assert stop(follower) == 0, (runner.folder / "follow.log").read_text()
        assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"


def test_the_database_crashes(pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path) -> None:
    server = pg_own(15, fsync="on")
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute(SETUP)
    runner = Runner(tmp_path / "p", server.url, warehouse=False)
    runner.run("run")
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute(CHANGES)
    runner.run("run")
    server.kill9()
    away = runner.run("run", ok=False)
    assert away.returncode == 1
    assert "try:" in away.stderr
    server.start()
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute("update orders set note = 'after the crash' where id < 100")
    again = runner.json("run")
    assert again["tables"]["public.orders"]["rows_in"] == 100
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"


def test_a_column_added_with_a_default_and_no_change_after_it(pg: Database, tmp_path: Path) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    pg.run("alter table orders add column region text default 'eu'")
    pg.run("alter table lines rename column sku to article")
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"
    pg.run("update orders set region = 'us' where id = 1; alter table orders add column plain int")
    pg.run("alter table orders alter column total type text using 'EUR ' || total")
    pg.run("update orders set plain = 1 where id = 2; alter table orders drop column note")
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"
    with runner.open() as pipeline:
        rows = (
            pipeline.table("orders")
            .filter("id < 3")
            .project("id, total, region, plain")
            .order("id")
            .fetchall()
        )
    assert rows == [(1, "EUR 1.50", "us", None), (2, "EUR 3.00", "eu", 1)]


def test_a_lost_slot_is_a_named_error_and_full_goes_on(pg: Database, tmp_path: Path) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    pg.run(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
        " where database = current_database()"
    )
    pg.run("update orders set note = 'unseen' where id = 1; delete from orders where id = 2")
    lost = runner.run("run", ok=False)
    assert (lost.returncode, "headwater run --full" in lost.stderr) == (1, True), lost.stderr
    pg.run("update orders set note = 'seen' where id = 3")
    assert "changes are missing from the log" in runner.json("run", "--full")["warnings"][0]
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"
    with runner.open() as pipeline:
        rows = (
            pipeline.history("orders")
            .filter("id <= 3")
            .order("id, valid_from")
            .project("id, note, is_current")
        )
        assert rows.fetchall() == [
            *((1, "note 1", False), (1, "unseen", True)),
            (2, "note 2", False),
            *((3, "note 3", False), (3, "seen", True)),
        ]


def test_a_follower_goes_on_while_somebody_holds_the_warehouse(pg: Database, tmp_path: Path) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    before = runner.json("status")["entries"]
    with duckdb.connect(str(runner.folder / "warehouse.duckdb")):
        follower = runner.start("run", "--follow")
        pg.run(CHANGES)
        log = runner.folder / "follow.log"
        wait_for(lambda: "trying again in" in log.read_text(), "a build that fails", 90)
        pg.run("update orders set note = 'meanwhile' where id = 1")
        wait_for(lambda: runner.json("status")["entries"] > before + 1, "capture to go on", 60)
        wait_for(lambda: read_note(runner) == [("meanwhile",)], "the lake to go on", 60)
    assert stop(follower, 120) == 0, log.read_text()
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"


def read_note(runner: Runner) -> object:
    with runner.open() as pipeline:
        return pipeline.table("orders").filter("id = 1").project("note").fetchall()
