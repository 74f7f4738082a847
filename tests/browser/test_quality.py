"""`QualityReport` in a real JupyterLab: what failed first, the filter, the report in a page of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.conftest import Sheet
from quality.results import write_results

pytestmark = [pytest.mark.live, pytest.mark.slow]


def test_look_filter_judge_and_open_the_report(sheet: Callable[..., Sheet], tmp_path: Path) -> None:
    path = write_results(tmp_path / "shop")
    opened = sheet("quality", [
        f"from headwater_widgets import QualityReport\nreport = QualityReport({str(path)!r})\nreport",
    ])  # fmt: skip
    report = opened.widget("Data quality")
    status = report.get_by_role("status")
    expect(status).to_contain_text("3 tables, 1 failed, 1 with warnings, 1 held back, judged")
    expect(report.locator("summary").first).to_contain_text("public.orders")
    expect(report.get_by_text("could not be judged")).to_be_visible()
    expect(report.get_by_role("img")).to_have_count(4)
    opened.shoot("Data quality", "quality-report")

    report.get_by_label("Filter").fill("customer")
    expect(status).to_contain_text("1 shown")
    report.get_by_label("Filter").fill("")
    report.get_by_label("which tables").select_option("failed")
    expect(report.locator("summary")).to_have_count(1)
    report.locator("summary").press("Enter")
    expect(report.get_by_text("names a row of public.customers")).to_be_hidden()

    with opened.page.context.expect_page() as came:
        report.get_by_role("button", name="Open report").click()
    expect(came.value.get_by_role("heading", level=1)).to_have_text("Data quality of shop")
    came.value.close()

    # Nothing was captured yet: the kernel says so, and what to type.
    report.get_by_role("button", name="Judge now").click()
    expect(report.get_by_role("alert")).to_contain_text("headwater run")
    assert opened.ask("[t.table.name for t in report._past[-1].tables if t.held]") == ["orders"]
