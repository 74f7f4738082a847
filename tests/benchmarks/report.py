"""Rows, and where they go: the terminal, build/bench.json, docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Sample

#: What issue 3 asks for: name -> (relation, ratio). The others only inform.
TARGETS: dict[str, tuple[str, float]] = {
    "cdc_insert": (">=", 0.9),
    "cdc_mixed_default": (">=", 0.8),
    "cdc_mixed_full": (">=", 0.8),
    "cdc_debezium": (">=", 10.0),
    "full_copy": (">=", 0.8),
    "full_peer": (">=", 1.0),
    "fold_sql": (">=", 0.75),
    "fold_deltalake": (">=", 1.0),
    "fold_random": ("<=", 0.02),
    "fold_random_read": ("<=", 1.5),
    "history_growth": ("<=", 1.3),
    "memory_transaction": ("<=", 1.0),
    "memory_snapshot": ("<=", 1.0),
    "freshness_p50": ("<=", 1.0),
    "freshness_p99": ("<=", 1.0),
    "idle_run": ("<=", 1.0),
}
_COLUMNS = ("name", "value", "unit", "spread", "against", "ratio", "target", "CPU s", "peak MiB")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    value, cpu_s, peak_mb   medians over the runs (peak: the highest)
    ratio                   the median of the ratios within each round; None where there is nothing beside it
    spread                  (largest - smallest) / median of the value over the runs
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    spread: float = 0.0
    runs: list[float] = field(default_factory=list)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.name not in TARGETS or self.ratio is None:
            return None
        relation, wanted = TARGETS[self.name]
        return self.ratio >= wanted if relation == ">=" else self.ratio <= wanted


def make_row(
    name: str,
    samples: Sequence[Sample],
    unit: str,
    value: Callable[[Sample], float],
    against: str = "",
    ratios: Sequence[float] = (),
) -> Row:
    """A row from the runs of a job; `ratios` has one for each round."""
    runs = [value(s) for s in samples]
    middle = median(runs)
    return Row(
        name, middle, unit, against, median(ratios) if ratios else None,
        median(s.cpu_s for s in samples), max(s.peak_mb for s in samples),
        (max(runs) - min(runs)) / middle if middle else 0.0, runs,
    )  # fmt: skip


def pairwise(ours: Sequence[Sample], other: Sequence[Sample], of: Callable[[Sample], float]) -> list[float]:
    """`of(ours) / of(other)`, round by round."""
    return [of(a) / of(b) for a, b in zip(ours, other, strict=True)]


def seconds(sample: Sample) -> float:
    return sample.seconds


def cpu(sample: Sample) -> float:
    return sample.cpu_s


def per_second(count: int) -> Callable[[Sample], float]:
    """How many of `count` things a sample did in a second."""
    return lambda sample: count / sample.seconds


@dataclass(slots=True)
class Report:
    """All of one run."""

    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    profiles: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """bench.json, in the form that issue 3 gives, and bench-runs.json with everything else beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        shown = [
            {n: getattr(r, n) for n in ("name", "value", "unit", "against", "ratio", "cpu_s", "peak_mb")}
            for r in self.rows
        ]
        (folder / "bench.json").write_text(json.dumps(shown, indent=1) + "\n")
        (folder / "bench-runs.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Report:
        """What `save` wrote."""
        doc = json.loads((folder / "bench-runs.json").read_text())
        return cls(doc["facts"], [Row(**row) for row in doc["rows"]], doc["notes"], doc["profiles"])


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    return {
        "machine": f"{os.cpu_count()} cores ({cpus[0] if cpus else platform.machine()}), {memory} GiB",
        "system": f"Linux {platform.release()}, Python {platform.python_version()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The cells of the table, heads first."""
    return [list(_COLUMNS), *map(_cells, rows)]


def _cells(row: Row) -> list[str]:
    relation, wanted = TARGETS.get(row.name, ("", 0.0))
    verdict = {True: "met", False: "NOT met", None: ""}[row.met]
    return [
        row.name, _figure(row.value), row.unit, f"{row.spread:.0%}", row.against,
        "" if row.ratio is None else f"{row.ratio:.3g}",
        f"{relation} {wanted:g} {verdict}".strip() if relation else "",
        f"{row.cpu_s:.2f}", f"{row.peak_mb:.0f}",
    ]  # fmt: skip


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    cells = table(rows)
    widths = [max(len(line[n]) for line in cells) for n in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def markdown(report: Report) -> str:
    """The generated part of docs/performance.md."""
    head, *rest = table(report.rows)
    named = [f"{name}: {value}" for name, value in report.facts.items()]
    lines = [*(f"- {line}" for line in [*named, *report.notes]), ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join([f'`{name}`', *cells])} |" for name, *cells in rest]
    for name, shares in report.profiles.items():
        lines += ["", f"### {name}", "", "| thread | function | share of wall time |", "|---|---|---|"]
        lines += [f"| {s['thread']} | `{s['function']}`{_waits(s)} | {s['share']:.0%} |" for s in shares[:12]]
    return "\n".join(lines) + "\n"


def _waits(share: dict[str, Any]) -> str:
    return " (waits)" if share["waits"] else ""


BEGIN, END = "<!-- figures: begin (written by make bench) -->\n", "<!-- figures: end -->"


def write_page(report: Report, page: Path) -> None:
    """Put the figures between the page's markers."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: the markers for the figures are gone")
    page.write_text(f"{before}{BEGIN}\n{markdown(report)}\n{END}{after}")
