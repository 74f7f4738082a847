"""PostgreSQL's types: what each becomes in Arrow, and how a column of its text is converted.

The log is text, under the session settings `SETTINGS`; of a snapshot what `binary` does not read.
Whatever the Arrow type cannot hold is *odd*: NULL in the typed column, its text kept beside it by the caller.
docs/types.md is this module as a page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.sources.postgres import calendar
from headwater.sources.postgres.cells import (
    NULL,
    UNSET,
    VALUE,
    BadCell,
    Cells,
    Mask,
    contents,
    first,
    gather,
    settled,
)

__all__ = [
    "NULL",
    "SETTINGS",
    "UNSET",
    "VALUE",
    "BadCell",
    "Cells",
    "NativeType",
    "arrow_type",
    "convert",
    "decode_strings",
    "make_array",
    "texts",
]

#: What every session that reads must be set to: the converters know no other spelling.
SETTINGS = {
    "datestyle": "ISO",
    "timezone": "UTC",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "client_encoding": "UTF8",
    "search_path": "pg_catalog",  # regclass and its like print a schema unless it is on the path
}

_DECIMAL_DIGITS = 38


@dataclass(frozen=True, slots=True)
class NativeType:
    """A column's type as pg_attribute and pg_type tell it."""

    oid: int
    typmod: int
    name: str  # format_type(oid, typmod), such as numeric(12,2)
    base_oid: int  # a domain's base type; else as oid
    base_typmod: int
    kind: str  # pg_type.typtype of the base type: b e c r m p


Converted = tuple[pa.Array, Mask | None]


def arrow_type(native: NativeType) -> pa.DataType:
    """The Arrow type that holds every value of the type, or every one but a few odd ones; else string."""
    if native.base_oid == _NUMERIC:
        return _decimal_type(native.base_typmod)
    known = _KNOWN.get(native.base_oid)
    return known[0] if known else pa.string()


def convert(cells: Cells, native: NativeType) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
    """The column as `arrow_type(native)`, NULL where null, unset or odd; and which are odd (None: none).

    Raises BadCell (a DecodeError) for text the type does not allow.
    """
    kind = arrow_type(native)
    if native.base_oid == _NUMERIC and kind != pa.string():
        array, odd = _decimals(settled(cells), kind)
    else:
        known = _KNOWN.get(native.base_oid)
        array, odd = (known[1] if known else _strings)(settled(cells))
    return array, odd if odd is not None and odd.any() else None


def texts(cells: Cells) -> pa.Array:
    """The exact text of each cell, null where there is no value."""
    return decode_strings(settled(cells))


def decode_strings(cells: Cells) -> pa.Array:
    """The same of settled cells. Raises BadCell for text that is not UTF-8."""
    raw = gather(cells)
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        row = _first_refused(raw, pa.string())
    raise BadCell(row, "text that is not UTF-8")


def _decimal_type(typmod: int) -> pa.DataType:
    if typmod < 4:
        return pa.string()
    precision = (typmod - 4) >> 16 & 0xFFFF
    # Since PostgreSQL 15 the scale is 11 bits with a sign and may exceed the precision.
    scale = (((typmod - 4) & 0x7FF) ^ 1024) - 1024
    if scale < 0:
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    return pa.decimal128(precision, scale) if 1 <= precision <= _DECIMAL_DIGITS else pa.string()


def _validity(valid: Mask) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def make_array(kind: pa.DataType, valid: Mask, *buffers: npt.NDArray[np.generic]) -> pa.Array:
    """An Arrow array over these buffers of its type, NULL where it is not valid."""
    return pa.Array.from_buffers(kind, len(valid), [_validity(valid), *map(pa.py_buffer, buffers)])


def _check(bad: Mask, cells: Cells) -> None:
    bad = bad & cells.has_value()
    if bad.any():
        raise BadCell(first(bad), "text that is no value of its type")


def _strings(cells: Cells) -> Converted:
    return decode_strings(cells), None


def _cast(raw: pa.Array, kind: pa.DataType) -> pa.Array:
    """Arrow's own exact parser, for text whose characters have been checked."""
    try:
        return raw.cast(pa.string()).cast(kind)
    except pa.ArrowInvalid:
        row = _first_refused(raw, kind)
    # Outside the handler, so that Arrow's message, which quotes the value, does not travel as the context.
    raise BadCell(row, "text that is no value of its type")


