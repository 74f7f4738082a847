"""Rows to judge, made in DuckDB out of Python values, and one judge for all tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from headwater.canonical import quote
from headwater.config import Expectation
from headwater.model import META, Column, TableId, TableSchema
from headwater.quality import Check
from headwater.quality.gx import Judge
from headwater.quality.rows import Rows
from headwater.quality.rules import Rule, count
from headwater.quality.wanted import judge, understand, unique_rules

T = TableId("public", "t")


@cache
def the_judge() -> Judge:
    return Judge()


def make_rows(
    con: duckdb.DuckDBPyConnection,
    columns: Sequence[Column],
    cells: Mapping[str, Sequence[Any]],
    key: Sequence[str] = ("id",),
    texts: Sequence[str | None] = (),
    table: TableId = T,
) -> Rows:
    """All rows of a table as its mirror would hold them; `texts` are cells of `_hw_text`."""
    n = len(next(iter(cells.values())))
    arrays = {c.name: pa.array(cells[c.name], c.type) for c in columns}
    meta = {f.name: pa.nulls(n, f.type) for f in META if f.name != "_hw_unset"}
    meta["_hw_seq"] = pa.array(range(2, 4 * n + 2, 4), pa.int64())
    meta["_hw_op"] = pa.array(["c"] * n)
    meta["_hw_text"] = pa.array(list(texts) or [None] * n, pa.string())
    name = f"t{abs(hash((id(cells), table)))}"
    con.register(f"{name}_arrow", pa.table({**arrays, **meta}))
    con.execute(f"CREATE OR REPLACE TABLE {quote(name)} AS SELECT * FROM {name}_arrow")
    return Rows(TableSchema(table, tuple(columns), tuple(key)), quote(name), "table", -1, 4 * n, quote(name))


def counted(con: duckdb.DuckDBPyConnection, rows: Rows, rules: Sequence[Rule]) -> dict[tuple[str, ...], int]:
    """What breaks each rule, by its name and columns."""
    found = count(con, rows, rules, look=False)
    return {(c.rule, *c.columns): c.unexpected for c in found.checks}


def judged(con: duckdb.DuckDBPyConnection, rows: Rows, *expectations: Expectation) -> list[Check]:
    """How rows are judged by what a user expects, in the order given."""
    wanted = understand(rows.schema, expectations)
    unique = [w for w in wanted if unique_rules(rows, [w])]
    by_row = [w for w in wanted if w not in unique and w.by_row]
    others = [w for w in wanted if w not in unique and not w.by_row]
    checks = judge(con, rows, [*by_row, *others], the_judge())
    checks += count(con, rows, unique_rules(rows, unique), look=False).checks
    order = [id(w) for w in (*by_row, *others, *unique)]
    return [checks[order.index(id(w))] for w in wanted]


def expect(kind: str, **kwargs: Any) -> Expectation:
    return Expectation(f"expect_{kind}", kwargs)
