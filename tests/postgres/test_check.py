"""The preflight: every finding on a server that is wrong in that way, and that its statement mends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from headwater.demo.server import EmbeddedPostgres
from headwater.errors import PreflightFailed, SourceError
from headwater.model import Finding
from headwater.sources.postgres import PostgresSource
from postgres.rig import Follower, brief, opened, rows_of, table
from servers.postgres import Database

pytestmark = pytest.mark.live
EVERY = pytest.mark.parametrize("pg_version", [15, 16, 18])


def failures(source: PostgresSource, *names: str) -> list[Finding]:
    return [f for f in source.check([table(name) for name in names]) if f.level == "fail"]


def mend(db: Database, source: PostgresSource, *names: str) -> None:
    """Run each fix as it stands until nothing fails."""
    for _ in range(6):
        found = failures(source, *names)
        if not found:
            return
        db.run(found[0].fix)
    pytest.fail(f"still wrong: {found}")


@EVERY
def test_a_good_server_has_nothing_to_complain_of(pg: Database) -> None:
    pg.run("create table a(id int primary key)")
    before = pg.run("select count(*) from pg_replication_slots union all select count(*) from pg_publication")
    with opened(pg.url) as source:
        found = source.check([table("a")])
        assert {f.level for f in found} <= {"ok", "warn"}
        assert {"wal_level", "server encoding", "replication slot hw_test"} <= {f.what for f in found}
        assert before == pg.run(
            "select count(*) from pg_replication_slots union all select count(*) from pg_publication"
        )
        source.prepare([table("a")], None)
        assert not failures(source, "a")


def test_a_server_that_is_not_set_up(pg_own: Callable[..., EmbeddedPostgres]) -> None:
    server = pg_own(
        15, wal_level="replica", max_replication_slots=1, max_wal_senders=1, max_slot_wal_keep_size=-1
    )
    db = Database(server, "postgres")
    db.run("create table a(id int primary key)")
    db.run("alter system set synchronous_standby_names = '*'")
    with opened(db.url) as source:
        found = {f.what: f for f in source.check([table("a")])}
        assert {w for w, f in found.items() if f.level == "fail"} == {
            "wal_level", "max_replication_slots", "max_wal_senders",
        }  # fmt: skip
        assert found["max_slot_wal_keep_size"].level == "warn"
        with pytest.raises(SourceError, match="wal_level"):
            source.prepare([table("a")], None)
        for name in ("wal_level", "max_replication_slots", "max_wal_senders"):
            db.run("alter system reset synchronous_standby_names")
            db.run(found[name].fix.partition("--")[0])
            server.settings.pop(name, None)
    server.stop()
    server.settings = {k: v for k, v in server.settings.items() if not k.startswith(("wal_level", "max_"))}
    server.start()
    with opened(db.url) as source:
        assert not failures(source, "a")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("create table a(v int)", "REPLICA IDENTITY FULL"),
        ("create table a(v int primary key deferrable)", "DEFERRABLE"),
        ("create table a(v int primary key); alter table a replica identity nothing", "REPLICA IDENTITY"),
        (
            "create table a(v int not null, w int); create unique index i on a(v);"
            " alter table a replica identity using index i; drop index i",
            "REPLICA IDENTITY",
        ),
        (
            "create table a(v int primary key) partition by range (v);"
            " create table a1 partition of a for values from (0) to (9);"
            " alter table a1 replica identity nothing",
            "a1",
        ),
    ],
)
def test_a_table_whose_updates_would_fail(pg: Database, made: str, words: str) -> None:
    pg.run(made)
    with opened(pg.url) as source:
        (found,) = failures(source, "a")
        assert found.table == table("a")
        assert words in found.fix
        with pytest.raises(PreflightFailed):
            source.prepare([table("a")], None)
        assert pg.run("select count(*) from pg_publication") == [(0,)]
        choice = found.fix.partition("   (")[0].split("   or  ")[-1]
        pg.run(choice)
        assert not failures(source, "a")
        source.prepare([table("a")], None)
        pg.run("insert into a values (1)")
        pg.run("update a set v = 2")


def test_remarks_on_tables(pg: Database) -> None:
    pg.run("create table a(id int primary key, k int not null, g int generated always as (id) stored)")
    pg.run("create unique index i on a(k); alter table a replica identity using index i")
    pg.run("create unlogged table u(id int primary key)")
    with opened(pg.url) as source:
        found = source.check([table("a"), table("u"), table("gone")])
        by_level = {(f.table.name, f.level, f.what) for f in found if f.table}
    assert by_level == {
        ("a", "warn", "generated columns"),
        ("a", "warn", "replica identity"),
        ("a", "ok", "table"),
        ("u", "fail", "capture"),
        ("gone", "fail", "table"),
    }


@EVERY
def test_the_least_privileged_role_does_everything(pg: Database) -> None:
    """What `grants` prints is enough, and each missing piece is found with the statement that adds it."""
    pg.run(
        'create schema "s p"; create table "s p"."T 1"(id int primary key, v text);'
        " create table b(id int primary key)"
    )
    pg.run("insert into b values (1)")
    tables = [table("T 1", "s p"), table("b")]
    role, url = pg.add_role("login")
    with opened(url, publication="p 1") as source:
        names = {f.what for f in source.check(tables) if f.level == "fail"}
        assert {
            "role attribute REPLICATION",
            "publication p 1",
            "privilege USAGE",
            "privilege SELECT",
        } <= names
        with pytest.raises(PreflightFailed) as refused:
            source.prepare(tables, None)
        assert refused.value.hint.startswith("CREATE PUBLICATION")
        for statement in source.grants(tables, role)[1:]:
            pg.run(statement)
        pg.run(f"alter role {role} replication")
        assert [f for f in source.check(tables) if f.level == "fail"] == []
        source.prepare(tables, None)
        assert len(source.tables()) == 2
        with source.cut() as cut:
            assert brief(rows_of(list(cut.read(table("b")))), "id") == [("r", 1)]
            schema = next(i.schema for i in source.tables() if i.schema.table == table("b"))
            assert cut.digests(schema)[0].rows == 1
            follower = Follower(source, tables, cut.position)
        pg.run('insert into "s p"."T 1" values (1, \'x\'); truncate b')
        assert [r["_hw_op"] for r in follower.drain()] == ["c", "t"]
        assert source.behind(follower.at) == 0
        assert source.facts()["wal_status"] == "reserved"
        source.close()
        source.prepare(tables, follower.at)
        pg.run("create table c(id int primary key)")
        pg.run(f"grant select on c to {role}")
        with pytest.raises(PreflightFailed) as refused:
            source.prepare([*tables, table("c")], follower.at)
        pg.run(refused.value.hint)
        assert source.prepare([*tables, table("c")], follower.at) == ()
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select pg_read_file('PG_VERSION')")


def test_fixes_mend_one_after_the_other(pg: Database) -> None:
    pg.run("create table a(id int primary key); create publication hw_test with (publish = 'insert')")
    role, url = pg.add_role("login")
    with opened(url) as source:
        mend(pg, source, "a")
        source.prepare([table("a")], None)
    pg.run("drop publication hw_test")


def test_row_security_is_an_error_and_never_a_filter(pg: Database) -> None:
    pg.run("create table a(id int primary key); insert into a values (1), (2)")
    role, url = pg.add_role()
    pg.run(f"grant select on a to {role}; create publication hw_test for table a")
    pg.run("alter table a enable row level security; create policy p on a using (id = 1)")
    with opened(url) as source:
        (found,) = failures(source, "a")
        assert found.fix == f'ALTER ROLE "{role}" BYPASSRLS;'
        source.prepare([table("a")], None)
        with source.cut() as cut, pytest.raises(SourceError, match="row-level security"):
            list(cut.read(table("a")))
        pg.run(found.fix)
        assert not failures(source, "a")
        source.close()
        with source.cut() as cut:
            assert sum(b.rows.num_rows for b in cut.read(table("a"))) == 2


def test_a_table_truncated_or_rewritten_under_the_cut(pg: Database) -> None:
    pg.run("create table a(id int primary key, v int); insert into a values (1, 1)")
    pg.run("create table p(id int primary key) partition by range (id)")
    pg.run("create table p1 partition of p for values from (0) to (100); insert into p values (1)")
    with opened(pg.url) as source:
        source.prepare([table("a"), table("p")], None)
        for change in ("truncate a", "alter table a alter v type text", "truncate p1"):
            with source.cut() as cut:
                pg.run(change)
                name = "p" if "p1" in change else "a"
                with pytest.raises(SourceError, match="truncated or rewritten"):
                    list(cut.read(table(name)))
            with source.cut() as cut:
                list(cut.read(table(name)))


def test_a_column_added_under_the_cut_is_in_the_rows(pg: Database) -> None:
    pg.run("create table a(id int primary key); insert into a values (1)")
    with opened(pg.url) as source:
        source.prepare([table("a")], None)
        with source.cut() as cut:
            pg.run("alter table a add v int")
            (batch,) = cut.read(table("a"))
        rows: list[dict[str, Any]] = batch.rows.to_pylist()
    assert [(r["id"], r["v"]) for r in rows] == [(1, None)]


def test_a_partition_or_a_view_by_its_own_name(pg: Database) -> None:
    """The log names the root: under its own name a partition would be loaded once and never change."""
    pg.run("create table a(v int primary key) partition by range (v)")
    pg.run("create table a1 partition of a for values from (0) to (9); create view w as select 1")
    with opened(pg.url) as source:
        for name, words in (("a1", "a partition of"), ("w", "a view: its changes are not")):
            assert len(failures(source, name)) == 1
            with pytest.raises(PreflightFailed, match=words):
                source.prepare([table(name)], None)
