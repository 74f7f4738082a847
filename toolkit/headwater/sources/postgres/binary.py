"""PostgreSQL's binary values: a column of what send functions write, converted to what its text would become.

A row of the snapshot must equal the same row from the log, which is text: `values` has the rule, this is its
twin for the types whose binary form says the same. Of every other type the server is asked for the text
(`select_item`). Formats: the send functions of src/backend/utils/adt, which a type keeps for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.sources.postgres.cells import BadCell, Cells, Ints, Mask, first, gather, words
from headwater.sources.postgres.numerics import read_decimals
from headwater.sources.postgres.quoting import quote_name
from headwater.sources.postgres.rows import Filled, Odd
from headwater.sources.postgres.values import NativeType, arrow_type, decode_strings, make_array

_DAY = 86_400_000_000
#: From 2000-01-01, where PostgreSQL counts from, to 1970-01-01.
_EPOCH_DAYS = 10_957
_EPOCH = _EPOCH_DAYS * _DAY
#: The first and the last values of src/include/datatype/timestamp.h, the last ones excluded.
_FIRST_DATE, _END_DATE = -2_451_545, 2_145_031_949
_FIRST_TIMESTAMP, _END_TIMESTAMP = -211_813_488_000_000_000, 9_223_371_331_200_000_000
#: The first moment that is kept as text: see calendar.timestamps.
_BEYOND = 2**63 - 1 - _EPOCH
#: Beyond it years have six digits, which Arrow does not print; as many days earlier the calendar is the same.
_YEARS_BACK, _DAYS_BACK = 290_000, 290_000 // 400 * 146_097

_WRONG = "bytes that are no value of its type"


def select_item(name: str, native: NativeType, prefix: str = "") -> str:
    """SQL of a column as COPY BINARY shall send it: as it is, or as the text of its output function."""
    column = prefix + quote_name(name)
    if _find_reader(native) is not None:
        return column
    # A cast to text would drop the blanks of char(n) and add the mask to inet. IS NOT NULL is false for a
    # composite value with a NULL in it; `format` makes an empty text of NULL.
    return f"case when {column} is distinct from null then pg_catalog.format('%s', {column}) end"


def convert_binary(cells: Cells, native: NativeType) -> Filled:
    """The column as `arrow_type(native)`, from what a query with `select_item` gives.

    Every cell lies PAD bytes inside of its buffer, also one without a value, whose length is 0. Raises
    BadCell for bytes that the type does not allow.
    """
    reader = _find_reader(native) or _strings
    return reader(cells, native)


def fixed_width(native: NativeType) -> int:
    """Bytes of every value of the type as it is sent; 0 where they vary."""
    return 0 if native.kind == "e" else _WIDTHS.get(native.base_oid, 0)


Reader = Callable[[Cells, NativeType], Filled]
Numbers = npt.NDArray[np.number[Any]]


def _find_reader(native: NativeType) -> Reader | None:
    """How the type's binary form is read; None if it is not: then the text is sent."""
    if native.kind == "e":
        return _strings
    if native.base_oid == _NUMERIC and arrow_type(native) == pa.string():
        return None
    return _READERS.get(native.base_oid)


def _check(bad: Mask, cells: Cells) -> None:
    if not bad.any():
        return
    bad = bad & cells.has_value()
    if bad.any():
        raise BadCell(first(bad), _WRONG)


def _numbers(cells: Cells, kind: str) -> Numbers:
    """The big-endian number in each cell, in the machine's order; any number where there is no value."""
    wire = np.dtype(kind).newbyteorder(">")
    if cells.copied is not None and cells.copied.width == wire.itemsize:
        return cells.copied.view(wire).astype(kind)
    _check(cells.lengths != wire.itemsize, cells)
    every = np.ndarray((len(cells.data) - wire.itemsize + 1,), wire, cells.data, 0, (1,))
    return every[cells.starts].astype(kind)


