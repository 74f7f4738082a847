"""One run: the steps in their order, and the record that says what they did.

full | delta | resync are one order: capture, refresh, handoff, record. A `Runner` does it once (`run`) or up
to a given position (`settle`, for `verify`); `follow` does the same steps side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from time import monotonic
from types import MappingProxyType

from headwater.capture import Capture
from headwater.config import TableSpec
from headwater.deliver import Delivery, Parts, Tell
from headwater.errors import HeadwaterError, Incomplete, SourceError
from headwater.events import Event, Sink, Value, tell
from headwater.failpoints import reach
from headwater.guard import LogGuard
from headwater.handoff.build import BuildResult
from headwater.model import Position, TableId, TableInfo
from headwater.raw import RawLog
from headwater.state import RunRecord, append_run
from headwater.tally import Tally


class Runner:
    """Runs one pipeline over the chosen tables; whoever makes one holds the pipeline's lease."""

    def __init__(  # noqa: PLR0913
        self,
        parts: Parts,
        specs: Mapping[TableId, TableSpec],
        tables: Sequence[TableInfo],
        sinks: Sequence[Sink] = (),
        *,
        guard: Callable[[], None] = lambda: None,
        notes: Sequence[str] = (),
        refused: Mapping[TableId, HeadwaterError] = MappingProxyType({}),
        leaving: Mapping[TableId, TableSpec] = MappingProxyType({}),
    ) -> None:
        """`guard` raises Conflict once the lease is lost; `notes` are warnings that every record carries.

        `refused` are chosen tables that must not be touched; a run raises their error when all else is done.
        `leaving` are gone from the source: the last of their changes is taken in, then they are let go of.
        """
        self.parts = parts
        self.guard = guard
        self._specs, self._tables, self._sinks = {**specs, **leaving}, tables, sinks
        self._leaving = leaving.keys()
        self._refused = refused
        self._notes = (*notes, *(f"{failed}; try: {failed.hint}" for failed in refused.values()))
        self._capture = self.capture(parts.log, guard, self.tell)
        self._delivery = self.delivery(parts, self.tell)
        self._watcher = LogGuard(parts.source, parts.state, parts.config.name, self.tell)

    def run(self, mode: str, reload: Collection[TableId] = (), *, build: bool = True) -> RunRecord:
        """One full or delta run. Raises what stopped it, after the failed run was recorded."""
        with self._recorded(Tally(mode)) as tally:
            # Before it is read: so close it came between two runs.
            tally.notes += self._look()
            tally.add_captured(self._capture.start(reload))
            began = monotonic()
            tally.add_captured(self._capture.drain())
            self.tell("changes.drained", None, {"seconds": round(monotonic() - began, 3)})
            self._complete(tally)
            self._deliver(tally, build=build)
            self._capture.release()
            for failed in self._refused.values():
                raise failed
            if not build:
                _note_held(tally)
            if tally.failed:
                raise tally.failed
        return self._finish(tally)

    def fold_again(
        self, mode: str, tables: Collection[TableId], notes: Sequence[str] = (), *, build: bool = True
    ) -> RunRecord:
        """Fold tables once more, by the casts they have now, and build; the source is not read."""
        with self._recorded(Tally(mode)) as tally:
            tally.notes += notes
            self._deliver(tally, build=build, again=tables)
            if tally.failed:
                raise tally.failed
        return self._finish(tally)

    def settle(self, until: Position, *, build: bool = True) -> frozenset[TableId]:
        """Bring log, lake and warehouse to exactly `until`, after a `run`; returns tables to read again."""
        with self._recorded(Tally("verify")) as tally:
            tally.add_captured(self._capture.drain(until))
            self._deliver(tally, build=build)
            _note_held(tally)
        self._finish(tally)
        return self._capture.unsettled

    def build(self, *, full_refresh: bool = False) -> BuildResult | None:
        """Hand what the lake holds to the warehouse; None when it has all of it already."""
        tally, folded = Tally("build"), self._delivery.folded()
        held = self._delivery.judge(tally, folded)
        done = self._delivery.build(tally, folded, full_refresh=full_refresh, held=held)
        if done is not None or tally.failed:
            self.note(tally, "", None)  # so that `explain` can say which build took a change
        if tally.failed:
            raise tally.failed
        return done

    def capture(self, log: RawLog, guard: Callable[[], None], tell: Tell, *, again: bool = False) -> Capture:
        """The capture step over the chosen tables, through a session of the raw log.

        `again`: the source is as it is now. What is gone from it since is left as it is until the next start.
        """
        tables, leaving = self._tables, set(self._leaving)
        if again:
            there = {info.schema.table: info for info in self.parts.source.tables()}
            chosen = [info.schema.table for info in tables]
            tables = [there[table] for table in chosen if table in there]
            leaving |= {table for table in chosen if table not in there}
        spared = self._refused.keys()
        return Capture(self.parts.source, log, tables, tell, guard, spared=spared, leaving=leaving)

    def delivery(
        self, parts: Parts, tell: Tell, still: AbstractContextManager[object] | None = None
    ) -> Delivery:
        """The steps behind capture, over `parts`; while `still` is held, nobody folds."""
        return Delivery(parts, self._specs, tell, self.guard, still)

    def note(self, tally: Tally, head: str, behind: int | None, warnings: Sequence[str] = ()) -> RunRecord:
        """Keep the record of a tally, and tell of it."""
        parts = self.parts
        said = (*self._notes, *warnings, *parts.state.warnings)
        record = tally.record(parts.config.name, parts.source.show, head, behind, said)
        reach("record.before")
        append_run(parts.state, record)
        reach("record.after")
        if tally.failed:
            self.tell("run.failed", None, {"run_id": tally.run_id, "error": record.error})
        else:
            self.tell("run.finished", None, {"run_id": tally.run_id, "entries": tally.entries})
        return record

    def tell(self, kind: str, table: TableId | None, data: Mapping[str, Value]) -> None:
        """Pass an event to the sinks."""
        tell(self._sinks, Event(kind, self.parts.config.name, table, data))

    def _complete(self, tally: Tally) -> None:
        """Fold, and read filtered tables again into which a row came with values that the log left out."""
        failed = self._delivery.refresh(tally)
        lacking = {table for table, error in failed.items() if isinstance(error, Incomplete)}
        if lacking:
            tally.add_captured(self._capture.read_again(lacking))

    def _deliver(self, tally: Tally, *, build: bool, again: Collection[TableId] = ()) -> None:
        failed = self._delivery.refresh(tally, again=again)
        if not failed or len(failed) < len(self._specs):
            # A table that fails is no reason for the others to wait.
            self._delivery.hand_off(tally, self._delivery.folded(), build=build)
        if failed:
            raise next(iter(failed.values()))
        self.parts.storage.release()

    @contextmanager
    def _recorded(self, tally: Tally) -> Iterator[Tally]:
        self.tell("run.started", None, {"run_id": tally.run_id, "mode": tally.mode})
        try:
            yield tally
        except HeadwaterError as failed:
            tally.failed = failed
            self._finish(tally)
            raise

    def _finish(self, tally: Tally) -> RunRecord:
        source = self.parts.source
        head, behind = "", None
        # A source that is away must not hide why the run failed.
        with suppress(SourceError):
            head, behind = source.show(source.head()), source.behind(tally.reached) if tally.reached else None
        return self.note(tally, head, behind, self._look())

    def _look(self) -> Sequence[str]:
        """Warnings of the log that the source keeps for us."""
        try:
            return self._watcher.look().warnings
        except SourceError:
            return ()


def _note_held(tally: Tally) -> None:
    """Where nothing is to be built, or all is to be compared, a table that is held back is no failure."""
    if tally.failed:
        tally.notes.append(f"{tally.failed}; try: {tally.failed.hint}")
        tally.failed = None
