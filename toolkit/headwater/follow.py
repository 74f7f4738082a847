"""Following: capture, folding, building and watching side by side, each in a thread of its own.

Capture waits for nobody: what it logged is durable, and whoever comes behind works on that. The source is
capture's alone; folding and building each have their own hold on the store, and the guard one on the source.
The caller's thread makes the records and tells the sinks, so that a slow one holds up nobody.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic

from headwater import memo
from headwater.assessing import Rules, rules_of
from headwater.capture import Capture
from headwater.deliver import SELDOM, Delivery
from headwater.errors import Conflict, HeadwaterError, PreflightFailed, SourceError, StorageError
from headwater.events import Value
from headwater.guard import LogGuard
from headwater.model import Position, TableId
from headwater.raw import RawLog
from headwater.run import Runner
from headwater.state import RunRecord
from headwater.tally import Tally

#: Seconds from the start of one fold to the next: what came meanwhile is folded at once.
FOLD_PAUSE = 0.5
#: Seconds from the start of one build to the next.
BUILD_PAUSE = 30.0
#: From the start of one build to the next lie so many times the seconds that data was judged in.
JUDGING_SHARE = 5.0
#: How long (seconds) capture waits in all for a source or store that went away.
RETRY_SECONDS = 900.0
#: Seconds between looks at what the source keeps for us.
LOOK_PAUSE = 10.0
#: Seconds between records.
RECORD_PAUSE = 1.0
#: Seconds between two words about how far the source was read.
DRAIN_PAUSE = 1.0


class _Stopped(Exception):
    """The piece in hand when the end was asked for is logged: enough."""


class Follow:
    """One follower; `rounds` once."""

    def __init__(self, runner: Runner, *, pause: float, build: bool) -> None:
        """`pause` is the time from one look of capture to the next, in seconds."""
        self._runner, self._pause, self._build = runner, pause, build
        self._ending = threading.Event()
        self._news = threading.Event()  # there may be entries to fold
        self._fresh = threading.Event()  # the lake moved
        self._lock = threading.Lock()  # over the tally
        self._still = (
            threading.Lock()
        )  # held while tables fold, and while several are opened as of one moment
        self._tally = Tally("follow")
        self._said: SimpleQueue[tuple[str, TableId | None, Mapping[str, Value]]] = SimpleQueue()
        self._fatal: BaseException | None = None
        self._last_piece = False
        self._folded: memo.Folded | None = None
        self._reached: Position | None = None
        self._counted: tuple[int, Position | None] = -1, None
        self._seen: tuple[str, int | None] = "", None
        self._warnings: Sequence[str] = ()
        self._rules: Rules | None = None  # by which data is judged, as last looked at

    def rounds(self, stop: Callable[[], bool]) -> Iterator[RunRecord]:
        """Follow until `stop` says so; yields a record for each round that brought something and the last.

        What may pass is waited for and tried again, ever more seldom: a source or store that is away, a table
        that cannot be folded, a build that fails. Raises what cannot: a lost position, another runner. After
        the end was asked for, what was captured is folded and built, and what fails then is raised.
        """
        self._runner.tell("run.started", None, {"run_id": self._tally.run_id, "mode": "follow"})
        threads = self._start()
        try:
            told = monotonic()
            while not (stop() or self._ending.wait(0.05)):
                self._check_lease()
                self._pass_on()
                if monotonic() - told >= RECORD_PAUSE and not self._tally.empty:
                    record, told = self._keep(self._take()), monotonic()
                    if record is not None:
                        yield record
        finally:
            self._end(threads)
        yield self._last()

    def _start(self) -> Sequence[threading.Thread]:
        last = self._runner.parts.log.last()
        self._counted = (last.seq, last.position) if last else (-1, None)
        works = [self._capture, self._fold]
        config = self._runner.parts.config
        behind = (self._build and config.warehouse) or config.publishes or config.judges
        works += [self._publish] if behind else []
        works += [self._watch]
        threads = [
            threading.Thread(
                target=self._guarded, args=(work,), name=f"headwater {work.__name__.strip('_')}", daemon=True
            )
            for work in works
        ]
        for thread in threads:
            thread.start()
        return threads

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Let every thread finish the piece in hand."""
        self._ending.set()
        self._news.set()
        self._fresh.set()
        *working, watching = threads
        for thread in working:
            thread.join()
        # Nobody needs what it may still be waiting for on a dead line.
        watching.join(RECORD_PAUSE)
        self._pass_on()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread's work; what it raises ends the whole."""
        try:
            work()
        except BaseException as failed:  # noqa: BLE001  raised again by `rounds`
            with self._lock:
                self._fatal = self._fatal or failed
            self._ending.set()

    def _check_lease(self) -> None:
        try:
            self._runner.guard()
        except Conflict as lost:
            self._fatal = self._fatal or lost
            self._ending.set()
        except StorageError:
            pass  # the state may be back soon; capture asks before each entry, and waits for it

    def _tell(self, kind: str, table: TableId | None, data: Mapping[str, Value]) -> None:
        self._said.put((kind, table, data))

    def _pass_on(self) -> None:
        """Tell the sinks what the threads said."""
        with suppress(Empty):
            while True:
                self._runner.tell(*self._said.get_nowait())

    # Capture.

    def _capture(self) -> None:
        capture, away, source, said = None, 0.0, self._runner.parts.source, 0.0
        while not self._ending.is_set():
            try:
                capture = capture or self._started()
                while not self._ending.is_set():
                    began, done = monotonic(), capture.drain()
                    self._reached, away = done.reached or self._reached, 0.0
                    if done.entries and done.reached is not None:
                        self._news.set()
                        self._seen = source.show(source.head()), source.behind(done.reached)
                    if (now := monotonic()) - said >= DRAIN_PAUSE:
                        said = now
                        self._tell("changes.drained", None, {"seconds": round(now - began, 3)})
                    self._ending.wait(max(0.0, self._pause - (monotonic() - began)))
            except _Stopped:
                return
            except (SourceError, StorageError) as failed:
                if not _passes(failed, started=capture is not None) or away >= RETRY_SECONDS:
                    raise
                # Whether its last entry arrived, this session of the log may not know.
                capture = None if isinstance(failed, StorageError | PreflightFailed) else capture
                away += self._hold_off("run.retrying", failed, min(60.0, max(1.0, away)))

    def _started(self) -> Capture:
        log, again = RawLog(self._runner.parts.storage), self._reached is not None
        capture = self._runner.capture(log, self._allow, self._tell, again=again)
        done = capture.start()
        self._reached = done.reached
        note = Tally("follow")
        note.add_gap(done)
        self._add(note)
        self._news.set()
        return capture

    def _allow(self) -> None:
        """Asked before every entry: refuses without the lease, and at the end behind the piece in hand."""
        self._runner.guard()
        self._news.set()
        if self._ending.is_set():
            if self._last_piece:
                raise _Stopped
            self._last_piece = True

    # Folding.

    def _fold(self) -> None:
        parts = self._runner.parts.apart()
        try:
            delivery, delay = self._runner.delivery(parts, self._tell), 0.0
            while not self._ending.is_set():
                began = monotonic()
                self._news.clear()
                try:
                    self._fold_once(delivery, parts.log, hurry=False)
                    parts.storage.release()
                    delay = 0.0
                except Exception as error:  # noqa: BLE001
                    failed = _named(error)
                    self._outlive(failed)
                    delay = min(SELDOM, max(1.0, 2 * delay))
                    self._hold_off("refresh.failed", failed, delay)
                    self._news.set()
                self._ending.wait(max(0.0, FOLD_PAUSE - (monotonic() - began)))
                self._news.wait(delivery.due)
        finally:
            parts.storage.close()

    def _fold_once(self, delivery: Delivery, log: RawLog, *, hurry: bool) -> None:
        """Count what came since, fold it, and let the build know. A table that fails fails alone."""
        tally = Tally("follow")
        try:
            self._count(tally, log)
            with self._still:
                failed = delivery.refresh(tally, hurry=hurry)
            tally.failed = next(iter(failed.values()), None)
        finally:
            self._add(tally)
        folded = delivery.folded()
        if folded is not self._folded:
            self._folded = folded
            self._fresh.set()

    def _count(self, tally: Tally, log: RawLog) -> None:
        last = log.last()
        if last is None:
            return
        seq, since = self._counted
        for entry in log.entries(seq, last.seq):
            tally.add_entry(entry, since)
            since = entry.position
        self._counted = last.seq, last.position

    # Building.

    def _publish(self) -> None:
        parts = self._runner.parts.apart()
        try:
            delivery, delay = self._runner.delivery(parts, self._tell, self._still), BUILD_PAUSE
            while self._fresh.wait() and not self._ending.is_set():
                self._fresh.clear()
                began = monotonic()
                try:
                    self._publish_once(delivery)
                    parts.storage.release()
                    delay = BUILD_PAUSE
                except Exception as error:  # noqa: BLE001
                    failed = _named(error)
                    self._outlive(failed)
                    self._hold_off("handoff.failed", failed, delay)
                    delay = min(SELDOM, 2 * delay)
                    self._fresh.set()
                pause = max(BUILD_PAUSE, min(SELDOM, JUDGING_SHARE * delivery.judging))
                self._ending.wait(max(0.0, pause - (monotonic() - began)))
        finally:
            parts.storage.close()

    def _publish_once(self, delivery: Delivery) -> None:
        tally = Tally("follow")
        if self._folded is not None:
            delivery.hand_off(tally, self._folded, build=self._build)
        self._add(tally)

    # Watching.

    def _watch(self) -> None:
        """Look at what the source keeps for us, also while capture is busy for hours."""
        parts = self._runner.parts
        guard = LogGuard(parts.look, parts.state, parts.config.name, self._tell)
        while not self._ending.is_set():
            with suppress(SourceError):  # capture meets the same, and tells
                self._warnings = guard.look().warnings
            if self._runner.parts.config.judges and self._judged_otherwise():
                self._fresh.set()
            self._ending.wait(LOOK_PAUSE)

    def _judged_otherwise(self) -> bool:
        """Whether what waits may be right without a change: it was accepted, or a foreign key is gone."""
        with suppress(HeadwaterError):  # it is asked again
            parts, before = self._runner.parts, self._rules
            self._rules = rules_of(parts)
            return before is not None and before != self._rules
        return False

    # Records.

    def _outlive(self, failed: HeadwaterError) -> None:
        """Note an error that is not the end; raises it when it is: the pipeline is another's."""
        if isinstance(failed, Conflict):
            self._runner.guard()
        self._add(Tally("follow", failed=failed))

    def _hold_off(self, kind: str, failed: HeadwaterError, seconds: float) -> float:
        """Tell what failed and wait before it is tried again; returns how long."""
        seconds *= random.uniform(0.8, 1.2)
        self._tell(kind, None, {"error": str(failed), "seconds": round(seconds, 1)})
        self._ending.wait(seconds)
        return seconds

    def _add(self, part: Tally) -> None:
        with self._lock:
            self._tally.add(part)

    def _take(self) -> Tally:
        with self._lock:
            tally, self._tally = self._tally, Tally("follow")
        return tally

    def _record(self, tally: Tally) -> RunRecord:
        tally.reached = tally.reached or self._reached
        return self._runner.note(tally, *self._seen, self._warnings)

    def _keep(self, tally: Tally) -> RunRecord | None:
        """The record of a tally; None while the state cannot be written: it then goes into the next."""
        try:
            return self._record(tally)
        except StorageError as failed:
            self._tell("record.failed", None, {"error": str(failed), "seconds": RECORD_PAUSE})
        with self._lock:
            tally.add(self._tally)
            self._tally = tally
        return None

    def _last(self) -> RunRecord:
        """Fold and build what was captured, record it, and raise what ended us or failed now."""
        fatal, parts = self._fatal, self._runner.parts
        if fatal is not None and not isinstance(fatal, HeadwaterError):
            raise fatal
        tally = self._take()
        tally.failed = None  # told when it failed, and tried again now
        failed = fatal
        if not isinstance(fatal, Conflict):
            delivery = self._runner.delivery(parts, self._tell)
            try:
                self._fold_once(delivery, parts.log, hurry=True)
                self._publish_once(delivery)
            except HeadwaterError as last:
                failed = failed or last
            self._pass_on()
        tally.add(self._take())
        tally.failed = failed = failed or tally.failed
        record = self._record(tally)
        if failed is not None:
            raise failed
        return record


def _passes(failed: HeadwaterError, *, started: bool) -> bool:
    """Whether it may pass. A table that was made again is not published yet: a fresh start sees to that."""
    return type(failed) in (SourceError, StorageError) or (started and isinstance(failed, PreflightFailed))


def _named(failed: Exception) -> HeadwaterError:
    """The error itself, or one of ours around a bug: capture goes on whatever lake and warehouse do."""
    if isinstance(failed, HeadwaterError):
        return failed
    what = f"this is a bug in headwater: {type(failed).__name__}: {failed}"
    return HeadwaterError(what, hint="headwater run --debug   (shows where)")
