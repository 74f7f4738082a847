"""Commit in the source -> readable in the lake, under `run --follow`.

    python tests/benchmarks/bench_freshness.py [SECONDS [TRANSACTIONS_A_SECOND]]

pgbench commits single-row transactions; a reader in a process of its own asks `Pipeline.table` again and
again for rows it has not seen, and takes their age by the commit time that the log carries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from live.pipelines import stop
from servers.postgres import Database, find_version, make_server

READER = """
import json, sys, time
import numpy as np
from headwater import Pipeline
ages, last = [], int(sys.argv[2])
with Pipeline.open("headwater.yml") as pipeline:
    def look():
        rows = pipeline.table("public.fresh").filter(f"id > {last}").project("id, epoch_us(_hw_at) AS at")
        return rows.to_arrow_table(), time.time()
    while not look()[0].num_rows:
        time.sleep(0.1)
    last += 1
    print("ready", flush=True)
    until = time.time() + float(sys.argv[1])
    while time.time() < until:
        found, now = look()
        if found.num_rows:
            ages.append(now - found["at"].to_numpy() / 1e6)
            last = int(found["id"].to_numpy().max())
        time.sleep(0.02)
json.dump(np.concatenate(ages).tolist(), sys.stdout)
"""
SCRIPT = "insert into fresh (what) values ('a row of the usual width, more or less');\n"


def measure(seconds: float, rate: int, *, warehouse: bool) -> dict[str, float]:
    """Ages (seconds) of rows when they were first read: p50, p99, highest; rows seen; CPU of the follower."""
    with tempfile.TemporaryDirectory(prefix="hw-fresh-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = make_server(folder / "pg", 15)
        server.start()
        try:
            database = Database(server)
            database.create()
            return _measure(database, folder, seconds, rate, warehouse=warehouse)
        finally:
            server.remove()


def _measure(
    database: Database, folder: Path, seconds: float, rate: int, *, warehouse: bool
) -> dict[str, float]:
    database.run("create table fresh (id bigint generated always as identity primary key, what text)")
    database.run("insert into fresh (what) select 'an old row' from generate_series(1, 10000)")
    head, _, rest = database.url.partition("://")
    user, _, place = rest.partition("@")
    login, _, password = user.partition(":")
    source = {"kind": "postgres", "url": f"{head}://{login}@{place}", "password": "env:FRESH"}
    doc: dict[str, object] = {
        "pipeline": "fresh", "source": source, "store": "./lake", "tables": ["public.*"],
    }  # fmt: skip
    if warehouse:
        doc["warehouse"] = "duckdb:///warehouse.duckdb"
    (folder / "headwater.yml").write_text(yaml.safe_dump(doc))
    (folder / "load.sql").write_text(SCRIPT)
    environment = {**os.environ, "FRESH": password}
    command = [sys.executable, "-m", "headwater", "run"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    with (folder / "follow.log").open("wb") as log:
        follower = subprocess.Popen(
            [*command, "--follow"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    # A row that comes through says that all is up.
    newest = database.run("select max(id) from fresh")[0][0]
    database.run("insert into fresh (what) values ('the first')")
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(seconds), str(newest)],
        cwd=folder, env=environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"ready\n"
    binaries = find_version(15)
    assert binaries is not None
    before, began = _cpu(follower.pid), time.monotonic()
    load = subprocess.Popen(
        [str(binaries / "pgbench"), "-n", "-c", "4", "-j", "1", "-T", str(int(seconds)), "-R", str(rate),
         "-f", str(folder / "load.sql"), database.url],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    said = reader.communicate()[0]
    share = (_cpu(follower.pid) - before) / (time.monotonic() - began)
    load.wait()
    code = stop(follower, 120)
    assert code == 0, (folder / "follow.log").read_text()
    ages = np.array(json.loads(said))
    p50, p99 = np.percentile(ages, [50, 99])
    return {
        "freshness_p50": float(p50), "freshness_p99": float(p99), "highest": float(ages.max()),
        "rows": float(len(ages)), "follower_cpu_share": share,
    }  # fmt: skip


def _cpu(pid: int) -> float:
    """CPU seconds of a process and the children it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def main(seconds: float = 15.0, rate: int = 1000) -> None:
    """Print the figures without and with a warehouse that is built in parallel."""
    for warehouse in (False, True):
        found = measure(seconds, rate, warehouse=warehouse)
        where = "lake, dbt building beside it" if warehouse else "lake alone"
        print(
            f"{where:<30}{rate:,}/s: p50 {found['freshness_p50']:.2f} s  p99 {found['freshness_p99']:.2f} s"
            f"  highest {found['highest']:.2f} s  ({found['rows']:,.0f} rows;"
            f" follower {found['follower_cpu_share']:.0%} of a core)"
        )


def test_freshness() -> None:
    main()


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, int), sys.argv[1:], strict=False)))
