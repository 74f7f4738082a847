"""The page and the widget: what failed first, every text harmless, no script and no request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from headwater.model import Column, TableId, TableSchema
from headwater.pipeline import Pipeline
from headwater.quality.export import make_suite, write_data_docs, write_suites
from headwater.quality.gx import library
from headwater.quality.keep import KEPT, keep, load_past
from headwater.quality.page import newest_tables, render
from headwater.quality.rows import Rows
from headwater.quality.rules import schema_rules
from headwater.storage import Storage
from headwater_widgets import QualityReport
from headwater_widgets.view import View
from quality.results import FAR, GOOD, HOSTILE, make_results, write_results
from quality.tables import expect, the_judge


class Tags(HTMLParser):
    """The tags of a page, and what of them could load or run anything."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.odd: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.odd += [n for n, _ in attrs if n.startswith("on") or n in ("src", "href")]


def test_the_page_is_whole_and_harmless() -> None:
    page = render(make_results())
    tags = Tags(page)
    assert not tags.odd and not {"script", "img", "link", "iframe"} & set(tags.tags)
    assert "default-src 'none'" in page and "\u202e" not in page
    assert page.index("public.orders") < page.index("public.&lt;img") < page.index("public.calm")
    assert page.count("<details open") == 2 and "held back" in page and "could not be judged" in page
    assert tags.tags.count("svg") == 4
    assert "not judged" not in render([]) and Tags(render([])).tags


def test_the_newest_judgement_of_each_table_is_shown() -> None:
    one, two, three = make_results()
    found = newest_tables([one, three.__class__(three.run_id, "shop", three.at, three.tables[2:]), two])
    assert [str(t.table) for t in found][1:] == ["public.calm", "public.orders"] and len(found) == 3


def test_so_many_results_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.quality.keep.KEPT", 2)
    with Storage.open(str(tmp_path / "s"), cache=tmp_path / "c") as storage:
        for result in make_results():
            kept = keep(storage, result)
        assert [r.run_id for r in load_past(storage)] == ["r1", "r2"] and KEPT > 2
        for name, data in (("cut", b'{"run_id": "r'), ("other", b'{"run_id": "r9"}')):
            storage.create(f"quality/results/0-{name}.json", data, step="test")
        assert [r.run_id for r in load_past(storage)] == ["r1", "r2"]
        assert Path(kept.page).read_text() == render(make_results())


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mapping[str, Any]]]:
    found: list[Mapping[str, Any]] = []
    monkeypatch.setattr(View, "tell", lambda self, kind, **data: found.append({"kind": kind, **data}))
    yield found
    for message in found:
        json.dumps(message, allow_nan=False)


def test_the_widget_shows_what_there_is(said: list[Mapping[str, Any]], tmp_path: Path) -> None:
    report = QualityReport(write_results(tmp_path))
    state = [m for m in said if m["kind"] == "state"][-1]
    assert [t["verdict"] for t in state["tables"]] == ["failed", "warn", "ok"] and len(state["trend"]) == 3
    assert state["tables"][0]["held"] and state["tables"][0]["checks"][0][0] == "failed"
    page = report.page()
    assert "public.orders" in page and "held back" in page and not Tags(page).odd
    report._receive(report, {"kind": "open"}, None)
    assert said[-1]["html"] == render(make_results())
    report.judge()
    assert report.wait(60)
    assert [m for m in said if m["kind"] == "failed"][-1]["hint"] == "headwater run"
    # Nothing of it is kept in the notebook.
    assert HOSTILE[:10] not in json.dumps(report.get_state(), default=str)


def test_the_widget_says_what_is_wrong(said: list[Mapping[str, Any]], tmp_path: Path) -> None:
    report = QualityReport(tmp_path / "none.yml")
    assert said[0]["kind"] == "failed" and "none.yml" in report.page()


def test_suites_are_great_expectations_own(tmp_path: Path) -> None:
    table = TableId("public", 'a/b "x"')
    columns = (Column("id", pa_int(), nullable=False), Column("v", pa_int(), nullable=False))
    rows = Rows(TableSchema(table, columns, ("id",)), "t", "table", -1, 0, "t")
    wanted = [expect("column_values_to_be_between", column="v", min_value=0)]
    suite = make_suite(table, list(schema_rules(rows)), wanted)
    (path,) = write_suites(tmp_path, {table: suite})
    made = library().ExpectationSuite(**json.loads(path.read_text()))
    frame = pd.DataFrame({"id": [1, 1], "v": pd.Series([None, -1], dtype=object)})
    told = the_judge().frame(frame, list(made.expectations))
    assert [(t.error, t.unexpected) for t in told] == [("", 0), ("", 1), ("", 2), ("", 1)]


def test_data_docs_escape_what_great_expectations_does_not(tmp_path: Path) -> None:
    result = make_results()[-1]
    kwargs = {"expect_column_values_to_be_between": {"column": HOSTILE, "min_value": 1}}
    known = [{"type": r, "kwargs": kwargs.get(r, {"column": "id"})} for r in (GOOD.rule, FAR.rule)]
    index, *pages = write_data_docs(
        tmp_path, result, {t.table: {"expectations": known} for t in result.tables}
    )
    assert index.name == "index.html" and len(pages) == 3
    for page in pages:
        text = page.read_text()
        assert "<img src=x" not in text and "must never be null" in text.replace(
            "not be null", "never be null"
        )


def pa_int() -> Any:
    import pyarrow as pa

    return pa.int64()


def test_a_pipeline_reads_its_past(tmp_path: Path) -> None:
    with Pipeline.open(write_results(tmp_path)) as pipeline:
        assert [r.run_id for r in pipeline.quality_past()] == ["r0", "r1", "r2"]
