"""docs/from-bryteflow.md from tests/cases/from_bryteflow.yml: what each option of BryteFlow Ingest is here.

While a field, command or event that a row speaks of does not exist, the page says so instead: it promises
nothing, and needs no edit on the day that it is there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Option:
    """One option of the guide, and what to write or to know here instead."""

    called: str
    here: str
    needs: tuple[str, ...] = ()
    missing: str = "Not there yet."

    def says(self, known: Collection[str]) -> str:
        """What is true, given the fields, commands and events there are."""
        return self.here if set(self.needs) <= set(known) else self.missing

    def settings(self) -> set[str]:
        """The code spans of `here` that are lines of a pipeline file."""
        return {s for s in re.findall(r"`([^`]+)`", self.here) if re.fullmatch(r"[a-z_]+: .*", s)}


def groups() -> dict[str, list[Option]]:
    """All options by their group."""
    doc = yaml.safe_load((Path(__file__).parents[1] / "cases" / "from_bryteflow.yml").read_text())
    return {
        title: [Option(**{**row, "needs": tuple(row.get("needs", ()))}) for row in rows]
        for title, rows in doc.items()
    }


def bryteflow_tables(known: Collection[str]) -> str:
    """All groups as tables."""
    return "\n\n".join("\n".join(_table(title, rows, known)) for title, rows in groups().items())


def _table(title: str, rows: list[Option], known: Collection[str]) -> Iterator[str]:
    yield from (f"## {title}", "", "| in BryteFlow Ingest | here |", "|---|---|")
    yield from (f"| {row.called} | {row.says(known)} |" for row in rows)
