"""kill -9 before and after every durable step of a run; then run again: as if nothing had happened."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from live.pipelines import Runner
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.crash]

STEPS = ("schema", "stage", "entry", "confirm", "lake", "changes", "history", "mirror", "record")

SETUP = """
create table t (id int primary key, v int, big text);
alter table t alter column big set storage external;
insert into t select n, n, repeat('x', 3000) from generate_series(1, 5) n;
create table k (a int, b text);
alter table k replica identity full;
insert into k values (1, 'x'), (1, 'x'), (2, null);
"""
CHANGES = """
update t set v = 10 where id = 1;
update t set id = 20 where id = 2;
delete from t where id = 3;
delete from k where ctid = (select min(ctid) from k);
begin; truncate k; insert into k values (7, 'after'); commit;
insert into t values (3, 33, 'again');
"""
BIG = "x" * 3000
HISTORY = [
    (1, 1, BIG, False), (1, 10, BIG, True), (2, 2, BIG, False), (3, 3, BIG, False), (3, 33, "again", True),
    (4, 4, BIG, True), (5, 5, BIG, True), (20, 2, BIG, True),
]  # fmt: skip
RAW = {
    "t": [
        (1, "r"),
        (2, "r"),
        (3, "r"),
        (4, "r"),
        (5, "r"),
        (1, "u"),
        (2, "d"),
        (20, "c"),
        (3, "d"),
        (3, "c"),
    ],
    "k": [(1, "r"), (1, "r"), (2, "r"), (1, "d"), (None, "t"), (7, "c")],
}


def tell(runner: Runner) -> dict[str, Any]:
    """What a reader finds: history, mirrors and every raw row of the newest epochs."""
    with runner.open() as pipeline:
        log = pipeline.parts.log
        epochs = {t: s.epoch for t, s in log.tables().items()}
        raw: dict[str, list[tuple[int, int | None, str]]] = {"t": [], "k": []}
        for ref in (r for e in log.entries() for r in e.batches if r.rows and r.epoch == epochs[r.table]):
            for row in pq.read_table(log.fetch(ref)).to_pylist():
                raw[ref.table.name].append((row["_hw_seq"], row.get("id", row.get("a")), row["_hw_op"]))
        versions = (
            pipeline.history("public.t").project("id, v, big, is_current, _hw_seq").order("id, _hw_seq")
        )
        return {
            "history": [row[:4] for row in versions.fetchall()],
            "k": pipeline.table("public.k").project("a, b").fetchall(),
            "raw": {name: [(key, op) for _, key, op in sorted(rows)] for name, rows in raw.items()},
        }


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_stop_at(pg: Database, tmp_path: Path, step: str, when: str) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url, warehouse=False)
    point = f"{step}.{when}"
    killed = runner.run("run", ok=False, HEADWATER_FAILPOINT=point)
    assert killed.returncode == -9, killed.stderr
    runner.run("run")
    for statement in CHANGES.split(";\n"):
        pg.run(statement)
    # A second schema of a table is rare: its step is only passed by the full load.
    nth = "" if step == "schema" else ":2" if step in ("stage", "lake", "changes", "mirror") else ""
    killed = runner.run("run", ok=False, HEADWATER_FAILPOINT=point + nth)
    assert killed.returncode == (0 if step == "schema" else -9), killed.stderr
    runner.run("run")
    assert tell(runner) == {"history": HISTORY, "k": [(7, "after")], "raw": RAW}
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"


@pytest.mark.parametrize("point", ["mirror.after:2", "build.after"])
def test_the_warehouse_gets_what_was_owed_to_it(pg: Database, tmp_path: Path, point: str) -> None:
    pg.run(SETUP)
    runner = Runner(tmp_path / "p", pg.url)
    runner.run("run")
    pg.run("update t set v = 100; delete from k")
    assert runner.run("run", ok=False, HEADWATER_FAILPOINT=point).returncode == -9
    runner.run("run")
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 2 tables equal"
