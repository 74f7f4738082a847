"""What PostgreSQL's binary form means, one cell after the other in plain Python: the oracle of `binary`.

Written from the receive functions of the server: the text that its output function would give, or ERROR.
"""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from struct import pack, unpack, unpack_from

from postgres.plain import ERROR

DAY = 86_400_000_000
WORDS = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_WHOLE = {"smallint": (2, ">h"), "integer": (4, ">i"), "bigint": (8, ">q"), "oid": (4, ">I")}


def text_of(kind: str, raw: bytes) -> str:
    """The text of a binary value, or ERROR."""
    name = kind.partition("(")[0]
    try:
        if name in _WHOLE:
            size, form = _WHOLE[name]
            return str(unpack(form, raw)[0]) if len(raw) == size else ERROR
        return _READERS[name](kind, raw)
    except UnicodeDecodeError:
        return ERROR


def _boolean(_: str, raw: bytes) -> str:
    return {b"\0": "f", b"\1": "t"}.get(raw, ERROR)


def _float(kind: str, raw: bytes) -> str:
    size, form = (4, ">f") if kind == "real" else (8, ">d")
    if len(raw) != size:
        return ERROR
    (value,) = unpack(form, raw)
    return repr(value).replace("inf", "Infinity").replace("nan", "NaN")


def _numeric(kind: str, raw: bytes) -> str:
    precision, scale = map(int, kind[8:-1].split(","))
    precision, scale = max(precision, scale) if scale >= 0 else precision - scale, max(scale, 0)
    if len(raw) < 8:
        return ERROR
    count, weight, sign, shown = unpack_from(">HhHH", raw)
    if len(raw) != 8 + 2 * count:
        return ERROR
    if sign in WORDS:
        return WORDS[sign] if count == 0 else ERROR
    digits = unpack_from(f">{count}H", raw, 8)
    if sign not in (0, 0x4000) or shown != scale or any(d > 9999 for d in digits):
        return ERROR
    value = sum((Fraction(d) * Fraction(10_000) ** (weight - k) for k, d in enumerate(digits)), Fraction(0))
    value *= 10**scale
    if value.denominator != 1 or value >= 10**precision:
        return ERROR
    plain = f"{int(value):0{scale + 1}}"
    whole = plain[: len(plain) - scale]
    return ("-" if sign and value else "") + whole + ("." + plain[len(plain) - scale :] if scale else "")


def write_numeric(value: int, scale: int) -> bytes:
    """numeric_send of value / 10**scale, with that scale."""
    pad = -scale % 4
    number, places = abs(value) * 10**pad, (scale + pad) // 4
    digits: list[int] = []
    while number:
        digits.insert(0, number % 10_000)
        number //= 10_000
    weight = len(digits) - places - 1 if digits else 0
    while digits and digits[-1] == 0:
        digits.pop()
    sign = 0x4000 if value < 0 else 0
    return pack(f">HhHH{len(digits)}H", len(digits), weight, sign, scale, *digits)


def _day(days: int) -> str:
    """A date from days since 2000, in ISO style."""
    # Python knows the years 1 to 9999; 400 years have 146,097 days.
    rounds, rest = divmod(days, 146_097)
    found = date(2000, 1, 1) + timedelta(rest)
    year = found.year + 400 * rounds
    return f"{year if year > 0 else 1 - year:04}-{found.month:02}-{found.day:02}"


def _era(days: int) -> str:
    return " BC" if days < -730_119 else ""


def _clock(micros: int) -> str:
    whole, part = divmod(micros, 1_000_000)
    fraction = f".{part:06}".rstrip("0") if part else ""
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{fraction}"


def _date(_: str, raw: bytes) -> str:
    if len(raw) != 4:
        return ERROR
    (days,) = unpack(">i", raw)
    if days in (-(2**31), 2**31 - 1):
        return "infinity" if days > 0 else "-infinity"
    # 4714-11-24 BC to 5874897-12-31
    return _day(days) + _era(days) if -2_451_545 <= days <= 2_145_031_948 else ERROR


def _time(_: str, raw: bytes) -> str:
    micros = unpack(">q", raw)[0] if len(raw) == 8 else -1
    return _clock(micros) if 0 <= micros <= DAY else ERROR


def _timestamp(kind: str, raw: bytes) -> str:
    if len(raw) != 8:
        return ERROR
    (micros,) = unpack(">q", raw)
    if micros in (-(2**63), 2**63 - 1):
        return "infinity" if micros > 0 else "-infinity"
    days, rest = divmod(micros, DAY)
    # 4714-11-24 BC to 294276-12-31
    if not -2_451_545 <= days <= 106_751_982:
        return ERROR
    zone = "+00" if "zone" in kind else ""
    return f"{_day(days)} {_clock(rest)}{zone}{_era(days)}"


def _bytea(_: str, raw: bytes) -> str:
    return "\\x" + raw.hex()


def _text(_: str, raw: bytes) -> str:
    return raw.decode()


def _jsonb(_: str, raw: bytes) -> str:
    return raw[1:].decode() if raw[:1] == b"\1" else ERROR


def _uuid(_: str, raw: bytes) -> str:
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}" if len(raw) == 16 else ERROR


_READERS = {
    "boolean": _boolean, "real": _float, "double precision": _float, "numeric": _numeric, "date": _date,
    "time": _time, "timestamp": _timestamp, "timestamp with time zone": _timestamp, "bytea": _bytea,
    "text": _text, "jsonb": _jsonb, "uuid": _uuid,
}  # fmt: skip
