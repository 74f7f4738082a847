"""What every part of the benchmark shares: a folder, a PostgreSQL 15, a scale, and turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.measure import Sample
from benchmarks.report import Report
from headwater.demo.server import EmbeddedPostgres

BINARIES = Path("/usr/lib/postgresql/15/bin")  # make servers
#: A server as Debian makes it, but for what log capture needs, and checkpoints are ours.
SETTINGS: dict[str, str | int] = {
    "wal_level": "logical",
    "max_replication_slots": 40,
    "max_wal_senders": 40,
    "shared_buffers": "256MB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
}


@dataclass(slots=True)
class Bench:
    """One run of the benchmark.

    scale     1.0: the sizes of issue 3 that fit into 20 minutes; tests use a thousandth
    full      the memory figures at their documented sizes
    peers     the folder for peers' virtual environments; None leaves peers out
    """

    folder: Path
    scale: float = 1.0
    repeats: int = 3
    full: bool = False
    peers: Path | None = None
    report: Report = field(default_factory=lambda: Report({}))
    _server: EmbeddedPostgres | None = None

    def rows(self, count: int, least: int = 1000) -> int:
        """A number of rows at this scale."""
        return max(least, int(count * self.scale))

    def say(self, line: str) -> None:
        """Progress, for whoever waits."""
        print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """Something a reader of the figures must know."""
        self.say(line)
        self.report.notes.append(line)

    def rounds(self, jobs: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
        """Let the jobs take turns, as often as there are repeats."""
        samples: dict[str, list[Sample]] = {name: [] for name in jobs}
        for number in range(self.repeats):
            for name, job in jobs.items():
                sample = job()
                samples[name].append(sample)
                took = f"{sample.seconds:.2f} s, {sample.cpu_s:.2f} CPU s, {sample.peak_mb:.0f} MiB"
                self.say(f"  {name} {number + 1}/{self.repeats}: {took}")
        return samples

    @property
    def server(self) -> EmbeddedPostgres:
        """The PostgreSQL 15 of this run."""
        if self._server is None:
            server = EmbeddedPostgres(self.folder / "postgres", binaries=BINARIES, settings=SETTINGS)
            server.start()
            self._server = server
        return self._server

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """A new database; gone afterwards, with its slots. Gives its URL."""
        with psycopg.connect(self.server.url, autocommit=True) as leader:
            leader.execute(f"create database {name}".encode())
        try:
            yield self.server.url_for(name)
        finally:
            with psycopg.connect(self.server.url, autocommit=True) as leader:
                leader.execute(
                    "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = %s", [name]
                )
                leader.execute(
                    "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                    "where database = %s",
                    [name],
                )
                leader.execute(f"drop database {name} with (force)".encode())

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.remove()
            self._server = None
