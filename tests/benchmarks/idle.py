"""A run that finds no change: 20 tables, a warehouse that has everything."""

from __future__ import annotations

from functools import partial

import psycopg

from benchmarks import measure
from benchmarks.bench import Bench
from benchmarks.report import make_row, seconds
from live.pipelines import Runner

TABLES = 20
ROWS = 1_000
LIMIT = 0.3


def run(bench: Bench) -> None:
    """The rows idle_*."""
    folder = bench.folder / "idle"
    with bench.database("idle") as url:
        tables = max(2, min(TABLES, bench.rows(TABLES, 1)))
        with psycopg.connect(url, autocommit=True) as session:
            for n in range(tables):
                session.execute(f"create table t{n} (id int primary key, note text)".encode())
                session.execute(
                    f"insert into t{n} select n, md5(n::text) from generate_series(1, {ROWS}) n".encode()
                )
        bench.say(f"idle: the first run of {tables} tables, dbt included")
        Runner(folder, url).run("run")
        jobs = {
            name: partial(measure.run, f"lifelike:{name}", folder=str(folder), url=url)
            for name in ("idle", "idle_process")
        }
        samples = bench.rounds(jobs)
    ratios = [s.seconds / LIMIT for s in samples["idle"]]
    bench.report.rows += [
        make_row("idle_run", samples["idle"], "s", seconds, f"{LIMIT} s; {tables} tables", ratios),
        make_row("idle_process", samples["idle_process"], "s", seconds, "start-up included"),
    ]
