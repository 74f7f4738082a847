"""docs/raw-log.md is enough to read a log: this reader knows the standard library, DuckDB and that page."""

import hashlib
import json
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from headwater.model import Position, TableId
from headwater.raw import RawLog
from headwater.storage import Storage
from raw.batches import ORDERS, SCHEMA, make_batch

PAGE = Path(__file__).parents[2] / "docs" / "raw-log.md"


def read_sealed(file: Path) -> dict[str, object]:
    data = file.read_bytes()
    body, tail = data[:-78], data[-78:].decode("ascii")
    assert tail == f',"sha256":"{hashlib.sha256(body).hexdigest()}"}}\n', f"{file} is damaged"
    return json.loads(data)


def read_log(root: Path) -> list[dict]:
    """Steps 1 and 2 of the page."""
    entries = []
    while (file := root / f"raw/log/{len(entries):020d}.json").exists():
        entry = read_sealed(file)
        assert entry["format"] == "headwater-raw-log/1"
        assert entry["seq"] == len(entries)
        entries.append(entry)
    return entries


def read_rows(root: Path, namespace: str, name: str) -> duckdb.DuckDBPyRelation:
    """Steps 3 and 4: all rows of a table in order."""
    files = []
    for entry in read_log(root):
        for batch in entry["batches"]:
            if (batch["namespace"], batch["name"]) != (namespace, name) or not batch["rows"]:
                continue
            data = (root / batch["path"]).read_bytes()
            assert len(data) == batch["bytes"]
            assert hashlib.sha256(data).hexdigest() == batch["sha256"]
            files.append(str(root / batch["path"]))
    return duckdb.connect().read_parquet(files).order("_hw_seq")


def newest_epoch(root: Path, namespace: str, name: str) -> int:
    """The newest epoch that has ended: until then, the one before is shown."""
    return max(
        batch["epoch"]
        for entry in read_log(root)
        for batch in entry["batches"]
        if (batch["namespace"], batch["name"], batch["phase"]) == (namespace, name, "snapshot_end")
    )


def read_table(root: Path, namespace: str, name: str, key: str) -> dict:
    """The table, as "Full loads" and "Loads in several sittings" say: its newest whole epoch in order."""
    epoch = newest_epoch(root, namespace, name)
    files = [
        str(root / batch["path"])
        for entry in read_log(root)
        for batch in entry["batches"]
        if (batch["namespace"], batch["name"], batch["epoch"]) == (namespace, name, epoch) and batch["rows"]
    ]
    rows = duckdb.connect().read_parquet(files).order("_hw_seq")
    table: dict = {}
    deleted: dict = {}
    for row in (dict(zip(rows.columns, values, strict=True)) for values in rows.fetchall()):
        if row["_hw_op"] == "t":
            table.clear()
        elif row["_hw_op"] == "d":
            deleted = table.pop(row[key], {})
        else:
            as_it_is = table.get(row[key], deleted if row["_hw_op"] == "c" else {})
            unset = row["_hw_unset"] or []
            cells = {n: v for n, v in row.items() if not n.startswith("_hw_")}
            table[row[key]] = {n: as_it_is.get(n, "unknown") if n in unset else v for n, v in cells.items()}
    return table


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Storage.open(str(tmp_path), cache=tmp_path) as storage:
        log = RawLog(storage)
        orphan = log.stage(make_batch(7), 1, 0)
        first = log.stage(make_batch(4, phase="snapshot"), 1, 0)
        end = log.stage(make_batch(0, phase="snapshot_end"), 1, 0)
        log.append([first, end], Position("0/1"), 16)
        log.append([log.stage(make_batch(3, first=10), 1, 16)], Position("0/2"), 72)
        log.append([], Position("0/3"), 72, released=[TableId("sales", "gone")])
        assert orphan.path not in {first.path}
    return tmp_path


def test_the_page_is_enough(root: Path) -> None:
    entries = read_log(root)
    assert [e["position"] for e in entries] == ["0/1", "0/2", "0/3"]
    assert entries[2]["released"] == [{"namespace": "sales", "name": "gone"}]
    rows = read_rows(root, "sales", "orders")
    assert rows.columns == [
        "id",
        "note",
        "_hw_op",
        "_hw_seq",
        "_hw_pos",
        "_hw_at",
        "_hw_tx",
        "_hw_unset",
        "_hw_text",
    ]
    found = rows.project("id, note, _hw_op, _hw_seq").fetchall()
    assert found == [(i, f"note {i}", "c", 4 * i + 2) for i in range(4)] + [
        (i, f"note {i}", "c", 16 + 4 * i + 2) for i in range(10, 13)
    ]
    for entry in entries:
        assert all(row[3] < entry["next_row"] for row in found[: 4 if entry["seq"] == 0 else None])


