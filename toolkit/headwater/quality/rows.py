"""The rows to judge: what came since a place in the log, or all of a table, as SQL and in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from headwater.canonical import duckdb_type, quote, shown_text
from headwater.columns import image, key_parts
from headwater.keys import format_key
from headwater.lake.tail import tail_beyond
from headwater.model import TableId, TableSchema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from headwater.lake import Held
    from headwater.lake.delta import Lake

#: A piece for pandas has so many rows and bytes at most, and is read in so many rows at a time.
PIECE_ROWS = 200_000
PIECE_BYTES = 64_000_000
_READ_ROWS = 16_384

#: So many keys of wrong rows are named for each rule.
KEYS = 20
#: Up to so many rows, a batch's keys are looked for in the whole table too.
SMALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as SQL that can stand after FROM, with the lake's meta columns.

    upto   the highest `_hw_seq` of the table
    table  SQL of all rows of the table; "" where it is too large to be looked through for a batch
    """

    schema: TableSchema
    relation: str
    scope: Literal["batch", "table"]
    since: int
    upto: int
    table: str

    @property
    def names_keys(self) -> bool:
        """Whether wrong rows can be named: by a key of which no column is masked."""
        masks = {c.name: c.mask for c in self.schema.columns}
        return bool(self.schema.key) and not any(masks[name] for name in self.schema.key)


def open_batch(lake: Lake, con: DuckDBPyConnection, changes: Held, since: int) -> Rows:
    """What came behind a `_hw_seq` and is still there; from -1 on that is the whole table."""
    schema, upto = changes.schema, lake.highest(changes)
    whole = lake.relation(con, changes.table, "mirror", schema)
    mirror = lake.open(changes.table, "mirror")
    small = mirror is not None and sum(n or 0 for n in mirror.files["num_records"].to_pylist()) <= SMALL
    if since < 0:
        return Rows(schema, whole, "batch", since, upto, whole)
    came = tail_beyond(changes, since).scan(lake)
    return Rows(schema, _net(schema, came), "batch", since, upto, whole if small else "")


def open_table(lake: Lake, con: DuckDBPyConnection, table: TableId, newest: TableSchema) -> Rows:
    """All rows of a table."""
    changes = lake.open(table, "changes")
    schema = changes.schema if changes else newest
    relation = lake.relation(con, table, "mirror", newest)
    return Rows(schema, relation, "table", -1, lake.highest(changes) if changes else -1, relation)


def _net(schema: TableSchema, came: str) -> str:
    """The rows that are left of changes: the last of each key; without a key, what was not taken back."""
    if schema.key:
        parts = ", ".join(key_parts(schema))
        last = f"SELECT max(_hw_seq) AS _hw_seq FROM {came} GROUP BY {parts}"
        return f"(SELECT * FROM {came} SEMI JOIN ({last}) USING (_hw_seq) WHERE _hw_op <> 'd')"
    row = image(schema, [c.name for c in schema.columns])
    left = "sum(CASE WHEN _hw_op = 'd' THEN -1 ELSE 1 END) OVER (PARTITION BY _hw_row)"
    nth = "row_number() OVER (PARTITION BY _hw_row, _hw_op = 'd' ORDER BY _hw_seq DESC)"
    each = f"SELECT *, {row} AS _hw_row FROM {came}"
    told = f"SELECT *, {left} AS _hw_left, {nth} AS _hw_nth FROM ({each})"
    wanted = "_hw_op <> 'd' AND _hw_nth <= _hw_left"
    return f"(SELECT * EXCLUDE (_hw_row, _hw_left, _hw_nth) FROM ({told}) WHERE {wanted})"


def name_keys(con: DuckDBPyConnection, rows: Rows, wrong: str) -> tuple[str, ...]:
    """The keys of the first rows of a query over `rows`, as `headwater explain` takes them."""
    if not rows.names_keys:
        return ()
    types = {c.name: duckdb_type(c.type) for c in rows.schema.columns}
    cells = ", ".join(shown_text(name, types[name], beside=True) for name in rows.schema.key)
    order = ", ".join(map(quote, rows.schema.key))
    found = con.execute(f"SELECT {cells} FROM ({wrong}) ORDER BY {order} LIMIT {KEYS}").fetchall()
    return tuple(format_key({n: v or "" for n, v in zip(rows.schema.key, row, strict=True)}) for row in found)


def read_pieces(con: DuckDBPyConnection, rows: Rows, cells: Sequence[str]) -> Iterator[pa.Table]:
    """Columns (SQL) of the rows in pieces of PIECE_ROWS, about PIECE_BYTES; one empty piece of no rows."""
    query = con.sql(f"SELECT {', '.join(cells)} FROM {rows.relation}")
    reader: pa.RecordBatchReader = query.to_arrow_reader(_READ_ROWS)
    held: list[pa.RecordBatch] = []
    none = True
    for batch in reader:
        if held and _full(held, batch):
            yield pa.Table.from_batches(held)
            held, none = [], False
        held.append(batch)
    if held or none:
        yield pa.Table.from_batches(held, schema=reader.schema)


def _full(held: Sequence[pa.RecordBatch], batch: pa.RecordBatch) -> bool:
    rows, size = (sum(getattr(b, name) for b in (*held, batch)) for name in ("num_rows", "nbytes"))
    return bool(rows > PIECE_ROWS or size > PIECE_BYTES)
