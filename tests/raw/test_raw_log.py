"""The raw log as its writer and its readers see it."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.errors import Conflict, Corrupt, StorageError
from headwater.model import STRIDE, BatchRef, ChangeBatch, Entry, Phase, Position, TableId, TableSchema
from headwater.raw import RawLog, TableState
from headwater.raw.entries import (
    CHECKPOINT_EVERY,
    checkpoint_path,
    entry_path,
    fold_tables,
    read_checkpoint,
    read_entry,
    write_checkpoint,
    write_entry,
)
from headwater.storage import Storage
from raw.batches import ORDERS, SCHEMA, make_batch, with_meta

Place = Callable[[], Storage]
OTHER = TableId("sales", "other")


def ref(table: TableId = ORDERS, epoch: int = 1, phase: Phase = "changes", **more: object) -> BatchRef:
    """A batch without rows: positions and phases only."""
    given = {
        "schema": "ab" * 16,
        "path": "",
        "rows": 0,
        "bytes": 0,
        "sha256": "",
        "first_seq": 0,
        "last_seq": 0,
    }
    return BatchRef(table, epoch, phase, **{**given, **more})  # type: ignore[arg-type]


def fill(log: RawLog, count: int, first: int = 0) -> None:
    """Entries without rows, but for a snapshot in the first one and a new epoch now and then."""
    for number in range(first, first + count):
        phase: Phase = "snapshot_end" if number % 97 == 0 else "changes"
        log.append([ref(epoch=1 + number // 97, phase=phase)], Position(str(number)), 0)


def test_an_empty_log(storage: Storage) -> None:
    log = RawLog(storage)
    assert log.last() is None
    assert dict(log.tables()) == {}
    assert list(log.entries()) == []
    assert log.collect() == []


def test_what_was_written_is_read(place: Place) -> None:
    log = RawLog(place())
    snapshot = log.stage(make_batch(10, phase="snapshot"), 1, 0)
    end = log.stage(make_batch(0, phase="snapshot_end"), 1, 0)
    first = log.append([snapshot, end], Position("0/10"), 10 * STRIDE)
    changes = log.stage(make_batch(5, first=3), 1, 10 * STRIDE)
    second = log.append([changes], Position("0/20"), 18 * STRIDE, released=[OTHER])

    again = RawLog(place())
    assert again.last() == second
    assert list(again.entries()) == [first, second]
    assert list(again.entries(after=0)) == [second]
    assert list(again.entries(upto=0)) == [first]
    assert (first.seq, second.seq, second.position.token) == (0, 1, "0/20")
    assert (snapshot.rows, snapshot.first_seq, snapshot.last_seq) == (10, 2, 9 * STRIDE + 2)
    assert (changes.first_seq, changes.last_seq) == (13 * STRIDE + 2, 17 * STRIDE + 2)
    assert (end.path, end.rows, end.bytes, end.sha256) == ("", 0, 0, "")
    assert again.schema(ORDERS, changes.schema) == SCHEMA

    file = again.fetch(changes)
    assert file.stat().st_size == changes.bytes
    expected = make_batch(5, first=3).rows
    found = pq.read_table(file)
    assert found.schema.names == expected.schema.names
    assert found["_hw_seq"].to_pylist() == [s + 10 * STRIDE for s in expected["_hw_seq"].to_pylist()]
    assert found.drop_columns("_hw_seq").to_pylist() == expected.drop_columns("_hw_seq").to_pylist()


def test_equal_rows_are_equal_bytes_however_they_lie_in_memory(storage: Storage, tmp_path: Path) -> None:
    # Long enough for many pages, whose boundaries would follow those of the pieces.
    texts = pa.array([f"{i:0200d}" for i in range(30_100)], pa.string())
    rows = with_meta(SCHEMA, [pa.array(range(30_100), pa.int64()), texts])
    sliced, rows = rows.slice(100), pa.concat_tables([rows]).slice(100).combine_chunks()
    pieces = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 12_500), rows.slice(12_507)])
    log = RawLog(storage)
    names = {log.stage(ChangeBatch(SCHEMA, some), 1, 0).path for some in (rows, pieces, sliced)}
    assert len(names) == 1
    (only,) = storage.list("raw/data")
    assert {only} == names
    assert log.stage(ChangeBatch(SCHEMA, rows), 1, 4).path != only
    assert log.stage(ChangeBatch(SCHEMA, rows), 2, 0).path != only


def test_wide_rows_make_small_row_groups(storage: Storage) -> None:
    schema = replace(SCHEMA, columns=SCHEMA.columns[1:], key=())
    rows = with_meta(schema, [pa.array(["x" * (10 << 20)] * 30, pa.string())])
    made = RawLog(storage).stage(ChangeBatch(schema, rows), 1, 0)
    file = pq.ParquetFile(storage.fetch(made.path))
    assert file.metadata.num_row_groups == 3
    assert described(file) == {"_hw_seq", "_hw_at"}


def described(file: pq.ParquetFile) -> set[str]:
    group = file.metadata.row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    return {c.path_in_schema for c in columns if c.statistics is not None and c.statistics.has_min_max}


def test_bounds_are_kept_of_what_rows_are_looked_for_by(storage: Storage) -> None:
    schema = replace(SCHEMA, key=("note",))
    rows = with_meta(schema, [pa.array([3, None]), pa.array(["a", "b"])])
    made = RawLog(storage).stage(ChangeBatch(schema, rows), 1, 0)
    assert described(pq.ParquetFile(storage.fetch(made.path))) == {"id", "note", "_hw_seq", "_hw_at"}


@pytest.mark.parametrize("text", ["", "x", "é" * 70, "y" * (1200 << 10)])
@pytest.mark.parametrize("odd", [None, "else", "nothing"])
def test_texts_that_are_all_equal_are_texts_for_readers(storage: Storage, text: str, odd: str | None) -> None:
    texts = [text] * 12
    if odd is not None:
        texts[7] = odd if odd == "else" else None  # type: ignore[call-overload]
    rows = with_meta(SCHEMA, [pa.array(range(12), pa.int64()), pa.array(texts, pa.string())])
    made = RawLog(storage).stage(ChangeBatch(SCHEMA, rows), 1, 0)
    file = storage.fetch(made.path)
    found = pq.read_table(file)
    assert found.schema.types == rows.schema.types
    assert found.equals(rows)
    assert duckdb.sql(f"SELECT note, _hw_op FROM '{file}'").to_arrow_table().column(0).to_pylist() == texts


def test_rows_that_break_the_spec_are_refused(storage: Storage) -> None:
    log, rows = RawLog(storage), make_batch(3).rows
    seqs = rows.schema.get_field_index("_hw_seq")

    def with_seqs(*numbers: int | None) -> pa.Table:
        return rows.set_column(seqs, "_hw_seq", pa.array(numbers, pa.int64()))

    bad = [
        rows.drop_columns("_hw_tx"),
        rows.rename_columns(["a", *rows.schema.names[1:]]),
        with_seqs(2, 2, 6),
    ]
    bad += [with_seqs(10, 6, 2), with_seqs(-2, 2, 6), with_seqs(None, 2, 6), with_seqs(2, 6, (1 << 63) - 1)]
    bad += [rows.set_column(0, "id", pa.array(["1", "2", "3"]))]
    for some in bad:
        with pytest.raises(ValueError):  # noqa: PT011
            log.stage(ChangeBatch(SCHEMA, some), 1, 4)
    for base in (-4, 2):
        with pytest.raises(ValueError, match="base"):
            log.stage(ChangeBatch(SCHEMA, rows), 1, base)
    assert list(storage.list("raw/data")) == []


def test_rows_of_an_entry_stay_in_their_range(storage: Storage) -> None:
    log = RawLog(storage)
    log.append([log.stage(make_batch(5), 1, 0)], Position("a"), 20)
    below, inside = log.stage(make_batch(1), 1, 0), log.stage(make_batch(1), 1, 20)
    for refs, next_row in (([below], 24), ([inside], 20), ([], 16), ([], 22)):
        with pytest.raises(ValueError):  # noqa: PT011
            log.append(refs, Position("b"), next_row)
    assert log.append([inside], Position("b"), 24).seq == 1


def test_a_second_writer_ends_the_first_ones_session(place: Place) -> None:
    one, two = RawLog(place()), RawLog(place())
    one.append([], Position("a"), 0)
    assert one.last() == two.last()
    two.append([], Position("b"), 0)
    with pytest.raises(Conflict) as caught:
        one.append([], Position("c"), 0)
    assert "headwater" in caught.value.hint
    for act in (lambda: one.append([], Position("c"), 0), lambda: one.stage(make_batch(1), 1, 0)):
        with pytest.raises(Conflict):
            act()
    assert [e.position.token for e in RawLog(place()).entries()] == ["a", "b"]


def test_looking_does_not_move_where_a_writer_stands(place: Place) -> None:
    one, two = RawLog(place()), RawLog(place())
    one.append([], Position("a"), 0)
    two.append([], Position("b"), 0)
    assert one.last() == two.last()
    assert len(list(one.entries())) == 2
    with pytest.raises(Conflict):
        one.append([], Position("stale"), 0)
    assert [e.position.token for e in one.entries()] == ["a", "b"]


def test_a_stale_writer_is_told_of_the_conflict_not_of_its_numbers(place: Place) -> None:
    one, two = RawLog(place()), RawLog(place())
    made = one.stage(make_batch(2), 1, 0)
    one.last()
    two.append([two.stage(make_batch(5), 1, 0)], Position("theirs"), 20)
    one.last()
    with pytest.raises(Conflict):
        one.append([made], Position("ours"), 8)


def test_of_sixteen_writers_one_gets_the_number(place: Place) -> None:
    RawLog(place()).append([], Position("start"), 0)
    logs = [RawLog(place()) for _ in range(16)]
    for log in logs:
        log.last()
    start = threading.Barrier(16)

    def race(number: int) -> Entry | Conflict:
        start.wait()
        try:
            return logs[number].append([], Position(str(number)), 0)
        except Conflict as lost:
            return lost

    with ThreadPoolExecutor(16) as pool:
        ended = list(pool.map(race, range(16)))
    (won,) = [e for e in ended if isinstance(e, Entry)]
    assert list(RawLog(place()).entries())[1:] == [won]


def test_our_own_entry_after_a_lost_reply(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RawLog(storage, writer="me")
    real = storage.create
    # The write arrived; what came back said that something was there already.
    monkeypatch.setattr(storage, "create", lambda *a, **k: real(*a, **k) and False)
    entry = log.append([], Position("a"), 0)
    assert entry == log.last()
    monkeypatch.undo()
    assert log.append([], Position("b"), 0).seq == 1


def test_the_same_writer_with_other_content_is_a_conflict(place: Place) -> None:
    one, two = RawLog(place(), writer="fixed"), RawLog(place(), writer="fixed")
    one.last()
    two.last()
    one.append([], Position("a"), 0)
    with pytest.raises(Conflict):
        two.append([], Position("b"), 0)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 40])
def test_last_is_found_from_anywhere(storage: Storage, count: int) -> None:
    log = RawLog(storage)
    for number in range(count):
        log.append([], Position(str(number)), 0)
        if number % 5 == 0:
            assert RawLog(storage).last() == log.last()
    assert RawLog(storage).last().seq == count - 1  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 552 entries; to be copied before it is changed."""
    root = tmp_path_factory.mktemp("long") / "lake"
    fill(RawLog(Storage.open(str(root), cache=root)), 2 * CHECKPOINT_EVERY + 40)
    return root


