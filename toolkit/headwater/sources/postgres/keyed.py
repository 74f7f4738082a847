"""Rows by key: the query that reads those whose values the log left out, and what it can be asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from headwater.sources.postgres.binary import select_item
from headwater.sources.postgres.catalog import Relation, SourceColumn
from headwater.sources.postgres.quoting import quote_name, quote_text

#: Keys looked up by one query.
KEYS = 20_000
_FIRST_OWN_OID = 16384  # types below come with the server, and so do their operators
_MOMENTS = (pa.types.is_date, pa.types.is_timestamp)


def findable(relation: Relation, keys: pa.Table) -> bool:
    """Whether these keys, as our files hold them, can be written as text that means the same there."""
    columns = _key_columns(relation)
    if not columns or keys.column_names != list(relation.schema.key):
        return False
    if not all(_plain_type(column) for column in columns):
        return False
    return all(_plain_values(keys[name]) for name in keys.column_names)


def queries(relation: Relation, source: str, keys: pa.Table) -> Iterator[str]:
    """Queries that select the kept columns of the rows with these keys; `source` stands after FROM."""
    columns = _key_columns(relation)
    wanted = ", ".join(select_item(c.name, c.native, "t.") for c in relation.kept)
    names = [f"k{n}" for n in range(len(columns))]
    same = " and ".join(f"t.{quote_name(c.name)} = w.{name}" for c, name in zip(columns, names, strict=True))
    for first in range(0, keys.num_rows, KEYS):
        some = keys.slice(first, KEYS)
        lists = ", ".join(
            f"{quote_text(_array_text(some[key]))}::{column.native.name}[]"
            for key, column in zip(some.column_names, columns, strict=True)
        )
        yield f"select {wanted} from {source} as t join unnest({lists}) as w({', '.join(names)}) on {same}"


def _key_columns(relation: Relation) -> list[SourceColumn]:
    key = set(relation.schema.key)
    return [c for c, made in zip(relation.kept, relation.schema.columns, strict=True) if made.name in key]


def _plain_type(column: SourceColumn) -> bool:
    native = column.native
    own = native.base_oid >= _FIRST_OWN_OID and native.kind != "e"
    return not own and native.kind in "be" and not native.name.endswith("[]") and native.name != "bytea"


def _plain_values(values: pa.ChunkedArray) -> bool:
    """No NULL (the value is kept as text beside the column, then), and no year that we write otherwise."""
    if values.null_count:
        return False
    if not any(is_moment(values.type) for is_moment in _MOMENTS):
        return True
    plain = pc.match_substring_regex(values.cast(pa.string()), "^[0-9]{4}-")
    return bool(pc.all(plain, min_count=0).as_py())


def _array_text(values: pa.ChunkedArray) -> str:
    """The values as the text of an array, every element in quotes."""
    texts = values.cast(pa.string()).combine_chunks()
    texts = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    return '{"' + '","'.join(texts.to_pylist()) + '"}'
