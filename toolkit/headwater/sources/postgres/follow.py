"""Following the log: transactions from a stream into windows, with a position wherever it is safe to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headwater.errors import DecodeError, PositionLost, SourceError
from headwater.model import ChangeBatch
from headwater.sources.postgres.messages import Begin, parse_begin, parse_commit, parse_truncate
from headwater.sources.postgres.position import format_lsn
from headwater.sources.postgres.stream import Stream
from headwater.sources.postgres.window import Window

_KEEPALIVE = ord("k")
_ROWS = frozenset(b"IUD")
_IGNORED = frozenset(b"OYM")
_BEGIN, _COMMIT, _RELATION, _TRUNCATE = b"BCRT"
#: CopyData's own header of a message: kind, two LSNs, a clock.
_HEADER = 25


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


class Follower:
    """Reads a stream from where it stands up to `goal`; `exact`: nothing beyond it counts as read."""

    def __init__(
        self, stream: Stream, window: Window, goal: int, limits: Limits, *, exact: bool, witness: str = ""
    ) -> None:
        self._stream, self._window, self._limits = stream, window, limits
        self._goal, self._exact, self._since = goal, exact, stream.at
        self._expected = witness  # transaction that must come before `since` is reached; "" when none need
        self._begin: Begin | None = None
        self._skipping = False
        self._beyond = False  # the last message began a transaction behind the goal
        self._owed = False  # part of a transaction was handed out: a position is due at its end

    def run(self, nudge: Callable[[], None]) -> Iterator[ChangeBatch | Reached]:
        """Batches, and the place they reach after each window; the last item is the place of the goal."""
        heard = moved = time.monotonic()
        pause = 0.01
        while True:
            batch = self._stream.take(pause)
            now = time.monotonic()
            if not batch:
                self._ask(now - heard)
                pause = min(pause * 2, 0.5)
            else:
                heard = now
            if any(message[0] != _KEEPALIVE for message in batch):
                moved, pause = now, 0.01
            elif now - moved > self._limits.nudge:
                nudge()
                moved = now + 4 * self._limits.nudge
            for item in self._absorb(batch):
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

    def _absorb(self, batch: list[bytes]) -> Iterator[ChangeBatch | Reached]:
        """Take in messages up to the goal; those behind it go back to the stream."""
        for number, message in enumerate(batch):
            if message[0] != _KEEPALIVE and message[_HEADER] in _ROWS:
                if self._add(message[_HEADER:]):
                    self._owed = True
                    yield from self._window.take()
                continue
            self._beyond = False
            end = self._note(message)
            if end:
                self._stream.put_back(batch[number if self._beyond else number + 1 :])
            if end or self._is_due():
                yield from self._close_window(end=end)
            if end:
                return

    def _add(self, payload: bytes) -> bool:
        """Take in a row; whether the window must be handed out in the middle of the transaction."""
        if self._begin is None:
            raise DecodeError("a change outside of a transaction")
        if self._skipping:
            return False
        window, limits = self._window, self._limits
        window.add(payload, self._begin)
        return window.bytes >= 2 * limits.bytes or window.rows >= 2 * limits.rows

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

    def _note(self, message: bytes) -> bool:
        """Take in anything but a row; whether the goal is reached."""
        if message[0] == _KEEPALIVE:
            return self._note_keepalive(message)
        payload = message[_HEADER:]
        kind = payload[0]
        if kind == _BEGIN:
            self._beyond = self._open(payload)
            return self._beyond
        if kind == _COMMIT:
            return self._commit(payload)
        if kind == _RELATION:
            self._window.announce(payload)
        elif kind == _TRUNCATE:
            self._truncate(payload)
        elif kind not in _IGNORED:
            raise DecodeError(f"a message of unknown kind {chr(kind)!r}")
        return False

    def _open(self, payload: bytes) -> bool:
        """Begin a transaction, unless it commits at or after the goal: then it is left for the next call."""
        begin = parse_begin(payload)
        self._check_witness(begin.final_lsn, begin)
        if begin.final_lsn >= self._goal:
            return True
        self._begin, self._skipping = begin, begin.final_lsn < self._since
        return False

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
        if not self._skipping:
            for oid in parse_truncate(payload).oids:
                self._window.truncate(oid, self._begin)

    def _commit(self, payload: bytes) -> bool:
        commit = parse_commit(payload)
        if self._begin is None or commit.lsn != self._begin.final_lsn:
            raise DecodeError(f"a commit at {format_lsn(commit.lsn)} without its begin")
        if not self._skipping:
            self._stream.witness = f"{format_lsn(commit.lsn)}:{self._begin.xid}"
        self._begin = None
        self._stream.at = max(self._stream.at, commit.end_lsn)
        return commit.end_lsn >= self._goal

    def _check_witness(self, lsn: int, begin: Begin | None) -> None:
        """Raise when the log goes past `since` without the transaction that was last before it."""
        if begin is not None and f"{format_lsn(begin.final_lsn)}:{begin.xid}" == self._expected:
            self._expected = ""
        if self._expected and lsn >= self._since:
            raise PositionLost(
                f"the log before {format_lsn(self._since)} no longer holds transaction {self._expected}:"
                " the server was restored from an older copy and went another way"
            )
