"""Compaction: which files it writes, what it refuses, when it comes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from headwater import refresh as refresh_room
from headwater.config import HistoryNames, TableSpec
from headwater.errors import SchemaConflict
from headwater.lake import delta, rewrite
from headwater.lake.tail import THROUGH
from headwater.naming import table_path
from headwater.refresh import policy, upkeep
from lake.test_refresh import Script, column
from oracle.story import TABLE, Row
from oracle.world import World

OTHERS = ["n", "big", "price"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def script(world: World) -> Script:
    return Script(world)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 2048 rows; nothing is compacted by itself."""
    monkeypatch.setattr(delta, "GROUP_ROWS", 2048)
    monkeypatch.setattr(delta, "FILE_ROWS", 2048)
    monkeypatch.setattr(rewrite, "PACK_ROWS", 2048)
    monkeypatch.setattr(rewrite, "SMALL_ROWS", 512)
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    monkeypatch.setattr(policy, "WRITES", 0)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("seed", range(3))
def test_files_stay_apart_and_rows_are_right(world: World, script: Script, seed: int) -> None:
    dice = random.Random(seed)
    rows = {i * 10: i for i in range(20_000)}
    script.read(*(script.row("r", id=k, n=v) for k, v in rows.items()))
    world.refresh()
    for _ in range(4):
        changes: list[Row] = []
        near = dice.randrange(200_000)
        for _ in range(dice.choice([3, 300])):
            key = dice.choice(
                [near + dice.randrange(2000), 200_000 + dice.randrange(5000), dice.choice([*rows])]
            )
            if key not in rows:
                rows[key] = -key
                changes.append(script.row("c", id=key, n=-key))
            elif dice.random() < 0.3:
                rows.pop(key)
                changes.append(script.row("d", OTHERS, id=key))
            else:
                rows[key] = dice.randrange(1000)
                changes.append(script.row("u", id=key, n=rows[key]))
        script.put(*changes)
        world.refresh()
        if dice.random() < 0.7:
            world.compact()
        assert {r["id"]: r["n"] for r in world.rows("mirror")} == rows
        current = [r for r in world.rows("history") if r["is_current"]]
        assert {r["id"]: r["n"] for r in current} == rows and len(current) == len(rows)
    world.compact()
    held = world.lake.open(TABLE, "mirror")
    assert held is not None
    bounds = sorted(zip(held.files["min.id"].to_pylist(), held.files["max.id"].to_pylist(), strict=True))
    assert all(high < low for (_, high), (low, _) in zip(bounds, bounds[1:], strict=False))
    assert max(held.files["num_records"].to_pylist()) <= 3 * 2048


@pytest.mark.usefixtures("small_files")
def test_a_change_that_does_not_fit_is_found_at_compaction(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1), script.row("r", id=2, n=1))
    world.refresh()
    script.put(script.row("c", id=1, n=2))
    world.refresh()
    with pytest.raises(SchemaConflict, match="inserts a row that is already there") as failed:
        world.compact()
    assert "headwater run --full --table" in failed.value.hint
    assert sorted(column(world, "n")) == [1, 2]  # type: ignore[type-var]
    script.put(script.row("u", id=2, n=2))
    world.refresh()
    script.read(script.row("r", id=1, n=3), epoch=2)
    world.refresh()
    world.compact()
    assert column(world, "n") == [3]
    assert [r["n"] for r in world.rows("history") if r["is_current"]] == [3]
    assert _tail(world) == 0


