"""Explain: every change of one key, out of the raw log, with the file, entry, lake version and build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from headwater.errors import ConfigError
from headwater.explain.story import NEW_HALF, OLD_HALF, Event, Raw, Story
from headwater.keys import format_key, parse_key
from headwater.lake.delta import Lake
from headwater.model import STRIDE, Mark, Op, TableId
from headwater.quarantine.rows import waiting_rows
from headwater.raw import RawLog
from headwater.state import RunRecord

_WORDS = {
    Op.READ: "read",
    Op.CREATE: "insert",
    Op.UPDATE: "update",
    Op.DELETE: "delete",
    Op.TRUNCATE: "truncate",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a key, or of a key that it had before or after a key change.

    op            read (by a full load) | insert | update | delete | truncate
    changed       the columns that are not what they were; empty for a new row
    lake_version  the version of the lake's `changes` table that took it in; None: not yet
    waits         why it is in quarantine: the columns that do not fit, or that it is behind such a change
    warehouse     built | not yet; "" where no record of a run tells of a build
    run           the run that built it into the warehouse first; "" where its record is gone
    values        what the log carried, as text, if it was asked for
    before, row   the whole row before and after it then, as far as known; empty where there is none
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
    waits: str = ""
    warehouse: Literal["", "not yet", "built"] = ""
    run: str = ""
    built_at: datetime | None = None
    values: Mapping[str, str | None] = field(default_factory=dict)
    before: Mapping[str, str | None] = field(default_factory=dict)
    row: Mapping[str, str | None] = field(default_factory=dict)


def explain(  # noqa: PLR0913
    log: RawLog,
    lake: Lake,
    table: TableId,
    key: str | Mapping[str, str],
    *,
    values: bool = False,
    runs: Sequence[RunRecord] = (),
) -> list[Step]:
    """Every change of a key in the order of the log; empty if there never was one.

    `key` is text as `keys.parse_key` reads it, or a value for each key column; `runs` are the records of this
    lake, in any order. ConfigError when the table was never captured or has no key, or when the text cannot
    be a key of it.
    """
    state = log.tables().get(table)
    if state is None:
        raise ConfigError(f"{table} was never captured", hint="headwater status")
    schema = log.schema(table, state.schema)
    if not schema.key:
        raise ConfigError(f"{table} has no key: its rows cannot be told apart", hint="headwater verify")
    wanted = parse_key(key, schema.key) if isinstance(key, str) else dict(key)
    with lake.connect() as connection:
        story = Story(Raw(connection, log, table, schema))
        events = story.tell(wanted)
    if not events:
        return []
    steps = _steps(events, lake.commits(table, "changes"), values=values)
    return _delivered(list(steps), _waiting(lake, table, events), _builds(table, runs))


def _waiting(lake: Lake, table: TableId, events: Sequence[Event]) -> Mapping[int, str]:
    """Why which of the events is in quarantine."""
    if lake.open(table, "quarantine") is None:
        return {}
    keys = {format_key(e.key) for e in events}
    behind = "is behind a change that does not fit"
    return {
        w.seq: f"{w.columns}: {w.rules}" if w.columns else behind
        for w in waiting_rows(lake, table, sorted(keys), len(events))
    }


_Builds = Sequence[tuple[tuple[int, int], RunRecord]]


def _builds(table: TableId, runs: Sequence[RunRecord]) -> _Builds:
    """The runs that built a table, the oldest first, each with the entries it took."""
    name = str(table)
    found = [(r.built[name], r) for r in runs if name in r.built]
    return sorted(found, key=lambda build: build[1].ended_at)


def _delivered(steps: Sequence[Step], waiting: Mapping[int, str], builds: _Builds) -> list[Step]:
    """The steps with how far each of them came."""
    reached = max((upto for (_, upto), _ in builds), default=-1)
    done = []
    for step in steps:
        waits = waiting.get(step.seq, "")
        if waits or step.entry > reached:
            done.append(replace(step, waits=waits, warehouse="not yet" if builds else ""))
            continue
        run = next((r for (after, upto), r in builds if after < step.entry <= upto), None)
        when = run.ended_at if run else None
        done.append(replace(step, warehouse="built", run=run.run_id if run else "", built_at=when))
    return done


_Cells = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class _Known:
    """A row as far as it is known: canonical texts, texts for a person, and the origins of its columns."""

    texts: _Cells = field(default_factory=dict)
    shown: _Cells = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def called_as_in(self, event: Event) -> _Known:
        """The same under the names that the columns have in an event; dropped ones are no more."""
        if event.origins in ({}, self.origins):
            return self
        now = {origin: name for name, origin in event.origins.items()}
        names = {name: now[origin] for name, origin in self.origins.items() if origin in now}
        texts, shown = (
            {names[n]: text for n, text in cells.items() if n in names} for cells in (self.texts, self.shown)
        )
        return _Known(texts, shown, event.origins)


def _steps(events: Sequence[Event], commits: Sequence[tuple[int, Mark]], *, values: bool) -> Iterator[Step]:
    """The events with what they changed, given in order."""
    state: dict[str, _Known] = {}
    moved: dict[int, tuple[str, _Known]] = {}
    partner = {e.seq for e in events if e.op == Op.CREATE and e.seq % STRIDE == NEW_HALF}
    for event in events:
        name = format_key(event.key)
        note, known = "", state.get(name)
        if event.op == Op.CREATE and event.seq - 1 in moved:
            was, known = moved.pop(event.seq - 1)
            note = f"the key was {was}"
        known = known.called_as_in(event) if known else None
        carried = {n: t for n, t in event.texts.items() if n not in event.unset}
        shown = {n: t for n, t in event.shown.items() if n in carried} if values else {}
        before, row = known.shown if known else {}, {}
        changed: tuple[str, ...] = ()
        if event.ends:
            gone = state.pop(name, _Known())
            if event.seq + 1 in partner and event.seq % STRIDE == OLD_HALF:
                moved[event.seq] = name, gone
                note = "the key changes"
            elif not event.named:
                note = "not in this full load"
        else:
            texts = known.texts if known else {}
            if known is not None:
                changed = tuple(n for n, t in carried.items() if t != texts.get(n))
                note = note or ("" if changed else "as it was")
            whole = {**before, **shown}
            row = {n: whole[n] for n in event.texts if n in shown or (n in event.unset and n in whole)}
            state[name] = _Known({**texts, **carried}, row, event.origins)
        yield Step(
            event.seq, _WORDS[event.op], name, event.at, event.position, event.tx, changed, note,
            event.file.entry, _version(commits, event.file.entry), event.file.ref.path,
            values=shown, before=before, row=row,
        )  # fmt: skip


def _version(commits: Sequence[tuple[int, Mark]], entry: int) -> int | None:
    """The first version whose mark reaches an entry."""
    return next((version for version, mark in commits if mark.seq >= entry), None)
