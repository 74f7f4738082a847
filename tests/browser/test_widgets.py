"""What a person does: connect, choose, mask, save, run, watch it end. The kernel's side is asserted."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from browser.conftest import Lab, Sheet, watched
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
insert into shop.customers
  select n, 'c' || n || '@example.com', '0170' || n, '2026-01-01' from generate_series(1, 500) n;
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
    partition = picker.get_by_role("textbox", name="partition")
    tried = picker.locator("[data-tried=partition]")
    partition.fill("/@4(yr=%z)")
    expect(tried).to_contain_text("unknown code `%z`")
    partition.fill("/@4(yr=%y)/@4(mth=%M)")
    expect(tried).to_contain_text("has no column 4")  # it is not copied
    partition.fill("/@1(n=%.2i)")
    expect(tried.locator(".hw-folder").first).to_have_text("n=0")
    where = picker.get_by_role("textbox", name="where", exact=True)
    where.fill("id <= 480")
    expect(picker.locator("[data-tried=where]")).to_contain_text("copies 480 of the first 500 rows")
    where.press("Tab")
    picker.get_by_label("mode").select_option("mirror")
    picker.get_by_label("Search tables").fill("")
    row(picker, HOSTILE).locator("[data-check]").click()
    expect(picker.get_by_label("changes of the file")).to_contain_text("- name: shop.customers")
    expect(picker.get_by_label("changes of the file")).to_contain_text("mask_key: env:HEADWATER_MASK_KEY")
    expect(picker.get_by_label("changes of the file")).to_contain_text("partition: /@1(n=%.2i)")
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
    masks = "{c: [m.kind, m.keep] for c, m in p.config.overrides['shop.customers'].masks.items()}"
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
    assert opened.ask("p.table('shop.orders').shape[0]") == 20000
    assert opened.ask("p.table('shop.customers').columns[:4]") == ["id", "email", "phone", "_hw_op"]
    [[email, phone]] = opened.ask(
        "p.table('shop.customers').filter('id = 7').select('email, phone').fetchall()"
    )
    assert len(email) == 64 and phone == "****1707"
    assert opened.ask("p.table('shop.customers').shape[0]") == 480


def follow_pause_and_stop(opened: Sheet, pg: Database) -> None:
    monitor = opened.widget("Runs")
    pill = monitor.locator(".hw-pill").first
    monitor.get_by_label("what to run").select_option("follow")
    monitor.get_by_role("button", name="Start").click()
    expect(pill).to_have_text("follow: running")
    for n in range(6):
        pg.run(
            f"insert into shop.orders select {100000 + n * 3000} + n, 1, n from generate_series(0, 2999) n"
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


def test_connection_form(sheet: Open, pg: Database, tmp_path: Path) -> None:
    path = write_pipeline(tmp_path, pg)
    pg.run("create schema shop; create table shop.orders (id int, total int)")
    opened = sheet("form", [
        f"from headwater_widgets import ConnectionForm\nform = ConnectionForm({str(path)!r})\nform",
    ])  # fmt: skip
    form = opened.widget("Connection")
    expect(form.get_by_label("port", exact=False).first).to_have_value(str(pg.server.port))

    # A secret, or a password in a URL, does not leave the input.
    where = form.get_by_label("password: where it is")
    where.select_option("env")
    secret = form.get_by_label("password", exact=True)
    secret.fill("hunter2 is my password!")
    secret.press("Tab")
    expect(form.get_by_role("alert")).to_contain_text("nothing was kept")
    expect(secret).to_have_value("")
    form.get_by_label("host", exact=False).first.fill("postgresql://u:hunter2@db/x")
    form.get_by_label("host", exact=False).first.press("Tab")
    expect(form.get_by_role("alert")).to_contain_text("nothing was kept")
    assert "hunter2" not in str(opened.ask("[repr(form._doc), form.page(), str(form.get_state())]"))
    form.get_by_label("host", exact=False).first.fill("127.0.0.1")
    where.select_option("file")
    secret.fill("password")
    secret.press("Tab")

    form.get_by_role("button", name="Test connection").click()
    expect(form.get_by_text("1 to mend")).to_be_visible()
    expect(form.locator(".hw-sql")).to_contain_text("REPLICA IDENTITY")
    form.get_by_role("button", name="copy:").first.click()
    assert "REPLICA IDENTITY" in opened.page.evaluate("() => navigator.clipboard.readText()")
    expect(form.get_by_role("button", name="Test connection")).to_be_enabled()
    pg.run("alter table shop.orders replica identity full")
    form.get_by_role("button", name="Test connection").click()
    expect(form.get_by_text("ready")).to_be_visible()

    schema = form.get_by_role("textbox", name="schema", exact=True)
    schema.fill("dwh")
    schema.press("Tab")
    expect(form.get_by_label("changes of the file")).to_contain_text("schema: dwh")
    opened.shoot("Connection", "connection-form")
    form.get_by_role("button", name="Save headwater.yml").click()
    expect(form.get_by_text("headwater.yml is written")).to_be_visible()
    assert "schema: dwh" in path.read_text() and "# the test's own server" in path.read_text()


MANY = """
import time
from headwater.model import Column, TableId, TableInfo, TableSchema
from headwater.pipeline import Pipeline
import pyarrow as pa
columns = (Column("id", pa.int64(), "bigint"), Column("name", pa.string(), "text"))
infos = [TableInfo(TableSchema(TableId(f"schema_{n // 250:02}", f"table_{n:04}_of_the_warehouse"), columns,
                               ("id",) if n % 7 else ()), n * 100, n << 14) for n in range(5000)]
