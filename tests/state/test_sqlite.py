"""The SQLite store: the contract, and what happens to it on a bad disk or in bad company."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contracts.state import StateContract, record
from headwater.config import Config
from headwater.errors import Conflict, StorageError
from headwater.state import append_run, default_path, last_runs
from headwater.state.sqlite import SqliteState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "headwater.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteState]:
    made = SqliteState(path)
    yield made
    made.close()


@pytest.fixture
def again(path: Path, store: SqliteState) -> Iterator[SqliteState]:
    made = SqliteState(path)
    yield made
    made.close()


class TestSqlite(StateContract):
    """The contract."""


def filled(path: Path) -> None:
    store = SqliteState(path)
    for number in range(200):
        store.save(f"k{number}", {"x": "y" * 100}, expect=0)
    store.close()


def test_a_file_that_is_no_database_is_moved_aside(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"hello\n" * 1000)
    store = SqliteState(path)
    assert store.save("a", {}, expect=0).version == 1
    (warning,) = store.warnings
    assert f"{path}.damaged-1" in warning
    assert Path(f"{path}.damaged-1").read_bytes().startswith(b"hello")
    store.close()
    path.write_bytes(b"again" * 1000)
    assert "damaged-2" in SqliteState(path).warnings[0]


@pytest.mark.parametrize("page", [1, 3, 5])
def test_a_torn_page_is_never_fatal(path: Path, page: int) -> None:
    filled(path)
    with path.open("r+b") as file:
        file.seek(page * 4096 + 8)
        file.write(os.urandom(2000))
    store = SqliteState(path)
    assert store.warnings
    append_run(store, record(1))
    assert last_runs(store, "shop") == [record(1)]


def test_a_torn_file_is_got_over_while_it_is_open(path: Path) -> None:
    filled(path)
    store = SqliteState(path)
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 200] = os.urandom(200)
    path.write_bytes(data)
    store._db.execute("PRAGMA shrink_memory")  # type: ignore[union-attr]  # nothing may come from the cache
    assert store.load("k7") is None
    assert store.save("k7", {"x": 1}, expect=0).version == 1
    assert len(store.warnings) == 1


def test_a_truncated_file_is_never_fatal(path: Path) -> None:
    filled(path)
    os.truncate(path, 5000)
    store = SqliteState(path)
    assert store.save("a", {}, expect=0).version == 1
    assert store.warnings


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    assert SqliteState(path).warnings == ()


def test_a_changed_byte_inside_a_value_is_noticed(path: Path, store: SqliteState) -> None:
    store.save("a", {"n": 1}, expect=0)
    store.save("b", {"n": 1}, expect=0)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE state SET value = replace(value, '1', '7') WHERE key = 'a'")
    assert store.load("a") is None
    assert store.load("b") is not None
    assert "'a'" in store.warnings[0]
    assert store.save("a", {"n": 2}, expect=0).version == 1


def test_a_row_put_under_another_key_is_noticed(path: Path, store: SqliteState) -> None:
    store.save("a", {"n": 1}, expect=0)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE state SET key = 'b'")
    assert store.load("b") is None


def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE accounts (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program's") as failed:
        SqliteState(path)
    assert failed.value.hint
    assert path.read_bytes() == before


def test_a_newer_headwaters_file_is_left_alone(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 2")
    with pytest.raises(StorageError, match="newer headwater"):
        SqliteState(path)
    assert not list(path.parent.glob("*damaged*"))


def test_a_place_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "x.db", tmp_path / "folder", Path("/proc/headwater/x.db"), "a\0b"):
        with pytest.raises(StorageError) as failed:
            SqliteState(place)
        assert failed.value.hint


def test_a_full_disk_is_a_named_error_and_loses_nothing(path: Path, store: SqliteState) -> None:
    store.save("a", {"n": 1}, expect=0)
    store._db.execute("PRAGMA max_page_count = 20")  # type: ignore[union-attr]  # what a full disk looks like
    with pytest.raises(StorageError, match="full"):
        store.save("b", {"x": "y" * 1_000_000}, expect=0)
    assert store.load("a").value == {"n": 1}  # type: ignore[union-attr]
    assert not store.warnings


def test_a_writer_that_stays_is_named_after_the_busy_time(path: Path) -> None:
    store = SqliteState(path, busy_seconds=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        store.save("a", {}, expect=0)
    other.execute("ROLLBACK")
    assert store.save("a", {}, expect=0).version == 1


def test_a_closed_store_says_so(store: SqliteState) -> None:
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.load("a")


_RACER = """
import sys
from headwater.errors import Conflict
from headwater.state.sqlite import SqliteState
store = SqliteState(sys.argv[1])
won = 0
for number in range(30):
    try:
        store.save(f"k{number}", {"by": sys.argv[2]}, expect=0)
        won += 1
    except Conflict:
        pass
print(won)
"""


def test_of_many_processes_that_make_the_file_together_one_wins_each_key(path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, path, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    won = [int(racer.communicate()[0]) for racer in racers]
    assert sum(won) == 30


def test_a_copied_state_is_a_whole_state(path: Path, store: SqliteState, tmp_path: Path) -> None:
    store.save("a", {"n": 1}, expect=0)
    store.close()
    shutil.copy(path, tmp_path / "copy.db")
    assert SqliteState(tmp_path / "copy.db").load("a").value == {"n": 1}  # type: ignore[union-attr]


def test_the_default_place_follows_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_path(Config("shop", {}, "/data/lake")) == Path("/data/lake/state/headwater.db")
    one, two = (default_path(Config("shop", {}, f"s3://{b}/x")) for b in "ab")
    assert one.parent == tmp_path / ".local/state/headwater"
    assert one != two
    assert one.name.startswith("shop-")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_path(Config("shop", {}, "s3://a")).parent == Path("/var/state/headwater")


def test_two_writers_of_run_records_keep_both(path: Path, store: SqliteState, again: SqliteState) -> None:
    def late(prefix: str, *, last: int | None = None) -> list[str]:
        found = SqliteState.keys(store, prefix, last=last)
        if last == 1 and not getattr(late, "called", False):
            late.called = True  # type: ignore[attr-defined]
            append_run(again, record(1))
        return list(found)

    store.keys = late  # type: ignore[method-assign, assignment]
    append_run(store, record(2))
    assert last_runs(again, "shop", 9) == [record(2), record(1)]


def test_conflict_says_what_to_do(store: SqliteState) -> None:
    with pytest.raises(Conflict) as failed:
        store.save("a", {}, expect=4)
    assert failed.value.hint


def test_a_file_that_another_process_mended_meanwhile_stays(path: Path, store: SqliteState) -> None:
    store.save("a", {"n": 1}, expect=0)
    store._set_aside()  # what a process does that saw the damage before the other one mended it
    assert store.load("a") is not None
    assert not store.warnings
    assert not list(path.parent.glob("*damaged*"))


def test_many_that_make_the_file_at_the_same_moment_all_get_it(tmp_path: Path) -> None:
    def make(number: int, start: threading.Barrier, path: Path) -> int:
        start.wait()
        return SqliteState(path).save(f"k{number}", {}, expect=0).version

    with ThreadPoolExecutor(8) as pool:
        for each in range(20):
            start = threading.Barrier(8)
            made = [pool.submit(make, n, start, tmp_path / f"{each}.db") for n in range(8)]
            assert [m.result() for m in made] == [1] * 8
