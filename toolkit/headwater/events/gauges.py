"""A sink that keeps the figures of a run for whoever looks at it now and then: a widget, a console."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headwater.events import Event, Value
from headwater.model import TableId

#: Seconds over which a rate is taken, points of the chart that are kept, messages that are kept.
RATE_SECONDS, POINTS, MESSAGES = 5.0, 600, 100

_WRONG = {
    "run.retrying": "the source or the store is away",
    "table.failed": "cannot be folded",
    "refresh.failed": "the lake cannot be reached",
    "handoff.failed": "the warehouse was not built",
    "record.failed": "the record was not kept",
}


@dataclass(frozen=True, slots=True)
class TableGauge:
    """One table in a run: `phase` is loading, loaded, captured, in the lake or failed; `rows` into the log.

    total  the source's estimate while it is loaded, 0 when unknown
    eta    seconds until it is loaded; None: cannot be told
    lake   rows inserted, updated and deleted there
    at     when it last moved (seconds since 1970)
    """

    table: TableId
    phase: str = "loading"
    rows: int = 0
    total: int = 0
    bytes: int = 0
    eta: int | None = None
    lake: tuple[int, int, int] = (0, 0, 0)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """Something to know: `level` is info, warn or error; `hint` what to do."""

    at: float
    level: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One moment of the chart; lag in bytes of the source's log and in seconds, None when unknown."""

    at: float
    rows_per_second: float
    lag_bytes: int | None
    lag_seconds: float | None


@dataclass(slots=True)
class Gauges:
    """Give it to a run as a sink, from any thread; `tables`, `messages` and `points` are copies."""

    clock: Callable[[], float] = time.time
    loading: Mapping[str, Value] = field(default_factory=dict)  # of all tables: load.progress
    stage: str = ""
    drained_at: float | None = None
    _tables: dict[TableId, TableGauge] = field(default_factory=dict)
    _messages: deque[Message] = field(default_factory=lambda: deque(maxlen=MESSAGES))
    _points: deque[Point] = field(default_factory=lambda: deque(maxlen=POINTS))
    _moved: deque[tuple[float, int]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        with self._lock:
            if event.kind in _WRONG:
                self._fail(event.table, event.kind, event.data)
            elif event.table is not None:
                self._move(event.table, event.kind, event.data)
            else:
                self._note(event.kind, event.data)

    def tables(self, most: int = 200) -> Sequence[TableGauge]:
        """The tables that moved last, the newest first."""
        with self._lock:
            return sorted(self._tables.values(), key=lambda t: t.at, reverse=True)[:most]

    def messages(self) -> Sequence[Message]:
        """What was said, the newest first."""
        with self._lock:
            return list(reversed(self._messages))

    def points(self) -> Sequence[Point]:
        """The chart, the oldest point first."""
        with self._lock:
            return list(self._points)

    def counts(self) -> tuple[int, int]:
        """How many tables moved in this run, and how many rows."""
        with self._lock:
            return len(self._tables), sum(t.rows for t in self._tables.values())

    def say(self, level: str, text: str, hint: str = "") -> None:
        """Add a message, unless it is the last one again."""
        with self._lock:
            self._say(level, text, hint)

    def rows_per_second(self) -> float:
        """Rows into the raw log, over the last seconds."""
        with self._lock:
            now = self.clock()
            while self._moved and now - self._moved[0][0] > RATE_SECONDS:
                self._moved.popleft()
            return sum(rows for _, rows in self._moved) / RATE_SECONDS

    def sample(self, lag_bytes: int | None, lag_seconds: float | None) -> None:
        """Add a point to the chart."""
        point = Point(self.clock(), round(self.rows_per_second(), 1), lag_bytes, lag_seconds)
        with self._lock:
            self._points.append(point)

    def since_point(self) -> float:
        """Seconds since the last point of the chart."""
        with self._lock:
            return self.clock() - self._points[-1].at if self._points else float("inf")

    def _move(self, table: TableId, kind: str, data: Mapping[str, Value]) -> None:
        now = self.clock()
        gauge = replace(self._tables.get(table, TableGauge(table)), at=now)
        match kind:
            case "table.loading":
                self._moved.append((now, max(0, _whole(data, "rows") - gauge.rows)))
                eta = data.get("eta")
                rows, total, size = (_whole(data, name) for name in ("rows", "total", "bytes"))
                gauge = replace(gauge, phase="loading", rows=rows, total=total, bytes=size)
                gauge = replace(gauge, eta=eta if isinstance(eta, int) else None)
            case "table.loaded":
                gauge = replace(gauge, phase="loaded", eta=None, total=gauge.rows)
            case "changes.captured":
                self._moved.append((now, _whole(data, "rows")))
                gauge = replace(gauge, phase="captured", rows=gauge.rows + _whole(data, "rows"))
            case "table.refreshed":
                names = ("inserted", "updated", "deleted")
                lake = tuple(n + _whole(data, name) for n, name in zip(gauge.lake, names, strict=True))
                gauge = replace(gauge, phase="in the lake", lake=(lake[0], lake[1], lake[2]))
        self._tables[table] = gauge

    def _fail(self, table: TableId | None, kind: str, data: Mapping[str, Value]) -> None:
        about = f"{table} " if table else ""
        if table:
            gauge = self._tables.get(table, TableGauge(table))
            self._tables[table] = replace(gauge, phase="failed", at=self.clock())
        seconds = data.get("seconds")
        hint = f"nothing to do: it is tried again in {seconds} s" if seconds else str(data.get("hint") or "")
        self._say("error", f"{about}{_WRONG[kind]}: {data.get('error')}", hint)

    def _note(self, kind: str, data: Mapping[str, Value]) -> None:
        match kind:
            case "run.started":
                self._tables, self.loading, self.drained_at = {}, {}, None
                self._moved.clear()
                self.stage = "reading the source"
            case "load.progress":
                self.loading = dict(data)
            case "changes.drained":
                self.drained_at = self.clock() - float(data.get("seconds") or 0.0)
            case "handoff.started":
                self.stage = f"dbt builds {_whole(data, 'tables'):,} tables"
            case "handoff.finished":
                self.stage = ""
                self._say("info", f"dbt built {_whole(data, 'models'):,} models", "")
            case "wal.warning":
                level = "error" if data.get("level") == "critical" else "warn"
                self._say(level, str(data.get("says")), str(data.get("hint") or ""))
            case "run.finished" | "run.failed":
                self.stage = ""

    def _say(self, level: str, text: str, hint: str) -> None:
        last = self._messages[-1] if self._messages else None
        if last is None or (last.level, last.text, last.hint) != (level, text, hint):
            self._messages.append(Message(self.clock(), level, text, hint))


def _whole(data: Mapping[str, Value], name: str) -> int:
    found = data.get(name)
    return found if isinstance(found, int) else 0
