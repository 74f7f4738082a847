"""Full loads of a real PostgreSQL that are stopped, go on later, and are written to all the while."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from headwater import load
from headwater.capture import Capture
from headwater.demo.server import EmbeddedPostgres
from headwater.errors import SourceError, StorageError
from headwater.model import TableId
from headwater.raw import RawLog
from headwater.sources.postgres import PostgresSource, copies, cut, parts
from headwater.storage import Storage
from raw.batches import options_of
from servers.postgres import Database
from servers.proxy import TcpProxy
from servers.s3 import Bucket

pytestmark = pytest.mark.live

TABLE = TableId("public", "t")

#: Captures one table into a folder, in parts small enough that a small table has many.
CHILD = """
import json, sys
from pathlib import Path
from headwater import load
from headwater.capture import Capture
from headwater.raw import RawLog
from headwater.sources.postgres import PostgresSource, copies, cut, parts
from headwater.storage import Storage
url, store, minutes, readers = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
parts.PART_BYTES, parts._FEWEST, load.SMALL = 256 << 10, 8, 0
copies.PIECE, cut.BATCH = 32 << 10, 64 << 10
source = PostgresSource(
    url=url, slot="hw_test", publication="hw_test", cut_minutes=minutes, connections=readers
)
wanted = [i for i in source.tables() if i.schema.table.name == "t"]
with Storage.open(store, json.loads(sys.argv[5]), cache=Path(sys.argv[6])) as storage:
    capture = Capture(source, RawLog(storage), wanted)
    capture.start()
    capture.drain()
source.close()
"""

SETUP = """
create table t (id int primary key, n int, kept text, big text);
alter table t alter big set storage external;
insert into t select i, i, 'k' || i, repeat(md5(i::text), 80) from generate_series(1, 4000) i;
insert into t select i, i, 'k' || i, 'small' from generate_series(4001, 24000) i;
"""


def capture_child(  # noqa: PLR0913
    pg: Database,
    folder: Path,
    *,
    failpoint: str = "",
    minutes: float = 30,
    readers: int = 2,
    bucket: Bucket | None = None,
) -> subprocess.Popen[str]:
    """Into the folder, or into a bucket with a cache in the folder."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "HEADWATER_FAILPOINT": failpoint}
    return subprocess.Popen(
        [
            sys.executable, "-c", CHILD, pg.url, bucket.url if bucket else str(folder), str(minutes),
            str(readers), json.dumps(options_of(bucket) if bucket else {}), str(folder / "cache"),
        ],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


#: What a load may rightly say where others truncate: it has read nothing, and the next run goes on.
MOVED = "was truncated or rewritten while the snapshot was being read"


def finish(child: subprocess.Popen[str], rightly: str = "never") -> int:
    _, said = child.communicate(timeout=120)
    assert child.returncode in (0, -signal.SIGKILL) or rightly in said, said
    return child.returncode


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(f.read_bytes()) for f in sorted((folder / "raw/log").glob("*.json"))]


def refs(folder: Path) -> list[dict[str, Any]]:
    return [ref for entry in entries(folder) for ref in entry["batches"]]


def replay(folder: Path) -> dict[int, tuple[Any, ...]]:
    """The newest epoch by docs/raw-log.md, in plain Python: id -> (n, kept, big)."""
    epoch = max(ref["epoch"] for ref in refs(folder))
    assert [r for r in refs(folder) if r["epoch"] == epoch and r["phase"] == "snapshot_end"]
    rows = [
        row
        for ref in refs(folder)
        if ref["rows"] and ref["epoch"] == epoch
        for row in pq.read_table(folder / ref["path"]).to_pylist()
    ]
    seqs = [row["_hw_seq"] for row in rows]
    assert seqs == sorted(set(seqs)) or sorted(seqs) == sorted(set(seqs))
    now: dict[int, dict[str, Any]] = {}
    moved: dict[str, Any] = {}
    for row in sorted(rows, key=lambda row: row["_hw_seq"]):
        if row["_hw_op"] == "t":
            now.clear()
        elif row["_hw_op"] == "d":
            moved = now.pop(row["id"], {})
        else:
            before = now.get(row["id"]) or (moved if row["_hw_op"] == "c" else {})
            for name in row["_hw_unset"] or ():
                row[name] = before.get(name, "NOBODY KNOWS")
            now[row["id"]] = row
    return {key: (r["n"], r["kept"], r["big"]) for key, r in now.items()}


def truth(pg: Database) -> dict[int, tuple[Any, ...]]:
    return {key: tuple(rest) for key, *rest in pg.run("select id, n, kept, big from t")}


def assert_exact(pg: Database, folder: Path) -> None:
    got, wanted = replay(folder), truth(pg)
    wrong = [k for k in got.keys() | wanted.keys() if got.get(k) != wanted.get(k)]
    assert not wrong, (len(wrong), [(k, got.get(k), wanted.get(k)) for k in wrong[:3]])


INSERT = "insert into t values (%(any)s, %(v)s, 'new', repeat('y', 3000)) on conflict (id) do nothing"
#: The big value stays as it is in most: the log does not carry it.
WRITES = (
    *["update t set n = %(v)s where id in (%(any)s, %(low)s)"] * 6,
    "update t set big = repeat(md5(%(v)s::text), 70), n = %(v)s where id = %(low)s",
    "delete from t where id = %(any)s",
    INSERT,
    "update t set id = 24000 + %(v)s where id = %(low)s",
)


