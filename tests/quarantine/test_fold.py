"""What the oracle's stories do not have: bags, loads in sittings, policies, odd numbers, other types."""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pytest

from headwater.casts import read_cast
from headwater.config import Policies, TableSpec
from headwater.errors import CastFailed, ConfigError, SchemaRefused
from headwater.lake.tail import MADE
from headwater.model import Column, TableSchema
from headwater.quarantine.rows import count_waiting, give_up, look, waiting_keys, waiting_rows
from oracle.conftest import Worlds
from oracle.story import START, TABLE, Batch, Row
from oracle.test_keyless import Bag, image
from oracle.test_keyless import told as told_bag
from oracle.test_sittings import NAMES
from oracle.test_sittings import told as told_sittings
from oracle.world import World, plain
from quarantine.model import MENDED, STRICT, TEXT, moment, spec

SCHEMA = TableSchema(
    TABLE,
    (
        Column("id", pa.string(), "text", False),
        Column("qty", pa.decimal128(8, 2), "numeric(8,2)"),
        Column('Day\'s "x"/~', pa.string(), "text"),
        Column("big", pa.string(), "text"),
    ),
    ("id",),
)
DAY = SCHEMA.columns[2].name
CASTS = {"qty": read_cast("@I"), DAY: read_cast("@D(yyyyMMdd)")}


class Log:
    """Rows of a log, numbered as they come."""

    def __init__(self) -> None:
        self.number = 0

    def row(
        self,
        op: str,
        key: str,
        *cells: object,
        unset: list[str] | None = None,
        half: int = 2,
        moved: bool = False,
    ) -> Row:
        if half == 1 or not moved:
            self.number += 1
        names = ["qty", DAY, "big"]
        values = dict(zip(names, [*cells, *[None] * 3], strict=False))
        text = '{"qty":"NaN"}' if values["qty"] == "NaN" else None
        values["qty"] = None if text else values["qty"]
        seq = self.number * 4 + half
        meta = {"_hw_pos": "0/1", "_hw_at": START, "_hw_tx": "1", "_hw_unset": unset, "_hw_text": text}
        return {"id": key or None, **values, "_hw_op": op, "_hw_seq": seq, **meta}

    def load(self, *rows: Row, epoch: int = 1) -> list[list[Batch]]:
        return [[Batch(SCHEMA, list(rows), "snapshot_end", epoch)]]

    def changes(self, *rows: Row, epoch: int = 1) -> list[list[Batch]]:
        return [[Batch(SCHEMA, list(rows), "changes", epoch)]]


def mirror(world: World) -> dict[object, tuple[object, ...]]:
    return {r["id"]: (r["qty"], str(r[DAY]), r["_hw_text"]) for r in world.rows("mirror")}


