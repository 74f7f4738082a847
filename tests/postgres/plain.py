"""What PostgreSQL's text means, one cell after the other in plain Python: the oracle of the converters."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from fractions import Fraction
from struct import pack, unpack

import numpy as np
import pyarrow as pa

ODD, ERROR = "odd", "error"
DAY = 86_400_000_000

_CLOCK = r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?"
_DATE = r"(\d{4,7})-(\d\d)-(\d\d)"
_ZONE = r"([+-])([0-5]\d)(?::([0-5]\d)(?::([0-5]\d))?)?"
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_INT_BITS = {"smallint": 16, "integer": 32, "bigint": 64, "oid": 64}


def meaning(kind: str, raw: bytes) -> str:
    """The canonical text of the value, `odd` or `error`. `kind`: a type's name, numeric with its bounds."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return ERROR
    name = kind.partition("(")[0]
    if not text.isascii() and name != "text":
        return ERROR
    if name in _INT_BITS:
        return _integer(text, _INT_BITS[name])
    if name == "numeric":
        precision, scale = map(int, kind[8:-1].split(","))
        return _decimal(text, max(precision, scale) if scale >= 0 else precision - scale, max(scale, 0))
    return _READERS[name](text)


def _integer(text: str, bits: int) -> str:
    if not re.fullmatch(r"-?\d+", text) or not -(2 ** (bits - 1)) <= int(text) < 2 ** (bits - 1):
        return ERROR
    return str(int(text))


def _decimal(text: str, precision: int, scale: int) -> str:
    if text in ("NaN", "Infinity", "-Infinity"):
        return ODD
    form = rf"(-?)(\d{{1,{max(precision - scale, 1)}}})" + (rf"\.(\d{{{scale}}})" if scale else "()")
    found = re.fullmatch(form, text)
    if not found or (precision == scale and found[2] != "0"):
        return ERROR
    whole = found[2].lstrip("0") or "0"
    sign = found[1] if (found[2] + found[3]).strip("0") else ""
    return sign + whole + (f".{found[3]}" if scale else "")


def _float8(text: str) -> str:
    if text in ("NaN", "Infinity", "-Infinity"):
        return str(unpack("<q", pack("<d", float(text)))[0])
    if not re.fullmatch(f"[+-]?{_NUMBER}(e[+-]?\\d+)?", text) or np.isinf(float(text)):
        return ERROR
    return str(unpack("<q", pack("<d", float(text)))[0])


def _float4(text: str) -> str:
    if _float8(text) == ERROR:
        return ERROR
    if text in ("NaN", "Infinity", "-Infinity"):
        return str(unpack("<i", pack("<f", float(text)))[0])
    with np.errstate(over="ignore"):
        near = np.float32(float(text))
    if float(text) == 0:
        best = near
    else:
        # Rounding twice, over float64, can be off by one: the nearest decides, the even one on a tie.
        exact = Fraction(text)
        with np.errstate(over="ignore"):
            around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
        best = min(
            (c for c in around),
            key=lambda c: (abs(_fraction(c) - exact), int(c.view(np.int32)) & 1),
        )
    return ERROR if np.isinf(best) else str(int(best.view(np.int32)))


def _fraction(value: np.float32) -> Fraction:
    # One beyond the largest float4 counts as the power of two that it would be.
    return Fraction(float(value)) if np.isfinite(value) else Fraction(2**128) * (1 if value > 0 else -1)


def _boolean(text: str) -> str:
    return text if text in ("t", "f") else ERROR


def _bytea(text: str) -> str:
    return text[2:] if re.fullmatch(r"\\x([0-9a-f]{2})*", text) else ERROR


def days_of(year: int, month: int, day: int) -> int | None:
    """By Python's own calendar, which repeats every 400 years."""
    within = year % 400 + 400
    try:
        ordinal = date(within, month, day).toordinal()
    except ValueError:
        return None
    return ordinal - date(1970, 1, 1).toordinal() + (year - within) // 400 * 146_097


def _parts(found: re.Match[str], bc: bool) -> int | None:
    year, month, day = (int(found[k]) for k in (1, 2, 3))
    return days_of(1 - year if bc else year, month, day) if year else None


def _micros(hour: str, minute: str, second: str, fraction: str | None) -> int | None:
    if int(minute) > 59 or int(second) > 59:
        return None
    whole = (int(hour) * 3600 + int(minute) * 60 + int(second)) * 1_000_000
    return whole + int((fraction or "0").ljust(6, "0"))


def _date(text: str) -> str:
    if text in ("infinity", "-infinity"):
        return ODD
    found = re.fullmatch(f"{_DATE}( BC)?", text)
    days = found and _parts(found, found[4] is not None)
    return ERROR if days is None or not -(2**31) <= days < 2**31 - 1 else str(days)


def _time(text: str) -> str:
    found = re.fullmatch(_CLOCK, text)
    micros = _micros(*found.groups()) if found else None
    if micros is None or micros > DAY:
        return ERROR
    return ODD if micros == DAY else str(micros)


def _timestamp(text: str, zone: str = "") -> str:
    if text in ("infinity", "-infinity"):
        return ODD
    found = re.fullmatch(f"{_DATE} {_CLOCK}{zone}( BC)?", text)
    if not found:
        return ERROR
    days = _parts(found, found.groups()[-1] is not None)
    micros = _micros(*found.groups()[3:7])
    if days is None or micros is None or micros >= DAY:
        return ERROR
    total = days * DAY + micros - (_shift(*found.groups()[7:11]) if zone else 0)
    return str(total) if abs(total) < 2**63 - 1 else ODD


def _shift(sign: str, hours: str, minutes: str | None, seconds: str | None) -> int:
    size = int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return size * (-1_000_000 if sign == "-" else 1_000_000)


_READERS = {
    "boolean": _boolean,
    "bytea": _bytea,
    "real": _float4,
    "double precision": _float8,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "timestamp with time zone": lambda text: _timestamp(text, _ZONE),
    "text": lambda text: text,
}


def canonical(array: pa.Array) -> list[str | None]:
    """Each value of an Arrow array as `meaning` spells it; None for null."""
    kind = array.type
    if pa.types.is_float32(kind):
        bits = np.asarray(array.fill_null(0)).view(np.int32)
    elif pa.types.is_float64(kind):
        bits = np.asarray(array.fill_null(0)).view(np.int64)
    elif pa.types.is_date32(kind):
        bits = np.asarray(array.cast(pa.int32()).fill_null(0))
    elif pa.types.is_temporal(kind):
        bits = np.asarray(array.cast(pa.int64()).fill_null(0))
    else:
        return [None if v is None else _spell(v) for v in array.to_pylist()]
    return [
        str(b) if known else None
        for b, known in zip(bits.tolist(), array.is_valid().to_pylist(), strict=True)
    ]


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return value.hex()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
