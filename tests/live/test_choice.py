"""Chosen rows, keys and loads on a real server: the copy holds what the settings say, whatever happens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater.errors import ConfigError, PreflightFailed, SchemaConflict
from headwater.model import Finding
from headwater.state import RunRecord
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live


def make(pg: Database, folder: Path, *tables: Any, **settings: Any) -> Runner:
    made = Runner(folder / "p", pg.url, warehouse=False)
    change(made, *tables, **settings)
    return made


def change(runner: Runner, *tables: Any, **settings: Any) -> None:
    doc = yaml.safe_load(runner.config.read_text()) | settings | {"tables": list(tables)}
    runner.config.write_text(yaml.safe_dump(doc))


def run(runner: Runner, mode: str = "auto", tables: list[str] | None = None) -> RunRecord:
    with runner.open() as pipeline:
        return pipeline.run(mode, tables, build=False)


def check(runner: Runner) -> list[Finding]:
    with runner.open() as pipeline:
        return [f for f in pipeline.check() if f.level != "ok" and f.table is not None]


def rows(runner: Runner, table: str, columns: str = "*", kind: str = "table") -> list[tuple[Any, ...]]:
    with runner.open() as pipeline:
        relation = getattr(pipeline, kind)(table)
        own = ", ".join(f'"{c}"' for c in relation.columns if not c.startswith("_hw_"))
        found: list[tuple[Any, ...]] = relation.project(own if columns == "*" else columns).fetchall()
        return sorted(found, key=str)


def select(pg: Database, query: str) -> list[tuple[Any, ...]]:
    return sorted(pg.run(query), key=str)


def verified(runner: Runner) -> str:
    with runner.open() as pipeline:
        return pipeline.verify().lines()[-1]


WHERE = "status <> 'test' and (amount >= 10 or amount is null)"


@pytest.mark.parametrize("identity", ["default", "full", "using index o_key"])
def test_a_filter_holds_for_loads_and_changes(pg: Database, tmp_path: Path, identity: str) -> None:
    pg.run(
        "create table o (id int not null, status varchar(20), amount numeric(10, 2), note varchar(10),"
        " constraint o_key unique (id));"
        + ("alter table o add primary key (id);" if identity == "default" else "")
        + f"alter table o replica identity {identity};"
        "insert into o select n, case when n % 3 = 0 then 'test' else 'live' end, n, 'n' || n"
        " from generate_series(1, 40) n"
    )
    entry = {"name": "public.o", "where": WHERE} | ({"key": ["id"]} if identity == "full" else {})
    runner = make(pg, tmp_path, entry)
    run(runner)
    dice = random.Random(identity)
    seen = {row[0]: row for row in pg.run(f"select id, status, amount::text, note from o where {WHERE}")}
    alive = [seen]
    for _ in range(3):
        for _ in range(25):
            pg.run(statement(dice))
            now = pg.run(f"select id, status, amount::text, note from o where {WHERE}")
            alive.append({row[0]: row for row in now})
        run(runner)
        assert rows(runner, "public.o", "id, status, note") == select(
            pg, f"select id, status, note from o where {WHERE}"
        )
    assert verified(runner) == "verify: 1 tables equal"
    changes = rows(runner, "public.o", "_hw_seq, _hw_op, id", "changes")
    assert {op for _, op, _ in changes} == {"r", "c", "u", "d"}
    refit(sorted(changes))
    came = sum(len(after.keys() - before.keys()) for before, after in zip(alive, alive[1:], strict=False))
    again = [op for _, op, _ in changes if op == "c"]
    assert came <= len(again)


def refit(changes: list[tuple[int, str, int]]) -> None:
    """No version of a row that is not there, and none of a row twice."""
    there: set[int] = set()
    for _, op, key in changes:
        assert (key in there) == (op in "ud"), (op, key)
        there = there - {key} if op == "d" else there | {key}


def statement(dice: random.Random) -> str:
    n = dice.randrange(1, 60)
    status = dice.choice(["'test'", "'live'", "null", "'x'"])
    amount = dice.choice(["null", "5", "10", "11.50", "'NaN'"])
    return dice.choice(
        [
            f"insert into o values ({n}, {status}, {amount}, 'new') on conflict do nothing",
            f"update o set status = {status} where id = {n}",
            f"update o set amount = {amount} where id % 7 = {n % 7}",
            f"update o set id = {n + 100} where id = {n} and not exists (select from o where id = {n + 100})",
            f"update o set id = {n}, note = 'moved', status = {status} where id = {n + 100}"
            f" and not exists (select from o where id = {n})",
            f"delete from o where id = {n}",
            f"delete from o where id = {n}; insert into o values ({n}, {status}, {amount}, 'again')",
            "truncate o; insert into o select n, 'live', n, 'all' from generate_series(1, 30) n"
            if n == 7
            else f"update o set note = 'u{n}' where id > {n}",
        ]
    )


def test_a_chosen_key_tells_rows_apart(pg: Database, tmp_path: Path) -> None:
    pg.run(
        'create table "Odd ""T" ("A b" int, "select" text, v text);'
        'alter table "Odd ""T" replica identity full;'
        """insert into "Odd ""T" select n / 10, 'k' || n % 10, 'v' from generate_series(0, 39) n;"""
        "create table own (tenant int, id int, v text, primary key (tenant, id));"
        "insert into own select 1, n, 'v' from generate_series(1, 5) n"
    )
    runner = make(
        pg, tmp_path,
        {"name": 'public."Odd ""T"', "key": ["select", "A b"], "where": """ "select" <> 'k9' """.strip()},
        {"name": "public.own", "key": ["id"]},
    )  # fmt: skip
    run(runner)
    pg.run(
        """update "Odd ""T" set v = 'w' where "A b" = 1; update "Odd ""T" set "A b" = 100 where "A b" = 2;"""
        """delete from "Odd ""T" where "select" = 'k3';"""
        """update "Odd ""T" set "select" = 'k8' || "A b" where "select" = 'k1';"""
        """update "Odd ""T" set "select" = 'k9' where "select" = 'k0' and "A b" = 1;"""
        """update "Odd ""T" set "select" = 'k1' where "select" = 'k9' and "A b" = 0;"""
        "update own set tenant = 2 where id = 1; update own set id = 50 where id = 2;"
        "delete from own where id = 3"
    )
    run(runner)
    assert rows(runner, 'public."Odd ""T"') == select(
        pg, """select * from "Odd ""T" where "select" <> 'k9'"""
    )
    assert rows(runner, "public.own") == select(pg, "select * from own")
    (moved,) = [r for r in rows(runner, "public.own", "id, tenant, _hw_op", "changes") if r[1] == 2]
    assert moved == (1, 2, "u")
    assert verified(runner) == "verify: 2 tables equal"


def test_a_key_that_is_none_is_an_error_that_shows_it(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (a int, b int, v text); alter table t replica identity full;"
        "insert into t values (1, 1, 'x'), (1, 2, 'y');"
        "create table u (id int primary key); insert into u values (1)"
    )
    runner = make(pg, tmp_path, "public.u", {"name": "public.t", "key": ["a"]})
    with pytest.raises(SchemaConflict, match=r"public\.t.*another row has \(key 1\)") as failed:
        run(runner)
    assert "name more columns than (a)" in failed.value.hint
    assert rows(runner, "public.u") == [(1,)]  # others went on
    change(runner, "public.u", {"name": "public.t", "key": ["a", "b"]})
    run(runner)
    assert rows(runner, "public.t") == [(1, 1, "x"), (1, 2, "y")]
    pg.run("insert into t values (1, 2, 'z')")
    with pytest.raises(SchemaConflict, match=r"already there \(key 1, 2\)"):
        run(runner)
    pg.run("delete from t where v = 'z'")
    # Without a key of its own again: each row counts.
    change(runner, "public.u", "public.t")
    run(runner, "full", ["public.t"])
    assert verified(runner) == "verify: 2 tables equal"


def test_a_key_that_the_log_does_not_carry_is_refused(pg: Database, tmp_path: Path) -> None:
    pg.run("create table t (id int primary key, code int not null, v text)")
    runner = make(pg, tmp_path, {"name": "public.t", "key": ["code"]})
    (found,) = check(runner)
    assert "does not carry the chosen key (code)" in found.found
    assert 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL;' in found.fix
    with pytest.raises(PreflightFailed, match="does not carry"):
        run(runner)
    change(runner, {"name": "public.t", "key": ["cod"]})
    assert "has no column cod" in check(runner)[0].found


def test_another_filter_reads_the_table_again(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (id int primary key, n int); insert into t select n, n from generate_series(1, 20) n"
    )
    runner = make(pg, tmp_path, {"name": "public.t", "where": "n > 10"})
    run(runner)
    pg.run("update t set n = 30 where id = 1; update t set n = 0 where id = 20; delete from t where id = 2")
    for where in ("n >  15", "n < 12 or n is null", ""):
        entry = {"name": "public.t", "where": where} if where else "public.t"
        change(runner, entry)
        with runner.open() as pipeline:
            assert [t.action for t in pipeline.plan().tables] == ["reload"]
        pg.run("update t set n = n + 1 where id % 3 = 0")
        assert any("other rows are chosen" in w for w in run(runner).warnings)
        assert run(runner).warnings == ()
        assert rows(runner, "public.t") == select(pg, f"select * from t where {where or 'true'}")
        assert verified(runner) == "verify: 1 tables equal"


def test_filters_that_cannot_be_followed_are_refused(pg: Database, tmp_path: Path) -> None:
    pg.run("create table t (id int primary key, doc text, j jsonb, d date); create table k (v text);"
           "alter table k replica identity full")  # fmt: skip
    runner = make(pg, tmp_path, "public.k", {"name": "public.t", "where": "doc = 'x' and j is not null"})
    assert [(f.level, "may leave out doc, j" in f.found) for f in check(runner) if "filter" in f.what] == [
        ("fail", True)
    ]
    with pytest.raises(PreflightFailed, match="which `where` looks at"):
        run(runner)
    for where, what in {
        "idd = 1": "has no column idd",
        "d > '2025-02-30'": "what is none",
        "j = '{}'": "cannot be compared",
        "id = 'x'": "what is none",
        "d = id": "cannot be compared with d",
    }.items():
        change(runner, {"name": "public.t", "where": where})
        assert any(what in f.found and "^" in f.fix for f in check(runner)), where
    with pytest.raises(ConfigError, match="no functions"):
        change(runner, {"name": "public.t", "where": "read_text('/etc/passwd') = 'x'"})
        check(runner)
    change(runner, {"name": "public.k", "initial_load": "skip"})
    assert any("has no key" in f.found for f in check(runner))
    change(runner, {"name": "public.t", "where": "id > 1"})
    assert [f.level for f in check(runner)] == ["warn"]


def test_a_first_load_can_be_skipped_and_caught_up(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table s (id int primary key, v varchar(9)); "
        "create table i (id int primary key, v varchar(9));"
        "insert into s select n, 'old' from generate_series(1, 9) n; insert into i select * from s"
    )
    runner = make(
        pg, tmp_path,
        {"name": "public.s", "initial_load": "skip"}, {"name": "public.i", "initial_where": "id > 5"},
    )  # fmt: skip
    run(runner)
    assert rows(runner, "public.i", "id") == [(6,), (7,), (8,), (9,)]
    for name in ("s", "i"):
        pg.run(
            f"update {name} set v = 'new' where id = 1; delete from {name} where id = 2;"
            f"insert into {name} values (2, 'again'), (20, 'c'); update {name} set id = 30 where id = 3;"
            f"delete from {name} where id = 4; update {name} set v = 'u' where id = 9"
        )
    run(runner)
    run(runner)
    assert rows(runner, "public.s") == [(1, "new"), (2, "again"), (20, "c"), (30, "old"), (9, "u")]
    assert rows(runner, "public.i", "id") == [(1,), (2,), (20,), (30,), (6,), (7,), (8,), (9,)]
    refit(sorted(rows(runner, "public.i", "_hw_seq, _hw_op, id", "changes")))
    with runner.open() as pipeline:
        lines = pipeline.verify().lines()
    assert lines[-1] == "verify: 0 tables equal, 2 not compared" and "was skipped" in lines[-2]
    done = runner.run("resync", "public.s", "--no-dbt")
    assert "public.s" in done.stdout
    pg.run("update s set v = 'last' where id < 8")
    run(runner)
    assert rows(runner, "public.s") == select(pg, "select * from s")
    change(runner, "public.s", "public.i")
    run(runner)
    assert verified(runner) == "verify: 2 tables equal"


def test_views_are_read_whole_with_each_run(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (id int primary key, v text);"
        "insert into t select n, 'v' || n from generate_series(1, 9) n;"
        "create view \"V w\" as select id, upper(v) as v, now() > '2000-01-01' as b from t;"
        "create materialized view m as select v from t where id % 2 = 0;"
        "create view unasked as select 1 as a;"
        "create table nokey (a int); insert into nokey values (1), (1)"
    )
    runner = make(
        pg, tmp_path, "public.t", "!public.u*", "public.m",
        {"name": "public.V*", "views": True, "key": ["id"], "where": "id <> 5"},
        {"name": "public.nokey", "deltas": False},
    )  # fmt: skip
    done = run(runner)
    assert done.warnings == ()
    assert rows(runner, 'public."V w"') == select(pg, 'select * from "V w" where id <> 5')
    pg.run("update t set v = 'new' where id = 1; delete from t where id = 2; insert into nokey values (2);"
           "refresh materialized view m")  # fmt: skip
    run(runner)
    assert rows(runner, 'public."V w"') == select(pg, 'select * from "V w" where id <> 5')
    assert rows(runner, "public.m") == select(pg, "select * from m")
    assert rows(runner, "public.nokey") == [(1,), (1,), (2,)]
    assert len(rows(runner, 'public."V w"', kind="changes")) == 8 + 2
    with runner.open() as pipeline:
        kinds = {str(i.schema.table): i.kind for i in pipeline.tables()}
        plan = {str(t.table): (t.action, t.why) for t in pipeline.plan().tables}
        report = pipeline.verify()
        assert [f.level for f in pipeline.check() if f.table is not None] == ["ok"] * 4
    assert kinds["public.V w"] == "view" and kinds["public.m"] == "materialized view"
    assert plan["public.m"] == ("load", "materialized view: read whole with each run")
    assert "public.unasked" not in plan
    assert report.lines()[-1] == "verify: 1 tables equal, 3 not compared"
    # Nothing but views: there is a log all the same, and it is not held.
    other = make(pg, tmp_path / "other", "public.m", pipeline="views")
    run(other)
    pg.run("insert into t values (100, 'x'); refresh materialized view m")
    run(other)
    assert rows(other, "public.m") == select(pg, "select * from m")


def test_tables_come_and_go_while_others_flow(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "".join(
            f"create table t{n} (id int primary key, v text); insert into t{n} values (1, 'a');"
            for n in range(4)
        )
    )
    runner = make(pg, tmp_path, "public.t0", "public.t1")
    run(runner)
    pg.run("insert into t0 values (2, 'b'); insert into t2 values (2, 'b'); update t1 set v = 'x'")
    change(runner, "public.*", "!public.t1")
    pg.run("insert into t0 values (3, 'c'); insert into t3 values (3, 'c')")
    run(runner)
    pg.run("delete from t0 where id = 1; insert into t1 values (9, 'missed'); update t2 set v = 'y'")
    run(runner)
    assert verified(runner) == "verify: 3 tables equal"
    change(runner, "public.*")
    run(runner)
    assert rows(runner, "public.t1") == [(1, "x"), (9, "missed")]
    assert verified(runner) == "verify: 4 tables equal"
