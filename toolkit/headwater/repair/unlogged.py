"""What the source has otherwise than its log told: read for some keys, and logged as what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import duckdb_type, held_types, quote
from headwater.columns import json_of, odd_keys, odd_text
from headwater.model import META, STRIDE, ChangeBatch, TableSchema
from headwater.repair.keys import among, key_text, note_keys

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: What a row is to the lake that differs from the source in it.
_OPS = {"missing": "c", "different": "u", "extra": "d"}


@dataclass(frozen=True, slots=True)
class Seen:
    """The rows of the lake, and where the source was looked at.

    mirror  SQL to stand after FROM, in the columns of `held`
    place   the position of the cut, printable
    """

    mirror: str
    held: TableSchema
    place: str


def observed(
    con: DuckDBPyConnection, read: Iterator[ChangeBatch], seen: Seen, kinds: Mapping[str, str]
) -> ChangeBatch | None:
    """The changes that make the lake's rows the source's; None for none.

    read    the source's rows, among others
    kinds   text of the key -> missing | extra | different, as the lake is to the source

    They have no `_hw_tx`: no transaction of the log made them.
    """
    # By the source's clock where it told a time: it stands in every row that is read.
    at = datetime.now(UTC)
    note_keys(con, kinds)
    schema: TableSchema | None = None
    pieces: list[pa.Table] = []
    for batch in read:
        schema = batch.schema
        if batch.rows.num_rows:
            at = batch.rows["_hw_at"][0].as_py()
        pieces.append(_chosen(con, batch))
    if schema is None:
        return None
    pieces = [_with_ops(con, piece, schema, kinds) for piece in pieces if piece.num_rows]
    gone = [text for text, kind in kinds.items() if kind == "extra"]
    if gone:
        pieces.append(_deletes(con, seen, schema, gone, at))
    rows = pa.concat_tables(pieces) if pieces else None
    if rows is None or not rows.num_rows:
        return None
    numbers = pa.array(range(STRIDE // 2, STRIDE * rows.num_rows, STRIDE), pa.int64())
    at = rows.column_names.index("_hw_seq")
    return ChangeBatch(schema, rows.set_column(at, META.field("_hw_seq"), numbers))


def _chosen(con: DuckDBPyConnection, batch: ChangeBatch) -> pa.Table:
    """The rows of a batch that are asked for."""
    con.register("_hw_read", batch.rows)
    kept = f"SELECT row_number() OVER () - 1 AS n, {key_text(batch.schema)} AS k FROM _hw_read"
    found = con.execute(f"SELECT n FROM ({kept}) SEMI JOIN _hw_suspects USING (k) ORDER BY n").fetchall()
    con.unregister("_hw_read")
    return batch.rows.take(pa.array([row[0] for row in found], pa.int64()))


def _with_ops(
    con: DuckDBPyConnection, rows: pa.Table, schema: TableSchema, kinds: Mapping[str, str]
) -> pa.Table:
    con.register("_hw_read", rows)
    texts = con.execute(f"SELECT {key_text(schema, held_types(schema))} FROM _hw_read").fetchall()
    con.unregister("_hw_read")
    ops = pa.array([_OPS[kinds[row[0]]] for row in texts], pa.string())
    return rows.set_column(rows.column_names.index("_hw_op"), META.field("_hw_op"), ops)


def _deletes(
    con: DuckDBPyConnection, seen: Seen, schema: TableSchema, gone: Sequence[str], at: datetime
) -> pa.Table:
    """A delete for each of these keys: the key as the log would carry it, and nothing else."""
    note_keys(con, gone, "_hw_gone")
    types = {c.name: duckdb_type(c.type) for c in seen.held.columns} | {"_hw_text": "VARCHAR"}
    odd = odd_keys(schema)
    cells = [
        f"CAST({value} AS {duckdb_type(c.type)}) AS {quote(c.name)}"
        for c in schema.columns
        for value in [quote(c.name) if c.name in schema.key else "NULL"]
    ]
    text = json_of(odd, [odd_text(name) for name in odd]) if odd else "CAST(NULL AS VARCHAR)"
    rows = among(seen.mirror, key_text(schema, types), "_hw_gone")
    query = f"SELECT DISTINCT {', '.join(cells)}, {text} AS _hw_text FROM {rows}"
    found: pa.Table = con.sql(query).to_arrow_table()
    unset = [c.name for c in schema.columns if c.name not in schema.key]
    count = found.num_rows
    meta = {
        "_hw_op": pa.repeat(pa.scalar("d"), count),
        "_hw_pos": pa.repeat(pa.scalar(seen.place), count),
        "_hw_at": pa.repeat(pa.scalar(at, META.field("_hw_at").type), count),
        "_hw_unset": pa.array([unset] * count, pa.list_(pa.string())),
        "_hw_text": found["_hw_text"],
    }
    own = schema.arrow()
    columns = [found[name].cast(own.field(name).type) for name in own.names]
    columns += [meta[f.name].cast(f.type) if f.name in meta else pa.nulls(count, f.type) for f in META]
    return pa.Table.from_arrays(columns, schema=pa.schema([*own, *META]))
