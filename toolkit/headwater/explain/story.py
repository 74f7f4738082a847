"""The rows of the raw log that make up the story of a key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import beside_text, column_texts, duckdb_type, held_types, literal, quote, shown_text
from headwater.errors import ConfigError
from headwater.keys import format_key
from headwater.model import STRIDE, BatchRef, Op, TableId, TableSchema
from headwater.raw import RawLog

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: A key change is a delete at +1 and an insert at +2 of the same source change.
OLD_HALF, NEW_HALF = 1, 2


@dataclass(frozen=True, slots=True)
class File:
    """A file of the table, and the entry that names it."""

    ref: BatchRef
    entry: int
    next_row: int  # the entry's


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the raw log, or what a truncate or a full load did to a key without naming it."""

    op: Op
    seq: int
    position: str
    at: datetime | None
    tx: str
    file: File
    key: Mapping[str, str] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    texts: Mapping[str, str | None] = field(default_factory=dict)  # canonical
    shown: Mapping[str, str | None] = field(default_factory=dict)  # for a person
    named: bool = True
    origins: Mapping[str, str] = field(
        default_factory=dict
    )  # of the columns: what stays when they are renamed

    @property
    def ends(self) -> bool:
        """Whether the row is gone after it."""
        return self.op in (Op.DELETE, Op.TRUNCATE)


class Raw:
    """The raw log of one table, as far as the lake takes it in."""

    def __init__(
        self, connection: DuckDBPyConnection, log: RawLog, table: TableId, schema: TableSchema
    ) -> None:
        self._connection, self._log, self._table = connection, log, table
        self.key = schema.key
        refs = [
            File(ref, e.seq, e.next_row) for e in log.entries() for ref in e.batches if ref.table == table
        ]
        ended = {f.ref.epoch for f in refs if f.ref.phase == "snapshot_end"}
        # A load that died is void, with the changes between its sittings: the table was read again.
        begun = {f.ref.epoch for f in refs if f.ref.phase != "changes"}
        self._files = [f for f in refs if f.ref.epoch in ended or f.ref.epoch not in begun]
        self.loads = {
            epoch: [f for f in self._files if f.ref.phase != "changes" and f.ref.epoch == epoch]
            for epoch in sorted(ended)
        }

    def find(self, key: Mapping[str, str]) -> list[Event]:
        """The rows of a key, in order; ConfigError when no version of the table could have it."""
        found, possible = [], self._matches(self._newest(), key) is not None
        for schema, files in self._by_schema(self._files):
            condition = self._matches(schema, key)
            possible |= condition is not None
            if condition is not None:
                found += self._read(schema, files, condition)
        if not possible:
            types = ", ".join(
                f"{c.name} {c.native}".strip() for c in self._newest().columns if c.name in self.key
            )
            raise ConfigError(f"{format_key(key)[:200]} cannot be a key of {self._table} ({types})")
        return sorted(found, key=lambda e: e.seq)

    def at(self, seq: int) -> Event | None:
        """The row of this number."""
        near = [f for f in self._files if f.ref.rows and f.ref.first_seq <= seq <= f.ref.last_seq]
        for schema, files in self._by_schema(near):
            for found in self._read(schema, files, f"_hw_seq = {seq}"):
                return found
        return None

    def truncates(self) -> list[Event]:
        """Every truncate of the table."""
        changes = [f for f in self._files if f.ref.phase == "changes"]
        bare = [(TableSchema(self._table, ()), files) for _, files in self._by_schema(changes)]
        return [e for schema, files in bare for e in self._read(schema, files, "_hw_op = 't'")]

    def _by_schema(self, files: Sequence[File]) -> Iterator[tuple[TableSchema, list[File]]]:
        filled = sorted((f for f in files if f.ref.rows), key=lambda f: f.ref.schema)
        for fingerprint, group in groupby(filled, key=lambda f: f.ref.schema):
            yield self._log.schema(self._table, fingerprint), list(group)

    def _newest(self) -> TableSchema:
        return self._log.schema(self._table, self._log.tables()[self._table].schema)

    def _matches(self, schema: TableSchema, key: Mapping[str, str]) -> str | None:
        """SQL that is true for the rows of a key; None when no row of this schema can have it."""
        types = {c.name: c.type for c in schema.columns}
        parts = [self._is(name, types[name], text) for name, text in key.items() if name in types]
        found = [part for part in parts if part is not None]
        return " AND ".join(found) if len(found) == len(key) else None

    def _is(self, name: str, its: pa.DataType, text: str) -> str | None:
        """SQL that compares a key column in its own type, so that file statistics count."""
        if "\0" in text or (pa.types.is_integer(its) and not re.fullmatch(r"[+-]?\d{1,20}", text)):
            return None
        typed = duckdb_type(its)
        fits = self._rows(f"SELECT TRY_CAST({literal(text)} AS {typed}) IS NOT NULL")[0][0]
        same = f"{quote(name)} = CAST({literal(text)} AS {typed})" if fits else ""
        if same and pa.types.is_floating(its):
            # Arrow leaves NaN out of its statistics, and DuckDB answers a plain comparison wrongly from them.
            same = f"[{quote(name)}] = [CAST({literal(text)} AS {typed})]"
        if pa.types.is_integer(its) or pa.types.is_string(its) or pa.types.is_binary(its):
            return same or None
        odd = f"({quote(name)} IS NULL AND {beside_text(name)} = {literal(text)})"
        return f"({same} OR {odd})" if same else odd

    def _read(self, schema: TableSchema, files: Sequence[File], condition: str) -> list[Event]:
        paths = {str(self._log.fetch(f.ref)): f for f in files}
        held = held_types(schema)
        names = [c.name for c in schema.columns]
        texts = column_texts(schema).values()
        shown = [shown_text(name, held[name], beside=True) for name in names]
        rows = self._rows(
            f"""
            SELECT _hw_op, _hw_seq, _hw_pos, epoch_us(_hw_at), _hw_tx, _hw_unset, _hw_file,
                [{", ".join(texts)}]::VARCHAR[], [{", ".join(shown)}]::VARCHAR[]
            FROM read_parquet([{", ".join(map(literal, paths))}], filename = '_hw_file') WHERE {condition}
            """
        )
        origins = {c.name: c.origin or c.name for c in schema.columns}
        return [self._event(origins, paths[str(row[6])], row) for row in rows]

    def _event(self, origins: Mapping[str, str], file: File, row: Sequence[object]) -> Event:
        op, seq, position, micros, tx, unset, _, texts, shown = row
        assert isinstance(seq, int) and isinstance(texts, list) and isinstance(shown, list)
        people = dict(zip(origins, shown, strict=True))
        return Event(
            Op(str(op)), seq, str(position or ""), _moment(micros), str(tx or ""), file,
            {name: people[name] or "" for name in self.key if name in people},
            frozenset(unset if isinstance(unset, list) else ()), dict(zip(origins, texts, strict=True)),
            people, origins=origins,
        )  # fmt: skip

    def _rows(self, sql: str) -> list[tuple[object, ...]]:
        return self._connection.execute(sql).fetchall()


