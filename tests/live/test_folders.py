"""Partition folders through the command line, on a real server: checked, foretold, written, verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from headwater import Pipeline
from headwater.errors import ConfigError
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live

SETUP = """
create table orders (id bigint primary key, customer text, ssn text, placed timestamptz);
insert into orders select n, (array['Ä/b', '', null, 'x'])[1 + n % 4], 'KANARIE' || n % 3,
    timestamptz '1969-12-31 23:30-02' + n * interval '40 days' from generate_series(1, 200) n;
"""


@pytest.fixture
def runner(pg: Database, tmp_path: Path) -> Runner:
    pg.run(SETUP)
    runner = Runner(tmp_path, pg.url, warehouse=False, inside=True)
    configure(runner, "/@placed(yr=%y)/@customer(who=%s)")
    return runner


def configure(runner: Runner, layout: str, **more: Any) -> None:
    doc = yaml.safe_load(runner.config.read_text())
    table = {"name": "public.orders", "partition": layout, "masks": {"ssn": {"redact": 1}}, **more}
    runner.config.write_text(yaml.safe_dump({**doc, "tables": [table]}))


def folders(runner: Runner, kind: str = "mirror") -> set[str]:
    table = runner.folder / "lake" / "lake" / "public.orders" / kind
    return {path.rpartition("/")[0] for path in DeltaTable(table).file_uris()}


def test_folders_are_foretold_written_and_verified(runner: Runner, pg: Database) -> None:
    planned = json.loads(runner.run("plan", "--json").stdout)["tables"][0]
    assert not (runner.folder / "lake" / "raw").exists(), "nothing is loaded by a plan"
    assert len(planned["folders"]) == 3 and not planned["says"]
    assert json.loads(runner.run("check", "--json").stdout)["ready"]
    runner.run("run")
    written = {"/".join(folder.split("/")[-2:]) for folder in folders(runner)}
    assert set(planned["folders"]) <= written
    assert "yr=1970/who=%C3%84%2Fb" not in written and "yr=1970/who=Ä%2Fb" in written
    assert "yr=1970/who=__EMPTY__" in written and "yr=1970/who=__HIVE_DEFAULT_PARTITION__" in written
    pg.run("update orders set placed = '2030-01-01Z', customer = 'moved' where id in (1, 2)")
    pg.run("delete from orders where id = 3")
    runner.run("run")
    assert "yr=2030/who=moved" in {"/".join(f.split("/")[-2:]) for f in folders(runner)}
    runner.run("verify")

    configure(runner, "/@1(%.2i)", lake={"compression": "snappy", "slices": 2})
    planned = json.loads(runner.run("plan", "--json").stdout)["tables"][0]
    assert any("written anew" in line for line in planned["says"])
    assert set(planned["folders"]) <= {"0", "100", "200"}
    runner.run("compact")
    for kind in ("mirror", "history"):
        assert {folder.rpartition("/")[2] for folder in folders(runner, kind)} == {"0", "100", "200"}
    runner.run("verify")
    assert "written anew" not in runner.run("plan").stdout


def test_what_is_wrong_is_said_with_its_line_and_place(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOAK_PASSWORD", runner.environment["SOAK_PASSWORD"])
    for layout, says, under in (
        ("/@placed(yr=%i)", "`%i` takes a whole number", "%i"),
        ("/@9(yr=%y)", "has no column 9", "@9"),
        ("/@placed(customer=%y)", "is a column of the table too", "@placed"),
        ("/@ssn(a=%y)", "takes a date or a timestamp; the column `ssn` is string", "%y"),
    ):
        configure(runner, layout)
        line = 1 + next(
            n for n, text in enumerate(runner.config.read_text().split("\n")) if "partition:" in text
        )
        with Pipeline.open(runner.config) as pipeline:
            with pytest.raises(ConfigError) as refused:
                pipeline.run()
            wrong = [f for f in pipeline.check() if f.what == "partition"]
            planned = pipeline.plan().tables[0].says
        assert [f.level for f in wrong] == ["fail"]
        for told in (str(refused.value), f"{wrong[0].found}\n{wrong[0].fix}", "\n".join(planned)):
            first, shown, caret, *_ = told.split("\n")
            assert says in first and f"headwater.yml:{line}: " in first
            assert shown.strip() == layout and caret.index("^") == shown.index(under)
        assert not (runner.folder / "lake" / "raw").exists(), "nothing was read"
    said = runner.run("check", ok=False).stdout.split("\n")
    at = next(n for n, text in enumerate(said) if text.endswith(layout))
    assert said[at + 1].index("^") == said[at].index(under)
    configure(runner, "/@placed(Year=%y)")
    assert "for Athena" in runner.run("plan").stdout


def test_folders_of_a_column_that_is_cast(pg: Database, tmp_path: Path) -> None:
    pg.run("create table orders (id bigint primary key, placed text)")
    pg.run("insert into orders values (1, '20180305'), (2, 'never'), (3, null)")
    runner = Runner(tmp_path, pg.url, warehouse=False, inside=True)
    doc = yaml.safe_load(runner.config.read_text())
    table: dict[str, Any] = {"name": "public.orders"}

    def write(**more: Any) -> None:
        runner.config.write_text(yaml.safe_dump({**doc, "tables": [table | more]}))

    def planned() -> list[str]:
        found: list[str] = runner.json("plan")["tables"][0]["folders"]
        return sorted(found)

    wanted = ["yr=2018", "yr=__HIVE_DEFAULT_PARTITION__"]
    layout = {"partition": "/@placed(yr=%y)", "cast": {"placed": "@D(yyyyMMdd)"}}
    write(**layout)
    assert runner.json("check")["ready"] and planned() == wanted
    write()
    runner.run("run")
    write(**layout)
    assert planned() == wanted, "rows of before the cast are shown as they will be"
    runner.run("run")
    assert {folder.rpartition("/")[2] for folder in folders(runner)} == set(wanted)
    runner.run("verify")


def test_folders_by_columns_that_a_cast_changes(runner: Runner, pg: Database) -> None:
    pg.run("alter table orders add day char(8); update orders set day = '2021010' || 1 + id % 5")
    pg.run("update orders set day = '20211399' where id = 7")
    configure(runner, "/@day(day_dir=%y-%d)", cast={"day": "@D(yyyyMMdd)"})
    wanted = {f"day_dir=2021-0{n}" for n in range(1, 6)}
    for ahead in (True, False):
        planned = json.loads(runner.run("plan", "--json").stdout)["tables"][0]
        assert set(planned["folders"]) <= wanted and len(planned["folders"]) == 3 and not planned["says"]
        if ahead:
            assert json.loads(runner.run("check", "--json").stdout)["ready"]
            runner.run("run")
    assert {folder.rpartition("/")[2] for folder in folders(runner)} == wanted
    configure(runner, "/@day(day_dir=%y-%d)", cast={"day": "@I"})
    assert "takes a date or a timestamp" in runner.run("plan").stdout, "told by the type it will have"
