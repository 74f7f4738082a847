"""What every Source must do: subclass, give the fixture `world`, a live source with one table of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa
import pytest

from headwater.errors import PositionLost
from headwater.model import META, STRIDE, ChangeBatch, Digest, Position, TableId, TableSchema
from headwater.sources import Source

Row = dict[str, Any]


class World(Protocol):
    """A source, a table with the integer key `id` and a text column `v`, and hands to write with."""

    source: Source
    table: TableId

    def reopen(self) -> Source:
        """Close the source and open it again, as another process would."""
        ...

    def write(self, *changes: tuple[str, int, str | None]) -> None:
        """One committed transaction of (c | u | d, id, v)."""
        ...


def rows_of(batches: list[ChangeBatch]) -> list[Row]:
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    return sorted(rows, key=lambda row: row["_hw_seq"])


def read_all(world: World) -> tuple[TableSchema, dict[int, str | None], Position]:
    with world.source.cut() as cut:
        batches = list(cut.read(world.table))
        assert [b.phase for b in batches] == ["snapshot"] * (len(batches) - 1) + ["snapshot_end"]
        return batches[-1].schema, {r["id"]: r["v"] for r in rows_of(batches)}, cut.position


def follow(
    world: World, since: Position, until: Position | None = None, **more: Any
) -> tuple[list[ChangeBatch], Position]:
    """All batches, and the last position; after each position what came before it is complete."""
    items = list(world.source.changes([world.table], since, until, **{"known": {}, **more}))
    assert isinstance(items[-1], Position)
    return [item for item in items if isinstance(item, ChangeBatch)], items[-1]


def brief(batches: list[ChangeBatch]) -> list[tuple[str, int, str | None]]:
    return [(r["_hw_op"], r["id"], r["v"]) for r in rows_of(batches)]


class SourceContract:
    """One suite for all sources."""

    @pytest.fixture
    def started(self, world: World) -> Position:
        world.source.prepare([world.table], None)
        return read_all(world)[2]

    def test_listed_and_checked_without_a_change(self, world: World) -> None:
        for _ in range(2):
            (info,) = [i for i in world.source.tables() if i.schema.table == world.table]
            assert (info.note, info.schema.key) == ("", ("id",))
            assert not [f for f in world.source.check([world.table]) if f.level == "fail"]

    def test_prepare_tells_what_is_new_once(self, world: World) -> None:
        assert list(world.source.prepare([world.table], None)) == [world.table]
        assert list(world.source.prepare([world.table], None)) == []

    def test_rows_have_the_shape_of_the_raw_log(self, world: World, started: Position) -> None:
        world.write(("c", 1, "x"))
        with world.source.cut() as cut:
            snapshot = list(cut.read(world.table))
        changes, _ = follow(world, started)
        for batch in (*snapshot, *changes):
            assert batch.rows.schema.equals(pa.schema([*batch.schema.arrow(), *META]))
            sequence = batch.rows["_hw_seq"].to_pylist()
            assert sequence == sorted(set(sequence))
            assert set(batch.rows["_hw_pos"].to_pylist()) != {None}
        assert snapshot[-1].schema == changes[0].schema
        assert rows_of(changes)[0]["_hw_seq"] == 2
        assert rows_of(changes)[0]["_hw_seq"] // STRIDE == 0

    def test_a_cut_is_frozen(self, world: World) -> None:
        world.source.prepare([world.table], None)
        world.write(("c", 1, "x"))
        with world.source.cut() as cut:
            world.write(("u", 1, "y"), ("c", 2, "z"))
            batches = list(cut.read(world.table))
            before = cut.digests(batches[-1].schema)[0]
            position = cut.position
        assert brief(batches) == [("r", 1, "x")]
        assert before.rows == 1
        assert brief(follow(world, position)[0]) == [("u", 1, "y"), ("c", 2, "z")]
        with world.source.cut() as cut:
            assert cut.digests(batches[-1].schema)[0] != before

    def test_slices_add_up_and_can_be_read_alone(self, world: World) -> None:
        world.write(*(("c", n, "x") for n in range(20)))
        with world.source.cut() as cut:
            schema = list(cut.read(world.table))[-1].schema
            (whole,) = cut.digests(schema).values()
            slices = cut.digests(schema, 8)
            assert sum(slices.values(), Digest(0)) == whole
            assert len(slices) > 1
            one = min(slices)
            picked = list(cut.pick(schema, 8, [one]))
            assert picked[-1].phase == "snapshot_end"
            assert sum(batch.rows.num_rows for batch in picked) == slices[one].rows < whole.rows
            rest = list(cut.pick(schema, 8, [n for n in range(8) if n != one]))
            assert len({row[1] for row in brief([*picked, *rest])}) == whole.rows

    def test_an_empty_table_is_a_snapshot_too(self, world: World) -> None:
        schema, rows, _ = read_all(world)
        assert rows == {}
        assert schema.table == world.table

    def test_nothing_new_is_a_position(self, world: World, started: Position) -> None:
        batches, reached = follow(world, started)
        assert batches == []
        assert follow(world, reached) == ([], reached)
        assert world.source.behind(reached) == 0
        assert world.source.show(reached)

    def test_until_is_reached_exactly(self, world: World, started: Position) -> None:
        world.write(("c", 1, "x"))
        middle = read_all(world)[2]
        world.write(("c", 2, "y"))
        batches, reached = follow(world, started, middle)
        assert (brief(batches), reached) == ([("c", 1, "x")], middle)
        assert brief(follow(world, reached)[0]) == [("c", 2, "y")]
        assert follow(world, middle, started) == ([], middle)

    def test_what_is_not_confirmed_comes_again_in_another_process(
        self, world: World, started: Position
    ) -> None:
        world.source.confirm(started)
        world.write(("c", 1, "x"))
        first, _ = follow(world, started)
        world.source = world.reopen()
        world.source.prepare([world.table], started)
        again, reached = follow(world, started)
        assert [b.rows for b in again] == [b.rows for b in first]
        world.source.confirm(reached)
        world.source.confirm(reached)
        world.write(("d", 1, None))
        world.source = world.reopen()
        assert brief(follow(world, reached)[0]) == [("d", 1, None)]

    def test_other_tables_do_not_come(self, world: World, started: Position) -> None:
        world.write(("c", 1, "x"))
        assert list(world.source.changes([TableId("no", "such")], started, known={}))[:-1] == []

    def test_another_type_asks_for_a_reload(self, world: World, started: Position) -> None:
        schema = read_all(world)[0]
        other = replace(schema.columns[1], native="another type")
        known = {world.table: replace(schema, columns=(schema.columns[0], other))}
        assert list(world.source.unlogged({world.table: schema})) == []
        assert list(world.source.unlogged(known)) == [world.table]
        world.write(("c", 1, "x"))
        assert [b.reload for b in follow(world, started, known=known)[0]] == [True]
        assert [b.reload for b in follow(world, started, known={world.table: schema})[0]] == [False]

    def test_a_renamed_column_is_told_of_and_not_read_again(self, world: World, started: Position) -> None:
        schema = read_all(world)[0]
        renamed = replace(schema.columns[1], name="old", source_name="old")
        known = {world.table: replace(schema, columns=(schema.columns[0], renamed))}
        assert list(world.source.evolved({world.table: schema})) == []
        assert list(world.source.evolved(known)) == [schema]
        assert list(world.source.unlogged(known)) == []
        world.write(("c", 1, "x"))
        assert [b.reload for b in follow(world, started, known=known)[0]] == [False]

    def test_a_foreign_position_is_refused(self, world: World, started: Position) -> None:
        for token in ("", "{}", "nonsense", "[1]"):
            with pytest.raises(PositionLost):
                world.source.prepare([world.table], Position(token))

    def test_references_are_told_by_the_sources_names(self, world: World) -> None:
        assert [r for r in world.source.references() if world.table in (r.table, r.parent)] == []