def test_last_asks_little(long_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.open(str(long_log), cache=long_log)
    asked = []
    real = storage.exists
    monkeypatch.setattr(storage, "exists", lambda path: asked.append(path) or real(path))
    log = RawLog(storage)
    assert log.last().seq == 551  # type: ignore[union-attr]
    assert len(asked) <= 21
    asked.clear()
    log.last()
    assert len(asked) == 1


def test_a_hole_is_named(storage: Storage) -> None:
    fill(RawLog(storage), 10)
    storage.delete([entry_path(6)])
    for act in (lambda: RawLog(storage).last(), lambda: list(RawLog(storage).entries(-1, 9))):
        with pytest.raises(Corrupt, match="00006.json: the entry is gone"):
            act()


def test_what_else_lies_around_is_no_entry(storage: Storage) -> None:
    fill(RawLog(storage), 3)
    for name in ("raw/log/notes.txt", "raw/log/00000000000000000003.json.bak", "raw/log/3.json"):
        storage.create(name, b"")
    assert RawLog(storage).last().seq == 2  # type: ignore[union-attr]


def test_entries_may_be_left_half_read(storage: Storage) -> None:
    fill(RawLog(storage), 60)
    reading = RawLog(storage).entries()
    assert [next(reading).seq for _ in range(3)] == [0, 1, 2]
    reading.close()  # type: ignore[attr-defined]


def test_tables_follow_the_entries(storage: Storage) -> None:
    log = RawLog(storage)

    def state(*refs: BatchRef, released: tuple[TableId, ...] = ()) -> TableState | None:
        log.append(refs, Position("x"), 0, released)
        assert RawLog(storage).tables() == log.tables()
        return log.tables().get(ORDERS)

    old, new = "ab" * 16, "cd" * 16
    assert state(ref(OTHER)) is None
    assert state(ref(phase="snapshot")) == TableState(1, False, False, old, 1)
    assert state(ref(phase="snapshot_end")) == TableState(1, True, False, old, 1)
    assert state(ref(schema=new, reload=True)) == TableState(1, True, True, new, 1)
    assert state(ref(epoch=2, phase="snapshot")) == TableState(2, False, False, old, 4)
    assert state(ref(epoch=1, phase="snapshot_end")) == TableState(2, False, False, old, 4)
    assert state(ref(epoch=2, reload=True)) == TableState(2, False, True, old, 4)
    assert state(ref(epoch=2, phase="snapshot_end")) == TableState(2, True, False, old, 4)
    assert state(ref(epoch=1, reload=True)) == TableState(2, True, False, old, 4)
    assert state(released=(ORDERS, TableId("no", "body"))) == TableState(2, False, False, old, 4)
    assert state(ref(epoch=3, phase="snapshot_end", schema=new)) == TableState(3, True, False, new, 10)


def test_parts_are_kept_while_a_load_can_go_on(storage: Storage) -> None:
    log = RawLog(storage)

    def parts(*refs: BatchRef, released: tuple[TableId, ...] = ()) -> tuple[str, ...] | None:
        log.append(refs, Position("x"), 0, released)
        assert RawLog(storage).tables() == log.tables()
        state = log.tables()[ORDERS]
        assert state.followed == (state.complete or bool(state.parts))
        return None if state.complete else state.parts

    def snapshot(part: str = "", **more: object) -> BatchRef:
        return ref(phase="snapshot", part=part, **more)  # type: ignore[arg-type]

    assert parts(snapshot()) == ()
    assert parts(snapshot("a"), snapshot("b")) == ("a", "b")
    assert parts(ref(), snapshot("keys 4")) == ("a", "b", "keys 4")
    assert parts(ref(phase="snapshot_end", part="c")) is None
    assert parts(snapshot("a", epoch=2)) == ("a",)
    assert parts(ref(epoch=2, schema="cd" * 16)) == ()
    assert parts(snapshot("a", epoch=3)) == ("a",)
    assert parts(released=(ORDERS,)) == ()
    assert parts(snapshot("a", epoch=4)) == ("a",)
    assert b'"parts":["a"]' in write_checkpoint(0, dict(log.tables()))
    assert read_checkpoint(write_checkpoint(0, dict(log.tables())), 0) == log.tables()


@pytest.mark.parametrize("harm", ["none", "delete", "flip", "truncate", "empty", "newer"])
def test_checkpoints_only_save_time(long_log: Path, tmp_path: Path, harm: str) -> None:
    shutil.copytree(long_log, tmp_path, dirs_exist_ok=True)
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    truth: dict[TableId, TableState] = {}
    fold_tables(truth, RawLog(storage).entries())
    made = list(storage.list("raw/checkpoints"))
    assert made == [checkpoint_path(CHECKPOINT_EVERY - 1), checkpoint_path(2 * CHECKPOINT_EVERY - 1)]
    newest = tmp_path / made[1]
    content = newest.read_bytes()
    changed = {
        "none": content,
        "flip": content.replace(b'"epoch":6', b'"epoch":7'),
        "truncate": content[:-9],
        "empty": b"",
        "newer": content.replace(b"checkpoint/1", b"checkpoint/2"),
        "delete": None,
    }[harm]
    assert (changed == content) == (harm == "none")
    newest.unlink()
    if changed is not None:
        newest.write_bytes(changed)
    again = RawLog(storage)
    assert dict(again.tables()) == truth
    if harm == "delete":
        assert newest.read_bytes() == content


def test_a_checkpoint_spares_the_entries_before_it(long_log: Path, tmp_path: Path) -> None:
    shutil.copytree(long_log, tmp_path, dirs_exist_ok=True)
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    truth = dict(RawLog(storage).tables())
    storage.delete([entry_path(5)])
    assert dict(RawLog(storage).tables()) == truth


@pytest.mark.parametrize("byte", [0, 30, 200, -79, -78, -40, -2, -1])
def test_a_flipped_bit_in_an_entry(tmp_path: Path, byte: int) -> None:
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    log = RawLog(storage)
    log.append([log.stage(make_batch(3), 1, 0)], Position("a"), 12)
    file = tmp_path / entry_path(0)
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)
    with pytest.raises(Corrupt, match=r"raw/log/0{20}\.json"):
        RawLog(storage).last()


