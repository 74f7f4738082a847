"""State: small facts that are nice to keep - run records, leases, memos of what may be skipped.

Never a position: positions commit with the data they describe. Losing the state loses run records, not data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from headwater.config import Config
from headwater.errors import Conflict
from headwater.state.lease import Hold, Owner, hold, holder
from headwater.state.store import Saved, StateStore

__all__ = [
    "Hold",
    "Owner",
    "QualityCount",
    "RunRecord",
    "Saved",
    "StateStore",
    "TableCount",
    "append_run",
    "default_path",
    "hold",
    "holder",
    "last_runs",
]

#: Run records kept for each pipeline; the oldest goes when a new one comes.
KEEP_RUNS = 1000


@dataclass(frozen=True, slots=True)
class TableCount:
    """Rows of one table in one run: into the raw log, and what they did to the lake.

    parked, nulled   rows set aside, and rows that came in with NULL, because a value did not fit its cast
    """

    rows_in: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    versions: int = 0
    parked: int = 0
    nulled: int = 0


@dataclass(frozen=True, slots=True)
class QualityCount:
    """What a run judged: tables, expectations, how many of them failed (critical) or warned, and how long.

    held  the tables whose handoff is held back
    """

    tables: int = 0
    expectations: int = 0
    failed: int = 0
    warned: int = 0
    seconds: float = 0.0
    held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What one run did. Positions are printable; `behind_bytes` is None where the source was not asked.

    built   of each table with news for the warehouse, behind which entry of the raw log the build began, and
            which entry it reached
    lake    the id of the lake whose entries these are
    """

    run_id: str
    pipeline: str
    mode: str
    started_at: datetime
    ended_at: datetime
    outcome: Literal["done", "failed"]
    from_position: str = ""
    to_position: str = ""
    source_head: str = ""
    behind_bytes: int | None = None
    entries: int = 0
    tables: Mapping[str, TableCount] = field(default_factory=dict)
    models_built: int = 0
    tests_passed: int = 0
    error: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()
    built: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lake: str = ""
    quality: QualityCount | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended_at - self.started_at).total_seconds()

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `--json` prints and the state keeps them."""
        moments = {"started_at": self.started_at.isoformat(), "ended_at": self.ended_at.isoformat()}
        return {**asdict(self), **moments, "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> RunRecord:
        """Read back what `to_json` gave; fields of a newer version are left out."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in doc.items() if k in known}
        values["started_at"] = datetime.fromisoformat(doc["started_at"])
        values["ended_at"] = datetime.fromisoformat(doc["ended_at"])
        values["tables"] = {name: TableCount(**count) for name, count in doc["tables"].items()}
        values["warnings"] = tuple(doc["warnings"])
        values["built"] = {name: (span[0], span[1]) for name, span in doc.get("built", {}).items()}
        if judged := doc.get("quality"):
            values["quality"] = QualityCount(**{**judged, "held": tuple(judged["held"])})
        return cls(**values)


def append_run(store: StateStore, record: RunRecord, *, keep: int = KEEP_RUNS) -> None:
    """Add a record behind the others of its pipeline, and drop the oldest beyond `keep`."""
    prefix = f"{record.pipeline}/runs/"
    while True:
        newest = store.keys(prefix, last=1)
        number = int(newest[0].removeprefix(prefix)) + 1 if newest else 1
        try:
            store.save(f"{prefix}{number:012}", record.to_json(), expect=0)
        except Conflict:
            continue  # another process took this number: the next one is free
        if number > keep:
            store.drop(f"{prefix}{number - keep:012}")
        return


def last_runs(store: StateStore, pipeline: str, n: int = 1) -> list[RunRecord]:
    """The newest `n` records of a pipeline, the newest first."""
    found = [store.load(key) for key in store.keys(f"{pipeline}/runs/", last=n)]
    return [RunRecord.from_json(saved.value) for saved in reversed(found) if saved is not None]


def default_path(config: Config) -> Path:
    """Where the state lives when `state:` does not say: in a local store, else under the user's home."""
    if "://" not in config.store:
        return Path(config.store) / "state" / "headwater.db"
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    digest = hashlib.sha256(config.store.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return home / "headwater" / f"{config.name}-{digest}.db"
