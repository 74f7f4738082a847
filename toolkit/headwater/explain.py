"""Explain: every change of one key, out of the raw log, with the file, entry and lake version of each."""

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
from headwater.keys import format_key, parse_key
from headwater.lake.delta import Lake
from headwater.model import STRIDE, BatchRef, Mark, Op, TableId, TableSchema
from headwater.raw import RawLog

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_WORDS = {
    Op.READ: "read",
    Op.CREATE: "insert",
    Op.UPDATE: "update",
    Op.DELETE: "delete",
    Op.TRUNCATE: "truncate",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: A key change is a delete at +1 and an insert at +2 of the same source change.
_OLD_HALF, _NEW_HALF = 1, 2


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a key, or of a key that it had before or after a key change.

    op            read (by a full load) | insert | update | delete | truncate
    changed       the columns that are not what they were; empty for a new row
    lake_version  the version of the lake's `changes` table that took it in; None: not yet
    values        what the log carried, as text, if it was asked for
    """

    seq: int
    op: str
    key: str
    at: datetime | None
    position: str
    tx: str
    changed: tuple[str, ...]
    note: str
    entry: int
    lake_version: int | None
    file: str
    values: Mapping[str, str | None] = field(default_factory=dict)


def explain(
    log: RawLog, lake: Lake, table: TableId, key: str | Mapping[str, str], *, values: bool = False
) -> list[Step]:
    """Every change of a key in the order of the log; empty if there never was one.

    `key` is text as `keys.parse_key` reads it, or a value for each key column. ConfigError when the table was
    never captured or has no key, or when the text cannot be a key of it.
    """
    state = log.tables().get(table)
    if state is None:
        raise ConfigError(f"{table} was never captured", hint="headwater status")
    schema = log.schema(table, state.schema)
    if not schema.key:
        raise ConfigError(f"{table} has no key: its rows cannot be told apart", hint="headwater verify")
    wanted = parse_key(key, schema.key) if isinstance(key, str) else dict(key)
    with lake.connect() as connection:
        story = _Story(_Raw(connection, log, table, schema))
        events = story.tell(wanted)
    return list(_steps(events, lake.commits(table, "changes"), values=values))


@dataclass(frozen=True, slots=True)
class _File:
    ref: BatchRef
    entry: int
    next_row: int  # the entry's


@dataclass(frozen=True, slots=True)
class _Event:
    """A row of the raw log, or what a truncate or a full load did to a key without naming it."""

    op: Op
    seq: int
    position: str
    at: datetime | None
    tx: str
    file: _File
    key: Mapping[str, str] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    texts: Mapping[str, str | None] = field(default_factory=dict)  # canonical
    shown: Mapping[str, str | None] = field(default_factory=dict)  # for a person
    named: bool = True

    @property
    def ends(self) -> bool:
        """Whether the row is gone after it."""
        return self.op in (Op.DELETE, Op.TRUNCATE)


class _Raw:
    """The raw log of one table, as far as the lake takes it in."""

    def __init__(
        self, connection: DuckDBPyConnection, log: RawLog, table: TableId, schema: TableSchema
    ) -> None:
        self._connection, self._log, self._table = connection, log, table
        self.key = schema.key
        refs = [
            _File(ref, e.seq, e.next_row) for e in log.entries() for ref in e.batches if ref.table == table
        ]
        ended = {f.ref.epoch for f in refs if f.ref.phase == "snapshot_end"}
        # A load that died is void, with the changes between its sittings: the table was read again.
        begun = {f.ref.epoch for f in refs if f.ref.phase != "changes"}
        self._files = [f for f in refs if f.ref.epoch in ended or f.ref.epoch not in begun]
        self.loads = {
            epoch: [f for f in self._files if f.ref.phase != "changes" and f.ref.epoch == epoch]
            for epoch in sorted(ended)
        }

    def find(self, key: Mapping[str, str]) -> list[_Event]:
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

    def at(self, seq: int) -> _Event | None:
        """The row of this number."""
        near = [f for f in self._files if f.ref.rows and f.ref.first_seq <= seq <= f.ref.last_seq]
        for schema, files in self._by_schema(near):
            for found in self._read(schema, files, f"_hw_seq = {seq}"):
                return found
        return None

    def truncates(self) -> list[_Event]:
        """Every truncate of the table."""
        changes = [f for f in self._files if f.ref.phase == "changes"]
        bare = [(TableSchema(self._table, ()), files) for _, files in self._by_schema(changes)]
        return [e for schema, files in bare for e in self._read(schema, files, "_hw_op = 't'")]

    def _by_schema(self, files: Sequence[_File]) -> Iterator[tuple[TableSchema, list[_File]]]:
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

    def _read(self, schema: TableSchema, files: Sequence[_File], condition: str) -> list[_Event]:
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
        return [self._event(names, paths[str(row[6])], row) for row in rows]

    def _event(self, names: Sequence[str], file: _File, row: Sequence[object]) -> _Event:
        op, seq, position, micros, tx, unset, _, texts, shown = row
        assert isinstance(seq, int) and isinstance(texts, list) and isinstance(shown, list)
        people = dict(zip(names, shown, strict=True))
        return _Event(
            Op(str(op)), seq, str(position or ""), _moment(micros), str(tx or ""), file,
            {name: people[name] or "" for name in self.key if name in people},
            frozenset(unset if isinstance(unset, list) else ()), dict(zip(names, texts, strict=True)), people,
        )  # fmt: skip

    def _rows(self, sql: str) -> list[tuple[object, ...]]:
        return self._connection.execute(sql).fetchall()


def _moment(micros: object) -> datetime | None:
    """A time as Python has it; None for one it has not, or for none."""
    try:
        return _EPOCH + timedelta(microseconds=micros) if isinstance(micros, int) else None
    except OverflowError:
        return None


class _Story:
    """What happened to a key, and to the keys that its rows had before and after."""

    def __init__(self, raw: _Raw) -> None:
        self._raw = raw
        self._truncates: list[_Event] | None = None

    def tell(self, key: Mapping[str, str]) -> list[_Event]:
        """The events of all of them, in order."""
        own = self._line(key)
        told = {e.seq: e for e in own}
        for event in own:
            for other in (*self._before(event), *self._after(event)):
                told.setdefault(other.seq, other)
        return [told[seq] for seq in sorted(told)]

    def _line(self, key: Mapping[str, str]) -> list[_Event]:
        """Everything that happened to one key, in order."""
        rows = self._raw.find(key)
        if not rows:
            return []
        if self._truncates is None:
            self._truncates = self._raw.truncates()
        happened = [*rows, *self._truncates, *self._gone(rows)]
        line: list[_Event] = []
        alive = False
        for event in sorted(happened, key=lambda e: e.seq):
            if event.key:
                line.append(event)
                alive = not event.ends
            elif alive:
                line.append(_for(event, rows[0].key))
                alive = False
        return line

    def _gone(self, rows: Sequence[_Event]) -> Iterator[_Event]:
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
            yield _Event(Op.DELETE, seq, position, at, "", file, named=False)

    def _before(self, event: _Event) -> Iterator[_Event]:
        """The life of the key that a row had before the key change that made it, and so on back."""
        while (old := self._other_half(event, _NEW_HALF, -1)) is not None:
            line = [e for e in self._line(old.key) if e.seq <= old.seq]
            ends = [n for n, e in enumerate(line[:-1]) if e.ends]
            life = line[ends[-1] + 1 :] if ends else line
            if not life:
                return  # the table had another key then, and its deletes do not have this one
            yield from life
            event = life[0]

    def _after(self, event: _Event) -> Iterator[_Event]:
        """The life of the key that a row got by a key change, and so on."""
        while (new := self._other_half(event, _OLD_HALF, 1)) is not None:
            line = [e for e in self._line(new.key) if e.seq >= new.seq]
            ends = [n for n, e in enumerate(line) if e.ends]
            life = line[: ends[0] + 1] if ends else line
            if not life:
                return
            yield from life
            event = life[-1]

    def _other_half(self, event: _Event, half: int, step: int) -> _Event | None:
        if not event.named or event.seq % STRIDE != half:
            return None
        other = self._raw.at(event.seq + step)
        return other if other and other.op == (Op.DELETE if step < 0 else Op.CREATE) else None


def _for(event: _Event, key: Mapping[str, str]) -> _Event:
    return _Event(
        event.op,
        event.seq,
        event.position,
        event.at,
        event.tx,
        event.file,
        key,
        named=event.op == Op.TRUNCATE,
    )


_State = Mapping[str, str | None]


def _steps(events: Sequence[_Event], commits: Sequence[tuple[int, Mark]], *, values: bool) -> Iterator[Step]:
    """The events with what they changed, given in order."""
    state: dict[str, _State] = {}
    moved: dict[int, tuple[str, _State]] = {}
    partner = {e.seq for e in events if e.op == Op.CREATE and e.seq % STRIDE == _NEW_HALF}
    for event in events:
        name = format_key(event.key)
        note, before = "", state.get(name)
        if event.op == Op.CREATE and event.seq - 1 in moved:
            was, before = moved.pop(event.seq - 1)
            note = f"the key was {was}"
        carried = {n: t for n, t in event.texts.items() if n not in event.unset}
        changed: tuple[str, ...] = ()
        if event.ends:
            gone = state.pop(name, {})
            if event.seq + 1 in partner and event.seq % STRIDE == _OLD_HALF:
                moved[event.seq] = name, gone
                note = "the key changes"
            elif not event.named:
                note = "not in this full load"
        else:
            if before is not None:
                changed = tuple(n for n, t in carried.items() if t != before.get(n))
                note = note or ("" if changed else "as it was")
            state[name] = {**(before or {}), **carried}
        shown = {n: t for n, t in event.shown.items() if n in carried} if values else {}
        yield Step(
            event.seq, _WORDS[event.op], name, event.at, event.position, event.tx, changed, note,
            event.file.entry, _version(commits, event.file.entry), event.file.ref.path, shown,
        )  # fmt: skip


def _version(commits: Sequence[tuple[int, Mark]], entry: int) -> int | None:
    """The first version whose mark reaches an entry."""
    return next((version for version, mark in commits if mark.seq >= entry), None)
