"""`verify` through the whole pipeline: equal while others write, and it finds what was tampered with."""

import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from headwater import Pipeline, config
from headwater.verify import KeyDifference
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

SETUP = """
create table item (shop text, nr int, price numeric(10,2), note text, primary key (shop, nr));
insert into item select 's' || n % 3, n, n, 'canary' || n from generate_series(1, 200) n;
insert into item values ('odd, "x"', 0, 'NaN', null);
create table tick (at timestamptz default now(), v int);
alter table tick replica identity full;
create table bare (id int primary key, v text);
"""


@pytest.fixture
def pipeline(pg: Database, tmp_path: Path) -> Iterator[Pipeline]:
    pg.run(SETUP)
    (tmp_path / "password").write_text(pg.server.password)
    text = f"""
        pipeline: check
        source: {{kind: postgres, host: 127.0.0.1, port: {pg.server.port}, user: postgres, dbname: {pg.name},
                  password: "file:password", sslmode: disable}}
        store: ./lake
        tables: ["public.*"]
        warehouse: duckdb:///warehouse.duckdb
        """
    with Pipeline.open(config.parse(text, folder=tmp_path)) as opened:
        opened.run()
        yield opened


def test_it_is_equal_while_others_write(pg: Database, pipeline: Pipeline) -> None:
    stop = threading.Event()

    def write() -> None:
        with pg.connect() as connection:
            n = 1000
            while not stop.is_set():
                n += 1
                connection.execute(
                    "with a as (insert into item values ('new', %s, 1, 'x')),"
                    " b as (insert into tick (v) values (%s))"
                    " update item set price = price + 1 where nr %% 7 = %s",
                    [n, n % 5, n % 7],
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reports = [pipeline.verify() for _ in range(2)]
    finally:
        stop.set()
        writer.join()
    assert [r.lines()[-1] for r in reports] == ["verify: 3 tables equal"] * 2
    assert reports[0].position != reports[1].position
    sizes = [sum(check.source.rows for check in r.tables) for r in reports]
    assert sizes[0] < sizes[1]


def test_it_names_what_somebody_else_changed(pipeline: Pipeline, tmp_path: Path) -> None:
    assert pipeline.verify().equal
    delta = DeltaTable(str(tmp_path / "lake" / "lake" / "public.item" / "mirror"))
    delta.delete("nr = 7")
    delta.update(updates={"note": "'canary'"}, predicate="shop = 'odd, \"x\"'")
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
        warehouse.execute("UPDATE base_public__item SET price = price + 1 WHERE nr = 8")
    report = pipeline.verify()
    check = next(c for c in report.tables if c.table.name == "item")
    assert set(check.differing) == {
        KeyDifference("lake", "shop=s1,nr=7", "missing"),
        KeyDifference("lake", 'shop="odd, \\"x\\"",nr=0', "different", ("note",)),
        KeyDifference("warehouse", "shop=s2,nr=8", "different", ("price",)),
    }
    assert report.lines()[-1] == "verify: 1 of 3 tables differ"
    assert "canary" not in "\n".join(report.lines())
    last = pipeline.status().runs[0]
    assert (last.mode, last.outcome, last.error) == ("verify", "failed", report.lines()[-1])
    assert last.hint == "headwater verify --certificate --repair"
    # What it names is what explain takes.
    for key in (d.key for d in check.differing):
        assert pipeline.explain("public.item", key)