Pipeline.tables = lambda self: infos
from headwater_widgets import TablePicker
picker = TablePicker({path!r})
"""

SOUGHT = "schema_07 table_18"

#: Milliseconds from each key until the page is painted with what it finds.
TYPING = """async (text) => {
  const input = document.querySelector(".hw-search");
  const taken = [];
  for (let n = 1; n <= text.length; n++) {
    const began = performance.now();
    input.value = text.slice(0, n);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    document.querySelector(".hw-list").getBoundingClientRect();
    taken.push(performance.now() - began);
    await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
  }
  return taken;
}"""

#: Milliseconds from the moment the next picker's frame is in the page until its first rows are painted.
FIRST_PAINT = """() => {
  window.firstPaint = null;
  for (const old of document.querySelectorAll(".hw")) old.dataset.old = "yes";
  let began = null;
  new MutationObserver(() => {
    if (began === null && document.querySelector(".hw:not([data-old])")) began = performance.now();
    if (window.firstPaint === null && document.querySelector(".hw:not([data-old]) .hw-item")) {
      requestAnimationFrame(() => (window.firstPaint = performance.now() - began));
    }
  }).observe(document, { childList: true, subtree: true });
}"""


def test_five_thousand_tables_and_the_keyboard(sheet: Open, lab: Lab, pg: Database, tmp_path: Path) -> None:
    path = write_pipeline(tmp_path, pg)
    path.write_text(path.read_text().replace("shop.orders", "schema_03.*"))
    opened = sheet("many", [MANY.replace("{path!r}", repr(str(path))), "picker"], first=FIRST_PAINT)
    picker = opened.widget("Tables")
    status = picker.get_by_role("status")
    expect(status).to_have_text("250 of 5,000 tables selected")
    first = opened.page.wait_for_function("() => window.firstPaint").json_value()
    if first >= 1000:  # the machine was busy with something else: once more
        opened.page.evaluate(FIRST_PAINT)
        opened.run()
        first = opened.page.wait_for_function("() => window.firstPaint").json_value()
        expect(status).to_have_text("250 of 5,000 tables selected")
    # The machine is never alone: the best of a few times is what the page itself takes.
    keys = [
        min(times) for times in zip(*(opened.page.evaluate(TYPING, SOUGHT) for _ in range(4)), strict=True)
    ]
    print(f"first paint {first:.0f} ms; keys {[round(k) for k in keys]} ms")
    assert first < 1000
    assert sorted(keys)[len(keys) // 2] < 25  # half of what is promised; single keys meet other processes
    expect(status).to_contain_text("100 shown")

    search = picker.get_by_label("Search tables")
    search.press("ArrowDown")
    keyboard = opened.page.keyboard
    for key in ("End", "Space", "ArrowUp", "Space", "Home", "ArrowDown", "Enter"):
        keyboard.press(key)
    expect(status).to_contain_text("252 of 5,000 tables selected")
    expect(picker.get_by_label("mode")).to_be_focused()
    keyboard.press("Escape")
    assert (
        opened.page.locator(".jp-Notebook .jp-Cell.jp-mod-selected").count() == 1
    )  # not the notebook's keys
    search.fill("")
    picker.get_by_role("button", name="List").click()
    picker.get_by_label("order").select_option(label="by size")
    expect(picker.get_by_role("treeitem").first).to_contain_text("table_4999")
    opened.shoot("Tables", "table-picker-5000")
    assert len(opened.ask("picker.chosen")) == 252

    opened.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    saved = lab.folder / "many.ipynb"
    opened.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    assert "table_0000" in saved.read_text() or "schema_03" in saved.read_text()
    print(f"saved notebook {saved.stat().st_size:,} bytes")
    assert saved.stat().st_size < 200_000


NOTEBOOK = "01-connect-and-choose.ipynb"


def test_notebook_01(lab: Lab, browser: Browser) -> None:
    """As `make lab` opens it, clicked through as a new user would."""
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
        built = "{s.run for s in p.explain('nyc.airlines', 'UA')} == {monitor.background.last.run_id}"
        assert opened.ask(built), "explain names the run whose build took the row"
        assert len(opened.ask("p.table('nyc.planes').select('tailnum').limit(1).fetchall()")[0][0]) == 64