def _first_refused(raw: pa.Array, kind: pa.DataType) -> int:
    low, high = 0, len(raw)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            raw.slice(low, middle - low).cast(pa.string()).cast(kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def _alphabet(characters: str) -> Mask:
    table = np.zeros(256, bool)
    table[list(characters.encode())] = True
    return table


_INTEGER, _PLAIN, _REAL = _alphabet("-0123456789"), _alphabet("-.0123456789"), _alphabet("+-.0123456789e")


def _only(raw: pa.Array, allowed: Mask, cells: Cells) -> None:
    """Raise at the first cell with a character that is not allowed: Arrow would take 0x1F and 1e5 too."""
    used = allowed[contents(raw)]
    if used.all():
        return
    ends = np.cumsum(cells.lengths)
    raise BadCell(int(np.searchsorted(ends, first(~used), side="right")), "text that is no value of its type")


def _integers(kind: pa.DataType) -> Callable[[Cells], Converted]:
    def parse(cells: Cells) -> Converted:
        raw = gather(cells)
        _only(raw, _INTEGER, cells)
        return _cast(raw, kind), None

    return parse


def _named(cells: Cells, names: tuple[bytes, ...]) -> Mask:
    """Rows that are exactly one of the names; cheap when no cell ends like one."""
    found = np.zeros(len(cells.starts), bool)
    last = cells.data[cells.starts + cells.lengths - 1]
    rows = np.flatnonzero((last > ord("9")) & cells.has_value())
    if len(rows):
        spelt = pc.is_in(gather(cells.pick(rows)), pa.array(names, pa.binary()))
        found[rows] = spelt.to_numpy(zero_copy_only=False)
    return found


def _without(cells: Cells, rows: Mask) -> Cells:
    return Cells(
        cells.data,
        cells.starts,
        np.where(rows, 0, cells.lengths),
        np.where(rows, np.uint8(NULL), cells.state),
    )


def _decimals(cells: Cells, kind: pa.DataType) -> Converted:
    """numeric(p,s). Odd: NaN, and an infinity should a column have kept one from before its bound."""
    odd = _named(cells, (b"NaN", b"Infinity", b"-Infinity"))
    if odd.any():
        cells = _without(cells, odd)
    # PostgreSQL prints exactly s decimals. Held to that, for Arrow wraps around silently beyond 38 digits.
    negative = cells.data[cells.starts] == ord("-")
    whole = cells.lengths - negative - (kind.scale + 1 if kind.scale else 0)
    _check((whole < 1) | (whole > max(kind.precision - kind.scale, 1)), cells)
    if kind.scale:
        _check(cells.data[cells.starts + cells.lengths - kind.scale - 1] != ord("."), cells)
    if kind.precision == kind.scale:
        _check(cells.data[cells.starts + negative] != ord("0"), cells)
    raw = gather(cells)
    _only(raw, _PLAIN, cells)
    return _cast(raw, kind), odd


def _floats(kind: pa.DataType) -> Callable[[Cells], Converted]:
    def parse(cells: Cells) -> Converted:
        named = _named(cells, (b"NaN", b"Infinity", b"-Infinity"))
        special = named.any()
        raw = gather(cells)
        plain = _without(cells, named) if special else cells
        _only(gather(plain) if special else raw, _REAL, plain)
        array = _cast(raw, kind)
        finite = pc.is_finite(array).fill_null(True).to_numpy(zero_copy_only=False)
        # PostgreSQL never writes a number beyond the type's range; Arrow would round it to infinity.
        _check(~finite & ~named, cells)
        return array, None

    return parse


def _booleans(cells: Cells) -> Converted:
    letter = cells.data[cells.starts]
    true = letter == ord("t")
    _check((cells.lengths != 1) | ~(true | (letter == ord("f"))), cells)
    return make_array(pa.bool_(), cells.has_value(), np.packbits(true, bitorder="little")), None


_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[list(b"0123456789")] = range(10)
_NIBBLE[list(b"abcdef")] = range(10, 16)


def _binaries(cells: Cells) -> Converted:
    valid = cells.has_value()
    data, starts, lengths = cells.data, cells.starts, cells.lengths
    unmarked = (data[starts] != ord("\\")) | (data[starts + 1] != ord("x"))
    _check(unmarked | (lengths < 2) | (lengths % 2 == 1), cells)
    digits = np.where(valid, lengths - 2, 0)
    nibbles = _NIBBLE[contents(gather(Cells(data, starts + 2, digits, cells.state)))]
    if (nibbles > 15).any():
        row = int(np.searchsorted(np.cumsum(digits), first(nibbles > 15), side="right"))
        raise BadCell(row, "text that is no value of its type")
    offsets = np.zeros(len(digits) + 1, np.int32)
    np.cumsum(digits // 2, out=offsets[1:])
    return make_array(pa.binary(), valid, offsets, (nibbles[0::2] << 4) | nibbles[1::2]), None


def _moments(parsed: calendar.Parsed, cells: Cells, kind: pa.DataType) -> Converted:
    values, odd, bad = parsed
    _check(bad, cells)
    valid = cells.has_value()
    wide = values.astype(np.int32) if kind == pa.date32() else values
    return make_array(kind, valid & ~odd, wide), odd & valid


def _dates(cells: Cells) -> Converted:
    return _moments(calendar.dates(cells), cells, pa.date32())


def _times(cells: Cells) -> Converted:
    return _moments(calendar.times(cells), cells, pa.time64("us"))


def _timestamps(cells: Cells) -> Converted:
    return _moments(calendar.timestamps(cells, zoned=False), cells, pa.timestamp("us"))


def _instants(cells: Cells) -> Converted:
    return _moments(calendar.timestamps(cells, zoned=True), cells, pa.timestamp("us", "UTC"))


_NUMERIC = 1700

_KNOWN: dict[int, tuple[pa.DataType, Callable[[Cells], Converted]]] = {
    16: (pa.bool_(), _booleans),
    17: (pa.binary(), _binaries),
    20: (pa.int64(), _integers(pa.int64())),
    21: (pa.int16(), _integers(pa.int16())),
    23: (pa.int32(), _integers(pa.int32())),
    26: (pa.int64(), _integers(pa.int64())),
    700: (pa.float32(), _floats(pa.float32())),
    701: (pa.float64(), _floats(pa.float64())),
    1082: (pa.date32(), _dates),
    1083: (pa.time64("us"), _times),
    1114: (pa.timestamp("us"), _timestamps),
    1184: (pa.timestamp("us", "UTC"), _instants),
}
