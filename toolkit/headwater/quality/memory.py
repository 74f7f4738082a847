"""What is remembered between two judgements, in the state. Lost, it costs one look at every table whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.model import Reference, TableId
from headwater.naming import table_path
from headwater.quality.seen import Seen
from headwater.state import StateStore


@dataclass(frozen=True, slots=True)
class Known:
    """One table of one lake.

    passed  the highest `_hw_seq` that was let through; -1 for nothing yet
    before  the same, one judgement earlier: between the two lies the last batch
    made    by which casts it was folded then
    """

    lake: str
    made: str = ""
    passed: int = -1
    before: int = -1
    seen: Seen = field(default_factory=Seen)


@dataclass(frozen=True, slots=True)
class Judged:
    """Over all tables of one lake: where each stood when it was let through, and which wait.

    held  the highest `_hw_seq` of what was judged and is held back
    """

    lake: str
    marks: Mapping[TableId, str] = field(default_factory=dict)
    held: Mapping[TableId, int] = field(default_factory=dict)


def load_known(state: StateStore, pipeline: str, lake: str, table: TableId) -> Known:
    """What is known of a table; nothing when it is another lake's."""
    saved = state.load(_key(pipeline, table))
    if saved is None or saved.value.get("lake") != lake:
        return Known(lake)
    doc = saved.value
    return Known(lake, doc["made"], doc["passed"], doc["before"], Seen.from_json(doc["seen"]))


def save_known(state: StateStore, pipeline: str, table: TableId, known: Known) -> None:
    """Remember it."""
    value = {
        "lake": known.lake,
        "made": known.made,
        "passed": known.passed,
        "before": known.before,
        "seen": known.seen.to_json(),
    }
    _save(state, _key(pipeline, table), value)


def load_judged(state: StateStore, pipeline: str, lake: str) -> Judged:
    """What is known over all tables."""
    saved = state.load(f"{pipeline}/judged")
    if saved is None or saved.value.get("lake") != lake:
        return Judged(lake)
    return Judged(lake, _read(saved.value["marks"]), _read(saved.value["held"]))


def save_judged(state: StateStore, pipeline: str, judged: Judged) -> None:
    """Remember it."""
    value = {"lake": judged.lake, "marks": _rows(judged.marks), "held": _rows(judged.held)}
    _save(state, f"{pipeline}/judged", value)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Up to which `_hw_seq` a person lets what is held of a table through, as it was folded then (`made`)."""

    upto: int = -1
    made: str = ""


def load_accepted(state: StateStore, pipeline: str, lake: str) -> Mapping[TableId, Accepted]:
    """What a person lets through."""
    saved = state.load(f"{pipeline}/accepted")
    found = {} if saved is None or saved.value.get("lake") != lake else _read(saved.value["tables"])
    return {t: Accepted(*its) for t, its in found.items()}


def save_accepted(state: StateStore, pipeline: str, lake: str, tables: Mapping[TableId, Accepted]) -> None:
    """Remember it; a follower reads it with its next judgement."""
    joined = {**load_accepted(state, pipeline, lake), **tables}
    rows = _rows({t: [its.upto, its.made] for t, its in joined.items()})
    _save(state, f"{pipeline}/accepted", {"lake": lake, "tables": rows})


def load_references(state: StateStore, pipeline: str) -> Sequence[Reference]:
    """The source's foreign keys as last asked."""
    saved = state.load(f"{pipeline}/references")
    return [_reference(row) for row in saved.value["references"]] if saved else []


def save_references(state: StateStore, pipeline: str, references: Iterable[Reference]) -> None:
    """Remember them, if they are not what is known."""
    found = sorted(references, key=repr)
    if found != load_references(state, pipeline):
        rows = [
            [[r.table.namespace, r.table.name], r.columns, [r.parent.namespace, r.parent.name], r.key]
            for r in found
        ]
        _save(state, f"{pipeline}/references", {"references": rows})


def _reference(row: Sequence[Any]) -> Reference:
    table, columns, parent, key = row
    return Reference(TableId(*table), tuple(columns), TableId(*parent), tuple(key))


def _key(pipeline: str, table: TableId) -> str:
    return f"{pipeline}/seen/{table_path(table)}"


def _save(state: StateStore, key: str, value: Mapping[str, object]) -> None:
    saved = state.load(key)
    state.save(key, value, expect=saved.version if saved else 0)


def _rows(values: Mapping[TableId, Any]) -> list[list[Any]]:
    return [[t.namespace, t.name, value] for t, value in sorted(values.items())]


def _read(rows: Iterable[Sequence[Any]]) -> dict[TableId, Any]:
    return {TableId(namespace, name): value for namespace, name, value in rows}
