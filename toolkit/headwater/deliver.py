"""Deliver: raw log -> lake -> warehouse. Each step works on what is durable, whoever wrote it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from time import monotonic

from headwater import memo
from headwater.config import Config, TableSpec
from headwater.errors import HeadwaterError
from headwater.events import Value
from headwater.failpoints import reach
from headwater.handoff.build import BuildResult, publish
from headwater.lake.delta import Lake
from headwater.model import TableId
from headwater.raw import RawLog
from headwater.refresh import refresh
from headwater.sources import Source
from headwater.state import StateStore
from headwater.storage import Storage
from headwater.tally import Tally

#: A table that failed is tried again after a second, then ever more seldom, down to once in so many seconds.
SELDOM = 300.0

Tell = Callable[[str, TableId | None, Mapping[str, Value]], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run touches, opened by `wiring` or by a test.

    look    a second handle on the source that only looks (`facts`, `head`, `behind`), for another thread
    """

    config: Config
    source: Source
    look: Source
    storage: Storage
    log: RawLog
    lake: Lake
    state: StateStore

    def apart(self) -> Parts:
        """The same pipeline for another thread: store, log and lake of its own; close the storage."""
        storage = self.storage.reopen()
        lake = Lake(storage, self.config.memory_limit)
        return replace(self, storage=storage, log=RawLog(storage), lake=lake)


@dataclass(slots=True)
class _Late:
    """A table that waits: the entry behind which it has to be folded, and when to try again."""

    after: int
    delay: float = 0.0
    due: float = 0.0


class Delivery:
    """The steps behind capture for one thread. Tables that fail or are not whole yet never hold up others."""

    def __init__(
        self, parts: Parts, specs: Mapping[TableId, TableSpec], tell: Tell, guard: Callable[[], None]
    ) -> None:
        """`guard` raises Conflict once the lease is lost."""
        self._parts, self._specs, self._tell, self._guard = parts, specs, tell, guard
        self._folded: memo.Folded | None = None  # of the tables that do not wait
        self._late: dict[TableId, _Late] = {}

    @property
    def due(self) -> float | None:
        """In how many seconds a table that failed is to be tried again; None when there is none."""
        waiting = [late.due - monotonic() for late in self._late.values() if late.delay]
        return max(0.0, min(waiting)) if waiting else None

    def folded(self) -> memo.Folded:
        """How far the lake is, as far as this delivery knows."""
        if self._folded is None:
            parts = self._parts
            self._folded = memo.load_folded(parts.state, parts.config.name, memo.lake_id(parts.storage))
        return self._folded

    def refresh(self, tally: Tally, *, hurry: bool = True) -> Mapping[TableId, HeadwaterError]:
        """Fold what is new in the log; returns the tables that failed, after the others are done.

        `hurry`: those that failed before are tried again now, else when their time has come.
        """
        known, last = self.folded(), self._parts.log.last()
        if last is None:
            return {}
        whole = {t for t, s in self._parts.log.tables().items() if s.complete}
        for table in self._specs.keys() - whole - self._late.keys():
            self._late[table] = _Late(known.through)
        groups = self._groups(known.through, last.seq, whole, hurry=hurry)
        if not groups:
            return {}
        self._guard()
        marks: dict[TableId, int] = dict(known.marks)
        failed: dict[TableId, HeadwaterError] = {}
        for after, tables in groups.items():
            failed |= self._fold(tally, tables, (after, last.seq), marks)
        self._folded = replace(known, through=last.seq, marks=marks)
        # The next process looks from where the table that waits longest was left.
        through = min([last.seq, *(late.after for late in self._late.values())])
        memo.save_folded(self._parts.state, self._parts.config.name, replace(self._folded, through=through))
        return failed

    def build(self, tally: Tally, folded: memo.Folded, *, full_refresh: bool = False) -> BuildResult | None:
        """Hand what the lake holds to the warehouse; None when it has all of it already."""
        parts, warehouse = self._parts, self._parts.config.warehouse
        if warehouse is None:
            return None
        name = parts.config.name
        seen = memo.load_published(parts.state, name, folded.lake, warehouse.path)
        seen = {} if full_refresh or not os.path.exists(warehouse.path) else seen
        news = [t for t, mark in folded.marks.items() if t in self._specs and seen.get(t) != mark]
        if not news:
            return None
        self._guard()
        self._tell("handoff.started", None, {"tables": len(news)})
        # A table that never had a row is not in the lake, and has nothing to build from.
        there = [t for t in folded.marks if t in self._specs and parts.lake.version(t, "changes") >= 0]
        staged = {t: parts.lake.staged(t) for t in there}
        reach("build.before")
        built = publish(parts.config, staged, self._specs, news=news, full_refresh=full_refresh)
        reach("build.after")
        tally.add_built(built)
        marks = {**seen, **{t: folded.marks[t] for t in news}}
        memo.save_published(parts.state, name, folded.lake, warehouse.path, marks)
        self._tell("handoff.finished", None, {"tables": len(news), "models": len(built.models)})
        return built

    def _groups(
        self, through: int, last: int, whole: Collection[TableId], *, hurry: bool
    ) -> Mapping[int, set[TableId]]:
        """The tables to fold now, by the entry they are to go on behind."""
        groups: dict[int, set[TableId]] = defaultdict(set)
        if last > through:
            groups[through] |= self._specs.keys() - self._late.keys()
        now = monotonic()
        for table, late in self._late.items():
            if table in whole and (hurry or now >= late.due):
                groups[late.after].add(table)
        return {after: tables for after, tables in groups.items() if tables}

    def _fold(
        self, tally: Tally, tables: set[TableId], span: tuple[int, int], marks: dict[TableId, int]
    ) -> Mapping[TableId, HeadwaterError]:
        (after, upto), parts = span, self._parts
        failed: dict[TableId, HeadwaterError] = {}
        specs = {t: self._specs[t] for t in tables}
        results = refresh(
            parts.log, parts.lake, specs, after=after, memory_limit=parts.config.memory_limit, failed=failed
        )
        for table, done in results.items():
            counts = {"inserted": done.inserted, "updated": done.updated, "deleted": done.deleted}
            tally.count(table).update({**counts, "versions": done.versions})
            self._tell("table.refreshed", table, counts)
        self._put_off(tables, failed, after)
        # Not from `results`: what an earlier run folded and did not live to note down counts as well. Not
        # beyond `upto`: what was logged since may not be folded yet, and a mark says that it is.
        for entry in parts.log.entries(after, upto):
            moved = {
                ref.table for ref in entry.batches if ref.rows or ref.epoch > 1 or ref.phase == "changes"
            }
            marks.update(dict.fromkeys(moved & tables - failed.keys(), entry.seq))
        return failed

    def _put_off(self, tables: set[TableId], failed: Mapping[TableId, HeadwaterError], after: int) -> None:
        for table in tables - failed.keys():
            self._late.pop(table, None)
        for table, error in failed.items():
            before = self._late.get(table)
            delay = min(SELDOM, max(1.0, 2 * before.delay if before else 0.0))
            self._late[table] = _Late(after, delay, monotonic() + delay)
            self._tell("table.failed", table, {"error": str(error), "seconds": delay})
