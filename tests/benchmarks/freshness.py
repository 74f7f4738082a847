"""Commit in the source -> readable in the lake, while `headwater run --follow` works on 1,000 a second."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from statistics import median

import psycopg

from benchmarks import measure
from benchmarks.bench import BINARIES, Bench
from benchmarks.full import make_table
from benchmarks.measure import Job, Sample
from benchmarks.report import Row
from live.pipelines import Runner

RATE = 1_000
SECONDS = 20
#: The load runs this long before its changes count.
WARM_UP = 3
ROWS = 100_000
_STARTED = -1_000_000
LIMITS = {"p50": 1.0, "p99": 3.0}

_INSERT = "insert into orders select o.* from nextval('order_ids') n, make_orders(n, n) o;\n"
_UPDATE = rf"""\set id random(1, {ROWS})
update orders set amount = amount + 1, changed = now() where id = :id;
"""


def run(bench: Bench) -> None:
    """The rows freshness_*: half of the transactions insert a row, half update one of 100,000."""
    folder = bench.folder / "freshness"
    stop = folder / "stop"
    with make_table(bench, "freshness", ROWS) as url:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(f"create sequence order_ids start {ROWS + 1}".encode())
        Runner(folder, url, tables=("public.orders",), warehouse=False).run("run")
        place = {"folder": str(folder), "url": url}
        follower = Job("benchmarks.lifelike:follow", {**place, "stop": str(stop)})
        try:
            # Its first look comes after start-up, which is not what a follower's user waits for.
            _insert(url, _STARTED)
            measure.run("lifelike:read", **place, since=0.0, last=_STARTED)
            rounds = [_round(bench, folder, url, number) for number in range(1, bench.repeats + 1)]
        finally:
            stop.touch()
            followed = follower.result()
    _add(bench, rounds, followed)


def _round(bench: Bench, folder: Path, url: str, number: int) -> Sample:
    seconds = max(3, int(SECONDS * min(1.0, bench.scale)))
    since = time.time() + WARM_UP
    words = {"folder": str(folder), "url": url, "since": since, "last": -number}
    reader = Job("benchmarks.lifelike:read", words)
    done = _work(folder, url, seconds + WARM_UP)
    _insert(url, -number)
    sample = reader.result()
    told = sample.facts
    bench.say(
        f"  freshness {number}/{bench.repeats}: {done:,.0f} transactions/s, p50 {told['p50']:.2f} s, "
        f"p99 {told['p99']:.2f} s over {told['changes']:,} changes, {told['looks']} looks"
    )
    if done < 0.95 * RATE:
        bench.note(f"freshness {number}: the machine managed {done:.0f} transactions/s of {RATE}")
    return sample


def _insert(url: str, key: int) -> None:
    """A row that the reader knows: it has seen everything before it."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("insert into orders (id, customer) values (%s, 0)", [key])


def _work(folder: Path, url: str, seconds: int) -> float:
    """Transactions at a steady rate; how many a second there were."""
    words = []
    for name, script in (("insert", _INSERT), ("update", _UPDATE)):
        file = folder / f"{name}.sql"
        file.write_text(script)
        words += ["-f", f"{file}@1"]
    command = [str(BINARIES / "pgbench"), "-n", "-c", "8", "-R", str(RATE), "-T", str(seconds), *words, url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"tps = ([0-9.]+)", said)
    assert found, said
    return float(found[1])


def _add(bench: Bench, rounds: list[Sample], followed: Sample) -> None:
    for name, limit in LIMITS.items():
        runs = [r.facts[name] for r in rounds]
        middle = median(runs)
        bench.report.rows.append(
            Row(
                f"freshness_{name}", middle, "s", f"{limit:g} s", middle / limit, followed.cpu_s,
                followed.peak_mb, (max(runs) - min(runs)) / middle, runs,
            )
        )  # fmt: skip
