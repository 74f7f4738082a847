"""pgoutput's messages other than rows: read exactly, or refused by a DecodeError."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import DecodeError
from headwater.sources.postgres.decode import (
    Begin,
    Commit,
    Message,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    TypeName,
    parse_begin,
    parse_commit,
    parse_message,
    parse_origin,
    parse_relation,
    parse_truncate,
    parse_type,
)
from headwater.sources.postgres.messages import EPOCH
from postgres import wire
from postgres.test_decode import FULL, OID, ORDERS, damaged


def string(text: str) -> bytes:
    return text.encode() + b"\0"


SMALL: list[tuple[Callable[[bytes], object], bytes, object]] = [
    (parse_begin, b"B" + pack(">QqI", 2**63, -1, 2**32 - 1), Begin(2**63, EPOCH - 1, 2**32 - 1)),
    (parse_commit, b"C" + pack(">BQQq", 0, 1, 2, 3), Commit(1, 2, EPOCH + 3)),
    (parse_origin, b"O" + pack(">Q", 5) + string("node é"), Origin(5, "node é")),
    (parse_type, b"Y" + pack(">I", 90_000) + string("s") + string("mood"), TypeName(90_000, "s", "mood")),
    (parse_type, b"Y" + pack(">I", 25) + string("") + string("text"), TypeName(25, "pg_catalog", "text")),
    (parse_truncate, b"T" + pack(">IBII", 2, 3, 7, 8), Truncate((7, 8), cascade=True, restart_identity=True)),
    (parse_truncate, b"T" + pack(">IB", 0, 0), Truncate((), cascade=False, restart_identity=False)),
    (
        parse_message,
        b"M" + pack(">BQ", 1, 9) + string("p") + pack(">I", 3) + b"a\0b",
        Message(True, 9, "p", b"a\0b"),
    ),
    (parse_relation, wire.relation(FULL.relation), FULL.relation),
    (parse_relation, wire.relation(ORDERS.relation), ORDERS.relation),
]


@pytest.mark.parametrize(("parse", "payload", "wanted"), SMALL)
def test_small_messages(parse: Callable[[bytes], object], payload: bytes, wanted: object) -> None:
    assert parse(payload) == wanted
    for end in range(len(payload)):
        with pytest.raises(DecodeError):
            parse(payload[:end])
    for wrong in (payload + b"\0", b"?" + payload[1:], b""):
        with pytest.raises(DecodeError):
            parse(wrong)


@given(data=st.data())
def test_damaged_small_messages(data: st.DataObject) -> None:
    """Any bytes are read or refused by a DecodeError, nothing else."""
    parse, payload, _ = data.draw(st.sampled_from(SMALL))
    raw = data.draw(damaged(payload) | st.binary(max_size=30).map(lambda b: payload[:1] + b))
    try:
        parse(raw)
    except DecodeError as error:
        assert error.__context__ is None


def test_a_relation_that_names_a_column_twice() -> None:
    twice = Relation(OID, "s", "t", "d", (RelationColumn("a", 23, -1, True),) * 2)
    with pytest.raises(DecodeError, match="twice"):
        parse_relation(wire.relation(twice))
