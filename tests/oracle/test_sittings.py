"""A full load read in several sittings, with changes between them, against a few lines of plain Python."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from headwater.config import TableSpec
from headwater.errors import SchemaConflict
from headwater.model import STRIDE
from oracle.conftest import Worlds
from oracle.story import FIRST, START, TABLE, Batch, Row
from oracle.test_fold import long_tails
from oracle.world import World, plain

EXAMPLES = int(os.environ.get("HEADWATER_ORACLE_EXAMPLES", "25"))
KEYS = range(1, 9)
NAMES = [c.name for c in FIRST.columns]
OTHERS = [n for n in NAMES if n != "id"]


@dataclass
class Source:
    """A table whose pages are parts: `place` says which part a row lies in."""

    dice: random.Random
    number: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    place: dict[int, int] = field(default_factory=dict)
    entries: list[list[Batch]] = field(default_factory=list)

    def raw(self, op: str, row: Row, unset: list[str] | None = None) -> Row:
        self.number += 1
        left_out = {name: None for name in unset or ()}
        meta = {"_hw_pos": "0/1", "_hw_at": START + timedelta(seconds=self.number), "_hw_tx": "1"}
        cells = {**row, **left_out}
        text = '{"price":"NaN"}' if cells.get("price") == "NaN" else None
        cells = {n: (None if v == "NaN" else v) for n, v in cells.items()}
        return {
            **cells,
            **meta,
            "_hw_op": op,
            "_hw_seq": self.number * STRIDE + 2,
            "_hw_unset": unset,
            "_hw_text": text,
        }

    def fresh(self, key: int) -> Row:
        value = self.dice.randint(0, 99)
        return {"id": key, "n": value, "big": f"big {value}", "price": "NaN" if value % 5 == 0 else None}

    def write(self, epoch: int, rows: list[Row], phase: str = "changes") -> None:
        self.entries.append([Batch(FIRST, rows, phase, epoch)])  # type: ignore[arg-type]

    def read(self, part: int) -> list[Row]:
        return [self.raw("r", self.rows[k]) for k in sorted(self.rows) if self.place[k] == part]

    def change(self) -> list[Row]:
        """One change in the source, and its rows in the log."""
        dice, key, other = self.dice, self.dice.choice(KEYS), self.dice.choice(KEYS)
        verb = dice.choices(["insert", "touch", "update", "rekey", "delete", "truncate"], [6, 8, 4, 5, 4, 1])[
            0
        ]
        if verb == "truncate":
            self.rows, self.place = {}, {}
            return [self.raw("t", {})]
        if key not in self.rows:
            self.rows[key], self.place[key] = self.fresh(key), dice.randint(0, 2)
            return [self.raw("c", self.rows[key])]
        if verb == "delete":
            self.rows.pop(key)
            return [self.raw("d", {"id": key}, OTHERS)]
        old = self.rows[key]
        if verb in ("touch", "rekey"):
            new, unset = {**old, "n": dice.randint(0, 99)}, ["big", "price"]
        else:
            new, unset = self.fresh(key), None
        if dice.random() < 0.4:
            # The row moves to another page, perhaps one that is not read yet, or one that was.
            self.place[key] = dice.randint(0, 2)
        if verb != "rekey" or other in self.rows:
            self.rows[key] = new
            return [self.raw("u", new, unset)]
        self.rows.pop(key)
        self.rows[other], self.place[other] = {**new, "id": other}, self.place[key]
        gone = self.raw("d", {"id": key}, OTHERS)
        made = self.raw("c", self.rows[other], unset)
        gone["_hw_seq"], made["_hw_seq"] = self.number * STRIDE + 1, self.number * STRIDE + 2
        return [gone, made]


def told(dice: random.Random, *, ends: bool) -> Source:
    """An epoch of a small table, changes, then an epoch in sittings, then changes."""
    source = Source(dice)
    for key in KEYS:
        if dice.random() < 0.7:
            source.rows[key], source.place[key] = source.fresh(key), dice.randint(0, 2)
    epoch = 1
    if dice.random() < 0.5:
        source.write(1, [r for part in range(3) for r in source.read(part)], "snapshot_end")
        source.write(1, [r for _ in range(3) for r in source.change()])
        epoch = 2
    lacking = _sittings(source, epoch)
    # Rows whose changes lack cells are read by key in the last sitting.
    extra = [source.raw("r", source.rows[k]) for k in sorted(source.rows) if k in lacking]
    if ends:
        source.write(epoch, extra, "snapshot_end")
        for _ in range(dice.randint(0, 2)):
            source.write(epoch, [r for _ in range(2) for r in source.change()])
    return source


def _sittings(source: Source, epoch: int) -> set[object]:
    """Three parts with changes after each; returns the keys of changes that lack cells."""
    lacking: set[object] = set()
    for part in range(3):
        again = source.dice.random() < 0.3
        source.write(epoch, source.read(part), "snapshot")
        changes = [r for _ in range(source.dice.randint(0, 4)) for r in source.change()]
        if changes:
            source.write(epoch, changes)
        lacking |= {r["id"] for r in changes if r["_hw_unset"] and r["_hw_op"] != "d"}
        if again:
            source.write(epoch, source.read(part), "snapshot")
    return lacking


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate), print_blob=True,
)  # fmt: skip
@pytest.mark.slow
@given(seed=st.integers(0, 2**32))
def test_a_load_in_sittings_is_what_the_source_is(worlds: Worlds, seed: int) -> None:
    dice = random.Random(seed)
    source = told(dice, ends=True)
    note(str(source.entries))
    for step in (False, True):
        world = worlds()
        with long_tails():
            if step:
                for entry in source.entries:
                    world.write([entry])
                    world.refresh()
            else:
                world.write(source.entries)
                world.refresh()
        found = {r["id"]: plain(r, NAMES) for r in world.rows("mirror")}
        assert found == source.rows, f"step by step: {step}"
        open_rows = {r["id"]: plain(r, NAMES) for r in world.rows("history") if r["is_current"]}
        assert open_rows == source.rows
        assert sum(bool(r["is_current"]) for r in world.rows("history")) == len(source.rows)


@pytest.mark.parametrize("seed", range(5))
def test_an_epoch_that_never_ends_is_void_with_its_changes(worlds: Worlds, seed: int) -> None:
    source = told(random.Random(seed), ends=False)
    world = worlds(replace(TableSpec(TABLE), mode="mirror"))
    world.write(source.entries)
    world.refresh()
    before = _rows(world)
    epoch = source.entries[-1][0].epoch + 1
    source.write(epoch, [r for part in range(3) for r in source.read(part)], "snapshot_end")
    world.write([source.entries[-1]])
    world.refresh()
    assert _rows(world) == source.rows
    if epoch == 2:
        assert before == {}


def _rows(world: World) -> dict[object, Row]:
    if world.lake.mark(TABLE) is None:
        return {}
    return {r["id"]: plain(r, NAMES) for r in world.rows("mirror")}


def test_cells_that_nobody_has_stop_the_load(worlds: Worlds) -> None:
    source = Source(random.Random(0))
    source.write(1, [source.raw("r", source.fresh(1))], "snapshot")
    source.write(1, [source.raw("u", {"id": 2, "n": 1, "price": None}, ["big"])])
    source.write(1, [source.raw("r", source.fresh(3))], "snapshot_end")
    world = worlds()
    world.write(source.entries)
    with pytest.raises(SchemaConflict, match="lacks cells") as failed:
        world.refresh()
    assert "headwater run --full --table" in failed.value.hint
