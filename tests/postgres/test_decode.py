"""pgoutput bytes to tables: beside a decoder in plain Python, with whole and with broken bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from struct import pack, unpack_from

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import DecodeError
from headwater.model import Column, TableId, TableSchema
from headwater.sources.postgres import frames
from headwater.sources.postgres.copybinary import decode_copy
from headwater.sources.postgres.decode import (
    Relation,
    RelationColumn,
    decode_changes,
)
from headwater.sources.postgres.frames import lay_out
from headwater.sources.postgres.values import NativeType, arrow_type
from postgres import wire
from postgres.plain import ERROR, ODD, canonical, meaning
from postgres.wire import UNCHANGED

OID = 0xFFFF_FFF0
KINDS = {
    "integer": (23, -1),
    "text": (25, -1),
    "numeric(10,2)": (1700, 4 + (10 << 16 | 2)),
    "date": (1082, -1),
}
GOOD = {
    "integer": ["0", "-7", "2147483647"],
    "text": ["", "a", "é\t\\N\n", "x" * 300],
    "numeric(10,2)": ["1.50", "-0.01", "NaN"],
    "date": ["2024-02-29", "0044-03-15 BC", "infinity"],
}


@dataclass
class Shape:
    """A table as the tests see it: column names c0, c1, ..."""

    kinds: list[str]
    key: list[int]
    identity: str
    in_identity: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        full = self.identity == "f"
        self.in_identity = [full or k in self.key for k in range(len(self.kinds))]
        self.names = [f"c{k}" for k in range(len(self.kinds))]
        self.natives = [NativeType(*KINDS[k], k, *KINDS[k], "b") for k in self.kinds]
        columns = tuple(Column(n, arrow_type(t)) for n, t in zip(self.names, self.natives, strict=True))
        self.schema = TableSchema(TableId("public", "t"), columns, tuple(self.names[k] for k in self.key))
        told = zip(self.names, self.natives, self.in_identity, strict=True)
        told_columns = tuple(RelationColumn(n, t.oid, t.typmod, k) for n, t, k in told)
        self.relation = Relation(OID, "public", "t", self.identity, told_columns)

    def decode(self, payloads: Sequence[bytes], ordinals: Sequence[int] | None = None) -> list[Row]:
        numbers = np.arange(len(payloads)) if ordinals is None else np.array(ordinals, np.int64)
        return rows_of(
            decode_changes(self.relation, self.natives, self.schema, [lay_out(payloads)], numbers), self
        )


#: op, _hw_seq, canonical values, unset columns, odd texts
Row = tuple[str, int, list[str | None], list[str], dict[str, str]]


def rows_of(table: pa.Table, shape: Shape) -> list[Row]:
    """A decoded table, row by row."""
    table.validate(full=True)
    own = [
        ("_hw_op", pa.string()),
        ("_hw_seq", pa.int64()),
        ("_hw_unset", pa.list_(pa.string())),
        ("_hw_text", pa.string()),
    ]
    assert table.schema == pa.schema([*shape.schema.arrow(), *(pa.field(*f) for f in own)])
    combined = table.combine_chunks()
    values = [canonical(combined[n].combine_chunks()) for n in shape.names]
    op, seq, unset, text = (combined[n].to_pylist() for n, _ in own)
    assert all(u is None or u for u in unset)
    return [
        (op[i], seq[i], [v[i] for v in values], unset[i] or [], json.loads(text[i]) if text[i] else {})
        for i in range(len(op))
    ]


# --- the same, one message after the other


class Bad(Exception):
    """The plain decoder refuses the bytes."""


def demand(good: bool) -> None:
    if not good:
        raise Bad


def plain_row(payload: bytes, at: int, count: int) -> tuple[list[object], int]:
    demand(at + 2 <= len(payload))
    demand(unpack_from(">h", payload, at)[0] == count)
    at += 2
    cells: list[object] = []
    for _ in range(count):
        kind, at = payload[at : at + 1], at + 1
        demand(kind in (b"n", b"u", b"t"))
        if kind != b"t":
            cells.append(None if kind == b"n" else UNCHANGED)
            continue
        demand(at + 4 <= len(payload))
        (size,) = unpack_from(">i", payload, at)
        at += 4
        demand(size >= 0 and at + size <= len(payload))
        cells.append(payload[at : at + size])
        at += size
    return cells, at


def plain_message(shape: Shape, payload: bytes) -> tuple[str, str, list[object], list[object]]:
    """Kind, what came before (K, O or nothing), old and new row."""
    demand(len(payload) >= 6 and payload[1:5] == pack(">I", OID))
    kind, tag = chr(payload[0]), chr(payload[5])
    demand(kind + tag in ("IN", "UN", "UK", "UO", "DK", "DO"))
    first, at = plain_row(payload, 6, len(shape.kinds))
    old, new = (first, []) if tag in "KO" else ([], first)
    if kind == "U" and tag in "KO":
        demand(payload[at : at + 1] == b"N")
        new, at = plain_row(payload, at + 1, len(shape.kinds))
    demand(at == len(payload))
    return kind, tag, old, new


def plain_change(shape: Shape, payload: bytes, number: int) -> Iterator[Row]:
    kind, tag, old, new = plain_message(shape, payload)
    demand(bool(shape.key) or kind == "I" or tag == "O")
    if tag == "K":
        old = [c if k else UNCHANGED for c, k in zip(old, shape.in_identity, strict=True)]
    demand(kind != "I" or UNCHANGED not in new)
    if kind == "D":
        yield plain_cells(shape, "d", number * 4 + 2, old)
        return
    moved = kind == "U" and tag in "KO" and (not shape.key or any(differs(old[k], new[k]) for k in shape.key))
    if moved:
        yield plain_cells(shape, "d", number * 4 + 1, old)
    if old:
        new = [b if a is UNCHANGED else a for a, b in zip(new, old, strict=True)]
    yield plain_cells(shape, "c" if moved or kind == "I" else "u", number * 4 + 2, new)


def differs(old: object, new: object) -> bool:
    return new is not UNCHANGED and (old is UNCHANGED or old != new)


def plain_cells(shape: Shape, op: str, seq: int, cells: Sequence[object]) -> Row:
    values: list[str | None] = []
    texts = {}
    demand(all(cells[k] is not UNCHANGED for k in shape.key))
    for name, kind, cell in zip(shape.names, shape.kinds, cells, strict=True):
        value = meaning(kind, cell) if isinstance(cell, bytes) else None
        demand(value != ERROR)
        if value == ODD and isinstance(cell, bytes):
            texts[name] = cell.decode()
        values.append(None if value == ODD else value)
    return op, seq, values, [n for n, c in zip(shape.names, cells, strict=True) if c is UNCHANGED], texts


def attempt(work: Callable[[], list[Row]], refusal: type[Exception]) -> list[Row] | None:
    try:
        return work()
    except refusal:
        return None


@contextmanager
def pieces(size: int) -> Iterator[None]:
    """Decode that many bytes at once, to meet the seams."""
    kept = frames.PIECE
    frames.PIECE = size
    try:
        yield
    finally:
        frames.PIECE = kept


# --- random tables, random messages


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=0, max_size=10))
    identity = draw(st.sampled_from("dfi"))
    key = draw(st.sets(st.sampled_from(range(len(kinds))))) if kinds else set()
    return Shape(kinds, sorted(key), identity)


@st.composite
def rows(draw: st.DrawFn, shape: Shape, *, holes: bool = False, key_only: bool = False) -> list[object]:
    def one(k: int) -> object:
        if key_only and not shape.in_identity[k]:
            return None
        choices: list[object] = [*GOOD[shape.kinds[k]], None]
        return draw(st.sampled_from([*choices, UNCHANGED] if holes else choices))

    return [one(k) for k in range(len(shape.kinds))]


@st.composite
def messages(draw: st.DrawFn, shape: Shape) -> bytes:
    kinds = ["insert", "full update", "full delete", "update"]
    kinds += ["key update", "key delete"] if shape.key else []
    new = draw(rows(shape, holes=True))
    old = draw(rows(shape))
    if draw(st.booleans()):
        old = [b if c is UNCHANGED else c for b, c in zip(old, new, strict=True)]
    key = [c if k else None for c, k in zip(old, shape.in_identity, strict=True)]
    match draw(st.sampled_from(kinds)):
        case "insert":
            return wire.insert(OID, draw(rows(shape)))
        case "update":
            kept = [b if k else c for b, c, k in zip(old, new, shape.in_identity, strict=True)]
            return wire.update(OID, kept)
        case "full update":
            return wire.update(OID, new, old=old) if old else wire.update(OID, new)
        case "full delete":
            return b"D" + pack(">I", OID) + b"O" + wire.row(old)
        case "key update":
            return wire.update(OID, new, key=key)
        case _:
            return wire.delete(OID, key=key)


@st.composite
def damaged(draw: st.DrawFn, payload: bytes) -> bytes:
    """The payload with one thing wrong with it; a length may come out as any number."""
    raw = bytearray(payload)
    at = draw(st.integers(0, len(raw)))
    match draw(st.sampled_from(["byte", "cut", "more", "out", "in", "number"])):
        case "byte" if at < len(raw):
            raw[at] = draw(st.sampled_from(list(b"IUDNKOntub\x00\x01\x7f\x80\xff")))
        case "cut":
            del raw[at:]
        case "more":
            raw += draw(st.binary(min_size=1, max_size=4))
        case "out":
            del raw[at : at + 1]
        case "in":
            raw[at:at] = draw(st.binary(min_size=1, max_size=4))
        case _:
            raw[at : at + 4] = pack(">i", draw(st.sampled_from([-1, 0, 1, 2**31 - 1, -(2**31), len(raw)])))
    return bytes(raw)


@given(data=st.data())
def test_changes(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    payloads = data.draw(st.lists(messages(shape), max_size=8))
    if payloads and data.draw(st.booleans()):
        hurt = data.draw(st.integers(0, len(payloads) - 1))
        payloads[hurt] = data.draw(damaged(payloads[hurt]) | st.binary(max_size=20))
    ordinals = sorted(
        data.draw(st.sets(st.integers(0, 2**60), min_size=len(payloads), max_size=len(payloads)))
    )
    pairs = list(zip(payloads, ordinals, strict=True))
    wanted = attempt(lambda: [row for p, n in pairs for row in plain_change(shape, p, n)], Bad)
    with pieces(data.draw(st.sampled_from([1, 60, 1 << 20]))):
        found = attempt(lambda: shape.decode(payloads, ordinals), DecodeError)
    assert found == wanted
    if found:
        assert [seq for _, seq, *_ in found] == sorted({seq for _, seq, *_ in found})


@given(data=st.data())
def test_undamaged_changes(data: st.DataObject) -> None:
    """Messages such as a server writes are never refused."""
    shape = data.draw(shapes().filter(lambda s: s.key))
    kept = [data.draw(rows(shape)) for _ in range(data.draw(st.integers(1, 5)))]
    payloads = [wire.insert(OID, row) for row in kept] + [wire.update(OID, row, old=row) for row in kept]
    payloads += [
        wire.delete(OID, key=[c if k else None for c, k in zip(r, shape.in_identity, strict=True)])
        for r in kept
    ]
    found = shape.decode(payloads)
    assert [op for op, *_ in found] == ["c"] * len(kept) + ["u"] * len(kept) + ["d"] * len(kept)


# --- what each message means, by name

ORDERS = Shape(["integer", "text", "numeric(10,2)"], [0], "d")
FULL = Shape(["integer", "text", "numeric(10,2)"], [0], "f")
TEXTS = Shape(["text", "text", "text"], [0], "d")
KEYLESS = Shape(["integer", "text", "numeric(10,2)"], [], "f")


def test_an_update_without_its_big_value() -> None:
    """Not NULL: the third state."""
    assert ORDERS.decode([wire.update(OID, ["1", UNCHANGED, None])]) == [
        ("u", 2, ["1", None, None], ["c1"], {})
    ]


def test_an_old_row_fills_what_is_unchanged() -> None:
    found = FULL.decode([wire.update(OID, ["1", UNCHANGED, "NaN"], old=["1", "big", "2.00"])])
    assert found == [("u", 2, ["1", "big", None], [], {"c2": "NaN"})]


def test_a_key_change_under_a_key_identity() -> None:
    found = ORDERS.decode([wire.update(OID, ["5", UNCHANGED, "2.00"], key=["1", None, None])], [7])
    assert found == [
        ("d", 29, ["1", None, None], ["c1", "c2"], {}),
        ("c", 30, ["5", None, "2.00"], ["c1"], {}),
    ]


def test_a_key_change_under_full() -> None:
    found = FULL.decode([wire.update(OID, ["5", UNCHANGED, "2.00"], old=["1", "big", None])])
    assert found == [("d", 1, ["1", "big", None], [], {}), ("c", 2, ["5", "big", "2.00"], [], {})]


def test_a_key_that_comes_along_unchanged_is_no_key_change() -> None:
    """PostgreSQL sends the old key whenever it lies out of line, also when it stays."""
    long = Shape(["text", "text"], [0], "d")
    found = long.decode([wire.update(OID, [UNCHANGED, "new"], key=["big key", None])])
    assert found == [("u", 2, ["big key", "new"], [], {})]
    assert FULL.decode([wire.update(OID, ["1", "b", None], old=["1", "a", None])])[0][0] == "u"


def test_null_and_empty_are_two_keys() -> None:
    named = Shape(["text"], [0], "f")
    found = named.decode([wire.update(OID, [""], old=[None]), wire.update(OID, [None], old=[None])])
    assert found == [("d", 1, [None], [], {}), ("c", 2, [""], [], {}), ("u", 6, [None], [], {})]


def test_keyless_rows_are_replaced_whole() -> None:
    found = KEYLESS.decode([wire.update(OID, ["1", UNCHANGED, None], old=["1", "a", "1.00"])])
    assert found == [("d", 1, ["1", "a", "1.00"], [], {}), ("c", 2, ["1", "a", None], [], {})]


def test_deletes() -> None:
    by_key = ORDERS.decode([wire.delete(OID, key=["1", None, None])])
    assert by_key == [("d", 2, ["1", None, None], ["c1", "c2"], {})]
    assert FULL.decode([wire.delete(OID, old=["1", None, "NaN"])]) == [
        ("d", 2, ["1", None, None], [], {"c2": "NaN"})
    ]


@pytest.mark.parametrize(
    ("shape", "payload"),
    [
        (ORDERS, wire.insert(OID, ["1", UNCHANGED, None])),
        (ORDERS, wire.update(OID, [UNCHANGED, "a", None])),
        (FULL, wire.delete(OID, old=[UNCHANGED, "a", None])),
        (KEYLESS, wire.update(OID, ["1", "a", None])),
        (KEYLESS, wire.delete(OID, key=["1", None, None])),
        (ORDERS, wire.insert(OID - 1, ["1", "a", None])),
        (ORDERS, wire.insert(OID, ["1", "a"])),
        (ORDERS, wire.insert(OID, ["1", "a", None, None])),
        (ORDERS, wire.insert(OID, ["1", "a", None]) + b"\0"),
        (ORDERS, wire.insert(OID, ["1", "a", None])[:-1]),
        (ORDERS, wire.insert(OID, ["1", b"\xff", None])),
        (FULL, wire.update(OID, ["1", "a", None], old=["1", "a", None]).replace(b"nN", b"nX")),
        # The second length points back into the first cell, whose bytes then end the row just so.
        (TEXTS, b"I" + pack(">I", OID) + b"N\0\3t\0\0\0\5t\0\0\0\5t" + pack(">i", -10)),
        (ORDERS, b""),
        (ORDERS, b"I"),
    ],
)
def test_refused(shape: Shape, payload: bytes) -> None:
    good = wire.insert(OID, ["1", "a", None])
    assert len(shape.decode([good, good])) == 2
    with pytest.raises(DecodeError) as caught:
        shape.decode([good, payload, good], [10, 20, 30])
    assert "20" in str(caught.value) or "row 1 of the batch" in str(caught.value)


def test_an_error_says_what_to_type() -> None:
    with pytest.raises(DecodeError) as caught:
        KEYLESS.decode([wire.update(OID, ["1", "a", None])])
    assert caught.value.hint == 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL;'
    with pytest.raises(DecodeError) as caught:
        ORDERS.decode([b"I"])
    assert caught.value.hint.startswith("headwater check")


def test_an_error_names_no_value() -> None:
    with pytest.raises(DecodeError) as caught:
        ORDERS.decode([wire.insert(OID, ["4111", "a", "4111.1.1"])])
    assert "public.t, column c2 (numeric(10,2))" in str(caught.value)
    assert "4111" not in repr(caught.value.__context__) + str(caught.value)


def test_wrong_calls() -> None:
    row = wire.insert(OID, ["1", "a", None])
    with pytest.raises(ValueError, match="ordinal"):
        ORDERS.decode([row], [1, 2])
    with pytest.raises(ValueError, match="rise"):
        ORDERS.decode([row, row], [2, 2])
    with pytest.raises(ValueError, match="number of columns"):
        decode_changes(ORDERS.relation, ORDERS.natives[1:], ORDERS.schema, [lay_out([row])], np.arange(1))
    with pytest.raises(ValueError, match="number of columns"):
        decode_copy([], ORDERS.natives[1:], ORDERS.schema, 0)


def test_no_messages() -> None:
    assert ORDERS.decode([]) == []
    assert rows_of(decode_copy([], ORDERS.natives, ORDERS.schema, 0), ORDERS) == []


def test_many_unset_patterns() -> None:
    """Every subset of ten columns left out at once."""
    wide = Shape(["integer", *["text"] * 10], [0], "d")
    subsets = list(range(1024))
    payloads = [
        wire.update(OID, ["1", *(UNCHANGED if s >> k & 1 else "x" for k in range(10))]) for s in subsets
    ]
    assert [row[3] for row in wide.decode(payloads)] == [
        [f"c{k + 1}" for k in range(10) if s >> k & 1] for s in subsets
    ]
