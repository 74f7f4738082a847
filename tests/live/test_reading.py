"""The lake in hand: as of a moment, changes since, SQL over all tables, and the magics, on a real server."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from IPython.core.interactiveshell import InteractiveShell

from headwater import Pipeline
from headwater.demo.server import EmbeddedPostgres
from headwater.errors import ConfigError, StorageError
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live

Seen = tuple[Runner, list[tuple[datetime, list[Any]]]]

SETUP = """
create table orders (id int primary key, v numeric, note text);
create table "Ord""ers /x" ("a b" int primary key, "drop" text);
create table keyless (a int);
alter table keyless replica identity full;
insert into orders select n, n / 7.0, repeat('long ', 1000) from generate_series(1, 50) n;
insert into orders values (0, 'NaN', null);
insert into "Ord""ers /x" values (1, 'x');
insert into keyless values (1), (1);
"""

#: Each is committed alone; between two of them the rows of `orders` are looked at.
STEPS = (
    "update orders set v = v + 1 where id % 3 = 0",
    "delete from orders where id < 10",
    "insert into orders values (5, 1, 'again')",
    "update orders set id = id + 1000 where id = 5",
    "truncate orders; insert into orders values (1, 1, 'new')",
)


@pytest.fixture(scope="module")
def orders(
    pg_server: Callable[[int], EmbeddedPostgres], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    """A pipeline after the steps, and what `orders` held at moments between them."""
    pg = Database(pg_server(15))
    pg.create()
    runner = Runner(tmp_path_factory.mktemp("orders"), pg.url, warehouse=False)
    pg.run(SETUP)
    seen = []
    with runner.open() as p:
        p.run()
        for step in STEPS:
            time.sleep(0.01)
            at = pg.run("select clock_timestamp()")[0][0]
            seen.append((at, pg.run("select id, v::text, note from orders order by id")))
            time.sleep(0.01)
            pg.run(step)
            p.run()
    yield runner, seen
    pg.drop()


def test_a_table_as_of_a_moment_is_what_the_source_was(orders: Seen) -> None:
    runner, seen = orders
    with runner.open() as p:
        for at, rows in seen:
            held = p.as_of("orders", at).project("id, coalesce(v::text, _hw_text->>'v') AS v, note").pl()
            assert held.sort("id").rows() == [tuple(row) for row in rows]
        local = (seen[1][0] + timedelta(hours=2)).replace(tzinfo=None).isoformat() + "+02:00"
        assert p.as_of("public.orders", local).shape == (len(seen[1][1]), 9)
        # The moment of a commit has it.
        ends = p.changes("orders").filter("_hw_op = 'd' AND id = 9").project("_hw_at").fetchall()[0][0]
        assert p.as_of("orders", ends).filter("id < 10").shape[0] == 0
        # The future is the present; before the first load nothing is known.
        assert p.as_of("orders", "2999-01-01").shape[0] == p.table("orders").shape[0] == 1
        with pytest.raises(ConfigError, match="no rows of .* are known: .* was first read at"):
            p.as_of("orders", "2001-01-01 12:00")
        with pytest.raises(ConfigError, match="no moment"):
            p.as_of("orders", "yesterday")
        with pytest.raises(ConfigError, match="has no key"):
            p.as_of("keyless", "2999-01-01")


def test_changes_since_go_on_where_the_last_ones_ended(orders: Seen) -> None:
    runner, seen = orders
    with runner.open() as p:
        everything = p.changes("orders").pl()
        assert everything["_hw_seq"].is_sorted() and everything["_hw_op"][0] == "r"
        late = p.changes("orders", seen[3][0]).pl()
        assert late["_hw_op"].to_list()[:2] == ["d", "c"] and late["id"].to_list()[:2] == [5, 1005]
        seq = late["_hw_seq"][1]
        # What a truncate deleted has one number, so only that is no order.
        order = ["_hw_seq", "id"]
        after = everything.filter(pl.col("_hw_seq") > seq).sort(order)
        assert p.changes("orders", seq).pl().sort(order).equals(after)
        assert p.changes("orders", datetime.now(UTC)).shape[0] == 0


def test_sql_joins_the_present_the_history_and_the_changes(orders: Seen) -> None:
    runner, _ = orders
    with runner.open() as p:
        answer = p.sql(
            """SELECT count(*), (SELECT count(*) FROM history.public.orders),
                (SELECT count(*) FROM changes.public.orders WHERE _hw_op = 'd'),
                (SELECT "drop" FROM public."Ord""ers /x") FROM public.orders"""
        )
        assert answer.fetchall() == [
            (1, p.history("orders").shape[0], p.changes("orders").filter("_hw_op = 'd'").shape[0], "x")
        ]
        assert p.sql("SELECT 1 AS one").pl(lazy=True).collect()["one"].to_list() == [1]
        with pytest.raises(ConfigError, match="the query failed"):
            p.sql("SELECT * FROM public.nothing")


def test_two_names_that_are_one_in_sql_are_refused(pg: Database, tmp_path: Path) -> None:
    runner = Runner(tmp_path, pg.url, warehouse=False)
    pg.run('create table "T"(a int primary key); create table t(a int primary key); insert into t values (1)')
    with runner.open() as p:
        p.run()
        assert p.table("public.t").fetchall()[0][0] == 1
        with pytest.raises(ConfigError, match="one name in SQL"):
            p.sql("SELECT * FROM public.t")


def test_a_mirror_has_no_history_and_says_so(pg: Database, tmp_path: Path) -> None:
    runner = Runner(tmp_path, pg.url, tables=({"name": "public.*", "mode": "mirror"},), warehouse=False)  # type: ignore[arg-type]
    pg.run("create table t(a int primary key); insert into t values (1)")
    with runner.open() as p:
        p.run()
        assert p.as_of("t", "2999-01-01").shape[0] == 1
        with pytest.raises(StorageError, match="no history"):
            p.history("t")
        with pytest.raises(ConfigError, match="the query failed"):
            p.sql("SELECT * FROM history.public.t")


def test_the_magics_run_commands_and_queries(
    pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner(tmp_path, pg.url, warehouse=False)
    pg.run("create table t(a int primary key); insert into t values (1), (2)")
    monkeypatch.setenv("SOAK_PASSWORD", runner.environment["SOAK_PASSWORD"])
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    try:
        shell.run_line_magic("load_ext", "headwater")
        shell.run_line_magic("headwater", "run")
        assert "public.t" in capsys.readouterr().out
        relation = shell.run_cell_magic("headwater", "sql", "SELECT sum(a) FROM public.t")
        assert relation.fetchall() == [(3,)]
        assert shell.run_cell_magic("headwater", "sql -o got", "SELECT a FROM public.t ORDER BY a") is None
        assert shell.user_ns["got"].fetchall() == [(1,), (2,)]
        # A notebook that nobody watches stops at a command that failed.
        for cell in (
            "%headwater compact public.nothing",
            "%%headwater sql\nSELEC",
            "%%headwater what\n1",
            '%headwater "',
        ):
            done = shell.run_cell(cell)
            assert not done.success, cell
        assert "nothing" in capsys.readouterr().err
    finally:
        InteractiveShell.clear_instance()


def test_a_pipeline_that_read_nothing_has_nothing_in_hand(pg: Database, tmp_path: Path) -> None:
    runner = Runner(tmp_path, pg.url, warehouse=False)
    with Pipeline.open(runner.config) as p, pytest.raises(ConfigError, match="none of the captured"):
        p.as_of("t", "2026-01-01")
