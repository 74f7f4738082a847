"""What a run has done so far; becomes its record."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from headwater.capture import Captured
from headwater.config import quote_table
from headwater.errors import HeadwaterError
from headwater.handoff.build import BuildResult
from headwater.model import Entry, Position, TableId
from headwater.quality import QualityResult
from headwater.state import QualityCount, RunRecord, TableCount

_SUMMED = ("tables", "expectations", "failed", "warned", "seconds")


def count_judged(result: QualityResult) -> QualityCount:
    """A judgement in a few figures."""
    seconds = round(sum(t.seconds for t in result.tables), 3)
    held = tuple(map(str, result.held))
    return QualityCount(len(result.tables), result.checks, result.failed, result.warned, seconds, held)


@dataclass(slots=True)
class Tally:
    """Counts, positions and notes of one run, or of one round of a follower."""

    mode: str
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    since: Position | None = None
    reached: Position | None = None
    entries: int = 0
    counts: dict[TableId, Counter[str]] = field(default_factory=dict)
    models: int = 0
    tests: int = 0
    built: dict[TableId, tuple[int, int]] = field(default_factory=dict)
    lake: str = ""
    notes: list[str] = field(default_factory=list)
    quality: QualityCount | None = None
    failed: HeadwaterError | None = None  # the first error that the run outlived

    @property
    def empty(self) -> bool:
        """Whether there is nothing to record."""
        return not (self.entries or self.counts or self.models or self.notes or self.quality or self.failed)

    def add_captured(self, done: Captured) -> None:
        """Count what a capture step logged."""
        self.since = self.since or done.since
        self.reached = done.reached
        self.entries += done.entries
        self.add_gap(done)
        for table, rows in done.rows.items():
            self.count(table)["rows_in"] += rows

    def add_gap(self, done: Captured) -> None:
        """Note that changes before a load are not in the log."""
        if done.gap:
            self.notes.append(f"changes are missing from the log, what they did was read: {done.gap}")

    def add_entry(self, entry: Entry, since: Position | None) -> None:
        """Count what an entry brought that somebody else logged; `since` is where the one before it ends."""
        self.since = self.since or since
        self.reached = entry.position
        self.entries += 1
        for ref in entry.batches:
            self.count(ref.table)["rows_in"] += ref.rows

    def add_built(self, done: BuildResult, lake: str, spans: Mapping[TableId, tuple[int, int]]) -> None:
        """Count what dbt built: `spans` says behind which entry of the lake's log, and up to which."""
        self.models += len(done.models)
        self.tests += done.tests_passed
        self._add_spans(lake, spans)

    def _add_spans(self, lake: str, spans: Mapping[TableId, tuple[int, int]]) -> None:
        self.lake = lake or self.lake
        for table, (after, upto) in spans.items():
            known = self.built.get(table, (after, upto))
            self.built[table] = min(after, known[0]), max(upto, known[1])

    def add_judged(self, result: QualityResult) -> None:
        """Count what was judged."""
        self._add_quality(count_judged(result))
        self.notes += [
            f"{t.table}: {t.failed} of {len(t.checks)} rules failed; "
            f"try: headwater quality {quote_table(t.table)}"
            for t in result.tables
            if t.failed and not t.held
        ]

    def _add_quality(self, more: QualityCount | None) -> None:
        if self.quality is None or more is None:
            self.quality = self.quality or more
            return
        sums = {name: getattr(self.quality, name) + getattr(more, name) for name in _SUMMED}
        self.quality = QualityCount(**sums, held=more.held)

    def add(self, part: Tally) -> None:
        """Take in what a later step of the same round did."""
        self.since, self.reached = self.since or part.since, part.reached or self.reached
        self.entries += part.entries
        for table, counts in part.counts.items():
            self.count(table).update(counts)
        self.models, self.tests = self.models + part.models, self.tests + part.tests
        self._add_spans(part.lake, part.built)
        self.notes += part.notes
        self._add_quality(part.quality)
        if self.failed and part.failed and str(self.failed) != str(part.failed):
            self.notes.append(f"failed too: {part.failed}; try: {part.failed.hint}")
        self.failed = self.failed or part.failed

    def count(self, table: TableId) -> Counter[str]:
        """The counters of one table."""
        return self.counts.setdefault(table, Counter())

    def record(
        self,
        pipeline: str,
        show: Callable[[Position], str],
        head: str,
        behind: int | None,
        warnings: Sequence[str] = (),
    ) -> RunRecord:
        """The record: a failed one if an error was met. `head` and `behind` are what the source last said."""
        failed = self.failed
        return RunRecord(
            run_id=self.run_id,
            pipeline=pipeline,
            mode=self.mode,
            started_at=self.started_at,
            ended_at=datetime.now(UTC),
            outcome="failed" if failed else "done",
            from_position=show(self.since) if self.since else "",
            to_position=show(self.reached) if self.reached else "",
            source_head=head,
            behind_bytes=behind,
            entries=self.entries,
            tables={str(t): TableCount(**counts) for t, counts in self.counts.items()},
            models_built=self.models,
            tests_passed=self.tests,
            error=str(failed) if failed else "",
            hint=failed.hint if failed else "",
            warnings=(*self.notes, *warnings),
            built={str(t): span for t, span in self.built.items()},
            lake=self.lake,
            quality=self.quality,
        )
