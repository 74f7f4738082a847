"""The log as the source reads it, on real servers."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from headwater.demo.server import EmbeddedPostgres
from headwater.errors import PositionLost, SourceError
from headwater.model import STRIDE, Position
from headwater.sources.postgres import connect, stream
from headwater.sources.postgres.follow import Limits
from postgres.rig import Follower, apply, brief, following, opened, rows_of, table
from servers.postgres import Database
from servers.proxy import TcpProxy
from servers.tls import Certificates

pytestmark = pytest.mark.live

EVERY = pytest.mark.parametrize("pg_version", [15, 16, 18])


@EVERY
def test_operations_come_in_commit_order_with_position_time_and_transaction(pg: Database) -> None:
    pg.run("create table a(id int primary key, v text)")
    pg.run("create table b(id int primary key, v text)")
    with following(pg, "a", "b") as follower:
        first, second = pg.connect(autocommit=False), pg.connect(autocommit=False)
        first.execute("insert into a values (1, 'first')")
        second.execute("insert into b values (1, 'second')")
        second.commit()
        first.execute("update a set v = 'x'; delete from a")
        first.commit()
        rows = follower.drain()
        first.close(), second.close()
    assert [(r["table"], *b) for r, b in zip(rows, brief(rows, "id", "v"), strict=True)] == [
        ("b", "c", 1, "second"),
        ("a", "c", 1, "first"),
        ("a", "u", 1, "x"),
        ("a", "d", 1, None),
    ]
    assert [r["_hw_seq"] for r in rows] == [n * STRIDE + 2 for n in range(4)]
    assert len({r["_hw_pos"] for r in rows}) == len({r["_hw_tx"] for r in rows}) == 2
    assert rows[0]["_hw_at"] <= rows[1]["_hw_at"]
    assert rows[3]["_hw_unset"] == ["v"]


@EVERY
def test_a_cut_and_the_changes_after_it_neither_overlap_nor_leave_a_gap(pg: Database) -> None:
    pg.run("create table a(id serial primary key, v int)")
    pg.run("insert into a(v) select 0 from generate_series(1, 50)")
    stop = threading.Event()

    def write(seed: int) -> None:
        with pg.connect() as connection:
            n = seed
            while not stop.is_set():
                n = (n * 1103515245 + 12345) % 2**31
                connection.execute("update a set v = v + 1 where id = %s", [n % 50 + 1])
                connection.execute("insert into a(v) values (%s)", [n])
                connection.execute("delete from a where id = %s", [50 + n % 300])

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    with opened(pg.url) as source:
        source.prepare([table("a")], None)
        for writer in writers:
            writer.start()
        try:
            with source.cut() as cut:
                mirror = apply(rows_of(list(cut.read(table("a")))), "id")
                follower = Follower(source, [table("a")], cut.position)
            for _ in range(4):
                time.sleep(0.2)
                with source.cut() as cut:
                    truth = apply(rows_of(list(cut.read(table("a")))), "id")
                    mirror = apply(follower.drain(cut.position), "id", mirror)
                    assert follower.at == cut.position
                    assert mirror == truth
                mirror = apply(follower.drain(), "id", mirror)
        finally:
            stop.set()
            for writer in writers:
                writer.join()


def test_only_the_asked_for_tables_come(pg: Database) -> None:
    pg.run("create table a(id int primary key); create table b(id int primary key)")
    with following(pg, "a", "b") as follower:
        pg.run("insert into a values (1)")
        pg.run("insert into b values (1)")
        follower.tables = [table("b")]
        assert brief(follower.drain(), "table") == [("c", "b")]


def test_truncate_of_several_tables_is_a_row_in_each_in_order(pg: Database) -> None:
    pg.run("create table a(id int primary key); create table b(id int primary key references a)")
    with following(pg, "a", "b") as follower:
        pg.run("insert into a values (1)")
        pg.run("begin; insert into b values (1); truncate a cascade; insert into a values (2); commit")
        rows = follower.drain()
    got = [(r["table"], r["_hw_op"], r["id"]) for r in rows]
    assert got[:2] == [("a", "c", 1), ("b", "c", 1)]
    assert sorted(got[2:4]) == [("a", "t", None), ("b", "t", None)]
    assert got[4:] == [("a", "c", 2)]


@pytest.mark.parametrize("pg_version", [15, 18])
def test_unchanged_big_values_are_named_as_unset(pg: Database) -> None:
    pg.run("create table a(id int primary key, n int, big text)")
    pg.run("alter table a alter big set storage external")
    with following(pg, "a") as follower:
        pg.run("insert into a values (1, 1, repeat('x', 10000))")
        pg.run("update a set n = 2")
        pg.run("update a set id = 5")
        rows = follower.drain()
    assert [r["_hw_unset"] for r in rows] == [None, ["big"], ["n", "big"], ["big"]]
    assert [r["_hw_seq"] % STRIDE for r in rows] == [2, 2, 1, 2]
    assert list(apply(rows, "id")) == [5]
    assert apply(rows, "id")[5]["big"] == "x" * 10000


def test_full_identity_carries_the_old_big_value(pg: Database) -> None:
    pg.run("create table a(id int primary key, n int, big text); alter table a replica identity full")
    pg.run("alter table a alter big set storage external")
    with following(pg, "a") as follower:
        pg.run("insert into a values (1, 1, repeat('x', 10000))")
        pg.run("update a set n = 2")
        pg.run("delete from a")
        rows = follower.drain()
        assert follower.known[table("a")].key == ("id",)
    assert brief(rows, "id", "n") == [("c", 1, 1), ("u", 1, 2), ("d", 1, 2)]
    assert [len(r["big"] or "") for r in rows[:2]] == [10000, 10000]


def test_a_table_without_a_key_under_full_identity(pg: Database) -> None:
    pg.run("create table a(n int, t text); alter table a replica identity full")
    with following(pg, "a") as follower:
        pg.run("insert into a values (1, 'x'), (1, 'x')")
        pg.run("update a set n = 2 where ctid = (select min(ctid) from a)")
        pg.run("delete from a where n = 1")
        rows = follower.drain()
        assert follower.known[table("a")].key == ()
    assert brief(rows, "n", "t") == [
        ("c", 1, "x"),
        ("c", 1, "x"),
        ("d", 1, "x"),
        ("c", 2, "x"),
        ("d", 1, "x"),
    ]


def test_an_identity_index_is_the_key(pg: Database) -> None:
    pg.run("create table a(id int primary key, code text not null, n int)")
    pg.run(
        "create unique index a_code on a(code) include (n); alter table a replica identity using index a_code"
    )
    with following(pg, "a") as follower:
        assert follower.known[table("a")].key == ("code",)
        pg.run("insert into a values (1, 'x', 0)")
        pg.run("update a set id = 5")
        pg.run("update a set code = 'y'")
        rows = follower.drain()
    assert brief(rows, "id", "code") == [("c", 1, "x"), ("u", 5, "x"), ("d", None, "x"), ("c", 5, "y")]


def test_rolled_back_and_prepared_transactions(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        pg.run(
            "begin; insert into a values (1); savepoint s; insert into a values (2); rollback to s; commit"
        )
        pg.run("begin; insert into a values (3); rollback")
        pg.run("begin; insert into a values (4); prepare transaction 'p1'")
        pg.run("begin; insert into a values (5); prepare transaction 'p2'")
        assert brief(follower.drain(), "id") == [("c", 1)]
        pg.run("insert into a values (6)")
        pg.run("commit prepared 'p1'")
        pg.run("rollback prepared 'p2'")
        assert brief(follower.drain(), "id") == [("c", 6), ("c", 4)]


def test_partitions_come_under_their_root(pg: Database) -> None:
    pg.run("create table a(id int, d date, primary key (id, d)) partition by range (d)")
    pg.run("create table a1 partition of a for values from ('2020-01-01') to ('2021-01-01')")
    pg.run("create table a2 partition of a for values from ('2021-01-01') to ('2022-01-01')")
    pg.run("insert into a values (1, '2020-05-05'), (2, '2021-05-05')")
    with following(pg, "a") as follower:
        with follower.source.cut() as cut:
            assert sum(b.rows.num_rows for b in cut.read(table("a"))) == 2
        pg.run("update a set d = '2021-06-06' where id = 1")  # moves to the other partition
        pg.run("insert into a1 values (3, '2020-07-07')")
        pg.run("create table a3 partition of a for values from ('2022-01-01') to ('2023-01-01')")
        pg.run("insert into a values (4, '2022-07-07')")
        pg.run("truncate a")
        rows = follower.drain()
    assert [(r["_hw_op"], r["id"]) for r in rows] == [("d", 1), ("c", 1), ("c", 3), ("c", 4), ("t", None)]
    assert {r["table"] for r in rows} == {"a"}


def test_children_by_inheritance_are_tables_of_their_own(pg: Database) -> None:
    pg.run("create table a(id int primary key); create table child(primary key (id)) inherits (a)")
    pg.run("insert into a values (1); insert into child values (2)")
    with following(pg, "a") as follower:
        with follower.source.cut() as cut:
            assert [r["id"] for r in rows_of(list(cut.read(table("a"))))] == [1]
        assert pg.run("select tablename from pg_publication_tables where pubname = 'hw_test'") == [("a",)]
        pg.run("insert into child values (3); insert into a values (4)")
        assert brief(follower.drain(), "id") == [("c", 4)]


def test_until_stops_before_the_first_commit_behind_it_and_the_stream_goes_on(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        pg.run("insert into a values (1)")
        middle = follower.source.head()
        pg.run("insert into a values (2)")
        assert brief(follower.drain(middle), "id") == [("c", 1)]
        assert follower.at == middle
        stream = follower.source._stream
        assert brief(follower.drain(), "id") == [("c", 2)]
        assert follower.source._stream is stream
        assert follower.drain() == []


def test_the_same_stretch_can_be_read_again_until_it_is_confirmed(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        start = follower.at
        pg.run("insert into a values (1)")
        first = follower.drain(confirm=False)
        follower.at = start
        again = follower.drain()
        assert first == again
        assert follower.source.behind(follower.at) == 0
        follower.source._drop_stream()
        follower.at = start
        with pytest.raises(PositionLost, match="after our position"):
            follower.drain()


def test_windows_end_between_transactions_and_a_huge_one_is_many_batches(pg: Database) -> None:
    pg.run("create table a(id int primary key, v text)")
    with following(pg, "a", window_rows=100) as follower:
        for n in range(30):
            pg.run("insert into a select %s + i, 'x' from generate_series(1, 20) i", n * 20)
        pg.run("insert into a select 1000 + i, 'y' from generate_series(1, 1000) i")
        pg.run("insert into a values (9999, 'z')")
        sizes: list[Any] = []
        for item in follower.source.changes(follower.tables, follower.at, known={}):
            sizes.append("position" if isinstance(item, Position) else item.rows.num_rows)
    assert sizes[:2] == [100, "position"]
    assert sum(s for s in sizes if isinstance(s, int)) == 1601
    inside = sizes[12:]
    assert inside[:6] == [200, 200, 200, 200, 200, "position"] or inside.count(200) >= 4
    assert "position" not in inside[: inside.index(200) + 4]
    assert sizes[-1] == "position"


def test_leaving_in_the_middle_loses_nothing(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a", window_rows=10) as follower:
        for n in range(5):
            pg.run("insert into a select %s + i from generate_series(1, 10) i", n * 10)
        for item in follower.source.changes(follower.tables, follower.at, known={}):
            if isinstance(item, Position):
                follower.at = item
                break
        assert [r["id"] for r in follower.drain()] == list(range(11, 51))


def test_a_transaction_left_open_does_not_keep_the_goal_out_of_reach(
    pg_own: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record can be the end of the flushed log; an idle server would flush the rest much later."""
    db = Database(pg_own(15, autovacuum="off", checkpoint_timeout="1h"), "postgres")
    db.run("create table a(id int primary key, v text)")
    ends = "select pg_current_wal_flush_lsn() - '0/0', pg_current_wal_insert_lsn() - '0/0'"
    with following(db, "a") as follower, db.connect(autocommit=False) as writer:
        count = 0
        for _ in range(20):
            writer.execute(
                "insert into a select %s + i, repeat('x', 3000) from generate_series(1, 50) i", [count]
            )
            count += 50
            time.sleep(0.6)  # the server writes whole pages out meanwhile
            flushed, inserted = db.run(ends)[0]
            if flushed % 8192 == 0 and inserted > flushed:
                break
        else:
            pytest.fail("the log never ended within a record")
        began = time.monotonic()
        assert follower.drain() == []
        took = time.monotonic() - began
        writer.commit()
        assert len(follower.drain()) == count
    assert took < 5


