# ruff: noqa: E501, PLR0913, PLR0917
"""Some forty changes of schema with random rows between: lake, history and warehouse are what the source was."""

import itertools
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from headwater import Pipeline
from headwater.columns import ident
from headwater.model import Column, TableId, TableSchema
from headwater.raw import RawLog
from live.migration import Migration, Seen, Step, norm
from live.pipelines import Runner, stop
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

Rows = list[dict[str, Any]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["by steps", "all at once", "followed"])
def test_a_migration(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    runner = Runner(tmp_path / "p", pg.url, ("public.*", "side.*"))
    monkeypatch.setenv("SOAK_PASSWORD", runner.environment["SOAK_PASSWORD"])
    pg.run("create schema side; create table side.busy (id int primary key, n int, note text)")
    migration = Migration(pg.url)
    migration.begin()
    ends: list[dict[str, int]] = []
    with Pipeline.open(runner.config) as pipeline:
        pipeline.run(build=way != "followed")
        if way == "followed":
            pipeline.close()  # the follower needs the slot
            _follow(pg, runner, pipeline, migration)
        for number, step in enumerate(migration.steps() if way != "followed" else ()):
            if way == "by steps":
                ends.append({})
                if number % 2 or step.again or "a table" in step.does:
                    _run(pipeline, [step], build=number == 15)
                    last = pipeline.parts.log.last()
                    assert last is not None
                    ends[-1] = dict.fromkeys(migration.seen[-1][2], last.next_row)
        _run(pipeline, [] if ends else [step for step, _, _ in migration.seen])
        report = pipeline.verify()
        assert report.equal, report.lines()
        # A table that came and went between two builds is in the lake; its models are made when asked for.
        pipeline.dbt_build()
        wrong = []
        # A table that is read again at the start of a run has no changes of before it in the log; one that stopped
        # at a change that does not fit has none in its history from there to its next reading.
        passed = {step.again for step, _, _ in migration.seen} if way != "by steps" else set()
        for at, (step, lsn, seen) in enumerate(migration.seen):
            for name, table in ((n, t) for n, t in seen.items() if n not in passed):
                wrong += _compare(
                    pipeline,
                    runner,
                    step,
                    name,
                    table,
                    lsn,
                    ends[at].get(name) if ends else None,
                    migration,
                    at,
                )
        assert not wrong, "\n".join(wrong[:20])
    migration.close()


def _run(pipeline: Pipeline, steps: Sequence[Step], *, build: bool = True) -> None:
    """A run that reads again by hand what docs/postgres.md says must be: no log shows these rows."""
    again = sorted({step.again for step in steps} - {""})
    pipeline.run("full" if again else "auto", again or None, build=build)


def _follow(pg: Database, runner: Runner, pipeline: Pipeline, migration: Migration) -> None:
    """Every step under `headwater run --follow`, while somebody else writes to a table that changes too."""
    process, writer = runner.start("run", "--follow", "--pause", "0.1", "--no-dbt"), Writer(pg.url)
    writer.start()
    try:
        for number, _ in enumerate(migration.steps()):
            if number % 4 == 3:
                pg.run(f"alter table side.busy add more{number} int default {number}")
            if number > 1:
                _await(process, runner, pipeline, migration.seen[-2][1])
    finally:
        writer.end()
        code = stop(process, 200)
    said = (runner.folder / "follow.log").read_text()
    # Rows of an attached partition were changed: unless the table was just being read again for another step,
    # it stops, and says what to do. Nothing else does.
    stopped = [line for line in said.splitlines() if "a row that is not there" in line]
    assert code == bool(stopped) and all("public.parted: " in line for line in stopped), said
    assert not stopped or "headwater run --full --table public.parted" in said


def _await(process: "subprocess.Popen[bytes]", runner: Runner, pipeline: Pipeline, lsn: int) -> None:
    """Wait until the follower has captured what is before a place in the source's log."""
    parts, late = pipeline.parts, time.monotonic() + 60
    while True:
        last = RawLog(parts.storage).last()
        if last is not None and _lsn(parts.source.show(last.position)) >= lsn:
            return
        said = (runner.folder / "follow.log").read_text()
        assert process.poll() is None and time.monotonic() < late, said
        time.sleep(0.05)


class Writer(threading.Thread):
    """Changes rows of a table of its own until the end."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._ended = url, threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as con:
            for number in itertools.count():
                con.execute("insert into side.busy (id, n, note) values (%s, 0, 'x')", [number])
                con.execute("update side.busy set n = n + 1 where id %% 7 = %s", [number % 7])
                con.execute("delete from side.busy where id = %s", [number - 50])
                if self._ended.wait(0.02):
                    return

    def end(self) -> None:
        self._ended.set()
        self.join()


def _compare(
    pipeline: Pipeline,
    runner: Runner,
    step: Step,
    name: str,
    seen: Seen,
    lsn: int,
    end: int | None,
    migration: Migration,
    at: int,
) -> list[str]:
    table = TableId(*name.split("."))
    schema = _schema(pipeline, table)
    if schema is None:
        return []
    places = {n: _columns_of(schema.columns, seen.oid, n, c) for n, c in seen.columns.items()}
    wrong = []
    unlogged = _unlogged(migration, at, name.partition(".")[2]) if end is None else set()
    lagging = end is None
    for where, rows in _histories(pipeline, runner.folder, table, bool(schema.key)).items():
        if end is None:
            end = _reached(pipeline, table, lsn)
        if where == "warehouse" and at < _rekeyed(migration, name.partition(".")[2], whole=lagging):
            continue  # its models begin with the load under the new key
        columns = [
            n for n in seen.columns if places[n] and seen.columns[n] not in unlogged and "*" not in unlogged
        ]
        if "*" in unlogged:
            continue
        there = _as_of(rows, end, schema.key, [c.name for n in columns for c in places[n]])
        found = Counter(
            tuple(next((norm(r[c.name]) for c in places[n] if r[c.name] is not None), None) for n in columns)
            for r in there
        )
        index = [list(seen.columns).index(n) for n in columns]
        wanted = Counter(tuple(row[i] for i in index) for row in seen.rows)
        if found != wanted:
            names = [seen.columns[n] for n in columns]
            wrong.append(
                f"{where}: {name} after {step.does} {names}: too much {[_cut(r) for r in (found - wanted)][:3]}, "
                f"too little {[_cut(r) for r in (wanted - found)][:3]}"
            )
    return wrong


def _cut(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(v if v is None else v[:12] for v in row)


def _columns_of(columns: Sequence[Column], oid: int, number: int, name: str) -> list[Column]:
    found = [c for c in columns if c.origin == f"{oid}.{number}"]
    return found or [c for c in columns if ident(c).partition("#")[0] == name.casefold()]


def _unlogged(migration: Migration, at: int, table: str) -> set[str]:
    """Columns whose rows of some time before the log does not have as they were then; "*": of all from here on."""
    marks = [
        (n, *m.split("."))
        for n, (step, _, _) in enumerate(migration.seen)
        for m in (*step.unlogged, *step.late)
    ]
    return {column for n, name, column in marks if name == table and (column != "*" or n <= at)}


def _rekeyed(migration: Migration, table: str, *, whole: bool) -> int:
    """From which step on a table has its key of today in the log."""
    at = [n for n, (step, _, _) in enumerate(migration.seen) if f"{table}.warehouse" in step.unlogged]
    return (len(migration.seen) if whole else at[0]) if at else 0


@cache
def _schema(pipeline: Pipeline, table: TableId) -> TableSchema | None:
    return pipeline.parts.lake.schema(table, "changes") if table in pipeline.parts.log.tables() else None


@cache
def _histories(pipeline: Pipeline, folder: Path, table: TableId, keyed: bool) -> dict[str, Rows]:
    name = f'"{table.namespace}"."{table.name}"'
    found = {"lake": _rows(pipeline.history(name))}
    if keyed and (folder / "warehouse.duckdb").exists():
        with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as con:
            con.execute("set timezone = 'UTC'")
            relation = f"stg_{table.namespace}__{table.name}__history"
            found["warehouse"] = _rows(con.sql(f"select * from main.{relation}"))
    return found


def _rows(relation: duckdb.DuckDBPyRelation) -> Rows:
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def _reached(pipeline: Pipeline, table: TableId, lsn: int) -> int:
    """The last number of the table's changes up to a place in the source's log."""
    return max((seq for seq, pos in _places(pipeline, table) if _lsn(pos) <= lsn), default=-1)


@cache
def _places(pipeline: Pipeline, table: TableId) -> list[tuple[int, str]]:
    changes = pipeline.changes(f'"{table.namespace}"."{table.name}"')
    return changes.project("_hw_seq, _hw_pos").fetchall()


def _as_of(rows: Rows, end: int, key: Sequence[str], names: Sequence[str]) -> Rows:
    rows = [r for r in rows if r["_hw_seq"] <= end]
    if key:
        return [r for r in rows if (r["_hw_seq_to"] is None or r["_hw_seq_to"] > end) and r["_hw_op"] != "d"]
    gone = Counter(_image(r, names) for r in rows if r["_hw_op"] == "d")
    there = []
    for row in rows:
        if row["_hw_op"] != "d" and gone[_image(row, names)]:
            gone[_image(row, names)] -= 1
        elif row["_hw_op"] != "d":
            there.append(row)
    return there


def _image(row: dict[str, Any], names: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(norm(row[name]) for name in names)


def _lsn(text: str | None) -> int:
    high, _, low = (text or "FFFFFFFF/FFFFFFFF").partition("/")
    return (int(high, 16) << 32) + int(low, 16)
