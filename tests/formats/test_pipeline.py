"""Views in a pipeline: after runs, by followers, after compact; told by check, plan and status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import StaticTable

from headwater.cli import show
from headwater.config import parse, to_yaml
from headwater.errors import ConfigError, SchemaConflict
from headwater.events import Event
from headwater.formats.cells import CELLS
from headwater.formats.symlink import Symlinks
from headwater.formats.told import check_formats
from headwater.model import Column, TableId, TableSchema
from headwater.pipeline import Pipeline
from servers.postgres import Database

pytestmark = pytest.mark.live

T = TableId("public", "Order \"s'")
QUOTED = '"Order ""s\'"'


def open_pipeline(folder: Path, pg: Database, lake: str, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    head, _, rest = pg.url.partition("://")
    user, _, place = rest.partition("@")
    name, _, password = user.partition(":")
    monkeypatch.setenv("FORMATS_PASSWORD", password)
    text = f"""
pipeline: formats
source: {{kind: postgres, url: "{head}://{name}@{place}", password: env:FORMATS_PASSWORD, sslmode: disable}}
store: ./store
lake: {lake}
"""
    return Pipeline.open(parse(text, folder=folder))


def ids(pipeline: Pipeline, view: str, kind: str = "mirror") -> list[int]:
    status = {t.table: t for t in pipeline.status().tables}[T]
    (found,) = [v for v in status.views if (v.format, v.kind) == (view, kind)]
    storage = pipeline.parts.storage
    if view == "iceberg":
        ids = StaticTable.from_metadata(str(storage.fetch(found.pointer))).scan().to_arrow()["id"]
        return sorted(ids.to_pylist())
    lines = storage.read(found.pointer).decode().splitlines()
    return sorted(i for f in lines for i in pq.read_table(f.removeprefix("file://"))["id"].to_pylist())


def test_views_follow_the_runs(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pg.run(f"CREATE TABLE {QUOTED} (id int PRIMARY KEY, t text, j jsonb, ts timestamptz)")
    pg.run(f"INSERT INTO {QUOTED} SELECT n, 'x', '{{}}', now() FROM generate_series(1, 10) n")
    pg.run("CREATE TABLE keyless (id int); INSERT INTO keyless VALUES (1), (1)")
    pg.run("ALTER TABLE keyless REPLICA IDENTITY FULL; CREATE TABLE empty (id int PRIMARY KEY)")
    events: list[Event] = []
    with open_pipeline(tmp_path, pg, "{format: [iceberg, parquet, orc, csv]}", monkeypatch) as pipeline:
        told = [(f.level, f.found) for f in pipeline.check() if f.what == "format"]
        assert told == [("ok", "delta, iceberg, parquet, orc, csv")] * 3
        assert any("delta, iceberg, parquet" in line for line in show.plan(pipeline.plan()))
        pipeline.run(sinks=[events.append])
        published = [e for e in events if e.kind == "view.published"]
        assert len(published) == 4 * (2 + 1)  # mirror and history, and the mirror of the table without a key
        assert ids(pipeline, "iceberg") == ids(pipeline, "parquet") == list(range(1, 11))
        assert ids(pipeline, "iceberg", "history") == list(range(1, 11))
        pg.run(f"DELETE FROM {QUOTED} WHERE id > 5; ALTER TABLE {QUOTED} ADD COLUMN n int DEFAULT 7")
        pg.run(f"INSERT INTO {QUOTED} VALUES (77, NULL, NULL, NULL, 8)")
        pipeline.run(sinks=[events.append])
        assert ids(pipeline, "iceberg") == ids(pipeline, "parquet") == [1, 2, 3, 4, 5, 77]
        events.clear()
        pipeline.run(sinks=[events.append])
        assert "view.published" not in {e.kind for e in events}
        status = pipeline.status()
        assert all(v.entry == v.lake_entry for t in status.tables for v in t.views)
        assert any("as iceberg: entry" in line for line in show.status(status))
        json.dumps(show.plain(status))


def test_a_view_that_fails_is_made_by_the_next_run(
    pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg.run(f"CREATE TABLE {QUOTED} (id int PRIMARY KEY); INSERT INTO {QUOTED} VALUES (1)")
    pg.run("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)")
    events: list[Event] = []
    with open_pipeline(tmp_path, pg, "{format: parquet}", monkeypatch) as pipeline:
        publish = Symlinks.publish

        def fail(self: Symlinks, held: object) -> object:
            if held.table == T:  # type: ignore[attr-defined]
                raise SchemaConflict("no")
            return publish(self, held)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(Symlinks, "publish", fail)
            with pytest.raises(SchemaConflict):
                pipeline.run(sinks=[events.append])
        assert {(e.kind, e.table) for e in events if e.kind == "views.failed"} == {("views.failed", T)}
        assert [e for e in events if e.kind == "view.published"]
        assert sorted(r[0] for r in pipeline.table("public.*s'").fetchall()) == [1]
        assert not [v for t in pipeline.status().tables if t.table == T for v in t.views if v.entry >= 0]
        pipeline.run()
        assert ids(pipeline, "parquet") == [1]


def test_a_long_tail_and_compact(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.refresh.policy.SMALL_TABLE", -1)
    monkeypatch.setattr("headwater.refresh.policy.WRITES", 0)
    pg.run(f"CREATE TABLE {QUOTED} (id int PRIMARY KEY); INSERT INTO {QUOTED} VALUES (1)")
    with open_pipeline(tmp_path, pg, "{format: [iceberg, parquet]}", monkeypatch) as pipeline:
        pipeline.run()
        pg.run(f"INSERT INTO {QUOTED} VALUES (2)")
        pipeline.run()
        assert ids(pipeline, "iceberg") == ids(pipeline, "parquet") == [1]
        pipeline.compact()
        assert ids(pipeline, "iceberg") == ids(pipeline, "parquet") == [1, 2]


def test_a_follower_publishes_without_a_warehouse(
    pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.follow.BUILD_PAUSE", 0.2)
    pg.run(f"CREATE TABLE {QUOTED} (id int PRIMARY KEY); INSERT INTO {QUOTED} VALUES (1)")
    events: list[Event] = []
    with open_pipeline(tmp_path, pg, "{format: parquet}", monkeypatch) as pipeline:

        def stop() -> bool:
            return "view.published" in {e.kind for e in events}

        for _ in pipeline.follow([events.append], 0.1, stop, build=False):
            pass
        assert ids(pipeline, "parquet") == [1]


@pytest.mark.parametrize(
    ("lake", "said"),
    [
        ("{format: icberg}", "did you mean iceberg"),
        ("{format: [delta, avro]}", "lake.format"),
        ("{format: csv, csv_compression: zip}", "csv_compression"),
        ("{format: csv, glue: {database: shop}}", "s3://bucket"),
        ("{format: []}", "is empty"),
        ("{glue: {}}", "database"),
    ],
)
def test_wrong_settings(lake: str, said: str) -> None:
    text = f"pipeline: p\nsource: {{kind: postgres, host: h, user: u, dbname: d}}\nstore: ./s\nlake: {lake}\n"
    with pytest.raises(ConfigError) as failed:
        parse(text)
    assert said in f"{failed.value} {failed.value.hint}"


def test_check_goes_by_the_types_that_columns_are_cast_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CELLS["csv"], "time64[us]")  # type: ignore[attr-defined]
    text = "pipeline: p\nsource: {kind: postgres, host: h, user: u, dbname: d}\nstore: ./s\n"
    text += "tables: [{name: 'a.b', format: csv, cast: {'At #1': {to: time, format: HHmmss}, x: '@F'}}]\n"
    at = Column("at_1", pa.string(), source_name="At #1")
    columns = Column("id", pa.int32()), at, Column("x", pa.float16())
    schema = TableSchema(TableId("a", "b"), columns, ("id",))
    (found,) = check_formats(parse(text), [schema])
    assert (found.level, found.table) == ("fail", schema.table)
    assert "column at_1 is time64[us], which csv cannot hold" in found.found
    (found,) = check_formats(parse(text), [replace(schema, columns=(columns[0], columns[2]))])
    assert found.level == "ok", "the source's own type does not matter"
    (found,) = check_formats(parse(text.replace(", x: '@F'", "")), [schema])
    assert found.level == "fail"


def test_a_table_has_formats_of_its_own() -> None:
    text = "pipeline: p\nsource: {kind: postgres, host: h, user: u, dbname: d}\nstore: s3://b/p\n"
    text += "lake: {glue: {database: shop}}\n"
    assert not parse(text).publishes
    config = parse(text + "tables: [{name: 'a.*', format: [delta, orc]}, '*.*']\n")
    assert config.spec(TableId("a", "b")).formats == ("orc",)
    assert config.spec(TableId("b", "b")).formats == ()
    assert config.publishes
    config = parse(
        text.replace("{glue", "{format: csv, glue") + "tables: [{name: 'a.*', format: delta}, '*.*']\n"
    )
    assert config.spec(TableId("a", "b")).formats == ()
    assert config.spec(TableId("b", "b")).formats == ("csv",)
    assert parse(to_yaml(config)) == config