@pytest.mark.parametrize("pg_version", [15, 18])
def test_an_idle_table_does_not_hold_the_log(pg: Database) -> None:
    pg.run("create table a(id int primary key); create table busy(id int primary key, v text)")
    with following(pg, "a") as follower:
        before = follower.source.facts()["retained_bytes"]
        for n in range(6):
            pg.run(
                "insert into busy select %s + i, repeat('x', 200) from generate_series(1, 20000) i", n * 20000
            )
            assert follower.drain() == []
            pg.run("checkpoint")
        follower.source.close()
        pg.run("checkpoint")
        after = follower.source.facts()["retained_bytes"]
    assert isinstance(before, int) and isinstance(after, int)
    assert after < 12 << 20, (before, after)  # of some 34 MB written


@pytest.mark.slow
def test_memory_is_bounded_by_the_window_not_by_the_transaction(pg: Database) -> None:
    pg.run("create table a(id int primary key, v text)")
    with following(pg, "a", window_bytes=4 << 20, window_rows=20_000) as follower:
        pg.run("insert into a select i, repeat(md5(i::text), 8) from generate_series(1, 30000) i")
        follower.drain()
        low = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pg.run("update a set v = v || 'x'")
        pg.run("insert into a select i, repeat(md5(i::text), 8) from generate_series(30001, 230000) i")
        count = 0
        for item in follower.source.changes(follower.tables, follower.at, known={}):
            if not isinstance(item, Position):
                count += item.rows.num_rows
                assert item.rows.num_rows <= 40_000
        high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert count == 230_000
    assert high - low < 60_000, (
        f"{(high - low) // 1024} MB more"
    )  # the transaction is some 55 MB of log, 200 in Arrow


