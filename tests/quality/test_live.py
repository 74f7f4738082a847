"""The gate on a real PostgreSQL with dbt: what is held back, what goes on, and that nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
from headwater.memo import lake_id
from headwater.model import TableId
from headwater.quality.memory import load_known
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
        differing = [str(t.table) for t in p.verify().tables if not t.equal]
        assert differing == ["public.orders"]
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
        files = p.quality_suites(tmp_path / "suites")
        assert len(files) == 3 and "expect_column_values_to_be_unique" in files[0].read_text()
        docs = p.quality_docs(tmp_path / "docs", found)
        assert "customer_id" in docs[1].read_text() and docs[0].name == "index.html"
    done = run_cli(tmp_path, "quality", "public.*", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert document["verdict"] == "failed" and Path(document["page"]).exists()
    assert "id=502" in done.stdout and "c7@example.com" not in done.stdout


def run_cli(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headwater", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_wrong_rules_are_refused_before_anything_is_read(pg: Database, tmp_path: Path) -> None:
    pg.run(TABLES)
    odd = {"type": "expect_column_values_to_be_betwen", "kwargs": {"column": "amount", "min_value": 0}}
    path = write(tmp_path, pg, tables=["public.*", {"name": "public.orders", "expect": [odd]}])
    with Pipeline.open(path) as p:
        (found,) = [f for f in p.check() if f.what == "quality"]
        assert found.level == "fail" and "headwater.yml:" in found.found and "between" in found.fix
        with pytest.raises(ConfigError, match="expect_column_values_to_be_betwen"):
            p.run()
        assert p.parts.log.last() is None


def test_masked_columns_and_casts(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table a (id text primary key, phone text not null, day text not null, n int);"
        "insert into a select 'k' || n, '0170' || n, '2026010' || (1 + n % 5), n"
        " from generate_series(1, 150) n"
    )
    masks = {"id": "hash", "phone": {"redact": 4}}
    table = {"name": "public.a", "masks": masks, "cast": {"day": "@D(yyyyMMdd)"}}
    os.environ["QUALITY_MASK"] = "k" * 40
    with Pipeline.open(write(tmp_path, pg, tables=[table], mask_key="env:QUALITY_MASK")) as p:
        p.run()
        pg.run("insert into a values ('key-of-a-person', '0170-secret', '20260101', 100000)")
        p.run()
        (found,) = p.quality_past()[-1].tables
        assert found.verdict == "warn" and [c.columns for c in found.checks if c.wrong] == [("n",)]
        assert all(c.keys == () for c in found.checks)
        seen = load_known(p.parts.state, "q", lake_id(p.parts.storage), found.table).seen
        assert set(seen.spans) == {"day", "n"}
    everything = b"".join(f.read_bytes() for f in (tmp_path / "lake" / "quality").rglob("*") if f.is_file())
    assert not [word for word in (b"secret", b"key-of", b"100000") if word in everything]


def test_foreign_keys_that_hold_by_another_equality_are_left_out(pg: Database, tmp_path: Path) -> None:
    """What the server takes as the same value is not written the same, and nothing is wrong with it."""
    pairs = {
        "scale": ("numeric", "numeric", "1.0", "1.00"),
        "blanks": ("char(6)", "char(8)", "ab", "ab"),
        "text": ("text", "char(4)", "ab", "ab"),
        "days": ("interval", "interval", "1 day", "24 hours"),
        "array": ("numeric[]", "numeric[]", "{1.0}", "{1.00}"),
        "any_case": ("text collate any_case", "text collate any_case", "Ab", "aB"),
    }
    judged = {
        "code": ("char(2)", "char(2)", "a", "a"),
        "name": ("varchar(9)", "text", "ab", "ab"),
        "price": ("numeric(9,2)", "numeric(12,4)", "1.5", "1.5"),
        "whole": ("numeric(9,2)", "int", "7", "7"),
        "double": ("float8", "float8", "0", "-0"),
        "long": ("bigint", "int", "7", "7"),
        "kind": ("kind", "kind", "a", "a"),
    }
    pg.run(
        "create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        "create type kind as enum ('a', 'b')"
    )
    for name, (there, here, key, cell) in {**pairs, **judged}.items():
        pg.run(
            f"create table p_{name} (k {there} primary key); insert into p_{name} values ('{key}');"
            f"create table c_{name} (id int primary key, k {here} references p_{name});"
            f"insert into c_{name} values (1, '{cell}')"
        )
    with Pipeline.open(write(tmp_path, pg)) as p:
        found = p.run() and p.quality_past()[-1]
        rules = {str(t.table) for t in found.tables for c in t.checks if c.rule == "references"}
        assert rules == {f"public.c_{name}" for name in judged} and found.verdict == "ok"
