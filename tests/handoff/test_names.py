"""What things are called in the warehouse: no two alike, moved when the rules change, put over nobody's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff.histories import Stage, keyed, schema
from headwater.config import Config, DbtConfig, HistoryNames, Names, TableSpec, WarehouseConfig, parse
from headwater.errors import ConfigError, WarehouseError
from headwater.handoff.build import publish
from headwater.handoff.built import Built, BuiltModel, asked
from headwater.handoff.dbt import render
from headwater.handoff.moved import make_room, moves
from headwater.handoff.outlook import Outlook
from headwater.handoff.tables import TableModel, alike, table_model, table_models
from headwater.model import Column, TableId
from headwater.naming import warehouse_name

_parts = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=63) | st.sampled_from(
    ["a", "a_b", "b", "A", "x" * 63, "X" * 63, "select", "Orders", "a__b", "2020", "_a", "orders_1a2b3c4d"]
)  # fmt: skip
_tables = st.builds(TableId, _parts, _parts)


@given(
    st.lists(_tables, min_size=2, unique=True),
    st.sampled_from(["<schema>__<table>", "dw_<schema>__<table>_x"]),
)
def test_unique_names_are_plain_and_never_alike(tables: list[TableId], template: str) -> None:
    names = [warehouse_name(t, template, "unique") for t in tables]
    assert len(set(names)) == len(tables)
    assert all(re.fullmatch("[a-z0-9_]{1,63}", n) for n in names)


@given(
    _tables,
    st.sampled_from(["lower", "upper", "keep"]),
    st.sampled_from(["<table>", "a" * 12 + "<schema>__<table>_b"]),
)
def test_names_by_any_rule_are_plain_and_short(table: TableId, case: str, template: str) -> None:
    name = warehouse_name(table, template, case)
    assert re.fullmatch("[A-Za-z0-9_]{1,63}", name)
    assert case == "keep" or name == getattr(name, case)()


@pytest.mark.parametrize(
    ("table", "names", "current", "past"),
    [
        ("public.orders", Names(), "", ""),
        ("public.orders", Names("<table>"), "orders", "orders__history"),
        ("public.orders", Names("dw_<table>_v", "<schema>_<table>_h"), "dw_orders_v", "public_orders_h"),
        ("public.orders", Names(case="upper"), "STG_PUBLIC__ORDERS", "STG_PUBLIC__ORDERS__HISTORY"),
        ("public.Orders", Names("<table>", case="lower"), "orders", "orders__history"),
        ("public.Orders", Names("<table>", case="keep"), "Orders", "Orders__history"),
        ("public.Orders", Names("<table>"), "orders_b7e8acdd", "orders_b7e8acdd__history"),
        ("public.a/b", Names("<table>", case="lower"), "a_b_c14cddc0", "a_b_c14cddc0__history"),
        ("public.select", Names("<table>"), "select", "select__history"),
    ],
)  # fmt: skip
def test_what_the_rules_make_of_a_name(table: str, names: Names, current: str, past: str) -> None:
    found = table_model(schema(table.split(".")[1]), TableSpec(TableId("", "")), names)
    assert (found.current_as, found.past_as) == (current, past)


def test_a_name_of_its_own_counts_before_the_rules() -> None:
    spec = TableSpec(TableId("", ""), called="Umsatz")
    found = table_model(schema("t"), spec, Names("dw_<table>", "dw_<table>_past", "upper"))
    assert found.relations == {
        "stg_public__t": "Umsatz", "stg_public__t__history": "dw_Umsatz_past",
        "base_public__t": "base_public__t", "base_public__t__history": "base_public__t__history",
    }  # fmt: skip
    assert table_model(schema("t"), spec, Names()).past_as == "Umsatz__history"


def test_a_table_keeps_its_name_under_later_patterns() -> None:
    text = 'pipeline: a\nsource: {kind: postgres, url: "postgres://h/d"}\nstore: l\ntables:\n'
    config = parse(text + "  - {name: public.a, as: alpha}\n  - {name: 'public.*', mode: mirror}\n")
    spec = config.spec(TableId("public", "a"))
    assert (spec.called, spec.mode, config.spec(TableId("public", "b")).called) == ("alpha", "mirror", "")


ALIKE = [
    (["Orders", "orders"], Names("<table>", case="lower"), {}, "public.Orders and public.orders", "orders"),
    (["Orders", "orders"], Names("<table>", case="keep"), {}, "public.Orders and public.orders", "orders"),
    (["a", "b"], Names(), {"a": "x", "b": "X"}, "public.a and public.b", "X"),
    (["a", "b"], Names(), {"b": "stg_public__a"}, "public.a and public.b", "stg_public__a"),
    (["a", "b"], Names(), {"b": "base_public__a"}, "public.a and public.b", "base_public__a"),
    (["orders", "orders_past"], Names("<table>", "<table>_past"), {}, "public.orders and public.orders_past",
     "orders_past"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "rules", "called", "both", "name"), ALIKE)
def test_two_tables_of_one_name_are_refused_with_what_to_write(
    names: list[str], rules: Names, called: dict[str, str], both: str, name: str
) -> None:
    models = [
        table_model(schema(n), TableSpec(TableId("", ""), called=called.get(n, "")), rules) for n in names
    ]
    (refused,) = alike(models)
    assert str(refused) == f"{both} would both be called {name} in the warehouse"
    assert "as: " in refused.hint
    text = 'pipeline: a\nsource: {kind: postgres, url: "postgres://h/d"}\nstore: l\n'
    mended = parse(text + refused.hint.split("   (")[0])
    again = [
        table_model(m.schema, replace(s, called=mended.spec(m.schema.table).called or s.called), rules)
        for m, s in zip(
            models, [TableSpec(TableId("", ""), called=called.get(n, "")) for n in names], strict=True
        )
    ]
    assert list(alike(again)) == []


def test_a_rule_that_gives_a_table_and_its_history_one_name_is_refused() -> None:
    (refused,) = alike([table_model(schema("t"), TableSpec(TableId("", "")), Names("<table>", "<table>"))])
    assert "two of its relations" in str(refused)
    assert not list(alike([TableModel(schema("t"), "mirror", current_as="t", past_as="t")]))


def test_check_names_every_clash_and_plan_every_name(tmp_path: Path) -> None:
    config = _config(tmp_path, Names("<table>", case="lower"))
    clash = schema("c", extra=[Column("Valid_From", pa.string())])
    outlook = Outlook(config, [schema("Orders"), schema("orders"), clash])
    found = list(outlook.findings())
    assert [f.level for f in found] == ["fail", "fail"]
    assert found[0].table == TableId("public", "c")
    assert "{valid_from: row_valid_from}" in found[0].fix
    assert "public.Orders and public.orders" in found[1].found
    assert outlook.read(TableId("public", "orders")) == ("main.orders", "main.orders__history")
    assert (
        list(Outlook(replace(config, warehouse=None), [schema("Orders"), schema("orders")]).findings()) == []
    )


def test_without_rules_the_models_say_nothing_of_names(tmp_path: Path) -> None:
    config = _config(tmp_path, Names())
    assert not [t for t in render([TableModel(schema("t"))], config).values() if "alias" in t]
    told = render(
        table_models({schema("t").table: Stage(tmp_path, schema("t")).now()}, {}, Names("x")), config
    )
    assert "{{ config(materialized='view', alias='x') }}" in told["public__t/stg_public__t.sql"]


def _config(folder: Path, names: Names, **warehouse: object) -> Config:
    return Config(
        "shop", {}, str(folder / "lake"), names=names, dbt=DbtConfig(str(folder / "dbt")),
        warehouse=WarehouseConfig(path=str(folder / "wh.duckdb"), **warehouse),  # type: ignore[arg-type]
    )  # fmt: skip


def _views(config: Config) -> set[str]:
    assert config.warehouse is not None
    with duckdb.connect(config.warehouse.path, read_only=True) as con:
        found = con.execute("select schema_name || '.' || view_name from duckdb_views() where not internal")
        return {str(r[0]) for r in found.fetchall()}


def _rows(config: Config, name: str) -> list[tuple[object, ...]]:
    assert config.warehouse is not None
    with duckdb.connect(config.warehouse.path, read_only=True) as con:
        return con.execute(f"select * from {name} order by _hw_seq").fetchall()


def _model(name: str, called: str = "", names: Names | None = None) -> TableModel:
    return table_model(schema(name), TableSpec(TableId("", ""), called=called), names or Names())


@dataclass
class Warehouse:
    """A DuckDB file in which each table has its base and, where it was built before, its views."""

    config: WarehouseConfig
    built: Built = field(default_factory=Built)

    def build(self, *models: TableModel) -> None:
        """Do what dbt would: make the views that are wanted, and a manifest."""
        for model in models:
            for base, name in ((model.base, model.current), (model.versions, model.past)):
                view = f'create or replace view "{model.relations[name]}" as select * from {base}'
                self.run(f"create table if not exists {base} as select '{name}' as model; {view}")
                asks = model.current_as if name == model.current else model.past_as
                known = {name: BuiltModel(("main", model.relations[name]), asks)}
                known[base] = BuiltModel(("main", base))
                self.built = replace(self.built, models={**self.built.models, **known})

    def run(self, statement: str) -> list[tuple[object, ...]]:
        with duckdb.connect(self.config.path) as con:
            return con.execute(statement).fetchall()

    def views(self) -> dict[str, str]:
        """View -> the model that it is."""
        with duckdb.connect(self.config.path) as con:
            names = con.execute("select view_name from duckdb_views() where not internal").fetchall()
            return {str(n): str(con.sql(f'from "{n}"').fetchall()[0][0]) for (n,) in names}


@pytest.fixture
def house(tmp_path: Path) -> Warehouse:
    return Warehouse(WarehouseConfig(path=str(tmp_path / "wh.duckdb")))


RULES = {
    "none": ("", "", Names()),
    "names": ("", "", Names("<table>", "<table>_past")),
    "upper": ("", "", Names("<table>", "<table>_past", "upper")),
    "of their own": ("x", "y", Names()),
    "swapped": ("y", "x", Names()),
    "around": ("b", "a", Names("<table>")),
}


CHANGES = [
    ("none", "names"), ("names", "upper"), ("upper", "none"), ("names", "of their own"),
    ("of their own", "swapped"), ("swapped", "around"), ("around", "names"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_views_move_to_their_new_names_and_none_is_left(house: Warehouse, before: str, after: str) -> None:
    def models(rule: str) -> list[TableModel]:
        a, b, names = RULES[rule]
        return [_model("a", a, names), _model("b", b, names)]

    house.build(*models(before))
    house.run(
        "create view mine as select 'mine' as model; create table base_public__z as select 'z' as model"
    )
    assert len(moves(house.config, models(after), house.built)) > 0
    for _ in range(2):  # the second time as after a stop: dbt has not run yet
        make_room(house.config, models(after), house.built)
        wanted = {n: m for model in models(after) for m, n in model.relations.items() if m.startswith("stg")}
        assert house.views().items() <= (wanted | {"mine": "mine"}).items()
    house.build(*models(after))
    assert house.views() == wanted | {"mine": "mine"}
    assert moves(house.config, models(after), house.built) == []


@pytest.mark.parametrize(
    "theirs",
    [
        "create table orders as select 1 as mine",
        "create view ORDERS as select 1 as mine",
        "create table base_public__t2 as select 1 as mine; create view orders as from base_public__t2",
    ],
)
def test_nothing_of_somebody_else_is_replaced(house: Warehouse, theirs: str) -> None:
    house.build(_model("t"))
    house.run(theirs)
    before = house.views()
    with pytest.raises(
        WarehouseError, match="main.orders already, which is not ours; public.t would"
    ) as refused:
        make_room(house.config, [_model("t", "orders")], house.built)
    assert "as: public__t" in refused.value.hint
    assert house.views() == before
    assert house.run("select mine from orders") == [(1,)]


def test_what_the_users_project_chose_is_left_alone(house: Warehouse) -> None:
    house.build(_model("t"))
    chosen = {**house.built.models, "stg_public__t": BuiltModel(("marts", "their_name"), apart=True)}
    assert moves(house.config, [_model("t")], Built(chosen)) == []
    theirs = {name: BuiltModel(("analytics", name)) for name in house.built.models}
    assert moves(house.config, [_model("t")], Built(theirs, follows=False)) == []
    assert asked("{{ config(materialized='view', alias='orders') }}\n\n") == "orders"
    assert asked("{{ config(materialized='view') }}\n\n-- alias='orders'") == ""


def test_another_schema_is_told_with_what_stays_and_how_to_drop_it(house: Warehouse) -> None:
    house.build(_model("t"))
    there = replace(house.config, schema="dwh")
    found = moves(there, [_model("t", "T")], house.built)
    assert [(m.old, m.new, m.anew) for m in found] == [
        (("main", "stg_public__t"), ("dwh", "T"), True),
        (("main", "stg_public__t__history"), ("dwh", "T__history"), True),
        (("main", "base_public__t"), ("dwh", "base_public__t"), True),
        (("main", "base_public__t__history"), ("dwh", "base_public__t__history"), True),
    ]
    make_room(there, [_model("t", "T")], house.built)
    assert len(house.views()) == 2
    for move in found:
        house.run(move.drop())
    assert house.run("select * from duckdb_tables()") == []
    assert house.views() == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dbt_builds_under_the_names_and_what_was_staged_goes(tmp_path: Path) -> None:
    first = _config(tmp_path, Names())
    table = schema("Orders")
    stage = Stage(tmp_path / "staged", table)
    told = keyed(1, ["id"])
    staged = {table.table: stage.add(told[:40])}
    specs = {table.table: TableSpec(table.table, history=HistoryNames("von", "bis", "gilt"))}
    publish(first, staged, specs)
    old = table_models(staged, specs)[0]
    held = _rows(first, old.current)
    assert _views(first) == {f"main.{old.current}", f"main.{old.past}", f"headwater_staging.{old.relation}"}

    # Other schemas: built anew there, what stays is told with the statement that drops it; staging follows.
    there = _config(tmp_path, Names("dw_<table>", case="keep"), schema="dwh", staging_schema="dwh_staging")
    lines = list(Outlook(there, [table]).moved())
    assert len(lines) == 4
    assert lines[0].startswith("dwh.dw_Orders is built anew with the next build; main.")
    assert lines[0].endswith(f'stays until you: DROP VIEW "main"."{old.current}";')
    publish(there, staged, specs)
    names = {f"main.{old.current}", f"main.{old.past}", "dwh.dw_Orders", "dwh.dw_Orders__history"}
    assert _views(there) == names | {f"dwh_staging.{old.relation}"}
    assert _rows(there, 'dwh."dw_Orders"') == held

    # Other names, and no staging: the same rows, nothing under the old names.
    kept = _config(tmp_path, Names("<table>"), schema="dwh", staging_schema="dwh_staging", keep_staging=False)
    assert len(list(Outlook(kept, [table]).moved())) == 2
    publish(kept, staged, specs, news=[])
    read = table_model(table, specs[table.table], kept.names)
    assert {v for v in _views(kept) if not v.startswith("main.")} == {
        f"dwh.{read.current_as}", f"dwh.{read.past_as}",
    }  # fmt: skip
    assert _rows(kept, f"dwh.{read.current_as}") == held
    assert list(Outlook(kept, [table]).moved()) == []


def test_the_pipeline_file_refuses_what_cannot_be_a_name() -> None:
    text = 'pipeline: a\nsource: {kind: postgres, url: "postgres://h/d"}\nstore: l\n'
    for wrong in (
        "names: {current: orders}", "names: {current: '<table>-x'}", 
        "names: {current: '<table><schema>'}",
        "names: {case: Lower}", "tables: [{name: public.a, as: 'a b'}]",
        "tables: [{name: 'public.*', as: a}]",
        "names: {current: {table}}", "tables: [{name: public.a, as: 1a}]",
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            parse(text + wrong)
        assert refused.value.hint, wrong
