"""A row followed and gone back with, a schema compared and let in. The kernel's side is asserted."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.conftest import Sheet
from headwater import Pipeline
from headwater.errors import HeadwaterError
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

Open = Callable[..., Sheet]

HOSTILE = '<img src=x onerror="throw 1">'

TABLES = f"""
create schema shop;
create table shop.orders (id int primary key, customer text, status text, total numeric(10, 2), note text);
create table shop.stock (warehouse text, item int, pieces int, primary key (warehouse, item));
create table shop.visits (at timestamptz, page text);
create table shop."{HOSTILE.replace('"', '""')}" (id int primary key, what text);
alter table shop.visits replica identity full;
insert into shop.orders
  select n, 'customer' || n % 7 || '@example.org', 'new', n * 3.5, '' from generate_series(1, 400) n;
insert into shop.stock select w, n, n from unnest(array['north', 'south']) w, generate_series(1, 40) n;
insert into shop.visits values ('2026-01-01', '/');
insert into shop."{HOSTILE.replace('"', '""')}" values (1, '<b>bold</b>');
"""

LATER = (
    "update shop.orders set status = 'paid' where id = 42",
    "update shop.orders set status = 'packed', note = 'gift wrap, please' where id = 42",
    "update shop.orders set id = 1042 where id = 42",
    "alter table shop.orders rename column note to remark; alter table shop.orders add column carrier text;"
    f"update shop.orders set status = 'sent', carrier = 'DHL', remark = '{'long ' * 400}<script>'"
    "where id = 1042",
    "delete from shop.orders where id = 7; alter table shop.stock add column shelf text default 'A1';"
    "insert into shop.stock values ('west', 1, 1, 'B2')",
)


@pytest.fixture
def path(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HEADWATER_MASK_KEY", "k" * 40)
    pg.run(TABLES)
    (tmp_path / "password").write_text(pg.server.password)
    found = tmp_path / "headwater.yml"
    found.write_text(f"""
pipeline: shop
source: {{kind: postgres, host: 127.0.0.1, port: {pg.server.port}, user: postgres, dbname: {pg.name},
  password: "file:password", sslmode: disable}}
store: ./lake
mask_key: env:HEADWATER_MASK_KEY
tables:
  - shop.*
  - {{name: shop.orders, masks: {{customer: hash}}}}
  - {{name: shop.stock, schema: freeze}}
