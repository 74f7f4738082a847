"""Constants of a filter as DuckDB SQL that compares with a column exactly, whatever its type."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import TypeVar

import pyarrow as pa

from headwater.canonical import duckdb_type, literal
from headwater.predicate import Constant

T = TypeVar("T")

#: The ranks of values that their column cannot hold: below or above all that it can.
LOWEST, HIGHEST, NAN = -2, 2, 3
_INFINITE = {"infinity": HIGHEST, "-infinity": LOWEST}
_EPOCH = datetime(1970, 1, 1)
_TIME = r"(\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)"
_MOMENT = re.compile(rf"(\d{{4}}-\d\d-\d\d)(?:[ T]{_TIME}\s*(Z|[+-]\d\d(?::?\d\d)?)?)?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Misfit(Exception):
    """A constant that the column cannot be compared with, and what to write."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Bound:
    """What a column is compared with: `sql` (the operator may be another one), or whether all values fit.

    rank    0; else the constant lies beyond what the column can hold, on this side
    always  the answer for every value that the column holds; None: compare
    """

    op: str
    sql: str = ""
    rank: int = 0
    always: bool | None = None


def number(kind: pa.DataType, op: str, value: Constant) -> Bound:
    """A number beside a column of integers or decimals; one between two of its values is rounded aside."""
    wanted = _decimal(value)
    if pa.types.is_decimal(kind):
        scale, high = kind.scale, Decimal(10) ** (kind.precision - kind.scale)
        low = -high
    else:
        scale, bits = 0, kind.bit_width
        signed = pa.types.is_signed_integer(kind)
        high = Decimal(2) ** (bits - signed)
        low = -high - 1 if signed else Decimal(-1)
    if not low < wanted < high:
        return Bound(op, always=op == "<>" or (op in ("<", "<=")) == (wanted > 0) and op != "=")
    with localcontext() as context:
        context.prec = 100
        unit = Decimal(1).scaleb(-scale)
        near = wanted.quantize(unit, rounding=ROUND_FLOOR if op in ("<", "<=") else ROUND_CEILING)
    if near != wanted:
        if op in ("=", "<>"):
            return Bound(op, always=op == "<>")
        op = op if op.endswith("=") else f"{op}="
    if not low < near < high:
        return Bound(op, always=False)
    return Bound(op, f"CAST('{near:f}' AS {duckdb_type(kind)})")


def real(op: str, value: Constant) -> Bound:
    """A number beside a column of floats: compared as doubles."""
    return Bound(op, f"CAST('{_decimal(value):f}' AS DOUBLE)")


def day(op: str, value: Constant) -> Bound:
    """A date."""
    text = _text(value, "'2025-01-31'")
    if text in _INFINITE:
        return Bound(op, rank=_INFINITE[text])
    found = _read(date.fromisoformat, text) if _DAY.fullmatch(text) else None
    if found is None:
        raise Misfit("a date is compared with what is none", "write it as '2025-01-31'")
    return Bound(op, f"DATE {literal(text)}")


def moment(op: str, value: Constant) -> Bound:
    """A moment in microseconds since 1970: UTC, unless an offset stands there."""
    return _moment(op, value, zoned=True)


def local_moment(op: str, value: Constant) -> Bound:
    """A date and time without a zone, in microseconds since 1970."""
    return _moment(op, value, zoned=False)


def _moment(op: str, value: Constant, *, zoned: bool) -> Bound:
    text = _text(value, "'2025-01-31 12:00'")
    if text in _INFINITE:
        return Bound(op, rank=_INFINITE[text])
    found = _MOMENT.fullmatch(text)
    made = _read(datetime.fromisoformat, f"{found[1]}T{found[2] or '00:00'}") if found else None
    if found is None or made is None:
        raise Misfit("a time is compared with what is none", "write it as '2025-01-31 12:00:00'")
    if found[3] and not zoned:
        raise Misfit("the column has no time zone", "leave the offset out")
    offset = _offset(found[3]) if found[3] else timedelta()
    return Bound(op, str((made - offset - _EPOCH) // timedelta(microseconds=1)))


def clock(op: str, value: Constant) -> Bound:
    """A time of day."""
    text = _text(value, "'12:00:00'")
    if text == "24:00:00":
        return Bound(op, rank=1)
    if not re.fullmatch(_TIME, text) or _read(time.fromisoformat, text) is None:
        raise Misfit("a time of day is compared with what is none", "write it as '12:00:00'")
    return Bound(op, f"TIME {literal(text if text.count(':') == 2 else text + ':00')}")


def flag(op: str, value: Constant) -> Bound:
    """True or false."""
    if not isinstance(value, bool):
        raise Misfit("a column of true and false is compared with what is neither", "write: true or false")
    if op not in ("=", "<>"):
        raise Misfit("true and false have no order", "write = or <>")
    return Bound(op, "TRUE" if value else "FALSE")


def text(op: str, value: Constant, native: str) -> Bound:
    """A text; an identifier in the writing of the source."""
    found = _text(value, "a text in 'quotes'")
    if native == "uuid":
        made = _read(uuid.UUID, found)
        if made is None:
            raise Misfit("a uuid is compared with what is none", "for example '8c5c7b1e-...'")
        found = str(made)
    return Bound(op, literal(found.rstrip(" ") if is_padded(native) else found))


def is_padded(native: str) -> bool:
    """Whether blanks at the end of a text do not count: char(n)."""
    return native.startswith(("character(", "bpchar"))


def magnitude(number: str) -> str:
    """SQL of a text that sorts like the digits of a number in plain writing, its sign left aside."""
    digits = f"ltrim({number}, '-')"
    whole = f"ltrim(split_part({digits}, '.', 1), '0')"
    rest = f"rtrim(split_part({digits}, '.', 2), '0')"
    return f"lpad(CAST(length({whole}) AS VARCHAR), 6, '0') || {whole} || '.' || {rest}"


def plain(value: Constant) -> str:
    """A number in plain writing, as SQL."""
    return literal(f"{_decimal(value) or Decimal():f}")


def _decimal(value: Constant) -> Decimal:
    if not isinstance(value, Decimal):
        raise Misfit("a number is compared with what is none", "write it without quotes")
    return value


def _text(value: Constant, like: str) -> str:
    if not isinstance(value, str):
        raise Misfit("the column is compared with what it cannot hold", f"write {like}")
    return value


def _read(make: Callable[[str], T], text: str) -> T | None:
    try:
        return make(text)
    except ValueError:
        return None


def _offset(text: str) -> timedelta:
    if text == "Z":
        return timedelta()
    size = timedelta(hours=int(text[1:3]), minutes=int(text[3:].lstrip(":") or 0))
    return -size if text[0] == "-" else size
