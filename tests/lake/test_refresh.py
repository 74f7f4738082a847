# ruff: noqa: E501  one case, one line
"""Refresh beyond the oracle's stories: types that grow, keys that change, modes, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.config import HistoryNames, TableSpec
from headwater.errors import ConfigError, Conflict, Corrupt, SchemaConflict, StorageError
from headwater.lake import delta
from headwater.lake.delta import Lake
from headwater.model import META, STRIDE, ChangeBatch, Column, Mark, Position, TableId, TableSchema
from headwater.naming import table_path
from headwater.raw import RawLog
from headwater.refresh import refresh
from headwater.storage import Storage
from oracle.story import FIRST, START, TABLE, Batch, Row
from oracle.world import World

AMOUNT = Column("n", pa.int32(), "int4")


class Script:
    """Writes raw rows by hand."""

    def __init__(self, world: World) -> None:
        self.world, self.number, self.schema, self.epoch = world, 0, FIRST, 1

    def row(self, op: str, unset: list[str] | None = None, text: str | None = None, **cells: object) -> Row:
        self.number += 1
        seq = self.number * STRIDE + 2
        meta = {"_hw_pos": "0/1", "_hw_at": START, "_hw_tx": "1", "_hw_unset": unset, "_hw_text": text}
        return {**cells, "_hw_op": op, "_hw_seq": seq, **meta}

    def put(self, *rows: Row, reload: bool = False) -> None:
        """One entry of changes."""
        self.world.write([[Batch(self.schema, list(rows), "changes", self.epoch, reload)]])

    def read(self, *rows: Row, epoch: int = 1) -> None:
        """A whole snapshot."""
        self.epoch = epoch
        self.world.write([[Batch(self.schema, list(rows), "snapshot_end", epoch)]])

    def types(self, **types: pa.DataType) -> None:
        """The source's columns change type."""
        columns = tuple(replace(c, type=types.get(c.name, c.type)) for c in self.schema.columns)
        self.schema = replace(self.schema, columns=columns)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def script(world: World) -> Script:
    return Script(world)


def column(world: World, name: str, kind: str = "mirror") -> list[object]:
    return [r[name] for r in world.rows(kind)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "value", "after", "new", "told"),
    [
        (pa.int16(), 5, pa.int64(), 1 << 40, [5, 1 << 40]),
        (pa.float32(), 1.5, pa.float64(), 1e300, [1.5, 1e300]),
        (pa.decimal128(5, 2), Decimal("1.25"), pa.decimal128(9, 4), Decimal("2.5"), [Decimal("1.25"), Decimal("2.5")]),
        (pa.decimal128(38, 0), Decimal(10**37), pa.decimal128(38, 9), Decimal("0.5"), [str(10**37), "0.500000000"]),
        (pa.int64(), 7, pa.string(), "x7", ["7", "x7"]),
        (pa.bool_(), True, pa.string(), "yes", ["t", "yes"]),
        (pa.binary(), b"\xff", pa.string(), "x", ["ff", "x"]),
        (pa.date32(), datetime(1970, 1, 3).date(), pa.string(), "x", ["2", "x"]),
        (pa.timestamp("us", "UTC"), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), pa.string(), "x", ["1000000", "x"]),
        (pa.time64("us"), time(0, 0, 1), pa.string(), "x", ["1000000", "x"]),
        (pa.string(), "word", pa.int64(), 8, ["word", "8"]),
        (pa.int64(), 3, pa.float64(), 0.5, ["3", "4602678819172646912"]),
    ],
)  # fmt: skip
def test_a_column_that_changes_its_type(
    script: Script,
    before: pa.DataType,
    value: object,
    after: pa.DataType,
    new: object,
    told: list[object],
) -> None:
    world = script.world
    script.types(n=before)
    script.read(script.row("r", id=1, n=value))
    script.put(script.row("u", id=1, n=value, big="closed"))
    world.refresh()
    script.types(n=after)
    script.put(script.row("c", id=2, n=new))
    world.refresh()
    assert column(world, "n") == told
    assert column(world, "n", "changes") == [told[0], *told]
    assert column(world, "n", "history") == [told[0], *told]
    assert [r["is_current"] for r in world.rows("history")] == [False, True, True]


