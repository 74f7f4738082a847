"""Deliver: raw log -> lake -> warehouse. Each step works on what is durable, whoever wrote it."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from headwater import memo
from headwater.config import Config, Names, TableSpec, WarehouseConfig, quote_table
from headwater.errors import (
    CastFailed,
    ConfigError,
    HeadwaterError,
    QualityFailed,
    SchemaConflict,
    SchemaRefused,
)
from headwater.events import Value
from headwater.failpoints import reach
from headwater.formats import Catalog, Formats, Shown
from headwater.handoff.build import BuildResult, publish
from headwater.lake import Staged
from headwater.lake.delta import Lake
from headwater.model import TableId
from headwater.quality import QualityResult
from headwater.quality.place import Place
from headwater.quarantine import wanted_making
from headwater.raw import RawLog
from headwater.refresh import refresh
from headwater.sources import Source
from headwater.state import StateStore
from headwater.storage import Storage
from headwater.tally import Tally

if TYPE_CHECKING:
    from headwater.quality.gate import Gate

#: A table that failed is tried again after a second, then ever more seldom, down to once in so many seconds.
SELDOM = 300.0
#: What comes again as long as log, lake and configuration are as they are: it waits for more of the log.
_LASTING = (CastFailed, ConfigError, SchemaConflict, SchemaRefused)

Tell = Callable[[str, TableId | None, Mapping[str, Value]], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run touches, opened by `wiring` or by a test.

    look    a second handle on the source that only looks (`facts`, `head`, `behind`), for another thread
    catalog where published views are registered
    """

    config: Config
    source: Source
    look: Source
    storage: Storage
    log: RawLog
    lake: Lake
    state: StateStore
    catalog: Catalog | None = None

    @property
    def formats(self) -> Formats:
        """The published views of the lake."""
        return Formats(self.storage, self.lake, self.catalog)

    @property
    def place(self) -> Place:
        """What the quality of data is judged by."""
        return Place(self.config.name, self.storage, self.log, self.lake, self.state)

    def apart(self) -> Parts:
        """The same pipeline for another thread: store, log and lake of its own; close the storage."""
        storage = self.storage.reopen()
        lake = Lake(storage, self.config.memory_limit)
        return replace(self, storage=storage, log=RawLog(storage), lake=lake)


def _place(config: Config, warehouse: WarehouseConfig) -> str:
    """Names a warehouse and what is where in it: with other names or schemas everything is built again."""
    called = {pattern: spec.called for pattern, spec in config.overrides.items() if spec.called}
    there = WarehouseConfig(warehouse.kind, warehouse.path)
    if (warehouse, config.names, called) == (there, Names(), {}):
        return warehouse.path
    return f"{warehouse} {config.names} {sorted(called.items())}"


@dataclass(slots=True)
class _Late:
    """A table that waits: the entry behind which it has to be folded, and when to try again.

    failed, upto  why it waits, and up to which entry it was looked at
    """

    after: int
    delay: float = 0.0
    due: float = 0.0
    failed: HeadwaterError | None = None
    upto: int = -1

    def lasts(self, last: int) -> bool:
        """Whether it would fail as it did, with a log that ends with entry `last`."""
        return isinstance(self.failed, _LASTING) and self.upto == last


