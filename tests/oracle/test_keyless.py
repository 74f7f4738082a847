"""Tables without a key: a multiset, against a list in plain Python."""

from __future__ import annotations

import math
import random
import struct
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa
import pytest

from headwater.errors import SchemaConflict
from headwater.model import STRIDE, Column, Phase, TableSchema
from oracle.conftest import Worlds
from oracle.story import START, TABLE, Batch, Row
from oracle.test_fold import PowerCut, power_cut
from oracle.world import World

SCHEMA = TableSchema(
    TABLE, (Column("word", pa.string()), Column("f", pa.float64()), Column("n", pa.decimal128(5, 1)))
)
CELLS: list[object] = [0.0, -0.0, math.nan, 1.5, None]
pytestmark = pytest.mark.slow


@dataclass
class Bag:
    """The truth: rows as they are now, and everything that was logged."""

    rows: list[Row] = field(default_factory=list)
    log: list[Batch] = field(default_factory=list)
    versions: Counter[tuple[object, ...]] = field(default_factory=Counter)
    number: int = 0
    epoch: int = 0

    def note(self, op: str, row: Row, *, half: int = 2) -> Row:
        """One row of the log."""
        if half == 2:
            self.number += 1
        seq = self.number * STRIDE + half
        odd = row.get("n") == "NaN"
        cells = {**row, "n": None} if odd else dict(row)
        meta = {"_hw_pos": "0/1", "_hw_at": START + timedelta(seconds=self.number), "_hw_tx": "1"}
        text = '{"n": "NaN"}' if odd else None
        return {**cells, "_hw_op": op, "_hw_seq": seq, **meta, "_hw_unset": None, "_hw_text": text}

    def change(self, dice: random.Random) -> list[Row]:
        """One drawn change."""
        verb = dice.choices(["insert", "update", "delete", "truncate"], [8, 4, 5, 1])[0]
        if verb == "truncate":
            self.number += 1
            for row in self.rows:
                self.versions["d", self.number * STRIDE + 2, *image(row)] += 1
            self.rows = []
            self.number -= 1
            return [self.note("t", {})]
        if verb == "insert" or not self.rows:
            return [self.add("c", any_row(dice))]
        old = self.rows.pop(dice.randrange(len(self.rows)))
        if verb == "delete":
            line = self.note("d", old)
            self.versions["d", line["_hw_seq"], *image(old)] += 1
            return [line]
        self.number += 1
        line = self.note("d", old, half=1)
        self.versions["d", line["_hw_seq"], *image(old)] += 1
        self.number -= 1
        return [line, self.add("c", any_row(dice))]

    def add(self, op: str, row: Row) -> Row:
        """A row that is there from now on."""
        line = self.note(op, row)
        self.rows.append(row)
        self.versions[op, line["_hw_seq"], *image(row)] += 1
        return line

    def read_again(self, dice: random.Random) -> list[list[Batch]]:
        """A new epoch: some rows more, some less."""
        self.epoch += 1
        found = [row for row in self.rows if dice.random() < 0.8] + [
            any_row(dice) for _ in range(dice.randint(0, 3))
        ]
        first, before = (self.number + 1) * STRIDE, Counter(map(image, self.rows))
        lines = []
        after: Counter[tuple[object, ...]] = Counter()
        for row in found:
            line = self.note("r", row)
            lines.append(line)
            after[image(row)] += 1
            if after[image(row)] > before[image(row)]:
                self.versions["r", line["_hw_seq"], *image(row)] += 1
        for lost, count in (before - after).items():
            self.versions["d", first, *lost] += count
        self.rows = found
        return [[self.batch(lines[:1], "snapshot")], [self.batch(lines[1:], "snapshot_end")]]

    def batch(self, lines: list[Row], phase: Phase = "changes") -> Batch:
        """A batch of the log."""
        return Batch(SCHEMA, lines, phase, self.epoch)


def any_row(dice: random.Random) -> Row:
    """Few different rows, so that equal ones meet, and those that only SQL takes for equal."""
    return {"word": dice.choice(["a", None]), "f": dice.choice(CELLS), "n": dice.choice([None, "NaN"])}


def image(row: Row) -> tuple[object, ...]:
    """What makes rows equal: the very bits."""
    bits = struct.pack(">d", row["f"]) if row["f"] is not None else None
    return row["word"], bits, "NaN" if row.get("_hw_text") else row["n"]


def told(seed: int) -> tuple[Bag, list[list[Batch]]]:
    """A story of a bag."""
    dice, bag = random.Random(seed), Bag()
    entries = bag.read_again(dice)
    for _ in range(8):
        if dice.random() < 0.2:
            entries += bag.read_again(dice)
        else:
            entries.append(
                [bag.batch([line for _ in range(dice.randint(1, 6)) for line in bag.change(dice)])]
            )
    return bag, entries


def facts(world: World) -> tuple[Counter[tuple[object, ...]], Counter[tuple[object, ...]], list[Row]]:
    mirror = world.rows("mirror")
    versions = Counter((r["_hw_op"], r["_hw_seq"], *image(r)) for r in world.rows("changes"))
    return Counter(map(image, mirror)), versions, mirror


@pytest.mark.parametrize("seed", range(12))
def test_a_bag_is_what_happened(worlds: Worlds, seed: int) -> None:
    bag, entries = told(seed)
    at_once, piecewise = worlds(), worlds()
    at_once.write(entries)
    at_once.refresh()
    dice = random.Random(seed)
    for entry in entries:
        piecewise.write([entry])
        if dice.random() < 0.6:
            with power_cut(dice.choice(["changes.after", "mirror.before", "mirror.after"]), 1):
                try:
                    piecewise.refresh()
                except PowerCut:
                    continue
    piecewise.refresh()
    for world in (at_once, piecewise):
        mirror, versions, _ = facts(world)
        assert versions == bag.versions, f"seed {seed}"
        assert mirror == Counter(map(image, bag.rows)), f"seed {seed}"
    # Which of equal rows remains does not hang on how the log was cut.
    assert [r["_hw_seq"] for r in facts(at_once)[2]] == [r["_hw_seq"] for r in facts(piecewise)[2]]
    history = Counter((r["_hw_op"], r["_hw_seq"], *image(r)) for r in piecewise.rows("history"))
    assert history == bag.versions, "the history of a bag is its changes"


def test_a_delete_of_a_row_that_is_not_there_stops(worlds: Worlds) -> None:
    bag, world = Bag(), worlds()
    entries = bag.read_again(random.Random(0))
    row: Row = {"word": "never", "f": 1.0, "n": None}
    world.write([*entries, [bag.batch([bag.note("d", row)])]])
    with pytest.raises(SchemaConflict, match="deletes a row that is not there"):
        world.refresh()