def _plain(kind: str) -> Reader:
    def read(cells: Cells, native: NativeType) -> Filled:
        return make_array(arrow_type(native), cells.has_value(), _numbers(cells, kind)), None

    return read


def _oids(cells: Cells, native: NativeType) -> Filled:
    return make_array(pa.int64(), cells.has_value(), _numbers(cells, "u4").astype(np.int64)), None


def _floats(kind: str) -> Reader:
    def read(cells: Cells, native: NativeType) -> Filled:
        numbers = _numbers(cells, kind)
        # There is one NaN in text, and so there is here, whatever its bits.
        odd_bits = np.isnan(numbers)
        if odd_bits.any():
            numbers[odd_bits] = np.nan
        return make_array(arrow_type(native), cells.has_value(), numbers), None

    return read


def _booleans(cells: Cells, native: NativeType) -> Filled:
    byte = _numbers(cells, "u1")
    _check(byte > 1, cells)
    return make_array(pa.bool_(), cells.has_value(), np.packbits(byte == 1, bitorder="little")), None


def _strings(cells: Cells, native: NativeType) -> Filled:
    return decode_strings(cells), None


def _jsonb(cells: Cells, native: NativeType) -> Filled:
    """A version, 1, and the text."""
    _check((cells.lengths < 1) | (cells.data[cells.starts] != 1), cells)
    valid = cells.has_value()
    return decode_strings(Cells(cells.data, cells.starts + valid, cells.lengths - valid, cells.state)), None


def _bytes(cells: Cells, native: NativeType) -> Filled:
    return gather(cells), None


_HEX = np.frombuffer(b"".join(b"%02x" % n for n in range(256)), "<u2")
_HYPHENS = [8, 13, 18, 23]
_DIGITS = [k for k in range(36) if k not in _HYPHENS]


def _uuids(cells: Cells, native: NativeType) -> Filled:
    _check(cells.lengths != 16, cells)
    valid = cells.has_value()
    raw = words(cells.data, cells.starts, 2).view(np.uint8).reshape(-1, 16)
    text = np.full((len(raw), 36), ord("-"), np.uint8)
    text[:, _DIGITS] = _HEX[raw].view(np.uint8).reshape(-1, 32)
    offsets = np.zeros(len(raw) + 1, np.int32)
    np.cumsum(np.where(valid, 36, 0), out=offsets[1:])
    held = text if valid.all() else text[valid]
    return make_array(pa.string(), valid, offsets, held), None


def _decimals(cells: Cells, native: NativeType) -> Filled:
    """numeric(p,s). Odd: NaN, and an infinity should a column have kept one from before its bound."""
    kind = arrow_type(native)
    numbers, special, bad = read_decimals(cells, kind.precision, kind.scale)
    _check(bad, cells)
    valid = cells.has_value()
    special = np.where(valid, special, 0)
    odd = special > 0
    if not odd.any():
        return make_array(kind, valid, numbers), None
    texts = pa.array(["NaN", "Infinity", "-Infinity"]).take(pa.array(special[odd] - 1))
    return make_array(kind, valid & ~odd, numbers), Odd(odd, texts)


def _dates(cells: Cells, native: NativeType) -> Filled:
    days = _numbers(cells, "i4")
    if _all_within(days, _FIRST_DATE, _END_DATE):
        return make_array(pa.date32(), cells.has_value(), days + np.int32(_EPOCH_DAYS)), None
    odd = _infinite(days, -(2**31), 2**31 - 1)
    _check(((days < _FIRST_DATE) | (days >= _END_DATE)) & ~odd, cells)
    # An infinite one may wrap around: it is not used.
    return _with_odd(days + np.int32(_EPOCH_DAYS), days, odd, cells, pa.date32(), _infinities)


def _times(cells: Cells, native: NativeType) -> Filled:
    micros = _numbers(cells, "i8")
    if _all_within(micros, 0, _DAY):
        return make_array(pa.time64("us"), cells.has_value(), micros), None
    _check((micros < 0) | (micros > _DAY), cells)
    return _with_odd(micros, micros, micros == _DAY, cells, pa.time64("us"), _midnights)


