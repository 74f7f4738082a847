"""Dates, times and timestamps of PostgreSQL's ISO style, by our own arithmetic.

Arrow, DuckDB and Polars each get some of these silently wrong (BC, five-digit years, infinity), so the text
is never cast. Eight characters at a time are read as one 64-bit word: XOR with a template leaves digits 0..9,
and zeros where the separators match. The calendar is the proleptic Gregorian one; the text has no year 0. The
days algorithm is Howard Hinnant's (https://howardhinnant.github.io/date_algorithms.html).

All functions take settled cells and return (values, odd, bad): `odd` marks values the type cannot hold, `bad`
text that is none; values are arbitrary where either is set or where there was no value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headwater.sources.postgres.cells import Bytes, Cells, Ints, Mask, Words, words

DAY = 86_400_000_000
_HIGH = np.uint64(0x8080808080808080)
_MAX = 2**63 - 1

Parsed = tuple[Ints, Mask, Mask]


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


def _template(shape: str) -> tuple[np.uint64, np.uint64, np.uint64]:
    """For a shape of 8 characters: 0 a digit, ? anything, all else itself."""
    keep = bytes(0 if c == "?" else 255 for c in shape)
    same = bytes(0 if c == "?" else ord(c) for c in shape)
    # A digit's 0..9 plus 0x76 stays below 0x80, 10 and more does not; a separator may only be 0.
    add = bytes(0x76 if c == "0" else 0x7F for c in shape)
    return _word(keep), _word(same), _word(add)


_YEAR_MONTH, _DAY, _DAY_SPACE = _template("0000-00-"), _template("00??????"), _template("00 ?????")
_CLOCK, _FRACTION = _template("00:00:00"), _template(".000000?")

# By the number of characters after HH:MM:SS (none, the dot alone, 1 to 6 digits): what of the word to keep,
# and what to put in place of the rest.
_FRACTION_KEEP = np.array([0, *(_word(b"\xff" * k) for k in range(1, 8))], np.uint64)
_FRACTION_FILL = np.array(
    [_word(b".000000"), *(_word(b"\0" * k + b"0" * (7 - k)) for k in range(1, 8))], "u8"
)

# Indexed by any byte; months that do not exist have no last day.
_BEFORE_MONTH = np.array([(153 * ((m + 9) % 12) + 2) // 5 for m in range(256)], np.int64)
_LAST_DAY = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, *[0] * 243], np.int64)


def _pairs(word: Words, template: tuple[np.uint64, np.uint64, np.uint64]) -> tuple[Bytes, Mask]:
    """Bytes where number k is the two-digit number at character k; and which rows do not have the shape."""
    keep, same, add = template
    digits = (word & keep) ^ same
    bad = (((digits + add) | digits) & _HIGH) != 0
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    return pairs.astype("<u8", copy=False).view(np.uint8).reshape(len(word), 8), bad


def _column(pairs: Bytes, character: int) -> Ints:
    return pairs[:, character].astype(np.int64)


def _civil(year: Ints, month: Ints, day: Ints) -> tuple[Ints, Mask]:
    """Days since 1970-01-01 (year 0 is 1 BC); and which are no days of the calendar."""
    bad = (day < 1) | (day > _LAST_DAY[month])
    leap_day = np.flatnonzero((month == 2) & (day == 29))
    if len(leap_day):
        y = year[leap_day]
        bad[leap_day] |= (y % 4 != 0) | ((y % 100 == 0) & (y % 400 != 0))
    y = year - (month <= 2)
    era = y // 400
    yoe = y - era * 400
    days = era * 146_097 + yoe * 365 + yoe // 4 - yoe // 100 + _BEFORE_MONTH[month] + day
    return days - 719_469, bad


def _ends_bc(data: Bytes, ends: Ints) -> Ints:
    """Rows that end in ` BC`."""
    rows = np.flatnonzero(data[ends - 1] == ord("C"))
    at = ends[rows]
    bc: Ints = rows[(data[at - 2] == ord("B")) & (data[at - 3] == ord(" "))]
    return bc


def _dates(
    data: Bytes, starts: Ints, bc: Ints, shape: tuple[np.uint64, np.uint64, np.uint64]
) -> tuple[Ints, Ints, Mask]:
    """Days since 1970 of the dates that start there, how much longer than 10 each is, and which are none."""
    wide = np.flatnonzero(data[starts + 4] != ord("-"))
    extra: Ints = np.zeros(len(starts), np.int64)
    high = np.zeros(len(starts), np.int64)
    bad: Mask = np.zeros(len(starts), bool)
    if len(wide):
        extra[wide], high[wide], bad[wide] = _wide_years(data, starts[wide])
    both = words(data, starts + extra, 2)
    front, no_front = _pairs(both[:, 0], _YEAR_MONTH)
    back, no_back = _pairs(both[:, 1], shape)
    year = _column(front, 0) * 100 + _column(front, 2) + high
    bad |= no_front | no_back | (year < 1)
    year[bc] = 1 - year[bc]
    days, no_day = _civil(year, _column(front, 5), _column(back, 0))
    bad |= no_day
    return days, extra, bad


def _wide_years(data: Bytes, starts: Ints) -> tuple[Ints, Ints, Mask]:
    """Years of 5 to 7 digits: digits beyond four, what those are worth, and which have no year."""
    extra, worth = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
    bad, value = np.ones(len(starts), bool), np.zeros(len(starts), np.int64)
    digits = np.ones(len(starts), bool)
    for k in range(1, 4):
        digit = data[starts + k - 1].astype(np.int64) - ord("0")
        digits &= (digit >= 0) & (digit <= 9)
        value = value * 10 + digit
        here = bad & digits & (data[starts + 4 + k] == ord("-"))
        extra[here], worth[here], bad[here] = k, value[here] * 10_000, False
    return extra, worth, bad


def _clock(data: Bytes, starts: Ints, lengths: Ints) -> tuple[Ints, Mask]:
    """Microseconds of HH:MM:SS[.f{1,6}]; 24:00:00 is a day."""
    both = words(data, starts, 2)
    whole, bad = _pairs(both[:, 0], _CLOCK)
    hour, minute, second = _column(whole, 0), _column(whole, 3), _column(whole, 6)
    micros = (hour * 3600 + minute * 60 + second) * 1_000_000
    tail = lengths - 8
    bad |= (tail < 0) | (tail > 7) | (tail == 1) | (minute > 59) | (second > 59)
    if tail.any():
        tail = tail.clip(0, 7)
        fraction, no_fraction = _pairs((both[:, 1] & _FRACTION_KEEP[tail]) | _FRACTION_FILL[tail], _FRACTION)
        micros += _column(fraction, 1) * 10_000 + _column(fraction, 3) * 100 + _column(fraction, 5)
        bad |= no_fraction
    return micros, bad | (micros > DAY)


def _infinite(data: Bytes, starts: Ints, lengths: Ints) -> Mask:
    """`infinity` and `-infinity`."""
    odd: Mask = np.zeros(len(starts), bool)
    for size, skip in ((8, 0), (9, 1)):
        rows = np.flatnonzero((lengths == size) & (data[starts + skip] == ord("i")))
        if len(rows):
            at = starts[rows]
            spelt = words(data, at + skip, 1)[:, 0] == _word(b"infinity")
            odd[rows] = spelt & (data[at] == ord("-")) if skip else spelt
    return odd


def dates(cells: Cells) -> Parsed:
    """Days since 1970-01-01, for years 4714 BC to 5874897; infinities are odd."""
    data, starts, lengths = cells.data, cells.starts, cells.lengths
    odd = _infinite(data, starts, lengths)
    bc = _ends_bc(data, starts + lengths)
    lengths = lengths.copy()
    lengths[bc] -= 3
    days, extra, bad = _dates(data, starts, bc, _DAY)
    bad |= lengths != extra + 10
    bad |= (days < -(2**31)) | (days >= 2**31 - 1)
    return days, odd, bad & ~odd


def times(cells: Cells) -> Parsed:
    """Microseconds of the day; 24:00:00 is odd."""
    micros, bad = _clock(cells.data, cells.starts, cells.lengths)
    return micros, (micros == DAY) & ~bad, bad


def timestamps(cells: Cells, zoned: bool) -> Parsed:
    """Microseconds since 1970-01-01 (UTC when zoned); infinities and what lies beyond 64 bits are odd."""
    data, starts = cells.data, cells.starts
    odd = _infinite(data, starts, cells.lengths)
    ends = starts + cells.lengths
    bc = _ends_bc(data, ends)
    ends[bc] -= 3
    shift, bad = np.zeros(len(starts), np.int64), np.zeros(len(starts), bool)
    if zoned:
        size, shift, bad = _offsets(data, ends)
        ends -= size
    days, extra, no_day = _dates(data, starts, bc, _DAY_SPACE)
    at = starts + extra + 11
    micros, no_clock = _clock(data, at, ends - at)
    # 24:00:00 is written by `time` only; a timestamp's clock ends before it.
    bad |= no_day | no_clock | (micros == DAY)
    micros -= shift * 1_000_000
    days += micros // DAY
    micros %= DAY
    # The last microsecond of 64 bits itself is odd too: DuckDB reads that number as infinity.
    top = _MAX // DAY
    beyond = (days > top) | ((days == top) & (micros >= _MAX % DAY)) | (days <= -top)
    return days * DAY + micros, odd | (beyond & ~bad), bad & ~odd


def _offsets(data: Bytes, ends: Ints) -> tuple[Ints, Ints, Mask]:
    """Zone offsets +HH[:MM[:SS]] before those ends: their sizes, seconds east of UTC, and which have none."""
    count = len(ends)
    size, shift, bad = np.full(count, 3, np.int64), np.zeros(count, np.int64), np.zeros(count, bool)
    last = words(data, ends - 8, 1)[:, 0]
    rows = np.flatnonzero(last >> np.uint64(40) != _word(b"+00"))
    if len(rows):
        size[rows], shift[rows], bad[rows] = _far_offsets(data, ends[rows])
    return size, shift, bad


def _far_offsets(data: Bytes, ends: Ints) -> tuple[Ints, Ints, Mask]:
    size, shift = np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
    bad: npt.NDArray[np.bool_] = np.ones(len(ends), bool)
    for parts in (1, 2, 3):
        at = ends - 3 * parts
        sign = data[at]
        here = np.flatnonzero(bad & ((sign == ord("+")) | (sign == ord("-"))))
        seconds, wrong = np.zeros(len(here), np.int64), np.zeros(len(here), bool)
        for part in range(3):
            digits = [data[at[here] + 3 * part + k].astype(np.int64) - ord("0") for k in (1, 2)]
            value = digits[0] * 10 + digits[1]
            if part < parts:
                wrong |= (digits[0] < 0) | (digits[0] > 5) | (digits[1] < 0) | (digits[1] > 9)
                wrong |= (data[at[here] + 3 * part] != ord(":")) & (part > 0)
                seconds += value * (3600, 60, 1)[part]
        size[here], bad[here] = 3 * parts, wrong
        shift[here] = np.where(sign[here] == ord("-"), -seconds, seconds)
    return size, shift, bad
