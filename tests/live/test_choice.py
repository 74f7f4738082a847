"""Chosen rows, keys and loads on a real server: what the copy holds is what the settings say, whatever happens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

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
