"""Sinks for a person at a terminal: moving bars where there is one, plain lines where there is not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from headwater.events import Event, Sink, Value
from headwater.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def watch(stream: TextIO) -> Iterator[Sink]:
    """A sink that shows a run on the stream while the block runs."""
    if not stream.isatty():
        yield lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    progress = Progress(
        *columns,
        console=Console(file=stream),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with progress:
        yield Bars(progress)


def lines(stream: TextIO, *, only: Collection[str] = ()) -> Sink:
    """A sink that writes a line with the time for each thing that is done, or for some kinds only."""

    def write(event: Event) -> None:
        said = describe(event) if not only or event.kind in only else ""
        if said:
            stream.write(f"{datetime.now():%H:%M:%S} {said}\n")
            stream.flush()

    return write


class Bars:
    """One bar for each table that is being read, and one for what is going on besides."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._captured = 0

    def __call__(self, event: Event) -> None:
        """Move the bar the event is about."""
        name = printable(str(event.table)) if event.table else ""
        match event.kind:
            case "table.loading" | "load.progress" | "verify.progress":
                self._load(name, event.data)
            case "table.loaded":
                self._end(name)
            case "changes.captured":
                self._captured += _whole(event.data, "rows")
                self._move("changes", self._captured, 0)
            case "table.refreshed":
                self._end("")
                self._end("changes")
                self._move("lake", 0, 0, name)
            case "handoff.started":
                self._end("lake")
                self._move("dbt", 0, 0, f"{_whole(event.data, 'tables'):,} tables")
            case "run.finished" | "run.failed":
                self._captured = 0
                for bar in list(self._bars):
                    self._end(bar)

    def _load(self, name: str, data: Mapping[str, Value]) -> None:
        """A table, or all of them (""): rows of about how many, what they take in the log, how fast."""
        done, parts = _whole(data, "done"), _whole(data, "parts")
        if parts:
            self._move(name, done, parts, f"{done:,} of {parts:,} parts compared")
            if done == parts:
                self._end(name)
            return
        said, tables = name, _whole(data, "tables")
        if not name:
            said = f"all: {_whole(data, 'loaded'):,} of {tables:,} tables"
        rows, total = _whole(data, "rows"), _whole(data, "total")
        of = f" of ~{total:,}" if total > rows else ""
        if name or tables > 1:
            self._move(name, rows, total, f"{rows:,}{of} rows  {_size(_whole(data, 'bytes'))}", said)

    def _move(self, name: str, rows: int, total: int, figures: str = "", said: str = "") -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(said or name, total=None, figures="")
        bar = self._bars[name]
        self._progress.update(bar, completed=rows, total=max(total, rows) if total else None)
        task = next(t for t in self._progress.tasks if t.id == bar)
        rate = f"  {task.speed:,.0f} rows/s" if task.speed else ""
        shown = f"{figures}{rate if rows else ''}" if figures else f"{rows:,} rows{rate}"
        self._progress.update(bar, description=said or name, figures=shown)

    def _end(self, name: str) -> None:
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))


def describe(event: Event) -> str:  # noqa: C901  one case a kind
    """One line for what is done; "" for what only just moves."""
    data, name = event.data, printable(str(event.table)) if event.table else ""
    said = ""
    match event.kind:
        case "run.started":
            said = f"{event.pipeline}: {data.get('mode', '')} run {data.get('run_id', '')}"
        case "run.retrying" | "table.failed" | "refresh.failed" | "handoff.failed" | "record.failed":
            seconds = data.get("seconds")
            said = printable(str(data.get("error", "")))
            said += "" if seconds is None else f"; trying again in {seconds} s"
        case "wal.warning":
            said = ": ".join(printable(str(data.get(name))) for name in ("level", "says"))
            said += f"; try: {printable(str(data.get('hint')))}"
        case "table.loaded":
            said = f"{name}: {_whole(data, 'rows'):,} rows read"
        case "table.refreshed" | "table.quarantined":
            said = _folded(name, data)
        case "table.repaired":
            said = f"{name}: keys put right: {', '.join(f'{n} in {place}' for place, n in data.items())}"
        case "handoff.started":
            said = f"dbt: building {_whole(data, 'tables'):,} tables"
        case "handoff.finished":
            said = f"dbt: {_whole(data, 'models'):,} models built"
    return said


def _folded(name: str, data: Mapping[str, Value]) -> str:
    """What a fold did to a table, or what did not fit in it."""
    counts = [f"{_whole(data, k):,} {k}" for k in ("inserted", "updated", "deleted") if _whole(data, k)]
    parked, nulled = _whole(data, "parked"), _whole(data, "nulled")
    counts[-1:] = [f"{last} in the lake" for last in counts[-1:]]
    counts += [f"{parked:,} rows wait in quarantine"] if parked else []
    counts += [f"{nulled:,} rows with NULL for a value that does not fit"] if nulled else []
    return f"{name}: {', '.join(counts)}" if counts else ""


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MB"


def _whole(data: Mapping[str, Value], name: str) -> int:
    found = data.get(name)
    return found if isinstance(found, int) else 0
