"""Results that a widget and a page can show, without a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from headwater.model import TableId
from headwater.quality import Check, QualityResult, TableResult
from headwater.quality.keep import keep
from headwater.storage import Storage

HOSTILE = '<img src=x onerror="throw 1">\u202e'
BEGAN = datetime(2026, 11, 25, 8, tzinfo=UTC)

GOOD = Check(
    "expect_column_values_to_not_be_null", ("id",), "schema", "critical", "a key is never NULL", rows=9
)
LOST = Check(
    "references", ("customer_id",), "source", "critical", "names a row of public.customers",
    "failed", 9, 2, ("id=501", f'id="{HOSTILE}"'),
)  # fmt: skip
FAR = Check(
    "expect_column_values_to_be_between", (HOSTILE,), "observed", "warning", "not far", "failed", 9, 1
)
RAISED = Check("expect_x", ("v",), "user", "critical", "x", "unjudged", why=f"error {HOSTILE}")

FILE = "pipeline: shop\nsource: {kind: postgres, host: nowhere.invalid, user: u, dbname: d}\nstore: ./lake\n"


def make_results() -> list[QualityResult]:
    """Three judgements; in the last a table is held back, one only warns, and one is all right."""
    orders, odd, calm = TableId("public", "orders"), TableId("public", HOSTILE), TableId("public", "calm")
    wrong = LOST, RAISED
    return [
        QualityResult(f"r{n}", "shop", BEGAN + timedelta(hours=n), (
            TableResult(calm, "warn", "table", 9, (GOOD,)),
            TableResult(odd, "warn", "batch", 9, (GOOD, FAR)),
            TableResult(orders, "block", "batch", 9, (GOOD, *wrong) if n == 2 else (GOOD,), held=n == 2),
        ))
        for n in range(3)
    ]  # fmt: skip


def write_results(folder: Path) -> Path:
    """A pipeline's file, and its store with the results; returns the file."""
    folder.mkdir(exist_ok=True)
    path = folder / "headwater.yml"
    path.write_text(FILE)
    with Storage.open(str(folder / "lake"), cache=folder / "cache") as storage:
        for result in make_results():
            keep(storage, result)
    return path
