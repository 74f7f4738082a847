"""Keys by their canonical text, which is the same in lake, raw log, warehouse and source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import column_texts, row_text
from headwater.model import TableSchema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def key_text(schema: TableSchema, held: Mapping[str, str] | None = None) -> str:
    """SQL of the key's text over rows of a relation of `held` column types (None: the schema's)."""
    columns = {c.name: c for c in schema.columns}
    keyed = TableSchema(schema.table, tuple(columns[name] for name in schema.key), schema.key)
    return row_text(list(column_texts(keyed, held).values()))


def note_keys(con: DuckDBPyConnection, keys: Collection[str], name: str = "_hw_suspects") -> None:
    """Make a set of keys known to a connection, as the relation `name` of one column `k`."""
    con.register(name, pa.table({"k": pa.array(sorted(keys), pa.string())}))


def among(relation: str, key: str, name: str = "_hw_suspects") -> str:
    """SQL to stand after FROM: the rows of a relation whose key is among those noted."""
    rows = f"SELECT *, {key} AS _hw_key FROM {relation}"
    return f"(SELECT r.* EXCLUDE (_hw_key) FROM ({rows}) AS r SEMI JOIN {name} AS w ON r._hw_key = w.k)"
