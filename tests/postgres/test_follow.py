"""Whole streams through the follower, beside one that takes message after message; whole and broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import pack, unpack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import DecodeError, PositionLost
from headwater.model import ChangeBatch, Column, TableId, TableSchema
from headwater.sources.postgres import frames as framing
from headwater.sources.postgres.follow import Follower, Limits, Reached
from headwater.sources.postgres.frames import Frames, lay_out
from headwater.sources.postgres.messages import EPOCH, Relation, RelationColumn, parse_relation
from headwater.sources.postgres.position import format_lsn
from headwater.sources.postgres.values import NativeType, arrow_type
from headwater.sources.postgres.versions import Version
from headwater.sources.postgres.window import Window
from postgres import wire
from postgres.test_decode import damaged

TABLES = {7: "a", 8: "b", 9: "c"}  # c is asked for by nobody
WANTED = [TableId("public", "a"), TableId("public", "b")]


def relation_of(oid: int, columns: int) -> Relation:
    told = tuple(RelationColumn(f"c{k}", 25, -1, k == 0) for k in range(columns))
    return Relation(oid, "public", TABLES[oid], "d", told)


class Types:
    """Knows every relation, without a server."""

    def resolve(self, relations: Sequence[Relation]) -> list[Version]:
        return [self._resolve(relation) for relation in relations]

    def _resolve(self, relation: Relation) -> Version:
        natives = tuple(NativeType(25, -1, "text", 25, -1, "b") for _ in relation.columns)
        columns = tuple(Column(c.name, arrow_type(natives[0])) for c in relation.columns)
        schema = TableSchema(
            TableId(relation.namespace, relation.name), columns, tuple(c.name for c in columns[:1])
        )
        return Version(relation, natives, schema, False)


@dataclass
class Script:
    """A stream that gives what it was told to."""

    blocks: list[Frames]
    at: int = 0
    witness: str = ""
    returned: list[bytes] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    seen: int = 0

    def take(self, _seconds: float) -> Frames:
        if not self.blocks:
            raise EOFError
        return self.blocks.pop(0)

    def put_back(self, frames: Frames) -> None:
        self.returned = [frames.payload(k) for k in range(len(frames))]

    def note_keepalive(self, message: bytes) -> int:
        _, seen, _, asks = unpack(">cQqB", message)
        self.note_seen(seen)
        self.answered += [seen] * asks
        return int(seen)

    def note_seen(self, lsn: int) -> None:
        self.seen = max(self.seen, lsn)

    def ping(self) -> None:
        return


Item = tuple[Any, ...]


def follow(blocks: list[Frames], since: int, goal: int, limits: Limits, witness: str) -> Iterator[Item]:
    """What comes out: rows in order, the places reached, and at last what is left for the next call."""
    stream = Script(blocks, since)
    window = Window(WANTED, Types(), {})  # type: ignore[arg-type]
    rows: list[Item] = []
    follower = Follower(stream, window, goal, limits, exact=True, witness=witness)  # type: ignore[arg-type]
    try:
        for item in follower.run(lambda: None):
            if isinstance(item, ChangeBatch):
                assert item.rows.num_rows
                rows += rows_of(item)
                continue
            yield from sorted(rows)
            rows = []
            assert isinstance(item, Reached)
            yield "reached", item.lsn, item.witness, item.end
    except EOFError:
        yield "open", stream.at
        return
    yield "left", *(message[:1] for message in stream.returned), sum(b.lengths.size for b in stream.blocks)


def rows_of(batch: ChangeBatch) -> list[Item]:
    own = [c.name for c in batch.schema.columns]
    return [
        (r["_hw_seq"], r["_hw_op"], batch.schema.table.name, *(r[n] for n in own), r["_hw_pos"], r["_hw_tx"],
         int(r["_hw_at"].timestamp() * 1_000_000))
        for r in batch.rows.to_pylist()
    ]  # fmt: skip


class Bad(Exception):
    """The plain follower refuses the stream."""


class Plain:
    """The same, one message after the other."""

    def __init__(self, since: int, goal: int, limits: Limits, witness: str) -> None:
        self.since = self.at = since
        self.goal, self.limits, self.expected = goal, limits, witness
        self.witness = ""
        self.begin: tuple[int, int, int] | None = None
        self.relations: dict[int, Relation] = {}
        self.count = self.rows = self.bytes = 0
        self.owed = False
        self.held: list[Item] = []

    def run(self, messages: list[bytes]) -> Iterator[Item]:
        for number, message in enumerate(messages):
            beyond, end = self.note(message)
            if self.begin and (self.bytes >= 2 * self.limits.bytes or self.rows >= 2 * self.limits.rows):
                self.owed, self.rows, self.bytes = True, 0, 0
            elif end or (
                self.begin is None
                and (self.owed or self.bytes >= self.limits.bytes or self.rows >= self.limits.rows)
            ):
                yield from self.held
                self.held, self.owed, self.rows, self.bytes = [], False, 0, 0
                self.at = self.goal if end else self.at
                yield "reached", self.at, self.witness, end
            if end:
                left = messages[number if beyond else number + 1 :]
                yield "left", len(left)
                return
        yield "open", self.at

    def note(self, message: bytes) -> tuple[bool, bool]:
        if message[:1] == b"k" and len(message) == 18:
            return False, self.keepalive(int(unpack(">cQqB", message)[1]))
        if message[:1] != b"w" or len(message) <= 25:
            raise Bad
        body = message[25:]
        match body[:1]:
            case b"B":
                return self.open(body)
            case b"C":
                return False, self.commit(body)
            case b"R":
                self.announce(body)
            case b"I":
                self.row(body)
            case b"O" | b"Y" | b"M":
                pass
            case _:
                raise Bad
        return False, False

    def announce(self, body: bytes) -> None:
        try:
            told = parse_relation(body)
        except DecodeError:
            raise Bad from None
        self.relations[told.oid] = told

    def keepalive(self, seen: int) -> bool:
        if self.begin:
            return False
        self.check(seen, "")
        if seen < self.goal:
            self.at = max(self.at, seen)
        return seen >= self.goal

    def check(self, lsn: int, name: str) -> None:
        if name == self.expected:
            self.expected = ""
        if self.expected and lsn >= self.since:
            raise PositionLost("")

    def open(self, body: bytes) -> tuple[bool, bool]:
        if len(body) != 21 or self.begin:
            raise Bad
        lsn, at, xid = unpack(">QqI", body[1:])
        self.check(lsn, f"{format_lsn(lsn)}:{xid}")
        if lsn >= self.goal:
            return True, True
        self.begin = lsn, at + EPOCH, xid
        return False, False

    def commit(self, body: bytes) -> bool:
        if len(body) != 26 or not self.begin or unpack(">Q", body[2:10])[0] != self.begin[0]:
            raise Bad
        if self.begin[0] >= self.since:
            self.witness = f"{format_lsn(self.begin[0])}:{self.begin[2]}"
        self.begin = None
        end = int(unpack(">Q", body[10:18])[0])
        self.at = max(self.at, end)
        return end >= self.goal

    def row(self, body: bytes) -> None:
        if not self.begin or len(body) < 6:
            raise Bad
        if self.begin[0] < self.since:
            return
        (oid,) = unpack(">I", body[1:5])
        if oid not in self.relations:
            raise Bad
        told = self.relations[oid]
        if TableId(told.namespace, told.name) not in WANTED:
            return
        cells = plain_cells(body, len(told.columns))
        lsn, at, xid = self.begin
        self.held.append((self.count * 4 + 2, "c", told.name, *cells, format_lsn(lsn), str(xid), at))
        self.count += 1
        self.rows += 1
        self.bytes += len(body)


def plain_cells(body: bytes, count: int) -> list[str]:
    if body[5:6] != b"N" or unpack(">h", body[6:8])[0] != count:
        raise Bad
    at, cells = 8, []
    for _ in range(count):
        if body[at : at + 1] != b"t" or at + 5 > len(body):
            raise Bad
        (size,) = unpack(">i", body[at + 1 : at + 5])
        if size < 0 or at + 5 + size > len(body):
            raise Bad
        try:
            cells.append(body[at + 5 : at + 5 + size].decode())
        except UnicodeDecodeError:
            raise Bad from None
        at += 5 + size
    if at != len(body):
        raise Bad
    return cells


# --- streams


def data(body: bytes) -> bytes:
    return b"w" + bytes(24) + body


def begin(lsn: int, xid: int) -> bytes:
    return data(b"B" + pack(">QqI", lsn, 1_000_000 * xid, xid))


def commit(lsn: int) -> bytes:
    return data(b"C" + pack(">BQQq", 0, lsn, lsn + 5, 0))


def keepalive(lsn: int, asks: int = 0) -> bytes:
    return b"k" + pack(">QqB", lsn, 0, asks)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Transactions in commit order, with all that may come between."""
    told: dict[int, int] = {}
    messages: list[bytes] = []
    lsn = 0
    for xid in range(1, draw(st.integers(0, 8)) + 1):
        lsn += draw(st.integers(6, 30))
        if draw(st.booleans()):
            messages.append(keepalive(lsn - 1))
        messages.append(begin(lsn, xid))
        for _ in range(draw(st.integers(0, 6))):
            oid, columns = draw(st.sampled_from([7, 7, 7, 8, 9])), draw(st.sampled_from([1, 1, 1, 2]))
            if told.get(oid) != columns:
                messages.append(data(wire.relation(relation_of(oid, columns))))
                told[oid] = columns
            if draw(st.integers(0, 9)) == 0:
                messages.append(draw(st.sampled_from([data(b"M..."), data(b"O..."), keepalive(lsn)])))
            values = [draw(st.sampled_from(["", "x", "dd\0\0", "y" * 40])) for _ in range(columns)]
            values[0] = values[0].replace("\0", "d")
            messages.append(data(wire.insert(oid, [v.replace("\0", "") for v in values])))
        messages.append(commit(lsn))
    return [*messages, keepalive(lsn + draw(st.integers(1, 9)))]


