"""COPY text to tables: beside a decoder in plain Python, with whole and with broken bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import DecodeError
from headwater.sources.postgres.decode import decode_copy, whole_rows
from postgres import wire
from postgres.test_decode import (
    OID,
    ORDERS,
    Bad,
    Row,
    Shape,
    attempt,
    demand,
    pieces,
    plain_cells,
    rows,
    rows_of,
    shapes,
)


def plain_copy(shape: Shape, data: bytes, first: int) -> Iterator[Row]:
    lines = data.split(b"\n")
    demand(lines.pop() == b"")
    for number, line in enumerate(lines):
        cells = line.split(b"\t") if shape.kinds else []
        demand(len(cells) == len(shape.kinds) and (bool(cells) or line == b""))
        yield plain_cells(shape, "r", (first + number) * 4 + 2, [plain_unescaped(c) for c in cells])


def plain_unescaped(cell: bytes) -> bytes | None:
    if cell == b"\\N":
        return None
    out, at = bytearray(), 0
    while at < len(cell):
        if cell[at : at + 1] == b"\\":
            at += 1
            code = cell[at : at + 1]
            demand(code != b"" and code in b"bfnrtv\\")
            out += {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}.get(
                code, code
            )
        else:
            out.append(cell[at])
        at += 1
    return bytes(out)


@given(data=st.data())
def test_copy(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    texts = st.text(alphabet="ab\\Nnt\t\n\r\b\f\v|é.", max_size=6)
    some = []
    for row in data.draw(st.lists(rows(shape), max_size=8)):
        free = [data.draw(texts) if k == "text" and c else c for k, c in zip(shape.kinds, row, strict=True)]
        some.append([c if c is None else str(c) for c in free])
    raw = bytearray(b"".join(map(wire.copy_row, some)))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 1))] = data.draw(
            st.sampled_from([b"", b"\\", b"\\\\", b"N", b"\t", b"\n", b"x"])
        )
    text = bytes(raw)
    first = data.draw(st.integers(0, 2**60))
    wanted = attempt(lambda: list(plain_copy(shape, text, first)), Bad)
    with pieces(data.draw(st.sampled_from([1, 7, 50, 1 << 20]))):
        found = attempt(
            lambda: rows_of(decode_copy(text, shape.natives, shape.schema, first), shape), DecodeError
        )
    assert found == wanted


@given(st.binary(max_size=40) | st.text("a\n", max_size=20).map(str.encode))
def test_whole_rows(data: bytes) -> None:
    assert whole_rows(data) == data.rfind(b"\n") + 1
    assert whole_rows(memoryview(data)) == whole_rows(np.frombuffer(data, np.uint8)) == whole_rows(data)


def test_whole_rows_of_much() -> None:
    for place in (0, 65_535, 65_536, 199_999):
        data = bytearray(b"x" * 200_000)
        data[place] = 10
        assert whole_rows(data) == place + 1


def test_copy_takes_any_buffer() -> None:
    text = b"1\ta\\tb\t\\N\n"
    wanted = [("r", 22, ["1", "a\tb", None], [], {})]
    for data in (
        text,
        memoryview(text),
        np.frombuffer(text, np.uint8),
        np.frombuffer(text, np.uint8).repeat(2)[::2],
    ):
        assert rows_of(decode_copy(data, ORDERS.natives, ORDERS.schema, 5), ORDERS) == wanted


def test_both_paths_give_the_same_cells() -> None:
    some = [["1", "a\tb\\", "1.50"], ["2", None, "NaN"], ["3", "", None]]
    logged = ORDERS.decode([wire.insert(OID, row) for row in some])
    text = b"".join(map(wire.copy_row, some))
    copied = rows_of(decode_copy(text, ORDERS.natives, ORDERS.schema, 0), ORDERS)
    assert [row[1:] for row in logged] == [row[1:] for row in copied]
