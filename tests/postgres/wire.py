"""A server's half of pgoutput (protocol 1, text), small enough to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from headwater.sources.postgres.messages import Relation, RelationColumn

#: A cell that the log did not carry.
UNCHANGED = object()

#: A cell: its text, None for NULL, or UNCHANGED.
Cell = object


def cell(value: Cell) -> bytes:
    if value is None:
        return b"n"
    if value is UNCHANGED:
        return b"u"
    raw = value if isinstance(value, bytes) else str(value).encode()
    return b"t" + pack(">i", len(raw)) + raw


def row(values: Sequence[Cell]) -> bytes:
    return pack(">h", len(values)) + b"".join(map(cell, values))


def insert(oid: int, new: Sequence[Cell]) -> bytes:
    return b"I" + pack(">I", oid) + b"N" + row(new)


def update(oid: int, new: Sequence[Cell], *, key: Sequence[Cell] = (), old: Sequence[Cell] = ()) -> bytes:
    before = b"K" + row(key) if key else b"O" + row(old) if old else b""
    return b"U" + pack(">I", oid) + before + b"N" + row(new)


def delete(oid: int, *, key: Sequence[Cell] = (), old: Sequence[Cell] = ()) -> bytes:
    return b"D" + pack(">I", oid) + (b"K" + row(key) if key else b"O" + row(old))


def relation(told: Relation) -> bytes:
    def column(c: RelationColumn) -> bytes:
        return pack(">B", c.in_key) + c.name.encode() + b"\0" + pack(">Ii", c.type_oid, c.typmod)

    names = told.namespace.encode() + b"\0" + told.name.encode() + b"\0"
    head = b"R" + pack(">I", told.oid) + names + told.identity.encode()
    return head + pack(">h", len(told.columns)) + b"".join(map(column, told.columns))