def waits(world: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in waiting_rows(world.lake, TABLE):
        found.setdefault(row.key.removeprefix("id="), []).append(row.op)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_bag(worlds: Worlds, seed: int) -> None:
    """Rows wait one by one, and a mended rule that gives another type brings all of them."""
    bag, entries = told_bag(seed)
    spelt = [[replace(b, rows=[_spelt(r) for r in b.rows]) for b in entry] for entry in entries]
    strict = TableSpec(TABLE, casts={"word": read_cast("@I")})
    at_once, piecewise = worlds(strict), worlds(strict)
    at_once.write(spelt)
    at_once.refresh()
    for entry in spelt:
        piecewise.write([entry])
        piecewise.refresh()
    places = [[r["_hw_seq"] for r in world.rows("mirror")] for world in (at_once, piecewise)]
    assert places[0] == places[1]
    for world in (at_once, piecewise):
        _compare(world, bag, _whole)
        more = sum(_bad(r) for r in bag.rows)
        assert waiting_keys(world.lake, entries[0][0].schema) == ([], more)
        world.spec = TableSpec(TABLE, casts={"word": read_cast("decimal(5,1)")})
        world.refresh()
        _compare(world, bag, _decimal)
        assert count_waiting(world.lake, TABLE) == 0
    at_once.spec = strict
    at_once.refresh()
    if give_up(at_once.lake, TABLE):
        at_once.refresh()
        assert count_waiting(at_once.lake, TABLE) == 0
        assert len(at_once.rows("mirror")) == len(bag.rows)


def _bad(row: Row) -> bool:
    return row.get("word") == "a" and row["f"] == 1.5


def _spelt(row: Row) -> Row:
    return {**row, "word": "1.5" if _bad(row) else "7" if row.get("word") == "a" else None}


def _whole(row: Row) -> Row | None:
    return None if _bad(row) else {**row, "word": 7 if row["word"] == "a" else None}


def _decimal(row: Row) -> Row:
    return {**row, "word": Decimal(_spelt(row)["word"]) if row["word"] else None}  # type: ignore[arg-type]


def _compare(world: World, bag: Bag, made: object) -> None:
    rows = [made(r) for r in bag.rows]  # type: ignore[operator]
    assert Counter(map(image, world.rows("mirror"))) == Counter(image(r) for r in rows if r)
    truth: Counter[tuple[object, ...]] = Counter()
    for (op, seq, word, bits, n), count in bag.versions.items():
        f = struct.unpack(">d", bits)[0] if isinstance(bits, bytes) else None
        row = made({"word": word, "f": f, "n": n})  # type: ignore[operator]
        if row:
            truth[op, seq, row["word"], bits, n] += count
    assert Counter((r["_hw_op"], r["_hw_seq"], *image(r)) for r in world.rows("changes")) == truth


@pytest.mark.parametrize("seed", range(4))
def test_a_load_in_sittings(worlds: Worlds, seed: int) -> None:
    source = told_sittings(random.Random(seed), ends=True)
    entries = [[replace(b, rows=[_dated(r) for r in b.rows]) for b in entry] for entry in source.entries]
    truth = {k: {**r, "big": r["big"] and moment(_value(r))} for k, r in source.rows.items()}
    world = worlds(spec())
    world.write(entries)
    world.refresh()
    waiting = {int(k) for k in waits(world)}
    found = {r["id"]: plain(r, NAMES) for r in world.rows("mirror")}
    assert {k: r for k, r in found.items() if k not in waiting} == {
        k: r for k, r in truth.items() if k not in waiting
    }
    assert waiting >= {k for k, r in truth.items() if r["big"] and _value(source.rows[k]) % 4 == 3}
    world.spec = spec(MENDED)
    world.refresh()
    assert {r["id"]: plain(r, NAMES) for r in world.rows("mirror")} == truth


def _value(row: Row) -> int:
    return int(str(row["big"]).split()[1])


def _dated(row: Row) -> Row:
    text = row.get("big") and moment(_value(row)).strftime(TEXT).removesuffix(" 00:00")
    return {**row, "big": text} if text else row


def test_hostile_names_numbers_and_keys(worlds: Worlds) -> None:
    log, world = Log(), worlds(TableSpec(TABLE, casts=CASTS))
    key = 'a,b="c" \' \u2028 é'
    rows = [
        log.row("r", key, Decimal("1.5"), "20180101"),
        log.row("r", "", "NaN"),
        log.row("r", "ok", Decimal(2), "20180102"),
    ]
    world.write(log.load(*rows))
    done = world.refresh()
    assert done and done.parked == 2 and mirror(world) == {"ok": (2, "2018-01-02", None)}
    first, second = waiting_rows(world.lake, TABLE)
    assert (first.columns, first.row["qty"], second.row) == ("qty", "1.50", {"qty": "NaN"})
    assert [r.seq for r in waiting_rows(world.lake, TABLE, [first.key])] == [first.seq]
    with pytest.raises(ConfigError):
        waiting_rows(world.lake, TABLE, ["\0"])


def test_the_queue_of_a_key(worlds: Worlds) -> None:
    """A delete waits, and what comes behind it, and a new key that lacks cells; a truncate ends it."""
    log, world = Log(), worlds(TableSpec(TABLE, casts=CASTS))
    world.write(log.load(*(log.row("r", key, Decimal(1), "20180101", "toast") for key in "abcd")))
    world.write(
        log.changes(
            log.row("u", "a", Decimal(1), "bad", "toast2"), log.row("u", "d", Decimal(9), "20180109", "x")
        )
    )
    world.refresh()
    world.write(
        log.changes(
            log.row("d", "a", unset=["qty", DAY, "big"], half=1),
            log.row("c", "moved", Decimal(5), "20180105", unset=["big"], moved=True),
            log.row("d", "moved", unset=["qty", DAY, "big"]),
            log.row("c", "a", Decimal(6), "20180106", "whole"),
            log.row("u", "b", Decimal(7), "20180107", unset=["big"]),
        )
    )
    world.refresh()
    assert waits(world) == {"a": ["update", "delete", "insert"], "moved": ["insert", "delete"]}
    assert mirror(world)["a"][0] == 1 and mirror(world)["b"][0] == 7
    queue = look(world.lake, TABLE)
    assert queue and (queue.misfits, queue.queued, queue.keys, queue.columns) == (1, 4, 2, DAY)
    world.write(log.changes(log.row("t", ""), log.row("c", "a", Decimal(8), "20180108", "new")))
    world.refresh()
    assert waits(world) == {} and mirror(world) == {"a": (8, "2018-01-08", None)}


def test_a_full_load_settles_what_it_reads(worlds: Worlds) -> None:
    log, world = Log(), worlds(TableSpec(TABLE, casts=CASTS))
    world.write(log.load(*(log.row("r", key, Decimal(1), "20180101") for key in "abc")))
    world.write(log.changes(log.row("u", "a", Decimal(1), "bad"), log.row("u", "b", Decimal(1), "bad")))
    world.refresh()
    world.write(
        log.load(log.row("r", "a", Decimal(2), "20180102"), log.row("r", "c", Decimal(1), "worse"), epoch=2)
    )
    world.refresh()
    assert waits(world) == {"c": ["read"]}
    assert mirror(world) == {"a": (2, "2018-01-02", None), "c": (1, "2018-01-01", None)}
    world.write(
        log.changes(
            log.row("u", "a", Decimal(3), "20180103"), log.row("u", "c", Decimal(3), "20180103"), epoch=2
        )
    )
    world.refresh()
    assert waits(world) == {"c": ["read", "update"]} and mirror(world)["a"][0] == 3
    history = [(r["id"], str(r[DAY]), r["_hw_op"]) for r in world.rows("history")]
    assert history[-2:] == [("a", "2018-01-02", "r"), ("a", "2018-01-03", "u")]


def test_null_keeps_the_text_and_fail_commits_nothing(worlds: Worlds) -> None:
    log, world = Log(), worlds(TableSpec(TABLE, casts=CASTS, on_cast_error="null"))
    world.write(log.load(log.row("r", "a", Decimal("1.5"), "x"), log.row("r", "b", "NaN", "20180101")))
    done = world.refresh()
    assert done and (done.parked, done.nulled) == (0, 2)
    texts = {"a": '{"qty":"1.50","' + DAY.replace('"', '\\"') + '":"x"}', "b": '{"qty":"NaN"}'}
    assert {k: t for k, (_, _, t) in mirror(world).items()} == texts
    world.write(log.changes(log.row("u", "a", Decimal(3), unset=[DAY, "big"])))
    world.refresh()
    assert mirror(world)["a"][0] == 3 and '"x"' in str(mirror(world)["a"][2])
    world.spec = replace(world.spec, on_cast_error="fail")
    with pytest.raises(
        CastFailed, match=r"= '1\.50' does not fit @I \(key a\), change 6 of raw log entry 0"
    ) as failed:
        world.refresh()
    assert "on_cast_error: quarantine" in failed.value.hint and "--full --table" in failed.value.hint
    assert mirror(world)["a"][0] == 3, "nothing of the failed fold is there"
    world.write(log.load(log.row("r", "a", Decimal(4), "20180104"), epoch=2))
    world.refresh()
    assert mirror(world) == {"a": (4, "2018-01-04", None)}


def test_the_source_changes_the_type_itself(worlds: Worlds) -> None:
    """text to bigint under a cast to bigint is no change; text to bytes names the column and the way out."""
    text = TableSchema(
        TABLE, (Column("id", pa.string(), "text", False), Column("n", pa.string(), "text")), ("id",)
    )
    number, raw = (
        replace(text, columns=(text.columns[0], Column("n", kind, native)))
        for kind, native in ((pa.int64(), "bigint"), (pa.binary(), "bytea"))
    )
    world, log = worlds(TableSpec(TABLE, casts={"n": read_cast("@L")})), Log()

    def row(op: str, key: str, n: object) -> Row:
        return {k: v for k, v in log.row(op, key).items() if k not in ("qty", DAY, "big")} | {"n": n}

    world.write([[Batch(text, [row("r", "a", "12")], "snapshot_end", 1)]])
    world.write([[Batch(number, [row("u", "a", 13), row("c", "b", 14)], "changes", 1)]])
    world.refresh()
    assert {r["id"]: r["n"] for r in world.rows("mirror")} == {"a": 13, "b": 14}
    schema = world.lake.schema(TABLE)
    assert schema and schema.columns[1].type == pa.int64()
    world.write([[Batch(raw, [row("u", "a", b"x")], "changes", 1)]])
    with pytest.raises(ConfigError, match="the column n is bytea now: .* cannot become bigint") as failed:
        world.refresh()
    assert "take n out of the table's `cast`" in failed.value.hint


def test_tables_without_casts_are_as_they_were(worlds: Worlds) -> None:
    log, world = Log(), worlds()
    world.write(log.load(log.row("r", "a", Decimal(1), "x")))
    world.refresh()
    for kind in ("changes", "mirror", "history"):
        held = world.lake.open(TABLE, kind)  # type: ignore[arg-type]
        assert held and MADE not in held.notes
    assert world.lake.open(TABLE, "quarantine") is None
    world.spec = TableSpec(TABLE, casts={"id": read_cast("@L")} and STRICT)
    world.refresh()
    assert world.lake.made(TABLE)
    world.spec = TableSpec(TABLE)
    world.refresh()
    assert world.lake.made(TABLE) == "-2" and mirror(world) == {"a": (Decimal("1.00"), "x", None)}


def test_an_update_without_a_key_takes_cells_from_a_row_that_waits(worlds: Worlds) -> None:
    columns = (Column("qty", pa.string(), "text"), Column("big", pa.string(), "text"))
    schema, log = TableSchema(TABLE, columns), Log()
    world = worlds(TableSpec(TABLE, casts={"qty": read_cast("@I")}))

    def row(op: str, qty: str | None, big: str | None, **more: object) -> Row:
        made = log.row(op, "", **more)  # type: ignore[arg-type]
        return {k: v for k, v in made.items() if k not in ("id", DAY)} | {"qty": qty, "big": big}

    world.write(
        [[Batch(schema, [row("r", "bad", "B"), row("r", "bad", "C"), row("r", "1", "D")], "snapshot_end", 1)]]
    )
    world.refresh()
    rows = [
        row("d", "bad", "B", half=1), row("c", "7", None, unset=["big"], moved=True),
        row("d", "bad", "C", half=1), row("c", None, "E", unset=["qty"], moved=True),
        row("d", "1", "D", half=1), row("c", "worse", None, unset=["big"], moved=True),
    ]  # fmt: skip
    world.write([[Batch(schema, rows, "changes", 1)]])
    done = world.refresh()
    assert done and done.parked == 4
    assert [(r["qty"], r["big"]) for r in world.rows("mirror")] == [(7, "B")]
    assert [(r.op, r.row.get("big")) for r in waiting_rows(world.lake, TABLE)][2:] == [
        ("delete", "B"), ("delete", "C"), ("insert", "E"), ("insert", None)
    ]  # fmt: skip
    assert waiting_keys(world.lake, schema) == ([], 2)
    assert give_up(world.lake, TABLE) == 6
    world.refresh()
    found = {(r["qty"], r["big"], r["_hw_text"]) for r in world.rows("mirror")}
    assert found == {(7, "B", None), (None, "E", '{"qty":"bad"}'), (None, "D", '{"qty":"worse"}')}


def test_a_load_of_which_no_row_fits(worlds: Worlds) -> None:
    log = Log()
    world = worlds(TableSpec(TABLE, casts=CASTS))
    world.write(log.load(log.row("r", "a", Decimal("1.5")), log.row("r", "b", "NaN")))
    world.refresh()
    assert mirror(world) == {} and waits(world) == {"a": ["read"], "b": ["read"]}
    world.write(log.changes(log.row("d", "a", unset=["qty", DAY, "big"]), log.row("c", "c", Decimal(1))))
    world.refresh()
    assert set(mirror(world)) == {"c"} and waits(world) == {"a": ["read", "delete"], "b": ["read"]}
    world.write(log.load(epoch=2))
    world.refresh()
    assert mirror(world) == {} and waits(world) == {}


def test_what_a_person_accepted_stays_accepted_when_a_rule_changes(worlds: Worlds) -> None:
    """Other rules fold the log from its start: what was let in once is not refused there again."""
    log, frozen = Log(), Policies(schema="freeze", on_truncate="fail")
    world = worlds(TableSpec(TABLE, casts=CASTS, policies=frozen))
    wider = replace(SCHEMA, columns=(*SCHEMA.columns, Column("more", pa.int64(), "bigint")))

    def entry(*rows: Row) -> list[list[Batch]]:
        return [[Batch(wider, [{**r, "more": r["_hw_seq"]} for r in rows], "changes", 1)]]

    world.write(log.load(log.row("r", "a", Decimal(1))))
    world.refresh()
    for rows in ([log.row("c", "b", Decimal(2))], [log.row("t", ""), log.row("c", "c", Decimal(3))]):
        world.write(entry(*rows))
        with pytest.raises(SchemaRefused):
            world.refresh()
        world.spec = replace(world.spec, policies=Policies())
        world.refresh()
        world.spec = replace(world.spec, policies=frozen)
    world.write(entry(log.row("c", "d", Decimal(4))))
    world.spec = replace(world.spec, casts={"qty": read_cast("@L")})
    world.refresh()
    assert {r["id"]: (r["qty"], r["more"] is not None) for r in world.rows("mirror")} == {
        "c": (3, True), "d": (4, True)
    }  # fmt: skip
    # What comes after it is judged as ever, and the next rule does not forget.
    world.write(entry(log.row("t", "")))
    world.spec = replace(world.spec, casts={"qty": read_cast("@F")})
    with pytest.raises(SchemaRefused):
        world.refresh()
    assert {r["id"]: r["qty"] for r in world.rows("mirror")} == {"c": 3.0, "d": 4.0}
