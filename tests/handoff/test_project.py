"""Files of ours beside files of others: only ours are written, and only as we left them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from handoff.histories import schema
from headwater.config import Config, DbtConfig, HistoryNames, WarehouseConfig
from headwater.errors import ConfigError
from headwater.handoff import project as project_room
from headwater.handoff.dbt import TableModel, generate
from headwater.model import Column, TableId, TableSchema

OURS = "models/headwater"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    warehouse = WarehouseConfig(path=str(tmp_path / "wh.duckdb"))
    return Config("shop", {}, "lake", warehouse=warehouse, dbt=DbtConfig(project=str(tmp_path / "dbt")))


@pytest.fixture
def project(config: Config) -> Path:
    return Path(config.dbt.project)


def tables(*names: str) -> list[TableModel]:
    return [TableModel(schema(n)) for n in names]


def held(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def users_project(root: Path) -> dict[str, bytes]:
    files = {
        "dbt_project.yml": "name: mine\nprofile: mine\nmacro-paths: [macros, more]\n",
        "models/marts/orders.sql": "select 1 as x",
        "models/headwater/notes.md": "mine too",
        "models/headwater/public__a/extra.sql": "select 1 as x",
        "macros/headwater/mine.sql": "{% macro mine() %}{% endmacro %}",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return held(root)


def test_a_project_is_made_where_there_is_none(config: Config, project: Path) -> None:
    done = generate(project, tables("a", "b"), config)
    assert {"dbt_project.yml", "profiles.yml", f"{OURS}/public__a/base_public__a.sql"} <= set(done.written)
    assert set(done.written) == {n for n in held(project) if not n.endswith(".headwater.json")}
    again = generate(project, tables("b", "a"), config)
    assert (again.written, again.removed, again.unchanged) == ((), (), len(done.written))


def test_a_users_project_keeps_every_file(config: Config, project: Path) -> None:
    before = users_project(project)
    done = generate(project, tables("a"), config)
    after = held(project)
    assert {n: after[n] for n in before} == before
    assert not {"profiles.yml", ".gitignore", "dbt_project.yml"} & set(done.written)
    assert all(n.startswith((f"{OURS}/", "macros/headwater/")) for n in done.written)
    generate(project, tables("b"), config)
    assert {n: held(project)[n] for n in before} == before
    assert not list((project / OURS / "public__a").glob("base*"))


def test_removed_tables_go_with_their_folder(config: Config, project: Path) -> None:
    generate(project, tables("a", "b"), config)
    done = generate(project, tables("b"), config)
    assert {Path(n).parent.name for n in done.removed} == {"public__a"}
    assert [p.name for p in (project / OURS).iterdir() if p.is_dir()] == ["public__b"]


def test_an_edited_file_is_named_and_nothing_is_written(config: Config, project: Path) -> None:
    generate(project, tables("a", "b"), config)
    edited = project / OURS / "public__a" / "stg_public__a.sql"
    edited.write_text("select 1 as mine")
    before = held(project)
    for wanted in (tables("a", "b"), tables("b"), tables("b", "c")):
        with pytest.raises(ConfigError, match="stg_public__a.sql") as refused:
            generate(project, wanted, config)
        assert "--force" in refused.value.hint
        assert held(project) == before
    assert (
        "models/headwater/public__a/stg_public__a.sql"
        in generate(project, tables("a", "b"), config, force=True).written
    )


def test_an_edited_start_file_is_the_users_own(config: Config, project: Path) -> None:
    generate(project, tables("a"), config)
    for name in ("dbt_project.yml", "profiles.yml"):
        (project / name).write_text((project / name).read_text() + "# mine\n")
    moved = replace(config, warehouse=WarehouseConfig(path="/elsewhere/wh.duckdb"))
    for _ in range(2):
        assert generate(project, tables("a"), moved, force=True).written == ()
    assert "# mine" in (project / "profiles.yml").read_text()
    (project / "profiles.yml").unlink()
    assert generate(project, tables("a"), moved).written == ("profiles.yml",)


def test_a_file_of_someone_else_in_our_place_is_not_overwritten(config: Config, project: Path) -> None:
    users_project(project)
    place = project / OURS / "public__a" / "stg_public__a.sql"
    place.write_text("select 2 as mine")
    with pytest.raises(ConfigError, match="stg_public__a.sql"):
        generate(project, tables("a"), config)
    assert place.read_text() == "select 2 as mine"


def test_a_model_of_the_same_name_elsewhere_is_refused(config: Config, project: Path) -> None:
    users_project(project)
    (project / "models/marts/stg_public__a.sql").write_text("select 1 as x")
    with pytest.raises(ConfigError, match="models/marts/stg_public__a.sql"):
        generate(project, tables("a"), config)


@pytest.mark.parametrize("folder", ["../outside", "/abs", ".", "seeds/headwater", "modelsx"])
def test_a_folder_that_dbt_would_not_read_is_refused(config: Config, project: Path, folder: str) -> None:
    users_project(project)
    with pytest.raises(ConfigError):
        generate(project, tables("a"), replace(config, dbt=DbtConfig(str(project), folder)))


def test_two_pipelines_do_not_share_a_folder(config: Config, project: Path) -> None:
    generate(project, tables("a"), config)
    other = replace(config, name="other")
    with pytest.raises(ConfigError, match="belongs to the pipeline shop"):
        generate(project, tables("b"), other)
    users = project.with_name("users")
    users_project(users)
    generate(users, tables("a"), config)
    generate(users, tables("b"), replace(other, dbt=DbtConfig(str(users), "models/other")))
    assert generate(users, tables("a"), config).written == ()


def test_a_stop_between_two_files_looks_like_no_edit(
    config: Config, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(project, tables("a"), config)
    wider = [TableModel(schema("a", extra=[Column("more", schema("a").columns[0].type)]))]
    real, left = project_room._put, [3]

    def stop(path: Path, text: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, text)

    monkeypatch.setattr(project_room, "_put", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(project, wider, config)
    monkeypatch.setattr(project_room, "_put", real)
    generate(project, wider, config)
    assert "more" in (project / OURS / "public__a" / "_public__a.yml").read_text()
    assert generate(project, wider, config).written == ()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pipeline": "shop", "files": 7}', "\x00"])
def test_a_broken_record_is_a_named_error(config: Config, project: Path, text: str) -> None:
    generate(project, tables("a"), config)
    (project / OURS / ".headwater.json").write_text(text)
    with pytest.raises(ConfigError, match="record") as refused:
        generate(project, tables("a"), config)
    assert refused.value.hint.startswith("rm ")


def test_a_record_cannot_reach_outside(config: Config, project: Path, tmp_path: Path) -> None:
    generate(project, tables("a"), config)
    victim = tmp_path / "victim.txt"
    victim.write_text("x")
    path = project / OURS / ".headwater.json"
    doc = json.loads(path.read_text())
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    path.write_text(json.dumps({**doc, "files": {**doc["files"], "../../../victim.txt": [digest]}}))
    generate(project, tables("a"), config)
    assert victim.exists()


@pytest.mark.parametrize("text", ["{", "- a", "name: [", "\x00"])
def test_an_unreadable_project_file_is_a_named_error(config: Config, project: Path, text: str) -> None:
    project.mkdir()
    (project / "dbt_project.yml").write_text(text)
    with pytest.raises(ConfigError, match="dbt_project.yml"):
        generate(project, tables("a"), config)


def test_names_that_dbt_cannot_take_are_refused() -> None:
    for name in ('a"b', "a b", "", "_hw_op", "x}}"):
        bad = TableSchema(TableId("public", "t"), (Column(name, schema("a").columns[0].type),))
        with pytest.raises(ConfigError, match="cannot be a column"):
            TableModel(bad)
    with pytest.raises(ConfigError, match="'Seen'") as refused:
        TableModel(schema("a"), "history", HistoryNames("von", "Seen", "gilt"))
    assert "valid_to: row_Seen" in refused.value.hint
    TableModel(schema("a"), "mirror", HistoryNames("von", "Seen", "gilt"))
