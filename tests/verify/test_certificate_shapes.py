"""Repairs over the shapes that tables have: masks, partitions, filters, casts, odd keys, altered columns."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from headwater import Pipeline
from headwater.errors import Corrupt
from headwater.model import TableId
from headwater.naming import lake_folder
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

SETUP = """
create table masked (email text primary key, name text, v int);
insert into masked select 'u' || n || '@x', 'n' || n, n from generate_series(1, 300) n;
create table part (id int, at date, v text, primary key (id, at)) partition by range (at);
create table part_a partition of part for values from ('2024-01-01') to ('2024-07-01');
create table part_b partition of part for values from ('2024-07-01') to ('2025-01-01');
insert into part select n, date '2024-01-01' + n % 300, 'v' || n from generate_series(1, 400) n;
create table filt (id int primary key, region text, v int);
insert into filt select n, case n % 2 when 0 then 'eu' else 'us' end, n from generate_series(1, 300) n;
create table casted (id int primary key, amount text, v int);
insert into casted select n, n || '.50', n from generate_series(1, 300) n;
create table "Odd'<b>" ("D ay" date primary key, v float8, t text);
insert into "Odd'<b>" values ('infinity', 'NaN', ''), ('-infinity', 'Infinity', '');
insert into "Odd'<b>" values ('0044-03-15 BC', -0.0, 'x');
create table moved (id int primary key, big text, v int);
alter table moved alter big set storage external;
insert into moved select n, repeat('x', 3000) || n, n from generate_series(1, 100) n;
create table wide (id int primary key, b text);
insert into wide select n, 'b' from generate_series(1, 100) n;
"""

CHANGES = """
update moved set id = id + 1000, v = v + 1 where id <= 5;
update moved set v = 9 where id = 1003;
alter table wide add column c int default 5;
insert into wide values (1000, 'x', 6);
alter table wide rename b to bb;
"""

UNSEEN = """
update masked set v = v + 1, name = 'KANARIE' where v = 200;
delete from masked where v = 250;
insert into masked values ('KANARIE@x', 'KANARIE', 1);
update part set v = 'unseen' where id = 50;
update part set at = '2024-12-01' where id = 61;
update filt set region = 'us' where id = 50;
update filt set region = 'eu' where id = 51;
insert into casted values (999, '1', 1);
delete from "Odd'<b>" where "D ay" = '-infinity';
update "Odd'<b>" set v = 'Infinity' where "D ay" = 'infinity';
update moved set id = 5555 where id = 8;
update wide set c = null where id = 3;
"""
TABLES = 'masked, part, filt, casted, "Odd\'<b>", moved, wide'


@pytest.fixture
def pipeline(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    monkeypatch.setattr("headwater.verify.compare.SLICE_ROWS", 32)
    monkeypatch.setenv("MASK_KEY", "m" * 40)
    pg.run(SETUP)
    (tmp_path / "password").write_text(pg.server.password)
    text = f"""
        pipeline: check
        source: {{kind: postgres, host: 127.0.0.1, port: {pg.server.port}, user: postgres, dbname: {pg.name},
                  password: "file:password", sslmode: disable}}
        store: ./lake
        mask_key: env:MASK_KEY
        tables:
          - "public.*"
          - {{name: public.masked, masks: {{email: hash, name: redact}}}}
          - {{name: public.filt, where: "region = 'eu'"}}
          - {{name: public.casted, cast: {{amount: "decimal(10,2)"}}}}
        """
    (tmp_path / "headwater.yml").write_text(text)
    with Pipeline.open(tmp_path / "headwater.yml") as opened:
        opened.run()
        pg.run(CHANGES)
        opened.run()
        yield opened


def repaired(document: Any) -> dict[str, Any]:
    return {t["table"].partition(".")[2]: t["repair"].get("keys", {}) for t in document["tables"]}


def test_every_shape_is_found_and_repaired(pg: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    def lake(name: str, kind: str = "mirror") -> DeltaTable:
        return DeltaTable(str(tmp_path / "lake" / lake_folder(TableId("public", name)) / kind))

    # What a compaction or another program left in the files, and what the log never told, at once.
    lake("masked").update(updates={"v": "v + 1"}, predicate="v = 100")
    lake("part").delete("id = 33")
    lake("filt").delete("id = 44")
    lake("casted").update(updates={"amount": "7"}, predicate="id = 100")
    lake("Odd'<b>").update(updates={"t": "'forged'"}, predicate="_hw_op = 'r' AND t = 'x'")
    lake("moved").update(updates={"v": "-1"}, predicate="id = 50")
    lake("moved", "changes").update(updates={"big": "'forged'"}, predicate="id = 1003")
    lake("wide").update(updates={"c": "1"}, predicate="id = 50")
    pg.run(f"alter publication headwater_check drop table {TABLES}")
    pg.run(UNSEEN)
    pg.run(f"alter publication headwater_check add table {TABLES}")
    found = pipeline.certify(repair=True)
    assert found.equal, "\n".join(found.lines())
    assert repaired(found.document) == {
        "masked": {"mirror": 1, "raw log": 3},
        "part": {"mirror": 1, "raw log": 3},
        "filt": {"mirror": 1, "raw log": 2},
        "casted": {"mirror": 1, "raw log": 1},
        "Odd'<b>": {"mirror": 1, "raw log": 2},
        "moved": {"changes": 1, "mirror": 1, "raw log": 2},
        "wide": {"mirror": 1, "raw log": 1},
    }
    text = Path(found.path).read_text() + Path(found.page).read_text()
    assert "KANARIE" not in text and "<b>" not in Path(found.page).read_text()
    assert pipeline.table("casted").filter("id = 100").fetchall()[0][1] * 2 == 201
    # A later change of a row that was repaired is an ordinary one.
    pg.run("update moved set v = v + 1 where id in (5555, 1003); update masked set v = 0 where v = 201")
    assert pipeline.verify().equal


def test_files_that_are_gone_or_another_are_made_again(pipeline: Pipeline) -> None:
    before = {kind: _rows(pipeline, kind) for kind in ("mirror", "history")}
    lake, table = pipeline.parts.lake, TableId("public", "moved")
    lake.files(table, "mirror")[0].unlink()
    lake.files(table, "history")[0].write_bytes(b"PAR1 of somebody else")
    # As another process finds them.
    pipeline.close()
    with pytest.raises(Corrupt):
        pipeline.certify(["public.moved"])
    found = pipeline.certify(["public.moved"], repair=True)
    assert found.equal, "\n".join(found.lines())
    assert {kind: _rows(pipeline, kind) for kind in ("mirror", "history")} == before


def _rows(pipeline: Pipeline, kind: str) -> list[Any]:
    read = pipeline.table if kind == "mirror" else pipeline.history
    return read("moved").order("_hw_seq").fetchall()
