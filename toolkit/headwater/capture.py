"""Capture: source -> raw log. Every mode shares this step; nothing here waits for a lake or a warehouse.

A table is *fresh* when the log does not hold a whole snapshot of it in its newest epoch: it is new, its load
was cut short, it was asked for again, or its rows changed without being logged. Fresh tables are read through
cuts, each after the changes of all other tables were drained up to that very position: so the log is in order
as a whole, and no reader has to sort out an overlap. A big table is read in parts. Once one of them is
durable, the table's changes are drained like any other's, and another cut, of this run or of a later one,
goes on with the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from headwater.errors import HeadwaterError, PositionLost, SourceError
from headwater.failpoints import reach
from headwater.load import Loading, find_begun
from headwater.model import META, STRIDE, BatchRef, ChangeBatch, Position, TableId, TableInfo, TableSchema
from headwater.progress import Progress
from headwater.raw import RawLog, TableState
from headwater.sources import Cut, Source

#: Small tables share an entry until it names this many bytes or files.
ENTRY_BYTES = 64 << 20
ENTRY_FILES = 500
#: A position without rows is worth an entry once this many bytes of source log hang on it (one WAL segment).
IDLE_BYTES = 16 << 20
#: A table that asks to be read again while it is read again, this often in one run, is changing under us.
RELOADS = 3

Watch = Callable[[str, TableId | None, Mapping[str, int]], None]


@dataclass(slots=True)
class Captured:
    """What one drain or start brought into the log."""

    since: Position | None
    reached: Position | None
    entries: int = 0
    rows: Counter[TableId] = field(default_factory=Counter)
    loaded: list[TableId] = field(default_factory=list)
    gap: str = ""  # why changes before this load are not in the log


def _ignore(_kind: str, _table: TableId | None, _data: Mapping[str, int]) -> None:
    return None


@dataclass(slots=True)
class _Window:
    """Changes between two positions on their way into the log."""

    position: Position | None = None  # None: there is more to come
    staged: list[Future[BatchRef]] = field(default_factory=list)
    reload: set[TableId] = field(default_factory=set)
    confirm: bool = True

    def add(self, batch: ChangeBatch, staged: Future[BatchRef]) -> None:
        """Take in a batch that is being written; waits for the one before, so that few are in memory."""
        if self.staged:
            wait(self.staged[-1:])
        if batch.reload:
            self.reload.add(batch.schema.table)
        self.staged.append(staged)


class _Known(Mapping[TableId, TableSchema]):
    """The newest logged schema of each table, read when asked for: most of 10,000 tables never are."""

    def __init__(self, log: RawLog, state: Mapping[TableId, TableState]) -> None:
        self._log = log
        self._state = state

    def __getitem__(self, table: TableId) -> TableSchema:
        return self._log.schema(table, self._state[table].schema)

    def __iter__(self) -> Iterator[TableId]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


class Capture:
    """One runner's hold on a source and a raw log: `start` once, then `drain` as often as you like."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        source: Source,
        log: RawLog,
        tables: Sequence[TableInfo],
        watch: Watch = _ignore,
        guard: Callable[[], None] = lambda: None,
        spared: Collection[TableId] = (),
        leaving: Collection[TableId] = (),
    ) -> None:
        """`tables` are the chosen ones as the source has them now; those `spared` are not let go of.

        `leaving` are gone from the source; what the log has of them is drained, then `release` lets them go.

        `guard` raises Conflict once this runner lost the pipeline; asked before every entry.
        """
        self._source = source
        self._log = log
        self._infos = {info.schema.table: info for info in tables}
        self._tables = tuple(self._infos)
        self._watch = watch
        self._guard = guard
        self._spared, self._leaving = frozenset(spared), tuple(leaving)
        self._reached: Position | None = None
        self._reload: set[TableId] = set()
        self._evolved: dict[TableId, TableSchema] = {}  # what the log has not told of altered tables yet
        self._told: dict[TableId, str] = {}  # and what it had told last

    def start(self, reload: Collection[TableId] = ()) -> Captured:
        """Make the source keep its log, let go of tables no longer wanted, and load the fresh ones.

        Where the source lost our position, every table has to be read again: done if `reload` names them all,
        else PositionLost. What happened in between stays unlogged; the fold shows it as observed (`r`).
        """
        last = self._log.last()
        try:
            return self._start(last.position if last else None, reload)
        except PositionLost as lost:
            if not set(self._tables) <= set(reload):
                raise
            done = self._start(None, reload)
            done.since, done.gap = last.position if last else None, str(lost)
            return done

    def _start(self, since: Position | None, reload: Collection[TableId]) -> Captured:
        self._reached = since
        done = Captured(since, since)
        unkept = self._source.prepare(self._tables, self._reached)
        self._release()
        state = self._log.tables()
        self._reload = {t for t in self._tables if t in state and state[t].reload}
        partial = {t for t in self._tables if t not in state or not state[t].complete}
        whole = {t for t, info in self._infos.items() if not info.logged}
        anew = self._reload | set(unkept) | self._altered(state) | set(reload) | whole
        # After a gap in the changes no load can go on.
        self._load(done, partial | anew, anew | partial if since is None else anew)
        return done

    def drain(self, until: Position | None = None) -> Captured:
        """Log every change up to `until`, else up to the source's head as of this call; needs `start` first.

        Raises SourceError when the source is ahead and yet nothing came: silence is not success.
        """
        if self._reached is None:
            raise SourceError("no table is being captured yet", hint="headwater run --full")
        done = Captured(self._reached, self._reached)
        ahead = self._source.behind(self._reached)
        self._drain(done, self._complete(), until)
        if until is None and ahead > 0 and done.reached == done.since:
            raise SourceError(
                f"the source is {ahead} bytes ahead, but its stream brought nothing", hint="headwater check"
            )
        self._announce(done)
        for _ in range(RELOADS):
            if not self._reload:
                return done
            self._load(done, set(self._reload), set(self._reload))
            if until is None:
                self._drain(done, self._complete(), None)
        if self._reload:
            names = ", ".join(sorted(map(str, self._reload)))
            raise SourceError(f"{names}: changed its columns again while being read", hint="headwater run")
        return done

    def read_again(self, tables: Collection[TableId]) -> Captured:
        """Load these tables once more, after the changes of all others up to there."""
        done = Captured(self._reached, self._reached)
        self._load(done, set(tables), set(tables))
        return done

    @property
    def unsettled(self) -> frozenset[TableId]:
        """Tables that must be read again before they equal the source."""
        return frozenset(self._reload)

    def _altered(self, state: Mapping[TableId, TableState]) -> set[TableId]:
        """Tables whose rows an ALTER TABLE changed, and which no logged change has told us of yet."""
        known = _Known(self._log, state)
        newer = {
            t: known[t]
            for t, info in self._infos.items()
            if t in state and state[t].followed and state[t].schema != info.schema.fingerprint()
        }
        if not newer:
            return set()
        self._evolved = {s.table: s for s in self._source.evolved(newer)}
        self._told = {t: state[t].schema for t in self._evolved}
        return set(self._source.unlogged(newer))

    def _announce(self, done: Captured) -> None:
        """Log the new columns of tables that were altered, and of which no row has come since."""
        state = self._log.tables()
        waiting, self._evolved = self._evolved, {}
        # Where the log has told of some change meanwhile, there may be another behind it.
        moved = {t: state[t].schema for t in waiting if t in state and state[t].schema != self._told[t]}
        if moved:
            known = {t: self._log.schema(t, schema) for t, schema in moved.items()}
            waiting = {t: s for t, s in waiting.items() if t not in moved}
            waiting |= {s.table: s for s in self._source.evolved(known)}
            self._told |= moved
        tables = {
            t: schema
            for t, schema in waiting.items()
            if t not in self._reload and t in state and state[t].complete and state[t].schema == self._told[t]
        }
        last = self._log.last()
        if not tables or last is None or self._reached is None:
            return
        refs = [
            self._log.stage(ChangeBatch(schema, _no_rows(schema)), state[t].epoch, last.next_row)
            for t, schema in tables.items()
        ]
        self._commit(done, refs, self._reached, last.next_row)

    def release(self) -> None:
        """Let go of the tables that are leaving, once all of them is in the lake."""
        state = self._log.tables()
        self._let_go(t for t in self._leaving if t in state and state[t].followed)

    def _let_go(self, tables: Iterable[TableId]) -> None:
        last, gone = self._log.last(), tuple(sorted(tables))
        if last and gone:
            self._guard()
            self._log.append((), last.position, last.next_row, released=gone)

    def _release(self) -> None:
        state = self._log.tables()
        wanted = self._spared | {*self._tables, *self._leaving}
        self._let_go(t for t, s in state.items() if s.followed and t not in wanted)

    def _complete(self) -> list[TableId]:
        state = self._log.tables()
        return [t for t in (*self._tables, *self._leaving) if t in state and state[t].complete]

    def _followed(self, but: Collection[TableId]) -> list[TableId]:
        """Tables with changes to drain: the complete ones, and those of which some parts were read."""
        state = self._log.tables()
        return [
            t
            for t in (*self._tables, *self._leaving)
            if t in state and (state[t].complete or (state[t].followed and t not in but))
        ]

    def _load(self, done: Captured, fresh: set[TableId], anew: Collection[TableId]) -> None:
        """Read the fresh tables, those in `anew` from the start, from as many cuts as it takes."""
        self._reload -= fresh
        progress = Progress(self._watch)
        while fresh:
            there = {info.schema.table: info for info in self._source.tables()}
            with self._source.cut() as cut:
                followed = self._followed(but=anew)
                if followed and self._reached is not None:
                    self._drain(done, followed, cut.position)
                self._reload -= fresh
                wanted = [there[t] for t in self._tables if t in fresh and t in there]
                read = self._read(done, cut, wanted, anew, progress)
            # What was begun in this cut goes on in the next one.
            anew = set(anew) - read
            whole = set(self._complete())
            fresh = {t for t in fresh & there.keys() if t in anew or t not in whole}

    def _read(
        self,
        done: Captured,
        cut: Cut,
        wanted: Sequence[TableInfo],
        anew: Collection[TableId],
        progress: Progress,
    ) -> set[TableId]:
        """Read what one cut has time for; returns the tables that it read something of."""
        last, state = self._log.last(), self._log.tables()
        begun = find_begun(self._log, {info.schema.table for info in wanted} - set(anew))
        epochs = {t: s.epoch for t, s in state.items()}
        loading = Loading(self._log, cut, wanted, epochs, begun, last.next_row if last else 0)
        progress.expect(wanted)
        read: set[TableId] = set()
        refs: list[BatchRef] = []
        next_row = 0
        with closing(loading.steps()) as steps:
            for step in steps:
                ref, next_row = step.ref, step.next_row
                refs.append(ref)
                read.add(ref.table)
                done.rows[ref.table] += ref.rows
                progress.add(ref)
                if ref.phase == "snapshot_end":
                    done.loaded.append(ref.table)
                if ref.part or sum(r.bytes for r in refs) >= ENTRY_BYTES or len(refs) >= ENTRY_FILES:
                    self._commit(done, refs, cut.position, next_row)
                    refs = []
        if refs:
            self._commit(done, refs, cut.position, next_row)
        return read

    def _drain(self, done: Captured, tables: Sequence[TableId], until: Position | None) -> None:
        last, state = self._log.last(), self._log.tables()
        if self._reached is None or last is None or not tables:
            return
        items = self._source.changes(tables, self._reached, until, known=_Known(self._log, state))
        next_row = last.next_row
        with closing(self._stage_windows(items, state, next_row)) as windows:
            for window in windows:
                next_row = self._finish(done, window, next_row)
        if last.position != self._reached and self._source.behind(last.position) >= IDLE_BYTES:
            newest = self._log.last()
            if newest is not None and newest.position != self._reached:
                self._commit(done, (), self._reached, next_row)

    def _stage_windows(
        self, items: Iterator[ChangeBatch | Position], state: Mapping[TableId, TableState], base: int
    ) -> Generator[_Window, None, None]:
        """Whole windows, handed on late: while the next one is read, a thread still writes their files."""
        ready: _Window | None = None
        window = _Window()
        with ThreadPoolExecutor(1, "headwater-stage") as stager:
            try:
                for item in items:
                    if isinstance(item, ChangeBatch):
                        epoch = state[item.schema.table].epoch
                        window.add(item, stager.submit(self._log.stage, item, epoch, base))
                        continue
                    window.position = item
                    if ready is not None:
                        yield ready
                    ready, window = window, _Window()
            except HeadwaterError:
                if ready is not None:
                    # It is whole; but the source is in no state to be told.
                    ready.confirm = False
                    yield ready
                raise
            if ready is not None:
                yield ready

    def _finish(self, done: Captured, window: _Window, next_row: int) -> int:
        """Commit a window once its files are durable; returns the row the next one may begin with."""
        refs = [future.result() for future in window.staged]
        for ref in refs:
            done.rows[ref.table] += ref.rows
            self._watch("changes.captured", ref.table, {"rows": ref.rows})
            next_row = _after(ref, next_row)
        self._reload |= window.reload - set(self._leaving)
        if refs and window.position is not None:
            self._commit(done, refs, window.position, next_row, confirm=window.confirm)
        self._reached = done.reached = window.position
        return next_row

    def _commit(
        self,
        done: Captured,
        refs: Sequence[BatchRef],
        position: Position,
        next_row: int,
        *,
        confirm: bool = True,
    ) -> None:
        self._guard()
        self._log.append(tuple(refs), position, next_row)
        done.entries += 1
        self._reached = done.reached = position
        if not confirm:
            return
        reach("confirm.before")
        self._source.confirm(position)
        reach("confirm.after")


def _no_rows(schema: TableSchema) -> pa.Table:
    return pa.schema([*schema.arrow(), *META]).empty_table()


def _after(ref: BatchRef, next_row: int) -> int:
    return max(next_row, (ref.last_seq // STRIDE + 1) * STRIDE) if ref.rows else next_row
