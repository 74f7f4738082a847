"""Events: what a run tells those who watch. A sink is any callable; one small file for each kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headwater.model import TableId

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    kind: str
    pipeline: str
    table: TableId | None = None
    data: Mapping[str, Value] = field(default_factory=dict)


Sink = Callable[[Event], None]


def tell(sinks: Sequence[Sink], event: Event) -> None:
    """Pass an event to every sink; one that fails is named on stderr and never stops the run."""
    for sink in sinks:
        try:
            sink(event)
        except Exception as failed:  # noqa: BLE001  the one place where a failure is only reported
            print(f"headwater: event sink {sink!r} failed: {type(failed).__name__}", file=sys.stderr)
