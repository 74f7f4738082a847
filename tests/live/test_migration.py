# ruff: noqa: E501, PLR0913, PLR0917
"""Forty changes of schema with random rows between: lake, history and warehouse are what the source was."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from headwater import Pipeline
from headwater.columns import ident
from headwater.model import Column, TableId, TableSchema
from live.migration import Migration, Seen, Step, norm
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

Rows = list[dict[str, Any]]


@pytest.mark.parametrize("way", ["step by step", "all at once"])
def test_a_migration(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    runner = Runner(tmp_path / "p", pg.url)
    monkeypatch.setenv("SOAK_PASSWORD", runner.environment["SOAK_PASSWORD"])
    migration = Migration(pg.url)
    migration.begin()
    ends: list[dict[str, int]] = []
    with Pipeline.open(runner.config) as pipeline:
        pipeline.run()
        for number, _ in enumerate(migration.steps()):
            if way == "step by step":
                pipeline.run(build=number == 15)
                last = pipeline.parts.log.last()
                assert last is not None
                ends.append(dict.fromkeys(migration.seen[-1][2], last.next_row))
        pipeline.run()
        report = pipeline.verify()
        assert report.equal, report.lines()
        # A table that came and went between two builds is in the lake; its models are made when asked for.
        pipeline.dbt_build()
        wrong = []
        for at, (step, lsn, seen) in enumerate(migration.seen):
            for name, table in seen.items():
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
