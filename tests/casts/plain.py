"""The type changes again, in plain Python that shares nothing with the SQL: character by character, with
Python's own calendar and numbers.
"""

from __future__ import annotations

import calendar
import datetime as dt
import decimal
import math
import re
from collections.abc import Iterator
from fractions import Fraction

BAD = "bad"


def integer(text: str, bits: int) -> int | str:
    text = text.rstrip(" ")
    if not re.fullmatch(r"[+-]?[0-9]+(\.0+)?", text):
        return BAD
    value = int(text.partition(".")[0])
    return value if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) else BAD


def double(text: str) -> float | str:
    """The nearest double, if rounding it to as many digits as the text has gives the text's number back."""
    text = text.rstrip(" ")
    if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return BAD
    with decimal.localcontext(prec=2000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN):
        true = decimal.Decimal(text)
        nearest = float(text)
        if true == 0:
            return nearest
        digits = len("".join(map(str, true.as_tuple().digits)).strip("0"))
        if math.isinf(nearest):
            return BAD
        back = decimal.Decimal(f"{decimal.Decimal(nearest):.{digits - 1}e}")
        return nearest if back == true else BAD


def exact(text: str, precision: int, scale: int) -> decimal.Decimal | str:
    text = text.rstrip(" ")
    if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)", text):
        return BAD
    scaled = Fraction(text) * 10**scale
    if scaled.denominator != 1 or abs(scaled) >= 10**precision:
        return BAD
    with decimal.localcontext(prec=200):
        return decimal.Decimal(int(scaled)).scaleb(-scale)


_MONTHS = [calendar.month_name[n].lower() for n in range(1, 13)]
_WEEKDAYS = [calendar.day_name[n].lower() for n in range(7)]


def _runs(pattern: str) -> Iterator[str]:
    """Letters in runs, optional sections whole, and other text with an apostrophe before it."""
    at = 0
    while at < len(pattern):
        end = at + 1
        if pattern[at] == "'":
            end = pattern.index("'", at + 1) + 1
            yield "'" + (pattern[at + 1 : end - 1] or "'")
        elif pattern[at] == "[":
            depth = 1
            while depth:
                depth += {"[": 1, "]": -1}.get(pattern[end], 0)
                end += 1
            yield pattern[at:end]
        elif pattern[at].isalpha() and pattern[at].isascii():
            while pattern[end : end + 1] == pattern[at]:
                end += 1
            yield pattern[at:end]
        else:
            yield "'" + pattern[at]
        at = end


def _read(runs: list[str], text: str, found: dict[str, str]) -> Iterator[dict[str, str]]:
    """Every way to read all of the text."""
    if not runs:
        if not text:
            yield found
        return
    run, rest = runs[0], runs[1:]
    if run.startswith("'"):
        if text.startswith(run[1:]):
            yield from _read(rest, text[len(run) - 1 :], found)
    elif run.startswith("["):
        yield from _read([*_runs(run[1:-1]), *rest], text, found)
        yield from _read(rest, text, found)
    else:
        for size in range(len(text), 0, -1):
            if _is(run, text[:size]):
                yield from _read(rest, text[size:], found | {run[0]: text[:size], "run " + run[0]: run})


_NUMBERS = {"M": (1, 12), "d": (1, 31), "D": (1, 366), "H": (0, 23), "h": (1, 12), "m": (0, 59), "s": (0, 59)}


def _is(run: str, text: str) -> bool:
    letter = run[0]
    if letter in "ZX":
        return _offset(run, text) is not None
    if letter in "Ea" or run in ("MMM", "MMMM"):
        names = {"E": _WEEKDAYS, "a": ["am", "pm"], "M": _MONTHS}[letter]
        return text.lower() in (names if len(run) == 4 else [name[:3] for name in names])
    return text.isdigit() and text.isascii() and _is_number(run, text)


def _is_number(run: str, text: str) -> bool:
    letter = run[0]
    if letter == "S":
        return len(text) == len(run) and not text[6:].strip("0")
    if letter == "y":
        return len(text) == len(run) if len(run) > 1 else len(text) <= 4
    least, most = _NUMBERS[letter]
    size = 3 if letter == "D" else 2
    return (len(text) == size if len(run) > 1 else len(text) <= size) and least <= int(text) <= most


def _offset(run: str, text: str) -> int | None:
    """Minutes east of UTC."""
    if text == "Z":
        return 0 if run[0] == "X" else None
    form = {"X": r"[+-]\d\d(\d\d)?", "XXX": r"[+-]\d\d:\d\d"}.get(run, r"[+-]\d\d\d\d")
    if not re.fullmatch(form, text, re.ASCII):
        return None
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    if int(digits[2:]) > 59 or minutes > 18 * 60:
        return None
    return -minutes if text[0] == "-" else minutes


def moment(to: str, pattern: str, text: str) -> object:
    """A date (days since 1970), a timestamp (microseconds since 1970) or a time (microseconds); or BAD."""
    ways = [found for found in _read(list(_runs(pattern)), text.rstrip(" "), {})]
    values = [_value(to, found) for found in ways]
    assert len(set(values)) <= 1, f"{text!r} reads in two ways by {pattern}"
    return values[0] if values else BAD


def _value(to: str, found: dict[str, str]) -> object:
    clock = _clock(found)
    if to == "time":
        return clock
    day = _day(found)
    if day is None or (to == "date" and clock):
        return BAD
    days = (day - dt.date(1970, 1, 1)).days
    if to == "date":
        return days
    east = next((_offset(found["run " + z], found[z]) or 0 for z in "ZX" if z in found), 0)
    return days * 86_400_000_000 + clock - east * 60_000_000


def _clock(found: dict[str, str]) -> int:
    hour = int(found.get("H", "0"))
    if "h" in found:
        hour = int(found["h"]) % 12 + (12 if found["a"].lower() == "pm" else 0)
    seconds = (hour * 60 + int(found.get("m", "0"))) * 60 + int(found.get("s", "0"))
    return seconds * 1_000_000 + int(found.get("S", "0")[:6].ljust(6, "0"))


def _day(found: dict[str, str]) -> dt.date | None:
    year = int(found["y"])
    if found["run y"] == "yy":
        year += 1900 if year >= 69 else 2000
    try:
        if "D" in found:
            day = dt.date(year, 1, 1) + dt.timedelta(int(found["D"]) - 1)
            return day if day.year == year else None
        month = found.get("M", "1")
        number = int(month) if month.isdigit() else [m[:3] for m in _MONTHS].index(month[:3].lower()) + 1
        day = dt.date(year, number, int(found.get("d", "1")))
    except (ValueError, OverflowError):
        return None
    said = found.get("E", "").lower()[:3]
    return day if said in ("", _WEEKDAYS[day.weekday()][:3]) else None
