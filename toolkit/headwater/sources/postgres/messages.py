"""The small messages of pgoutput, protocol version 1: everything but the rows.

Layout: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from headwater.errors import DecodeError

#: Microseconds from 1970-01-01 to 2000-01-01, the zero of PostgreSQL's clock.
EPOCH = 946_684_800_000_000

_IDENTITIES = frozenset("dnfi")


@dataclass(frozen=True, slots=True)
class Begin:
    """B: a transaction starts; all its changes follow, up to its Commit."""

    final_lsn: int  # where its commit record is
    at: int  # commit time, microseconds since 1970-01-01 UTC
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """C: the transaction is complete; a stop at `end_lsn` contains it whole."""

    lsn: int
    end_lsn: int
    at: int  # microseconds since 1970-01-01 UTC


@dataclass(frozen=True, slots=True)
class Origin:
    """O: the transaction was replicated to the source from elsewhere."""

    lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """One published column as RELATION names it."""

    name: str
    type_oid: int
    typmod: int
    in_key: bool  # part of the replica identity (all columns under FULL)


@dataclass(frozen=True, slots=True)
class Relation:
    """R: how the rows of a table look from here on."""

    oid: int
    namespace: str
    name: str
    identity: str  # pg_class.relreplident: d, n, f or i
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class TypeName:
    """Y: the name of a type that is not built in."""

    oid: int
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Truncate:
    """T: tables emptied together."""

    oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class Message:
    """M: what pg_logical_emit_message wrote."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


_BEGIN, _COMMIT = Struct(">cQqI"), Struct(">cBQQq")


class _Reader:
    """Takes a payload apart from front to back; whatever does not fit is a DecodeError."""

    def __init__(self, payload: bytes, kind: bytes, name: str) -> None:
        self.payload, self.name, self.at = bytes(payload), name, 1
        if self.payload[:1] != kind:
            raise DecodeError(f"not a {name} message")

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.payload):
            raise DecodeError(f"a {self.name} message ends early")
        self.at += size
        return self.payload[self.at - size : self.at]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "big", signed=signed)

    def text(self) -> str:
        end = self.payload.find(b"\0", self.at)
        if end < 0:
            raise DecodeError(f"a {self.name} message ends early")
        raw, self.at = self.payload[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError:
            pass
        raise DecodeError(f"a name in a {self.name} message is not UTF-8")

    def finish(self) -> None:
        if self.at != len(self.payload):
            raise DecodeError(f"a {self.name} message has {len(self.payload) - self.at} bytes too many")


def parse_begin(payload: bytes) -> Begin:
    """Read a B message."""
    if len(payload) != _BEGIN.size or payload[:1] != b"B":
        raise DecodeError("not a Begin message of 21 bytes")
    _, lsn, at, xid = _BEGIN.unpack(payload)
    return Begin(lsn, at + EPOCH, xid)


def parse_commit(payload: bytes) -> Commit:
    """Read a C message."""
    if len(payload) != _COMMIT.size or payload[:1] != b"C":
        raise DecodeError("not a Commit message of 26 bytes")
    _, _, lsn, end_lsn, at = _COMMIT.unpack(payload)
    return Commit(lsn, end_lsn, at + EPOCH)


def parse_origin(payload: bytes) -> Origin:
    """Read an O message."""
    reader = _Reader(payload, b"O", "Origin")
    result = Origin(reader.number(8), reader.text())
    reader.finish()
    return result


def parse_relation(payload: bytes) -> Relation:
    """Read an R message."""
    reader = _Reader(payload, b"R", "Relation")
    oid, namespace, name = reader.number(4), reader.text(), reader.text()
    identity = chr(reader.number(1))
    if identity not in _IDENTITIES:
        raise DecodeError("a Relation message has an unknown replica identity")
    columns = []
    for _ in range(reader.number(2)):
        in_key = bool(reader.number(1) & 1)
        columns.append(RelationColumn(reader.text(), reader.number(4), reader.number(4, signed=True), in_key))
    reader.finish()
    if len({c.name for c in columns}) != len(columns):
        raise DecodeError("a Relation message names a column twice")
    # The server writes "" for pg_catalog.
    return Relation(oid, namespace or "pg_catalog", name, identity, tuple(columns))


def parse_type(payload: bytes) -> TypeName:
    """Read a Y message."""
    reader = _Reader(payload, b"Y", "Type")
    result = TypeName(reader.number(4), reader.text() or "pg_catalog", reader.text())
    reader.finish()
    return result


def parse_truncate(payload: bytes) -> Truncate:
    """Read a T message."""
    reader = _Reader(payload, b"T", "Truncate")
    count, options = reader.number(4), reader.number(1)
    if count * 4 != len(reader.payload) - reader.at:
        raise DecodeError("a Truncate message names another number of tables than it announces")
    oids = tuple(reader.number(4) for _ in range(count))
    return Truncate(oids, bool(options & 1), bool(options & 2))


def parse_message(payload: bytes) -> Message:
    """Read an M message."""
    reader = _Reader(payload, b"M", "logical decoding")
    flags, lsn, prefix = reader.number(1), reader.number(8), reader.text()
    result = Message(bool(flags & 1), lsn, prefix, reader.take(reader.number(4)))
    reader.finish()
    return result
