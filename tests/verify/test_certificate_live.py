"""Certificates on a real server: what others did behind our back is found by key and repaired alone."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from headwater import Pipeline
from headwater.certificate import check
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

SETUP = """
create table item (shop text, nr int, price numeric(10,2), note text, primary key (shop, nr));
insert into item select 's' || n % 3, n, n, 'canary' || n from generate_series(1, 20000) n;
insert into item values ('odd, "x"', 0, 'NaN', '<img src=x onerror=alert(1)>');
create table "Odd <b>" (id int primary key, v float8, d date);
insert into "Odd <b>" values (1, 'NaN', 'infinity'), (2, -0.0, null);
create table tick (at timestamptz default now(), v int);
alter table tick replica identity full;
insert into tick (v) select n from generate_series(1, 50) n;
"""


@pytest.fixture(scope="module")
def shop(
    pg_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Database, Pipeline, Path]]:
    """One pipeline for all tests here: each leaves it equal."""
    database = Database(pg_server(15))
    database.create()
    database.run(SETUP)
    folder = tmp_path_factory.mktemp("shop")
    (folder / "password").write_text(database.server.password)
    (folder / "sign").write_text("k" * 32)
    text = f"""
        pipeline: check
        source: {{kind: postgres, host: 127.0.0.1, port: {database.server.port}, user: postgres,
                  dbname: {database.name}, password: "file:password", sslmode: disable}}
        store: ./lake
        tables: ["public.*"]
        warehouse: duckdb:///warehouse.duckdb
        verify: {{sign: "file:sign"}}
        """
    (folder / "headwater.yml").write_text(text)
    with Pipeline.open(folder / "headwater.yml") as opened:
        opened.run(build=False)
        # Versions to keep.
        database.run("update item set price = price + 1 where nr <= 10; delete from item where nr = 10")
        opened.run()
        yield database, opened, folder
    database.drop()


def table_of(document: Any, name: str) -> Any:
    return next(t for t in document["tables"] if t["table"] == f"public.{name}")


def lake_of(folder: Path, name: str, kind: str) -> DeltaTable:
    return DeltaTable(str(folder / "lake" / "lake" / f"public.{name}" / kind))


def test_an_equal_pipeline(shop: tuple[Database, Pipeline, Path]) -> None:
    _, pipeline, folder = shop
    found = pipeline.certify()
    assert found.equal, "\n".join(found.lines())
    path = Path(found.path)
    assert path.parent == folder / "certificates"
    item = table_of(found.document, "item")
    assert (
        item["sides"]["source"]
        == item["sides"]["lake"]
        == item["sides"]["warehouse"]
        == item["sides"]["changes"]
    )
    past = item["sides"]["warehouse history"]
    assert past["digest"] == past["expected"] and past["rows"] == 20_012
    assert item["slices"] > 1
    checked = check(path, pipeline.config)
    assert (checked.sound, checked.signed) == (True, True)
    page = Path(found.page).read_text()
    assert "&lt;b&gt;" in page and "<b>" not in page and "canary" not in page + path.read_text()
    assert "http:" not in page and "https:" not in page


def rows(folder: Path, query: str) -> list[Any]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as warehouse:
        return warehouse.execute(query).fetchall()


def test_rows_that_others_changed_are_found_by_key_and_repaired_alone(
    shop: tuple[Database, Pipeline, Path],
) -> None:
    database, pipeline, folder = shop
    before = pipeline.history("item").order("shop, nr, _hw_seq").fetchall()
    others = "SELECT * FROM base_public__item__history WHERE nr NOT IN (8, 9) AND shop <> 'new' ORDER BY ALL"
    kept = rows(folder, others)
    mirror = lake_of(folder, "item", "mirror")
    mirror.update(updates={"note": "'other'"}, predicate="shop = 'odd, \"x\"'")
    mirror.delete("nr = 7")
    with duckdb.connect(str(folder / "warehouse.duckdb")) as warehouse:
        warehouse.execute("DELETE FROM base_public__item WHERE nr = 8")
        warehouse.execute("UPDATE base_public__item__history SET note = 'x' WHERE nr = 9")
    assert not pipeline.certify(["public.tick", "public.item"]).equal
    stop = threading.Event()

    def write() -> None:
        with database.connect() as connection:
            n = 0
            while not stop.wait(0.05):
                n += 1
                connection.execute("insert into item values ('new', %s, 1, 'x')", [n])
                # What somebody took out of the lake goes on to change: no fold may stumble over it.
                connection.execute("update item set price = price + 1 where nr = 7")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = pipeline.certify(repair=True)
    finally:
        stop.set()
        writer.join()
    assert found.equal, "\n".join(found.lines())
    item = table_of(found.document, "item")
    repair = item["repair"]
    assert repair["keys"].get("mirror") == 2, "\n".join([str(repair), *found.lines()])
    assert repair["keys"]["warehouse"] >= 2
    assert "raw log" not in repair["keys"] and "changes" not in repair["keys"]
    # Only what was wrong was written again, and nothing was made up.
    assert rows(folder, others.replace("NOT IN (8, 9)", "NOT IN (7, 8, 9)")) == [
        row for row in kept if row[1] != 7
    ]
    after = pipeline.history("item").filter("shop <> 'new' AND nr <> 7").order("shop, nr, _hw_seq").fetchall()
    assert after == [row for row in before if row[1] != 7]


def test_changes_and_history_are_put_right_by_the_raw_log(shop: tuple[Database, Pipeline, Path]) -> None:
    _, pipeline, folder = shop
    pipeline.run(build=False)
    before = pipeline.history("item").order("shop, nr, _hw_seq").fetchall()
    one, other = "nr = 3 AND shop = 's0'", "nr = 4 AND shop = 's1' AND _hw_op = 'r'"
    lake_of(folder, "item", "history").update(updates={"note": "'forged'"}, predicate=one)
    lake_of(folder, "item", "changes").update(updates={"note": "'forged'"}, predicate=other)
    found = pipeline.certify(["public.item"])
    assert not found.equal
    differences = table_of(found.document, "item")["differences"]
    assert {k["key"] for k in differences["history"]["keys"]} == {"shop=s1,nr=4", "shop=s0,nr=3"}
    assert [k["key"] for k in differences["warehouse history"]["keys"]] == ["shop=s1,nr=4"]
    assert pipeline.verify(["public.item"]).equal  # of the present alone, nothing is to be seen
    found = pipeline.certify(["public.item"], repair=True)
    assert found.equal, "\n".join(found.lines())
    repair = table_of(found.document, "item")["repair"]
    assert (repair["keys"]["changes"], repair["keys"]["history"]) == (1, 1)
    assert pipeline.history("item").order("shop, nr, _hw_seq").fetchall() == before


def test_what_no_log_told_becomes_a_version(
    shop: tuple[Database, Pipeline, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, pipeline, folder = shop
    count = len(pipeline.history("item").fetchall())
    database.run("alter publication headwater_check drop table item")
    database.run(
        "update item set note = 'unseen' where (shop, nr) = ('s2', 11);"
        " delete from item where (shop, nr) = ('s0', 12);"
        " insert into item values ('late', 1, 2, 'unseen')"
    )
    database.run("alter publication headwater_check add table item")

    def stop(_name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("headwater.repair.reach", stop)
        pipeline.certify(["public.item"], repair=True)
    # The rows are stored, and no entry names them: nothing happened.
    assert len(pipeline.history("item").fetchall()) == count
    found = pipeline.certify(["public.item"], repair=True)
    assert found.equal, "\n".join(found.lines())
    repair = table_of(found.document, "item")["repair"]
    assert repair["keys"] == {"raw log": 3, "warehouse": 3}
    history = pipeline.history("item").filter("shop <> 'new' AND nr IN (11, 12) OR shop = 'late'").fetchall()
    assert len(history) == 2 + 1 + 1  # two of 11, one of 12 that ended, one of the late one
    assert len(pipeline.history("item").fetchall()) == count + 2
    # The user's own files tell it: folded again from the start, it is the same.
    lake = pipeline.table("item").order("shop, nr").fetchall()
    (folder / "lake" / "lake" / "public.item").rename(folder / "moved")
    database.run("insert into item values ('z', 1, 2, null)")
    pipeline.run(build=False)
    assert pipeline.table("item").order("shop, nr").fetchall()[:-1] == lake


def test_a_certificate_tells_when_it_was_changed(shop: tuple[Database, Pipeline, Path]) -> None:
    _, pipeline, folder = shop
    path = Path(pipeline.certify(["public.tick"]).path)
    document = json.loads(path.read_text())
    assert document["tables"][0]["sides"]["source"]["rows"] == 50
    forged = folder / "forged.json"
    forged.write_bytes(path.read_bytes().replace(b'"rows":50', b'"rows":51'))
    with pytest.raises(Exception, match="sha256"):
        check(forged, pipeline.config)
    from headwater.sealing import seal

    document.pop("sha256")
    document["tables"][0]["sides"]["source"]["rows"] = 51
    forged.write_bytes(seal(document))
    assert check(forged, pipeline.config).sound is False
    document.pop("signature")
    forged.write_bytes(seal(document))
    assert check(forged, pipeline.config).sound is False
