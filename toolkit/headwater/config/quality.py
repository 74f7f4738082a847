"""Quality in a pipeline file: the gate, the expectations and references of tables, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from headwater.config import Expectation, Gate, Quality, Refers, Severity
from headwater.config.patterns import parse_pattern
from headwater.config.reader import File, Plain
from headwater.errors import ConfigError


def read_quality(entry: Mapping[str, Plain], file: File, place: str = "") -> Quality:
    """What an entry (or the file itself) says of quality; what it leaves open is empty."""
    given = cast(Mapping[str, Plain], entry.get("quality", {}))
    before = f"{place}." if place else ""
    expect = cast(Sequence[Mapping[str, Plain]], entry.get("expect", ()))
    refers = cast(Sequence[Mapping[str, Plain]], entry.get("references", ()))
    return Quality(
        cast(Gate, given.get("gate", "")),
        str(given.get("max_age", "")),
        tuple(_expectation(e, file, f"{before}expect[{n}]") for n, e in enumerate(expect)),
        tuple(_refers(r, file, f"{before}references[{n}]") for n, r in enumerate(refers)),
    )


def _expectation(given: Mapping[str, Plain], file: File, place: str) -> Expectation:
    kwargs = cast(Mapping[str, Any], given.get("kwargs", {}))
    severity = cast(Severity, given.get("severity", "critical"))
    return Expectation(str(given["type"]), kwargs, severity, file.place_of(place))


def _refers(given: Mapping[str, Plain], file: File, place: str) -> Refers:
    columns = tuple(str(c) for c in cast(Sequence[Plain], given["columns"]))
    key = tuple(str(c) for c in cast(Sequence[Plain], given.get("key", ())))
    try:
        parent = parse_pattern(str(given["table"])).exact
    except ConfigError as failed:
        raise file.refuse_at(f"{place}.table", f"`{place}.table`: {failed}", failed.hint) from None
    if parent is None:
        message = f"`{place}.table` names one table"
        raise file.refuse_at(f"{place}.table", message, "table: public.customers")
    if key and len(key) != len(columns):
        message = f"`{place}`: {len(columns)} columns cannot name {len(key)}"
        raise file.refuse_at(place, message, "as many columns in `key` as in `columns`")
    return Refers(columns, parent, key, file.place_of(place))


def write_quality(quality: Quality) -> dict[str, object]:
    """The fields of an entry."""
    about = {name: value for name in ("gate", "max_age") if (value := getattr(quality, name))}
    entry: dict[str, object] = {"quality": about} if about else {}
    entry |= {"expect": [_written(e) for e in quality.expect]} if quality.expect else {}
    return entry | ({"references": [_reference(r) for r in quality.references]} if quality.references else {})


def _written(its: Expectation) -> dict[str, object]:
    made: dict[str, object] = {"type": its.type} | ({"kwargs": dict(its.kwargs)} if its.kwargs else {})
    return made | ({"severity": its.severity} if its.severity != "critical" else {})


def _reference(its: Refers) -> dict[str, object]:
    from headwater.config import quote_table

    made: dict[str, object] = {"columns": list(its.columns), "table": quote_table(its.table)}
    return made | ({"key": list(its.key)} if its.key else {})