def test_the_server_crashing_sends_nothing_twice(pg_own: Callable[..., EmbeddedPostgres]) -> None:
    server = pg_own(15)
    db = Database(server, "postgres")
    db.run("create table a(id int primary key)")
    with following(db, "a") as follower:
        db.run("checkpoint")
        for n in range(5):
            db.run("insert into a values (%s)", n)
            assert brief(follower.drain(), "id") == [("c", n)]
        before = follower.source.show(follower.at)
        db.run("insert into a values (5)")
        server.stop("immediate")
        server.start()
        # The slot's confirmation was not on disk: the server sends the first row again.
        slots = db.run("select confirmed_flush_lsn < %s::pg_lsn from pg_replication_slots", before)
        assert slots == [(True,)]
        assert brief(follower.drain(), "id") == [("c", 5)]


def test_a_lost_connection_is_an_error_and_the_next_call_goes_on(pg: Database) -> None:
    pg.run("create table a(id int primary key, v text)")
    with TcpProxy(pg.server.port) as proxy, opened(proxy.through(pg.url)) as source:
        source.prepare([table("a")], None)
        with source.cut() as cut:
            follower = Follower(source, [table("a")], cut.position)
        pg.run("insert into a values (0, 'x')")
        assert len(follower.drain()) == 1
        pg.run("insert into a select i, repeat('x', 100) from generate_series(1, 20000) i")
        proxy.cut_after(300_000)
        at = follower.at
        with pytest.raises(SourceError):
            follower.drain()
        assert follower.at == at
        proxy.resume()
        assert [r["id"] for r in follower.drain()] == list(range(1, 20001))


