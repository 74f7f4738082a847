"""The sink of a scheduled run: which step goes on, for how long, and lines for the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import TextIO

from headwater.events import Event
from headwater.events.terminal import describe
from headwater.model import TableId
from headwater.printable import printable, span

#: Seconds between two lines about what only moves: a log of a night stays one that is read.
_PAUSE = 10.0

#: What shows that a step has something to do.
_WORK = {
    "table.loading": "capture",
    "changes.captured": "capture",
    "table.refreshed": "fold",
    "view.published": "build",
    "handoff.started": "build",
}


class Watch:
    """Called with every event of the attempt's runs."""

    def __init__(self, log: TextIO) -> None:
        self.entered: Callable[[str, str], None] = lambda step, run_id: None
        self.last = ""  # the step behind the runs, in modes that have one
        self.step, self.run_id = "start", ""
        self.worked: set[str] = set()
        self.seconds: dict[str, float] = defaultdict(float)
        self._log = log
        self._since = self._told = monotonic()
        self._failed_tables = False
        self._loaded: dict[TableId, int] = {}
        self._changed = 0

    @property
    def rows(self) -> int:
        """Rows that came from the source."""
        return self._changed + sum(self._loaded.values())

    @property
    def failed_in(self) -> str:
        """The step to blame, once something was raised: tables that fail are told of after all is done."""
        return "fold" if self._failed_tables else self.step

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if event.kind in _WORK:
            self.enter(_WORK[event.kind])
            self.worked.add(self.step)
        match event.kind:
            case "run.started":
                self.run_id = str(event.data.get("run_id", ""))
                self.enter("fold" if event.data.get("mode") == "retry" else "capture")
            case "changes.drained":
                self.enter("fold")
            case "table.failed":
                self._failed_tables = True
                self.say(f"{printable(str(event.table))}: {printable(str(event.data.get('error')))}")
                return
            case "run.finished" if self.last:
                self.enter(self.last)
                self.worked.add(self.last)
        self._count(event)
        if said := describe(event):
            self.say(said)

    def say(self, line: str) -> None:
        """Write a line with the time, now."""
        self._log.write(f"{datetime.now():%H:%M:%S} {line}\n")
        self._log.flush()

    def stop(self) -> None:
        """The attempt is over."""
        self.enter(self.step)

    def enter(self, step: str) -> None:
        """What follows is of this step."""
        now = monotonic()
        self.seconds[self.step] += now - self._since
        self._since = now
        if step != self.step:
            self.step = step
            self.entered(step, self.run_id)

    def _count(self, event: Event) -> None:
        data = event.data
        if event.kind == "changes.captured":
            self._changed += int(data.get("rows") or 0)
            self._move(f"changes: {self._changed:,} rows")
        elif event.kind == "table.loading" and event.table is not None:
            self._loaded[event.table] = int(data.get("rows") or 0)
        elif event.kind == "load.progress":
            rows, total, eta = (int(data.get(name) or 0) for name in ("rows", "total", "eta"))
            of = f" of ~{total:,}" if total > rows else ""
            left = f", about {span(eta)} left" if eta else ""
            self._move(
                f"loading: {data.get('loaded')} of {data.get('tables')} tables, {rows:,}{of} rows{left}"
            )

    def _move(self, line: str) -> None:
        if monotonic() - self._told >= _PAUSE:
            self._told = monotonic()
            self.say(line)