def test_a_load_in_several_sittings_is_as_the_page_says(tmp_path: Path) -> None:
    from dataclasses import replace

    from headwater.model import ChangeBatch

    def rows(ops: list[tuple[str, int, str | None]]) -> pa.Table:
        made = make_batch(len(ops)).rows
        for name, values in (
            ("id", [i for _, i, _ in ops]),
            ("note", [note for *_, note in ops]),
            ("_hw_op", [op for op, *_ in ops]),
            ("_hw_unset", [["note"] if note is None else None for *_, note in ops]),
        ):
            place = made.schema.get_field_index(name)
            made = made.set_column(place, made.field(name), pa.array(values, made.field(name).type))
        return made

    def batch(phase: str, *ops: tuple[str, int, str | None]) -> ChangeBatch:
        return replace(make_batch(0), rows=rows(list(ops)), phase=phase)

    with Storage.open(str(tmp_path), cache=tmp_path) as storage:
        log = RawLog(storage)

        def commit(at: str, *batches: tuple[ChangeBatch, int, str]) -> None:
            last = log.last()
            base = last.next_row if last else 0
            staged = []
            for made, epoch, part in batches:
                staged.append(log.stage(made, epoch, base, part))
                base += 4 * made.rows.num_rows
            log.append(staged, Position(at), base)

        commit("1", (batch("snapshot_end", ("r", 1, "old"), ("r", 9, "old")), 1, ""))
        commit("2", (batch("snapshot", ("r", 1, "one"), ("r", 2, "two"), ("r", 3, "three")), 2, "first"))
        # 1 keeps its note; 3 goes; 5 and 6 were not read yet, and 6 goes again; 7 is 2's new key.
        changes = [("u", 1, None), ("d", 3, None), ("u", 5, None), ("u", 6, None), ("d", 6, None)]
        commit("3", (batch("changes", *changes, ("d", 2, None), ("c", 7, None)), 2, ""))
        assert newest_epoch(tmp_path, "sales", "orders") == 1
        assert set(read_table(tmp_path, "sales", "orders", "id")) == {1, 9}
        assert log.tables()[ORDERS].parts == ("first",)
        commit("3", (batch("snapshot", ("r", 4, "four"), ("r", 5, "five")), 2, "second"),
               (make_batch(0, phase="snapshot_end"), 2, "third"))  # fmt: skip
        commit("4", (batch("changes", ("u", 5, None)), 2, ""))
    found = read_table(tmp_path, "sales", "orders", "id")
    assert {key: row["note"] for key, row in found.items()} == {1: "one", 7: "two", 4: "four", 5: "five"}
    parts = [b.get("part") for e in read_log(tmp_path) for b in e["batches"]]
    assert parts == [None, "first", None, "second", "third", None]
    assert "`part`" in PAGE.read_text()


def test_schemas_are_as_the_page_says(root: Path) -> None:
    for entry in read_log(root):
        for batch in entry["batches"]:
            (file,) = root.glob(f"raw/schemas/*/{batch['schema']}.json")
            data = file.read_bytes()
            assert hashlib.sha256(data).hexdigest()[:32] == batch["schema"]
            doc = json.loads(data)
            assert doc["table"] == ["sales", "orders"]
            assert doc["key"] == ["id"]
            assert [c["name"] for c in doc["columns"]] == ["id", "note"]


def test_checkpoints_are_as_the_page_says(root: Path) -> None:
    log = RawLog(Storage.open(str(root), cache=root))
    for _ in range(256 - 3):
        log.tables()
        log.append([], Position("x"), 72)
    doc = read_sealed(root / f"raw/checkpoints/{255:020d}.json")
    assert (doc["format"], doc["seq"]) == ("headwater-raw-checkpoint/1", 255)
    (table,) = doc["tables"]
    expected = {"namespace": "sales", "name": "orders", "epoch": 1, "complete": True, "reload": False}
    assert table == {**expected, "schema": SCHEMA.fingerprint(), "snapshot_entry": 0}


def test_every_member_is_on_the_page(root: Path) -> None:
    page = PAGE.read_text()
    documented = set(re.findall(r"`([^`]+)`", page))
    entry = read_log(root)[0]
    for member in [*entry, *entry["batches"][0]]:
        assert member in documented, member
    (schema,) = root.glob("raw/schemas/*/*.json")
    doc = json.loads(schema.read_text())
    for member in [*doc, *doc["columns"][0]]:
        assert member in documented, member
    from headwater.model import META, Op

    for name in [*META.names, *Op]:
        assert name in documented, name
    assert ORDERS.name not in documented


def test_the_seal_notices(root: Path) -> None:
    file = root / f"raw/log/{1:020d}.json"
    file.write_bytes(file.read_bytes().replace(b'"next_row":72', b'"next_row":76'))
    with pytest.raises(AssertionError, match="damaged"):
        read_log(root)


def test_types_are_as_the_page_says(tmp_path: Path) -> None:
    """The Parquet types of the table in the page, as another reader sees them."""
    from headwater.model import ChangeBatch, Column, TableSchema, arrow_type
    from raw.batches import with_meta

    expected = {
        "bool": "BOOLEAN", "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
        "uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT",
        "float": "FLOAT", "double": "DOUBLE", "string": "VARCHAR", "binary": "BLOB", "date32[day]": "DATE",
        "time64[us]": "TIME", "timestamp[us]": "TIMESTAMP",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
        "decimal128(38, 10)": "DECIMAL(38,10)", "decimal128(5, 0)": "DECIMAL(5,0)",
    }  # fmt: skip
    columns = tuple(Column(f"c{i}", arrow_type(text)) for i, text in enumerate(expected))
    schema = TableSchema(ORDERS, columns)
    rows = with_meta(schema, [pa.nulls(2, c.type) for c in columns])
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    file = RawLog(storage).fetch(RawLog(storage).stage(ChangeBatch(schema, rows), 1, 0))
    query = "describe select * exclude (_hw_seq) from read_parquet(?)"
    found = duckdb.execute(query, [str(file)]).fetchall()
    assert [row[1] for row in found[: len(columns)]] == list(expected.values())
    assert [row[1] for row in found[len(columns) :]] == [
        "VARCHAR", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "VARCHAR", "VARCHAR[]", "VARCHAR",
    ]  # fmt: skip
