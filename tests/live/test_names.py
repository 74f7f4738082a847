"""Names by the user's rules, from a real source to a warehouse that dbt built, and other rules later."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from live.pipelines import Runner
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

LONG = "x" * 63
#: Pairs that only case tells apart, in some script or other; what SQL reserves; what SQL and Jinja act on.
COLUMNS = [
    *(
        "order",
        "Order",
        "ORDER",
        "é",
        "É",
        "ß",
        "SS",
        "ss",
        "İ",
        "i",
        "K",
        "\u212a",
        "select",
        "from",
        "user",
    ),
    *('a"b', "a'b", "a.b", "{{ x }}", "%s", "$1", " ", LONG, LONG[:62] + "y", "y" * 62 + "é"[:1], "1st", "_"),
    *("Valid_From", "valid_to", "IS_CURRENT", "_hw_seq", "表", "a b", "a  b"),
]
TABLES = ["sales.Orders", 'sales.a/b"c', f"hr.{LONG}"]
HISTORY = {"valid_from": "von", "valid_to": "bis", "current": "gilt", "open_end": "9999-12-31"}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def place(table: str) -> str:
    schema, _, name = table.partition(".")
    return f"{quoted(schema)}.{quoted(name)}"


def write(runner: Runner, **fields: Any) -> None:
    """The runner's file with other fields; `None` takes one out."""
    doc = yaml.safe_load(runner.config.read_text())
    doc |= fields
    text = yaml.safe_dump({k: v for k, v in doc.items() if v is not None})
    runner.config.write_text(text.replace("'9999-12-31'", "9999-12-31"))


def relations(runner: Runner) -> set[str]:
    with duckdb.connect(str(runner.folder / "warehouse.duckdb"), read_only=True) as con:
        found = con.execute("select schema_name || '.' || view_name from duckdb_views() where not internal")
        return {str(row[0]) for row in found.fetchall()}


def rows(runner: Runner, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(runner.folder / "warehouse.duckdb"), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        return con.execute(query).fetchall()


def equal(runner: Runner, tables: int) -> None:
    checks = runner.json("verify")["tables"]
    assert len(checks) == tables
    assert all(c["equal"] and c["warehouse"] is not None and c["warehouse"]["rows"] > 0 for c in checks)


@pytest.mark.timeout(600)
def test_names_by_rule_from_source_to_warehouse(pg: Database, tmp_path: Path) -> None:
    columns = ", ".join(f"{quoted(c)} text" for c in COLUMNS)
    pg.run("create schema sales; create schema hr")
    for table in TABLES:
        pg.run(f"create table {place(table)} (id int primary key, {columns})")
        values = ", ".join("'" + c.replace("'", "''").replace("%", "%%") + "'" for c in COLUMNS)
        pg.run(f"insert into {place(table)} values (1, {values}), (2, {values})".replace("%%", "%"))
    runner = Runner(tmp_path / "p", pg.url, ("sales.*", "hr.*"), inside=True)
    entries = ["sales.*", "hr.*", {"name": 'sales."a/b""c"', "as": "abc"}]
    warehouse = {"path": "warehouse.duckdb", "schema": "dwh", "keep_staging": False}
    names = {"current": "<schema>_<table>_v", "history": "<schema>_<table>_past", "case": "lower"}
    write(runner, tables=entries, warehouse=warehouse, names=names, history=HISTORY)
    told = {t["table"]: t for t in runner.json("plan")["tables"]}
    assert told["sales.Orders"]["lake"] == "lake/sales.~4frders"
    assert told["sales.Orders"]["warehouse"] == ["dwh.sales_orders_v", "dwh.sales_orders_past"]
    assert told['sales.a/b"c']["warehouse"] == ["dwh.abc", "dwh.sales_abc_past"]
    runner.run("run", "--no-dbt")
    for table in map(place, TABLES):
        pg.run(f"update {table} set \"order\" = 'later' where id = 2; delete from {table} where id = 1")
        pg.run(f"insert into {table} (id) values (3)")
    runner.run("run")
    equal(runner, len(TABLES))
    views = {name for t in told.values() for name in t["warehouse"]}
    assert relations(runner) == views
    assert len(views) == 2 * len(TABLES)

    # The history under its own names: spans, the open end, and every value that the source had.
    listed = {t["table"]: t for t in runner.json("tables")["tables"]}
    for table, told_of in told.items():
        held = [quoted(c["name"]) for c in listed[table]["columns"][1:]]
        past = told_of["warehouse"][1]
        spans = rows(
            runner, f"select id, gilt, bis = '9999-12-31', bis > von from {past} order by id, _hw_seq"
        )
        ended, still = (False, False, True), (True, True, True)
        assert spans == [(1, *ended), (2, *ended), (2, *still), (3, *still)]
        assert rows(runner, f"select {', '.join(held)} from {past} where id = 1") == [tuple(COLUMNS)]

    # Other rules: told in plan, done by the next run though no row has changed, nothing left behind.
    write(runner, names={"current": "<table>", "case": "keep"})
    lines = runner.run("plan").stdout.splitlines()
    assert "names: dwh.sales_orders_v is called dwh.Orders from the next build on" in lines
    runner.run("run")
    plan = runner.json("plan")
    now = {name for t in plan["tables"] for name in t["warehouse"]}
    assert plan["names"] == []
    assert relations(runner) == now
    assert {"dwh.Orders", "dwh.Orders__history", "dwh.abc", "dwh.abc__history"} <= now
    equal(runner, len(TABLES))


def test_two_tables_of_one_name_stop_the_warehouse_alone(pg: Database, tmp_path: Path) -> None:
    pg.run('create table "Orders" (id int primary key); create table orders (id int primary key)')
    pg.run('insert into "Orders" values (1); insert into orders values (2)')
    runner = Runner(tmp_path / "p", pg.url, inside=True)
    write(runner, names={"current": "<table>", "case": "lower"})
    checked = runner.run("check", ok=False)
    assert checked.returncode == 1
    said = "public.Orders and public.orders would both be called orders in the warehouse"
    hint = 'tables: [{name: "public.orders", as: public__orders}]'
    assert said in checked.stdout and hint in checked.stdout
    assert said in runner.run("plan").stdout
    failed = runner.run("run", ok=False)
    assert (
        failed.returncode == 1
        and said in failed.stdout + failed.stderr
        and hint in failed.stdout + failed.stderr
    )
    with runner.open() as pipeline:
        assert pipeline.table("public.orders").fetchall()[0][0] == 2
        assert pipeline.table('public."Orders"').fetchall()[0][0] == 1
    write(runner, tables=["public.*", yaml.safe_load(hint)["tables"][0]])
    runner.run("run")
    equal(runner, 2)
    assert rows(runner, "select (select id from orders), (select id from public__orders)") == [(1, 2)]