def test_a_key_column_grows_and_rows_are_still_found(world: World, script: Script) -> None:
    script.types(id=pa.int32())
    script.read(script.row("r", id=1, n=1), script.row("r", id=2, n=2))
    world.refresh()
    script.types(id=pa.int64())
    script.put(script.row("u", id=1, n=10), script.row("d", ["n", "big", "price"], id=2))
    world.refresh()
    assert column(world, "n") == [10]
    assert column(world, "n", "changes") == [1, 2, 10, None]


def test_a_dropped_column_stays_and_a_resync_makes_no_versions_of_it(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1, big="b"), script.row("r", id=2, n=2, big="c"))
    world.refresh()
    script.schema = replace(FIRST, columns=tuple(c for c in FIRST.columns if c.name != "big"))
    script.put(script.row("u", id=1, n=10))
    script.read(script.row("r", id=1, n=10), script.row("r", id=2, n=2), epoch=2)
    done = world.refresh()
    assert done is not None and done.versions == 1
    assert column(world, "big") == ["c", None]
    assert [c.name for c in done.schema.columns] == ["id", "n", "big", "price"]


def test_a_column_renamed_in_case_only(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1, big="b", price=None, text='{"price": "NaN"}'))
    world.refresh()
    names = {"big": "Big", "price": "PRICE"}
    script.schema = replace(
        FIRST, columns=tuple(replace(c, name=names.get(c.name, c.name)) for c in FIRST.columns)
    )
    script.put(script.row("u", ["Big"], id=1, n=2, text='{"PRICE": "Infinity"}'))
    world.refresh()
    assert column(world, "Big", "changes") == ["b", "b"]
    assert column(world, "_hw_text") == ['{"PRICE":"Infinity"}']
    assert [c.name for c in world.lake.schema(TABLE).columns] == ["id", "n", "Big", "PRICE"]  # type: ignore[union-attr]


def test_another_key_replaces_the_table_at_the_next_snapshot(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1), script.row("r", id=2, n=2))
    world.refresh()
    script.schema = replace(FIRST, key=("n",))
    script.put(script.row("u", id=5, n=1))
    with pytest.raises(SchemaConflict, match="its key changed"):
        world.refresh()
    script.read(script.row("r", id=5, n=1), script.row("r", id=2, n=2), epoch=2)
    done = world.refresh()
    assert done is not None and done.schema.key == ("n",)
    assert sorted(zip(column(world, "id"), column(world, "n"), strict=True)) == [(2, 2), (5, 1)]  # type: ignore[type-var]
    assert [r["is_current"] for r in world.rows("history")] == [False, False, True, True]
    script.put(script.row("u", id=6, n=1))
    world.refresh()
    assert sorted(column(world, "id")) == [2, 6]  # type: ignore[type-var]


def test_history_switched_on_late_is_made_from_the_changes(world: World, script: Script) -> None:
    world.spec = TableSpec(TABLE, mode="mirror")
    script.read(script.row("r", id=1, n=1))
    script.put(script.row("u", id=1, n=2))
    world.refresh()
    assert world.lake.mark(TABLE, "history") is None
    world.spec = TableSpec(TABLE)
    script.put(script.row("u", id=1, n=3))
    world.refresh()
    spans = [(r["n"], r["_hw_seq"], r["_hw_seq_to"], r["is_current"]) for r in world.rows("history")]
    assert spans == [(1, 6, 10, False), (2, 10, 14, False), (3, 14, None, True)]


