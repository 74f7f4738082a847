"""Where a pipeline stands right now, cheap enough to ask every second, also while another process runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from headwater.deliver import Parts
from headwater.errors import SourceError
from headwater.forecast import Forecast
from headwater.guard import LogGuard, Look
from headwater.state import RunRecord, holder, last_runs

#: Runs that do not read the source.
_UNREAD = ("build", "retry", "drop")


@dataclass(frozen=True, slots=True)
class Pulse:
    """`behind_bytes` and `wal` are None where the source cannot be asked, which `source_error` then says.

    behind_bytes  source log from the last entry to the head
    read_until    all that was committed until then is in the raw log, by the run records; None: no run yet
    """

    position: str
    entries: int
    behind_bytes: int | None
    wal: Forecast | None
    source_error: str
    read_until: datetime | None
    runs: Sequence[RunRecord]
    holder: str


def take_pulse(parts: Parts, runs: int = 20) -> Pulse:
    """Ask source, raw log and state; `runs` is how many records to look back."""
    name, last = parts.config.name, parts.log.last()
    look, behind, failed = Look({}, None), None, ""
    try:
        look = LogGuard(parts.look, parts.state, name).look()
        behind = parts.look.behind(last.position) if last else None
    except SourceError as away:
        failed = str(away)
    records = last_runs(parts.state, name, runs)
    return Pulse(
        position=parts.look.show(last.position) if last else "",
        entries=last.seq + 1 if last else 0,
        behind_bytes=behind,
        wal=look.forecast,
        source_error=failed,
        read_until=next(
            (r.started_at for r in records if r.outcome == "done" and r.mode not in _UNREAD), None
        ),
        runs=records,
        holder=holder(parts.state, name),
    )
