"""Stories: what happens to one table, told twice: as the raw log that a source leaves, and as plain Python.

A story is a list of drawn moves. `tell` plays them against a dict (the truth) and writes down, for each move,
the rows the log carries, so that nothing of the fold's own reasoning is used to know what must come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pyarrow as pa

from headwater.model import META, STRIDE, Column, Phase, TableId, TableSchema

TABLE = TableId("sales", "Orders/1")
START = datetime(2026, 1, 1, tzinfo=UTC)
Row = dict[str, object]
Verb = Literal["insert", "update", "touch", "rekey", "delete", "truncate"]
VERBS: tuple[Verb, ...] = ("insert", "update", "touch", "rekey", "delete", "truncate")

FIRST = TableSchema(
    TABLE,
    (
        Column("id", pa.int64(), "int8", False),
        Column("n", pa.int32(), "int4"),
        Column("big", pa.string(), "text"),
        Column("price", pa.decimal128(10, 2), "numeric(10,2)"),
    ),
    ("id",),
)
ADDED = Column("extra", pa.string(), "text")
WIDER = Column("n", pa.int64(), "int8")


@dataclass(frozen=True)
class Move:
    """One drawn step. `verb` is bent to what is possible: an insert of a live key is an update."""

    verb: Verb
    key: int
    other: int
    value: int
    lazy: bool  # the log leaves out what did not change


@dataclass(frozen=True)
class Deed:
    """One drawn commit: a transaction, or a reading of the whole table with rows that changed unseen."""

    kind: Literal["commit", "resync", "cut off", "add column", "widen"]
    moves: tuple[Move, ...] = ()
    tick: int = 1  # seconds since the last commit: 0 shares its time, below that the clock went back
    same_entry: bool = False


@dataclass(frozen=True)
class Batch:
    schema: TableSchema
    rows: list[Row]
    phase: Phase
    epoch: int
    reload: bool = False


@dataclass
class Told:
    """The log's entries, and the truth."""

    full_identity: bool
    schema: TableSchema = FIRST
    entries: list[list[Batch]] = field(default_factory=list)
    commits: list[tuple[int, dict[int, Row]]] = field(default_factory=list)  # last _hw_seq, rows by key
    versions: list[tuple[int, str, int, Row, datetime]] = field(default_factory=list)  # seq, op, key, row, at
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    live: dict[int, Row] = field(default_factory=dict)
    number: int = 0
    clock: datetime = START
    epoch: int = 0
    last: dict[int, str] = field(default_factory=dict)


def tell(deeds: Sequence[Deed], *, full_identity: bool = False) -> Told:
    """Play the deeds."""
    told = Told(full_identity)
    _resync(told, (), complete=True)
    for deed in deeds:
        told.clock += timedelta(seconds=deed.tick)
        if deed.kind == "commit":
            _commit(told, deed)
        elif deed.kind == "add column":
            if ADDED not in told.schema.columns:
                told.schema = replace(told.schema, columns=(*told.schema.columns, ADDED))
                told.live = {k: {**r, "extra": None} for k, r in told.live.items()}
        elif deed.kind == "widen":
            told.schema = replace(
                told.schema, columns=tuple(WIDER if c.name == "n" else c for c in told.schema.columns)
            )
        else:
            if deed.kind == "cut off":
                _resync(told, deed.moves, complete=False)
            _resync(told, deed.moves, complete=True)
    return told


def _commit(told: Told, deed: Deed) -> None:
    rows: list[Row] = []
    for move in deed.moves:
        rows += _move(told, move)
    if not rows:
        return
    batch = Batch(told.schema, rows, "changes", told.epoch)
    last = told.entries[-1]
    if deed.same_entry and last[-1].phase == "changes":
        if last[-1].schema == told.schema:
            last[-1].rows.extend(rows)
        else:
            last.append(batch)
    else:
        told.entries.append([batch])
    told.commits.append((told.number * STRIDE + 3, {k: dict(r) for k, r in told.live.items()}))


def _move(told: Told, move: Move) -> list[Row]:
    verb, key = move.verb, move.key
    if verb == "truncate":
        n = _next(told)
        for k in sorted(told.live):
            _count(told, "truncate", k)
            told.versions.append((n + 2, "d", k, {"id": k}, told.clock))
        told.live = {}
        return [_raw(told, "t", n + 2, {})]
    if key not in told.live:
        verb = "insert"
    elif verb == "insert":
        verb = "update"
    if verb == "rekey" and (move.other in told.live or move.other == key):
        verb = "touch"
    _count(told, verb, key)
    if verb == "rekey":
        _count(told, "arrive", move.other)
    return {"insert": _insert, "update": _update, "touch": _touch, "rekey": _rekey, "delete": _delete}[verb](
        told, move
    )


def _insert(told: Told, move: Move) -> list[Row]:
    row = _fresh(told, move.key, move.value)
    return [_note(told, "c", _next(told) + 2, row)]


def _update(told: Told, move: Move) -> list[Row]:
    row = _fresh(told, move.key, move.value)
    return [_note(told, "u", _next(told) + 2, row)]