@contextmanager
def writers(pg: Database, seed: int, *, truncate: bool = False) -> Iterator[None]:
    """Writes of every kind, to rows all over the table, until the block ends."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def write(number: int) -> None:
        rng = random.Random(seed * 10 + number)
        try:
            with psycopg.connect(pg.url, autocommit=True) as session:
                while not stop.wait(0.002):
                    values = {"any": rng.randint(1, 24_000), "low": rng.randint(1, 4000)}
                    statement = rng.choice(WRITES)
                    if truncate and rng.random() < 0.002:
                        statement = "truncate t"
                    with suppress(psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                        session.execute(statement.encode(), {**values, "v": rng.randint(1, 10**6)})
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed


def parts_of(folder: Path, epoch: int) -> list[str]:
    return [r["part"] for r in refs(folder) if r["epoch"] == epoch and "part" in r]


@pytest.mark.crash
@pytest.mark.parametrize(("side", "nth"), [("before", 2), ("after", 1), ("after", 5)])
def test_killed_at_a_part_and_written_to(pg: Database, tmp_path: Path, side: str, nth: int) -> None:
    pg.run(SETUP)
    with writers(pg, nth):
        assert finish(capture_child(pg, tmp_path, failpoint=f"entry.{side}:{nth}")) == -signal.SIGKILL
        time.sleep(0.5)
        assert finish(capture_child(pg, tmp_path, failpoint="entry.after:3")) == -signal.SIGKILL
        finish(capture_child(pg, tmp_path))
    finish(capture_child(pg, tmp_path))
    assert_exact(pg, tmp_path)
    assert {r["epoch"] for r in refs(tmp_path)} == {1}
    names = [p for p in parts_of(tmp_path, 1) if not p.startswith("keys")]
    assert len(names) == len(set(names)) > 8


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_and_written_to(pg: Database, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pg.run(SETUP)
    with writers(pg, seed, truncate=seed % 2 == 1):
        for _ in range(4):
            child = capture_child(pg, tmp_path, minutes=rng.choice([0.0, 0.005, 30]))
            time.sleep(rng.uniform(0.6, 2.5))
            child.kill()
            finish(child, MOVED)
        finish(capture_child(pg, tmp_path), MOVED)
    finish(capture_child(pg, tmp_path))
    assert_exact(pg, tmp_path)


def test_a_tiny_cut_time_makes_many_sittings(pg: Database, tmp_path: Path) -> None:
    pg.run(SETUP)
    with writers(pg, 7):
        finish(capture_child(pg, tmp_path, minutes=0.0))
    finish(capture_child(pg, tmp_path))
    assert_exact(pg, tmp_path)
    loads = {e["position"] for e in entries(tmp_path) if any(r.get("part") for r in e["batches"])}
    assert len(loads) > 5
    assert {r["epoch"] for r in refs(tmp_path)} == {1}


@contextmanager
def capturing(url: str, folder: Path, **options: Any) -> Iterator[Capture]:
    source = PostgresSource(url=url, slot="hw_test", publication="hw_test", **options)
    try:
        with Storage.open(str(folder), cache=folder) as storage:
            wanted = [info for info in source.tables() if info.schema.table == TABLE]
            yield Capture(source, RawLog(storage), wanted)
    finally:
        source.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 256 << 10)
    monkeypatch.setattr(parts, "_FEWEST", 8)
    monkeypatch.setattr(load, "SMALL", 0)
    monkeypatch.setattr(copies, "PIECE", 32 << 10)
    monkeypatch.setattr(cut, "BATCH", 64 << 10)


def left_behind() -> list[threading.Thread]:
    ours = ("headwater-load", "headwater-copy")
    return [thread for thread in threading.enumerate() if thread.name.startswith(ours)]


def read_ranges(log: str) -> list[str]:
    """The ranges of blocks that the server was asked for."""
    return re.findall(r"copy \(select [^\n]* where (ctid [^\n]*)\) to stdout", log)


def test_a_lost_connection_ends_the_load_and_what_was_read_is_not_read_again(
    pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path, small_parts: None
) -> None:
    server = pg_own(15, log_statement="all")
    pg = Database(server, "postgres")
    pg.run(SETUP)
    store = tmp_path / "store"
    with TcpProxy(server.port) as proxy:
        # Read slowly, so that parts are stored before the line breaks.
        slowly = 6_000_000
        with capturing(proxy.through(pg.url), store, connections=2, max_bytes_per_second=slowly) as capture:
            proxy.cut_after(8_500_000)
            with pytest.raises(SourceError):
                capture.start()
            assert not left_behind()
        done = set(parts_of(store, 1))
        assert done
        pg.run("update t set n = -1 where id % 3 = 0")
        before = len(server.log.read_text())
        with capturing(pg.url, store, connections=2) as capture:
            capture.start()
            capture.drain()
    asked = read_ranges(server.log.read_text()[before:])
    assert len(asked) == len(set(asked)) > 0
    assert not {parts.condition(part) for part in done} & set(asked)
    assert {r["epoch"] for r in refs(store)} == {1}
    assert_exact(pg, store)


def test_a_failure_to_store_ends_all_readers(
    pg: Database, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg.run(SETUP)
    real, count = RawLog.stage, iter(range(1000))

    def stage(log: RawLog, *args: Any) -> Any:
        if next(count) == 6:
            raise StorageError("the disk is full")
        return real(log, *args)

    with capturing(pg.url, tmp_path, connections=3) as capture:
        monkeypatch.setattr(RawLog, "stage", stage)
        began = time.monotonic()
        with pytest.raises(StorageError, match="the disk is full"):
            capture.start()
        assert time.monotonic() - began < 20
        assert not left_behind()
        monkeypatch.setattr(RawLog, "stage", real)
        capture.start()
        capture.drain()
    assert_exact(pg, tmp_path)
