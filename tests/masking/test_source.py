"""`Masked` over a real PostgreSQL: the contract of every source, and masked schemas back from the log."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from contracts.source import SourceContract
from headwater.config import Config, Mask, TableSpec
from headwater.errors import PreflightFailed
from headwater.masking import Masked
from headwater.model import TableId
from headwater.sources.postgres import PostgresSource
from headwater.verify import Options, VerifyReport, verify
from headwater.verify.compare import picked
from masking.batches import KEY, SECRET
from postgres.rig import Follower, brief, rows_of, table
from postgres.test_contract import PostgresWorld
from servers.postgres import Database

pytestmark = pytest.mark.live

T = table("t")


def config_of(*columns: str, **masks: Mask) -> Config:
    overrides = {"public.t": TableSpec(T, columns=columns, masks=masks)}
    return Config("x", {}, "/x", tables=("public.t",), overrides=overrides if columns or masks else {})


def open_masked(db: Database, config: Config) -> Masked:
    return Masked(PostgresSource(url=db.url, slot="hw_test", publication="hw_test"), config, KEY)


@contextmanager
def following(db: Database, config: Config, **known: Any) -> Iterator[Follower]:
    """As capture does it: look, prepare, read, follow."""
    source = open_masked(db, config)
    try:
        source.tables()
        source.prepare([T], None)
        with source.cut() as cut:
            known = {T: list(cut.read(T))[-1].schema}
        yield Follower(source, [T], cut.position, known)  # type: ignore[arg-type]
    finally:
        source.close()


def hashed(text: str) -> str:
    return hmac.digest(SECRET.encode(), text.encode(), "sha256").hex()


@pytest.mark.parametrize("pg_version", [15])
class TestMasked(SourceContract):
    """With masks for another table: what has none must come through as it is."""

    @pytest.fixture
    def world(self, pg: Database) -> Iterator[PostgresWorld]:
        pg.run("create table t(id int primary key, v text)")
        spec = TableSpec(TableId("public", "u"), masks={"v": Mask("hash")})
        made = _MaskedWorld(pg, open_masked(pg, replace(config_of(), overrides={"public.u": spec})))  # type: ignore[arg-type]
        yield made
        made.source.close()


class _MaskedWorld(PostgresWorld):
    def reopen(self) -> PostgresSource:
        self.source.close()
        return open_masked(self.db, config_of())  # type: ignore[return-value]


def test_what_is_told_is_what_is_stored(pg: Database) -> None:
    pg.run("create table t(id int primary key, a text, b int, c text); insert into t values (1, 'x', 2, 'y')")
    config = config_of("!c", a=Mask("hash"), b=Mask("null"))
    with following(pg, config) as follower:
        source = follower.source
        (info,) = source.tables()
        assert info.schema == follower.known[T]
        assert [c.name for c in info.schema.columns] == ["id", "a", "b"]
        with source.cut() as cut:
            (batch,) = cut.read(T)
            assert brief(rows_of([batch]), "id", "a", "b", "c") == [("r", 1, hashed("x"), None, None)]
            assert cut.digests(batch.schema.unmasked())[0].rows == 1
        pg.run(
            "insert into t values (2, 'x', 3, 'z'); update t set id = 5 where id = 1;"
            "delete from t where id = 2"
        )
        assert brief(follower.drain(), "id", "a", "b", "c") == [
            ("c", 2, hashed("x"), None, None), ("d", 1, None, None, None), ("c", 5, hashed("x"), None, None),
            ("d", 2, None, None, None),
        ]  # fmt: skip
        assert follower.reloads == [False]
        assert source.unlogged(follower.known) == []


def test_verify_compares_what_is_as_in_the_source_and_reads_it_masked(pg: Database, tmp_path: Path) -> None:
    pg.run("create table t(id int primary key, a text, b int, v text)")
    pg.run("insert into t select n, 'KANARIE' || n, n, 'v' || n from generate_series(1, 9) n")
    with following(pg, config_of(a=Mask("hash"), b=Mask("null"))) as follower, follower.source.cut() as cut:
        schema = follower.known[T]
        with picked(cut, schema, 1, [0], tmp_path):
            (file,) = tmp_path.rglob("*.parquet")
            rows = pq.read_table(file).to_pylist()
            assert rows[0]["a"] == hashed("KANARIE1")
            assert b"KANARIE" not in file.read_bytes()
        lake = duckdb.connect()
        lake.execute("create table lake (id int, a text, b int, v text, _hw_text text)")
        lake.executemany(
            "insert into lake values (?, ?, null, ?, null)",
            [
                [n, hashed(f"KANARIE{n}") if n != 2 else "x", f"v{n}" if n < 8 else "other"]
                for n in range(1, 9)
            ],
        )
        (found,) = verify(cut, [schema], lambda _: ("lake", lake), options=Options(tmp_path))
        assert [(d.key, d.kind, d.columns) for d in found.differing] == [
            ("id=2", "different", ("a",)), ("id=8", "different", ("v",)), ("id=9", "missing", ())
        ]  # fmt: skip
        assert (found.equal, found.masked) == (False, ("a", "b"))
        lake.execute("delete from lake where id in (8, 9); insert into lake values (8, null, 7, 'v8', null)")
        lake.execute("insert into lake values (9, 'y', 7, 'v9', null)")
        (found,) = verify(cut, [schema], lambda _: ("lake", lake), options=Options(tmp_path))
        assert (found.equal, found.differing) == (True, ())
        lines = VerifyReport(cut.position, (found,)).lines()
        assert lines[1] == "  2 columns masked, not compared: a, b"


def test_a_masked_key(pg: Database) -> None:
    pg.run("create table t(a text, b int, v text, primary key (a, b)); insert into t values ('x', 1, 'y')")
    with following(pg, config_of(a=Mask("hash"), b=Mask("tokenize"))) as follower:
        pg.run("update t set v = 'z'; update t set a = 'X'; delete from t")
        rows = follower.drain()
        b = rows[0]["b"]
        assert b.isdigit()
        old, new = hashed("x"), hashed("X")
        assert brief(rows, "a", "b", "v") == [
            ("u", old, b, "z"), ("d", old, b, None), ("c", new, b, "z"), ("d", new, b, None)
        ]  # fmt: skip


def test_values_that_the_log_left_out_stay_unset(pg: Database) -> None:
    pg.run(
        "create table t(id int primary key, a text, b text, v int);"
        "alter table t alter a set storage external, alter b set storage external;"
        "insert into t values (1, repeat('a', 9000), repeat('b', 9000), 0)"
    )
    with following(pg, config_of(a=Mask("hash"), b=Mask("drop"))) as follower:
        pg.run("update t set v = 1")
        (row,) = follower.drain()
        assert (row["a"], row["_hw_unset"], row["v"]) == (None, ["a"], 1)


def test_columns_left_out_of_the_log_are_no_new_ones(pg: Database) -> None:
    pg.run("create table t(id int primary key, a text default 'x', b int not null default 7)")
    with following(pg, config_of("id")) as follower:
        pg.run("insert into t values (1)")
        assert brief(follower.drain(), "id") == [("c", 1)]
        assert follower.reloads == [False]
        assert follower.source.unlogged(follower.known) == []
        pg.run("alter table t drop b; insert into t values (2)")
        follower.drain()
        follower.source.tables()
        assert follower.reloads == [False]
        assert follower.source.unlogged(follower.known) == []


@pytest.mark.parametrize(
    ("before", "after", "reload"),
    [
        (config_of(a=Mask("hash")), config_of(a=Mask("hash")), False),
        (config_of(a=Mask("hash")), config_of(a=Mask("redact")), True),
        (config_of(), config_of(a=Mask("hash")), True),
        (config_of(a=Mask("hash")), config_of(), True),
        (config_of("!a"), config_of(), True),
        (config_of(), config_of("!a"), True),
    ],
    ids=["same", "other", "added", "gone", "chosen", "left out"],
)
def test_other_masks_ask_for_a_reload_once(pg: Database, before: Config, after: Config, reload: bool) -> None:
    pg.run("create table t(id int primary key, a text)")
    with following(pg, before) as follower:
        at, known = follower.at, follower.known
    source = open_masked(pg, after)
    try:
        source.tables()
        pg.run("insert into t values (1, 'x')")
        assert source.unlogged(known) == ([T] if reload else [])
        again = Follower(source, [T], at, dict(known))  # type: ignore[arg-type]
        again.drain()
        assert again.reloads == [reload]
        pg.run("insert into t values (2, 'x')")
        again.drain()
        assert again.reloads == [False]
    finally:
        source.close()


def test_alterations_beneath_a_mask(pg: Database) -> None:
    pg.run("create table t(id int primary key, a int, v int); insert into t values (1, 7, 0)")
    with following(pg, config_of(a=Mask("hash"))) as follower:
        pg.run(
            "insert into t values (2, 8, 0); alter table t alter a type bigint;insert into t values (3, 8, 0)"
        )
        rows = follower.drain()
        assert rows[0]["a"] == rows[1]["a"] == hashed("8")
        assert not any(follower.reloads)
        pg.run("alter table t alter a type text using a::text || '!'; insert into t values (4, '8', 0)")
        assert follower.drain()[0]["a"] == hashed("8")
        assert follower.reloads == [True]
        pg.run("alter table t rename a to b; insert into t values (5, '9', 0)")
        # The source was last looked at before that: the column is left out, and then not let in as it is.
        (row,) = follower.drain()
        assert "b" not in row and follower.reloads == [False]
        follower.source.tables()
        with pytest.raises(PreflightFailed, match="b has no mask, but may be the column that was renamed"):
            follower.source.unlogged(follower.known)
        with follower.source.cut() as cut, pytest.raises(PreflightFailed, match="b has no mask"):
            list(cut.read(T))
        pg.run("insert into t values (6, '9', 0)")
        with pytest.raises(PreflightFailed, match="b has no mask"):
            follower.drain()
    pg.run("insert into t values (7, '9', 0)")
    known = follower.known
    source = open_masked(pg, config_of(b=Mask("hash")))
    try:
        source.tables()
        again = Follower(source, [T], follower.at, dict(known))  # type: ignore[arg-type]
        assert [r["b"] for r in again.drain()] == [hashed("9")] * 2
        assert again.reloads == [True]
    finally:
        source.close()


def test_a_key_that_became_a_masked_column(pg: Database) -> None:
    pg.run("create table t(id int primary key, a int not null)")
    with following(pg, config_of(a=Mask("redact"))) as follower:
        pg.run("alter table t drop constraint t_pkey, add primary key (a); insert into t values (1, 2)")
        with pytest.raises(PreflightFailed, match="the key column a cannot be masked by redact"):
            follower.drain()


def test_wrong_masks_are_found_by_check_and_stop_prepare(pg: Database) -> None:
    pg.run("create table t(id int primary key, a int)")
    source = open_masked(pg, config_of(id=Mask("null"), nope=Mask("hash")))
    try:
        found = [f for f in source.check([T]) if f.what == "masks"]
        assert [f.level for f in found] == ["fail"] * 2
        with pytest.raises(PreflightFailed, match=r"public\.t the key column id cannot be masked by null"):
            source.prepare([T], None)
        assert pg.run("select count(*) from pg_publication") == [(0,)]
    finally:
        source.close()
