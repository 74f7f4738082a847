"""Each cell of docs/types.md: PostgreSQL -> raw log -> lake -> dbt -> warehouse, by every reader.

What the source prints, read by a plain decoder of our own, is what every reader must find.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from psycopg import sql
from pyiceberg.table import StaticTable

from docs.typepage import ROWS, delta, iceberg, parquet
from headwater.canonical import duckdb_type
from headwater.demo.server import EmbeddedPostgres
from headwater.formats.cells import glue_type
from headwater.lake.commits import folder_of
from headwater.model import TableId
from headwater.sources.postgres.values import SETTINGS
from live.pipelines import Runner
from postgres.plain import ODD, canonical, meaning
from roundtrip.readers import (
    FILES,
    ICEBERG,
    LAKE,
    files_of,
    only,
    open_spark,
    read_by_spark,
    read_view,
    spelled,
)
from roundtrip.values import BENEATH, DECLARED, ROW_OF, SETUP, VALUES
from servers import need
from servers.postgres import Database

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.live

KINDS = list(VALUES)
NAMES = [f"c{n}" for n in range(len(KINDS))]
COUNT = max(map(len, VALUES.values()))
TABLES = ("every", "plain", "bag")
VIEWS = ("iceberg", "parquet", "orc", "csv")
WEIRD = TableId("public", "Weird 'Näme\"/.. %2F")

#: Rows of a load stay, are updated from NULL, are deleted, or change their key; the rest comes by the log.
CHANGES = """
insert into {t} select id + 1000, {columns} from {t} where id < 1000;
update {t} set ({columns}) = (select {columns} from {t} as s where s.id = {t}.id - 2000)
where id between 2000 and 2999;
delete from {t} where id between 3000 and 3999;
update {t} set id = id + 3000 where id between 1000 and 1004;
"""  # fmt: skip


def arrow_of(kind: str) -> pa.DataType:
    """What a type must be: by the page, a domain by the type beneath."""
    if kind in BENEATH:
        beneath = BENEATH[kind]
        return pa.decimal128(10, 2) if beneath.startswith("numeric") else ROW_OF[beneath].arrow
    return ROW_OF[kind].arrow


def ident(name: str) -> str:
    """A name in SQL and in a pattern."""
    return '"' + name.replace('"', '""') + '"'


def said(kind: str, text: str | None) -> str | None:
    """The canonical text of what the source printed; what is odd after a `~`, as `verify` has it."""
    if text is None or arrow_of(kind) == pa.string():
        return text
    found = meaning(BENEATH.get(kind, kind), text.encode())
    return f"~{text}" if found == ODD else found


def read(table: pa.Table) -> dict[int, list[str | None]]:
    """id -> the canonical text of each cell."""
    columns = [_cells(table, kind, name) for kind, name in zip(KINDS, NAMES, strict=True)]
    return dict(
        zip(table["id"].cast(pa.int64()).to_pylist(), map(list, zip(*columns, strict=True)), strict=True)
    )


def _cells(table: pa.Table, kind: str, name: str) -> list[str | None]:
    column, wanted = table[name].combine_chunks(), arrow_of(kind)
    as_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    found = spelled(column, wanted) if as_text else canonical(column.cast(wanted))
    beside = table["_hw_text"].to_pylist()
    return [
        f"~{json.loads(text)[name]}" if value is None and text and name in json.loads(text) else value
        for value, text in zip(found, beside, strict=True)
    ]


@dataclass
class World:
    """A pipeline that has loaded and followed three tables of all types."""

    pg: Database
    runner: Runner
    first: dict[int, list[str | None]] = field(default_factory=dict)

    def build(self) -> None:
        self.pg.run(SETUP)
        self.pg.run(f"create table {ident(WEIRD.name)} (id int primary key, t text)")
        self.pg.run(f"insert into {ident(WEIRD.name)} values (1, 'é'), (2, ''), (3, null)")
        for name in TABLES:
            self._create(name)
        self.runner.run("run", "--no-dbt")
        self.first = self.source("every")
        columns = ", ".join(NAMES)
        for name in TABLES:
            self.pg.run(CHANGES.format(t=name, columns=columns))
        self.runner.run("run")

    def _create(self, name: str) -> None:
        columns = ", ".join(f"{n} {DECLARED.get(k, k)}" for n, k in zip(NAMES, KINDS, strict=True))
        key = "" if name == "bag" else " primary key"
        self.pg.run(f"create table {name} (id int{key}, {columns})")
        if name != "plain":
            self.pg.run(f"alter table {name} replica identity full")
        rows = []
        for at in (0, 3000):
            for n in range(COUNT):
                cells = [v[n % len(v)] if v and n != COUNT - 1 else "null" for v in VALUES.values()]
                rows.append(f"({at + n}, {', '.join(cells)})")
        nulls = ", ".join(["null"] * len(KINDS))
        rows += [f"({2000 + n}, {nulls})" for n in range(COUNT)]
        self.pg.run(f"insert into {name} values {', '.join(rows)}")

    def source(self, name: str) -> dict[int, list[str | None]]:
        """What the source prints now."""
        cells = ", ".join(f"case when {n} is distinct from null then format('%s', {n}) end" for n in NAMES)
        with self.pg.connect() as con:
            for setting, value in SETTINGS.items():
                con.execute(sql.SQL("set {} to {}").format(sql.Identifier(setting), sql.Literal(value)))
            rows = con.execute(f"select id, {cells} from public.{name}".encode()).fetchall()
        return {row[0]: [said(k, t) for k, t in zip(KINDS, row[1:], strict=True)] for row in rows}

    def lake(self, name: str, kind: str) -> DeltaTable:
        return DeltaTable(str(self.runner.folder / "lake" / "lake" / f"public.{name}" / kind))

    def view(self, view: str, name: str, kind: str) -> Path:
        return self.runner.folder / "lake" / "lake" / f"public.{name}" / f"{kind}_{view}"

    @cached_property
    def warehouse(self) -> duckdb.DuckDBPyConnection:
        con = duckdb.connect(str(self.runner.folder / "warehouse.duckdb"), read_only=True)
        con.execute("set TimeZone = 'UTC'")
        return con


@pytest.fixture(scope="module")
def world(
    pg_server: Callable[[int], EmbeddedPostgres], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    database = Database(pg_server(15))
    database.create()
    tables = (*(f"public.{t}" for t in TABLES), f"public.{ident(WEIRD.name)}")
    lake = {"format": list(VIEWS)}
    made = World(
        database, Runner(tmp_path_factory.mktemp("types"), database.url, tables, lake=lake, inside=True)
    )
    try:
        made.build()
        yield made
        made.warehouse.close()
    finally:
        database.drop()


def differences(
    wanted: Mapping[int, list[str | None]], found: Mapping[int, list[str | None]]
) -> list[object]:
    """(type, id, what the source says, what was found) of each cell that differs."""
    assert wanted.keys() == found.keys()
    return [
        (kind, row, w and w[:60], f and f[:60])
        for row in sorted(wanted)
        for kind, w, f in zip(KINDS, wanted[row], found[row], strict=True)
        if w != f
    ]


@pytest.mark.parametrize("table", ["every", "plain"])
@pytest.mark.parametrize("reader", LAKE)
def test_the_lake_holds_what_the_source_prints(world: World, reader: str, table: str) -> None:
    wanted = world.source(table)
    assert len(wanted) == 3 * COUNT
    assert differences(wanted, read(LAKE[reader](world.lake(table, "mirror")))) == []


@pytest.mark.parametrize("reader", LAKE)
def test_the_history_holds_what_the_source_printed(world: World, reader: str) -> None:
    history = LAKE[reader](world.lake("every", "history"))
    assert differences(world.first, read(only(history, "r"))) == []


@pytest.mark.parametrize("reader", LAKE)
def test_a_delete_has_the_whole_old_row(world: World, reader: str) -> None:
    changes = LAKE[reader](world.lake("every", "changes"))
    gone = read(only(changes, "d"))
    wanted = {row: cells for row, cells in world.first.items() if row >= 3000}
    moved = world.source("every")
    wanted |= {row: moved[row + 3000] for row in gone if row < 3000}
    assert len(wanted) == COUNT + 5
    assert differences(wanted, gone) == []


def test_rows_without_a_key_are_a_multiset(world: World) -> None:
    wanted = Counter(repr((row, cells)) for row, cells in world.source("bag").items())
    for reader in LAKE.values():
        assert Counter(repr(pair) for pair in read(reader(world.lake("bag", "mirror"))).items()) == wanted
    for view, reader in (("csv", "duckdb"), ("orc", "pyarrow"), ("iceberg", "pyiceberg")):
        found = read_view(view, reader, world.view(view, "bag", "mirror"))
        assert Counter(repr(pair) for pair in read(found).items()) == wanted
    stg = world.warehouse.sql("from stg_public__bag").to_arrow_table()
    assert Counter(repr(pair) for pair in read(stg).items()) == wanted


@pytest.mark.parametrize("table", ["every", "plain"])
@pytest.mark.parametrize(("view", "reader"), [*FILES, *(("iceberg", reader) for reader in ICEBERG)])
def test_the_views_hold_what_the_source_prints(world: World, view: str, reader: str, table: str) -> None:
    found = read_view(view, reader, world.view(view, table, "mirror"))
    assert differences(world.source(table), read(found)) == []
    if table == "every":
        history = read_view(view, reader, world.view(view, table, "history"))
        assert differences(world.first, read(only(history, "r"))) == []


@pytest.mark.slow
def test_spark_reads_the_views(world: World) -> None:
    """One session for all: most of its time is its start."""
    need(shutil.which("java") is not None, "make setup  (apt-get install openjdk-17-jre-headless)")
    wanted = world.source("every")
    with open_spark() as spark:
        for view in ("parquet", "orc", "csv"):
            found = read_by_spark(spark, view, files_of(world.view(view, "every", "mirror")))
            assert differences(wanted, read(found)) == [], view
            history = read_by_spark(spark, view, files_of(world.view(view, "every", "history")))
            assert differences(world.first, read(only(history, "r"))) == [], view
            weird = world.runner.folder / "lake" / f"{folder_of(WEIRD, 'mirror')}_{view}"
            rows = read_by_spark(spark, view, files_of(weird)).select(["id", "t"]).to_pylist()
            assert sorted((int(r["id"]), r["t"]) for r in rows) == [(1, "é"), (2, ""), (3, None)]
        for view in ("parquet", "orc"):
            schema = read_schema(spark, view, files_of(world.view(view, "every", "mirror")))
            for kind, name in zip(KINDS, NAMES, strict=True):
                # Spark's own word for a moment without a zone; Hive has one word for both.
                found = schema[name].replace("timestamp_ntz", "timestamp")
                assert found == glue_type(view, arrow_of(kind)), (view, kind)


@pytest.mark.parametrize("table", ["every", "plain"])
def test_the_warehouse_holds_what_the_source_prints(world: World, table: str) -> None:
    wanted = world.source(table)
    stg = world.warehouse.sql(f"from stg_public__{table}").to_arrow_table()
    assert differences(wanted, read(stg)) == []
    past = world.warehouse.sql(f"from stg_public__{table}__history").to_arrow_table()
    current = past.filter(past["is_current"])
    assert differences(wanted, read(current)) == []
    assert differences(world.first, read(only(past, "r"))) == []


def test_what_is_compared_is_not_empty(world: World) -> None:
    """Every value of the list is in the source, and every odd one is told by its text."""
    held = list(world.source("every").values())
    for place, (kind, values) in enumerate(VALUES.items()):
        cells = {cells[place] for cells in held}
        assert None in cells
        assert len(cells) > min(1, len(values)), kind
    odd = {
        kind
        for cells in held
        for kind, text in zip(KINDS, cells, strict=True)
        if (text or "").startswith("~")
    }
    assert odd - {"text"} == {
        "numeric(12,2)", "numeric(38,38)", "numeric(3,-2)", "numeric(3,5)", "date", "time", "timestamp",
        "timestamp with time zone", "price", "dear",
    }  # fmt: skip


def test_every_type_of_the_page_is_here() -> None:
    assert set(ROW_OF) == set(KINDS)
    assert {id(row) for row in ROW_OF.values()} == {id(row) for row in ROWS}


def test_each_place_has_the_type_that_the_page_says(world: World) -> None:
    fields = {f.name: f.type for f in world.lake("every", "mirror").schema().fields}
    table = StaticTable.from_metadata(str(world.view("iceberg", "every", "mirror")))
    fielded = {f.name: str(f.field_type) for f in table.schema().fields}
    raw = next((world.runner.folder / "lake" / "raw").rglob("public.every/**/*.parquet"))
    file = pq.ParquetFile(raw).schema
    described = dict(row[:2] for row in world.warehouse.execute("describe stg_public__every").fetchall())
    for name, kind in zip(NAMES, KINDS, strict=True):
        arrow = arrow_of(kind)
        assert str(fields[name].type) == delta(arrow).split(" `")[0], kind
        assert fielded[name] == iceberg(arrow).split(" `")[0], kind
        column = next(c for c in map(file.column, range(len(file))) if c.name == name)
        assert _physical(column) == parquet(arrow), kind
        assert described[name] == duckdb_type(arrow), kind


def read_schema(spark: SparkSession, view: str, files: list[str]) -> dict[str, str]:
    """Column -> its type in Spark's words."""
    found = spark.read.parquet(*files) if view == "parquet" else spark.read.orc(files)
    return {field.name: field.dataType.simpleString() for field in found.schema.fields}


def _physical(column: pq.ColumnSchema) -> str:
    """A Parquet column as the page spells it."""
    kind, logical = column.physical_type, json.loads(column.logical_type.to_json())
    match logical["Type"]:
        case "Decimal":
            return f"DECIMAL({logical['precision']},{logical['scale']})"
        case "Int":
            return f"{kind}, INT({logical['bitWidth']}, signed)"
        case "Time":
            return f"{kind}, TIME(micros)"
        case "Timestamp":
            return f"{kind}, TIMESTAMP(micros, {'UTC' if logical['isAdjustedToUTC'] else 'local'})"
        case "String" | "Date":
            return f"{kind}, {logical['Type'].upper()}"
    return str(kind)
