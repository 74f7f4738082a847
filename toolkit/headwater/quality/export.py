"""Rules and results in Great Expectations' own shapes: suites as JSON, and Data Docs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from headwater.config import Expectation
from headwater.errors import StorageError
from headwater.model import TableId
from headwater.naming import table_path
from headwater.printable import printable
from headwater.quality import Check, QualityResult, TableResult
from headwater.quality.gx import library
from headwater.quality.rules import Rule

Suite = Mapping[str, Any]


def make_suite(table: TableId, rules: Sequence[Rule], wanted: Sequence[Expectation]) -> Suite:
    """The rules of a table that Great Expectations knows too, and what the user expects, as a suite of it.

    Columns have the names that they have in our files. What only we judge is in `meta`.
    """
    known = [
        {
            "type": r.check.rule,
            "kwargs": dict(r.kwargs),
            "severity": r.check.severity,
            "meta": _about(r.check),
        }
        for r in rules
        if r.kwargs is not None
    ]
    own = [
        {"type": w.type, "kwargs": dict(w.kwargs), "severity": w.severity, "meta": {"from": "user"}}
        for w in wanted
    ]
    ours = [
        {"rule": r.check.rule, "columns": r.check.columns, **_about(r.check)} for r in rules if not r.kwargs
    ]
    return {"name": str(table), "expectations": [*known, *own], "meta": {"headwater": ours}}


def _about(check: Check) -> dict[str, str]:
    return {"from": check.origin, "says": check.says}


def write_suites(folder: Path, suites: Mapping[TableId, Suite]) -> list[Path]:
    """One JSON file for each table; returns where. Raises StorageError."""
    files = {folder / f"{table_path(t)}.json": json.dumps(s, indent=2) + "\n" for t, s in suites.items()}
    return _write(folder, files)


def write_data_docs(folder: Path, result: QualityResult, suites: Mapping[TableId, Suite]) -> list[Path]:
    """A page of Data Docs for each table, and an index; to be read with the network. Raises StorageError.

    They show what Great Expectations has an expectation for, as the suites say it.
    """
    pages = {
        f"{table_path(t.table)}.html": (str(t.table), _page(result, t, suites[t.table]))
        for t in result.tables
    }
    items = "".join(
        f'<li><a href="{escape(name)}">{escape(printable(table))}</a></li>'
        for name, (table, _) in pages.items()
    )
    index = f'<!doctype html><meta charset="utf-8"><title>Data Docs</title><ul>{items}</ul>\n'
    files = {folder / name: text for name, (_, text) in pages.items()}
    return _write(folder, {folder / "index.html": index, **files})


def _write(folder: Path, files: Mapping[Path, str]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    except OSError as failed:
        raise StorageError(
            f"{folder} cannot be written: {failed.strerror}", hint="name another folder"
        ) from None
    return list(files)


def _page(result: QualityResult, table: TableResult, suite: Suite) -> str:
    gx = library()
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    found = [(c, _kwargs(c, suite)) for c in table.checks]
    checks = [(c, kwargs) for c, kwargs in found if kwargs is not None]
    good = sum(not c.wrong for c, _ in checks)
    judged = ExpectationSuiteValidationResult(
        success=good == len(checks),
        results=[_result(c, kwargs) for c, kwargs in checks],
        suite_name=_safe(str(table.table)),
        statistics={
            "evaluated_expectations": len(checks),
            "successful_expectations": good,
            "unsuccessful_expectations": len(checks) - good,
            "success_percent": 100.0 * good / len(checks) if checks else None,
        },
        meta={
            "great_expectations_version": gx.__version__,
            "run_id": gx.RunIdentifier(run_name=result.run_id, run_time=result.at),
            "validation_time": result.at.isoformat(),
            "active_batch_definition": {},
        },
    )
    return str(DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(judged)))


def _kwargs(check: Check, suite: Suite) -> Mapping[str, Any] | None:
    """What an expectation of the suite takes that a check is of; None for a rule that is only ours."""
    for one in suite["expectations"]:
        if one["type"] == check.rule and _columns(one["kwargs"]) == check.columns:
            safe = _safe(one["kwargs"])
            assert isinstance(safe, dict)
            return safe
    return None


def _columns(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    single = [str(kwargs[word]) for word in ("column", "column_A", "column_B") if word in kwargs]
    return (*single, *map(str, kwargs.get("column_list", ())))


def _result(check: Check, kwargs: Mapping[str, Any]) -> Any:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    share = 100.0 * check.unexpected / check.rows if check.rows else 0.0
    return ExpectationValidationResult(
        success=not check.wrong,
        expectation_config=ExpectationConfiguration(type=check.rule, kwargs=dict(kwargs)),
        result={
            "element_count": check.rows,
            "unexpected_count": check.unexpected,
            "unexpected_percent": share,
        },
        exception_info={
            "raised_exception": check.outcome == "unjudged",
            "exception_message": _safe(check.why),
            "exception_traceback": None,
        },
    )


def _safe(value: Any) -> Any:
    """A value with every text in it escaped: Data Docs escape none."""
    if isinstance(value, Mapping):
        return {name: _safe(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_safe(one) for one in value]
    return escape(printable(value)) if isinstance(value, str) else value
