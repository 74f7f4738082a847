"""Whatever could hide a gap in the log ends in a named error; nothing that is not ours is touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.demo.server import EmbeddedPostgres
from headwater.errors import ConfigError, Conflict, HeadwaterError, PositionLost, PreflightFailed, SourceError
from headwater.model import Position
from headwater.sources.postgres import PostgresSource
from postgres.rig import Follower, brief, following, opened, table
from servers.postgres import Database

pytestmark = pytest.mark.live
EVERY = pytest.mark.parametrize("pg_version", [15, 16, 18])


def altered(position: Position, **fields: object) -> Position:
    return Position(json.dumps({**json.loads(position.token), **fields}))


def both_refuse(
    follower: Follower, error: type[HeadwaterError], words: str, at: Position | None = None
) -> None:
    """`prepare` says so at the start of a run, and `changes` in the middle of one."""
    follower.source.close()
    follower.at = at or follower.at
    with pytest.raises(error, match=words) as first:
        follower.source.prepare(follower.tables, follower.at)
    assert first.value.hint
    with pytest.raises(error, match=words):
        follower.drain()


@EVERY
def test_a_dropped_slot(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        follower.source.close()
        pg.run("select pg_drop_replication_slot('hw_test')")
        pg.run("insert into a values (1)")
        both_refuse(follower, PositionLost, "is gone")


@EVERY
def test_a_slot_made_again_under_the_same_name(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        pg.run("insert into a values (1)")
        follower.drain()
        follower.source.close()
        pg.run("insert into a values (2)")
        pg.run("select pg_drop_replication_slot('hw_test')")
        pg.run("select pg_create_logical_replication_slot('hw_test', 'pgoutput')")
        pg.run("insert into a values (3)")
        both_refuse(follower, PositionLost, "after our position")


def test_a_slot_that_somebody_else_read_from(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        follower.source.close()
        pg.run("insert into a values (1)")
        pg.run("select pg_replication_slot_advance('hw_test', pg_current_wal_lsn())")
        pg.run("insert into a values (2)")
        both_refuse(follower, PositionLost, "somebody else read from it")


@pytest.mark.parametrize("version", [15, 18])
def test_an_invalidated_slot(pg_own: Callable[..., EmbeddedPostgres], version: int) -> None:
    db = Database(
        pg_own(version, max_slot_wal_keep_size="32MB", max_wal_size="48MB", min_wal_size="32MB"), "postgres"
    )
    db.run("create table a(id int primary key)")
    with following(db, "a") as follower:
        follower.source.close()
        for n in range(5):
            db.run(f"insert into a values ({n})")
            db.run("select pg_switch_wal()")
        db.run("checkpoint")
        assert follower.source.facts()["wal_status"] == "lost"
        findings = follower.source.check(follower.tables)
        assert [f.level for f in findings if f.what == "replication slot hw_test"] == ["fail"]
        both_refuse(follower, PositionLost, "invalid")
        # What the hint says: start over. The slot is ours, so it is made again.
        follower.source.prepare(follower.tables, None)
        with follower.source.cut() as cut:
            follower.at = cut.position
        db.run("insert into a values (9)")
        assert brief(follower.drain(), "id") == [("c", 9)]


def test_a_server_restored_from_an_older_copy(
    pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path
) -> None:
    server = pg_own(15)
    db = Database(server, "postgres")
    db.run("create table a(id int primary key)")
    with following(db, "a") as follower:
        db.run("insert into a values (1)")
        follower.drain()
        follower.source.close()
        server.stop()
        shutil.copytree(server.data, tmp_path / "copy")
        server.start()
        db.run("insert into a select generate_series(2, 5000)")
        follower.drain()
        follower.source.close()
        server.stop("immediate")
        _restore(server, tmp_path / "copy")
        server.start()
        both_refuse(follower, PositionLost, "restored from an older copy")


@pytest.mark.parametrize("written", ["a", "unpublished"])
def test_a_restored_server_that_has_overtaken_us_meanwhile(
    pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path, written: str
) -> None:
    """Same system, same timeline, a log longer than ours: only what is in the log tells it from ours."""
    server = pg_own(15)
    db = Database(server, "postgres")
    db.run("create table a(id int primary key); create table unpublished(id int primary key)")
    with following(db, "a") as follower:
        db.run("insert into a values (1)")
        follower.drain()
        follower.source.close()
        server.stop()
        shutil.copytree(server.data, tmp_path / "copy")
        server.start()
        db.run("insert into a select generate_series(2, 500)")
        follower.drain()
        follower.source.close()
        server.stop("immediate")
        _restore(server, tmp_path / "copy")
        server.start()
        for n in range(20):
            db.run(f"insert into {written} select %s + i from generate_series(1, 500) i", 10_000 + 500 * n)
        assert follower.source.behind(follower.at) > 0
        with pytest.raises(PositionLost, match="went another way"):
            follower.drain()


def _restore(server: EmbeddedPostgres, copy: Path) -> None:
    owner = server.data.stat()
    shutil.rmtree(server.data)
    shutil.copytree(copy, server.data)
    import os

    for path in (server.data, *server.data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


def test_a_promoted_standby(pg_own: Callable[..., EmbeddedPostgres], tmp_path: Path) -> None:
    """A copy of the data directory with its slots, promoted: our timeline continues up to the switch."""
    server = pg_own(15)
    db = Database(server, "postgres")
    db.run("create table a(id int primary key)")
    with following(db, "a") as follower:
        db.run("insert into a values (1)")
        follower.drain()
        follower.source.close()
        db.run("insert into a values (2)")
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        db.run("select pg_promote()")
        db.run("insert into a values (3)")
        follower.source.prepare(follower.tables, follower.at)
        assert brief(follower.drain(), "id") == [("c", 2), ("c", 3)]
        assert json.loads(follower.at.token)["tli"] == 2
        # Somebody who had read on timeline 1 beyond the switch has rows that this server never had.
        beyond = altered(follower.at, tli=1)
        both_refuse(follower, PositionLost, "timeline", beyond)
        both_refuse(follower, PositionLost, "timeline", altered(follower.at, tli=3))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("sys", "123", "another server"), ("db", 5, "another database"), ("lsn", "FF/0", "restored")],
)
def test_another_server_or_database(pg: Database, field: str, value: Any, words: str) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        both_refuse(follower, PositionLost, words, altered(follower.at, **{field: value}))


def test_a_position_of_another_slot_or_kind(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        both_refuse(follower, Conflict, "slot other", altered(follower.at, slot="other"))
        both_refuse(follower, PositionLost, "not one of a PostgreSQL source", Position("binlog.000001:4"))


def test_a_slot_in_use(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower, opened(pg.url, takeover_seconds=0.5) as second:
        pg.run("insert into a values (1)")
        follower.drain()
        pid = follower.source.facts()["active_pid"]
        pg.run("insert into a values (2)")
        with pytest.raises(Conflict, match=f"process {pid}") as caught:
            list(second.changes(follower.tables, follower.at, known={}))
        assert str(pid) in caught.value.hint
        with pytest.raises(Conflict):
            second.prepare(follower.tables, follower.at)


def test_foreign_slots_are_left_alone(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    pg.run("select pg_create_logical_replication_slot('hw_test', 'test_decoding')")
    with opened(pg.url) as source, pytest.raises(PreflightFailed, match="somebody else"):
        source.prepare([table("a")], None)
    assert pg.run("select plugin from pg_replication_slots where slot_name = 'hw_test'") == [
        ("test_decoding",)
    ]


def test_a_long_transaction_in_the_way_is_named(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with opened(pg.url, cut_seconds=1.0) as source, pg.connect(autocommit=False) as busy:
        busy.execute("insert into a values (1)")
        pid = busy.info.backend_pid
        with pytest.raises(SourceError, match=f"process {pid}") as caught:
            source.prepare([table("a")], None)
        assert str(pid) in caught.value.hint
        busy.commit()
        source.prepare([table("a")], None)
        busy.execute("insert into a values (2)")
        with pytest.raises(SourceError, match=f"process {pid}"), source.cut():
            pass
        busy.rollback()
        pg.run("begin; insert into a values (3); prepare transaction 'held'")
        with pytest.raises(SourceError, match="prepared transaction to end: held"), source.cut():
            pass
        pg.run("rollback prepared 'held'")
        with source.cut() as cut:
            assert sum(b.rows.num_rows for b in cut.read(table("a"))) == 1
    assert pg.run("select slot_name from pg_replication_slots where temporary") == []


@EVERY
def test_prepare_makes_extends_and_keeps(pg: Database) -> None:
    pg.run("create table a(id int primary key); create table b(id int primary key); create table c(id int)")
    with opened(pg.url) as source:
        assert source.prepare([table("a")], None) == (table("a"),)
        slots = pg.run("select restart_lsn from pg_replication_slots")
        assert source.prepare([table("a")], None) == ()
        assert source.prepare([table("a"), table("b")], None) == (table("b"),)
        assert pg.run("select restart_lsn from pg_replication_slots") == slots
        with pytest.raises(PreflightFailed, match="no replica identity") as caught:
            source.prepare([table("c")], None)
        assert 'ALTER TABLE "public"."c" REPLICA IDENTITY FULL' in caught.value.hint
        with pytest.raises(PreflightFailed, match="does not exist"):
            source.prepare([table("d")], None)
    assert pg.run("select tablename from pg_publication_tables where pubname = 'hw_test' order by 1") == [
        ("a",),
        ("b",),
    ]
    pg.run("insert into c values (1); update c set id = 2")  # the application is not broken


def test_a_publication_of_other_shape_is_refused_with_the_statement(pg: Database) -> None:
    pg.run("create table a(id int primary key, v int)")
    for made, words in [
        ("for table a with (publish = 'insert')", "does not publish"),
        ("for table a where (id > 5)", "row filters"),
        ("for table a (id)", "column lists"),
    ]:
        pg.run(f"create publication hw_test {made}")
        with opened(pg.url) as source:
            with pytest.raises(PreflightFailed, match=words) as caught:
                source.prepare([table("a")], None)
            failed = [f for f in source.check([table("a")]) if f.level == "fail"]
            assert [f.fix for f in failed] == [caught.value.hint]
            pg.run(caught.value.hint)
            source.prepare([table("a")], None)
        pg.run("drop publication hw_test; select pg_drop_replication_slot('hw_test')")


def test_names_that_cannot_be(pg: Database) -> None:
    for words in ({"slot": "Bad-Name"}, {"slot": ""}, {"publication": ""}, {"publication": "x" * 64}):
        with pytest.raises(ConfigError):
            PostgresSource(**{"url": pg.url, "slot": "a", "publication": "a", **words})  # type: ignore[arg-type]


@EVERY
def test_a_publication_made_again_or_gone(pg: Database) -> None:
    """PostgreSQL 18 only warns in its own log, and publishes nothing meanwhile."""
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        pg.run("insert into a values (1)")
        follower.drain()
        follower.source.close()
        pg.run("drop publication hw_test")
        pg.run("insert into a values (2)")
        with pytest.raises(PositionLost, match="is gone"):
            follower.drain()
        pg.run("create publication hw_test for table a")
        pg.run("insert into a values (3)")
        both_refuse(follower, PositionLost, "made again")


def test_a_table_taken_out_of_the_publication(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        pg.run("alter publication hw_test drop table a; insert into a values (1)")
        with pytest.raises(PreflightFailed, match="not in the publication") as caught:
            follower.drain()
        assert 'ADD TABLE ONLY "public"."a"' in caught.value.hint
        assert follower.source.prepare(follower.tables, follower.at) == (table("a"),)


@pytest.mark.parametrize("pg_version", [18])
def test_generated_columns_are_in_neither_snapshot_nor_stream(pg: Database) -> None:
    columns = "s int generated always as (id * 2) stored, v int generated always as (id)"
    pg.run(f"create table a(id int primary key, {columns})")
    pg.run("create publication hw_test for table a with (publish_generated_columns = stored)")
    with opened(pg.url) as source:
        with pytest.raises(PreflightFailed, match="generated columns") as caught:
            source.prepare([table("a")], None)
        pg.run(caught.value.hint)
    with following(pg, "a") as follower:
        pg.run("insert into a values (1)")
        rows = follower.drain()
        assert follower.known[table("a")].arrow().names == ["id"]
    assert brief(rows, "id", "s") == [("c", 1, None)]


def test_a_database_that_was_dropped_and_made_again(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    with following(pg, "a") as follower:
        follower.source.close()
        pg.drop()
        pg.create()
        pg.run("create table a(id int primary key)")
        both_refuse(follower, PositionLost, "another database")