def _timestamps(cells: Cells, native: NativeType) -> Filled:
    """Microseconds since 2000; infinities and what lies beyond 64 bits since 1970 are odd."""
    micros = _numbers(cells, "i8")
    kind = arrow_type(native)
    if _all_within(micros, _FIRST_TIMESTAMP, _BEYOND):
        return make_array(kind, cells.has_value(), micros + _EPOCH), None
    infinite = _infinite(micros, -(2**63), 2**63 - 1)
    _check(((micros < _FIRST_TIMESTAMP) | (micros >= _END_TIMESTAMP)) & ~infinite, cells)
    odd = infinite | (micros >= _BEYOND)
    texts = _zoned_texts if kind.tz else _moment_texts
    return _with_odd(micros + _EPOCH, micros, odd, cells, kind, texts)


def _all_within(numbers: Numbers, low: int, end: int) -> bool:
    """Whether nothing needs a second look; what stands where there is no value may ask for one too."""
    return len(numbers) > 0 and bool(numbers.min() >= low and numbers.max() < end)


def _infinite(numbers: Numbers, low: int, high: int) -> Mask:
    found: Mask = (numbers == low) | (numbers == high)
    return found


def _with_odd(  # noqa: PLR0913
    values: Numbers,
    numbers: Numbers,
    odd: Mask,
    cells: Cells,
    kind: pa.DataType,
    texts: Callable[[Ints], pa.Array],
) -> Filled:
    """The values, those that are odd as NULL and the text of their numbers beside them."""
    valid = cells.has_value()
    odd = odd & valid
    if not odd.any():
        return make_array(kind, valid, values), None
    return make_array(kind, valid & ~odd, values), Odd(odd, texts(numbers[odd].astype(np.int64)))


def _midnights(micros: Ints) -> pa.Array:
    return pa.repeat("24:00:00", len(micros))


def _infinities(numbers: Ints) -> pa.Array:
    return pc.if_else(pa.array(numbers < 0), "-infinity", "infinity")


def _moment_texts(micros: Ints, zone: str = "") -> pa.Array:
    """The texts of odd timestamps: the infinities, and the years 294247 to 294276."""
    infinite = _infinite(micros, -(2**63), 2**63 - 1)
    earlier = np.where(infinite, 0, micros) - _DAYS_BACK * _DAY + _EPOCH
    moments = pa.array(earlier).cast(pa.timestamp("us"))
    # 4247-... is the end of 294247-...; PostgreSQL prints no zeros behind the last digit of a fraction.
    spelt = pc.replace_substring_regex(pc.strftime(moments, "%Y-%m-%d %H:%M:%S"), r"\.?0+$", "")
    spelt = pc.binary_join_element_wise("29", spelt, zone, "")
    return pc.if_else(pa.array(infinite), _infinities(micros), spelt)


def _zoned_texts(micros: Ints) -> pa.Array:
    return _moment_texts(micros, "+00")


_NUMERIC = 1700

_WIDTHS = {
    16: 1, 20: 8, 21: 2, 23: 4, 26: 4, 700: 4, 701: 8, 1082: 4, 1083: 8, 1114: 8, 1184: 8,
}  # fmt: skip

_READERS: dict[int, Reader] = {
    16: _booleans,
    17: _bytes,
    19: _strings,  # name
    20: _plain("i8"),
    21: _plain("i2"),
    23: _plain("i4"),
    25: _strings,  # text
    26: _oids,
    114: _strings,  # json
    700: _floats("f4"),
    701: _floats("f8"),
    1042: _strings,  # char(n), with its blanks
    1043: _strings,  # varchar
    1082: _dates,
    1083: _times,
    1114: _timestamps,
    1184: _timestamps,
    _NUMERIC: _decimals,
    2950: _uuids,
    3802: _jsonb,
}