def test_every_flipped_bit_in_a_data_file_is_seen(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    made = RawLog(storage).stage(make_batch(50), 1, 0)
    file = tmp_path / made.path
    content = file.read_bytes()
    for place in range(0, len(content), 101):
        damaged = bytearray(content)
        damaged[place] ^= 4
        file.write_bytes(damaged)
        with pytest.raises(Corrupt, match=made.sha256) as caught:
            RawLog(Storage.open(str(tmp_path), cache=tmp_path)).fetch(made)
        assert made.path in str(caught.value)
        assert "headwater" in caught.value.hint
    file.write_bytes(content)
    assert RawLog(Storage.open(str(tmp_path), cache=tmp_path)).fetch(made) == file


def test_a_truncated_and_a_missing_data_file(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    made = RawLog(storage).stage(make_batch(50), 1, 0)
    os.truncate(tmp_path / made.path, made.bytes - 1)
    with pytest.raises(Corrupt, match=f"expected {made.bytes} bytes, found {made.bytes - 1}"):
        RawLog(storage).fetch(made)
    storage.delete([made.path])
    with pytest.raises(Corrupt, match="gone"):
        RawLog(storage).fetch(made)


def test_a_damaged_schema(storage: Storage) -> None:
    log = RawLog(storage)
    made = log.stage(make_batch(1), 1, 0)
    (path,) = storage.list("raw/schemas")
    storage.delete([path])
    storage.create(path, SCHEMA.to_json().replace("bigint", "bigant").encode())
    with pytest.raises(Corrupt, match="fingerprint"):
        RawLog(storage).schema(ORDERS, made.schema)


def test_an_entry_of_the_future(storage: Storage) -> None:
    data = write_entry(Entry(0, Position("a"), (), "w", 0))
    body = data[:-78].replace(b"raw-log/1", b"raw-log/2")
    import hashlib

    sealed = body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    storage.create(entry_path(0), sealed)
    with pytest.raises(StorageError, match="newer headwater") as caught:
        RawLog(storage).last()
    assert "upgrade" in caught.value.hint
    assert not isinstance(caught.value, Corrupt)


def test_entries_are_ascii_and_hostile_words_come_back() -> None:
    table = TableId('a"\\\u2028\0', "é\ud800{{7*7}}")
    entry = Entry(3, Position('p"\n\u202e'), (ref(table),), "w", 4, (table,))
    data = write_entry(entry)
    assert data.isascii()
    assert read_entry(data, 3) == entry
    assert json.loads(data)["format"] == "headwater-raw-log/1"
    with pytest.raises(Corrupt, match="holds entry 3"):
        read_entry(data, 4)


def test_collect_takes_only_what_is_lost_for_ever(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path), cache=tmp_path)
    log = RawLog(storage)
    orphan = log.stage(make_batch(3), 1, 0)
    kept = log.stage(make_batch(4), 1, 0)
    ahead = log.stage(make_batch(2), 1, 400)
    strange = tmp_path / "raw/data/notes.txt"
    strange.write_text("mine")
    day_old = time.time() - 86_500
    for path in (orphan.path, kept.path, ahead.path, "raw/data/notes.txt"):
        os.utime(tmp_path / path, (day_old, day_old))
    assert log.collect() == []
    log.append([kept], Position("a"), 16)
    assert log.collect(timedelta(days=2)) == []
    assert log.collect() == [orphan.path]
    assert log.collect() == []
    assert storage.exists(kept.path)
    assert storage.exists(ahead.path)
    assert strange.exists()
    young = log.stage(make_batch(1), 1, 0)
    assert log.collect() == []
    assert log.collect(timedelta(0)) == [young.path]
    assert log.append([ahead], Position("b"), 408).seq == 1


def test_hostile_tables_never_meet(storage: Storage) -> None:
    names = ["Orders", "orders", "a.b", "../../etc", "/", "~2f", "x" * 400, "x" * 401, "n\0l", "{{7*7}}", "é"]
    log = RawLog(storage)
    made = []
    for name in names:
        schema = TableSchema(TableId("public", name), SCHEMA.columns, SCHEMA.key)
        made.append(log.stage(make_batch(2, schema=schema), 1, 0))
    assert len({m.path for m in made}) == len(names)
    log.append(made, Position("a"), 8)
    again = RawLog(storage)
    assert set(again.tables()) == {TableId("public", name) for name in names}
    for one, found in zip(made, again.last().batches, strict=True):  # type: ignore[union-attr]
        assert found == one
        assert again.schema(one.table, one.schema).table == one.table
        counted = duckdb.execute("select count(*) from read_parquet(?)", [str(again.fetch(one))]).fetchall()
        assert counted == [(2,)]


def test_a_log_that_names_a_file_outside(storage: Storage) -> None:
    with pytest.raises(StorageError, match="is not the name of a file"):
        RawLog(storage).fetch(ref(path="../../etc/passwd", sha256="0" * 64, rows=1))
