"""Following the log: transactions from a stream into windows, with a position wherever it is safe to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from headwater.errors import DecodeError, PositionLost, SourceError
from headwater.model import ChangeBatch
from headwater.sources.postgres.blocks import (
    ALIVE,
    BEGIN,
    COMMIT,
    HEADER,
    KEEPALIVE,
    KEEPALIVE_SIZE,
    OTHER,
    ROW,
    Begins,
    Longs,
    classify,
    find_disorder,
    read_begins,
    read_commits,
    read_keepalives,
    read_oids,
)
from headwater.sources.postgres.cells import Bytes, Ints, Mask
from headwater.sources.postgres.frames import Frames
from headwater.sources.postgres.messages import Begin, parse_begin, parse_commit, parse_truncate
from headwater.sources.postgres.position import format_lsn, parse_lsn
from headwater.sources.postgres.stream import Stream
from headwater.sources.postgres.window import Window

_BEGIN, _RELATION, _TRUNCATE = b"BRT"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a window is full: between transactions at these sizes, inside of one at twice these."""

    bytes: int = 16 << 20
    rows: int = 100_000
    silence: float = 600.0  # seconds without a word from the server, though we ask, until it counts as gone
    nudge: float = 1.0  # seconds of standstill before the goal until the server is made to flush its log


@dataclass(frozen=True, slots=True)
class Reached:
    """A safe place to stop; `end`: the goal is reached."""

    lsn: int
    witness: str
    end: bool


@dataclass(slots=True)
class _Run:
    """Rows, begins, commits and keepalives in a row; of the messages only the first `count` count.

    Transaction k is that of `opened` number k and of `commits` number k, if that has come.
    """

    frames: Frames
    codes: Bytes
    count: int
    begins: Ints  # where in the run
    commits: Ints
    opened: Begins  # of the transaction that was open before, if one was, and then of `begins`
    ends: Longs
    alive: Ints  # where keepalives are
    seen: Longs  # what they say
    idle: Mask  # whether they lie between transactions

    def cut(self, count: int) -> None:
        """Let only so many messages count."""
        self.count = min(self.count, count)

    def rows(self, since: int) -> tuple[Ints, Ints]:
        """Where rows are whose transaction was not handed out before, and which transaction each is of."""
        rows = np.flatnonzero(self.codes[: self.count] == ROW)
        earlier = len(self.opened.xid) - len(self.begins)
        owners = np.searchsorted(self.begins, rows) + (earlier - 1)
        old = self.opened.final_lsn < since
        if old.any():
            new = ~old[owners]
            rows, owners = rows[new], owners[new]
        return rows, owners

    @property
    def begun(self) -> int:
        """How many of `opened` have come."""
        return len(self.opened.xid) - len(self.begins) + int(np.searchsorted(self.begins, self.count))

    @property
    def ended(self) -> int:
        """How many of `commits` have come."""
        return int(np.searchsorted(self.commits, self.count))

    @property
    def kept_alive(self) -> tuple[int, int]:
        """How far the server's log was read by the keepalives that have come; and by the idle ones."""
        come = int(np.searchsorted(self.alive, self.count))
        seen, idle = self.seen[:come], self.idle[:come]
        return int(seen.max(initial=0)), int(seen[idle].max(initial=0))


