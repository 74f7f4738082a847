"""A scheduled run: what cron, systemd or papermill start, and nobody watches.

It goes on where an attempt before it failed, tells its progress in plain lines, and leaves a result as JSON,
also when it fails. What is durable is never decided here: the raw log and the lake know it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from headwater.choosing import choosable
from headwater.config import quote_table, select
from headwater.errors import ConfigError, HeadwaterError, QualityFailed, SourceError, VerifyFailed
from headwater.model import TableId
from headwater.pipeline import Pipeline
from headwater.printable import printable
from headwater.schedule.journal import Journal
from headwater.schedule.result import Result
from headwater.schedule.watch import Watch
from headwater.state import RunRecord, last_runs

__all__ = ["MODES", "Result", "run_scheduled"]


def run_scheduled(
    pipeline: str | Path = "headwater.yml",
    mode: str = "auto",
    tables: str | Sequence[str] = (),
    result: str | Path = "scheduled_run.json",
    log: TextIO | None = None,
) -> Result:
    """Make one attempt and write its result; a failure is in the result too, whose `check` raises it.

    mode    one of MODES
    tables  patterns, for the modes that take some; none: all tables
    result  the JSON file; it is replaced as a whole, first with the outcome "running", then with what came
    log     where lines of progress go (default: the standard output)
    Raises StorageError, before anything runs, where the result cannot be written.
    """
    patterns = _as_patterns(tables)
    done = Result(str(pipeline), mode, patterns, Path(str(result)))
    done.write()
    watch = Watch(log or sys.stdout)
    try:
        if mode not in MODES:
            raise ConfigError(f"no mode {mode!r} of a scheduled run", hint="one of: " + ", ".join(MODES))
        if odd := [pattern for pattern in patterns if not isinstance(pattern, str)]:
            raise ConfigError(
                f"tables are patterns, which {odd[0]!r} is not",
                hint="-p tables nyc.airlines, or -y 'tables: [nyc.*]'",
            )
        with Pipeline.open(pipeline) as opened:
            done.pipeline = opened.config.name
            _attempt(_Attempt(opened, done, watch))
    # An interrupt is how papermill ends a cell that takes too long.
    except (Exception, KeyboardInterrupt) as failed:  # noqa: BLE001  who reads the result must get a sentence
        done.fail(failed)
    done.end(watch)
    watch.say(done.line())
    done.write()
    return done


def _as_patterns(tables: object) -> tuple[str, ...]:
    """What was given as patterns, also where a parameter is of no right type: the result has to say so."""
    if isinstance(tables, list | tuple):
        return tuple(tables)
    return () if tables is None or tables == "" else (cast(str, tables),)


@dataclass(slots=True)
class _Attempt:
    """What the modes work on."""

    pipeline: Pipeline
    done: Result
    watch: Watch
    journal: Journal | None = None


def _attempt(now: _Attempt) -> None:
    pipeline, done, watch = now.pipeline, now.done, now.watch
    names, work = MODES[done.mode]
    hands_on = pipeline.config.warehouse is not None or pipeline.config.publishes
    done.steps = [name for name in names if name != "build" or hands_on]
    now.journal = journal = Journal(pipeline.parts.state, pipeline.config.name, done.mode, done.patterns)
    done.resumes = journal.left
    if done.resumes:
        watch.say(f"{done.pipeline}: {done.resumes.line()}")
    watch.entered, watch.last = journal.note, next((n for n in names if n not in _RUN), "")
    try:
        work(now)
    except (Exception, KeyboardInterrupt) as failed:
        done.failed_step = watch.failed_in
        done.record = _record(now)
        if done.resumes and isinstance(failed, SourceError) and done.failed_step in ("start", "capture"):
            _deliver(now)
        journal.fail(done.failed_step, failed)
        raise
    done.record = _record(now)
    journal.close()


def _deliver(now: _Attempt) -> None:
    """The source is away: what an earlier attempt read of it goes to lake and warehouse all the same."""
    now.watch.say(f"{now.done.pipeline}: the source is away; what was read before goes on")
    with suppress(HeadwaterError):  # why the attempt failed is the source
        now.pipeline.retry(sinks=[now.watch])


def _record(now: _Attempt) -> Mapping[str, object]:
    """The record of the run that the attempt made; empty if it came to none."""
    with suppress(HeadwaterError):  # on the way out of an attempt that failed, that is what matters
        found = last_runs(now.pipeline.parts.state, now.pipeline.config.name, 5)
        return next((r.to_json() for r in found if r.run_id == now.watch.run_id), {})
    return {}


def _auto(now: _Attempt) -> None:
    """Load what is new, and catch up."""
    if now.done.patterns:
        raise ConfigError(
            f"mode {now.done.mode} takes in what is new of all tables, so it takes no tables",
            hint="give no tables, or mode full, which reads these again",
        )
    _raise_failed(now.pipeline.run(sinks=[now.watch]))


def _raise_failed(record: RunRecord) -> None:
    """A run may come to its end and have failed: what was right went on."""
    if record.outcome == "failed":
        raise HeadwaterError(record.error, hint=record.hint)


def _delta(now: _Attempt) -> None:
    """Catch up; a first load, which may take hours, is not what was asked for."""
    if now.pipeline.parts.log.last() is None:
        name = now.pipeline.config.name
        raise ConfigError(f"pipeline {name} has read no table yet", hint="mode full or auto loads them")
    _auto(now)


def _full(now: _Attempt) -> None:
    """Read tables again: after an attempt that failed, those whose turn had not come.

    One that was begun is not among them: every run goes on with the parts that are missing.
    """
    assert now.journal is not None
    epochs = _epochs(now.pipeline, now.done.patterns)
    asked = now.journal.asked or epochs
    now.journal.asked = asked
    left = [table for table, epoch in epochs.items() if asked.get(table) == epoch]
    now.done.read_before = len(asked) - len(left)
    if now.done.read_before:
        now.watch.say(f"{now.done.pipeline}: {now.done.read_before:,} of {len(asked):,} tables were begun")
    mode, again = ("full", [quote_table(t) for t in left]) if left else ("auto", None)
    _raise_failed(now.pipeline.run(mode, again, [now.watch]))


def _epochs(pipeline: Pipeline, patterns: Sequence[str]) -> Mapping[TableId, int]:
    """The tables to read, each with how often the raw log has begun to hold it whole."""
    known = [t for t, info in choosable(pipeline.tables()).items() if not info.note]
    chosen = select(pipeline.config.tables, known)
    state = pipeline.parts.log.tables()
    tables = select(patterns, chosen) if patterns else chosen
    return {t: state[t].epoch if t in state else 0 for t in tables}


def _verify(now: _Attempt) -> None:
    """Compare source, lake and warehouse; a difference is a failure."""
    report = now.pipeline.verify(now.done.patterns or None, [now.watch])
    now.done.report = report.to_json()
    for line in report.lines():
        now.watch.say(printable(line))
    if not report.equal:
        wrong = [quote_table(check.table) for check in report.tables if not check.equal]
        raise VerifyFailed(report.lines()[-1], hint=f"headwater verify --table {wrong[0]}")


def _quality(now: _Attempt) -> None:
    """Judge whole tables; rules that fail are a failure, warnings are not."""
    now.watch.enter("quality")
    found = now.pipeline.quality(now.done.patterns or None, full=True, sinks=[now.watch])
    now.watch.worked.add("quality")
    now.watch.run_id, now.done.report = found.run_id, found.to_json()
    now.watch.say(f"{now.done.pipeline}: quality: {found.verdict}")
    if found.verdict == "failed":
        raise QualityFailed(f"{found.failed:,} rules failed", hint="headwater quality --full")


def _certify(now: _Attempt) -> None:
    """Compare as `verify` does, and leave a certificate beside the pipeline file."""
    found = now.pipeline.certify(now.done.patterns or None, sinks=[now.watch])
    now.done.report = found.to_json()
    for line in found.lines():
        now.watch.say(printable(line))
    if not found.equal:
        hint = "headwater verify --certificate --repair   (only the keys that differ)"
        raise VerifyFailed(found.lines()[-1], hint=hint)


_RUN = ("capture", "fold", "build")

#: The steps of each mode, and what does them.
MODES: Mapping[str, tuple[Sequence[str], Callable[[_Attempt], None]]] = {
    "auto": (_RUN, _auto),
    "delta": (_RUN, _delta),
    "full": (_RUN, _full),
    "verify": ((*_RUN, "compare"), _verify),
    "quality": (("quality",), _quality),
    "certificate": ((*_RUN, "compare"), _certify),
}
