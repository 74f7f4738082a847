# ruff: noqa: E501
"""What a run does about tables that changed, were renamed, dropped or made again, by their policies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater import Pipeline
from headwater.cli import main
from headwater.errors import SchemaRefused
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live

SETUP = """
create table a (id int primary key, v text); insert into a values (1, 'one');
create table b (id int primary key, v text); insert into b values (1, 'one');
"""


@pytest.fixture
def runner(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    pg.run(SETUP)
    made = Runner(tmp_path / "p", pg.url)
    monkeypatch.setenv("SOAK_PASSWORD", made.environment["SOAK_PASSWORD"])
    return made


def opened(runner: Runner, **more: Any) -> Pipeline:
    doc = yaml.safe_load(runner.config.read_text())
    runner.config.write_text(yaml.safe_dump({**doc, **more}))
    return Pipeline.open(runner.config)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], runner: Runner) -> Iterator[Any]:
    def run(*words: str) -> str:
        assert main([*words, "-c", str(runner.config)]) == 0
        return capsys.readouterr().out

    yield run


def test_a_frozen_table_stops_and_the_others_go_on(pg: Database, runner: Runner, said: Any) -> None:
    with opened(runner, schema="freeze") as pipeline:
        pipeline.run(build=False)
        pg.run(
            "alter table a rename v to w; alter table a add x int default 5; alter table b alter v set not null"
        )
        pg.run("update a set w = 'two'; update b set v = 'two'")
        plan = {str(t.table): t.changes for t in pipeline.plan().tables}
        assert plan == {
            "public.a": ("v renamed to w", "x integer (older rows: 5) added"),
            "public.b": ("v is not null now",),
        }
        with pytest.raises(SchemaRefused, match="public.a: v renamed to w; x integer .*added") as refused:
            pipeline.run(build=False)
        assert refused.value.hint == "headwater schema accept public.a"
        assert pipeline.table("public.a").fetchall()[0][:2] == (1, "one")
        assert pipeline.table("public.b").fetchall()[0][:2] == (1, "two")
        assert any(line.startswith("+") and "name: x" in line for line in pipeline.dbt_diff())
    assert said("schema", "accept", "public.a").startswith("accepted public.a")
    log = said("schema", "log", "public.a")
    assert "first seen: 2 columns, key (id)" in log and "v renamed to w" in log
    assert "+x integer (older rows: 5)" in said("schema", "diff", "public.a").splitlines()
    with opened(runner) as pipeline:
        pipeline.run(build=False)
        names = pipeline.table("public.a").columns
        assert dict(zip(names, pipeline.table("public.a").fetchall()[0], strict=True))["x"] == 5


def test_tables_that_are_gone(pg: Database, runner: Runner, said: Any) -> None:
    with opened(runner) as pipeline:
        pipeline.run(build=False)
        pg.run("drop table a")
        record = pipeline.run(build=False)
        assert "public.a was dropped at the source: the lake keeps what it has of it" in record.warnings
        assert pipeline.table("public.a").fetchall()[0][:2] == (1, "one")
        assert not any("public.a" in w for w in pipeline.run(build=False).warnings)
        # Made again: the same lake table goes on.
        pg.run("create table a (id int primary key, v int); insert into a values (2, 2)")
        pipeline.run(build=False)
        assert pipeline.table("public.a").columns[:3] == ["id", "v__v1", "v"]
        assert [r[:3] for r in pipeline.table("public.a").fetchall()] == [(2, None, 2)]
    with opened(runner, on_rename="fail", on_drop="fail") as pipeline:
        pipeline.run(build=False)
        pg.run("alter table b rename to c; insert into a values (3, 3)")
        with pytest.raises(SchemaRefused, match="public.b was renamed to public.c"):
            pipeline.run(build=False)
        assert len(pipeline.table("public.a").fetchall()) == 2
        assert len(pipeline.table("public.c").fetchall()) == 1
        with pytest.raises(SchemaRefused):
            pipeline.run(build=False)
        pg.run("drop table a; create table a (id int primary key, v int)")
        with pytest.raises(SchemaRefused, match="dropped at the source and made again|renamed"):
            pipeline.run(build=False)
    said("schema", "accept", "public.a", "public.b")
    with opened(runner) as pipeline:
        pipeline.run(build=False)
        assert pipeline.table("public.a").fetchall() == []
