"""The generated models on real dbt and DuckDB, against plain Python: any batching and replay, one result."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from handoff.histories import Files, Row, Stage, keyed, keyless, multiset, schema, state, versions
from headwater.config import Config, DbtConfig, HistoryNames, TableSpec, WarehouseConfig
from headwater.handoff import build
from headwater.handoff.build import BuildResult, Dbt, publish
from headwater.handoff.dbt import table_models
from headwater.handoff.stage import spans, stage
from headwater.model import Column, TableId, TableSchema

pytestmark = pytest.mark.slow
END = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass
class World:
    """A lake with one staged table for each way that changes may arrive."""

    config: Config
    stages: dict[TableId, Stage]
    told: dict[TableId, list[Row]]
    specs: dict[TableId, TableSpec]

    def staged(self) -> Mapping[TableId, Files]:
        return {t: s.now() for t, s in self.stages.items()}

    def publish(self, **words: object) -> BuildResult:
        return publish(self.config, self.staged(), self.specs, **words)  # type: ignore[arg-type]

    def replay(self) -> None:
        """Apply what is staged, whatever the models hold already."""
        models = table_models(self.staged(), self.specs)
        assert self.config.warehouse is not None
        stage(self.config.warehouse, [(m, self.staged()[m.schema.table]) for m in models])
        Dbt(self.config, Path(self.config.dbt.project)).build(models, after=-1)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        assert self.config.warehouse is not None
        with duckdb.connect(self.config.warehouse.path, read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            return con.execute(sql).fetchall()

    def check(self, *names: str, told: Mapping[str, Sequence[Row]] | None = None) -> None:
        """The warehouse holds what Python says."""
        for table, stage_ in self.stages.items():
            if names and table.name not in names:
                continue
            rows = (told or {}).get(table.name, self.told[table])
            assert rows
            self._check(stage_.schema, rows, self.specs[table])

    def _check(self, table: TableSchema, rows: Sequence[Row], spec: TableSpec) -> None:
        columns = ", ".join(f'"{c.name}"' for c in table.columns) + ", _hw_text"
        name = f"public__{table.table.name}"
        if not table.key:
            held = Counter(repr(r) for r in self.rows(f"select {columns} from stg_{name}"))
            assert held == multiset(rows, table), name
            return
        assert self.rows(f"select {columns}, _hw_seq from stg_{name} order by _hw_seq") == state(
            rows, table
        ), name
        past, names = f"stg_{name}__history", spec.history
        if spec.mode == "mirror":
            assert not self.rows(f"select 1 from duckdb_views() where view_name = '{past}'")
            return
        spans = f"{names.valid_from}, {names.valid_to}, {names.current}, _hw_seq, _hw_seq_to"
        held_versions = self.rows(f"select {columns}, {spans} from {past} order by _hw_seq")
        assert [_read(v) for v in held_versions] == versions(rows, table, names.open_end), name


def _read(version: tuple[object, ...]) -> tuple[object, ...]:
    """DuckDB gives an infinite future back as the year 9999 in its own zone object; compare moments."""
    return tuple(v.astimezone(UTC) if isinstance(v, datetime) else v for v in version)


def config(folder: Path) -> Config:
    return Config(
        "shop",
        {},
        str(folder / "lake"),
        warehouse=WarehouseConfig(path=str(folder / "wh.duckdb")),
        dbt=DbtConfig(project=str(folder / "dbt")),
    )


def cut(rows: Sequence[Row], parts: int, seed: int) -> list[list[Row]]:
    """The rows in consecutive parts; rows of one change stay together."""
    rng = random.Random(seed)
    seqs = sorted({int(str(r["_hw_seq"])) for r in rows})
    edges = [-1, *sorted(rng.sample(seqs[:-1], parts - 1)), seqs[-1]]
    return [
        [r for r in rows if low < int(str(r["_hw_seq"])) <= high]
        for low, high in zip(edges, edges[1:], strict=False)
    ]


def new_world(folder: Path) -> World:
    world = World(config(folder), {}, {}, {})
    kinds: dict[str, tuple[Sequence[str], TableSpec | None]] = {
        "whole": (("id",), None),
        "late": (("id",), None),
        "replayed": (("id",), None),
        "pair": (("id", "region"), None),
        "mirrored": (("id",), TableSpec(TableId("", ""), "mirror")),
        "named": (("id",), TableSpec(TableId("", ""), history=HistoryNames("von", "bis", "gilt", END))),
        "bag": ((), None),
        "bag_replayed": ((), None),
        "grows": (("id",), None),
        "retyped": (("id",), None),
        "rekeyed": (("id", "region"), None),
        "renamed": (("id",), None),
    }
    for seed, (name, (key, spec)) in enumerate(kinds.items()):
        # `pair` has columns that are called like the relations in our SQL.
        called = ("source", "target", "changes", "held", "touched", "this_model", "versions", "events")
        extra = [Column(n, pa.string(), "text") for n in called] if name == "pair" else []
        table = schema(name, key=key, extra=extra)
        world.stages[table.table] = Stage(folder / "staged" / name, table)
        world.told[table.table] = keyed(seed, key) if key else keyless(seed)
        world.specs[table.table] = replace(spec or TableSpec(table.table), table=table.table)
    return world


def table(name: str) -> TableId:
    return TableId("public", name)


@pytest.mark.timeout(600)
def test_any_batching_and_any_replay_give_the_same_tables(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    parts = {t: cut(rows, 4, seed) for seed, (t, rows) in enumerate(world.told.items())}
    late, bag = table("late"), table("bag_replayed")

    # The first build: everything, or some pieces, or pieces out of order.
    for t, stage_ in world.stages.items():
        stage_.add(world.told[t] if t.name == "whole" else parts[t][2] if t.name == "late" else parts[t][0])
    first = world.publish()
    assert {m.status for m in first.models} == {"success"}
    assert (first.tests_passed > 0, first.tests_failed, first.rebuilt) == (True, 0, ())
    world.check("whole")
    begun = ("replayed", "pair", "bag", "grows")
    world.check(*begun, told={n: parts[table(n)][0] for n in begun})

    # The second: the rest; a new column, a column become text, another key, other names for the history.
    extra = Column("bonus", pa.date32(), "date")
    for t, stage_ in world.stages.items():
        if t not in (late, table("whole")):
            stage_.add([r for part in parts[t][1:] for r in part])
    grown = [{**r, "bonus": None} for r in world.told[table("grows")]]
    more: Row = {
        "id": 99,
        "region": "eu",
        "_hw_op": "c",
        "_hw_seq": 10**6,
        "_hw_at": END,
        "bonus": END.date(),
    }
    world.told[table("grows")] = [*grown, more]
    old = world.stages[table("grows")]
    old.schema = schema("grows", extra=[extra])
    old.add([more])
    _retype(world)
    world.stages[table("rekeyed")].schema = schema("rekeyed", key=("id", "region", "order"))
    world.told[table("rekeyed")] = _with_orders(world.told[table("rekeyed")])
    world.stages[table("rekeyed")].only(world.told[table("rekeyed")])
    world.specs[table("renamed")] = TableSpec(table("renamed"), history=HistoryNames("a", "b", "c", END))
    second = world.publish(news=[t for t in world.stages if t != table("whole")])
    assert sorted(second.rebuilt) == ["public__rekeyed", "public__renamed", "public__retyped"]
    assert not [m for m in second.models if m.name.endswith("whole")]
    world.check(*(t.name for t in world.stages if t != late))
    before = _all(world)

    # Windows that are no suffix, twice over, and what is late comes later still.
    _window(world, parts, 1)
    world.stages[late].only(parts[late][0])
    world.replay()
    _window(world, parts, 0)
    world.stages[late].only(parts[late][3] + parts[late][1])
    world.replay()
    world.check("late")
    assert {n: v for n, v in _all(world).items() if "late" not in n} == {
        n: v for n, v in before.items() if "late" not in n
    }

    # A warehouse that is gone is built from the staged changes by the same command; so is one built anew.
    for t, stage_ in world.stages.items():
        if t not in (table("grows"), table("retyped")):
            stage_.only(world.told[t])
    _restore_grown(world)
    Path(str(world.config.warehouse and world.config.warehouse.path)).unlink()
    world.publish(news=[])
    world.check()
    assert {n: v for n, v in _all(world).items() if "late" not in n} == {
        n: v for n, v in before.items() if "late" not in n
    }
    assert bag in world.stages


def _retype(world: World) -> None:
    """The lake wrote `score` again as text."""
    t = table("retyped")
    had = world.stages[t].schema
    columns = tuple(replace(c, type=pa.string()) if c.name == "score" else c for c in had.columns)
    world.told[t] = [
        {**r, "score": None if r.get("score") is None else str(r["score"])} for r in world.told[t]
    ]
    world.stages[t].schema = replace(had, columns=columns)
    world.stages[t].only(world.told[t])


def _with_orders(rows: Sequence[Row]) -> list[Row]:
    return [{**r, "order": r["order"] or "none"} for r in rows]


def _window(world: World, parts: Mapping[TableId, list[list[Row]]], n: int) -> None:
    """Stage one part alone, of the tables that are replayed."""
    for name in ("replayed", "bag_replayed", "pair", "mirrored", "named"):
        world.stages[table(name)].only(parts[table(name)][n])


def _restore_grown(world: World) -> None:
    t = table("grows")
    told = world.told[t]
    world.stages[t].only([])
    world.stages[t].add([{k: v for k, v in r.items() if k != "bonus"} for r in told[:-1]], schema("grows"))
    world.stages[t].add(told[-1:])


def _all(world: World) -> dict[str, list[tuple[object, ...]]]:
    names = [
        str(r[0]) for r in world.rows("select table_name from duckdb_tables() where schema_name = 'main'")
    ]
    return {n: _rows(world, n) for n in names}


def _rows(world: World, name: str) -> list[tuple[object, ...]]:
    order = sorted(
        str(r[0]) for r in world.rows(f"select column_name from duckdb_columns() where table_name = '{name}'")
    )
    columns = ", ".join(f'"{c}"' for c in order)
    return sorted(world.rows(f"select {columns} from {name}"), key=repr)


def test_a_backlog_beyond_the_memory_is_built_span_by_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(tmp_path)
    for name in {t.name for t in world.stages} - {"whole", "bag"}:
        del world.stages[table(name)], world.told[table(name)], world.specs[table(name)]
    for t, stage_ in world.stages.items():
        stage_.add(world.told[t])
    room = sum(len(rows) for rows in world.told.values()) * 16 * 10 // 2
    monkeypatch.setattr(build, "memory_bytes", lambda _: room * build._SHARE)
    cuts: list[list[int | None]] = []

    def watched(*words: Any) -> list[int | None]:
        cuts.append(spans(*words))
        return cuts[-1]

    monkeypatch.setattr(build, "spans", watched)
    done = world.publish(full_refresh=True)
    assert 2 <= len(cuts[0]) <= 5
    assert cuts[0][-1] is None
    assert done.tests_passed > 0
    world.check()
