"""Real dbt in a user's project: hostile names run nothing, plain `dbt build` works, failures say where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from handoff.histories import START, Files, Row, Stage, keyed, schema
from headwater.config import Config, DbtConfig, TableSpec, WarehouseConfig
from headwater.errors import WarehouseError
from headwater.handoff.build import publish
from headwater.handoff.dbt import generate, table_models
from headwater.handoff.stage import stage
from headwater.model import Column, TableId, TableSchema
from headwater.naming import column_names, relation_name
from headwater.secrets import Secret

pytestmark = pytest.mark.slow

CANARY = "canary-4711"
NAMES = [
    "{{ env_var('HW_CANARY') }}",
    "{{ 7*7 }}",
    "{% endraw %}{{ env_var('HW_CANARY') }}{% raw %}",
    "{% do run_query('create table main.pwned (x int)') %}",
    "{# comment",
    "#}",
    "' || (select 1) || '",
    '"; create table pwned (x int); --',
    "*/ drop schema main /*",
    "line\nbreak\r\n\ttab",
    "back\\slash \\' \\u0041",
    "${HOME} $columns $$",
    "`code` <img src=x onerror=alert(1)>",
    "select",
    "order",
    "Order",
    "ORDER",
    "价" * 21,
    "- yaml: [1, &a *a !!python/object:os.system]",
    "_hw_seq",
    "..",
    "source",
    "target",
    "this_model",
    "changes",
    "null",
    "\u2028\u202e\x7f\x85",
]


def hostile(n: int, name: str) -> TableSchema:
    """A table, its columns and its types that are called so; every other one has no key."""
    told = ["id", *NAMES]
    columns = [
        Column(column, pa.string(), f"enum {source}", n > 0, source)
        for n, (column, source) in enumerate(zip(column_names(told), told, strict=True))
    ]
    return TableSchema(
        TableId(f"s {name}", name), tuple(columns), () if n % 2 else (columns[0].name, columns[14].name)
    )


def every_type() -> tuple[TableSchema, Row]:
    """A table with a column of each type, and a row with the largest or oddest value of each."""
    values: dict[pa.DataType, object] = {
        pa.bool_(): True,
        pa.int8(): -(2**7),
        pa.int16(): 2**15 - 1,
        pa.int32(): -(2**31),
        pa.int64(): 2**63 - 1,
        pa.uint8(): 2**8 - 1,
        pa.uint16(): 2**16 - 1,
        pa.uint32(): 2**32 - 1,
        pa.uint64(): 2**64 - 1,
        pa.float32(): 0.5,
        pa.float64(): -1.7976931348623157e308,
        pa.string(): "价 '\"\\\n",
        pa.binary(): b"\x00\xff",
        pa.date32(): date(9999, 12, 31),
        pa.time64("us"): time(23, 59, 59, 999_999),
        pa.timestamp("us"): datetime(1, 1, 1, 0, 0, 0, 1),
        pa.timestamp("us", "UTC"): datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        pa.decimal128(38, 10): Decimal("9999999999999999999999999999.0123456789"),
        pa.decimal128(4, 4): Decimal("-0.9999"),
    }
    columns = tuple(Column(f"c{n}", t, str(t)) for n, t in enumerate(values))
    row = {c.name: values[c.type] for c in columns}
    table = TableSchema(TableId("public", "every"), columns, tuple(c.name for c in columns if c.name != "c9"))
    return table, {**row, "_hw_op": "c", "_hw_seq": 2, "_hw_at": START}


def users_project(root: Path, warehouse: str) -> None:
    files = {
        "dbt_project.yml": "name: mine\nprofile: mine\nflags: {send_anonymous_usage_stats: false}\n",
        "profiles.yml": f"mine: {{target: dev, outputs: {{dev: {{type: duckdb, path: '{warehouse}'}}}}}}\n",
        "models/marts/sizes.sql": "select count(*) as n from {{ ref('stg_public__plain') }}\n",
        "models/marts/_marts.yml": """
exposures:
  - name: dashboard
    type: dashboard
    owner: {name: me, email: me@example.com}
    depends_on: [ref('stg_public__plain'), ref('stg_public__plain__history')]
