"""`RunMonitor`: a pipeline's runs as they happen, with the means to start, pause and stop one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from headwater.background import Background, Mode
from headwater.errors import HeadwaterError
from headwater.events.gauges import Gauges, TableGauge
from headwater.pipeline import Pipeline
from headwater.pulse import Pulse
from headwater.state import RunRecord
from headwater_widgets import pages
from headwater_widgets.view import Verb, View, find_file, read_source

#: Seconds between two looks at what runs here, and at the source.
_TICK, _LOOK = 0.5, 2.0
#: A view that has not said for so many seconds that it is looked at is not worth asking the source for.
_UNSEEN = 30.0
#: Tables and points of the chart in one message.
_TABLES, _POINTS = 200, 300


@cache
def _shared(path: Path) -> tuple[Gauges, Background]:
    """One for each file: a cell that is run again makes another monitor, of the run that is going on."""
    gauges = Gauges()
    return gauges, Background(path, [gauges])


class RunMonitor(View):
    """Watches a pipeline; runs that it starts are in a process of their own, beside the notebook's kernel."""

    _esm = read_source("dom.js", "run_monitor.js")

    def __init__(self, pipeline: Pipeline | str | Path = "headwater.yml") -> None:
        """`pipeline` is a pipeline file, or a `Pipeline` opened from one."""
        self._path = find_file(pipeline)
        self.gauges, self.background = _shared(self._path)
        self._observer: Pipeline | None = None
        self._pulse: Pulse | None = None
        self._away = ""
        self._seen = self._looked = 0.0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__()
        self._look()
        self._let_go()

    def start(self, mode: Mode = "run", *, build: bool = True) -> None:
        """Begin a run: "run" once, "full" reads all tables again, "follow" goes on until `stop`."""
        self.background.start(mode, build=build)
        self._watch()

    def pause(self) -> None:
        """Stop at the next safe stop; `resume` goes on from there."""
        self.background.pause()

    def resume(self) -> None:
        """Go on with a paused run."""
        self.background.resume()
        self._watch()

    def stop(self) -> None:
        """Stop at the next safe stop; a second time: at once."""
        self.background.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the run that was started here; whether it has ended."""
        return self.background.wait(seconds)

    def close(self) -> None:
        """Stop watching. The run that was started here goes on; another monitor of the file shows it."""
        self._closing.set()
        super().close()

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for."""
        return {
            "ready": self._show,
            "seen": self._show,
            "start": lambda said: self.start(said["mode"]),
            "pause": lambda _: self.pause(),
            "resume": lambda _: self.resume(),
            "stop": lambda _: self.stop(),
        }

    def page(self) -> str:
        """The static HTML."""
        if self._pulse is None:
            return pages.table("Runs", self._away or "not looked yet", (), ())
        head = ("began", "mode", "outcome", "seconds", "tables", "rows in", "error")
        rows = [_run_row(r) for r in self._pulse.runs[:10]]
        said = self._pulse.position and f"at {self._pulse.position}" or "not run yet"
        return pages.table("Runs", said, head, rows, figures=(3, 4, 5))

    # Watching.

    def _show(self, _said: Mapping[str, Any]) -> None:
        self._seen = time.monotonic()
        self._watch()
        self._tell_all()

    def _watch(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._tick, name="headwater monitor", daemon=True)
            self._thread.start()

    def _tick(self) -> None:
        """Until nobody looks and nothing runs."""
        try:
            self._tick_on()
        finally:
            self._let_go()

    def _tick_on(self) -> None:
        while not self._closing.wait(_TICK):
            running = self.background.state not in ("idle", "paused")
            if not running and time.monotonic() - self._seen > _UNSEEN:
                return
            if time.monotonic() - self._looked >= _LOOK or not running and self._ended():
                self._look()
            if running and self.gauges.since_point() >= _TICK / 2:
                self.gauges.sample(self._pulse.behind_bytes if self._pulse else None, self._lag())
            self._tell_all()

    def _ended(self) -> bool:
        """Whether the last run's record is not among those seen yet."""
        last = self.background.last
        return bool(last and self._pulse and last.run_id not in {r.run_id for r in self._pulse.runs})

    def _look(self) -> None:
        """Ask source, log and state; what cannot be asked is said, not raised."""
        self._looked = time.monotonic()
        try:
            self._observer = self._observer or Pipeline.open(self._path)
            self._pulse, self._away = self._observer.pulse(), ""
        except HeadwaterError as failed:
            self._away = str(failed)
            self._let_go()

    def _let_go(self) -> None:
        """Close our own hold on the pipeline; the next look opens the file as it is then."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None

    def _lag(self) -> float | None:
        """How many seconds old a commit may be that is not in the raw log; None: nothing was read yet."""
        if self.gauges.drained_at is not None and self.background.state != "idle":
            return max(0.0, time.time() - self.gauges.drained_at)
        if self._pulse is not None and self._pulse.behind_bytes == 0:
            return 0.0
        read = self._pulse.read_until if self._pulse else None
        return (datetime.now(UTC) - read).total_seconds() if read else None

    def _tell_all(self) -> None:
        failure = self.background.failure
        tables, rows = self.gauges.counts()
        self.tell(
            "state",
            state=self.background.state,
            mode=self.background.mode,
            stage=self.gauges.stage,
            failure=[failure.message, failure.hint] if failure else None,
            tables=[_gauge(t) for t in self.gauges.tables(_TABLES)],
            counts=[tables, rows],
            loading=dict(self.gauges.loading),
            speed=self.gauges.rows_per_second(),
            points=[
                [p.at, p.rows_per_second, p.lag_bytes, p.lag_seconds] for p in self.gauges.points()[-_POINTS:]
            ],
            messages=[asdict(m) for m in self.gauges.messages()[:20]],
            lag=self._lag(),
            away=self._away,
            now=time.time(),
            pulse=_pulse(self._pulse) if self._pulse else None,
        )


def _gauge(table: TableGauge) -> Sequence[object]:
    return [str(table.table), table.phase, table.rows, table.total, table.bytes, table.eta, list(table.lake)]


def _pulse(pulse: Pulse) -> Mapping[str, object]:
    runs = [
        [r.run_id, r.mode, r.outcome, r.started_at.timestamp(), r.seconds, len(r.tables),
         sum(c.rows_in for c in r.tables.values()), r.models_built, r.error, r.hint, list(r.warnings)]
        for r in pulse.runs
    ]  # fmt: skip
    return {
        "position": pulse.position,
        "entries": pulse.entries,
        "behind": pulse.behind_bytes,
        "wal": asdict(pulse.wal) if pulse.wal else None,
        "away": pulse.source_error,
        "holder": pulse.holder,
        "runs": runs,
    }


def _run_row(record: RunRecord) -> Sequence[str]:
    rows = sum(c.rows_in for c in record.tables.values())
    began, tables = f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC", len(record.tables)
    return (began, record.mode, record.outcome, f"{record.seconds:.1f}", f"{tables:,}", f"{rows:,}",
            record.error)  # fmt: skip
