"""Parts of tables: their arithmetic, and what PostgreSQL makes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import SourceError
from headwater.model import TableSchema
from headwater.sources import Begun
from headwater.sources.postgres import copies, keyed, parts
from headwater.sources.postgres import cut as cuts
from headwater.sources.postgres.cut import PostgresCut
from headwater.sources.postgres.frames import Frames
from headwater.sources.postgres.parts import File, condition, name_parts
from postgres.rig import opened, rows_of, table
from servers.postgres import Database


def blocks_of(name: str) -> tuple[int, float]:
    first, _, last = name.rpartition(" ")[2].partition("-")
    return int(first), float(last or "inf")


files = st.lists(
    st.builds(File, st.integers(1, 99), st.integers(1, 9), st.integers(0, 3000), st.integers(0, 1 << 31)),
    min_size=1, max_size=4, unique_by=lambda f: f.oid,
)  # fmt: skip


@given(files, st.data())
def test_parts_cover_every_block_once_whatever_was_read_and_grew(now: list[File], data: Any) -> None:
    names = name_parts(now)
    assert names is not None
    done: list[str] = []
    for _ in range(3):
        if names == [""]:
            return
        spans = sorted(blocks_of(n) for n in [*names, *done])
        assert spans[0][0] == 0
        assert spans[-1][1] == float("inf")
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
        done += data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
        grown = [replace(f, blocks=f.blocks + data.draw(st.integers(0, 3000))) for f in now]
        names = name_parts(grown, done)
        assert names is not None
        assert len(names) <= len(grown) + 8 + sum(f.bytes for f in grown) * 2 // parts.PART_BYTES + 50


def test_parts_mean_nothing_in_another_file_but_a_newer_partition_does_no_harm() -> None:
    here = [File(10, 1, 90_000, 1 << 30), File(11, 2, 50_000, 1 << 29)]
    names = name_parts(here)
    assert names is not None and len(names) > 5
    assert name_parts([replace(here[0], node=7), here[1]], names[:1]) is None
    assert name_parts(here[:1], names[:1]) is None
    assert name_parts([*here, File(9, 3, 10, 80_000)], names[:1]) is None
    assert name_parts([*here, File(12, 3, 10, 80_000)], names[:1]) is not None
    assert name_parts(here, ["ctid 0-5"]) is None
    assert condition(names[0]).startswith("ctid >= '(0,0)' and ctid < '(")
    assert condition(names[-1]).count("ctid") == 1


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 64 << 10)
    monkeypatch.setattr(parts, "_FEWEST", 2)
    monkeypatch.setattr(copies, "PIECE", 50_000)
    monkeypatch.setattr(cuts, "BATCH", 100_000)


def read_parts(cut: PostgresCut, name: str, names: Any) -> list[Any]:
    return [row for part in names for row in rows_of(list(cut.read(table(name), part)))]


def begun(schema: TableSchema, done: list[str], keys: pa.Table | None = None) -> Begun:
    return Begun(schema, done, keys or pa.schema([schema.arrow().field(n) for n in schema.key]).empty_table())


@pytest.mark.live
@pytest.mark.parametrize("pg_version", [15, 18])
def test_the_parts_are_the_table_and_the_server_scans_only_their_blocks(pg: Database, tiny: None) -> None:
    pg.run("create table a(id int primary key, v text); insert into a select i, repeat('x', 90) from"
           " generate_series(1, 9000) i; analyze a")  # fmt: skip
    with opened(pg.url) as source, source.cut() as cut:
        names = cut.parts(table("a"))
        assert names is not None and len(names) > 10
        rows = read_parts(cut, "a", names)
        assert sorted(r["id"] for r in rows) == list(range(1, 9001))
        for name in (names[3], names[-1]):
            plan = pg.run(f"explain select id from only a where {condition(name)}")
            assert "Tid Range Scan" in plan[0][0]


@pytest.mark.live
def test_a_partitioned_table_needs_no_right_on_its_partitions(pg: Database, tiny: None) -> None:
    pg.run("create table a(id int primary key, v text) partition by range (id);"
           "create table a1 partition of a for values from (0) to (5000);"
           "create table a2 partition of a for values from (5000) to (5100);"
           "create table a3 partition of a for values from (5100) to (9999);"
           "insert into a select i, repeat('x', 90) from generate_series(1, 9000) i")  # fmt: skip
    role, url = pg.add_role("login replication")
    pg.run(f"grant usage on schema public to {role}; grant select on a to {role}")
    with opened(url) as source, source.cut() as cut:
        names = cut.parts(table("a"))
        assert names is not None and len(names) > 10
        rows = read_parts(cut, "a", names)
        assert sorted(r["id"] for r in rows) == list(range(1, 9001))
        schema = next(iter(cut.read(table("a"), names[0]))).schema
    pg.run("create table a4 partition of a for values from (9999) to (10050); insert into a values (10000)")
    with opened(pg.url) as source, source.cut() as cut:
        left = cut.parts(table("a"), begun(schema, list(names[:-1])))
        assert left is not None and "" not in left
    pg.run("alter table a detach partition a2")
    with opened(pg.url) as source, source.cut() as cut:
        assert cut.parts(table("a"), begun(schema, list(names[:-1]))) is None


@pytest.mark.live
@pytest.mark.parametrize(
    "what", ["vacuum full a", "cluster a using a_pkey", "truncate a", "alter table a add w int"]
)
def test_a_rewritten_or_altered_table_begins_again(pg: Database, tiny: None, what: str) -> None:
    pg.run("create table a(id int primary key, v text);"
           "insert into a select i, repeat('x', 90) from generate_series(1, 3000) i")  # fmt: skip
    with opened(pg.url) as source:
        with source.cut() as cut:
            names = cut.parts(table("a"))
            assert names is not None
            schema = next(iter(cut.read(table("a"), names[0]))).schema
        pg.run("delete from a where id < 100; update a set v = 'y' where id < 200")
        with source.cut() as cut:
            left = cut.parts(table("a"), begun(schema, list(names[:2])))
            assert left is not None and not set(left) & set(names[:2])
        pg.run(what)
        with source.cut() as cut:
            assert cut.parts(table("a"), begun(schema, list(names[:2]))) is None


@pytest.mark.live
def test_rows_are_found_by_keys_of_any_type(pg: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed, "KEYS", 3)
    pg.run("""
        create type mood as enum ('so "so"', 'b\\ad', 'x,y}');
        create domain code as varchar(20);
        create table a(n numeric(12,2), t text, u uuid, d date, z timestamptz, m mood, c code, h char(5),
            f float8, b bool, v text, primary key (n, t, u, d, z, m, c, h, f, b));
        insert into a select i / 7.0, 'it''s "' || i || '\\', md5(i::text)::uuid, date '2024-01-31' + i,
            timestamptz '2024-01-01 00:00:00.123456+00' + i * interval '1 hour',
            (enum_range(null::mood))[1 + i % 3], 'c' || i, 'h' || i, i / 3.0, i % 2 = 0, 'v' || i
            from generate_series(1, 10) i
    """)
    with opened(pg.url) as source, source.cut() as cut:
        (batch,) = cut.read(table("a"))
        keys = batch.rows.select(list(batch.schema.key))
        assert cut.parts(table("a"), begun(batch.schema, [], keys)) is not None
        found = rows_of(list(cut.find(table("a"), keys.slice(1, 8))))
        assert sorted(r["v"] for r in found) == sorted(f"v{i}" for i in range(2, 10))
        assert rows_of(list(cut.find(table("a"), keys.slice(0, 0)))) == []
    pg.run("create table o(d date primary key, v text); insert into o values ('0044-03-15 BC', 'x')")
    with opened(pg.url) as source, source.cut() as cut:
        (batch,) = cut.read(table("o"))
        assert cut.parts(table("o"), begun(batch.schema, [], batch.rows.select(["d"]))) is None


@pytest.mark.live
def test_who_waits_to_alter_a_table_does_not_stop_its_second_reader(pg: Database, tiny: None) -> None:
    pg.run("create table a(id int primary key, v text); create table b(id int primary key);"
           "insert into a select i, repeat('x', 90) from generate_series(1, 3000) i")  # fmt: skip
    with opened(pg.url, connections=2) as source:
        with source.cut() as cut:
            names = cut.parts(table("a"))
            assert names is not None
            altering = threading.Thread(target=pg.run, args=("alter table a add w int",))
            altering.start()
            while not pg.run("select 1 from pg_locks where not granted"):
                time.sleep(0.05)
            got: list[int] = []
            reading = threading.Thread(target=lambda: got.append(len(read_parts(cut, "a", names))))
            with cut._readers.borrow(table("b")):  # the connection that holds the table is busy
                reading.start()
                time.sleep(0.7)
                assert not got
            reading.join(timeout=20)
            assert got == [3000]
        altering.join(timeout=20)
    assert not altering.is_alive()


@pytest.mark.live
def test_the_throttle_holds_over_all_connections(pg: Database, tiny: None) -> None:
    pg.run("create table a(id int primary key, v text);"
           "insert into a select i, repeat('x', 990) from generate_series(1, 3000) i")  # fmt: skip
    with opened(pg.url, connections=3, max_bytes_per_second=2_000_000) as source, source.cut() as cut:
        names = cut.parts(table("a"))
        assert names is not None
        began = time.monotonic()
        halves = [threading.Thread(target=read_parts, args=(cut, "a", names[n::2])) for n in range(2)]
        for half in halves:
            half.start()
        seen = pg.run("select count(*) from pg_stat_activity where application_name = 'headwater'")[0][0]
        for half in halves:
            half.join()
        assert time.monotonic() - began > 1.3
        assert seen <= 3 + 1


@pytest.mark.live
def test_stop_ends_a_read_that_waits(pg: Database) -> None:
    pg.run("create table a(id int primary key); insert into a values (1)")
    with opened(pg.url) as source, source.cut() as cut:
        failed: list[BaseException] = []

        def read() -> None:
            try:
                list(cut.read(table("a")))
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        with pg.connect(autocommit=False) as holder:
            holder.execute("lock table a in access exclusive mode")
            reading = threading.Thread(target=read)
            reading.start()
            time.sleep(0.5)
            began = time.monotonic()
            cut.stop()
            reading.join(timeout=20)
            assert time.monotonic() - began < 10
        assert isinstance(failed[0], SourceError)


def test_pieces_of_huge_rows_wait_one_at_a_time() -> None:
    made: list[int] = []

    def receive() -> Generator[copies.Piece, None, None]:
        for number in range(6):
            made.append(number)
            yield [Frames(np.empty(1, np.uint8), np.zeros(1, np.int64), np.array([300 << 20]))], True
        yield [], False

    reader = SimpleNamespace(cancel_safe=lambda timeout: None)
    with closing(copies.ahead(receive(), reader)) as taken:  # type: ignore[arg-type]
        next(taken)
        next(taken)
        time.sleep(0.3)
        # Two are with whoever decodes, one waits, one has come.
        assert len(made) == 4
        assert [more for _, more in taken] == [True] * 4 + [False]
