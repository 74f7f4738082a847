"""What was seen of a table before: bounds, lengths, few values, sizes of batches. Kept in the state.

Only ever to warn by. The values of masked columns are never in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import pyarrow as pa

from headwater.canonical import quote
from headwater.model import Column, TableSchema

#: Few values are a set: at most so many, each so long.
SET_VALUES = 12
SET_LENGTH = 40
#: What was seen counts when it was seen in so many cells.
ENOUGH = 100
#: The sizes of so many batches are kept, and so many are needed to tell an odd one.
SIZES_KEPT = 60
SIZES_NEEDED = 8

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Span:
    """What one column held in `rows` cells.

    low, high          of numbers; of dates and times in days since 1970
    shortest, longest  of texts in characters, of bytes in bytes
    values             all there were; None where they were many
    """

    kind: str
    rows: int = 0
    low: float | None = None
    high: float | None = None
    shortest: int | None = None
    longest: int | None = None
    values: tuple[str, ...] | None = None

    def merge(self, other: Span) -> Span:
        """What both held; of another type nothing is known any more."""
        if self.kind != other.kind or not self.rows or not other.rows:
            return other if other.rows else self
        values = None
        if self.values is not None and other.values is not None:
            joined = tuple(sorted({*self.values, *other.values}))
            values = joined if len(joined) <= SET_VALUES else None
        return Span(
            self.kind,
            self.rows + other.rows,
            min((n for n in (self.low, other.low) if n is not None), default=None),
            max((n for n in (self.high, other.high) if n is not None), default=None),
            min((n for n in (self.shortest, other.shortest) if n is not None), default=None),
            max((n for n in (self.longest, other.longest) if n is not None), default=None),
            values,
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a table. `columns` are their types by name, `spans` by column, `sizes` of batches."""

    columns: Mapping[str, str] = field(default_factory=dict)
    spans: Mapping[str, Span] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()

    def merge(self, columns: Mapping[str, str], spans: Mapping[str, Span], size: int | None) -> Seen:
        """With a batch that was let through; `size` None where it was no usual batch."""
        kept = {name: span for name, span in self.spans.items() if name in columns}
        merged = {name: kept[name].merge(span) if name in kept else span for name, span in spans.items()}
        sizes = self.sizes if size is None else (*self.sizes, size)[-SIZES_KEPT:]
        return Seen(columns, {**kept, **merged}, sizes)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        spans = {name: asdict(span) for name, span in self.spans.items()}
        return {"columns": dict(self.columns), "spans": spans, "sizes": list(self.sizes)}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Seen:
        """Read back what `to_json` gave."""
        spans = {
            name: Span(**{**its, "values": None if its["values"] is None else tuple(its["values"])})
            for name, its in doc["spans"].items()
        }
        return cls(doc["columns"], spans, tuple(doc["sizes"]))


def seen_columns(schema: TableSchema) -> dict[str, str]:
    """The columns that rows have now, and their types."""
    return {c.name: str(c.type) for c in schema.columns if not c.retired}


def spanned(schema: TableSchema) -> list[Column]:
    """The columns that are looked at: not the key, nor what is masked."""
    return [c for c in schema.columns if not (c.mask or c.retired or c.name in schema.key)]


def measure(column: Column) -> str | None:
    """SQL of the number that stands for a value; None for a type without order, NULL for NaN and infinity."""
    name, kind = quote(column.name), column.type
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return f"CAST({name} AS DOUBLE)"
    if pa.types.is_floating(kind):
        return f"CASE WHEN isfinite({name}) THEN CAST({name} AS DOUBLE) END"
    if pa.types.is_date(kind):
        return f"CAST({name} - DATE '1970-01-01' AS DOUBLE)"
    return f"epoch_us({name}) / {_DAY * 1e6}" if pa.types.is_timestamp(kind) else None


def length_of(column: Column) -> str | None:
    """SQL of how long a value is; None for a type without length."""
    if column.type == pa.string():
        return f"length({quote(column.name)})"
    return f"octet_length({quote(column.name)})" if column.type == pa.binary() else None


def span_cells(column: Column) -> list[str]:
    """SQL of the aggregates that `read_span` takes, in memory that does not grow with the rows."""
    number, length = measure(column) or "CAST(NULL AS DOUBLE)", length_of(column) or "CAST(NULL AS BIGINT)"
    few = f"approx_count_distinct({quote(column.name)})" if column.type == pa.string() else "NULL"
    ends = [f"{pick}({cell})" for cell in (number, length) for pick in ("min", "max")]
    return [f"count({quote(column.name)})", *ends, few]


def read_span(column: Column, cells: Sequence[Any]) -> Span:
    """What the aggregates of `span_cells` say; its values are to be looked at where `is_few`."""
    rows, low, high, shortest, longest, _ = cells
    return Span(str(column.type), rows, low, high, shortest, longest)


def is_few(cells: Sequence[Any]) -> bool:
    """Whether the values may be few, by the same aggregates."""
    rows, _, _, _, longest, distinct = cells
    return bool(rows and distinct is not None and distinct <= 2 * SET_VALUES and longest <= SET_LENGTH)


def bounds(column: Column, span: Span) -> tuple[float, float] | None:
    """The lowest and highest `measure` to expect: as far beyond what was seen as that is wide."""
    if span.kind != str(column.type) or span.low is None or span.high is None or span.rows < ENOUGH:
        return None
    low, high = span.low, span.high
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        # Time goes on: what is no later than tomorrow is nothing odd.
        high = max(high, time.time() / _DAY)
    room = max(high - low, 1.0)
    # Beyond the largest double there is only infinity, which SQL reads as the name of a column.
    most = sys.float_info.max
    return max(low - room, -most), min(high + room, most)


def lengths(column: Column, span: Span) -> tuple[int, int] | None:
    """The shortest and the longest value to expect: half as long, and twice."""
    if span.kind != str(column.type) or span.shortest is None or span.longest is None or span.rows < ENOUGH:
        return None
    return span.shortest // 2, max(2 * span.longest, span.longest + 8)


def values_of(column: Column, span: Span) -> tuple[str, ...] | None:
    """The only values to expect; None where there is no such set."""
    return span.values if span.kind == str(column.type) and span.rows >= ENOUGH else None


def usual(sizes: Sequence[int]) -> tuple[int, int] | None:
    """Between which sizes a batch is usual, by median and median deviation; None before there are enough."""
    if len(sizes) < SIZES_NEEDED:
        return None
    middle = median(sizes)
    room = max(6 * 1.4826 * median(abs(n - middle) for n in sizes), 0.75 * middle, 10.0)
    return max(0, int(middle - room)), int(middle + room)
