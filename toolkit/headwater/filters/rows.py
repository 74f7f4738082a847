"""Batches put through a filter, whole columns at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.canonical import literal
from headwater.errors import SourceError
from headwater.model import META, Op, TableSchema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_UPDATE, _DELETE, _TRUNCATE = (pa.scalar(op.value) for op in (Op.UPDATE, Op.DELETE, Op.TRUNCATE))


class Engine:
    """A DuckDB that reaches no file and no network, and writes nothing. Thread-safe."""

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None
        self._opening = Lock()

    def fitting(self, condition: str, rows: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
        """For each row whether it fits; unknown is no. Raises SourceError without a value in it."""
        if not rows.num_rows:
            return pa.chunked_array([], pa.bool_())
        needed = rows.select([*columns, "_hw_text"])
        return self._query(f"SELECT coalesce({condition}, FALSE) AS v FROM rows", needed)["v"]

    def numbers(self, sql: str, rows: pa.Table) -> list[list[int]]:
        """The rows of numbers that a query over `rows` gives; raises SourceError."""
        columns = [column.to_pylist() for column in self._query(sql, rows).columns]
        return [[int(value) for value in row] for row in zip(*columns, strict=True)]

    def texts_of(self, texts: pa.ChunkedArray, but: Sequence[str]) -> pa.ChunkedArray:
        """`_hw_text` without the members `but`; null where none is left."""
        if texts.null_count == len(texts):
            return texts
        patch = literal(json.dumps(dict.fromkeys(but)))
        # A null in a merge patch takes the member out (RFC 7396).
        left = f"nullif(CAST(json_merge_patch(t, {patch}) AS VARCHAR), '{{}}')"
        sql = f"SELECT CASE WHEN t IS NOT NULL THEN {left} END AS v FROM rows"
        return self._query(sql, pa.table({"t": texts}))["v"]

    def close(self) -> None:
        """Let go of the connection."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _query(self, sql: str, rows: pa.Table) -> pa.Table:
        import duckdb

        with self._cursor() as cursor:
            cursor.register("rows", rows)
            with contextlib.suppress(duckdb.Error):
                return cursor.sql(sql).to_arrow_table()
        # What the engine said may quote the value it stumbled over.
        raise SourceError("the rows cannot be filtered", hint="headwater check; if all is well, report this")

    def _cursor(self) -> DuckDBPyConnection:
        with self._opening:
            if self._connection is None:
                import duckdb

                self._connection = duckdb.connect(config={"temp_directory": ""})
                self._connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            return self._connection.cursor()


def lacking(rows: pa.Table, columns: Collection[str]) -> pa.ChunkedArray:
    """For each row whether the log left one of these columns out."""
    lists = rows["_hw_unset"]
    if lists.null_count == len(lists):
        return pa.chunked_array([pa.repeat(pa.scalar(False), len(lists))])
    whole = lists.combine_chunks()
    found = pc.is_in(pc.list_flatten(whole), pa.array(list(columns), pa.string()))
    marked = np.zeros(len(whole), bool)
    marked[pc.list_parent_indices(whole).filter(found).to_numpy()] = True
    return pa.chunked_array([pa.array(marked)])


def keep_changes(
    rows: pa.Table, schema: TableSchema, fits: pa.ChunkedArray, unknown: pa.ChunkedArray, engine: Engine
) -> pa.Table:
    """Changes of the rows that fit. An update that leads out of them is the delete of its key.

    Where `unknown`, nobody can say: a delete stays, as its row may have fitted; others are left out, and the
    table has to be read again.
    """
    ops, known = rows["_hw_op"], pc.invert(unknown)
    fits = pc.and_(fits, known)
    out = pc.and_(pc.equal(ops, _UPDATE), pc.and_(pc.invert(fits), known))
    gone = pc.and_(unknown, pc.equal(ops, _DELETE))
    stays = pc.or_(pc.or_(fits, gone), pc.equal(ops, _TRUNCATE))
    if not pc.any(out, min_count=0).as_py():
        return rows.filter(stays)
    left = _deletes(rows.filter(out), schema, engine)
    return pa.concat_tables([rows.filter(stays), left]).sort_by("_hw_seq")


def _deletes(rows: pa.Table, schema: TableSchema, engine: Engine) -> pa.Table:
    """The rows as deletes that carry their key alone."""
    count, others = rows.num_rows, [c.name for c in schema.columns if c.name not in schema.key]
    unset = pa.array([others or None], META.field("_hw_unset").type)
    made = {
        "_hw_op": pa.repeat(_DELETE, count),
        "_hw_unset": unset.take(pa.array(np.zeros(count, np.int64))),
        "_hw_text": engine.texts_of(rows["_hw_text"], others),
    }
    empty = set(others)
    return pa.table(
        [pa.nulls(count, f.type) if f.name in empty else made.get(f.name, rows[f.name]) for f in rows.schema],
        schema=rows.schema,
    )
