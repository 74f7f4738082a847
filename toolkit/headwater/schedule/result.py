"""The result of a scheduled run: a JSON document, and the same for a person."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from headwater.errors import HeadwaterError, StorageError
from headwater.printable import printable
from headwater.schedule.journal import Left
from headwater.schedule.watch import Watch

#: Grows when a reader of the document has to learn something.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `did` is ran | already done | nothing to do | failed | not reached.

    already done  by the attempt before, and nothing was left to do
    """

    step: str
    did: str
    seconds: float
    says: str = ""


@dataclass(slots=True)
class Result:
    """What came of one attempt; `check` raises why it failed."""

    file: str
    mode: str
    patterns: Sequence[str]
    path: Path
    pipeline: str = ""
    outcome: Literal["running", "done", "failed"] = "running"
    steps: Sequence[str] = ()
    did: Sequence[Step] = ()
    failed: HeadwaterError | None = None
    failed_step: str = "start"
    resumes: Left | None = None
    read_before: int = 0
    rows: int = 0
    record: Mapping[str, object] = field(default_factory=dict)
    report: Mapping[str, object] | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None

    @property
    def seconds(self) -> float:
        """How long it took, so far."""
        return ((self.ended_at or datetime.now(UTC)) - self.started_at).total_seconds()

    def check(self) -> None:
        """Raise the error that the attempt ended with, if it did."""
        if self.failed is not None:
            if self.failed.hint and not getattr(self.failed, "__notes__", []):
                self.failed.add_note(f"try: {self.failed.hint}")
            # Without what led to it: a notebook that nobody watched is read from its last line.
            raise self.failed.with_traceback(None) from None

    def fail(self, failed: BaseException) -> None:
        """Note what ended the attempt."""
        self.failed = _explain(failed)

    def end(self, watch: Watch) -> None:
        """The attempt is over; `watch` saw it."""
        watch.stop()
        self.rows = watch.rows
        self.ended_at = datetime.now(UTC)
        self.outcome = "failed" if self.failed else "done"
        self.did = [
            Step(name, self._did(name, watch), round(watch.seconds[name], 3), self._says(name, watch))
            for name in self.steps
        ]

    def line(self) -> str:
        """The last line of the log."""
        told = [f"{s.step} {s.did}" + (f" ({s.says})" if s.says else "") for s in self.did]
        if self.failed is None:
            return f"{self.pipeline}: done in {self.seconds:.1f} s: {', '.join(told)}"
        hint = f"; try: {printable(self.failed.hint)}" if self.failed.hint else ""
        where = f"failed in {self.failed_step} after {self.seconds:.1f} s"
        return f"{self.pipeline or printable(self.file)}: {where}: {printable(str(self.failed))}{hint}"

    def to_json(self) -> dict[str, object]:
        """The document (docs/scheduling.md)."""
        record = self.record
        return {
            "version": VERSION,
            "outcome": self.outcome,
            "pipeline": self.pipeline,
            "file": self.file,
            "mode": self.mode,
            "patterns": list(self.patterns),
            "run_id": record.get("run_id", ""),
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "seconds": round(self.seconds, 3) if self.ended_at else None,
            "resumes": asdict(self.resumes) if self.resumes else None,
            "tables_begun_before": self.read_before,
            "steps": [asdict(step) for step in self.did],
            "error": self._error(),
            **{name: record.get(name) for name in ("from_position", "to_position", "source_head")},
            "behind_bytes": record.get("behind_bytes"),
            "rows_read": self.rows,
            "entries": record.get("entries", 0),
            "tables": record.get("tables", {}),
            "models_built": record.get("models_built", 0),
            "tests_passed": record.get("tests_passed", 0),
            "warnings": record.get("warnings", []),
            "report": self.report,
        }

    def write(self) -> None:
        """Replace the file as a whole; raises StorageError."""
        place = self.path.absolute()
        part = place.with_name(f".{place.name}.{os.getpid()}")  # two attempts may be told the same place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with part.open("w", encoding="utf-8") as file:
                json.dump(self.to_json(), file, indent=2, default=str)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(place)
        except OSError as failed:
            raise StorageError(
                f"the result cannot be written to {place}: {failed.strerror}",
                hint="name another file: -p result PATH",
            ) from None

    def _did(self, name: str, watch: Watch) -> str:
        if self.failed and name == self.failed_step:
            return "failed"
        if name in watch.worked:
            return "ran"
        if self.failed and self._is_behind(name):
            return "not reached"
        left = self.resumes
        return "already done" if left and left.had_done(name, self.steps) else "nothing to do"

    def _is_behind(self, name: str) -> bool:
        if self.failed_step not in self.steps:
            return True
        return self.steps.index(name) > self.steps.index(self.failed_step)

    def _says(self, name: str, watch: Watch) -> str:
        tables = self.record.get("tables")
        if name == "capture" and self.rows:
            return f"{self.rows:,} rows"
        if name == "fold" and "fold" in watch.worked and isinstance(tables, Mapping):
            counts = {k: sum(t[k] for t in tables.values()) for k in ("inserted", "updated", "deleted")}
            return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        if name == "build" and self.record.get("models_built"):
            return f"{self.record['models_built']:,} models, {self.record['tests_passed']:,} tests passed"
        return ""

    def _error(self) -> Mapping[str, str] | None:
        if self.failed is None:
            return None
        kind = type(self.failed).__name__
        return {"step": self.failed_step, "kind": kind, "message": str(self.failed), "hint": self.failed.hint}


def _explain(failed: BaseException) -> HeadwaterError:
    """An error as it is told."""
    if isinstance(failed, HeadwaterError):
        return failed
    if isinstance(failed, KeyboardInterrupt):
        return HeadwaterError("stopped; nothing is lost", hint="run it again: it goes on from the last entry")
    return HeadwaterError(
        f"this is a bug in headwater: {type(failed).__name__}: {failed}",
        hint="headwater run --debug   (shows where)",
    )
