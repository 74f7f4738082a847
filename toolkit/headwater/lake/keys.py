"""A set of keys to look for in lake files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys in a DuckDB relation of columns `_hw_k0`, `_hw_k1`, ..., and what makes them of a lake row.

    column   the column that `_hw_k0` is, and its type: bounds of files are kept for it
    """

    relation: str
    parts: Sequence[str]  # SQL over a lake row, one for each `_hw_k`
    column: str
    kind: pa.DataType

    @property
    def names(self) -> list[str]:
        """The columns of the relation."""
        return [f"_hw_k{n}" for n in range(len(self.parts))]

    @property
    def named(self) -> str:
        """The parts under their names."""
        return ", ".join(f"{part} AS _hw_k{n}" for n, part in enumerate(self.parts))

    def same(self, one: str, other: str) -> str:
        """The join condition that two aliases speak of the same row."""
        return " AND ".join(f"{one}.{n} IS NOT DISTINCT FROM {other}.{n}" for n in self.names)

    def like(self, relation: str) -> Keys:
        """The same of another relation."""
        return replace(self, relation=relation)
