"""On a real server: casts in a pipeline file, to the lake and through dbt; quarantine on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from headwater import Pipeline
from headwater.cli import main
from headwater.errors import CastFailed, PreflightFailed, SchemaConflict
from headwater.events import Event
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live

TABLE = """
CREATE TABLE vbak (
    vbeln text PRIMARY KEY, erdat char(8), erzet int, netwr text, posnr text, menge text, ts text, guid bytea,
    note text
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


MENDED = {**CASTS, "erdat": {**CASTS["erdat"], "empty": ["00000000", "20181399"]}}


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


VBAK = "SELECT vbeln, erdat, erzet, netwr, posnr, menge, ts, guid FROM stg_public__vbak ORDER BY vbeln"
PAST = (
    "SELECT note, erdat, valid_to IS NULL FROM stg_public__vbak__history WHERE vbeln = '0001' "
    "ORDER BY valid_from, _hw_seq"
)


def spoil(pg: Database) -> None:
    """A day that is none, a change behind it, and one of another key."""
    pg.run("UPDATE vbak SET erdat = '20181399', note = 'bad' WHERE vbeln = '0001'")
    pg.run("UPDATE vbak SET erdat = '20180401', note = 'behind' WHERE vbeln = '0001'")
    pg.run("UPDATE vbak SET note = 'flows' WHERE vbeln = '0002'")


def test_the_warehouse_is_as_if_the_mended_rule_had_always_been(pg: Database, runner: Runner) -> None:
    configure(runner, CASTS)
    with runner.open() as pipeline:
        first = pipeline.run().tables
    assert (first["public.bag"].parked, first["public.vbak"].parked) == (1, 0)
    day, moment = date(2018, 3, 5), datetime(2018, 3, 5, 17, 8, 9)
    row = ("0001", day, time(9, 30), Decimal("12.50"), 10, 1.5, moment, "DEAD01")
    rows = warehouse(runner, VBAK)
    assert rows[0] == row and rows[1][1:3] == (None, None)
    spoil(pg)
    with runner.open() as pipeline:
        assert pipeline.run().tables["public.vbak"].parked == 2
        assert [r[1] for r in warehouse(runner, VBAK)] == [day, None]
        assert warehouse(runner, "SELECT note FROM stg_public__vbak ORDER BY 1") == [("a",), ("flows",)]
        assert pipeline.verify().equal
    configure(runner, MENDED)
    with runner.open() as pipeline:
        assert pipeline.retry().mode == "retry"
        later = date(2018, 4, 1)
        assert warehouse(runner, VBAK)[0][1] == later
        truth = [("a", day, False), ("bad", None, False), ("behind", later, True)]
        assert warehouse(runner, PAST) == truth
        found = pipeline.history("public.vbak").filter("vbeln = '0001'").order("_hw_seq")
        assert found.project("note, erdat, is_current").fetchall() == truth
        assert pipeline.verify().equal
        assert pipeline.retry().models_built == 0, "nothing changed, so nothing is built"


def test_the_quarantine_on_the_command_line(
    pg: Database, runner: Runner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runner.folder)
    monkeypatch.setenv("SOAK_PASSWORD", runner.environment["SOAK_PASSWORD"])

    def call(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    configure(runner, CASTS)
    call("run", "--no-dbt")
    spoil(pg)
    call("run", "--no-dbt")
    queues = {q["table"]: q for q in call("quarantine", "list")["tables"]}
    vbak = queues["public.vbak"]
    assert (vbak["misfits"], vbak["queued"], vbak["keys"], vbak["columns"]) == (1, 1, 1, "erdat")
    assert (queues["public.bag"]["misfits"], queues["public.bag"]["keys"]) == (1, None)
    rows = call("quarantine", "show", "public.vbak", "--key", "vbeln=0001")["rows"]
    assert [r["row"]["note"] for r in rows] == ["bad", "behind"]
    assert rows[0]["row"]["erdat"] == "20181399" and "erdat" in rows[0]["rules"] and not rows[1]["rules"]
    assert call("quarantine", "show", "public.vbak", "--key", "0002") == {"rows": []}
    assert {t["table"]: t["waiting"] for t in call("status")["tables"]} == {"public.vbak": 2, "public.bag": 1}
    report = call("verify")
    checks = {t["table"]: t for t in report["tables"]}
    assert report["equal"] and checks["public.vbak"]["retyped"] == list(CASTS)
    assert (checks["public.vbak"]["waiting"], checks["public.bag"]["waiting"]) == (1, 1)
    assert {q["table"] for q in call("quarantine", "retry", "--no-dbt")["waiting"]} == set(queues)

    dropped = call("quarantine", "drop", "public.vbak", "--key", "0001", "--no-dbt")
    assert dropped["mode"] == "drop" and "1 rows given up" in dropped["warnings"][0]
    assert [q["table"] for q in dropped["waiting"]] == ["public.bag"]
    call("quarantine", "drop", "public.bag", "--no-dbt")
    assert call("quarantine", "list") == {"tables": []}
    with runner.open() as pipeline:
        past = pipeline.history("public.vbak").filter("vbeln = '0001'").order("_hw_seq")
        texts = past.project("note, erdat, _hw_text").fetchall()
        assert texts[1:] == [("bad", None, '{"erdat":"20181399"}'), ("behind", date(2018, 4, 1), None)]
        assert len(pipeline.table("public.bag").fetchall()) == 3
    pg.run("DELETE FROM bag WHERE n = 2")
    call("run", "--no-dbt")
    with runner.open() as pipeline:
        assert [r[:2] for r in pipeline.table("public.bag").fetchall()] == [(date(2018, 1, 1), 1)] * 2
        assert pipeline.verify().equal
    assert main(["quarantine", "list"]) == 0 and "nothing waits" in capsys.readouterr().out


def test_the_other_policies(pg: Database, runner: Runner) -> None:
    configure(runner, CASTS, on_cast_error="null")
    with runner.open() as pipeline:
        pipeline.run(build=False)
        pg.run("UPDATE vbak SET posnr = 'x' WHERE vbeln = '0001'")
        assert pipeline.run(build=False).tables["public.vbak"].nulled == 1
        found = pipeline.table("public.vbak").filter("vbeln = '0001'").project("posnr, _hw_text")
        assert found.fetchall() == [(None, '{"posnr":"x"}')]
        assert pipeline.verify().equal
    configure(runner, CASTS, on_cast_error="fail")
    with runner.open() as pipeline:
        with pytest.raises(
            CastFailed, match=r"posnr = 'x' does not fit @I \(key 0001\), change \d+ of raw log"
        ):
            pipeline.run(build=False)
        assert pipeline.status().runs[0].hint.startswith("mend the rule of posnr in `cast`")
        pg.run("UPDATE vbak SET posnr = '7' WHERE vbeln = '0001'")
        pipeline.run("full", ["public.vbak"], build=False)
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
    with runner.open() as pipeline:
        (found,) = [f for f in pipeline.check() if f.level == "fail"]
        with pytest.raises(PreflightFailed) as failed:
            pipeline.run(build=False)
    assert all(text in f"{found.found} {found.fix}" for text in says), found
    assert all(text in f"{failed.value} {failed.value.hint}" for text in says), failed.value


def test_a_masked_column_cannot_be_cast(runner: Runner) -> None:
    configure(runner, {"note": "@I"}, masks={"note": "redact"})
    with runner.open() as pipeline:
        (found,) = [f for f in pipeline.check() if f.level == "fail"]
    assert "note cannot be cast: it is masked" in found.found


def test_what_waits_is_masked(pg: Database, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that waits, with all its columns, is what the masks left of it."""
    configure(runner, CASTS, masks={"note": "redact", "vbeln": "hash"})
    doc = yaml.safe_load(runner.config.read_text())
    runner.config.write_text(yaml.safe_dump({**doc, "mask_key": "env:CANARY_KEY"}))
    monkeypatch.setenv("CANARY_KEY", "k" * 40)
    pg.run("UPDATE vbak SET erdat = 'xx', note = 'canary-4711' WHERE vbeln = '0001'")
    with runner.open() as pipeline:
        pipeline.run(build=False)
        (row,) = pipeline.waiting("public.vbak")
        assert row.row["erdat"].strip() == "xx" and "canary" not in str(row) and "0001" not in row.key
        assert [w.seq for w in pipeline.waiting("public.vbak", [row.key])] == [row.seq]


@pytest.fixture
def cast_by(pg: Database, tmp_path: Path) -> Iterator[Callable[[str, dict[str, str]], Pipeline]]:
    """A pipeline over a pattern with these casts; each call writes the file anew, and ends the one before."""
    runner, opened = Runner(tmp_path / "p", pg.url, warehouse=False), list[Pipeline]()
    doc = yaml.safe_load(runner.config.read_text())

    def write(pattern: str, casts: dict[str, str]) -> Pipeline:
        table = {"name": pattern, "cast": casts}
        runner.config.write_text(yaml.safe_dump({**doc, "tables": [table]}))
        for pipeline in opened:
            pipeline.close()
        opened.append(runner.open())
        return opened[-1]

    yield write
    opened[-1].close()


def refused(pipeline: Pipeline) -> str:
    """What `check` and a run say of casts, which must be the same, and said once."""
    told = [f.found for f in pipeline.check() if f.what == "cast"]
    events: list[Event] = []
    with pytest.raises(SchemaConflict) as failed:
        pipeline.run(sinks=[events.append])
    assert told == [str(failed.value)]
    assert [e.data["seconds"] for e in events if e.kind == "table.failed"] == [None], "tried once"
    return f"{failed.value}; {failed.value.hint}"


def test_a_cast_stays_with_its_column_under_another_name(
    pg: Database, cast_by: Callable[[str, dict[str, str]], Pipeline]
) -> None:
    pg.run("CREATE TABLE t (id int PRIMARY KEY, d text); INSERT INTO t VALUES (1, '20180305'), (2, 'oops')")
    pipeline = cast_by("public.t", {"d": "@D(yyyyMMdd)"})
    pipeline.run()
    report = pipeline.verify()
    assert report.equal and "please report" not in "".join(report.lines())
    pg.run("UPDATE t SET d = '20180306' WHERE id = 1; ALTER TABLE t RENAME d TO day")
    pg.run("INSERT INTO t VALUES (3, '20180307')")
    assert "the column d, which its casts name, is called day now" in refused(pipeline)
    pipeline = cast_by("public.t", {"day": "@D(yyyyMMdd)"})
    pipeline.run()
    pg.run("UPDATE t SET day = '20180308' WHERE id = 3")
    pipeline.run()
    rows = pipeline.history("public.t").order("id, _hw_seq").project("id, day").fetchall()
    days = [(1, date(2018, 3, 5)), (1, date(2018, 3, 6)), (3, date(2018, 3, 7)), (3, date(2018, 3, 8))]
    assert rows == days and len(pipeline.waiting("public.t")) == 1


def test_casts_do_not_go_over_to_other_columns(
    pg: Database, cast_by: Callable[[str, dict[str, str]], Pipeline]
) -> None:
    """Names are swapped, or taken by another column, under a file that is as it was."""
    pg.run("CREATE TABLE t (id int PRIMARY KEY, day text, qty text, note text)")
    pg.run("INSERT INTO t VALUES (1, '20180305', '7', '20200101'), (2, '20180306', 'oops', 'x')")
    casts = {"day": "@D(yyyyMMdd)", "qty": "@L"}
    pipeline = cast_by("public.t", casts)
    pipeline.run()
    pg.run(
        "ALTER TABLE t RENAME day TO tmp; ALTER TABLE t RENAME qty TO day; ALTER TABLE t RENAME tmp TO qty"
    )
    pg.run("UPDATE t SET day = '20180307' WHERE id = 1")  # a number that would be a day
    said = refused(pipeline)
    assert "the column day is called qty now" in said and "headwater schema accept public.t" in said
    pipeline = cast_by("public.t", {"day": "@L", "qty": "@D(yyyyMMdd)"})
    pipeline.run()
    rows = pipeline.history("public.t").order("_hw_seq").project("id, day, qty").fetchall()
    assert rows == [(1, 7, date(2018, 3, 5)), (1, 20180307, date(2018, 3, 5))]
    pg.run("ALTER TABLE t RENAME qty TO gone; ALTER TABLE t RENAME note TO qty")
    pg.run("UPDATE t SET day = '8' WHERE id = 1")
    said = refused(pipeline)
    assert "the column qty is called gone now" in said
    # The file is right as it is: the rule is for the column that has the name now.
    assert [str(t) for t in pipeline.schema_accept(["public.t"])] == ["public.t"]
    pipeline.run()
    assert [f for f in pipeline.check() if f.what == "cast"] == []
    rows = pipeline.table("public.t").project("id, day, gone, qty").fetchall()
    assert rows == [(1, 8, "20180305", date(2020, 1, 1))]
    assert len(pipeline.waiting("public.t")) == 1
    assert pipeline.verify().equal


def test_a_cast_of_many_tables_tells_of_the_one_that_renamed_its_column(
    pg: Database, cast_by: Callable[[str, dict[str, str]], Pipeline]
) -> None:
    for name in ("one", "two"):
        pg.run(f"CREATE TABLE {name} (id int PRIMARY KEY, amount text); INSERT INTO {name} VALUES (1, '7')")
    pipeline = cast_by("*.*", {"amount": "@I"})
    pipeline.run()
    pg.run("ALTER TABLE two RENAME amount TO total; UPDATE two SET total = '8'; UPDATE one SET amount = '8'")
    assert "public.two: the column amount, which its casts name, is called total now" in refused(pipeline)
    assert pipeline.table("one").fetchall()[0][:2] == (1, 8)
    assert pipeline.table("two").fetchall()[0][:2] == (1, 7)
    pipeline = cast_by("*.*", {"amount": "@I", "total": "@I"})
    pipeline.run()
    assert pipeline.table("two").fetchall()[0][:2] == (1, 8)


def test_what_waits_is_told_by_the_names_of_the_source(
    pg: Database, cast_by: Callable[[str, dict[str, str]], Pipeline]
) -> None:
    day, big = 'Day\'s "x"', "Größe, (cm)"
    quoted = [ident.replace('"', '""') for ident in (day, big)]
    pg.run('CREATE TABLE t (id int PRIMARY KEY, "{}" text, "{}" text)'.format(*quoted))
    pg.run("ALTER TABLE t ALTER 3 SET STORAGE EXTERNAL".replace("3", f'"{quoted[1]}"'))
    pg.run("INSERT INTO t VALUES (1, 'oops', repeat('x', 9000))")
    pipeline = cast_by("public.t", {day: "@D(yyyyMMdd)"})
    pipeline.run()
    pg.run(f"UPDATE t SET \"{quoted[0]}\" = '20180305'")
    pipeline.run()
    first, second = pipeline.waiting("public.t")
    assert (first.columns, first.rules) == (day, f"{day}: @D(yyyyMMdd)")
    assert first.row.keys() == {"id", day, big} and second.unset == (big,)
    (queue,) = pipeline.quarantine()
    assert queue.columns == day
