"""The gate on a real PostgreSQL with dbt: what is held back, what goes on, and that nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from headwater import Pipeline
from headwater.errors import ConfigError, QualityFailed
from headwater.events import Event
from headwater.model import TableId
from headwater.state import last_runs
from servers.postgres import Database

pytestmark = pytest.mark.live

HOSTILE = 'we"ird <img src=x onerror=1>'
TABLES = f"""
create table customers (id int primary key, email text not null);
create table orders (
    id int primary key, customer_id int references customers, amount numeric not null,
    status text, at timestamptz not null default '2026-01-01'
);
create table "{HOSTILE.replace('"', '""')}" (id int primary key, "Select" text not null);
insert into customers select n, 'c' || n || '@example.com' from generate_series(1, 200) n;
insert into orders select n, n % 200 + 1, n, 'paid' from generate_series(1, 500) n;
insert into "{HOSTILE.replace('"', '""')}" values (1, 'x');
"""
#: What a constraint would refuse: as if a bug, a restore or a replica had written it.
UNCHECKED = "set session_replication_role = replica; "


def write(folder: Path, pg: Database, **more: Any) -> Path:
    head, _, place = pg.url.partition("://")
    login, _, place = place.partition("@")
    user, _, password = login.partition(":")
    os.environ["QUALITY_PASSWORD"] = password
    doc = {
        "pipeline": "q",
        "source": {"kind": "postgres", "url": f"{head}://{user}@{place}", "password": "env:QUALITY_PASSWORD"},
        "store": "./lake",
        "tables": ["public.*"],
        "quality": "block",
        "mode": "mirror",
        **more,
    }
    path = folder / "headwater.yml"
    path.write_text(yaml.safe_dump(doc))
    return path


@contextmanager
def warehouse(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as con:
        yield con


def orders(folder: Path) -> int:
    with warehouse(folder) as con:
        return int(con.execute("SELECT count(*) FROM main.stg_public__orders").fetchall()[0][0])


@pytest.mark.slow
def test_a_table_waits_alone_and_goes_on_with_everything(pg: Database, tmp_path: Path) -> None:
    pg.run(TABLES)
    path = write(tmp_path, pg, warehouse="duckdb:///w.duckdb")
    events: list[Event] = []
    with Pipeline.open(path) as p:
        assert p.run(sinks=[events.append]).quality is not None
        judged = {e.table: e.data for e in events if e.kind == "table.judged"}
        assert {d["verdict"] for d in judged.values()} == {"ok"} and len(judged) == 3
        pg.run(UNCHECKED + "insert into orders values (501, 999, 1, 'paid')")
        pg.run("insert into customers values (201, 'new@example.com')")
        with pytest.raises(QualityFailed, match=r"public\.orders") as refused:
            p.run()
        assert "headwater quality public.orders" in refused.value.hint
        record = last_runs(p.parts.state, "q")[0]
        assert record.outcome == "failed" and record.quality is not None
        assert (record.quality.held, record.quality.failed) == (("public.orders",), 1)
        assert [str(t.table) for t in p.status().tables if t.held] == ["public.orders"]
        assert orders(tmp_path) == 500
        assert p.table("orders").count("*").fetchall() == [(501,)]
        with warehouse(tmp_path) as con:
            assert con.execute("SELECT count(*) FROM main.stg_public__customers").fetchall() == [(201,)]
        # What a person sees: the rule, the key, and no value.
        found = p.quality(["public.orders"])
        (wrong,) = [c for t in found.tables for c in t.checks if c.fails]
        assert (wrong.rule, wrong.keys, wrong.unexpected) == ("references", ("id=501",), 1)
        assert "held back" in Path(found.page).read_text()
        # More comes for the table that waits; then its data is right again.
        pg.run("insert into orders values (502, 1, 2, 'open'); update orders set amount = 7 where id = 1")
        with pytest.raises(QualityFailed):
            p.run()
        pg.run("insert into customers values (999, 'late@example.com')")
        assert p.run().outcome == "done"
        assert orders(tmp_path) == 502 and not any(t.held for t in p.status().tables)
        assert p.verify().equal


@pytest.mark.slow
def test_what_a_person_accepts_goes_through_once(pg: Database, tmp_path: Path) -> None:
    pg.run(TABLES)
    path = write(tmp_path, pg)
    with Pipeline.open(path) as p:
        p.run()
        with pytest.raises(ConfigError, match="none of these"):
            p.quality_accept(["public.orders"])
        pg.run(UNCHECKED + "insert into orders values (501, 999, 1, 'paid')")
        with pytest.raises(QualityFailed):
            p.run()
        assert p.quality_accept(["public.orders"]) == [TableId("public", "orders")]
        assert p.run().outcome == "done"
        pg.run(UNCHECKED + "insert into orders values (502, 998, 1, 'paid')")
        with pytest.raises(QualityFailed):
            p.run()
        found = p.quality(["public.orders"], full=True)
        assert [c.unexpected for t in found.tables for c in t.checks if c.fails] == [2]
