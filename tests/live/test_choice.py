"""Chosen rows, keys and loads on a real server: the copy holds what the settings say, whatever happens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pytest
import yaml

from headwater.errors import ConfigError, HeadwaterError, PreflightFailed, SchemaConflict
from headwater.model import Finding, TableId
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


def test_a_table_that_only_a_pattern_names_and_that_cannot_be_captured_does_not_fail_the_check(
    pg: Database, tmp_path: Path
) -> None:
    pg.run("create table o (id int primary key); create table heap (id int)")
    runner = make(pg, tmp_path, "public.*")
    (found,) = check(runner)
    assert (found.level, str(found.table)) == ("warn", "public.heap")
    assert found.found.endswith("; runs leave the table out")
    assert any("public.heap is left out" in warning for warning in run(runner).warnings)
    change(runner, "public.*", "public.heap")
    (found,) = check(runner)
    assert found.level == "fail"


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
    pg.run("delete from t where v = 'z'; insert into t values (null, 5, 'n')")
    with pytest.raises(SchemaConflict, match=r"without a value in its key \(key NULL, 5\)"):
        run(runner)
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
    warned = [f for f in check(runner) if f.what == "filter"]
    assert [(f.level, "doc, j, which `where` looks at" in f.found) for f in warned] == [("warn", True)]
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


def test_a_row_that_comes_with_values_left_out_has_the_table_read_again(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (id int primary key, live boolean, doc text);"
        "alter table t alter doc set storage external;"
        "create table u (id int primary key, live boolean, doc text);"
        "alter table u alter doc set storage external;"
        "insert into t select n, n < 3, repeat('d', 3000) from generate_series(1, 4) n;"
        "insert into u select * from t"
    )
    runner = make(
        pg, tmp_path, {"name": "public.t", "where": "live"}, {"name": "public.u", "initial_where": "live"}
    )
    run(runner)
    pg.run("update t set live = true where id = 1; update u set live = true where id = 1")
    run(runner)
    assert [o for o in rows(runner, "public.t", "_hw_op", "changes")] == [("r",), ("r",), ("u",)]
    pg.run("update t set live = true where id = 3; update t set id = 40, live = true where id = 4")
    run(runner)
    assert rows(runner, "public.t") == select(pg, "select * from t")
    assert verified(runner) == "verify: 1 tables equal, 1 not compared"
    # Where the load was cut short on purpose, reading it all is nobody's wish.
    pg.run("update u set live = true where id = 3")
    with pytest.raises(SchemaConflict, match="lacks cells of a row that is not there"):
        run(runner)
    run(runner, "full", ["public.u"])
    assert rows(runner, "public.u", "id") == [(1,), (2,), (3,)]


def test_a_filter_over_a_value_left_out_has_the_table_read_again(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (id int primary key, doc text, n int, key_too text);"
        "alter table t alter doc set storage external;"
        "insert into t select n, case when n > 4 then repeat('d', 3000) end, n from generate_series(1, 8) n"
    )
    runner = make(pg, tmp_path, {"name": "public.t", "where": "doc is null or n < 7"})
    run(runner)
    pg.run(
        "update t set n = 0 where id = 8; update t set n = 9 where id = 5; update t set id = 60 where id = 6"
    )
    run(runner)
    where = "doc is null or n < 7"
    assert rows(runner, "public.t") == select(pg, f"select * from t where {where}")
    assert verified(runner) == "verify: 1 tables equal"


def test_a_filter_follows_a_renamed_column_by_another_read(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (id int primary key, n int, v int);"
        "insert into t select n, n, n from generate_series(1, 9) n"
    )
    runner = make(pg, tmp_path, {"name": "public.t", "where": "n > 5"})
    run(runner)
    pg.run("update t set n = 9 where id = 1; alter table t rename n to m; update t set m = 0 where id = 9")
    with pytest.raises(HeadwaterError, match="has no column n"):
        run(runner)
    change(runner, {"name": "public.t", "where": "m > 5"})
    run(runner)
    assert rows(runner, "public.t", "id") == select(pg, "select id from t where m > 5")
    pg.run("alter table t drop v; insert into t values (10, 10); alter table t add w int default 7")
    run(runner)
    assert rows(runner, "public.t", "id, m, w") == select(pg, "select id, m, w from t where m > 5")
    assert verified(runner) == "verify: 1 tables equal"


def test_rows_without_a_key_are_filtered_by_both_images(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (a int, v text); alter table t replica identity full;"
        "insert into t select n % 4, repeat('v', 3000) from generate_series(1, 12) n"
    )
    runner = make(pg, tmp_path, {"name": "public.t", "where": "a >= 2", "masks": {"v": {"redact": 1}}})
    run(runner)
    pg.run(
        "update t set a = a + 1 where a = 1;"
        "delete from t where ctid = (select min(ctid) from t where a = 3);"
        "update t set a = 0 where ctid = (select max(ctid) from t where a = 2); delete from t where a = 0"
    )
    run(runner)
    assert rows(runner, "public.t") == select(pg, "select a, '****v' from t where a >= 2")
    assert verified(runner) == "verify: 1 tables equal"


def test_filters_see_what_masks_hide_and_nobody_else_does(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table p (id int primary key, mail varchar(40), salary numeric(12, 2), secret varchar(10));"
        "insert into p select n, case when n % 2 = 0 then 'KANARIE@x' else 'b@x' end, 7700 + n,"
        " 'KANARIE' || n"
        " from generate_series(1, 8) n"
    )
    runner = make(
        pg, tmp_path,
        {"name": "public.p", "where": "mail <> 'KANARIE@x' and salary > 7701.5 and secret like 'KANARIE%'",
         "masks": {"mail": "drop", "secret": "null", "salary": {"redact": 1}}},
    )  # fmt: skip
    run(runner)
    pg.run("update p set mail = 'b@x' where id = 2; update p set mail = 'KANARIE@x' where id = 3")
    run(runner)
    assert rows(runner, "public.p", "id, secret") == [(2, None), (5, None), (7, None)]
    assert verified(runner) == "verify: 1 tables equal"
    for path in runner.folder.rglob("*"):
        data = path.read_bytes() if path.is_file() and path != runner.config else b""
        assert b"KANARIE" not in data and b"7701" not in data, path


@pytest.mark.crash
@pytest.mark.slow
def test_kill_9_in_the_middle_and_a_build_at_the_end(pg: Database, tmp_path: Path) -> None:
    pg.run(
        'create table "O" (id int primary key, s varchar(9), "order" int);'
        """insert into "O" select n, case when n % 2 = 0 then 'on' else 'off' end, n"""
        " from generate_series(1, 50) n;"
        "create table k (a int, b int, v text); alter table k replica identity full;"
        "insert into k select n % 5, n / 5, 'v' from generate_series(0, 19) n;"
        "create table s (id int primary key, v varchar(5)); insert into s values (1, 'old');"
        """create view w as select s, count(*) as n from "O" group by s"""
    )
    tables: list[Any] = [
        {"name": "public.O", "where": """s = 'on' and "order" <= 40"""},
        {"name": "public.k", "key": ["a", "b"]},
        {"name": "public.s", "initial_load": "skip"}, {"name": "public.w", "key": ["s"]},
    ]  # fmt: skip
    runner = make(pg, tmp_path, *tables)
    change(runner, *tables, warehouse="duckdb:///warehouse.duckdb")
    for nth, point in enumerate(("entry.before", "changes.after:2", "confirm.before")):
        killed = runner.run("run", "--no-dbt", ok=False, HEADWATER_FAILPOINT=point)
        assert killed.returncode == -9, killed.stderr
        pg.run(
            f"""update "O" set s = case s when 'on' then 'off' else 'on' end where id % 4 = {nth % 4};"""
            f"""delete from "O" where id = {nth + 10}; update "O" set id = id + 100 where id = {nth + 20};"""
            f"""update k set a = a + 10 where b = {nth}; delete from k where a = {nth};"""
            f"insert into s values ({nth + 2}, 'new'); update s set v = 'u' where id < 3"
        )
    runner.run("run")
    here = """select * from "O" where s = 'on' and "order" <= 40"""
    wanted = {"O": here, "k": "select * from k", "w": "select * from w"}
    built = {name: select(pg, query) for name, query in wanted.items()}
    assert {name: rows(runner, f"public.{name}") for name in built} == built
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal, 2 not compared"
    refit(sorted(rows(runner, "public.O", "_hw_seq, _hw_op, id", "changes")))
    with duckdb.connect(str(runner.folder / "warehouse.duckdb"), read_only=True) as warehouse:
        names = "select view_name from duckdb_views() where schema_name = 'main' and not internal"
        counts = {
            warehouse.execute(f'select count(*) from main."{name}"').fetchall()[0][0]
            for (name,) in warehouse.execute(names).fetchall()
        }
    assert {len(found) for found in built.values()} <= counts


def test_a_large_table_is_folded_by_the_files_that_hold_its_keys(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (id int primary key, n int);"
        "insert into t select n, n % 10 from generate_series(1, 30000) n"
    )
    runner = make(pg, tmp_path, {"name": "public.t", "where": "n < 5"})
    run(runner)
    for turn in range(3):
        pg.run(
            f"update t set n = (n + 5) % 10 where id % 50 = {turn}; delete from t where id % 101 = {turn};"
            f"update t set id = id + 100000 where id % 203 = {turn} and id < 100000;"
            f"insert into t select n + {turn} * 100, n % 7 from generate_series(200000, 200050) n"
        )
        run(runner)
        assert rows(runner, "public.t") == select(pg, "select * from t where n < 5")
    with runner.open() as pipeline:
        tail = pipeline.status().tables[0].tail
        assert tail is not None and tail > 500
        assert pipeline.compact() == [TableId("public", "t")]
    refit(sorted(rows(runner, "public.t", "_hw_seq, _hw_op, id", "changes")))
    assert rows(runner, "public.t") == select(pg, "select * from t where n < 5")
    open_now = rows(runner, "public.t", "id, n, is_current", "history")
    assert sorted(r[:2] for r in open_now if r[2]) == sorted(pg.run("select * from t where n < 5"))


def test_following_keeps_to_the_choices(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table t (id int primary key, n int); insert into t select n, n from generate_series(1, 9) n;"
        "create view v as select count(*) as c from t"
    )
    runner = make(pg, tmp_path, {"name": "public.t", "where": "n > 5"}, "public.v")
    run(runner)
    turns = 0

    def over() -> bool:
        nonlocal turns
        turns += 1
        if turns == 20:
            pg.run("update t set n = 10 - n; insert into t values (20, 20), (21, 0)")
        return turns > 20 and rows(runner, "public.t") == select(pg, "select * from t where n > 5")

    with runner.open() as pipeline:
        assert all(record.outcome == "done" for record in pipeline.follow(stop=over, build=False))
    assert rows(runner, "public.t", "id") == [(1,), (2,), (20,), (3,), (4,)]
    assert rows(runner, "public.v") == [(9,)]


def test_a_partitioned_table_by_a_chosen_key_in_folders(pg: Database, tmp_path: Path) -> None:
    """The root has no key of its own; its partitions do not either, and are told by full images."""
    pg.run("""
        create table sales (id int not null, sold date not null, state text, amount numeric(8, 2))
            partition by range (sold);
        create table sales_2023 partition of sales for values from ('2023-01-01') to ('2024-01-01');
        create table sales_2024 partition of sales for values from ('2024-01-01') to ('2025-01-01');
        alter table sales replica identity full;
        alter table sales_2023 replica identity full; alter table sales_2024 replica identity full;
        insert into sales select n, date '2023-11-01' + n, 's' || n % 3, n from generate_series(1, 100) n
    """)
    entry = {"name": "public.sales", "key": ["id"], "partition": "/@sold(yr=%y)/@state(st=%s)"}
    runner = make(pg, tmp_path, entry, lake={"compact": "always"})
    assert check(runner) == []
    with runner.open() as pipeline:
        (planned,) = pipeline.plan().tables
    assert len(planned.folders) == 3 and all(f.startswith("yr=202") for f in planned.folders)
    run(runner)
    pg.run("""
        update sales set sold = '2024-12-31', state = 'moved' where id between 1 and 5;
        update sales set amount = -amount where id % 10 = 0; delete from sales where id % 7 = 0;
        create table sales_2025 partition of sales for values from ('2025-01-01') to ('2026-01-01');
        alter table sales_2025 replica identity full;
        insert into sales values (200, '2025-06-01', 'é/"x"', 1); update sales set id = 201 where id = 200
    """)
    run(runner)
    assert rows(runner, "public.sales") == select(pg, "select * from sales")
    assert verified(runner) == "verify: 1 tables equal"
    past = rows(runner, "public.sales", "id, is_current", "history")
    assert [row for row in past if row[0] >= 200] == [(200, False), (201, True)]
    made = {f.parent.parent.name for f in (tmp_path / "p" / "lake").rglob("mirror/yr=*/st=*/*.parquet")}
    assert made == {"yr=2023", "yr=2024", "yr=2025"}


def test_foreign_tables_are_read_whole_with_each_run(pg: Database, tmp_path: Path) -> None:
    to = urlsplit(pg.url)
    pg.run(f"""
        create schema far; create table far.there (id int primary key, said text);
        insert into far.there values (1, 'one'), (2, 't,w"o');
        create extension postgres_fdw; create server here foreign data wrapper postgres_fdw
            options (host '{to.hostname}', port '{to.port}', dbname '{to.path[1:]}');
        create user mapping for public server here options (user '{to.username}', password '{to.password}');
        create foreign table distant (id int not null, said text) server here
            options (schema_name 'far', table_name 'there');
        create table near (id int primary key)
    """)
    runner = make(pg, tmp_path, {"name": "public.distant", "views": True, "key": ["id"]}, "public.near")
    assert check(runner) == []
    assert run(runner).tables["public.distant"].rows_in == 2
    pg.run("delete from far.there where id = 2; insert into far.there values (3, 'three')")
    run(runner)
    assert rows(runner, "public.distant") == [(1, "one"), (3, "three")]
    past = rows(runner, "public.distant", "id, said, is_current", "history")
    assert past == [(1, "one", True), (2, 't,w"o', False), (3, "three", True)]
    assert verified(runner) == "verify: 1 tables equal, 1 not compared", "it is not the copy of one moment"