def test_history_gets_its_new_names(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    end = datetime(9999, 12, 31, tzinfo=UTC)
    world.spec = TableSpec(TABLE, history=HistoryNames("since", "until", "now", end))
    script.put(script.row("u", id=1, n=2))
    world.refresh()
    rows = world.rows("history")
    assert [(r["since"] == START, r["until"] == end, r["now"]) for r in rows] == [
        (True, False, False),
        (True, True, True),
    ]
    script.put(script.row("u", id=1, n=3))
    world.refresh()
    assert [r["until"] == end for r in world.rows("history")] == [False, False, True]


def test_a_column_called_like_a_history_column_is_refused(world: World, script: Script) -> None:
    script.schema = replace(FIRST, columns=(*FIRST.columns, Column("Valid_To", pa.string())))
    script.read(script.row("r", id=1))
    with pytest.raises(ConfigError, match="valid_to"):
        world.refresh()


@pytest.mark.parametrize(
    ("op", "cells", "what"),
    [
        ("c", {"id": 1}, "inserts a row that is already there"),
        ("u", {"id": 2}, "updates a row that is not there"),
        ("d", {"id": 2}, "deletes a row that is not there"),
    ],
)
def test_changes_that_do_not_fit_stop_and_a_resync_heals(
    world: World, script: Script, op: str, cells: Row, what: str
) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    script.put(script.row(op, **cells))
    for _ in range(2):
        with pytest.raises(SchemaConflict, match=what) as failed:
            world.refresh()
        assert "headwater run --full --table" in failed.value.hint
    assert column(world, "n") == [1]
    script.read(script.row("r", id=1, n=2), epoch=2)
    world.refresh()
    assert column(world, "n") == [2]


def test_cells_left_out_of_a_new_row_are_never_null(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    script.put(script.row("c", ["big"], id=2, n=1))
    with pytest.raises(SchemaConflict, match="lacks cells"):
        world.refresh()


def test_cells_left_out_of_a_renamed_column_are_not_null_either(world: World, script: Script) -> None:
    """The lake's row is older than the column: what the log left out is not to be had, until the table is read again."""
    script.read(script.row("r", id=1, n=1, big="b"), script.row("r", id=2, n=1, big="b"))
    script.put(script.row("u", id=1, n=2, big="b2"))
    script.schema = replace(
        FIRST, columns=tuple(replace(c, name="large") if c.name == "big" else c for c in FIRST.columns)
    )
    script.put(
        script.row("d", ["n", "large", "price"], id=2), script.row("u", ["large"], id=1, n=3), reload=True
    )
    with pytest.raises(SchemaConflict, match="lacks cells"):
        world.refresh()
    assert column(world, "n") == [1, 2]
    script.read(script.row("r", id=1, n=3, large="b2"), epoch=2)
    world.refresh()
    assert [(r["_hw_op"], r["n"], r["big"], r.get("large")) for r in world.rows("changes")] == [
        ("r", 1, "b", None), ("r", 1, "b", None), ("u", 2, "b2", None), ("d", 1, "b", None), ("r", 3, None, "b2"),
    ]  # fmt: skip


def test_cells_left_out_of_an_added_column_are_null(world: World, script: Script) -> None:
    """As a minimal row image has it: the column came without a default, so what did not change is NULL."""
    script.read(script.row("r", id=1, n=1))
    script.schema = replace(FIRST, columns=(*FIRST.columns, Column("extra", pa.string())))
    script.put(script.row("u", ["big", "extra"], id=1, n=2))
    world.refresh()
    assert column(world, "extra", "changes") == [None, None]


def test_keys_that_only_text_can_hold(world: World, script: Script) -> None:
    script.schema = replace(FIRST, key=("price",))
    nan, inf = '{"price":"NaN"}', '{"price": "Infinity"}'
    script.read(
        script.row("r", price=Decimal(1), n=1), script.row("r", text=nan, n=2), script.row("r", text=inf, n=3)
    )
    world.refresh()
    script.put(script.row("u", text=nan, n=20), script.row("d", ["id", "n", "big"], text=inf))
    world.refresh()
    assert column(world, "n") == [1, 20]
    assert column(world, "n", "changes") == [1, 2, 3, 20, None]


def test_only_touched_files_are_rewritten(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "FILE_ROWS", 122_880)
    monkeypatch.setattr("headwater.lake.rewrite.SMALL_ROWS", 0)
    world.spec = replace(world.spec, compact="always")
    script.read(*(script.row("r", id=i, n=i) for i in range(300_000)))
    world.refresh()
    before = world.lake.open(TABLE, "mirror")
    assert before is not None and before.files.num_rows > 1
    script.put(script.row("u", id=299_999, n=-1), script.row("c", id=300_000, n=-2))
    world.refresh()
    after = world.lake.open(TABLE, "mirror")
    assert after is not None
    kept = set(before.files["path"].to_pylist()) & set(after.files["path"].to_pylist())
    assert len(kept) == before.files.num_rows - 1
    history = world.lake.open(TABLE, "history")
    assert history is not None
    assert sum(n == 0 for n in history.files["null_count._hw_seq_to"].to_pylist()) == 1
    script.put(script.row("u", id=0, n=-3), script.row("d", ["n", "big", "price"], id=150_000))
    world.refresh()
    found = {r["id"]: r["n"] for r in world.rows("mirror", "id")}
    assert found == {i: i for i in range(300_000) if i != 150_000} | {0: -3, 299_999: -1, 300_000: -2}


def test_the_lake_is_rebuilt_when_its_folder_is_gone(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    assert world.storage.local
    shutil.rmtree(world.storage.local / "lake" / table_path(TABLE))
    script.put(script.row("u", id=1, n=2))
    world.refresh(after=0)
    assert column(world, "n", "changes") == [1, 2]


def test_a_base_that_is_gone_is_not_an_empty_table(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    schema, local = world.lake.schema(TABLE), world.storage.local
    assert schema and local
    for kind in ("mirror", "history"):
        shutil.rmtree(local / "lake" / table_path(TABLE) / kind)
        with world.lake.connect() as con, pytest.raises(StorageError, match=f"no {kind} of this table"):
            world.lake.relation(con, TABLE, kind, schema)
    script.put(script.row("u", id=1, n=2))
    world.refresh()
    assert column(world, "n") == [2] and len(column(world, "n", "history")) == 2


def test_a_table_that_was_empty_takes_its_first_rows(world: World, script: Script) -> None:
    script.read()
    assert world.refresh() is None
    script.put(script.row("c", id=1, n=1))
    done = world.refresh(after=0)
    assert done is not None and done.mark == Mark(1, 1)
    assert column(world, "n") == [1]


def test_changes_behind_the_mirror_are_an_error(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    assert world.storage.local
    shutil.rmtree(world.storage.local / "lake" / table_path(TABLE) / "changes")
    script.put(script.row("u", id=1, n=2))
    with pytest.raises(Corrupt, match="end before its mirror"):
        world.refresh()


def test_a_stale_runner_cannot_publish(world: World, script: Script) -> None:
    """It opened the lake, slept, and another runner went on."""
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    script.put(script.row("u", id=1, n=2))
    stale = {kind: world.lake.open(TABLE, kind) for kind in ("mirror", "history", "changes")}  # type: ignore[arg-type]
    world.refresh()
    script.put(script.row("u", id=1, n=3))

    class Sleeper(delta.Lake):
        def open(self, table, kind):  # type: ignore[no-untyped-def]
            return stale[kind]

    with pytest.raises(Conflict):
        refresh(RawLog(world.storage), Sleeper(world.storage), {TABLE: world.spec}, memory_limit="500MB")
    world.refresh()
    assert column(world, "n", "changes") == [1, 2, 3]


def test_one_bad_table_does_not_stop_the_others(world: World, script: Script) -> None:
    bad = TableSchema(replace(TABLE, name="bad"), FIRST.columns, FIRST.key)
    script.read(script.row("r", id=1, n=1))
    world.write([[Batch(bad, [script.row("r", id=1)], "snapshot_end", 1)]])
    world.write([[Batch(bad, [script.row("u", id=2)], "changes", 1)]])
    script.put(script.row("u", id=1, n=2))
    specs = {TABLE: world.spec, bad.table: TableSpec(bad.table)}
    with pytest.raises(SchemaConflict, match="bad"):
        refresh(world.log, world.lake, specs, memory_limit="500MB")
    assert column(world, "n") == [2]


def test_columns_with_names_that_sql_knows(world: World, script: Script) -> None:
    names = (
        "id",
        "select",
        *"abcdeflnorstvwk",
        "filename",
        "cell",
        "origin",
        "lives",
        "ordered",
        "valid",
        "épée",
    )
    script.schema = TableSchema(TABLE, tuple(Column(n, pa.string()) for n in names), ("id",))
    cells = {n: n for n in names}
    script.read(script.row("r", **cells))
    script.put(script.row("u", list(names[1:]), **{**dict.fromkeys(names), "id": "id"}))
    script.put(script.row("t"), script.row("c", **cells))
    rest, moved = list(names[1:]), {**dict.fromkeys(names), "id": "new"}
    script.number += 1
    script.put(
        {**script.row("d", rest, **{**moved, "id": "id"}), "_hw_seq": script.number * STRIDE + 1},
        {**script.row("c", rest, **moved), "_hw_seq": script.number * STRIDE - 2},
    )
    world.refresh()
    script.read(script.row("r", **{**cells, "id": "new", "v": "w"}), epoch=2)
    world.refresh()
    assert [{n: r[n] for n in names} for r in world.rows("mirror")] == [{**cells, "id": "new", "v": "w"}]
    assert column(world, "lives", "changes") == ["lives", "lives", None, "lives", None, "lives", "lives"]


def test_a_backlog_many_times_the_memory_is_folded_in_pieces(tmp_path: Path) -> None:
    """20 entries of 8 MB of wide rows each, in 96 MB: neither windows nor sorts nor row groups may hold them all."""
    storage = Storage.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    schema = TableSchema(
        TableId("s", "wide"), (Column("id", pa.int64()), Column("big", pa.string())), ("id",)
    )
    log, lake = RawLog(storage), Lake(storage, "96MB")
    wide = pa.array([f"{n:08d}" * 1000 for n in range(1000)])
    for entry in range(20):
        meta: dict[str, pa.Array] = {
            "_hw_op": pa.array([("r" if entry == 0 else "u")] * 1000),
            "_hw_seq": pa.array([n * STRIDE + 2 for n in range(1000)], pa.int64()),
        }
        rows = {"id": pa.array(range(1000), pa.int64()), "big": wide, **meta}
        rows |= {f.name: pa.nulls(1000, f.type) for f in META if f.name not in meta}
        rows["_hw_at"] = pa.array(
            [datetime(2026, 1, 1, 0, entry, tzinfo=UTC)] * 1000, META.field("_hw_at").type
        )
        table = pa.table(
            [rows[n] for n in (*schema.arrow().names, *META.names)], pa.schema([*schema.arrow(), *META])
        )
        batch = ChangeBatch(schema, table, "snapshot_end" if entry == 0 else "changes")
        ref = log.stage(batch, 1, entry * 1000 * STRIDE)
        log.append([ref], Position(str(entry)), (entry + 1) * 1000 * STRIDE)
    done = refresh(log, lake, {schema.table: TableSpec(schema.table)}, memory_limit="96MB")
    assert done[schema.table].versions == 20_000
    with lake.connect() as con:
        for kind, count in (("mirror", 1000), ("history", 20_000)):
            assert con.execute(
                f"SELECT count(*) FROM {lake.relation(con, schema.table, kind)}"
            ).fetchall() == [(count,)]
