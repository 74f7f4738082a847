"""COPY's binary format to tables: beside a decoder in plain Python, with whole and with broken bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import pack, unpack_from
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import DecodeError
from headwater.sources.postgres import copybinary
from headwater.sources.postgres.copybinary import decode_copy, take_rows
from headwater.sources.postgres.frames import Frames, lay_out
from postgres import wire
from postgres.plain import ERROR
from postgres.plainbinary import text_of
from postgres.test_binary import SENT
from postgres.test_decode import (
    OID,
    ORDERS,
    Bad,
    Row,
    Shape,
    attempt,
    damaged,
    demand,
    pieces,
    plain_cells,
    rows_of,
    shapes,
)

HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"


def copied(values: Sequence[bytes | None]) -> bytes:
    cells = (pack(">i", -1) if v is None else pack(">i", len(v)) + v for v in values)
    return pack(">h", len(values)) + b"".join(cells)


def plain_row(shape: Shape, payload: bytes) -> list[object]:
    demand(len(payload) >= 2 and unpack_from(">h", payload)[0] == len(shape.kinds))
    at, cells = 2, []
    for kind in shape.kinds:
        demand(at + 4 <= len(payload))
        (size,) = unpack_from(">i", payload, at)
        at += 4
        demand(size >= -1 and at + size <= len(payload))
        if size == -1:
            cells.append(None)
            continue
        text = text_of(kind, payload[at : at + size])
        demand(text != ERROR)
        cells.append(text.encode())
        at += size
    demand(at == len(payload))
    return cells


def plain_copy(shape: Shape, payloads: Sequence[bytes], first: int) -> Iterator[Row]:
    for number, payload in enumerate(payloads):
        yield plain_cells(shape, "r", (first + number) * 4 + 2, plain_row(shape, payload))


@given(data=st.data())
def test_copy(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    some = st.tuples(*(st.none() | SENT[kind] for kind in shape.kinds))
    payloads = [copied(row) for row in data.draw(st.lists(some, max_size=8))]
    if payloads and data.draw(st.booleans()):
        hurt = data.draw(st.integers(0, len(payloads) - 1))
        payloads[hurt] = data.draw(damaged(payloads[hurt]) | st.binary(max_size=20))
    first = data.draw(st.integers(0, 2**60))
    wanted = attempt(lambda: list(plain_copy(shape, payloads, first)), Bad)
    cut = data.draw(st.integers(0, len(payloads)))
    parts = [lay_out(payloads[:cut]), lay_out(payloads[cut:])]
    longest = mock.patch.object(copybinary, "LIMIT", data.draw(st.sampled_from([0, copybinary.LIMIT])))
    with longest, pieces(data.draw(st.sampled_from([1, 60, 1 << 20]))):
        found = attempt(
            lambda: rows_of(decode_copy(parts, shape.natives, shape.schema, first), shape), DecodeError
        )
    assert found == wanted


@given(st.lists(st.binary(min_size=2, max_size=9).filter(lambda b: b != TRAILER), max_size=6), st.data())
def test_what_stands_around_the_rows(rows: list[bytes], data: st.DataObject) -> None:
    """The head comes with the first row, or with the trailer when there is none."""
    messages = [*rows, TRAILER]
    messages[0] = HEAD + messages[0]
    cut = data.draw(st.integers(1, len(messages)))
    blocks = [lay_out(some) for some in (messages[:cut], messages[cut:]) if some]
    taken = list(take_rows(blocks))
    assert [part.payload(k) for part in taken for k in range(len(part))] == rows


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ([], "without its end"),
        ([[HEAD + b"\0\0"]], "without its end"),
        ([[HEAD[:-1] + b"\1" + TRAILER]], "not the binary format"),
        ([[b"1\ta\n"]], "not the binary format"),
        ([[HEAD + TRAILER], [b"\0\0"]], "behind the end"),
    ],
)
def test_no_copy(blocks: list[list[bytes]], why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        list(take_rows(map(lay_out, blocks)))


def test_a_trailer_among_the_rows_is_no_row() -> None:
    taken: list[Frames] = list(
        take_rows([lay_out([HEAD + TRAILER, copied([b"\0\0\0\1", b"a", None]), TRAILER])])
    )
    with pytest.raises(DecodeError, match="row 0 of the batch: another number of columns"):
        decode_copy(taken, ORDERS.natives, ORDERS.schema, 0)


def test_both_paths_give_the_same_cells() -> None:
    logged = ORDERS.decode([wire.insert(OID, row) for row in (["1", "a\tb\\", "1.50"], ["2", None, "NaN"])])
    sent = [
        copied([pack(">i", 1), b"a\tb\\", pack(">HhHHHH", 2, 0, 0, 2, 1, 5000)]),
        copied([pack(">i", 2), None, pack(">HhHH", 0, 0, 0xC000, 0)]),
    ]
    found = rows_of(decode_copy([lay_out(sent)], ORDERS.natives, ORDERS.schema, 0), ORDERS)
    assert [row[1:] for row in logged] == [row[1:] for row in found]
