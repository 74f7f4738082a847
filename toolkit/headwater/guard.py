"""The guard of the source's log: asks what the source keeps for us, remembers, and tells what is coming."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass

from headwater import memo
from headwater.errors import Conflict, StorageError
from headwater.events import Value
from headwater.forecast import Forecast, Level, Sample, forecast, keep
from headwater.model import TableId
from headwater.sources import Source
from headwater.state import StateStore

#: Seconds after which a warning that still holds is told again.
REMIND = 300.0

Facts = Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Look:
    """What the source said, and the forecast from it; None when it keeps no log for us yet."""

    facts: Facts
    forecast: Forecast | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a run record says of it, with what to do."""
        found = self.forecast
        return (f"{found.says}; try: {found.hint}",) if found is not None and found.says else ()


class LogGuard:
    """Looks at the source's log now and then. The state keeps the samples; losing them is harmless."""

    def __init__(
        self,
        source: Source,
        state: StateStore,
        pipeline: str,
        tell: Callable[[str, TableId | None, Mapping[str, Value]], None] = lambda *_: None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source, self._state, self._pipeline = source, state, pipeline
        self._tell, self._clock = tell, clock
        self._warned: tuple[Level, float] = "ok", 0.0

    def look(self) -> Look:
        """Ask the source; tell `wal.forecast`, and `wal.warning` when there is cause. Raises SourceError."""
        facts = self._source.facts()
        end, held = facts.get("log_end_bytes"), facts.get("retained_bytes")
        lost = facts.get("wal_status") == "lost" or bool(facts.get("invalid"))
        if not isinstance(end, int) or not (isinstance(held, int) or lost):
            return Look(facts, None)
        samples = self._remember(Sample(self._clock(), end, int(held or 0), _room(facts)))
        found = forecast(samples, lost=lost, release=str(facts.get("release") or ""))
        self._report(found, samples[-1].at)
        return Look(facts, found)

    def _remember(self, new: Sample) -> Sequence[Sample]:
        known = [Sample(*row) for row in memo.load_samples(self._state, self._pipeline)]
        samples = keep(known, new)
        # Another process that looks at the same moment is as good a witness.
        with suppress(Conflict, StorageError):
            memo.save_samples(self._state, self._pipeline, [astuple(s) for s in samples])
        return samples

    def _report(self, found: Forecast, now: float) -> None:
        self._tell(
            "wal.forecast", None, {k: v for k, v in asdict(found).items() if k not in ("says", "hint")}
        )
        level, told = self._warned
        if found.level != "ok" and (found.level != level or now - told >= REMIND):
            self._tell("wal.warning", None, {"level": found.level, "says": found.says, "hint": found.hint})
            told = now
        self._warned = found.level, told


def _room(facts: Facts) -> int | None:
    """What may still be written: to the server's own bound or to the user's budget, whichever is nearer."""
    safe, budget, held = (facts.get(name) for name in ("safe_wal_size", "wal_budget", "retained_bytes"))
    rooms = [safe] if isinstance(safe, int) else []
    if isinstance(budget, int) and isinstance(held, int):
        rooms.append(budget - held)
    return min(rooms, default=None)
