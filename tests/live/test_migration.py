# ruff: noqa: E501, PLR0913, PLR0917
"""Forty changes of schema with random rows between: lake, history and warehouse are what the source was."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from headwater import Pipeline
from headwater.columns import ident
from headwater.model import Column, TableId
from live.migration import Migration, Seen, Step, norm
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

Rows = list[dict[str, Any]]


@pytest.mark.parametrize("way", ["step by step", "all at once"])
def test_a_migration(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    runner = Runner(tmp_path / "p", pg.url, tables=("public.*", "archive.*") if way == "x" else ("public.*",))
    monkeypatch.setenv("SOAK_PASSWORD", runner.environment["SOAK_PASSWORD"])
    migration = Migration(pg.url)
    migration.begin()
    ends: list[dict[str, int]] = []
    with Pipeline.open(runner.config) as pipeline:
        pipeline.run()
        for number, _ in enumerate(migration.steps()):
            if way == "step by step":
                pipeline.run(build=number % 13 == 12)
                last = pipeline.parts.log.last()
                assert last is not None
                ends.append(dict.fromkeys(migration.seen[-1][2], last.next_row))
        pipeline.run()
        report = pipeline.verify()
        assert report.equal, report.lines()
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
    if table not in pipeline.parts.log.tables():
        return []
    schema = pipeline.parts.lake.schema(table, "changes")
    assert schema is not None
    places = {n: _columns_of(schema.columns, seen.oid, n, c) for n, c in seen.columns.items()}
    wrong = []
    unlogged = _unlogged(migration, at, name.partition(".")[2]) if end is None else set()
    lagging = end is None
    for where, rows in _histories(pipeline, runner, table, bool(schema.key)).items():
        if end is None:
            end = max((r["_hw_seq"] for r in rows if _lsn(r.get("_hw_pos")) <= lsn), default=-1)
        if where == "warehouse" and at < _rekeyed(migration, name.partition(".")[2], whole=lagging):
            continue  # its models begin with the load under the new key
        there = _as_of(rows, end, bool(schema.key))
        columns = [
            n for n in seen.columns if places[n] and seen.columns[n] not in unlogged and "*" not in unlogged
        ]
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
    """Columns whose rows of some time before the log does not have as they were then."""
    marks = [m.partition(".") for step, _, _ in migration.seen for m in step.unlogged]
    return {column for name, _, column in marks if name == table}


def _rekeyed(migration: Migration, table: str, *, whole: bool) -> int:
    """From which step on a table has its key of today in the log."""
    at = [n for n, (step, _, _) in enumerate(migration.seen) if f"{table}.warehouse" in step.unlogged]
    return (len(migration.seen) if whole else at[0]) if at else 0


def _histories(pipeline: Pipeline, runner: Runner, table: TableId, keyed: bool) -> dict[str, Rows]:
    name = f'"{table.namespace}"."{table.name}"'
    found = {"lake": _rows(pipeline.history(name))}
    if keyed and (runner.folder / "warehouse.duckdb").exists():
        with duckdb.connect(str(runner.folder / "warehouse.duckdb"), read_only=True) as con:
            con.execute("set timezone = 'UTC'")
            relation = f"stg_{table.namespace}__{table.name}__history"
            found["warehouse"] = _rows(con.sql(f"select * from main.{relation}"))
    return found


def _rows(relation: duckdb.DuckDBPyRelation) -> Rows:
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def _as_of(rows: Rows, end: int, keyed: bool) -> Rows:
    if keyed:
        return [r for r in rows if r["_hw_seq"] <= end and (r["_hw_seq_to"] is None or r["_hw_seq_to"] > end)
                and r["_hw_op"] != "d"]  # fmt: skip
    return []


def _lsn(text: str | None) -> int:
    high, _, low = (text or "FFFFFFFF/FFFFFFFF").partition("/")
    return (int(high, 16) << 32) + int(low, 16)
