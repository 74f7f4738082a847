"""Quality: is the data right? Great Expectations judges what runs bring and whole tables; docs/quality.md.

Rules come from the schema, from the source's foreign keys, from what was seen before, and from the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from headwater.config import Gate, Severity
from headwater.model import TableId

__all__ = ["Check", "Outcome", "QualityResult", "TableResult", "Verdict"]

Outcome = Literal["passed", "failed", "unjudged", "skipped"]
Verdict = Literal["ok", "warn", "failed"]
Origin = Literal["schema", "source", "observed", "limit", "user"]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, judged. No cell value is in it, but the keys of rows where these are not masked.

    rule        an expectation by Great Expectations' name, or one of ours: `references`, `freshness`, ...
    says        what is wanted, in a sentence
    outcome     `unjudged`: an error kept it from being judged, which counts as failed
    unexpected  rows (groups, for uniqueness) that are not as wanted, out of `rows`
    why         the error, or why it was skipped
    """

    rule: str
    columns: tuple[str, ...]
    origin: Origin
    severity: Severity
    says: str
    outcome: Outcome = "passed"
    rows: int = 0
    unexpected: int = 0
    keys: tuple[str, ...] = ()
    why: str = ""

    @property
    def wrong(self) -> bool:
        """Whether it is not as wanted, or could not be judged."""
        return self.outcome in ("failed", "unjudged")

    @property
    def fails(self) -> bool:
        """Whether the table fails by it."""
        return self.wrong and self.severity == "critical"

    @property
    def holds(self) -> bool:
        """Whether a handoff waits for it: one held back for its age would only grow older."""
        return self.fails and self.rule != "freshness"


@dataclass(frozen=True, slots=True)
class TableResult:
    """One table, judged: what a run brought (`batch`), or all of it (`table`); `rows` of them."""

    table: TableId
    gate: Gate
    scope: Literal["batch", "table"]
    rows: int
    checks: tuple[Check, ...]
    held: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """How many critical rules failed."""
        return sum(check.fails for check in self.checks)

    @property
    def warned(self) -> int:
        """How many others did."""
        return sum(check.wrong and not check.fails for check in self.checks)

    @property
    def verdict(self) -> Verdict:
        """The worst of its checks."""
        return "failed" if self.failed else "warn" if self.warned else "ok"


@dataclass(frozen=True, slots=True)
class QualityResult:
    """What was judged at one time; `page` is where the report for people is."""

    run_id: str
    pipeline: str
    at: datetime
    tables: tuple[TableResult, ...] = ()
    page: str = field(default="", compare=False)

    @property
    def verdict(self) -> Verdict:
        """The worst of its tables."""
        verdicts = {table.verdict for table in self.tables}
        return next((v for v in _WORST if v in verdicts), "ok")

    @property
    def failed(self) -> int:
        """How many critical rules failed."""
        return sum(table.failed for table in self.tables)

    @property
    def warned(self) -> int:
        """How many others did."""
        return sum(table.warned for table in self.tables)

    @property
    def checks(self) -> int:
        """How many rules there were."""
        return sum(len(table.checks) for table in self.tables)

    @property
    def held(self) -> tuple[TableId, ...]:
        """The tables whose handoff is held back."""
        return tuple(table.table for table in self.tables if table.held)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `--json` prints and the store keeps them."""
        tables = [
            {
                **asdict(t),
                "table": [t.table.namespace, t.table.name],
                "verdict": t.verdict,
                "failed": t.failed,
                "warned": t.warned,
            }
            for t in self.tables
        ]
        about = {"run_id": self.run_id, "pipeline": self.pipeline, "at": self.at.isoformat()}
        return {**about, "verdict": self.verdict, "page": self.page, "tables": tables}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> QualityResult:
        """Read back what `to_json` gave."""
        tables = tuple(_table(t) for t in doc["tables"])
        at = datetime.fromisoformat(doc["at"])
        return cls(doc["run_id"], doc["pipeline"], at, tables, doc.get("page", ""))


_WORST: Sequence[Verdict] = ("failed", "warn")


def _table(doc: Mapping[str, Any]) -> TableResult:
    checks = tuple(
        Check(**{**check, "columns": tuple(check["columns"]), "keys": tuple(check["keys"])})
        for check in doc["checks"]
    )
    rest = {name: doc[name] for name in ("gate", "scope", "rows", "held", "seconds")}
    return TableResult(table=TableId(*doc["table"]), checks=checks, **rest)
