"""What a person does: connect, choose, mask, save, run, watch it end. The kernel's side is asserted."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from browser.conftest import Sheet
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

Open = Callable[..., Sheet]

HOSTILE = '<img src=x onerror="throw 1">'

TABLES = f"""
create schema shop; create schema archive;
create table shop.customers (id int primary key, email text, phone text, joined date);
create table shop.orders (id int primary key, customer int, total numeric(10, 2));
create table shop."Orders" (id int primary key, "select" text);
create table shop."{HOSTILE.replace('"', '""')}" (id int primary key, "a/b" text);
create table archive.events (at timestamptz, what text);
insert into shop.customers select n, 'c' || n || '@example.com', '0170' || n, '2026-01-01' from generate_series(1, 500) n;
insert into shop.orders select n, n % 500, n from generate_series(1, 20000) n;
analyze;
"""


def write_pipeline(folder: Path, pg: Database) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "password").write_text(pg.server.password)
    path = folder / "headwater.yml"
    path.write_text(f"""\
# The shop's pipeline.
pipeline: shop

source:
  kind: postgres
  host: 127.0.0.1
  port: {pg.server.port}   # the test's own server
  user: postgres
  dbname: {pg.name}
  password: file:password
  sslmode: disable

store: ./lake

tables:
  - shop.orders   # the heart of it
""")
    return path


def row(picker: Locator, name: str) -> Locator:
    return picker.get_by_role("treeitem").filter(has_text=name).first


def test_choose_mask_save_and_run(sheet: Open, pg: Database, tmp_path: Path) -> None:
    pg.run(TABLES)
    path = write_pipeline(tmp_path, pg)
    opened = sheet("shop", [
        f"from headwater import Pipeline\nfrom headwater_widgets import RunMonitor, TablePicker\n"
        f"p = Pipeline.open({str(path)!r})\npicker = TablePicker(p)\npicker",
        "monitor = RunMonitor(p)\nmonitor",
    ])  # fmt: skip
    choose(opened, path)
    run_once(opened)
    follow_pause_and_stop(opened, pg)


def choose(opened: Sheet, path: Path) -> None:
    picker = opened.widget("Tables")
    status = picker.get_by_role("status")
    expect(status).to_have_text("1 of 5 tables selected")
    expect(row(picker, HOSTILE)).to_be_visible()

    picker.get_by_label("Search tables").fill("cust")
    expect(status).to_contain_text("1 shown")
    row(picker, "customers").locator("[data-check]").click()
    row(picker, "customers").click()
    picker.get_by_label("mask email").select_option(label="hash")
    picker.get_by_label("mask phone").select_option(label="redact n")
    picker.get_by_label("copy joined").uncheck()
    picker.get_by_label("mode").select_option("mirror")
    picker.get_by_label("Search tables").fill("")
    row(picker, HOSTILE).locator("[data-check]").click()
    expect(picker.get_by_label("changes of the file")).to_contain_text("- name: shop.customers")
    expect(picker.get_by_label("changes of the file")).to_contain_text("mask_key: env:HEADWATER_MASK_KEY")
    expect(status).to_have_text("3 of 5 tables selected · 2 changed")
    opened.shoot("Tables", "table-picker")

    before = path.read_text()
    picker.get_by_role("button", name="Save headwater.yml").click()
    expect(picker.get_by_text("headwater.yml is written")).to_be_visible()
    after = path.read_text()
    assert set(before.splitlines()) <= set(after.splitlines()), "a line of the user's was changed"
    assert opened.ask("picker.chosen") == [
        'shop.<img src=x onerror="throw 1">',
        "shop.customers",
        "shop.orders",
    ]
    spec = "p.config.spec(TableId('shop', 'customers'))"
    masks = f"[(TableId := __import__('headwater').TableId), {{c: [m.kind, m.keep] for c, m in {spec}.masks.items()}}][1]"
    assert opened.ask(masks) == {"email": ["hash", 0], "phone": ["redact", 4]}


def run_once(opened: Sheet) -> None:
    monitor = opened.widget("Runs")
    monitor.get_by_label("what to run").select_option("run")
    monitor.get_by_role("button", name="Start").click()
    expect(monitor.locator(".hw-pill").first).to_have_text("run: running")
    expect(monitor.locator(".hw-history tbody tr")).to_have_count(1, timeout=60_000)
    expect(monitor.locator(".hw-history tbody tr").first).to_contain_text("done")
    expect(monitor.locator(".hw-pill").first).to_have_text("idle")
    assert opened.ask("monitor.background.last.outcome") == "done"
    assert opened.ask("[p.table('shop.orders').shape[0], p.table('shop.customers').columns]") == [
        20000, ["id", "email", "phone"]
    ]  # fmt: skip
    [[email, phone]] = opened.ask(
        "p.table('shop.customers').filter('id = 7').select('email, phone').fetchall()"
    )
    assert "@" not in email and phone.endswith("1707") is False and phone.endswith("707")


def follow_pause_and_stop(opened: Sheet, pg: Database) -> None:
    monitor = opened.widget("Runs")
    pill = monitor.locator(".hw-pill").first
    monitor.get_by_label("what to run").select_option("follow")
    monitor.get_by_role("button", name="Start").click()
    expect(pill).to_have_text("follow: running")
    for n in range(6):
        pg.run(
            f"insert into shop.orders select n, 1, n from generate_series({100000 + n * 3000}, {102999 + n * 3000}) n"
        )
        opened.page.wait_for_timeout(400)
    expect(monitor.get_by_label("tables in this run")).to_contain_text("18,000")
    expect(monitor.locator(".hw-chart-line").first).to_be_visible()
    opened.shoot("Runs", "run-monitor")
    monitor.get_by_role("button", name="Pause").click()
    expect(pill).to_have_text("paused", timeout=60_000)
    pg.run("insert into shop.orders values (900001, 1, 1)")
    monitor.get_by_role("button", name="Resume").click()
    expect(monitor.get_by_label("tables in this run")).to_contain_text("1 rows", timeout=30_000)
    monitor.get_by_role("button", name="Stop", exact=True).click()
    expect(pill).to_have_text("idle", timeout=60_000)
    assert opened.ask("p.table('shop.orders').shape[0]") == 38001
