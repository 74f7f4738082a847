"""The StateStore protocol: a key-value store with compare-and-set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Saved:
    """A value as it was stored (JSON, whatever `save` was given), and the version to name to replace it."""

    value: Mapping[str, Any]
    version: int


class StateStore(Protocol):
    """A key-value store with compare-and-set. Safe to use from threads; values are JSON objects.

    Errors are `StorageError`s, and `Conflict` where two writers met.
    """

    @property
    def warnings(self) -> Sequence[str]:
        """What was wrong with the store itself and was got over, one line each; run records carry them."""
        ...

    def load(self, key: str) -> Saved | None:
        """The value under a key; None when there is none."""
        ...

    def save(self, key: str, value: Mapping[str, Any], *, expect: int) -> Saved:
        """Replace version `expect` (0: nothing there), or raise Conflict and leave everything as it was.

        Versions of a key grow by one; they start again after the key was dropped.
        """
        ...

    def keys(self, prefix: str, *, last: int | None = None) -> Sequence[str]:
        """Keys that start with a prefix, in code point order; with `last`, only so many from the end."""
        ...

    def drop(self, key: str) -> None:
        """Forget a key; one that is gone already is fine."""
        ...

    def close(self) -> None:
        """Let go of the store; twice is fine."""
        ...