""")
    with Pipeline.open(found) as pipeline:
        pipeline.run(build=False)
        for statement in LATER[:-1]:
            pg.run(statement)
        pipeline.run(build=False)
        pg.run(LATER[-1])
        with pytest.raises(HeadwaterError, match="freeze"):
            pipeline.run(build=False)
    yield found


def test_explore_a_row_and_the_schema(sheet: Open, path: Path) -> None:
    opened = sheet("explore", [
        f"from headwater import Pipeline\nfrom headwater_widgets import RowExplorer, SchemaTimeline\n"
        f"p = Pipeline.open({str(path)!r})\nrow = RowExplorer(p)\nrow",
        "schema = SchemaTimeline(p, 'shop.orders')\nschema",
    ])  # fmt: skip
    follow_a_row(opened)
    go_back_in_time(opened)
    other_tables(opened)
    follow_a_schema(opened)


def follow_a_row(opened: Sheet) -> None:
    row = opened.widget("Row")
    status = row.get_by_role("status")
    expect(status).to_have_text("4 captured tables")
    table = row.get_by_role("combobox", name="Table")
    table.click()
    expect(row.get_by_role("option", name=HOSTILE)).to_be_visible()
    table.fill("ord")
    table.press("Enter")
    expect(row.get_by_role("button", name="id=1042")).to_be_visible()
    row.get_by_label("id", exact=True).fill("1042")
    row.get_by_label("id", exact=True).press("Enter")
    expect(status).to_have_text("6 changes")
    slider = row.get_by_role("slider", name="version of the row")
    expect(slider).to_have_value("5")
    expect(row.locator(".hw-changed").filter(has_text="carrier")).to_contain_text("DHL")
    assert opened.ask("[s.op for s in row.steps]") == [
        "read",
        "update",
        "update",
        "delete",
        "insert",
        "update",
    ]
    opened.shoot("Row", "row-explorer")

    row.get_by_role("button", name="show all").first.click()
    expect(row.locator(".hw-whole")).to_contain_text("long <script>")
    slider.focus()
    for _ in range(3):
        opened.page.keyboard.press("ArrowLeft")
    expect(row.get_by_role("region", name="the row after a change")).to_contain_text("gift wrap, please")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("version 3 of 6: update"))
    row.get_by_role("listbox", name="changes").press("Home")
    expect(slider).to_have_value("0")
    expect(row.get_by_role("option", selected=True)).to_contain_text("read")
    row.get_by_role("button", name="copy: command").click()
    assert "headwater explain shop.orders id=1042 --values" in opened.page.evaluate(
        "() => navigator.clipboard.readText()"
    )


def go_back_in_time(opened: Sheet) -> None:
    row = opened.widget("Row")
    row.get_by_role("button", name="The table as of this moment").click()
    rows = row.get_by_role("region", name="rows of the table")
    expect(row.get_by_text("1–25 of 400 rows")).to_be_visible()
    expect(rows).to_contain_text("new")
    row.get_by_role("button", name="Next").click()
    expect(row.get_by_text("26–50 of 400 rows")).to_be_visible()
    expect(rows.get_by_role("button", name="explain id=42")).to_be_visible()
    row.get_by_role("button", name="Now").click()
    expect(row.get_by_text("1–25 of 399 rows")).to_be_visible()
    opened.shoot("Row", "row-explorer-table")
    rows.get_by_role("button", name="explain id=2", exact=True).click()
    expect(row.get_by_role("status")).to_have_text("1 change")
    assert opened.ask("row.key") == "id=2"
    assert "customer2@example.org" not in opened.page.content()


def other_tables(opened: Sheet) -> None:
    row = opened.widget("Row")
    table = row.get_by_role("combobox", name="Table")
    table.click()
    table.fill("stock")
    table.press("Enter")
    row.get_by_label("warehouse").fill("north")
    row.get_by_label("item").fill("99")
    row.get_by_role("button", name="Explain", exact=True).click()
    expect(row.get_by_text("has never had the key")).to_be_visible()
    row.get_by_label("item").fill("x")
    row.get_by_role("button", name="Explain", exact=True).click()
    expect(row.get_by_role("alert")).to_contain_text("cannot be a key")
    table.click()
    table.fill("visits")
    table.press("Enter")
    expect(row.get_by_text("has no key, so one row cannot be followed")).to_be_visible()
    expect(row.get_by_text("1–1 of 1 change")).to_be_visible()
    table.click()
    table.fill("onerror")
    table.press("Enter")
    row.get_by_role("button", name="id=1").click()
    expect(row.get_by_role("region", name="the row after a change")).to_contain_text("<b>bold</b>")


def follow_a_schema(opened: Sheet) -> None:
    schema = opened.widget("Schema")
    expect(schema.get_by_role("status")).to_have_text("2 versions")
    expect(schema.get_by_role("list", name="versions")).to_contain_text("note renamed to remark")
    expect(schema.get_by_label("what changed between")).to_contain_text("+carrier text")
    opened.shoot("Schema", "schema-timeline")
    schema.get_by_role("button", name="show what version 1 changed").press("Enter")
    expect(schema.get_by_label("what changed between")).to_contain_text("+id integer")
    table = schema.get_by_role("combobox", name="Table")
    table.click()
    table.fill("stock")
    table.press("Enter")
    expect(schema.get_by_text("shelf text (older rows: A1) added (schema: freeze)")).to_be_visible()
    opened.shoot("Schema", "schema-timeline-held")
    assert opened.ask("p.table('shop.stock').columns[:4]") == ["warehouse", "item", "pieces", "_hw_op"]
    schema.get_by_role("button", name="Accept").click()
    expect(schema.get_by_role("button", name="Yes, let it in")).to_be_focused()
    schema.get_by_role("button", name="No", exact=True).click()
    schema.get_by_role("button", name="Accept").click()
    opened.page.keyboard.press("Enter")
    expect(schema.get_by_text("held back by")).to_be_hidden()
    expect(schema.get_by_role("status")).to_contain_text("accepted")
    assert opened.ask("p.table('shop.stock').columns[:4]") == ["warehouse", "item", "pieces", "shelf"]
    assert opened.ask("list(schema.held)") == []