class Delivery:
    """The steps behind capture for one thread. Tables that fail or are not whole yet never hold up others."""

    def __init__(
        self,
        parts: Parts,
        specs: Mapping[TableId, TableSpec],
        tell: Tell,
        guard: Callable[[], None],
        still: AbstractContextManager[object] | None = None,
    ) -> None:
        """`guard` raises Conflict once the lease is lost; while `still` is held, nobody folds."""
        self._parts, self._specs, self._tell, self._guard = parts, specs, tell, guard
        self._still = still or nullcontext()
        self._gate: Gate | None = None
        self._staged: Mapping[TableId, Staged] = {}  # as of the last judgement
        self.judging = 0.0  # seconds of the last judgement
        self._folded: memo.Folded | None = None  # of the tables that do not wait
        self._late: dict[TableId, _Late] = {}
        self._seen = -1  # the newest entry of the log when it was last looked at

    @property
    def due(self) -> float | None:
        """In how many seconds a table that failed is to be tried again; None when there is none."""
        late = [its for its in self._late.values() if its.delay and not its.lasts(self._seen)]
        waiting = [its.due - monotonic() for its in late]
        return max(0.0, min(waiting)) if waiting else None

    def folded(self) -> memo.Folded:
        """How far the lake is, as far as this delivery knows."""
        if self._folded is None:
            parts = self._parts
            self._folded = memo.load_folded(parts.state, parts.config.name, memo.lake_id(parts.storage))
        return self._folded

    def refresh(
        self, tally: Tally, *, hurry: bool = True, again: Collection[TableId] = ()
    ) -> Mapping[TableId, HeadwaterError]:
        """Fold what is new in the log; returns the tables that failed, after the others are done.

        hurry   those that failed before are tried again now, else when their time has come; what lasts until
                there is more in the log is only returned once more
        again   look at these tables even where nothing is new: rows of them were given up
        """
        known, last = self.folded(), self._parts.log.last()
        if last is None:
            return {}
        self._seen = last.seq
        whole = {t for t, s in self._parts.log.tables().items() if s.complete}
        for table in self._specs.keys() - whole - self._late.keys():
            self._late[table] = _Late(known.through)
        groups = self._groups(known.through, last.seq, whole, hurry=hurry)
        lasting = {t: late.failed for t, late in self._late.items() if late.failed and late.lasts(last.seq)}
        lasting = {t: error for t, error in lasting.items() if hurry and t not in again}
        rules = {t: made for t, s in self._specs.items() if (made := wanted_making(s, None))}
        for table in (whole & self._specs.keys()) - self._late.keys():
            # By other casts a table is folded from the start of the log.
            if table in again or rules.get(table, "") != known.rules.get(table, ""):
                groups = {after: tables - {table} for after, tables in groups.items()}
                groups[-1] = groups.get(-1, set()) | {table}
        groups = {after: tables for after, tables in groups.items() if tables}
        if not groups:
            return lasting
        self._guard()
        marks: dict[TableId, int] = dict(known.marks)
        failed: dict[TableId, HeadwaterError] = {}
        for after, tables in groups.items():
            failed |= self._fold(tally, tables, (after, last.seq), marks)
        looked = set().union(*groups.values()) - failed.keys()
        seen = {t: rules.get(t, "") if t in looked else known.rules.get(t, "") for t in self._specs}
        seen = {t: made for t, made in seen.items() if made}
        self._folded = replace(known, through=last.seq, marks=marks, rules=seen)
        # The next process looks from where the table that waits longest was left.
        through = min([last.seq, *(late.after for late in self._late.values())])
        memo.save_folded(self._parts.state, self._parts.config.name, replace(self._folded, through=through))
        return {**lasting, **failed}

    def hand_off(self, tally: Tally, folded: memo.Folded, *, build: bool = True) -> None:
        """Judge, then show and build what need not wait: neither waits for the other to succeed."""
        held = self.judge(tally, folded)
        try:
            self.show(folded, held)
        finally:
            if build:
                self.build(tally, folded, held=held)

    def judge(self, tally: Tally, folded: memo.Folded) -> Collection[TableId]:
        """Judge what is not handed off yet; returns the tables to hold back, which make the tally failed."""
        self.judging, self._staged = 0.0, {}
        if not any(spec.quality.judged for spec in self._specs.values()):
            return ()
        from headwater.quality.gate import Gate

        began, self._gate = monotonic(), self._gate or Gate(self._parts.place, self._still)
        self._guard()
        marks = {t: f"{mark} {self._made_of(t)}" for t, mark in folded.marks.items() if t in self._specs}
        # What is handed off is what was judged, whatever is folded meanwhile.
        result, held = self._gate.pass_on(
            self._specs, marks, tally.run_id, at_once=lambda: self._stage(folded)
        )
        self.judging = monotonic() - began
        if result is not None:
            tally.add_judged(result)
            tell_judged(self._tell, result)
        if held:
            names = ", ".join(map(str, sorted(held)))
            failed = QualityFailed(f"held back, as their data is not right: {names}", hint=_accept_hint(held))
            tally.failed = tally.failed or failed
        return held

    def _stage(self, folded: memo.Folded) -> Mapping[TableId, Staged]:
        """What there is to build from. A table that never had a row is not in the lake."""
        if self._parts.config.warehouse is None:
            return {}
        lake = self._parts.lake
        there = [t for t in folded.marks if t in self._specs and lake.version(t, "changes") >= 0]
        self._staged = {t: lake.staged(t) for t in there}
        return self._staged

    def _made_of(self, table: TableId) -> str:
        return self._parts.lake.made(table) if self._specs[table].casts else ""

    def show(self, folded: memo.Folded, held: Collection[TableId] = ()) -> None:
        """Bring published views to what the lake holds; raises the first failure when the others are done."""
        parts, name = self._parts, self._parts.config.name
        wanted = {t for t, spec in self._specs.items() if spec.formats}
        if not wanted:
            return
        made = {t: parts.lake.made(t) for t in wanted if self._specs[t].casts}
        settings = _view_settings(parts.config, self._specs, made)
        seen = memo.load_views(parts.state, name, folded.lake, settings)
        marks = {t: mark for t, mark in folded.marks.items() if t not in held}
        news = [t for t, mark in marks.items() if t in wanted and seen.get(t) != mark]
        if not news:
            return
        self._guard()
        failed: dict[TableId, HeadwaterError] = {}
        for table in news:
            try:
                self._tell_shown(table, parts.formats.publish(self._specs[table]))
            except HeadwaterError as error:
                failed[table] = error
                self._tell("views.failed", table, {"error": str(error)})
        marks = {**seen, **{t: folded.marks[t] for t in news if t not in failed}}
        memo.save_views(parts.state, name, folded.lake, settings, marks)
        if failed:
            raise next(iter(failed.values()))

    def show_all(self) -> None:
        """Bring the views of every table to what the lake holds, whatever is known of them."""
        for spec in self._specs.values():
            self._guard()
            self._tell_shown(spec.table, self._parts.formats.publish(spec))

    def _tell_shown(self, table: TableId, shown: Sequence[Shown]) -> None:
        for view in shown:
            about: dict[str, Value] = {
                "format": view.target.view,
                "kind": view.target.kind,
                "rows": view.rows,
            }
            self._tell("view.published", table, {**about, "entry": view.mark.seq})

    def build(
        self,
        tally: Tally,
        folded: memo.Folded,
        *,
        full_refresh: bool = False,
        held: Collection[TableId] = (),
    ) -> BuildResult | None:
        """Hand what the lake holds to the warehouse; None when it has all of it already.

        held  tables that stay as they are there
        """
        parts, warehouse = self._parts, self._parts.config.warehouse
        if warehouse is None:
            return None
        name = parts.config.name
        place = _place(parts.config, warehouse)
        seen = memo.load_published(parts.state, name, folded.lake, place)
        seen = {} if full_refresh or not os.path.exists(warehouse.path) else seen
        built = memo.load_made(parts.state, name, folded.lake, place)
        made = {t: said for t, said in self._made(folded, built).items() if t not in held}
        made |= {t: said for t, said in built.items() if t in held}
        news = [
            t
            for t, mark in folded.marks.items()
            if t in self._specs.keys() - set(held)
            and (seen.get(t) != mark or made.get(t, "") != built.get(t, ""))
        ]
        if not news:
            return None
        self._guard()
        self._tell("handoff.started", None, {"tables": len(news)})
        staged = self._staged or self._stage(folded)
        self._staged = {}
        reach("build.before")
        done = publish(parts.config, staged, self._specs, news=news, held=held, full_refresh=full_refresh)
        reach("build.after")
        entries = {t: (seen.get(t, -1), staged[t].mark.seq) for t in news if t in staged}
        tally.add_built(done, folded.lake, entries)
        marks = {**seen, **{t: folded.marks[t] for t in news}}
        memo.save_published(parts.state, name, folded.lake, place, marks)
        if made != built:
            memo.save_made(parts.state, name, folded.lake, place, made)
        self._tell("handoff.finished", None, {"tables": len(news), "models": len(done.models)})
        return done

    def _made(self, folded: memo.Folded, built: Mapping[TableId, str]) -> dict[TableId, str]:
        """By which casts the lake's tables were folded, as far as that can be news."""
        tables = [t for t in folded.marks if t in built or (t in self._specs and self._specs[t].casts)]
        made = {t: self._parts.lake.made(t) for t in tables}
        return {t: said for t, said in made.items() if said}

    def _groups(
        self, through: int, last: int, whole: Collection[TableId], *, hurry: bool
    ) -> Mapping[int, set[TableId]]:
        """The tables to fold now, by the entry they are to go on behind."""
        groups: dict[int, set[TableId]] = defaultdict(set)
        if last > through:
            groups[through] |= self._specs.keys() - self._late.keys()
        now = monotonic()
        for table, late in self._late.items():
            if table in whole and (hurry or now >= late.due) and not late.lasts(last):
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
            if done.parked or done.nulled:
                misfits = {"parked": done.parked, "nulled": done.nulled}
                tally.count(table).update(misfits)
                self._tell("table.quarantined", table, misfits)
        self._put_off(tables, failed, span)
        # Not from `results`: what an earlier run folded and did not live to note down counts as well. Not
        # beyond `upto`: what was logged since may not be folded yet, and a mark says that it is.
        for entry in parts.log.entries(after, upto):
            moved = {
                ref.table for ref in entry.batches if ref.rows or ref.epoch > 1 or ref.phase == "changes"
            }
            marks.update(dict.fromkeys(moved & tables - failed.keys(), entry.seq))
        return failed

    def _put_off(
        self, tables: set[TableId], failed: Mapping[TableId, HeadwaterError], span: tuple[int, int]
    ) -> None:
        after, upto = span
        for table in tables - failed.keys():
            self._late.pop(table, None)
        for table, error in failed.items():
            before = self._late.get(table)
            delay = min(SELDOM, max(1.0, 2 * before.delay if before else 0.0))
            self._late[table] = late = _Late(after, delay, monotonic() + delay, error, upto)
            again = None if late.lasts(upto) else delay
            self._tell("table.failed", table, {"error": str(error), "hint": error.hint, "seconds": again})


def tell_judged(tell: Tell, result: QualityResult) -> None:
    """Tell how each table was judged."""
    for t in result.tables:
        counts: dict[str, Value] = {"rows": t.rows, "rules": len(t.checks), "failed": t.failed}
        about = {**counts, "warned": t.warned, "verdict": t.verdict, "held": t.held}
        tell("table.judged", t.table, about)


def _accept_hint(held: Collection[TableId]) -> str:
    names = " ".join(quote_table(t) for t in sorted(held)[:3])
    what = "what is wrong; the next run judges again, --accept lets it through once"
    return f"headwater quality {names}   ({what})"


def _view_settings(config: Config, specs: Mapping[TableId, TableSpec], made: Mapping[TableId, str]) -> str:
    """Stands for what is published of which table: another choice makes every table be looked at once.

    So does a table that was folded again for its casts: it has other rows at the mark it had.
    """
    chosen = sorted(
        (str(t), s.mode, s.formats, s.csv_compression, made.get(t, "")) for t, s in specs.items() if s.formats
    )
    return hashlib.sha256(repr((config.glue, chosen)).encode()).hexdigest()
