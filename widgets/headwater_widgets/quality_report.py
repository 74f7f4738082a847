"""`QualityReport`: how the data of a pipeline was judged, table by table, with trend and report."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from headwater.errors import HeadwaterError
from headwater.pipeline import Pipeline
from headwater.quality import Check, QualityResult, TableResult
from headwater.quality.page import newest_tables, render
from headwater_widgets import pages
from headwater_widgets.view import Verb, View, find_file, read_source

#: Tables in one message, the worst first; of each, so many rules.
_TABLES, _CHECKS = 500, 200
_WORDS = {"ok": "all right", "warn": "warnings", "failed": "failed"}


class QualityReport(View):
    """Shows what runs and `headwater quality` found; judges on demand, in a thread."""

    _esm = read_source("dom.js", "quality_report.js")
    _css = read_source("look.css", "quality_report.css")

    def __init__(self, pipeline: Pipeline | str | Path = "headwater.yml") -> None:
        """`pipeline` is a pipeline file, or a `Pipeline` opened from one."""
        self._path = find_file(pipeline)
        self._past: Sequence[QualityResult] = ()
        self._failed: HeadwaterError | None = None
        self._thread: threading.Thread | None = None
        super().__init__()
        self.reload()

    def reload(self) -> None:
        """Read the results that are there."""
        try:
            with Pipeline.open(self._path) as pipeline:
                self._past, self._failed = pipeline.quality_past(), None
        except HeadwaterError as failed:
            self._failed = failed
        self._show()

    def judge(self, tables: Sequence[str] | None = None, *, full: bool = False) -> None:
        """Judge tables in the background: what waits, else the last batch; `full`: all rows."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._judge, args=(tables, full), daemon=True)
        self._thread.start()
        self._show()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a judgement that goes on; whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self._busy

    @property
    def _busy(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive() and thread is not threading.current_thread()

    def _judge(self, tables: Sequence[str] | None, full: bool) -> None:
        try:
            with Pipeline.open(self._path) as pipeline:
                pipeline.quality(tables, full=full)
        except Exception as failed:  # noqa: BLE001  told to the person who asked
            self.fail(failed)
        self.reload()

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for."""
        return {
            "ready": lambda _: self._show(),
            "reload": lambda _: self.reload(),
            "judge": lambda said: self.judge(full=bool(said.get("full"))),
            "open": lambda _: self.tell("page", html=render(self._past)),
        }

    def page(self) -> str:
        """The static HTML."""
        if self._failed is not None:
            return pages.problem("Data quality", self._failed)
        tables = newest_tables(self._past)
        head = ("table", "verdict", "rules", "failed", "warnings", "rows", "what is wrong")
        rows = [_row(t) for t in tables[:100]]
        said = f"judged last at {self._past[-1].at:%Y-%m-%d %H:%M:%S} UTC" if self._past else "not judged yet"
        more = f"and {len(tables) - 100:,} more tables" if len(tables) > 100 else ""
        return pages.table("Data quality", said, head, rows, more, figures=(2, 3, 4, 5))

    def _show(self) -> None:
        if self._failed is not None:
            self.fail(self._failed)
        tables = newest_tables(self._past)
        self.tell(
            "state",
            busy=self._busy,
            at=self._past[-1].at.timestamp() if self._past else None,
            trend=[[r.at.timestamp(), r.failed, r.warned] for r in self._past],
            tables=[_table(t, self._past) for t in tables[:_TABLES]],
            count=len(tables),
        )


def _row(t: TableResult) -> Sequence[str]:
    wrong = "; ".join(f"{', '.join(c.columns)} {c.says}".strip() for c in t.checks if c.wrong)
    verdict = _WORDS[t.verdict] + (", held back" if t.held else "")
    counts = (f"{n:,}" for n in (len(t.checks), t.failed, t.warned, t.rows))
    return (str(t.table), verdict, *counts, wrong)


def _table(t: TableResult, past: Sequence[QualityResult]) -> Mapping[str, object]:
    checks = sorted(t.checks, key=lambda c: (not c.fails, not c.wrong, c.rule, c.columns))[:_CHECKS]
    trend = [[o.failed, o.warned] for r in past for o in r.tables if o.table == t.table]
    return {
        "name": str(t.table),
        "verdict": t.verdict,
        "held": t.held,
        "scope": t.scope,
        "rows": t.rows,
        "rules": len(t.checks),
        "trend": trend[-30:],
        "checks": [_check(c) for c in checks],
    }


def _check(c: Check) -> Sequence[object]:
    kind = "failed" if c.fails else "warn" if c.wrong else "ok"
    keys = list(c.keys)
    return [kind, c.outcome, c.says, c.rule, ", ".join(c.columns), c.unexpected, c.rows, keys, c.why]
