"""Staging: the source is exactly the staged files, and a model that no longer fits them is found."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handoff.histories import CARRIED, START, Files, Stage, keyed, schema
from headwater.config import Config, DbtConfig, HistoryNames, WarehouseConfig
from headwater.errors import ConfigError, WarehouseError
from headwater.handoff import build
from headwater.handoff.dbt import TableModel
from headwater.handoff.stage import stage
from headwater.model import Column, TableId, TableSchema


@pytest.fixture
def warehouse(tmp_path: Path) -> WarehouseConfig:
    return WarehouseConfig(path=str(tmp_path / "deep" / "wh.duckdb"))


def rows(warehouse: WarehouseConfig, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(warehouse.path) as con:
        return con.execute(sql).fetchall()


def test_the_source_is_the_named_files_and_no_others(tmp_path: Path, warehouse: WarehouseConfig) -> None:
    table = schema("t")
    files = Stage(tmp_path / "it's [a] *.{lake}", table)
    told = keyed(1, ["id"])
    files.add(told[:20])
    staged = files.add(told[20:])
    assert len(list(files.folder.glob("*.parquet"))) > len(staged.files)
    assert stage(warehouse, [(TableModel(table), staged)]) == frozenset()
    found = rows(warehouse, "select _hw_seq from headwater_staging.public__t order by 1")
    assert [r[0] for r in found] == sorted(r["_hw_seq"] for r in told)  # type: ignore[type-var]
    files.add([{**told[-1], "_hw_seq": 10**6}])
    stage(warehouse, [(TableModel(table), files.now())])
    assert rows(warehouse, "select max(_hw_seq) from headwater_staging.public__t") == [(10**6,)]


def test_files_of_older_schemas_and_stored_types(tmp_path: Path, warehouse: WarehouseConfig) -> None:
    columns = (
        Column("id", pa.int64()),
        Column("clock", pa.time64("us")),
        Column("big", pa.uint64()),
        Column("later", pa.decimal128(5, 2)),
        Column("never", pa.date32()),
    )
    table = TableSchema(TableId("public", "t"), columns, ("id",))
    old = pa.table({"id": [1], "clock": ["23:59:59.999999"]})
    new = pa.table({"id": [2], "clock": ["00:00:00.000000"], "big": pa.array([2**64 - 1], pa.uint64())})
    files = []
    for n, data in enumerate((old, new)):
        meta = {f.name: pa.nulls(1, f.type) for f in CARRIED}
        files.append(tmp_path / f"{n}.parquet")
        pq.write_table(pa.table({**{c: data[c] for c in data.column_names}, **meta}), files[-1])
    stage(warehouse, [(TableModel(table), Files(table, files, 0))])
    source = "headwater_staging.public__t"
    assert rows(warehouse, f"select id, clock::varchar, big, later, never from {source} order by id") == [
        (1, "23:59:59.999999", None, None, None),
        (2, "00:00:00", 2**64 - 1, None, None),
    ]
    assert [r[1] for r in rows(warehouse, f"describe {source}")][:5] == [
        "BIGINT", "TIME", "UBIGINT", "DECIMAL(5,2)", "DATE",
    ]  # fmt: skip


def test_a_table_without_rows_is_an_empty_source(warehouse: WarehouseConfig) -> None:
    none = TableSchema(TableId("public", "none"), ())
    for table in (schema("t"), none):
        stage(warehouse, [(TableModel(table), Files(table, (), -1))])
    assert rows(warehouse, "select * from headwater_staging.public__t") == []
    assert rows(warehouse, "select * from headwater_staging.public__none") == []


END = datetime(9999, 12, 31, tzinfo=UTC)
BASE = schema("t")


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        (TableModel(BASE), False),
        (TableModel(BASE, "mirror"), False),
        (TableModel(schema("t", extra=[Column("more", pa.date32())])), False),
        (TableModel(replace(BASE, columns=BASE.columns[:-1])), False),
        (TableModel(schema("t", key=("id", "region"))), True),
        (TableModel(schema("t", key=("region",))), True),
        (TableModel(schema("t", key=())), True),
        (TableModel(replace(BASE, columns=(*BASE.columns[:-1], Column("score", pa.string())))), True),
        (TableModel(BASE, "history", HistoryNames("von")), True),
        (TableModel(BASE, "history", HistoryNames(current="gilt")), True),
        (TableModel(BASE, "history", HistoryNames(open_end=END)), True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else None,
)
def test_a_model_that_no_longer_fits_is_found(
    tmp_path: Path, warehouse: WarehouseConfig, changed: TableModel, rebuilt: bool
) -> None:
    files = Stage(tmp_path / "t", BASE).add([{"id": 1, "_hw_seq": 1, "_hw_at": START}])
    stage(warehouse, [(TableModel(BASE), files)])
    columns = (
        '"id" BIGINT NOT NULL, "region" VARCHAR, "order" VARCHAR, "Größe" DECIMAL(10,2), '
        '"seen" TIMESTAMP WITH TIME ZONE, "score" DOUBLE, _hw_op VARCHAR, _hw_seq BIGINT NOT NULL, '
        "_hw_at TIMESTAMP WITH TIME ZONE, _hw_text VARCHAR"
    )
    rows(warehouse, f"create table base_public__t ({columns}, _hw_deleted BOOLEAN)")
    rows(
        warehouse,
        f"create table base_public__t__history ({columns}, valid_from TIMESTAMP WITH TIME ZONE, "
        "valid_to TIMESTAMP WITH TIME ZONE, is_current BOOLEAN, _hw_seq_to BIGINT)",
    )
    first = "(id, _hw_seq, _hw_at) values (1, 1, '2026-01-01 00:00:00+00')"
    rows(warehouse, f"insert into base_public__t {first}; insert into base_public__t__history {first}")
    found = stage(warehouse, [(changed, replace(files, schema=changed.schema))])
    assert found == ({"public__t"} if rebuilt else set())


@pytest.mark.parametrize(("seq", "second", "rebuilt"), [(6, 1, False), (6, 2, True), (10, 1, True)])
def test_a_model_of_another_log_is_found(
    tmp_path: Path, warehouse: WarehouseConfig, seq: int, second: int, rebuilt: bool
) -> None:
    table = TableSchema(TableId("public", "log"), ())
    files = Stage(tmp_path / "log", table)
    staged = files.add([{"_hw_seq": n, "_hw_at": START + timedelta(seconds=n // 6)} for n in (2, 6, 14)])
    model = TableModel(table)
    meta = "_hw_op VARCHAR, _hw_seq BIGINT NOT NULL, _hw_at TIMESTAMP WITH TIME ZONE, _hw_text VARCHAR"
    stage(warehouse, [])
    rows(warehouse, f"create schema mine; create table mine.base_public__log ({meta})")
    rows(
        warehouse,
        f"insert into mine.base_public__log values ('c', {seq}, '2026-01-01 00:00:0{second}+00', null)",
    )
    found = stage(warehouse, [(model, staged)], {"base_public__log": ("mine", "base_public__log")})
    assert found == ({"public__log"} if rebuilt else set())
    assert stage(warehouse, [(model, staged)]) == set()


def test_a_table_that_someone_else_made_is_built_anew(tmp_path: Path, warehouse: WarehouseConfig) -> None:
    named = TableModel(BASE, "history", HistoryNames(open_end=END))
    files = Stage(tmp_path / "t", BASE).add([])
    stage(warehouse, [(named, files)])
    columns = ", ".join(f'"{c.name}" VARCHAR' for c in BASE.columns)
    rows(warehouse, f"create table base_public__t__history ({columns})")
    assert stage(warehouse, [(named, files)]) == {"public__t"}


def test_a_warehouse_in_use_is_a_named_error(tmp_path: Path, warehouse: WarehouseConfig) -> None:
    stage(warehouse, [])
    hold = f"import duckdb; c = duckdb.connect({warehouse.path!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(WarehouseError, match="cannot be opened") as refused:
            stage(warehouse, [])
        other.communicate("\n")
    assert "close the other program" in refused.value.hint


def test_a_warehouse_that_is_none_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "wh").write_text("this is not a DuckDB file" * 1000)
    with pytest.raises(WarehouseError, match="cannot be opened"):
        stage(WarehouseConfig(path=str(tmp_path / "wh")), [])


def test_a_missing_file_is_a_named_error_and_changes_nothing(
    tmp_path: Path, warehouse: WarehouseConfig
) -> None:
    files = Stage(tmp_path / "t", BASE).add(keyed(1, ["id"]))
    stage(warehouse, [(TableModel(BASE), files)])
    gone = replace(files, files=[*files.files, tmp_path / "gone.parquet"])
    other = schema("other")
    with pytest.raises(WarehouseError, match="refused"):
        stage(warehouse, [(TableModel(other), Files(other, (), -1)), (TableModel(BASE), gone)])
    assert rows(warehouse, "select count(*) > 0 from headwater_staging.public__t") == [(True,)]
    assert rows(warehouse, "select view_name from duckdb_views() where not internal") == [("public__t",)]


def test_without_news_no_statement_and_no_dbt(
    tmp_path: Path, warehouse: WarehouseConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config("shop", {}, "lake", warehouse=warehouse, dbt=DbtConfig(project=str(tmp_path / "dbt")))
    staged = {BASE.table: Stage(tmp_path / "t", BASE).add(keyed(1, ["id"]))}
    stage(warehouse, [])
    build.generate(tmp_path / "dbt", build.table_models(staged, {}), config)
    Path(warehouse.path).chmod(0)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the warehouse was asked")

    monkeypatch.setattr(build, "stage", never)
    monkeypatch.setattr(build.subprocess, "Popen", never)
    monkeypatch.setattr(duckdb, "connect", never)
    assert build.publish(config, staged, {}, news=[]) == build.BuildResult()
    with pytest.raises(AssertionError, match="was asked"):
        build.publish(config, staged, {}, news=[BASE.table])


def test_without_dbt_the_error_says_what_to_install(
    tmp_path: Path, warehouse: WarehouseConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise build.PackageNotFoundError(name)

    monkeypatch.setattr(build, "version", missing)
    config = Config("shop", {}, "lake", warehouse=warehouse, dbt=DbtConfig(project=str(tmp_path / "dbt")))
    staged = {BASE.table: Stage(tmp_path / "t", BASE).add(keyed(1, ["id"]))}
    with pytest.raises(ConfigError, match="dbt-core is not installed") as refused:
        build.publish(config, staged, {})
    assert refused.value.hint == "pip install 'headwater[dbt]'"
    assert not Path(warehouse.path).exists()
