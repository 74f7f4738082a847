"""RowExplorer and SchemaTimeline over a real pipeline: what they are asked for, what they say."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import headwater_widgets.trying
from headwater import Pipeline
from headwater.demo.server import EmbeddedPostgres
from headwater.errors import ConfigError, SourceError, StorageError
from headwater.state import hold
from headwater_widgets import RowExplorer, SchemaTimeline, TablePicker
from headwater_widgets.view import View
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

HOSTILE = '<img src=x onerror="throw 1">'
LONG = "long " * 20_000

FIRST = f"""
create schema shop;
create table shop.orders (id int primary key, customer text, total text, paid bytea, note text);
create table shop.stock (shop text, item int, pieces int, primary key (shop, item));
create table shop.visits (at timestamptz, page text);
create table shop."Orders" (id int primary key, "select" text);
create table shop."{HOSTILE.replace('"', '""')}" (id text primary key, "a/b" text);
create table shop.times
  (at timestamptz, n numeric, f float8, y bytea, "d,=" date, primary key (at, n, f, y, "d,="));
create table shop.texts (t text primary key);
create table shop.emptied (id int primary key);
create table shop.gone (id int primary key);
create table shop.frozen (id int primary key, a int);
alter table shop.visits replica identity full;
insert into shop.orders values (1, 'ann@x.org', '10.00', '\\x0001', ''), (2, 'bob@x.org', '3.50', null, null);
insert into shop.stock select 's' || n / 10, n, n from generate_series(1, 60) n;
insert into shop.visits values ('2026-01-01', '/'), ('2026-01-02', '/a');
insert into shop."Orders" values (1, 'other');
insert into shop."{HOSTILE.replace('"', '""')}" values ('x<b>', 'y');
insert into shop.frozen values (1, 1);
insert into shop.emptied values (1);
insert into shop.gone values (1);
insert into shop.times values ('infinity', 'NaN', 'NaN', '\\x00ff', '0044-03-15 BC'),
  ('2026-01-01 00:00:00.000001+02', 1.50, '-0', '', '2026-01-01');
insert into shop.texts values (''), (' '), ('t='), ('"'), ('a,b'), (E'\n\u202e'), ('NULL'), ('t="x"');
"""

SECOND = f"""
update shop.orders set total = '12.00', note = '{LONG}' where id = 1;
update shop.orders set id = 7 where id = 1;
update shop.orders set total = 'twelve' where id = 2;
delete from shop.stock where item = 11;
insert into shop.visits values ('2026-01-03', E'/b\\n<script>');
alter table shop.frozen add column b int default 5;
insert into shop.frozen values (2, 2, 2);
truncate shop.emptied;
drop table shop.gone;
alter table shop.orders rename column note to remark;
update shop.orders set remark = E'\u202ertl \\n two' where id = 7;
"""


def write(folder: Path, server: EmbeddedPostgres, name: str) -> Path:
    (folder / "password").write_text(server.password)
    path = folder / "headwater.yml"
    path.write_text(f"""
pipeline: explored
source: {{kind: postgres, host: 127.0.0.1, port: {server.port}, user: postgres, dbname: {name},
  password: "file:password", sslmode: disable}}
store: ./lake
mask_key: env:HEADWATER_MASK_KEY
tables:
  - shop.*
  - {{name: shop.orders, masks: {{customer: hash}}, cast: {{total: "decimal(10,2)"}}}}
  - {{name: shop.frozen, schema: freeze}}
  - {{name: shop.emptied, on_truncate: fail}}
  - {{name: shop.gone, on_drop: fail}}
