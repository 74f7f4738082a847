"""What the last attempt left undone: kept in the pipeline's state, which may be lost without losing data.

Written by who holds the pipeline only: from the first event of a run on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from headwater.errors import HeadwaterError
from headwater.model import TableId
from headwater.printable import printable
from headwater.state import StateStore

#: A full load that failed longer ago is begun anew: what it had read is no longer what was asked for.
_CONTINUES = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Left:
    """An attempt that did not come to its end. `step` is where it was; an empty `error` means killed."""

    run_id: str
    step: str
    error: str
    attempts: int

    def line(self) -> str:
        """For a person."""
        how = (
            f"failed in {self.step}: {printable(self.error)}" if self.error else f"was killed in {self.step}"
        )
        return f"goes on with run {self.run_id}, which {how}"

    def had_done(self, step: str, steps: Sequence[str]) -> bool:
        """Whether a step was over when the attempt ended."""
        return step in steps and self.step in steps and steps.index(step) < steps.index(self.step)


class Journal:
    """The journal of one mode over the same tables; `asked` is what a full load was asked to read."""

    def __init__(self, store: StateStore, pipeline: str, mode: str, patterns: Sequence[str]) -> None:
        self._store, self._key, self._patterns = store, f"{pipeline}/schedule/{mode}", list(patterns)
        self._noted: dict[str, Any] | None = None
        self.left: Left | None = None
        self.asked: Mapping[TableId, int] = {}
        self._began_at = datetime.now(UTC).isoformat()
        saved = store.load(self._key)
        found = saved.value if saved else {}
        if found.get("open") and found.get("tables") == self._patterns:
            self.left = Left(found["run_id"], found["step"], found["error"], found["attempts"])
            if datetime.now(UTC) - datetime.fromisoformat(found["began_at"]) < _CONTINUES:
                self._began_at = found["began_at"]
                self.asked = {TableId(namespace, name): n for namespace, name, n in found["asked"]}

    def note(self, step: str, run_id: str) -> None:
        """A run of ours enters a step."""
        self._noted = {
            "open": True,
            "run_id": run_id,
            "step": step,
            "error": "",
            "tables": self._patterns,
            "asked": [[t.namespace, t.name, epoch] for t, epoch in self.asked.items()],
            "began_at": self._began_at,
            "attempts": 1 + (self.left.attempts if self.left else 0),
        }
        self._save()

    def fail(self, step: str, failed: BaseException) -> None:
        """The attempt ends here."""
        if self._noted is not None:
            self._noted |= {"step": step, "error": str(failed) or type(failed).__name__}
            self._save()

    def close(self) -> None:
        """Nothing is left."""
        if self._noted is not None:
            self._noted |= {"open": False, "asked": []}
            self._save()

    def _save(self) -> None:
        # Without it the next attempt has more to look at, and nothing else: no reason to stop this one.
        with suppress(HeadwaterError):
            saved = self._store.load(self._key)
            self._store.save(self._key, self._noted or {}, expect=saved.version if saved else 0)