@st.composite
def split(draw: st.DrawFn, messages: list[bytes]) -> list[Frames]:
    """The same in blocks, some of which lie in one buffer."""
    whole = lay_out(messages)
    cuts = sorted(draw(st.sets(st.integers(0, len(messages)), max_size=4)) | {0, len(messages)})
    pairs = list(zip(cuts, cuts[1:], strict=False))
    apart = draw(st.booleans())
    return [lay_out(messages[a:b]) if apart else whole.cut(a, b) for a, b in pairs]


def normal(items: Iterator[Item]) -> tuple[list[Item], str]:
    """What came, and how it ended; "left" as a number."""
    out: list[Item] = []
    try:
        for item in items:
            out.append(("left", len(item) - 2 + item[-1]) if item[0] == "left" and len(item) != 2 else item)
    except (Bad, DecodeError):
        return out, "refused"
    except PositionLost:
        return out, "lost"
    return out, ""


LIMITS = st.builds(Limits, bytes=st.sampled_from([1, 60, 1 << 20]), rows=st.sampled_from([1, 3, 1000]))


@given(data=st.data())
def test_the_same_as_one_by_one(data: st.DataObject) -> None:
    messages = data.draw(streams())
    hurt = data.draw(st.sampled_from(["", "", "bytes", "swap", "drop"]))
    if hurt and len(messages) > 1:
        at = data.draw(st.integers(0, len(messages) - 2))
        match hurt:
            case "bytes":
                messages[at] = data.draw(damaged(messages[at]) | st.binary(max_size=60))
            case "swap":
                messages[at : at + 2] = messages[at + 1], messages[at]
            case _:
                del messages[at]
    limits = data.draw(LIMITS)
    since, goal = data.draw(st.sampled_from([0, 0, 20, 60])), data.draw(st.sampled_from([40, 100, 10_000]))
    witness = data.draw(st.sampled_from(["", "", "0/C:1", "0/9:1", "0/FF:3"])) if since else ""
    wanted, end = normal(Plain(since, goal, limits, witness).run(messages))
    framing._SMALL = data.draw(st.sampled_from([0, 50, 256 << 10]))
    found, how = normal(follow(data.draw(split(messages)), since, goal, limits, witness))
    if not end:
        assert (found, how) == (wanted, "")
    else:
        assert how == end
        assert found == wanted[: len(found)]


