"""Each cell of docs/types.md: PostgreSQL -> raw log -> lake -> dbt -> warehouse, by every reader.

What the source prints, read by a plain decoder of our own, is what every reader must find.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder
from psycopg import sql

from docs.typepage import PLACES, ROWS, delta, parquet
from headwater.demo.server import EmbeddedPostgres
from headwater.sources.postgres.values import SETTINGS
from live.pipelines import Runner
from postgres.plain import ODD, canonical, meaning
from roundtrip.values import BENEATH, DECLARED, ROW_OF, SETUP, VALUES
from servers.postgres import Database

pytestmark = pytest.mark.live

KINDS = list(VALUES)
NAMES = [f"c{n}" for n in range(len(KINDS))]
COUNT = max(map(len, VALUES.values()))
TABLES = ("every", "plain", "bag")

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


def said(kind: str, text: str | None) -> str | None:
    """The canonical text of what the source printed; what is odd after a `~`, as `verify` has it."""
    if text is None or arrow_of(kind) == pa.string():
        return text
    found = meaning(BENEATH.get(kind, kind), text.encode())
    return f"~{text}" if found == ODD else found


def read(table: pa.Table) -> dict[int, list[str | None]]:
    """id -> the canonical text of each cell."""
    columns = [_cells(table, kind, name) for kind, name in zip(KINDS, NAMES, strict=True)]
    return dict(zip(table["id"].to_pylist(), map(list, zip(*columns, strict=True)), strict=True))


def _cells(table: pa.Table, kind: str, name: str) -> list[str | None]:
    column, wanted = table[name].combine_chunks(), arrow_of(kind)
    stored = wanted == pa.time64("us") and not pa.types.is_time(column.type)
    found = canonical(column.cast(pa.string() if stored else wanted))
    if stored:
        found = [None if text is None else meaning("time", text.encode()) for text in found]
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
    tables = tuple(f"public.{t}" for t in TABLES)
    made = World(database, Runner(tmp_path_factory.mktemp("types"), database.url, tables))
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


def only(table: pa.Table, op: str) -> pa.Table:
    """The rows of one kind."""
    return table.filter(pc.equal(table["_hw_op"].cast(pa.string()), op))


def _by_duckdb(lake: DeltaTable) -> pa.Table:
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        return con.sql("select * from read_parquet($1)", params=[lake.file_uris()]).to_arrow_table()


def _by_deltalake(lake: DeltaTable) -> pa.Table:
    found = QueryBuilder().register("t", lake).execute("select * from t")
    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    table = pa.table(found.read_all())
    # Arrow's own functions do not take views yet.
    return table.cast(pa.schema([f.with_type(views.get(f.type, f.type)) for f in table.schema]))


READERS: dict[str, Callable[[DeltaTable], pa.Table]] = {
    "duckdb": _by_duckdb,
    "polars": lambda lake: pl.read_delta(lake.table_uri).to_arrow(),
    "pyarrow": lambda lake: pa.concat_tables(
        [pq.read_table(uri) for uri in lake.file_uris()], promote_options="default"
    ),
    "deltalake": _by_deltalake,
}


@pytest.mark.parametrize("table", ["every", "plain"])
@pytest.mark.parametrize("reader", READERS)
def test_the_lake_holds_what_the_source_prints(world: World, reader: str, table: str) -> None:
    wanted = world.source(table)
    assert len(wanted) == 3 * COUNT
    assert differences(wanted, read(READERS[reader](world.lake(table, "mirror")))) == []


@pytest.mark.parametrize("reader", READERS)
def test_the_history_holds_what_the_source_printed(world: World, reader: str) -> None:
    history = READERS[reader](world.lake("every", "history"))
    assert differences(world.first, read(only(history, "r"))) == []


@pytest.mark.parametrize("reader", READERS)
def test_a_delete_has_the_whole_old_row(world: World, reader: str) -> None:
    changes = READERS[reader](world.lake("every", "changes"))
    gone = read(only(changes, "d"))
    wanted = {row: cells for row, cells in world.first.items() if row >= 3000}
    moved = world.source("every")
    wanted |= {row: moved[row + 3000] for row in gone if row < 3000}
    assert len(wanted) == COUNT + 5
    assert differences(wanted, gone) == []


def test_rows_without_a_key_are_a_multiset(world: World) -> None:
    wanted = Counter(repr((row, cells)) for row, cells in world.source("bag").items())
    for reader in READERS.values():
        assert Counter(repr(pair) for pair in read(reader(world.lake("bag", "mirror"))).items()) == wanted
    stg = world.warehouse.sql("from stg_public__bag").to_arrow_table()
    assert Counter(repr(pair) for pair in read(stg).items()) == wanted


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
    raw = next((world.runner.folder / "lake" / "raw").rglob("public.every/**/*.parquet"))
    file = pq.ParquetFile(raw).schema
    described = dict(row[:2] for row in world.warehouse.execute("describe stg_public__every").fetchall())
    for name, kind in zip(NAMES, KINDS, strict=True):
        arrow = arrow_of(kind)
        assert str(fields[name].type) == delta(arrow).split(" `")[0], kind
        column = next(c for c in map(file.column, range(len(file))) if c.name == name)
        assert _physical(column) == parquet(arrow), kind
        assert described[name] == PLACES[3][1](arrow), kind


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
