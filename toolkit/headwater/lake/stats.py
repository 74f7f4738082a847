"""Statistics of a file for its Delta add action, made from what DuckDB says of the file it wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa

#: As Delta writers do by default: bounds for the first columns only, and for those that are always asked for.
_FIRST_COLUMNS = 32
_TEXT_LIMIT = 64
#: The fold finds the files of a row by these.
ALWAYS = ("_hw_seq", "_hw_seq_to", "_hw_at")
_LAST_CHARACTER = "\U0010ffff"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})(\.\d{1,6})?(\+00)?")

Said = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One row of `COPY ... RETURN_STATS`: DuckDB's own spelling of names and values."""

    rows: int
    columns: Mapping[str, Said]


def stats_json(facts: FileFacts, layout: Mapping[str, pa.DataType], always: Collection[str]) -> str:
    """The `stats` of an add action: bounds only where they surely hold and every reader can read them."""
    bounded = set(list(layout)[:_FIRST_COLUMNS]) | set(always)
    nulls: list[str] = []
    low: list[str] = []
    high: list[str] = []
    for name, kind in layout.items():
        said = facts.columns.get('"' + name.replace('"', '""') + '"')
        if said is None or name not in bounded:
            continue
        member = json.dumps(name, ensure_ascii=False)
        if "null_count" in said:
            nulls.append(f"{member}:{int(said['null_count'])}")
        for bounds, which in ((low, "min"), (high, "max")):
            bound = _bound(kind, said, which)
            if bound is not None:
                bounds.append(f"{member}:{bound}")
    members = ",".join(
        f'"{name}":{{{",".join(items)}}}'
        for name, items in (("minValues", low), ("maxValues", high), ("nullCount", nulls))
    )
    return f'{{"numRecords":{facts.rows},{members}}}'


def _bound(kind: pa.DataType, said: Said, which: str) -> str | None:
    """One bound as JSON; None where it is unknown, inexact, or beyond what readers can hold."""
    if which not in said or said.get(f"{which}_is_exact") != "true":
        return None
    for fits, write in _WRITERS:
        if fits(kind):
            return write(said[which], which)
    return None


def _number(value: str, _which: str) -> str | None:
    # .50 is how DuckDB spells a DECIMAL(2,2), and not JSON.
    value = re.sub(r"^(-?)\.", r"\g<1>0.", value)
    return value if re.fullmatch(r"-?\d+(\.\d+)?", value) else None


def _text(value: str, which: str) -> str | None:
    if len(value) <= _TEXT_LIMIT:
        return json.dumps(value, ensure_ascii=False)
    # A prefix is below the whole; with the last of all characters behind it, above, if that is not there.
    if which == "max" and value[_TEXT_LIMIT] == _LAST_CHARACTER:
        return None
    return json.dumps(value[:_TEXT_LIMIT] + (_LAST_CHARACTER if which == "max" else ""), ensure_ascii=False)


def _date(value: str, _which: str) -> str | None:
    return json.dumps(value) if _DAY.fullmatch(value) else None


def _moment(value: str, _which: str) -> str | None:
    found = _MOMENT.fullmatch(value)
    if not found:
        return None
    fraction = (found[3] or ".")[1:].ljust(6, "0")
    return json.dumps(f"{found[1]}T{found[2]}.{fraction}{'Z' if found[4] else ''}")


_WRITERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[str, str], str | None]], ...] = (
    (pa.types.is_integer, _number),
    (pa.types.is_decimal, _number),
    (pa.types.is_string, _text),
    (pa.types.is_date, _date),
    (pa.types.is_timestamp, _moment),
)