def test_a_commit_of_another_transaction_is_refused() -> None:
    told = data(wire.relation(relation_of(7, 1)))
    good = [begin(10, 1), told, data(wire.insert(7, ["x"])), commit(10)]
    assert (
        normal(follow([lay_out([*good, begin(20, 2), commit(20), keepalive(99)])], 0, 90, Limits(), ""))[1]
        == ""
    )
    for wrong in ([begin(20, 2), commit(21)], [commit(10)], [begin(20, 2), begin(30, 3)], [good[2]]):
        with pytest.raises(DecodeError):
            list(follow([lay_out([*good, *wrong])], 0, 90, Limits(), ""))


def test_a_time_beyond_all_calendars_is_refused() -> None:
    late = data(b"B" + pack(">QqI", 10, 2**63 - 1, 1))
    with pytest.raises(DecodeError, match="time"):
        list(follow([lay_out([late, commit(10)])], 0, 90, Limits(), ""))


@pytest.mark.parametrize(
    "limits", [Limits(rows=1), Limits(rows=3), Limits(bytes=60), Limits(rows=4, bytes=90)]
)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_transactions_in_one_block(limits: Limits, size: int) -> None:
    """The place where a window is due is exact in the middle of a block, too."""
    row = data(wire.insert(7, ["x"]))
    many = [m for n in range(1, 30) for m in (begin(n * 10, n), *[row] * size, commit(n * 10))]
    messages = [begin(1, 99), data(wire.relation(relation_of(7, 1))), commit(1), *many, keepalive(999)]
    for goal in (105, 999):
        wanted = normal(Plain(0, goal, limits, "").run(messages))
        assert normal(follow([lay_out(messages)], 0, goal, limits, "")) == wanted