def _moment(micros: object) -> datetime | None:
    """A time as Python has it; None for one it has not, or for none."""
    try:
        return _EPOCH + timedelta(microseconds=micros) if isinstance(micros, int) else None
    except OverflowError:
        return None


class Story:
    """What happened to a key, and to the keys that its rows had before and after."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._truncates: list[Event] | None = None

    def tell(self, key: Mapping[str, str]) -> list[Event]:
        """The events of all of them, in order."""
        own = self._line(key)
        told = {e.seq: e for e in own}
        for event in own:
            for other in (*self._before(event), *self._after(event)):
                told.setdefault(other.seq, other)
        return [told[seq] for seq in sorted(told)]

    def _line(self, key: Mapping[str, str]) -> list[Event]:
        """Everything that happened to one key, in order."""
        rows = self._raw.find(key)
        if not rows:
            return []
        if self._truncates is None:
            self._truncates = self._raw.truncates()
        happened = [*rows, *self._truncates, *self._gone(rows)]
        line: list[Event] = []
        alive = False
        for event in sorted(happened, key=lambda e: e.seq):
            if event.key:
                line.append(event)
                alive = not event.ends
            elif alive:
                line.append(_for(event, rows[0].key))
                alive = False
        return line

    def _gone(self, rows: Sequence[Event]) -> Iterator[Event]:
        """What full loads after the first did to the key by not having it."""
        having = {e.file.ref.epoch for e in rows if e.op == Op.READ}
        for epoch, files in list(self._raw.loads.items())[1:]:
            if epoch in having:
                continue
            # As the fold does: below the first row, and where there is none, at the end of the entry.
            numbers = [f.ref.first_seq for f in files if f.ref.rows]
            first = self._raw.at(min(numbers)) if numbers else None
            seq = first.seq // STRIDE * STRIDE if first else files[-1].next_row
            position, at, file = (first.position, first.at, first.file) if first else ("", None, files[-1])
            yield Event(Op.DELETE, seq, position, at, "", file, named=False)

    def _before(self, event: Event) -> Iterator[Event]:
        """The life of the key that a row had before the key change that made it, and so on back."""
        while (old := self._other_half(event, NEW_HALF, -1)) is not None:
            line = [e for e in self._line(old.key) if e.seq <= old.seq]
            ends = [n for n, e in enumerate(line[:-1]) if e.ends]
            life = line[ends[-1] + 1 :] if ends else line
            if not life:
                return  # the table had another key then, and its deletes do not have this one
            yield from life
            event = life[0]

    def _after(self, event: Event) -> Iterator[Event]:
        """The life of the key that a row got by a key change, and so on."""
        while (new := self._other_half(event, OLD_HALF, 1)) is not None:
            line = [e for e in self._line(new.key) if e.seq >= new.seq]
            ends = [n for n, e in enumerate(line) if e.ends]
            life = line[: ends[0] + 1] if ends else line
            if not life:
                return
            yield from life
            event = life[-1]

    def _other_half(self, event: Event, half: int, step: int) -> Event | None:
        if not event.named or event.seq % STRIDE != half:
            return None
        other = self._raw.at(event.seq + step)
        return other if other and other.op == (Op.DELETE if step < 0 else Op.CREATE) else None


def _for(event: Event, key: Mapping[str, str]) -> Event:
    return Event(
        event.op,
        event.seq,
        event.position,
        event.at,
        event.tx,
        event.file,
        key,
        named=event.op == Op.TRUNCATE,
    )
