"""One run: the steps in their order, and the record that says what they did.

full | delta | resync are one order: capture, refresh, handoff, record. A `Runner` does it once (`run`), over
and over (`follow`), or up to a given position (`settle`, for `verify`).
"""

from __future__ import annotations

import os
import random
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Literal

from headwater import memo
from headwater.capture import Capture, Captured
from headwater.config import Config, TableSpec
from headwater.errors import HeadwaterError, SourceError
from headwater.events import Event, Sink, Value, tell
from headwater.failpoints import reach
from headwater.handoff.build import BuildResult, publish
from headwater.lake.delta import Lake
from headwater.model import Position, TableId, TableInfo
from headwater.raw import RawLog
from headwater.refresh import refresh
from headwater.sources import Source
from headwater.state import RunRecord, StateStore, TableCount, append_run
from headwater.storage import Storage

#: While following, dbt builds at most this often (seconds): capture must not wait for a build of seconds.
BUILD_PAUSE = 30.0
#: How long (seconds) a follower waits in all for a source that went away.
RETRY_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run touches, opened by `wiring` or by a test."""

    config: Config
    source: Source
    storage: Storage
    log: RawLog
    lake: Lake
    state: StateStore


@dataclass(slots=True)
class _Tally:
    """What a run has done so far; becomes its record."""

    mode: str
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    since: Position | None = None
    reached: Position | None = None
    entries: int = 0
    counts: dict[TableId, Counter[str]] = field(default_factory=dict)
    built: BuildResult | None = None
    notes: list[str] = field(default_factory=list)

    def add_captured(self, done: Captured) -> None:
        """Count what a capture step logged."""
        self.since = self.since or done.since
        self.reached = done.reached
        self.entries += done.entries
        if done.gap:
            self.notes.append(f"changes are missing from the log, what they did was read: {done.gap}")
        for table, rows in done.rows.items():
            self.count(table)["rows_in"] += rows

    def count(self, table: TableId) -> Counter[str]:
        """The counters of one table."""
        return self.counts.setdefault(table, Counter())


class Runner:
    """Runs one pipeline over the chosen tables; whoever makes one holds the pipeline's lease."""

    def __init__(
        self,
        parts: Parts,
        specs: Mapping[TableId, TableSpec],
        tables: Sequence[TableInfo],
        sinks: Sequence[Sink] = (),
        *,
        guard: Callable[[], None] = lambda: None,
        notes: Sequence[str] = (),
    ) -> None:
        """`guard` raises Conflict once the lease is lost; `notes` are warnings that every record carries."""
        self._parts = parts
        self._specs = specs
        self._sinks = sinks
        self._guard = guard
        self._notes = tuple(notes)
        self._capture = Capture(parts.source, parts.log, tables, self._watch, guard)
        self._built_at = 0.0

    def run(self, mode: str, reload: Collection[TableId] = (), *, build: bool = True) -> RunRecord:
        """One full or delta run. Raises what stopped it, after the failed run was recorded."""
        with self._recorded(_Tally(mode)) as tally:
            tally.add_captured(self._capture.start(reload))
            tally.add_captured(self._capture.drain())
            self._deliver(tally, build=build)
        return self._finish(tally)

    def follow(
        self, stop: Callable[[], bool], wait: Callable[[float], None], *, pause: float, build: bool = True
    ) -> Iterator[RunRecord]:
        """Run until `stop` says so; yields a record for each round that brought something and the last.

        A source that went away is asked again, ever more seldom, for as long as RETRY_SECONDS; whatever would
        fail again in the same way is raised at once.
        """
        tally, started, away = _Tally("follow"), False, 0.0
        while True:
            ending = stop()
            try:
                with self._recorded(tally):
                    if not started:
                        tally.add_captured(self._capture.start())
                        started = True
                    tally.add_captured(self._capture.drain())
                    due = ending or monotonic() - self._built_at >= BUILD_PAUSE
                    self._deliver(tally, build=build and due)
                away = 0.0
            except SourceError as failed:
                if type(failed) is not SourceError or ending or away >= RETRY_SECONDS:
                    raise
                delay = min(60.0, max(1.0, away)) * random.uniform(0.8, 1.2)
                away += delay
                self._tell("run.retrying", None, {"error": str(failed), "seconds": round(delay, 1)})
                wait(delay)
                tally = _Tally("follow")
                continue
            if ending:
                break
            if tally.entries:
                yield self._finish(tally)
                tally = _Tally("follow")
            wait(pause)
        yield self._finish(tally)

    def settle(self, until: Position, *, build: bool = True) -> frozenset[TableId]:
        """Bring log, lake and warehouse to exactly `until`, after a `run`; returns tables to read again."""
        with self._recorded(_Tally("verify")) as tally:
            tally.add_captured(self._capture.drain(until))
            self._deliver(tally, build=build)
        self._finish(tally)
        return self._capture.unsettled

    def build(self, *, full_refresh: bool = False) -> BuildResult | None:
        """Hand what the lake holds to the warehouse; None when it has all of it already."""
        lake = memo.lake_id(self._parts.storage)
        tally = _Tally("build")
        self._build(tally, memo.load_folded(self._parts.state, self._parts.config.name, lake), full_refresh)
        return tally.built

    def _deliver(self, tally: _Tally, *, build: bool) -> None:
        folded = self._refresh(tally)
        if build:
            self._build(tally, folded, full_refresh=False)
        self._parts.storage.release()

    def _refresh(self, tally: _Tally) -> memo.Folded:
        parts, name = self._parts, self._parts.config.name
        last, lake = parts.log.last(), memo.lake_id(parts.storage)
        known = memo.load_folded(parts.state, name, lake)
        if last is None or last.seq <= known.through:
            return known
        self._guard()
        results = refresh(
            parts.log, parts.lake, self._specs, after=known.through, memory_limit=parts.config.memory_limit
        )
        for table, done in results.items():
            counts = {"inserted": done.inserted, "updated": done.updated, "deleted": done.deleted}
            tally.count(table).update({**counts, "versions": done.versions})
            self._tell("table.refreshed", table, counts)
        whole = {t for t, s in parts.log.tables().items() if s.complete}
        # Not from `results`: what an earlier run folded and did not live to note down counts as well.
        marks = dict(known.marks)
        for entry in parts.log.entries(known.through, last.seq):
            moved = {ref.table for ref in entry.batches if ref.rows or ref.epoch > 1}
            marks.update(dict.fromkeys(moved & whole, entry.seq))
        # A table whose load was cut short has entries to fold later: the next look starts where this one did.
        folded = memo.Folded(lake, last.seq if whole >= set(self._specs) else known.through, marks)
        memo.save_folded(parts.state, name, folded)
        return folded

    def _build(self, tally: _Tally, folded: memo.Folded, full_refresh: bool) -> None:
        parts, warehouse = self._parts, self._parts.config.warehouse
        if warehouse is None:
            return
        self._built_at = monotonic()
        seen = memo.load_published(parts.state, parts.config.name, folded.lake, warehouse.path)
        seen = {} if full_refresh or not os.path.exists(warehouse.path) else seen
        news = [t for t, mark in folded.marks.items() if t in self._specs and seen.get(t) != mark]
        if not news:
            return
        self._tell("handoff.started", None, {"tables": len(news)})
        # A table that never had a row is not in the lake, and has nothing to build from.
        there = [t for t in folded.marks if t in self._specs and parts.lake.version(t, "changes") >= 0]
        staged = {t: parts.lake.staged(t) for t in there}
        reach("build.before")
        tally.built = publish(
            parts.config, staged, self._specs, news=news, full_refresh=full_refresh, progress=None
        )
        reach("build.after")
        marks = {**seen, **{t: folded.marks[t] for t in news}}
        memo.save_published(parts.state, parts.config.name, folded.lake, warehouse.path, marks)
        self._tell("handoff.finished", None, {"tables": len(news), "models": len(tally.built.models)})

    @contextmanager
    def _recorded(self, tally: _Tally) -> Iterator[_Tally]:
        if not tally.entries:
            self._tell("run.started", None, {"run_id": tally.run_id, "mode": tally.mode})
        try:
            yield tally
        except HeadwaterError as failed:
            record = replace(self._record(tally, "failed"), error=str(failed), hint=failed.hint)
            append_run(self._parts.state, record)
            self._tell("run.failed", None, {"run_id": tally.run_id, "error": str(failed)})
            raise

    def _finish(self, tally: _Tally) -> RunRecord:
        record = self._record(tally, "done")
        reach("record.before")
        append_run(self._parts.state, record)
        reach("record.after")
        self._tell("run.finished", None, {"run_id": tally.run_id, "entries": tally.entries})
        return record

    def _record(self, tally: _Tally, outcome: Literal["done", "failed"]) -> RunRecord:
        parts, built = self._parts, tally.built
        head, behind = self._head(tally.reached)
        return RunRecord(
            run_id=tally.run_id,
            pipeline=parts.config.name,
            mode=tally.mode,
            started_at=tally.started_at,
            ended_at=datetime.now(UTC),
            outcome=outcome,
            from_position=parts.source.show(tally.since) if tally.since else "",
            to_position=parts.source.show(tally.reached) if tally.reached else "",
            source_head=head,
            behind_bytes=behind,
            entries=tally.entries,
            tables={str(t): TableCount(**counts) for t, counts in tally.counts.items()},
            models_built=len(built.models) if built else 0,
            tests_passed=built.tests_passed if built else 0,
            warnings=(*tally.notes, *self._notes, *parts.state.warnings),
        )

    def _head(self, reached: Position | None) -> tuple[str, int | None]:
        """The source's head as a record shows it; a source that is away must not hide why the run failed."""
        source = self._parts.source
        try:
            return source.show(source.head()), source.behind(reached) if reached else None
        except SourceError:
            return "", None

    def _watch(self, kind: str, table: TableId | None, data: Mapping[str, int]) -> None:
        self._tell(kind, table, data)

    def _tell(self, kind: str, table: TableId | None, data: Mapping[str, Value]) -> None:
        tell(self._sinks, Event(kind, self._parts.config.name, table, data))
