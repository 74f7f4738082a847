"""On a real server: casts in a pipeline file, through raw log, lake and dbt; quarantine by the command line."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live

TABLE = """
CREATE TABLE vbak (
    vbeln text PRIMARY KEY, erdat char(8), erzet int, netwr text, posnr text, menge text, ts text, guid bytea, note text
);
INSERT INTO vbak VALUES
    ('0001', '20180305', 93000, '12.50', '10', '1.5', '2018-03-05 17:08:09', '\\xdead01', 'a'),
    ('0002', '00000000', NULL, '0', '20', '2', '2018-03-05 00:00:00', NULL, 'b');
CREATE TABLE bag (day text, n int);
ALTER TABLE bag REPLICA IDENTITY FULL;
INSERT INTO bag VALUES ('20180101', 1), ('20180101', 1), ('oops', 2);
"""
CASTS: dict[str, Any] = {
    "erdat": {"to": "date", "format": "yyyyMMdd", "empty": ["00000000"]},
    "erzet": {"to": "time", "format": "HHmmss"},
    "netwr": "decimal(15,2)",
    "posnr": "@I",
    "menge": "@F",
    "ts": "@T(yyyy-MM-dd HH:mm:ss)",
    "guid": "hex",
}


def configure(runner: Runner, casts: object, **more: object) -> None:
    doc = yaml.safe_load(runner.config.read_text())
    bag = {"name": "public.bag", "cast": {"day": "@D(yyyyMMdd)"}}
    doc["tables"] = [{"name": "public.vbak", "cast": casts, **more}, bag]
    runner.config.write_text(yaml.safe_dump(doc))


def warehouse(runner: Runner, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(runner.folder / "warehouse.duckdb"), read_only=True) as con:
        return con.execute(query).fetchall()


@pytest.fixture
def runner(pg: Database, tmp_path: Path) -> Runner:
    pg.run(TABLE)
    return Runner(tmp_path / "p", pg.url)


def test_from_the_source_to_the_warehouse_and_through_the_quarantine(pg: Database, runner: Runner) -> None:
    configure(runner, CASTS)
    first = runner.json("run")
    assert first["tables"]["public.bag"]["parked"] == 1 and first["tables"]["public.vbak"]["parked"] == 0
    vbak = "SELECT vbeln, erdat, erzet, netwr, posnr, menge, ts, guid FROM stg_public__vbak ORDER BY vbeln"
    row = (
        "0001",
        date(2018, 3, 5),
        time(9, 30),
        Decimal("12.50"),
        10,
        1.5,
        datetime(2018, 3, 5, 17, 8, 9),
        "DEAD01",
    )
    assert warehouse(runner, vbak)[0] == row
    assert warehouse(runner, vbak)[1][1:3] == (None, None)
    report = runner.json("verify")
    assert report["equal"]
    checks = {t["table"]: t for t in report["tables"]}
    assert checks["public.vbak"]["retyped"] == list(CASTS) and checks["public.bag"]["waiting"] == 1
    assert "cast to another type, not compared" in runner.run("verify").stdout

    pg.run("UPDATE vbak SET erdat = '20181399', note = 'bad' WHERE vbeln = '0001'")
    pg.run(
        "UPDATE vbak SET note = 'behind' WHERE vbeln = '0001'; UPDATE vbak SET note = 'flows' WHERE vbeln = '0002'"
    )
    second = runner.json("run")
    assert second["tables"]["public.vbak"]["parked"] == 2
    assert [r[1] for r in warehouse(runner, vbak)] == [date(2018, 3, 5), None]
    assert warehouse(runner, "SELECT note FROM stg_public__vbak ORDER BY vbeln") == [("a",), ("flows",)]
    pg.run("UPDATE vbak SET erdat = '20180401', note = 'later' WHERE vbeln = '0001'")
    runner.run("run")
    (queue,) = [q for q in runner.json("quarantine", "list")["tables"] if q["table"] == "public.vbak"]
    # The second update carries the bad day too: it is the row's.
    assert (queue["misfits"], queue["queued"], queue["keys"], queue["columns"]) == (2, 1, 1, "erdat")
    rows = runner.json("quarantine", "show", "public.vbak", "--key", "vbeln=0001")["rows"]
    assert [r["row"]["note"] for r in rows] == ["bad", "behind", "later"]
    assert rows[0]["row"]["erdat"] == "20181399" and "erdat" in rows[0]["rules"] and not rows[2]["rules"]
    assert any(t["waiting"] == 3 for t in runner.json("status")["tables"])
    assert runner.json("verify")["equal"]
    kept = runner.json("quarantine", "retry")
    assert {q["table"] for q in kept["waiting"]} == {"public.vbak", "public.bag"}

    mended = {**CASTS, "erdat": {**CASTS["erdat"], "empty": ["00000000", "20181399"]}}
    configure(runner, mended)
    done = runner.json("quarantine", "retry")
    assert [q["table"] for q in done["waiting"]] == ["public.bag"]
    assert warehouse(runner, vbak)[0][1] == date(2018, 4, 1)
    past = "SELECT note, erdat, valid_to IS NULL FROM stg_public__vbak__history WHERE vbeln = '0001' ORDER BY valid_from, _hw_seq"
    assert warehouse(runner, past) == [
        ("a", date(2018, 3, 5), False), ("bad", None, False), ("behind", None, False), ("later", date(2018, 4, 1), True)
    ]  # fmt: skip
    with runner.open() as pipeline:
        found = pipeline.history("public.vbak").filter("vbeln = '0001'").order("_hw_seq").fetchall()
        assert [r[8] for r in found] == ["a", "bad", "behind", "later"]
    assert runner.json("verify")["equal"]

    runner.json("quarantine", "drop", "public.bag")
    assert runner.json("quarantine", "list") == {"tables": []}
    bag = "SELECT day, n, _hw_text FROM stg_public__bag ORDER BY n, day"
    day = date(2018, 1, 1)
    assert warehouse(runner, bag) == [(day, 1, None), (day, 1, None), (None, 2, '{"day":"oops"}')]
    pg.run("DELETE FROM bag WHERE n = 2")
    runner.run("run")
    assert len(warehouse(runner, bag)) == 2
    assert runner.json("verify")["equal"]


def test_the_other_policies(pg: Database, runner: Runner) -> None:
    configure(runner, CASTS, on_cast_error="null")
    runner.run("run", "--no-dbt")
    pg.run("UPDATE vbak SET posnr = 'x' WHERE vbeln = '0001'")
    record = runner.json("run", "--no-dbt")
    assert record["tables"]["public.vbak"]["nulled"] == 1
    with runner.open() as pipeline:
        found = pipeline.table("public.vbak").filter("vbeln = '0001'").project("posnr, _hw_text").fetchall()
    assert found == [(None, '{"posnr":"x"}')]
    assert runner.json("verify")["equal"]
    configure(runner, CASTS, on_cast_error="fail")
    failed = runner.run("run", "--no-dbt", ok=False)
    assert failed.returncode == 1
    assert "posnr = 'x' does not fit @I (key 0001)" in failed.stderr and "raw log entry" in failed.stderr
    assert "try: mend the rule of posnr" in failed.stderr
    pg.run("UPDATE vbak SET posnr = '7' WHERE vbeln = '0001'")
    runner.run("run", "--full", "--table", "public.vbak", "--no-dbt")
    with runner.open() as pipeline:
        assert pipeline.table("public.vbak").filter("vbeln = '0001'").project("posnr").fetchall() == [(7,)]


@pytest.mark.parametrize(
    ("casts", "says"),
    [
        ({"erdatt": "@D(yyyyMMdd)"}, ["headwater.yml:", "no column erdatt", "did you mean erdat?"]),
        ({"vbeln": "@L"}, ["headwater.yml:", "key column vbeln cannot be cast"]),
        ({"guid": "@L"}, ["headwater.yml:", "guid is bytea", "cannot become bigint"]),
        ({"note": "hex"}, ["note is text", "cannot become hex"]),
    ],
)
def test_check_names_the_line(runner: Runner, casts: object, says: list[str]) -> None:
    configure(runner, casts)
    for command in ("check", "run"):
        done = runner.run(command, ok=False)
        assert done.returncode == 1
        assert all(text in done.stdout + done.stderr for text in says), done.stdout + done.stderr


def test_a_masked_column_cannot_be_cast(runner: Runner) -> None:
    configure(runner, {"note": "@I"}, masks={"note": "redact"})
    done = runner.run("check", ok=False)
    assert done.returncode == 1 and "note cannot be cast: it is masked" in done.stdout
    assert json.loads(runner.run("check", "--json", ok=False).stdout)["ready"] is False
