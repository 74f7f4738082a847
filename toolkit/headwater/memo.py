"""What a run may skip: how far the lake folded the log, and what the warehouse has seen of each table.

Only ever a shortcut. The lake's own Marks and the models' own `_hw_seq` decide what is applied; a memo that
is lost, old, or about a lake or a warehouse that was deleted costs one look at every table, never data.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.model import TableId
from headwater.state import StateStore
from headwater.storage import Storage

_LAKE_ID = "lake/id.json"


@dataclass(frozen=True, slots=True)
class Folded:
    """The lake holds every entry up to `through`; `marks` names the newest entry with rows for each table.

    `rules` names the casts that the tables were folded by which have some.
    """

    lake: str
    through: int
    marks: Mapping[TableId, int]
    rules: Mapping[TableId, str] = field(default_factory=dict)


def lake_id(storage: Storage) -> str:
    """A name for this very lake, made with it and deleted with it."""
    found = storage.find(_LAKE_ID)
    if found is None:
        storage.create(_LAKE_ID, json.dumps({"id": uuid.uuid4().hex}).encode())
        found = storage.read(_LAKE_ID)
    return str(json.loads(found)["id"])


def known_lake(storage: Storage) -> str:
    """The name of this lake; "" while it has none."""
    return lake_id(storage) if storage.find(_LAKE_ID) is not None else ""


def load_folded(state: StateStore, pipeline: str, lake: str) -> Folded:
    """What is known of this lake; nothing when it is another one."""
    saved = state.load(f"{pipeline}/folded")
    if saved is None or saved.value.get("lake") != lake:
        return Folded(lake, -1, {})
    rules = _texts(saved.value.get("rules", []))
    return Folded(lake, int(saved.value["through"]), _tables(saved.value["marks"]), rules)


def save_folded(state: StateStore, pipeline: str, folded: Folded) -> None:
    """Remember how far the lake has come."""
    value = {"lake": folded.lake, "through": folded.through, "marks": _rows(folded.marks)}
    rules = {"rules": _rows(folded.rules)} if folded.rules else {}
    _save(state, f"{pipeline}/folded", {**value, **rules})


def load_published(state: StateStore, pipeline: str, lake: str, warehouse: str) -> Mapping[TableId, int]:
    """The mark each table had when dbt last built it from this lake in this warehouse."""
    saved = state.load(f"{pipeline}/published")
    if saved is None or (saved.value.get("lake"), saved.value.get("warehouse")) != (lake, warehouse):
        return {}
    return _tables(saved.value["marks"])


def save_published(
    state: StateStore, pipeline: str, lake: str, warehouse: str, marks: Mapping[TableId, int]
) -> None:
    """Remember what the warehouse has seen of the lake."""
    value = {"lake": lake, "warehouse": warehouse, "marks": _rows(marks)}
    _save(state, f"{pipeline}/published", value)


def load_made(state: StateStore, pipeline: str, lake: str, warehouse: str) -> Mapping[TableId, str]:
    """By which casts the tables with some were folded when dbt last built them."""
    saved = state.load(f"{pipeline}/made")
    if saved is None or (saved.value.get("lake"), saved.value.get("warehouse")) != (lake, warehouse):
        return {}
    return _texts(saved.value["made"])


def save_made(
    state: StateStore, pipeline: str, lake: str, warehouse: str, made: Mapping[TableId, str]
) -> None:
    """Remember by which casts what the warehouse has was folded."""
    _save(state, f"{pipeline}/made", {"lake": lake, "warehouse": warehouse, "made": _rows(made)})


def load_views(state: StateStore, pipeline: str, lake: str, settings: str) -> Mapping[TableId, int]:
    """The mark each table had when its views were last published under these settings."""
    saved = state.load(f"{pipeline}/views")
    if saved is None or (saved.value.get("lake"), saved.value.get("settings")) != (lake, settings):
        return {}
    return _tables(saved.value["marks"])


def save_views(
    state: StateStore, pipeline: str, lake: str, settings: str, marks: Mapping[TableId, int]
) -> None:
    """Remember what the views have seen of the lake."""
    _save(state, f"{pipeline}/views", {"lake": lake, "settings": settings, "marks": _rows(marks)})


def load_samples(state: StateStore, pipeline: str) -> list[list[Any]]:
    """What the source said of its log the last few times; see `forecast.Sample`."""
    saved = state.load(f"{pipeline}/wal")
    return [list(row) for row in saved.value["samples"]] if saved else []


def save_samples(state: StateStore, pipeline: str, samples: Sequence[tuple[Any, ...]]) -> None:
    """Remember what the source said of its log."""
    _save(state, f"{pipeline}/wal", {"samples": [list(row) for row in samples]})


def _save(state: StateStore, key: str, value: Mapping[str, object]) -> None:
    saved = state.load(key)
    state.save(key, value, expect=saved.version if saved else 0)


def _rows(marks: Mapping[TableId, int] | Mapping[TableId, str]) -> list[list[Any]]:
    return [[t.namespace, t.name, said] for t, said in sorted(marks.items())]


def _texts(rows: Iterable[list[str | int]]) -> dict[TableId, str]:
    return {TableId(str(namespace), str(name)): str(said) for namespace, name, said in rows}


def _tables(rows: Iterable[list[str | int]]) -> dict[TableId, int]:
    return {TableId(str(namespace), str(name)): int(seq) for namespace, name, seq in rows}