""",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.timeout(600)
def test_hostile_names_run_nothing_in_a_users_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HW_CANARY", CANARY)
    warehouse, root = tmp_path / "wh.duckdb", tmp_path / "project"
    users_project(root, str(warehouse))
    config = Config(
        "odd '{{ 7 }}", {}, "lake", warehouse=WarehouseConfig(path=str(warehouse)), dbt=DbtConfig(str(root))
    )
    staged: dict[TableId, Files] = {}
    for n, name in enumerate([NAMES[0], NAMES[2], NAMES[3], NAMES[7]]):
        table = hostile(n, name)
        row: Row = {c.name: f"{c.source_name}" for c in table.columns}
        row = {**row, "_hw_op": "c", "_hw_seq": 2, "_hw_at": START}
        staged[table.table] = Stage(tmp_path / "staged" / str(n), table).add([row])
    every, row = every_type()
    staged[every.table] = Stage(tmp_path / "staged" / "every", every).add([row])
    plain = schema("plain")
    staged[plain.table] = Stage(tmp_path / "staged" / "plain", plain).add(keyed(3, ["id"]))

    done = publish(config, staged, {t: TableSpec(t) for t in staged})
    assert {m.status for m in done.models} == {"success"}
    assert "sizes" not in {m.name for m in done.models}

    manifest = json.loads((root / ".headwater/target/manifest.json").read_text())
    said = {s["name"]: s for s in manifest["sources"].values()}
    for table, files in staged.items():
        source = said[relation_name(table.namespace, table.name)]
        assert str(table).replace("\r\n", "\n") in source["description"]
        for column in files.schema.columns:
            described = source["columns"][column.name]["description"]
            if column.source_name != column.name:
                assert column.source_name.replace("\r\n", "\n") in described
    places = [p for folder in (root, tmp_path / "staged") for p in folder.rglob("*") if p.is_file()]
    assert len(places) > 50
    assert [p for p in [*places, warehouse] if CANARY.encode() in p.read_bytes()] == []
    with duckdb.connect(str(warehouse)) as con:
        names = {r[0] for r in con.execute("select table_name from duckdb_tables()").fetchall()}
        assert "pwned" not in names
        for table, files in staged.items():
            if table == every.table:
                held = con.sql("select * from stg_public__every").to_arrow_table().to_pylist()
                assert [{c.name: r[c.name] for c in every.columns} for r in held] == [
                    {c.name: row[c.name] for c in every.columns}
                ]
            elif table != plain.table:
                held = con.execute(f"from stg_{relation_name(table.namespace, table.name)}").fetchall()
                assert [r[: len(files.schema.columns)] for r in held] == [("id", *NAMES)]

    # Plain dbt in the user's project, without deps or network: their models and exposure beside ours.
    built = subprocess.run(
        [sys.executable, "-P", "-m", "dbt.cli.main", "build", "--select", "path:models/marts", "+sizes",
         "path:models/headwater/public__plain", "--profiles-dir", ".",
         "--vars", "{headwater_after: 1, headwater_upto: 10}"],
        cwd=root, env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout[-3000:]
    results = json.loads((root / "target/run_results.json").read_text())["results"]
    assert {"model", "test", "unit_test"} <= {r["unique_id"].split(".")[0] for r in results}
    assert "exposure.mine.dashboard" in json.loads((root / "target/manifest.json").read_text())["exposures"]


def test_a_failure_names_model_and_sql_and_no_secret(tmp_path: Path) -> None:
    folder = tmp_path / CANARY
    config = Config(
        "shop",
        {"password": Secret(CANARY)},
        "lake",
        warehouse=WarehouseConfig(path=str(tmp_path / "wh.duckdb")),
        dbt=DbtConfig(str(tmp_path / "dbt")),
    )
    assert config.warehouse is not None
    table = schema("t")
    staged = {table.table: Stage(folder, table).add(keyed(1, ["id"]))}
    models = table_models(staged, {})
    generate(Path(config.dbt.project), models, config)
    stage(config.warehouse, [(models[0], staged[table.table])])
    staged[table.table].files[0].unlink()
    with pytest.raises(WarehouseError) as failed:
        publish(config, staged, {})
    text = str(failed.value)
    assert "model base_public__t" in text
    assert CANARY not in text
    assert "***" in text
    sql = Path(text.split("SQL: ", 1)[1].split("\n", 1)[0])
    assert "headwater_staging" in sql.read_text()
    assert failed.value.hint
