"""The columns of the three lake tables of a captured table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa

from headwater.canonical import quote
from headwater.columns import meta_from
from headwater.config import HistoryNames
from headwater.errors import ConfigError
from headwater.model import META, TableSchema

#: The meta columns that travel on into the lake; `_hw_unset` is settled by then.
CARRIED = tuple(field.name for field in META if field.name != "_hw_unset")


def plain_layout(schema: TableSchema) -> dict[str, pa.DataType]:
    """Mirror and changes: the table's columns, then the meta columns."""
    return {c.name: c.type for c in schema.columns} | {n: META.field(n).type for n in CARRIED}


def history_layout(schema: TableSchema, names: HistoryNames) -> dict[str, pa.DataType]:
    """History: the table's columns, the span of the version, the meta columns, the number that ended it."""
    moment = pa.timestamp("us", "UTC")
    spans = {names.valid_from: moment, names.valid_to: moment, names.current: pa.bool_()}
    taken = {c.name.casefold() for c in schema.columns} & {name.casefold() for name in spans}
    if taken:
        raise ConfigError(
            f"{schema.table} has a column {sorted(taken)[0]!r} of its own, a name that its history needs",
            hint="give the history other names: history: {valid_from: ..., valid_to: ..., current: ...}",
        )
    plain = plain_layout(schema)
    own = {c.name: plain.pop(c.name) for c in schema.columns}
    return own | spans | plain | {"_hw_seq_to": pa.int64()}


def history_meta(schema: TableSchema, wanted: TableSchema, layout: Mapping[str, pa.DataType]) -> str:
    """The select list of what a history holds beside the columns of `wanted`, over rows of `schema`."""
    own = {c.name for c in wanted.columns}
    spans = [quote(name) for name in layout if name not in own and name not in CARRIED]
    return ", ".join([*spans[:3], meta_from(schema, wanted), *spans[3:]])


def history_notes(names: HistoryNames) -> Mapping[str, str]:
    """What a history table was made with: other names or another open end make it anew."""
    end = names.open_end.isoformat() if names.open_end else ""
    return {
        "valid_from": names.valid_from,
        "valid_to": names.valid_to,
        "current": names.current,
        "open_end": end,
    }


def is_spelt(notes: Mapping[str, str], names: HistoryNames) -> bool:
    """Whether a history table was made with these names and this open end."""
    wanted = history_notes(names)
    return {name: notes.get(name) for name in wanted} == wanted


def names_of(notes: Mapping[str, str]) -> HistoryNames:
    """What `history_notes` noted down."""
    end = datetime.fromisoformat(notes["open_end"]) if notes["open_end"] else None
    return HistoryNames(notes["valid_from"], notes["valid_to"], notes["current"], end)
