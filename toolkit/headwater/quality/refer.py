"""References between captured tables: the rows whose columns name no row of the other table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from headwater.canonical import quote
from headwater.config import TableSpec
from headwater.errors import ConfigError
from headwater.model import Column, Reference, TableId, TableSchema
from headwater.quality import Check
from headwater.quality.rows import Rows
from headwater.quality.rules import Rule


@dataclass(frozen=True, slots=True)
class Parent:
    """A table that others refer to: its columns, and all of its rows as SQL to stand after FROM."""

    schema: TableSchema
    relation: str


#: The captured table of a name; None for one that is not captured.
Parents = Callable[[TableId], Parent | None]


def reference_rules(rows: Rows, spec: TableSpec, known: Iterable[Reference], parents: Parents) -> list[Rule]:
    """The rules of the source's foreign keys and of the user's references."""
    table = rows.schema.table
    made = [_rule(rows, r, "source", parents) for r in known if r.table == table]
    for refers in spec.quality.references:
        parent = parents(refers.table)
        if parent is None:
            raise ConfigError(f"{refers.at}: {refers.table} is not captured", hint="headwater tables")
        names = {c.name: c.source_name for c in parent.schema.columns}
        key = refers.key or tuple(names[name] for name in parent.schema.key)
        if len(key) != len(refers.columns):
            what = f"{refers.at}: the key of {refers.table} has {len(key)} columns"
            raise ConfigError(what, hint="key: [...] names the columns there")
        rule = _rule(rows, Reference(table, refers.columns, refers.table, key), "user", parents)
        if rule is None:
            what = f"{refers.at}: {', '.join((*refers.columns, *key))} cannot be compared"
            raise ConfigError(what, hint="the columns must be there, of one type, and not masked")
        made.append(rule)
    return [rule for rule in made if rule is not None]


def _rule(
    rows: Rows, reference: Reference, origin: Literal["source", "user"], parents: Parents
) -> Rule | None:
    """The rule; None where it cannot be judged: rows or columns of it are not copied as they are."""
    parent = parents(reference.parent)
    if parent is None or (parent.schema.partial and origin == "source"):
        return None
    here, there = _find(rows.schema, reference.columns), _find(parent.schema, reference.key)
    if here is None or there is None or not all(map(_comparable, here, there)):
        return None
    named = " AND ".join(f"_hw_one.{quote(c.name)} IS NOT NULL" for c in here)
    same = " AND ".join(
        f"_hw_one.{quote(c.name)} = _hw_parent.{quote(p.name)}" for c, p in zip(here, there, strict=True)
    )
    among = (
        f"SELECT * FROM (SELECT * FROM {rows.relation} AS _hw_one WHERE {named}) AS _hw_one "
        f"ANTI JOIN {parent.relation} AS _hw_parent ON {same}"
    )
    what = f"names a row of {reference.parent}"
    return Rule(Check("references", tuple(reference.columns), origin, "critical", what), among=among)


def _find(schema: TableSchema, names: Sequence[str]) -> Sequence[Column] | None:
    columns = {c.source_name: c for c in schema.columns if not (c.mask or c.retired)}
    return [columns[name] for name in names] if all(name in columns for name in names) else None


def _comparable(one: Column, other: Column) -> bool:
    if one.type == other.type:
        return True
    return all(pa.types.is_integer(c.type) or pa.types.is_decimal(c.type) for c in (one, other))
