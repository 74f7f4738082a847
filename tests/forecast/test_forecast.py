"""The forecast of the source's log, in numbers; and the guard over a source that says what we want."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.forecast import WINDOW, Sample, forecast, keep
from headwater.guard import REMIND, LogGuard
from headwater.sources import Source
from headwater.state.sqlite import SqliteState

MB = 1 << 20


def at(seconds: float, end: int, held: int, room: int | None) -> Sample:
    return Sample(seconds, end * MB, held * MB, None if room is None else room * MB)


@pytest.mark.parametrize(
    ("samples", "level", "seconds"),
    [
        # One look: only how much of the bound is used.
        ([at(0, 100, 49, 51)], "ok", None),
        ([at(0, 100, 50, 50)], "warn", None),
        ([at(0, 100, 80, 20)], "critical", None),
        ([at(0, 100, 100, -3)], "critical", None),
        # Nobody reads, and what is kept grows by 1 MB/s.
        ([at(0, 100, 0, 1000), at(100, 200, 100, 900)], "ok", 900),
        ([at(0, 100, 100, 900), at(100, 200, 200, 800)], "critical", 800),
        # The same so slowly that it takes hours, days.
        ([at(0, 100, 100, 900), at(1000, 200, 200, 800)], "warn", 8000),
        ([at(0, 100, 199, 801), at(1000, 101, 200, 800)], "ok", 800_000),
        # A busy server whose log is read in time.
        ([at(0, 0, 250, 750), at(100, 5000, 250, 750)], "ok", None),
        ([at(0, 0, 300, 700), at(100, 5000, 250, 750)], "ok", None),
        # Nothing bounds it.
        ([at(0, 0, 0, None), at(100, 500, 500, None)], "ok", None),
        ([at(0, 0, 0, None), at(100, 10_240, 10_240, None)], "warn", None),
        # Two looks too close to each other say nothing of a rate.
        ([at(0, 100, 100, 900), at(5, 200, 200, 800)], "ok", None),
        # A sample from before the server was restored, or the clock was set back.
        ([at(0, 900, 100, 900), at(100, 200, 200, 800)], "ok", None),
        ([at(500, 100, 100, 900), at(100, 200, 200, 800)], "ok", None),
    ],
)
def test_levels(samples: list[Sample], level: str, seconds: int | None) -> None:
    found = forecast(samples)
    assert (found.level, found.seconds) == (level, seconds)
    assert bool(found.says) == bool(found.hint) == (level != "ok")


def test_what_it_says() -> None:
    found = forecast([at(0, 100, 100, 900), at(100, 200, 200, 800)])
    assert found.says == (
        "the source keeps 200.0 MB of log for this pipeline, 20% of what it may, growing by 1.0 MB/s:"
        " used up in 13 min"
    )
    assert (found.written_per_second, found.growth_per_second) == (MB, MB)
    assert found.hint.startswith("headwater run")
    holding = forecast([at(0, 100, 90, 10)], release="select pg_terminate_backend(7);")
    assert holding.hint == "select pg_terminate_backend(7);"
    assert "source.wal_budget" in forecast([at(0, 0, 20_000, None)]).hint


def test_a_lost_place_is_critical_and_names_the_way_out() -> None:
    found = forecast([at(0, 100, 0, None)], lost=True)
    assert (found.level, "headwater run --full" in found.hint) == ("critical", True)


def test_the_rate_is_that_of_the_window() -> None:
    quiet = at(0, 100, 10, 990)
    burst = [at(WINDOW * 10, 200, 110, 890), at(WINDOW * 10 + 100, 400, 310, 690)]
    assert forecast([quiet, *burst]).growth_per_second == 2 * MB


@given(st.lists(st.tuples(st.floats(1, 600), st.integers(0, 100)), min_size=1, max_size=300))
def test_few_samples_are_kept_and_the_rate_stays_the_same(steps: list[tuple[float, int]]) -> None:
    now, end, every, kept = 0.0, 0, [], []
    for seconds, written in steps:
        now, end = now + seconds, end + written
        new = at(now, end, end, 1 << 20)
        every, kept = [*every, new], keep(kept, new)
    assert len(kept) <= 33
    assert kept[-1] == every[-1]
    whole, part = forecast(every).growth_per_second, forecast(kept).growth_per_second
    assert (whole is None) == (part is None)


class Says:
    """A source that says what the test wants."""

    def __init__(self, **facts: Any) -> None:
        self.said: Mapping[str, Any] = facts

    def facts(self) -> Mapping[str, Any]:
        return self.said


def test_the_guard_remembers_warns_and_reminds(tmp_path: Path) -> None:
    now, told = [0.0], list[tuple[str, dict[str, Any]]]()
    source = Says(log_end_bytes=0, retained_bytes=0, safe_wal_size=1000 * MB, wal_budget=500 * MB)

    state = SqliteState(tmp_path / "state.db")
    guard = LogGuard(
        cast(Source, source), state, "p", lambda kind, _, data: told.append((kind, dict(data))),
        clock=lambda: now[0],
    )  # fmt: skip
    first = guard.look().forecast
    assert first is not None and first.room_bytes == 500 * MB  # the nearer of the two
    now[0], source.said = 100.0, {**source.said, "log_end_bytes": 400 * MB, "retained_bytes": 400 * MB}
    assert (
        guard.look()
        .warnings[0]
        .endswith("try: headwater run   (reads it, so that the source may let go of it)")
    )
    now[0] += 10
    guard.look()
    assert [kind for kind, _ in told] == ["wal.forecast", "wal.forecast", "wal.warning", "wal.forecast"]
    assert told[1][1]["growth_per_second"] == 4 * MB
    now[0] += REMIND
    guard.look()
    assert told[-1][0] == "wal.warning"
    # Another process goes on from what this one saw.
    later = LogGuard(cast(Source, source), state, "p", clock=lambda: now[0] + 50).look()
    assert later.forecast is not None and later.forecast.growth_per_second is not None
    now[0], source.said = now[0] + 60, {**source.said, "retained_bytes": 10 * MB}
    assert guard.look().warnings == ()
    state.close()


def test_a_source_that_keeps_no_log_for_us(tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "state.db")
    for said in ({}, {"wal_status": "missing"}, {"log_end_bytes": 5, "retained_bytes": None}):
        assert LogGuard(cast(Source, Says(**said)), state, "p").look().forecast is None
    state.close()
