"""Peak memory of a huge transaction and of a huge table: captured, then folded, in processes of their own."""

from __future__ import annotations

import shutil

from benchmarks import measure
from benchmarks.bench import Bench
from benchmarks.cdc import PUBLICATION, make_content
from benchmarks.full import make_table
from benchmarks.measure import Sample
from benchmarks.report import Row

#: Rows by default, and with --full: the documented figure.
TRANSACTION, FULL_TRANSACTION = 1_000_000, 10_000_000
SNAPSHOT, FULL_SNAPSHOT = 3_000_000, 100_000_000
LIMIT_MB = 1024


def run(bench: Bench) -> None:
    """The rows memory_*; each once: a peak has no noise worth three times as long a run."""
    _transaction(bench, FULL_TRANSACTION if bench.full else bench.rows(TRANSACTION))
    _snapshot(bench, FULL_SNAPSHOT if bench.full else bench.rows(SNAPSHOT))


def _transaction(bench: Bench, rows: int) -> None:
    with make_content(bench, "memory_tx", f"call big_work({rows}, null)") as content:
        captured = content.ours("drain")
        folded = measure.run("ours:fold", store=str(content.fresh), table=("public", "orders"), compact=True)
    _add(bench, "memory_transaction", rows, captured, folded)


def _snapshot(bench: Bench, rows: int) -> None:
    store = bench.folder / "memory_table"
    with make_table(bench, "memory_table", rows) as url:
        captured = measure.run("ours:load", url=url, slot="bench", publication=PUBLICATION, store=str(store))
        assert captured.facts["rows"] == rows
        folded = measure.run("ours:fold", store=str(store), table=("public", "orders"))
    shutil.rmtree(store)
    _add(bench, "memory_snapshot", rows, captured, folded)


def _add(bench: Bench, name: str, rows: int, captured: Sample, folded: Sample) -> None:
    peak = max(captured.peak_mb, folded.peak_mb)
    cpu = captured.cpu_s + folded.cpu_s
    against = f"1 GiB; {rows:,} rows"
    bench.report.rows.append(Row(name, peak, "MiB", against, peak / LIMIT_MB, cpu, peak, 0.0, [peak]))
    for step, sample in (("capture", captured), ("fold", folded)):
        figures = (sample.peak_mb, "MiB", "", None, sample.cpu_s, sample.peak_mb, 0.0, [sample.peak_mb])
        bench.report.rows.append(Row(f"{name}_{step}", *figures))
        bench.say(f"  {name} {step}: {sample.seconds:.1f} s, {sample.peak_mb:.0f} MiB")
