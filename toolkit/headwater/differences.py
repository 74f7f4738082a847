"""What changed from one schema of a table to another, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headwater.growth import pair_columns
from headwater.model import Column, TableSchema

What = Literal["added", "dropped", "renamed", "retyped", "nullable", "masked", "key"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that changed. `column` is the name after it, or the one that went; "" for the key."""

    what: What
    column: str
    says: str


def differences(before: TableSchema, after: TableSchema) -> list[Difference]:
    """What changed, column by column; columns are told apart by origin, where that is known."""
    live = [c for c in before.columns if not c.retired]
    pairs = list(pair_columns(live, after.columns))
    kept = {place for _, place in pairs if place is not None}
    found = [d for column, place in pairs for d in _of(live[place] if place is not None else None, column)]
    for place, column in enumerate(live):
        if place not in kept:
            name = column.source_name
            found.append(Difference("dropped", name, f"{name} {_type(column)} dropped"))
    return [*found, *_key(before, after, [(live[p], c) for c, p in pairs if p is not None])]


def written(column: Column) -> str:
    """A column in one line."""
    words = [column.source_name, _type(column), "" if column.nullable else "not null"]
    words.append(f"(older rows: {column.fill})" if column.fill is not None else "")
    words.append(f"(mask: {column.mask.partition(':')[0]})" if column.mask else "")
    return " ".join(filter(None, words))


def _of(old: Column | None, new: Column) -> Iterator[Difference]:
    name = new.source_name
    if old is None:
        yield Difference("added", name, f"{written(new)} added")
        return
    if old.source_name != name:
        yield Difference("renamed", name, f"{old.source_name} renamed to {name}")
    if (old.native, old.type) != (new.native, new.type):
        yield Difference("retyped", name, f"{name}: {_type(old)} became {_type(new)}")
    if old.nullable != new.nullable:
        yield Difference("nullable", name, f"{name} {'may be null' if new.nullable else 'is not null'} now")
    if old.mask != new.mask:
        yield Difference("masked", name, f"{name} is masked otherwise")


def _key(before: TableSchema, after: TableSchema, kept: list[tuple[Column, Column]]) -> Iterator[Difference]:
    names = {old.name: new.name for old, new in kept}
    if [names.get(name) for name in before.key] != list(after.key):
        told = [", ".join(s.key) or "none" for s in (before, after)]
        yield Difference("key", "", f"the key was ({told[0]}), is ({told[1]})")


def _type(column: Column) -> str:
    return column.native or str(column.type)