@pytest.mark.parametrize("at_once", [False, True])
def test_a_full_load_heals_what_compaction_refuses(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    script.read(script.row("r", id=1, n=1), script.row("r", id=2, n=1))
    world.refresh()
    script.put(script.row("c", id=1, n=2))
    if not at_once:
        for _ in range(2):
            with pytest.raises(SchemaConflict, match="inserts a row that is already there"):
                world.refresh()
    script.read(script.row("r", id=1, n=3), epoch=2)
    world.refresh()
    assert column(world, "n") == [3]
    assert _tail(world) == 0


@pytest.mark.usefixtures("small_files")
def test_what_cannot_follow_is_refused_before_it_is_committed(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    script.put(script.row("c", id=2, n=2), script.row("c", id=2, n=3))
    with pytest.raises(SchemaConflict, match="already there"):
        world.refresh()
    assert column(world, "n", "changes") == [1]


def test_a_large_table_is_compacted_when_its_tail_has_grown(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "SMALL_TABLE", 5)
    script.read(*(script.row("r", id=i, n=0) for i in range(40)))
    world.refresh()
    tails = []
    for n in range(9):
        script.put(script.row("u", id=n, n=1))
        world.refresh()
        tails.append(_tail(world))
    assert tails == [1, 2, 3, 0, 1, 2, 3, 0, 1], "a tenth of the mirror"
    assert sum(1 for n in column(world, "n") if n == 1) == 9


@pytest.mark.usefixtures("small_files")
def test_a_key_comes_back_after_another_engine_merged_the_history(world: World, script: Script) -> None:
    """Then ended versions stand beside open ones: the key is there, but no row to take the place of."""
    script.read(script.row("r", id=1, n=1), script.row("r", id=2, n=2), script.row("r", id=3, n=3))
    world.refresh()
    script.put(script.row("d", OTHERS, id=2))
    world.refresh()
    world.compact()
    assert world.storage.local
    history = DeltaTable(str(world.storage.local / "lake" / table_path(TABLE) / "history"))
    assert history.optimize.compact()["numFilesRemoved"] == 2
    script.put(script.row("c", id=2, n=5))
    world.refresh()
    world.compact()
    assert _tail(world) == 0
    told = {(r["id"], r["n"], r["is_current"]) for r in world.rows("history")}
    assert told == {(1, 1, True), (2, 2, False), (2, 5, True), (3, 3, True)}


def test_ended_versions_are_sorted_only_where_there_is_room(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    monkeypatch.setattr(policy, "WRITES", 0)
    script.read(*(script.row("r", id=n, n=0) for n in range(9)))
    world.refresh()
    script.put(*(script.row("u", id=8 - n, n=1) for n in range(9)))
    world.refresh()
    orders: list[tuple[str, ...]] = []
    write = delta.Lake.write

    def record(lake: delta.Lake, con: Any, rows: str, layout: Any, order: Any, *more: Any) -> Any:
        orders.append(tuple(order))
        return write(lake, con, rows, layout, order, *more)

    monkeypatch.setattr(delta.Lake, "write", record)
    monkeypatch.setattr(refresh_room, "_SHARE", 10**12)  # of the memory: no bytes at all
    world.compact()
    assert orders and not any("_hw_seq" in order for order in orders)


def test_compacting_again_does_nothing(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    before = world.lake.version(TABLE)
    world.compact()
    assert world.lake.version(TABLE) == before


def test_compacting_after_a_load_that_found_nothing_new_does_nothing(world: World, script: Script) -> None:
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    script.read(script.row("r", id=1, n=1), epoch=2)
    world.refresh()
    before = world.lake.version(TABLE)
    world.compact()
    assert world.lake.version(TABLE) == before
    script.put(script.row("u", id=1, n=2))
    world.refresh()
    assert column(world, "n") == [2]


def test_a_lake_of_before_goes_on(world: World, script: Script) -> None:
    """Its bases say nothing of how far they go; one of them may be behind after a stop."""
    script.read(*(script.row("r", id=i, n=0) for i in range(4)))
    script.put(script.row("d", OTHERS, id=3))
    world.refresh()
    _forget_through(world, "mirror")
    _forget_through(world, "history")
    assert len(world.rows("mirror")) == 3
    script.put(script.row("u", id=0, n=1))
    world.refresh()
    assert sorted((r["id"], r["n"]) for r in world.rows("mirror")) == [(0, 1), (1, 0), (2, 0)]
    assert len(world.rows("history")) == 5
    behind = world.lake.open(TABLE, "mirror")
    script.put(script.row("u", id=1, n=1))
    world.refresh()
    assert behind is not None
    _forget_through(world, "mirror", behind)
    script.put(script.row("u", id=2, n=1))
    world.refresh()
    assert sorted((r["id"], r["n"]) for r in world.rows("mirror")) == [(0, 1), (1, 1), (2, 1)]
    assert len(world.rows("history")) == 7


def _forget_through(world: World, kind: str, earlier: delta.Held | None = None) -> None:
    """Write the base (or what it was earlier) as the lake of before did."""
    held = world.lake.open(TABLE, kind)  # type: ignore[arg-type]
    assert held is not None
    notes = {name: told for name, told in held.notes.items() if name != THROUGH}
    then = earlier or held
    with world.lake.connect() as con:
        add = world.lake.write(con, f"SELECT * FROM {world.lake.scan(then)}", then.layout, ["_hw_seq"])
    change = delta.Change(then.mark, then.schema, then.layout, add, replace=True, notes=notes)
    world.lake.commit(TABLE, held.kind, held, change)


def _tail(world: World) -> int:
    kinds = ("mirror", "history", "changes")
    return policy.tail_rows({kind: world.lake.open(TABLE, kind) for kind in kinds})  # type: ignore[arg-type]


def test_types_that_grow_meet_a_tail(world: World, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    monkeypatch.setattr(policy, "WRITES", 0)
    script.types(n=pa.int16())
    script.read(script.row("r", id=1, n=1), script.row("r", id=2, n=2))
    world.refresh()
    script.put(script.row("u", id=1, n=5))
    world.refresh()
    script.types(n=pa.int64())
    script.put(script.row("u", ["n", "big"], id=2, n=None), script.row("c", id=3, n=1 << 40))
    world.refresh()
    for _ in range(2):
        assert {r["id"]: r["n"] for r in world.rows("mirror")} == {1: 5, 2: 2, 3: 1 << 40}
        assert len(world.rows("history")) == 5
        world.compact()


def test_small_files_of_changes_become_one(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    monkeypatch.setattr(policy, "WRITES", 0)
    monkeypatch.setattr(upkeep, "MERGED", 4)
    script.read(script.row("r", id=0, n=0))
    world.refresh()
    counts = []
    for n in range(1, 24):
        script.put(script.row("c", id=n, n=n))
        world.refresh()
        changes = world.lake.open(TABLE, "changes")
        assert changes is not None
        counts.append(changes.files.num_rows)
        assert sorted(column(world, "n")) == list(range(n + 1))  # type: ignore[type-var]
        if n == 10:
            world.compact()
            assert _tail(world) == 0
    assert max(counts) <= 12, "3 of each size, apart on either side of where the mirror ends"
    assert column(world, "n", "changes") == list(range(24))
    assert _tail(world) == 13


@pytest.mark.usefixtures("small_files")
def test_full_files_of_changes_are_left_alone(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows so wide that a file has few of them: merged, they would be the same files again."""
    monkeypatch.setattr(upkeep, "MERGED", 4)
    script.read(*(script.row("r", id=n, n=0) for n in range(10_000)))
    world.refresh()
    loaded = {path.name for path in world.lake.files(TABLE, "changes")}
    assert len(loaded) == 5 and world.lake.version(TABLE, "changes") == 0
    for n in range(3):
        script.put(script.row("u", id=n, n=1))
        world.refresh()
    files = {path.name for path in world.lake.files(TABLE, "changes")}
    assert loaded < files and len(files) == 8


def test_files_that_left_long_ago_are_deleted(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.read(script.row("r", id=0, n=0))
    world.refresh()
    assert world.storage.local
    folder = world.storage.local / "lake" / table_path(TABLE) / "mirror"
    with monkeypatch.context() as earlier:
        week = 8 * 24 * 3600
        earlier.setattr(delta, "time", SimpleNamespace(time=lambda: time.time() - week))
        for n in range(3):
            script.put(script.row("u", id=0, n=n))
            world.refresh()
    assert len(list(folder.glob("*.parquet"))) == 4
    monkeypatch.setattr(upkeep, "SWEPT_BYTES", 1)
    script.put(script.row("u", id=0, n=5))
    world.refresh()
    assert len(list(folder.glob("*.parquet"))) == 2, "what left just now stays for its readers"
    assert column(world, "n") == [5]
    assert world.lake.mark(TABLE, "mirror") == world.lake.mark(TABLE, "changes")


@pytest.mark.parametrize("changes_too", [False, True])
def test_other_names_of_history_columns_over_a_tail(
    world: World, script: Script, monkeypatch: pytest.MonkeyPatch, changes_too: bool
) -> None:
    """They take effect with the next change, or where a tail is compacted; until then the old ones hold."""
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    monkeypatch.setattr(policy, "WRITES", 0)
    script.read(script.row("r", id=1, n=1), script.row("r", id=2, n=1))
    world.refresh()
    script.put(script.row("u", id=1, n=2), script.row("d", OTHERS, id=2))
    world.refresh()
    assert _tail(world) == 2
    newest, end = 2, datetime(9999, 12, 31, tzinfo=UTC)
    for names in (HistoryNames("since", "until", "now", end), HistoryNames("a", "b", "c")):
        before, world.spec = world.spec.history, TableSpec(TABLE, history=names)
        wanted = [*((1, n, n == newest) for n in range(1, newest + 1)), (2, 1, False)]
        assert _spans(world, before) == wanted
        if changes_too or not _tail(world):
            newest += 1
            script.put(script.row("u", id=1, n=newest))
            wanted[newest - 2 :] = [(1, newest - 1, False), (1, newest, True), (2, 1, False)]
            world.refresh()
        else:
            world.compact()
        assert _spans(world, names) == wanted
        assert {r["id"]: r["n"] for r in world.rows("mirror")} == {1: newest}


def _spans(world: World, names: HistoryNames) -> list[tuple[object, object, object]]:
    rows = world.rows("history", "id, n")
    for row in rows:
        assert (row[names.valid_to] == names.open_end) == row[names.current] == (row["_hw_seq_to"] is None)
        assert row[names.valid_from] == row["_hw_at"]
    return [(row["id"], row["n"], row[names.current]) for row in rows]