class Follower:
    """Reads a stream from where it stands up to `goal`; `exact`: nothing beyond it counts as read."""

    def __init__(
        self, stream: Stream, window: Window, goal: int, limits: Limits, *, exact: bool, witness: str = ""
    ) -> None:
        self._stream, self._window, self._limits = stream, window, limits
        self._goal, self._exact, self._since = goal, exact, stream.at
        self._expected = witness  # transaction that must come before `since` is reached; "" when none need
        self._begin: Begin | None = None
        self._owed = False  # part of a transaction was handed out: a position is due at its end

    def run(self, nudge: Callable[[], None]) -> Iterator[ChangeBatch | Reached]:
        """Batches, and the place they reach after each window; the last item is the place of the goal."""
        heard = moved = time.monotonic()
        pause = 0.01
        while True:
            block = self._stream.take(pause)
            now = time.monotonic()
            if not len(block):
                self._ask(now - heard)
                pause = min(pause * 2, 0.5)
            else:
                heard = now
            if (block.data[block.starts] != KEEPALIVE).any():
                moved, pause = now, 0.01
            elif now - moved > self._limits.nudge:
                nudge()
                moved = now + 4 * self._limits.nudge
            for item in self._absorb(block):
                yield item
                if isinstance(item, Reached) and item.end:
                    return

    def _ask(self, silence: float) -> None:
        if silence > self._limits.silence:
            raise SourceError(
                f"no word from the server for {silence:.0f} s at {format_lsn(self._stream.at)}",
                hint="headwater run   (goes on from the last position)",
            )
        self._stream.ping()

    def _absorb(self, block: Frames) -> Iterator[ChangeBatch | Reached]:
        """Take in messages up to the goal; those behind it go back to the stream."""
        codes = classify(block)
        others = np.append(np.flatnonzero(codes == OTHER), len(block))
        at = 0
        while at < len(block):
            stop = int(others[np.searchsorted(others, at)])
            run = self._measure(block.cut(at, stop), codes[at:stop])
            if run.count:
                full, end = self._take_in(run)
                at += run.count
            else:
                full = False
                taken, end = self._note(block.payload(at))
                at += taken
            if end:
                self._stream.put_back(block.cut(at))
            if full:
                self._owed = True
                yield from self._window.take()
            elif end or self._is_due():
                yield from self._close_window(end=end)
            if end:
                return

    def _measure(self, frames: Frames, codes: Bytes) -> _Run:
        """The messages that can be taken in at once.

        They end before what has to be looked at by itself: disorder, a begin or keepalive at which a goal or
        a witness may be reached, a keepalive to answer; and behind a commit that reaches the goal.
        """
        count = find_disorder(codes, self._begin is not None)
        begins, commits = np.flatnonzero(codes[:count] == BEGIN), np.flatnonzero(codes[:count] == COMMIT)
        fresh = read_begins(frames, begins)
        opened = fresh.after(self._begin)
        lsns, ends = read_commits(frames, commits)
        alive = np.flatnonzero(codes[:count] == ALIVE)
        seen, asked = read_keepalives(frames, alive)
        earlier = len(opened.xid) - len(begins)
        idle = np.searchsorted(begins, alive) + earlier == np.searchsorted(commits, alive)
        run = _Run(frames, codes, count, begins, commits, opened, ends, alive, seen, idle)
        bound = self._goal
        if self._expected:
            bound = min(bound, self._since, parse_lsn(self._expected.partition(":")[0]))
        _stop_at(run, begins, fresh.final_lsn >= bound)
        _stop_at(run, alive, asked | (idle & (seen >= bound)))
        _stop_at(run, commits, lsns != opened.final_lsn[: len(lsns)])
        _stop_at(run, commits + 1, ends >= self._goal)
        return run

    def _take_in(self, run: _Run) -> tuple[bool, bool]:
        """Take in the run, or less of it if the window is due before its end.

        Returns whether the window is full in the middle of a transaction, and whether the goal is reached.
        """
        rows, owners = run.rows(self._since)
        oids = read_oids(run.frames, rows)
        wanted = self._window.wants(oids)
        if not wanted.all():
            rows, owners, oids = rows[wanted], owners[wanted], oids[wanted]
        sizes = run.frames.lengths[rows] - HEADER
        full = self._fit(run, rows, sizes)
        kept = int(np.searchsorted(rows, run.count))
        picked = Frames(run.frames.data, run.frames.starts[rows[:kept]] + HEADER, sizes[:kept])
        self._window.add(picked, oids[:kept], owners[:kept], run.opened)
        return full, self._settle(run)

    def _fit(self, run: _Run, rows: Ints, sizes: Ints) -> bool:
        """Cut the run where the window is due; whether that is in the middle of a transaction."""
        limits, window = self._limits, self._window
        # As much as there is before row 0, before row 1, ..., and in the end.
        nbytes = window.bytes + np.concatenate(([0], np.cumsum(sizes)))
        nrows = window.rows + np.arange(len(rows) + 1)
        before = np.searchsorted(rows, run.commits)
        due = (nbytes[before] >= limits.bytes) | (nrows[before] >= limits.rows) | self._owed
        _stop_at(run, run.commits + 1, due)
        over = (nbytes[1:] >= 2 * limits.bytes) | (nrows[1:] >= 2 * limits.rows)
        full = bool(over.any()) and int(rows[np.argmax(over)]) < run.count
        _stop_at(run, rows + 1, over)
        return full

    def _settle(self, run: _Run) -> bool:
        """Note what commits and keepalives say; whether the goal is reached."""
        begun, ended = run.begun, run.ended
        self._begin = run.opened.one(begun - 1) if begun > ended else None
        seen, idle = run.kept_alive
        self._stream.note_seen(seen)
        self._stream.at = max(self._stream.at, idle)
        if not ended:
            return False
        ends = run.ends[:ended]
        new = np.flatnonzero(run.opened.final_lsn[:ended] >= self._since)
        if len(new):
            self._stream.witness = _witness(run.opened.one(int(new[-1])))
        self._stream.at = max(self._stream.at, int(ends.max()))
        return int(ends[-1]) >= self._goal

    def _is_due(self) -> bool:
        if self._begin is not None:
            return False
        return (
            self._owed or self._window.bytes >= self._limits.bytes or self._window.rows >= self._limits.rows
        )

    def _close_window(self, *, end: bool) -> Iterator[ChangeBatch | Reached]:
        yield from self._window.take()
        self._owed = False
        if end:
            self._stream.at = self._goal if self._exact else max(self._stream.at, self._goal)
        yield Reached(self._stream.at, self._stream.witness, end)

    def _note(self, message: bytes) -> tuple[bool, bool]:
        """Take in a single message; whether it was taken, and whether the goal is reached."""
        if message[:1] == b"k" and len(message) == KEEPALIVE_SIZE:
            return True, self._note_keepalive(message)
        payload = message[HEADER:] if message[:1] == b"w" else b""
        kind = payload[0] if payload else 0
        if kind == _BEGIN:
            opened = self._open(parse_begin(payload))
            return opened, not opened
        if kind == _RELATION:
            self._window.announce(payload)
        elif kind == _TRUNCATE:
            self._truncate(payload)
        else:
            raise self._refusal(payload)
        return True, False

    def _refusal(self, payload: bytes) -> DecodeError:
        """The error for a message that belongs nowhere."""
        kind = payload[:1].decode("latin-1")
        if kind == "C":
            return DecodeError(f"a commit at {format_lsn(parse_commit(payload).lsn)} without its begin")
        if kind and kind in "IUD":
            return DecodeError("a change outside of a transaction, or one that ends early")
        return DecodeError(f"a message of unknown kind {kind!r}")

    def _open(self, begin: Begin) -> bool:
        """Begin a transaction, unless it commits at or after the goal: then it is left for the next call."""
        if self._begin is not None:
            raise DecodeError("a transaction begins inside of another")
        self._check_witness(begin.final_lsn, begin)
        if begin.final_lsn < self._goal:
            self._begin = begin
        return self._begin is not None

    def _note_keepalive(self, message: bytes) -> bool:
        """Whether the goal is reached. Between transactions all before the keepalive's LSN has been sent."""
        seen = self._stream.note_keepalive(message)
        if self._begin is not None:
            return False
        self._check_witness(seen, None)
        if seen < self._goal or not self._exact:
            self._stream.at = max(self._stream.at, seen)
        return seen >= self._goal

    def _truncate(self, payload: bytes) -> None:
        if self._begin is None:
            raise DecodeError("a truncate outside of a transaction")
        if self._begin.final_lsn >= self._since:
            for oid in parse_truncate(payload).oids:
                self._window.truncate(oid, self._begin)

    def _check_witness(self, lsn: int, begin: Begin | None) -> None:
        """Raise when the log goes past `since` without the transaction that was last before it."""
        if begin is not None and _witness(begin) == self._expected:
            self._expected = ""
        if self._expected and lsn >= self._since:
            raise PositionLost(
                f"the log before {format_lsn(self._since)} no longer holds transaction {self._expected}:"
                " the server was restored from an older copy and went another way"
            )


def _stop_at(run: _Run, places: Ints, here: Mask) -> None:
    """Let the run end at the first of the places that is marked."""
    if here.any():
        run.cut(int(places[np.argmax(here)]))


def _witness(begin: Begin) -> str:
    return f"{format_lsn(begin.final_lsn)}:{begin.xid}"