""")
    return path


@pytest.fixture(scope="module")
def path(
    pg_server: Callable[[int], EmbeddedPostgres], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    database = Database(pg_server(15))
    database.create()
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADWATER_MASK_KEY", "k" * 40)
    database.run(FIRST)
    found = write(tmp_path_factory.mktemp("explored"), database.server, database.name)
    with Pipeline.open(found) as pipeline:
        pipeline.run(tables=None)
        database.run(SECOND)
        with pytest.raises(Exception, match="freeze|truncate"):
            pipeline.run()
    yield found
    patch.undo()
    database.drop()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mapping[str, Any]]]:
    found: list[Mapping[str, Any]] = []
    monkeypatch.setattr(View, "tell", lambda self, kind, **data: found.append({"kind": kind, **data}))
    yield found
    for message in found:
        json.dumps(message, allow_nan=False)  # what a browser can read


@pytest.fixture
def explorer(path: Path, said: list[Mapping[str, Any]]) -> Iterator[RowExplorer]:
    widget = RowExplorer(path)
    ask(widget, "ready")
    yield widget
    widget.close()


def ask(widget: Any, kind: str, **content: object) -> None:
    widget._receive(widget, {"kind": kind, **content}, None)
    assert widget.wait()


def last(said: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return [m for m in said if m["kind"] == kind][-1]


def choose(widget: Any, said: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    names = [n for _, n in json.loads(last(said, "tables")["tables"])]
    ask(widget, "choose", index=names.index(name))
    return last(said, "table")


def test_a_row_through_its_key_change(explorer: RowExplorer, said: list[Mapping[str, Any]]) -> None:
    table = choose(explorer, said, "orders")
    assert (
        table["key"] == ["id"] and table["masked"] == ["customer"] and set(table["keys"]) == {"id=2", "id=7"}
    )
    ask(explorer, "explain", key=["7"])
    steps = last(said, "steps")["steps"]
    assert [(s["op"], s["key"], s["note"]) for s in steps] == [
        ("read", "id=1", ""), ("update", "id=1", ""), ("delete", "id=1", "the key changes"),
        ("insert", "id=7", "the key was id=1"), ("update", "id=7", ""),
    ]  # fmt: skip
    [total, note] = steps[1]["changes"]
    assert total == ["total", ["10.00", 5], ["12.00", 5]]
    assert note[:2] == ["note", ["", 0]] and note[2][1] == len(LONG) and len(note[2][0]) < 200
    assert all(s["version"] is not None and s["file"] and s["position"] and s["moment"] for s in steps)
    ask(explorer, "row", step=4)
    cells = {name: (now, changed, was) for name, now, changed, was in last(said, "row")["cells"]}
    assert list(cells) == ["id", "customer", "total", "paid", "remark"], "the columns of then, none of before"
    assert cells["paid"][0] == ["\\x00\\x01", 8] and cells["remark"][1] and cells["remark"][2][1] == len(LONG)
    assert len(cells["customer"][0][0]) == 64 and "ann@x.org" not in json.dumps(said)
    ask(explorer, "cell", step=1, column="note", side="row", ask=5)
    assert last(said, "cell")["text"] == LONG and last(said, "cell")["more"] < 0
    ask(explorer, "row", step=2)
    assert last(said, "row")["gone"] and last(said, "row")["cells"]


def test_what_waits_in_quarantine_is_said(explorer: RowExplorer, said: list[Mapping[str, Any]]) -> None:
    choose(explorer, said, "orders")
    ask(explorer, "explain", key=["id=2"])
    first, second = last(said, "steps")["steps"]
    assert first["waits"] == "" and explorer.steps[0].row["note"] is None
    assert "total" in second["waits"]


def test_a_composite_key_and_one_that_never_was(explorer: RowExplorer, said: list[Mapping[str, Any]]) -> None:
    table = choose(explorer, said, "stock")
    assert table["key"] == ["shop", "item"]
    for key in (["s1", "11"], ["shop=s1,item=11", ""], ["s1,11", ""]):
        ask(explorer, "explain", key=key)
        found = last(said, "steps")
        assert found["fields"] == ["s1", "11"] and [s["op"] for s in found["steps"]] == ["read", "delete"]
    assert "explain shop.stock shop=s1,item=11" in found["copy"][0][1]
    ask(explorer, "explain", key=["s'--", "11"])
    assert last(said, "steps")["steps"] == [] and last(said, "steps")["copy"]
    assert "this key was never there" in explorer.page()
    ask(explorer, "explain", key=["s1", "eleven"])
    assert "cannot be a key" in last(said, "failed")["message"]
    ask(explorer, "explain", key=["s1", ""])
    assert last(said, "failed")["message"].startswith("the key")


def test_the_table_as_of_a_moment(explorer: RowExplorer, said: list[Mapping[str, Any]]) -> None:
    choose(explorer, said, "stock")
    ask(explorer, "explain", key=["s1", "11"])
    read, delete = last(said, "steps")["steps"]
    ask(explorer, "page", moment=read["moment"], first=0)
    page = last(said, "page")
    assert (page["count"], page["first"], len(page["rows"])) == (60, 0, 25) and page["columns"] == [
        "shop",
        "item",
        "pieces",
    ]
    assert page["keys"][0] == "shop=s0,item=1" and page["rows"][0] == [["s0", 2], ["1", 1], ["1", 1]]
    ask(explorer, "page", moment=delete["moment"], first=50)
    page = last(said, "page")
    assert (page["count"], len(page["rows"]), page["most"]) == (59, 9, 25)
    ask(explorer, "page", moment="", first=0)
    assert last(said, "page")["count"] == 59 and last(said, "page")["moment"] is None
    ask(explorer, "page", moment="yesterday", first=0)
    assert "no moment" in last(said, "failed")["message"] and last(said, "failed")["hint"]


def test_a_table_without_a_key_shows_its_changes(
    explorer: RowExplorer, said: list[Mapping[str, Any]]
) -> None:
    assert choose(explorer, said, "visits")["key"] == []
    page = last(said, "page")
    assert page["count"] == 3 and page["rows"][0][1] == ["/b\n<script>", 11]
    with pytest.raises(ConfigError, match="no key"):
        explorer.explore("shop.visits", "1")


def test_names_that_look_alike_and_hostile_ones(
    explorer: RowExplorer, said: list[Mapping[str, Any]], path: Path
) -> None:
    assert choose(explorer, said, "Orders")["keys"] == ["id=1"]
    choose(explorer, said, HOSTILE)
    ask(explorer, "explain", key=["x<b>"])
    name, *cells = last(said, "steps")["steps"][0]["changes"][1]
    assert name.startswith("a_b_") and cells == [None, ["y", 1]]
    page = str(explorer._repr_mimebundle_()[0]["text/html"])
    assert "<img" not in page and "&lt;img" in page and "x&lt;b&gt;" in page
    assert "changes of the key" not in page and ">y<" not in page, "no value stays in the notebook"


def test_what_cannot_be_shown_is_a_sentence(path: Path, said: list[Mapping[str, Any]]) -> None:
    for given, says in (
        ({"table": "shop.none"}, "none of the captured"),
        ({"table": "shop.stock", "key": "1"}, "the key"),
    ):
        widget = RowExplorer(path, **given)
        assert says in widget.page()
        ask(widget, "ready")
        assert says in last(said, "failed")["message"] and last(said, "tables")
        widget.close()
    away = RowExplorer(path.parent / "none.yml")
    ask(away, "ready")
    assert "there is no" in last(said, "problem")["message"]
    away.close()
    assert "nothing to show" in RowExplorer(path).page()


def test_reading_does_not_hold_the_kernel_up(
    path: Path, said: list[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, plain = threading.Event(), Pipeline.recent_keys
    monkeypatch.setattr(Pipeline, "recent_keys", lambda *given: go.wait(20) and plain(*given))
    widget = RowExplorer(path, "shop.stock")
    widget._receive(widget, {"kind": "ready"}, None)
    for index in (0, 1, 2):  # what was asked for meanwhile and is not wanted any more is not read
        widget._receive(widget, {"kind": "choose", "index": index}, None)
    assert said[0]["kind"] == "reading"
    go.set()
    assert widget.wait()
    stock = [n for _, n in json.loads(last(said, "tables")["tables"])].index("stock")
    assert {m["index"] for m in said if m["kind"] == "table"} <= {2, stock} and widget.table is not None
    widget.close()


def test_versions_and_a_change_that_is_let_in(path: Path, said: list[Mapping[str, Any]]) -> None:
    timeline = SchemaTimeline(path, "shop.orders")
    assert "renamed to remark" in timeline.page()
    ask(timeline, "ready")
    first, second = last(said, "versions")["versions"]
    assert first["changes"][0][0] == "first" and second["changes"] == [["renamed", "note renamed to remark"]]
    ask(timeline, "diff", since=1, to=2)
    assert "+remark text" in last(said, "diff")["diff"]
    ask(timeline, "diff", since=0, to=2)
    assert "+id integer" in last(said, "diff")["diff"] or "+id int" in last(said, "diff")["diff"]
    names = [n for _, n in json.loads(last(said, "tables")["tables"])]
    ask(timeline, "choose", index=names.index("frozen"))
    [held] = last(said, "versions")["held"]
    assert "b integer (older rows: 5) added" in held and "freeze" in held and "held back" in timeline.page()
    with Pipeline.open(path) as pipeline:
        assert pipeline.table("shop.frozen").columns[:2] == ["id", "a"]
        with hold(pipeline.parts.state, pipeline.config.name):
            ask(timeline, "accept", index=names.index("frozen"))
        assert "explored" in last(said, "failed")["message"] and pipeline.table("shop.frozen").shape[1] > 2
        ask(timeline, "accept", index=names.index("frozen"))
        assert last(said, "accepted")["moved"] == ["shop.frozen"] and last(said, "versions")["held"] == []
        assert pipeline.table("shop.frozen").columns[:3] == ["id", "a", "b"]
    ask(timeline, "accept", index=names.index("frozen"))
    assert last(said, "accepted")["moved"] == []
    timeline.close()


def attempt(picker: TablePicker, said: Sequence[Mapping[str, Any]], name: str, field: str, text: str) -> Any:
    names = [t[1] for t in json.loads(last(said, "tables")["tables"])]
    picker._receive(picker, {"kind": "try", "index": names.index(name), "field": field, "text": text}, None)
    assert picker._trying.wait()
    return last(said, "tried")


def test_partitions_and_filters_are_tried_while_they_are_typed(
    path: Path, said: list[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    picker = TablePicker(path)
    text = path.read_text()
    found = attempt(picker, said, "stock", "partition", "/@1(in=%s)")
    assert found["folders"] == [f"in=s{n}" for n in range(5)]
    assert last(said, "tried")["says"] == ["7 folders for 59 rows"]
    read = headwater_widgets.trying.take_sample
    monkeypatch.setattr(headwater_widgets.trying, "take_sample", lambda *given: pytest.fail("read again"))
    assert attempt(picker, said, "stock", "partition", "/@item(i=%.1i)")["folders"][:2] == ["i=0", "i=10"]
    assert attempt(picker, said, "stock", "where", "pieces > 50 and shop <> 's6'")["kept"] == 9
    assert last(said, "tried")["looked"] == 59
    for field, wrong, says in (
        ("partition", "/@1(in=%z)", "unknown code"), ("partition", "/@nope(%s)", "no column `nope`"),
        ("partition", "/@1(shop=%s)", "a column of the table too"), ("where", "pieces > ", "expected"),
        ("where", "piece > 1", "piece"), ("initial_where", "pieces ~ 1", "sign"),
    ):  # fmt: skip
        found = attempt(picker, said, "stock", field, wrong)
        assert says in found["error"] and "^" in found["error"] and found["hint"], found
    assert attempt(picker, said, "stock", "where", " ") == {
        "kind": "tried",
        "index": found["index"],
        "field": "where",
    }
    monkeypatch.setattr(headwater_widgets.trying, "take_sample", read)
    # What is masked stays so: folders have the hash, and a filter is not told on values.
    found = attempt(picker, said, "orders", "partition", "/@2(c=%8s)")
    assert "folders" in found, found
    [folder, *_] = found["folders"]
    assert len(folder) == 10 and "ann" not in folder
    assert "is masked" in attempt(picker, said, "orders", "where", "customer = 'ann@x.org'")["says"][0]
    assert attempt(picker, said, "emptied", "partition", "/@1(i=%i)")["folders"] == []
    assert attempt(picker, said, "emptied", "where", "id > 1")["looked"] == 0
    assert path.read_text() == text and not picker.diff
    picker.close()


def test_key_and_types_are_chosen_by_column(path: Path, said: list[Mapping[str, Any]]) -> None:
    picker = TablePicker(path)
    names = [t[1] for t in json.loads(last(said, "tables")["tables"])]

    def tell(kind: str, name: str, **more: object) -> None:
        picker._receive(picker, {"kind": kind, "index": names.index(name), **more}, None)

    tell("key", "visits", column="page", on=True)
    tell("key", "visits", column="at", on=True)
    tell("cast", "visits", column="page", text="{to: date, format: yyyyMMdd}")
    assert "+    key: [page, at]\n+    cast: {page: {to: date, format: yyyyMMdd}}" in picker.diff
    tell("table", "visits")
    assert [(c["name"], c["key"], c["cast"]) for c in last(said, "table")["columns"]] == [
        ("at", True, ""), ("page", True, "{to: date, format: yyyyMMdd}"),
    ]  # fmt: skip
    tell("cast", "visits", column="page", text="dat")
    assert last(said, "failed")["message"]
    tell("cast", "visits", column="page", text="")
    tell("key", "visits", column="at", on=False)
    tell("key", "visits", column="page", on=False)
    assert not picker.diff
    # The source's own key needs no words, and is what stands there when ours is taken away.
    tell("key", "stock", column="item", on=False)
    assert "key: [shop]" in picker.diff
    tell("key", "stock", column="shop", on=False)
    assert not picker.diff
    tell("table", "orders")
    assert [c["cast"] for c in last(said, "table")["columns"]][2] == "decimal(10,2)"
    picker.close()


def test_a_table_that_is_not_in_the_lake_yet_and_a_source_that_is_away(
    path: Path, said: list[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_: object, **__: object) -> Any:
        raise StorageError("the lake has no mirror of this table", hint="headwater run")

    monkeypatch.setattr(Pipeline, "recent_keys", no)
    explorer = RowExplorer(path, "shop.stock", "s1,12")
    ask(explorer, "ready")
    assert last(said, "table")["keys"] == [] and "no mirror" in last(said, "failed")["message"]
    assert [s["op"] for s in last(said, "steps")["steps"]] == ["read"]
    explorer.close()

    def away(*_: object) -> Any:
        raise SourceError("the server is away", hint="ping it")

    monkeypatch.setattr(Pipeline, "schema_held", away)
    timeline = SchemaTimeline(path, "shop.orders")
    ask(timeline, "ready")
    assert "is away" in last(said, "versions")["away"] and last(said, "versions")["held"] == []
    timeline.close()


def test_every_key_that_is_offered_can_be_explained(
    explorer: RowExplorer, said: list[Mapping[str, Any]]
) -> None:
    explained = 0
    for _, name in json.loads(last(said, "tables")["tables"]):
        table = choose(explorer, said, name)
        for key in table["keys"]:
            ask(explorer, "explain", key=[key, *[""] * (len(table["key"]) - 1)])
            found = last(said, "steps")
            assert found["key"] == key and found["steps"], key
            explained += 1
    assert explained > 20


def test_a_truncate_and_a_lost_table_wait_for_a_word_too(path: Path, said: list[Mapping[str, Any]]) -> None:
    timeline = SchemaTimeline(path)
    ask(timeline, "ready")
    names = [n for _, n in json.loads(last(said, "tables")["tables"])]
    for name, says in (("emptied", "was truncated at the source"), ("gone", "was dropped at the source")):
        ask(timeline, "choose", index=names.index(name))
        [held] = last(said, "versions")["held"]
        assert says in held and "fail" in held
        ask(timeline, "accept", index=names.index(name))
        assert last(said, "accepted")["moved"] == [f"shop.{name}"] and last(said, "versions")["held"] == []
    timeline.close()