def test_a_stalled_network_is_an_error_in_bounded_time(pg: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_PATIENCE", 1.0)
    pg.run("create table a(id int primary key)")
    with TcpProxy(pg.server.port) as proxy, opened(proxy.through(pg.url)) as source:
        source.prepare([table("a")], None)
        with source.cut() as cut:
            follower = Follower(source, [table("a")], cut.position)
        source._limits = Limits(silence=1.0, nudge=100)
        pg.run("insert into a values (0)")
        follower.drain()
        pg.run("insert into a values (1)")
        goal = source.head()
        proxy.stall()
        with pytest.raises(SourceError, match="no word from the server|did not answer"):
            follower.drain(goal)
        with pytest.raises(SourceError):
            source.tables()
        proxy.resume()
        assert brief(follower.drain(goal), "id") == [("c", 1)]


def test_the_connection_stays_alive_while_the_caller_is_busy(
    pg: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_SEND", {**connect._SEND, "wal_sender_timeout": "1s"})
    monkeypatch.setattr(stream, "_BEAT", 0.3)
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        pg.run("insert into a values (1)")
        follower.drain()
        kept = follower.source._stream
        sender = follower.source.facts()["active_pid"]
        pg.run("insert into a values (2)")
        time.sleep(3)
        assert follower.source.facts()["active_pid"] == sender
        assert brief(follower.drain(), "id") == [("c", 2)]
        assert follower.source._stream is kept


def test_nothing_is_confirmed_before_the_caller_says_so(pg: Database) -> None:
    pg.run("create table a(id int primary key)")

    def confirmed() -> str:
        return str(
            pg.run("select confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'hw_test'")
        )

    with following(pg, "a") as follower:
        before = confirmed()
        pg.run("insert into a values (1)")
        follower.drain(confirm=False)
        follower.source.close()
        assert confirmed() == before
        follower.source.confirm(follower.at)
        follower.source.close()
        assert follower.source.show(follower.at) in confirmed()


def test_the_same_changes_come_through_tls(
    pg_tls: Callable[[str], EmbeddedPostgres], certificates: Certificates
) -> None:
    db = Database(pg_tls("good"))
    db.create()
    try:
        db.run("create table a(id int primary key, v text)")
        url = db.url.replace("127.0.0.1", "localhost").partition("?")[0] + f"?sslrootcert={certificates.ca}"
        with following(db, "a", url=url, window_rows=10_000) as follower:
            assert follower.drain() == []
            db.run("insert into a select i, repeat('d', i % 90) from generate_series(1, 50000) i")
            for n in range(5):
                db.run("update a set v = 'x' where id = %s", n)
            rows = follower.drain()
            stream = follower.source._stream
            db.run("delete from a where id = 7")
            assert brief(follower.drain(), "id") == [("d", 7)]
            assert follower.source._stream is stream
        assert brief(rows[:50000], "id", "v") == [("c", i, "d" * (i % 90)) for i in range(1, 50001)]
        assert brief(rows[50000:], "id", "v") == [("u", n, "x") for n in range(1, 5)]
    finally:
        db.drop()


def test_thousands_of_small_transactions_over_two_tables(pg: Database) -> None:
    pg.run("create table a(id int primary key, v int); create table b(id int primary key, v int)")
    with following(pg, "a", "b", window_rows=700) as follower:
        with pg.connect() as connection:
            connection.execute(
                "do $$ begin for i in 1..3000 loop"
                " insert into a values (i, i); insert into b values (i, -i); commit; end loop; end $$"
            )
        rows = follower.drain()
        sizes = [batch.rows.num_rows for batch in follower.batches]
    assert [(r["table"], r["id"], r["v"]) for r in rows] == [
        (name, i, i if name == "a" else -i) for i in range(1, 3001) for name in "ab"
    ]
    assert [r["_hw_seq"] for r in rows] == [n * STRIDE + 2 for n in range(6000)]
    assert len({r["_hw_tx"] for r in rows}) == len({r["_hw_pos"] for r in rows}) == 3000
    assert max(sizes) == 350


def test_no_thread_outlives_a_source(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    before = set(threading.enumerate())
    with following(pg, "a") as follower:
        pg.run("insert into a select generate_series(1, 200000)")
        for _ in follower.source.changes(follower.tables, follower.at, known={}):
            break
    assert set(threading.enumerate()) <= before
