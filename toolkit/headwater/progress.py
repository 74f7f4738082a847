"""How far a full load is: events for whoever watches, with figures a person can plan by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

from headwater.model import BatchRef, TableId, TableInfo

Tell = Callable[[str, TableId | None, Mapping[str, int]], None]

#: Seconds between two events about the whole load: among 10,000 small tables nobody could read more.
_PAUSE = 0.2


class Progress:
    """Counts what a load brings. Totals are the source's estimates."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._totals: dict[TableId, int] = {}
        self._rows: Counter[TableId] = Counter()
        self._bytes: Counter[TableId] = Counter()
        self._began: dict[TableId, float] = {}
        self._ended = 0
        self._start = self._told = monotonic()

    def expect(self, tables: Iterable[TableInfo]) -> None:
        """Take in the tables that are to be read."""
        for info in tables:
            self._totals.setdefault(info.schema.table, info.rows or 0)

    def add(self, ref: BatchRef) -> None:
        """Count a batch, and tell."""
        table, now = ref.table, monotonic()
        began = self._began.setdefault(table, now)
        self._rows[table] += ref.rows
        self._bytes[table] += ref.bytes
        figures = _figures(self._rows[table], self._totals[table], self._bytes[table], now - began)
        self._tell("table.loading", table, figures)
        if ref.phase == "snapshot_end":
            self._ended += 1
            self._tell("table.loaded", table, {"rows": self._rows[table], "bytes": self._bytes[table]})
        if now - self._told >= _PAUSE:
            self._told = now
            whole = _figures(
                self._rows.total(), sum(self._totals.values()), self._bytes.total(), now - self._start
            )
            tables = {"tables": len(self._totals), "loaded": self._ended}
            self._tell("load.progress", None, {**whole, **tables})


def _figures(rows: int, total: int, size: int, seconds: float) -> dict[str, int]:
    """`eta` in seconds, where it can be told."""
    figures = {"rows": rows, "total": total, "bytes": size}
    if rows and total > rows and seconds > 0:
        figures["eta"] = round(seconds * (total - rows) / rows)
    return figures
