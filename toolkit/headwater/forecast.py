"""When would the source's log be lost to us, or fill its disk? Pure: samples in, a forecast out.

A source keeps its log for us until we confirm it. What is kept grows while nobody reads, or while we read
more slowly than others write, or while an old transaction holds it; `room` is what may still be written
before the source breaks its promise. The thresholds stand below; docs/postgres.md has them in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headwater.printable import size, span

Level = Literal["ok", "warn", "critical"]

#: The share of what may be kept that is used up, from which on it is worth a word, and an alarm.
WARN_SHARE, CRITICAL_SHARE = 0.5, 0.8
#: The same in seconds until nothing is left; says nothing while less than TREND_SHARE is used.
WARN_SECONDS, CRITICAL_SECONDS = 86400.0, 3600.0
TREND_SHARE = 0.2
#: Where nothing bounds what is kept: worth a word from so many bytes on.
UNBOUNDED_BYTES = 10 << 30
#: A rate is taken over at least and, where there are samples, at most so many seconds.
SHORTEST, WINDOW = 10.0, 900.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What a source said of its log at one moment.

    at      seconds since 1970
    end     bytes of log ever written
    held    bytes of it kept for us
    room    bytes that may be written before our place is lost or a budget is used up; None: nothing bounds it
    """

    at: float
    end: int
    held: int
    room: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """How much log is kept for us, how fast that grows, and how long it may go on.

    written_per_second    log of the whole server in bytes, None before there are two samples
    growth_per_second     by how much what is kept for us grows; negative while it shrinks
    seconds               until `room_bytes` are used up at that growth; None: not in sight
    says, hint            one line for a person and what to do; "" while all is well
    """

    level: Level
    retained_bytes: int
    room_bytes: int | None
    written_per_second: int | None
    growth_per_second: int | None
    seconds: int | None
    says: str = ""
    hint: str = ""


def forecast(samples: Sequence[Sample], *, lost: bool = False, release: str = "") -> Forecast:
    """The forecast as of the last sample; the earlier ones, oldest first, give the rates.

    lost     the source says that our place is lost already
    release  a statement that lets go of what holds the log, where one is known
    """
    now = samples[-1]
    base = _base(samples)
    written = growth = seconds = None
    if base is not None:
        took, gained = now.at - base.at, now.held - base.held
        written, growth = round((now.end - base.end) / took), round(gained / took)
        if growth > 0 and now.room is not None:
            seconds = max(0, int(now.room * took / gained))
    level = "critical" if lost else _level(now, seconds)
    says = "" if level == "ok" else _says(now, growth, seconds, lost=lost)
    hint = "" if level == "ok" else _hint(now, lost=lost, release=release)
    return Forecast(level, now.held, now.room, written, growth, seconds, says, hint)


def keep(samples: Sequence[Sample], new: Sample) -> list[Sample]:
    """The samples worth keeping with a new one: those of the window, a while apart, and the last before."""
    known = [s for s in samples if s.at < new.at and s.end <= new.end]
    if len(known) > 1 and known[-1].at - known[-2].at < WINDOW / 30:
        known.pop()
    older = [s for s in known if new.at - s.at > WINDOW]
    return [*older[-1:], *known[len(older) :], new]


def _base(samples: Sequence[Sample]) -> Sample | None:
    """The sample to measure from: the first of the window, else the last before it.

    One that is ahead in time or in log is from before a clock was set or a server was restored.
    """
    now = samples[-1]
    older = [s for s in samples[:-1] if now.at - s.at >= SHORTEST and s.end <= now.end]
    recent = [s for s in older if now.at - s.at <= WINDOW]
    return recent[0] if recent else older[-1] if older else None


def _level(now: Sample, seconds: int | None) -> Level:
    if now.room is None:
        return "warn" if now.held >= UNBOUNDED_BYTES else "ok"
    share = _share(now)
    left = seconds if seconds is not None and share >= TREND_SHARE else WARN_SECONDS
    if share >= CRITICAL_SHARE or left < CRITICAL_SECONDS:
        return "critical"
    return "warn" if share >= WARN_SHARE or left < WARN_SECONDS else "ok"


def _share(now: Sample) -> float:
    """The share of what may be kept that is used up."""
    room = max(0, now.room or 0)
    return now.held / (now.held + room) if now.held + room else 1.0


def _says(now: Sample, growth: int | None, seconds: int | None, *, lost: bool) -> str:
    if lost:
        return "the source no longer keeps the log this pipeline has not read yet"
    said = f"the source keeps {size(now.held)} of log for this pipeline"
    said += ", and nothing bounds it" if now.room is None else f", {_share(now):.0%} of what it may"
    if growth is not None and growth > 0:
        said += f", growing by {size(growth)}/s"
    return said if seconds is None else f"{said}: used up in {span(seconds)}"


def _hint(now: Sample, *, lost: bool, release: str) -> str:
    if lost:
        return "headwater run --full   (reads every table again; history is kept)"
    if release:
        return release
    if now.room is None:
        return "headwater run   (and give it a bound: source.wal_budget in headwater.yml)"
    return "headwater run   (reads it, so that the source may let go of it)"