def test_keepalives_between_small_transactions_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that has caught up sends one with nearly every commit."""
    added: list[int] = []
    real = Window.add
    monkeypatch.setattr(Window, "add", lambda self, *args: (added.append(len(args[0])), real(self, *args))[1])
    row = data(wire.insert(7, ["x"]))
    many = [m for n in range(1, 500) for m in (begin(n * 10, n), row, commit(n * 10), keepalive(n * 10 + 7))]
    messages = [begin(1, 999), data(wire.relation(relation_of(7, 1))), commit(1), *many, keepalive(9_999)]
    found = normal(follow([lay_out(messages)], 0, 9_000, Limits(), ""))
    assert found == normal(Plain(0, 9_000, Limits(), "").run(messages))
    assert sum(added) == 499
    assert len(added) < 5


def test_a_keepalive_that_asks_is_answered_wherever_it_stands() -> None:
    row = data(wire.insert(7, ["x"]))
    told = data(wire.relation(relation_of(7, 1)))
    messages = [
        keepalive(5, 1), keepalive(6), begin(10, 1), told, keepalive(70, 1), row, keepalive(60), row,
        commit(10), keepalive(20), keepalive(30, 1), keepalive(25), begin(40, 2), row, commit(40),
    ]  # fmt: skip
    stream = Script([lay_out(messages)])
    window = Window(WANTED, Types(), {})  # type: ignore[arg-type]
    follower = Follower(stream, window, 90, Limits(), exact=True)  # type: ignore[arg-type]
    with pytest.raises(EOFError):
        list(follower.run(lambda: None))
    assert (stream.answered, stream.seen, stream.at) == ([5, 70, 30], 70, 45)