def _touch(told: Told, move: Move) -> list[Row]:
    """An update of small columns only: the big ones do not change, and a lazy log leaves them out."""
    old = told.live[move.key]
    row = {**old, "n": move.value}
    unset = [name for name in ("big", "price", "extra") if name in row] if move.lazy else None
    return [_note(told, "u", _next(told) + 2, row, unset)]


def _rekey(told: Told, move: Move) -> list[Row]:
    n, old = _next(told), told.live[move.key]
    new = {**old, "id": move.other, "n": move.value}
    unset = [name for name in ("big", "price", "extra") if name in new] if move.lazy else None
    return [_bury(told, n + 1, move.key), _note(told, "c", n + 2, new, unset)]


def _delete(told: Told, move: Move) -> list[Row]:
    return [_bury(told, _next(told) + 2, move.key)]


def _note(told: Told, op: str, seq: int, row: Row, unset: list[str] | None = None) -> Row:
    key = int(str(row["id"]))
    told.live[key] = row
    told.versions.append((seq, op, key, row, told.clock))
    return _raw(told, op, seq, row, unset)


def _bury(told: Told, seq: int, key: int) -> Row:
    row = told.live.pop(key)
    told.versions.append((seq, "d", key, row if told.full_identity else {"id": key}, told.clock))
    if told.full_identity:
        return _raw(told, "d", seq, row)
    return _raw(told, "d", seq, row, [c.name for c in told.schema.columns if c.name != "id"])


def _resync(told: Told, moves: Sequence[Move], *, complete: bool) -> None:
    """The whole table is read again. A load that is cut off ends nowhere."""
    told.epoch += 1
    found = _changed_unseen(told, moves)
    first, rows = (told.number + 1) * STRIDE, []
    before = len(told.versions)
    for key in sorted(found, reverse=True):
        seq = _next(told) + 2
        rows.append(_raw(told, "r", seq, found[key]))
        if complete and told.live.get(key) != found[key]:
            told.versions.append((seq, "r", key, found[key], told.clock))
            _count(told, "reread", key)
    half = len(rows) // 2
    told.entries.append([Batch(told.schema, rows[:half], "snapshot", told.epoch)])
    if not complete:
        return
    gone = []
    # An empty reading has no row that tells its time: then it is the newest one the table knew.
    at = told.clock if found else max((_since(told, key) for key in told.live), default=told.clock)
    for key in sorted(set(told.live) - set(found)):
        _count(told, "vanish", key)
        gone.append((first, "d", key, told.live[key], at))
    told.versions[before:before] = gone
    told.entries.append([Batch(told.schema, rows[half:], "snapshot_end", told.epoch)])
    told.live = found
    told.commits.append((max(first, told.number * STRIDE + 3), {k: dict(r) for k, r in found.items()}))


def _changed_unseen(told: Told, moves: Sequence[Move]) -> dict[int, Row]:
    """The rows after changes that no log tells of."""
    found = {k: dict(r) for k, r in told.live.items()}
    for move in moves:
        if move.verb == "delete":
            found.pop(move.key, None)
        elif move.verb == "truncate":
            found = {}
        elif move.verb in ("insert", "update"):
            found[move.key] = _fresh(told, move.key, move.value)
        elif move.key in found:
            found[move.key]["price"] = None if found[move.key]["price"] == "NaN" else "NaN"
    return found


def _since(told: Told, key: int) -> datetime:
    """The time of the key's newest version."""
    return next(at for _, _, k, _, at in reversed(told.versions) if k == key)


def _fresh(told: Told, key: int, value: int) -> Row:
    """A row with a value in every column; every third price is one that no decimal can hold."""
    price = "NaN" if value % 3 == 2 else None if value % 7 == 6 else Decimal(value) / 4
    big = None if value % 5 == 4 else f"big {value} " * 3
    row: Row = {"id": key, "n": value, "big": big, "price": price}
    return {**row, "extra": f"x{value % 3}"} if ADDED in told.schema.columns else row


def _raw(told: Told, op: str, seq: int, row: Row, unset: list[str] | None = None) -> Row:
    cells = {c.name: row.get(c.name) for c in told.schema.columns}
    text = None
    if cells["price"] == "NaN":
        cells["price"], text = None, '{"price": "NaN"}'
    for name in unset or ():
        cells[name] = None
        text = None if name == "price" else text
    stamp = {"_hw_pos": f"0/{seq:X}", "_hw_at": told.clock, "_hw_tx": str(len(told.commits))}
    return {**cells, "_hw_op": op, "_hw_seq": seq, **stamp, "_hw_unset": unset, "_hw_text": text}


def _next(told: Told) -> int:
    told.number += 1
    return told.number * STRIDE


def _count(told: Told, verb: str, key: int) -> None:
    if key in told.last:
        told.pairs[told.last[key], verb] += 1
    told.last[key] = verb


def raw_table(batch: Batch) -> pa.Table:
    """The batch's rows as capture gives them."""
    schema = pa.schema([*batch.schema.arrow(), *META])
    return pa.Table.from_pylist(batch.rows, schema=schema)
