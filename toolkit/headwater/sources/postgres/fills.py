"""What rows older than a column hold in it: PostgreSQL keeps that with the column, and so do we."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from headwater.model import TableSchema
from headwater.sources.postgres.catalog import SourceColumn
from headwater.sources.postgres.values import arrow_type

_DAY, _HOUR = r"\d{4}-\d\d-\d\d", r"([01]\d|2[0-3]):\d\d:\d\d(\.\d{1,6})?"
_SPELT: dict[pa.DataType, str] = {
    pa.bool_(): "[tf]",
    pa.date32(): _DAY,
    pa.time64("us"): _HOUR,
    pa.timestamp("us"): f"{_DAY} {_HOUR}",
    pa.timestamp("us", "UTC"): rf"{_DAY} {_HOUR}\+00",
}


def fill_of(column: SourceColumn) -> str | None:
    """The remembered value as `Column.fill` has it; None where none is remembered or our type has no room."""
    text, kind = column.missing, arrow_type(column.native)
    if text is None or kind == pa.string():
        return text
    if kind == pa.binary():
        return text.removeprefix("\\x")
    if pa.types.is_decimal(kind):
        return text if re.fullmatch(r"-?\d+(\.\d+)?", text) else None
    return text if re.fullmatch(_SPELT.get(kind, ".*"), text) else None


def with_fills(before: TableSchema, after: TableSchema, columns: Sequence[SourceColumn]) -> TableSchema:
    """`after` with what rows under `before` hold in its new columns. `columns` are those of `after`."""
    old = {c.origin: c for c in before.columns}
    made = []
    for column, found in zip(after.columns, columns, strict=True):
        known = old.get(column.origin)
        same = known is not None and known.native == column.native
        fill = known.fill if known is not None and same else None if known else fill_of(found)
        made.append(replace(column, fill=fill))
    return replace(after, columns=tuple(made))
