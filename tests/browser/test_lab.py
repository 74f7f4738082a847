"""Notebook 01 as `make lab` opens it, clicked through as a new user would."""

import pytest
from playwright.sync_api import Browser, expect

from browser.conftest import Lab, Sheet, watched

pytestmark = [pytest.mark.live, pytest.mark.slow]

NOTEBOOK = "01-connect-and-choose.ipynb"


def test_notebook_01(lab: Lab, browser: Browser) -> None:
    with watched(browser) as page:
        opened = Sheet(lab, page, NOTEBOOK)
        opened.open()
        opened.run()
        form = opened.widget("Connection")
        form.get_by_role("button", name="Test connection").click()
        expect(form.get_by_text("ready", exact=False).first).to_be_visible()

        picker = opened.widget("Tables")
        expect(picker.get_by_role("status")).to_have_text("2 of 5 tables selected")
        planes = picker.get_by_role("treeitem").filter(has_text="planes")
        planes.click()
        picker.get_by_label("mask tailnum").select_option(label="hash")
        planes.locator("[data-check]").click()
        expect(picker.get_by_label("changes of the file")).to_contain_text("masks: {tailnum: hash}")
        picker.get_by_role("button", name="Save headwater.yml").click()
        expect(picker.get_by_text("headwater.yml is written")).to_be_visible()

        monitor = opened.widget("Runs")
        monitor.get_by_role("button", name="Start").click()
        expect(monitor.locator(".hw-history tbody tr").first).to_contain_text("done", timeout=120_000)
        expect(monitor.locator(".hw-pill").first).to_have_text("idle")
        assert opened.ask("[monitor.background.last.outcome, monitor.background.last.models_built > 0]") == [
            "done",
            True,
        ]
        expect(picker.get_by_role("status")).to_have_text("3 of 5 tables selected")
        assert opened.ask("p.table('nyc.planes').shape[0]") == 3322
        assert len(opened.ask("p.table('nyc.planes').limit(1).fetchall()")[0][0]) == 64
