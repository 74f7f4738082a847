"""Changes: socket -> durable raw log, beside `pg_recvlogical > /dev/null` and Debezium on the same slot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks import measure
from benchmarks.bench import Bench
from benchmarks.measure import Sample
from benchmarks.peers import DEBEZIUM, find_peer
from benchmarks.report import make_row, pairwise, per_second
from benchmarks.slots import copy_slot

SCHEMA = Path(__file__).with_name("orders.sql").read_text()
PUBLICATION = "bench"
LIMIT = "pg_recvlogical > /dev/null"
#: Debezium is timed over so many changes: its rate hardly depends on how many there are.
DEBEZIUM_CHANGES = 200_000
#: One-row transactions of cdc_small.
SMALL = 100_000


@dataclass(frozen=True, slots=True)
class Content:
    """Changes at rest in a slot, that can be read again and again.

    keep   the slot that stands before the first change; its copies are read
    store  the raw log before the first change
    until  an LSN behind the last one
    """

    url: str
    changes: int
    store: Path
    until: str
    keep: str = "bench_keep"

    @property
    def fresh(self) -> Path:
        """The raw log as the last job of ours left it."""
        return self.store.with_name("fresh")

    def ours(self, job: str, profile: str = "") -> Sample:
        """A job of ours on a fresh copy of slot and raw log; checks that nothing is missing."""
        copy_slot(self.url, self.keep, "bench")
        fresh = self.fresh
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(self.store, fresh)
        place = {"url": self.url, "slot": "bench", "publication": PUBLICATION, "store": str(fresh)}
        sample = measure.run(f"ours:{job}", profile=profile, **place)
        told = sample.facts["rows"]
        assert told == self.changes, f"{job}: {told} changes of {self.changes}"
        return sample

    def limit(self) -> Sample:
        """The same content, received and thrown away."""
        copy_slot(self.url, self.keep, "bench_limit")
        return measure.run(
            "limits:receive", url=self.url, slot="bench_limit", publication=PUBLICATION, until=self.until
        )

    def debezium(self, python: Path, changes: int) -> Sample:
        """The first of these changes through the Debezium engine, without a sink."""
        copy_slot(self.url, self.keep, "bench_debezium")
        return measure.run(
            "peers.debezium:follow", python=python, url=self.url, slot="bench_debezium",
            publication=PUBLICATION, changes=changes,
        )  # fmt: skip


@contextmanager
def make_content(bench: Bench, name: str, work: str, identity: str = "default") -> Iterator[Content]:
    """A database whose table `orders` was captured empty, and then worked on by a procedure call."""
    store = bench.folder / name / "store"
    with bench.database(name) as url, psycopg.connect(url, autocommit=True) as session:
        session.execute(SCHEMA.encode())
        session.execute(f"alter table orders replica identity {identity}".encode())
        measure.run("ours:load", url=url, slot="bench", publication=PUBLICATION, store=str(store))
        copy_slot(url, "bench", "bench_keep")
        bench.say(f"{name}: {work}")
        session.execute("set synchronous_commit = off")
        row = session.execute(work.encode()).fetchone()
        session.execute("checkpoint")
        end = session.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None and end is not None
        yield Content(url, row[0], store, end[0])
    shutil.rmtree(bench.folder / name)


def _call(bench: Bench, inserts: int, updates: int, deletes: int) -> str:
    return f"call work({bench.rows(100, 2)}, {inserts}, {updates}, {deletes}, null)"


def run(bench: Bench) -> None:
    """The rows cdc_*."""
    mixed = _call(bench, 10_000, 5_000, 1_000)
    with make_content(bench, "cdc_insert", _call(bench, 10_000, 300, 100)) as content:
        _compare(bench, "cdc_insert", content)
    with make_content(bench, "cdc_mixed_default", mixed) as content:
        _compare(bench, "cdc_mixed_default", content, find_peer(bench, DEBEZIUM))
        _where_it_goes(bench, content)
    with make_content(bench, "cdc_mixed_full", mixed, "full") as content:
        _compare(bench, "cdc_mixed_full", content)
    with make_content(bench, "cdc_small", f"call small_work({bench.rows(SMALL)}, null)") as content:
        _compare(bench, "cdc_small", content)


def _compare(bench: Bench, name: str, content: Content, debezium: Path | None = None) -> None:
    rate = per_second(content.changes)
    jobs: dict[str, Callable[[], Sample]] = {"limit": content.limit, "ours": lambda: content.ours("drain")}
    fewer = min(bench.rows(DEBEZIUM_CHANGES), content.changes)
    if debezium:
        jobs["debezium"] = lambda: content.debezium(debezium, fewer)
    samples = bench.rounds(jobs)
    ours, limit = samples["ours"], samples["limit"]
    bench.report.rows += [
        make_row(name, ours, "changes/s", rate, LIMIT, pairwise(ours, limit, rate)),
        make_row(f"{name}_limit", limit, "changes/s", rate),
    ]
    if debezium:
        theirs = samples["debezium"]
        ratios = [rate(a) / per_second(fewer)(b) for a, b in zip(ours, theirs, strict=True)]
        bench.report.rows += [
            make_row("cdc_debezium", ours, "changes/s", rate, f"Debezium engine, {DEBEZIUM.shown}", ratios),
            make_row("cdc_debezium_peer", theirs, "changes/s", per_second(fewer)),
        ]


def _where_it_goes(bench: Bench, content: Content) -> None:
    """The two halves alone, once, and what ours is busy with."""
    rate = per_second(content.changes)
    for name in ("decode", "stage"):
        bench.report.rows.append(make_row(f"cdc_{name}_only", [content.ours(name)], "changes/s", rate))
    sample = content.ours("drain", profile="headwater")
    bench.report.profiles["changes -> raw log (cdc_mixed_default)"] = sample.facts["profile"]
