"""A full load: every row -> durable raw log, beside a client's COPY and beside peers that write Parquet."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import psycopg

from benchmarks import measure
from benchmarks.bench import Bench
from benchmarks.cdc import PUBLICATION, SCHEMA
from benchmarks.measure import Sample
from benchmarks.peers import ADBC, CONNECTORX, DLT, find_peer
from benchmarks.report import make_row, pairwise, per_second
from benchmarks.slots import drop_slot

ROWS = 2_000_000
LIMIT = "COPY (FORMAT binary) > /dev/null"
_READERS = """
select count(*) from pg_stat_activity
where datname = current_database() and state = 'active' and query ilike '%%copy%%to stdout%%' and pid <> %s
"""


@contextmanager
def make_table(bench: Bench, name: str, rows: int) -> Iterator[str]:
    """A database with a table `orders` of so many rows; gives its URL."""
    with bench.database(name) as url:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(SCHEMA.encode())
            bench.say(f"{name}: inserting {rows:,} rows")
            session.execute("set synchronous_commit = off")
            session.execute("insert into orders select * from make_orders(1, %s)", [rows])
            session.execute("vacuum (freeze, analyze) orders")
            session.execute("checkpoint")
        yield url


class Load:
    """Loads of one table into fresh folders."""

    def __init__(self, bench: Bench, url: str, rows: int) -> None:
        self._bench, self._url, self._rows = bench, url, rows
        self._out = bench.folder / "full"
        self.connections = 1

    def ours(self, profile: str = "") -> Sample:
        """Ours; notes down with how many connections it read at once."""
        with psycopg.connect(self._url, autocommit=True) as session:
            self._clear(session)
            counter = _ReaderCount(self._url)
            try:
                sample = measure.run(
                    "ours:load", url=self._url, slot="bench", publication=PUBLICATION,
                    store=str(self._out), profile=profile,
                )  # fmt: skip
            finally:
                self.connections = max(1, counter.end())
            self._clear(session)
        return self._checked("ours", sample)

    def limit(self) -> Sample:
        """The table in as many pieces as ours read at once, received and thrown away."""
        return measure.run("limits:copy", url=self._url, targets=self._pieces())

    def peer(self, python: Path, job: str, **words: object) -> Sample:
        """A peer's load."""
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir()
        file = str(self._out / "peer.parquet")
        sample = measure.run(f"peers.{job}", python=python, url=self._url, table="orders", file=file, **words)
        return self._checked(job, sample)

    def _checked(self, name: str, sample: Sample) -> Sample:
        told = sample.facts["rows"]
        assert told == self._rows, f"{name}: {told} rows of {self._rows}"
        return sample

    def _pieces(self) -> list[str]:
        if self.connections == 1:
            return ["orders"]
        with psycopg.connect(self._url) as session:
            row = session.execute("select pg_relation_size('orders') / 8192").fetchone()
        assert row is not None
        marks = [row[0] * n // self.connections for n in range(self.connections)] + [row[0]]
        where = "ctid >= '({},0)' and ctid < '({},0)'"
        return [
            f"(select * from orders where {where.format(a, b)})"
            for a, b in zip(marks, marks[1:], strict=False)
        ]

    def _clear(self, session: psycopg.Connection) -> None:
        shutil.rmtree(self._out, ignore_errors=True)
        drop_slot(session, "bench")
        session.execute(f"drop publication if exists {PUBLICATION}".encode())


class _ReaderCount:
    """The most sessions that copied at one moment."""

    def __init__(self, url: str) -> None:
        self._url, self._most, self._over = url, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as session:
            while not self._over.wait(0.1):
                row = session.execute(_READERS, [session.info.backend_pid]).fetchone()
                self._most = max(self._most, row[0] if row else 0)


def run(bench: Bench) -> None:
    """The rows full_*."""
    rows = bench.rows(ROWS)
    rate = per_second(rows)
    with make_table(bench, "full_load", rows) as url:
        load = Load(bench, url, rows)
        peers = _peers(bench, load)
        samples = bench.rounds({"ours": load.ours, "limit": load.limit, **peers})
        bench.report.profiles["full load -> raw log"] = load.ours("headwater").facts["profile"]
    ours, limit = samples["ours"], samples["limit"]
    connections = f"{load.connections} connection{'s' if load.connections > 1 else ''}"
    bench.report.rows += [
        make_row("full_copy", ours, "rows/s", rate, f"{LIMIT}, {connections}", pairwise(ours, limit, rate)),
        make_row("full_copy_limit", limit, "rows/s", rate),
    ]
    if not peers:
        return
    best = max(peers, key=lambda name: median(map(rate, samples[name])))
    bench.report.rows.append(
        make_row("full_peer", ours, "rows/s", rate, best, pairwise(ours, samples[best], rate))
    )
    for name in peers:
        ratios = pairwise(ours, samples[name], rate)
        word = name.lower().replace(" ", "_").replace(".", "_")
        bench.report.rows.append(
            make_row(f"full_peer_{word}", samples[name], "rows/s", rate, "(ours / it)", ratios)
        )


def _peers(bench: Bench, load: Load) -> dict[str, Callable[[], Sample]]:
    """Those that can be had, each with the settings that are its fastest."""
    jobs: dict[str, Callable[[], Sample]] = {}
    if python := find_peer(bench, ADBC):
        jobs["ADBC"] = partial(load.peer, python, "adbc:load")
    if python := find_peer(bench, CONNECTORX):
        jobs["ConnectorX stream"] = partial(load.peer, python, "connectorx:stream")
        jobs["ConnectorX 2 parts"] = partial(load.peer, python, "connectorx:load", connections=2)
    if python := find_peer(bench, DLT):
        for backend in ("connectorx", "pyarrow"):
            jobs[f"dlt {backend}"] = partial(load.peer, python, "dlt:load", backend=backend)
    return jobs
