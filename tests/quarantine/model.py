"""The stories of the oracle with a date as text in them, and what must wait, in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from headwater.casts import read_cast
from headwater.config import TableSpec
from headwater.quarantine.rows import waiting_rows
from oracle.story import TABLE, Row, Told
from oracle.world import World, plain

#: Of these texts only a mended rule takes those that have a time.
STRICT = {"big": read_cast({"to": "timestamp", "format": "yyyyMMdd"}), "n": read_cast("@L")}
MENDED = STRICT | {"big": read_cast({"to": "timestamp", "format": "yyyyMMdd[ HH:mm]"})}
TEXT = "%Y%m%d %H:%M"


def spec(casts: object = None, **more: object) -> TableSpec:
    """The story's table with casts."""
    return TableSpec(TABLE, casts=STRICT if casts is None else casts, **more)  # type: ignore[arg-type]


def moment(value: int) -> datetime:
    """The date that stands for a value of the story; one in four has a time."""
    time = timedelta(hours=10, minutes=value) if value % 4 == 3 else timedelta()
    return datetime(2018, 1, 1) + timedelta(days=value) + time


def dated(told: Told) -> Told:
    """The story with dates in `big`: as texts in the log, as moments in the truth."""
    entries = [[replace(b, rows=[_row(r, _text) for r in b.rows]) for b in entry] for entry in told.entries]
    return replace(
        told,
        entries=entries,
        commits=[(seq, {k: _row(r, moment) for k, r in rows.items()}) for seq, rows in told.commits],
        versions=[(seq, op, key, _row(r, moment), at) for seq, op, key, r, at in told.versions],
        live={k: _row(r, moment) for k, r in told.live.items()},
    )


def _text(value: int) -> str:
    return moment(value).strftime(TEXT).removesuffix(" 00:00")


def _row(row: Row, make: Callable[[int], object]) -> Row:
    return {**row, "big": make(int(str(row["big"]).split()[1]))} if row.get("big") else dict(row)


def misfits(row: Row) -> bool:
    """Whether the strict rule refuses a row of the log."""
    return row["_hw_op"] not in ("d", "t") and " " in str(row["big"] or "")


@dataclass
class Model:
    """What the lake must show under the strict rule: rows by key, and what waits."""

    rows: dict[object, Row] = field(default_factory=dict)
    waits: dict[object, list[int]] = field(default_factory=lambda: defaultdict(list))

    def read(self, told: Told) -> Model:
        """Play the log of a story."""
        whole = {seq: row for seq, _, _, row, _ in told.versions}
        epochs = {b.epoch for entry in told.entries for b in entry if b.phase == "snapshot_end"}
        load: list[Row] = []
        for batch in (b for entry in told.entries for b in entry):
            if batch.phase == "changes":
                self._change(batch.rows, whole)
            elif batch.epoch in epochs:
                load += batch.rows
                if batch.phase == "snapshot_end":
                    self._load(load)
                    load = []
        return self

    def _load(self, rows: Sequence[Row]) -> None:
        self.waits.clear()
        there = {row["id"] for row in rows}
        self.rows = {key: row for key, row in self.rows.items() if key in there}
        for row in rows:
            if misfits(row):
                self.waits[row["id"]].append(number(row))
            else:
                text = row["big"] and datetime.strptime(str(row["big"]), "%Y%m%d")
                self.rows[row["id"]] = plain({**row, "big": text}, [n for n in row if n[0] != "_"])

    def _change(self, rows: Sequence[Row], whole: dict[int, Row]) -> None:
        for row in rows:
            key, seq, op = row["id"], number(row), row["_hw_op"]
            if op == "t":
                self.rows.clear()
                self.waits.clear()
                continue
            from_waiting = op == "c" and row["_hw_unset"] and any(seq - 1 in w for w in self.waits.values())
            if self.waits.get(key) or misfits(row) or from_waiting:
                self.waits[key].append(seq)
            elif op == "d":
                del self.rows[key]
            else:
                self.rows[key] = whole[seq]


def number(row: Row) -> int:
    """The place of a row in the log."""
    seq = row["_hw_seq"]
    assert isinstance(seq, int)
    return seq


def shown(world: World) -> Model:
    """What a lake shows."""
    names = [n for n in (world.rows("mirror") or [{}])[0] if not n.startswith("_hw_")]
    model = Model({row["id"]: plain(row, names) for row in world.rows("mirror")})
    for row in waiting_rows(world.lake, TABLE):
        model.waits[int(row.key.removeprefix("id="))].append(row.seq)
    return model


def check_model(told: Told, world: World) -> None:
    """Raise AssertionError where the lake shows other rows, or lets others wait, than it should."""
    truth, found = Model().read(told), shown(world)
    assert dict(found.waits) == {k: seqs for k, seqs in truth.waits.items() if seqs}
    assert _values(found.rows) == _values(truth.rows)


def _values(rows: dict[object, Row]) -> dict[object, Row]:
    """A column that came later is no cell of an older row, and NULL in the lake."""
    return {key: {name: cell for name, cell in row.items() if cell is not None} for key, row in rows.items()}
