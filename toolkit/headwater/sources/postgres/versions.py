"""From a RELATION message to a schema, with the catalogue's help while that still knows the columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg

from headwater.errors import PreflightFailed
from headwater.model import Column, TableId, TableSchema
from headwater.sources.postgres import catalog
from headwater.sources.postgres.catalog import ChosenKeys, SourceColumn
from headwater.sources.postgres.fills import with_fills
from headwater.sources.postgres.messages import Relation, RelationColumn
from headwater.sources.postgres.numbering import Look, is_unsure, number_columns
from headwater.sources.postgres.values import NativeType


@dataclass(frozen=True, slots=True)
class Version:
    """One table under one schema, ready for the decoder."""

    relation: Relation
    natives: tuple[NativeType, ...]
    schema: TableSchema
    reload: bool


class Versions:
    """The schema versions of one call, in the order they come; `known`: each table's before the call."""

    def __init__(
        self,
        session: Callable[[], psycopg.Connection],
        known: Mapping[TableId, TableSchema],
        keys: ChosenKeys = catalog.no_keys,
    ) -> None:
        self._session, self._keys = session, keys
        self._known = dict(known)

    def resolve(self, relations: Sequence[Relation]) -> list[Version]:
        """The versions that these messages announce, compared with the one before each."""
        if not relations:
            return []
        session = self._session()
        now = catalog.load_relations(session, {r.oid for r in relations}, self._keys)
        types = {(c.native.oid, c.native.typmod): c.native for found in now.values() for c in found.columns}
        missing = {(c.type_oid, c.typmod) for r in relations for c in r.columns} - types.keys()
        types |= catalog.load_types(session, missing) if missing else {}
        return [self._resolve(r, now.get(r.oid), types) for r in relations]

    def _resolve(
        self,
        relation: Relation,
        now: catalog.Relation | None,
        types: Mapping[tuple[int, int], NativeType],
    ) -> Version:
        table = TableId(relation.namespace, relation.name)
        before, chosen = self._known.get(table), self._keys(table)
        natives = [types.get((c.type_oid, c.typmod)) or _forgotten(c) for c in relation.columns]
        numbers, unsure = _numbers(relation, natives, now, before)
        found = {c.number: c for c in now.kept} if now else {}
        made = tuple(
            _column(c, native, number, found.get(number))
            for c, native, number in zip(relation.columns, natives, numbers, strict=True)
        )
        if not {c.name for c in made} >= set(chosen):
            raise PreflightFailed(
                f"{table} has no column {', '.join(chosen)} any more, which its key names",
                hint="headwater check",
            )
        key = chosen or _key(relation, now, numbers, before)
        schema = replace(catalog.make_schema(relation.oid, table, made, key), key_chosen=bool(chosen))
        if before is not None:
            schema = with_fills(before, schema, made)
        rewritten = now is None or now.rewritten
        reload = before is not None and (
            unsure
            or must_reload(before, schema, made, rewritten=rewritten)
            or (now is not None and _keys_apart(schema, now))
        )
        self._known[table] = schema
        return Version(relation, tuple(c.native for c in made), schema, reload)


def _numbers(
    relation: Relation,
    natives: Sequence[NativeType],
    now: catalog.Relation | None,
    before: TableSchema | None,
) -> tuple[list[int], bool]:
    """The number of each column that a message names (0: nobody can know), and whether that is a guess."""
    own = f"{relation.oid}."
    known = {
        int(c.origin.removeprefix(own)): Look(c.source_name, c.native)
        for c in sorted(before.columns if before else (), key=_number)
        if c.origin.startswith(own)
    }
    there = {c.number: Look(c.name, c.native.name) for c in (now.kept if now else ())}
    last = now.last if now else max(known, default=-len(natives)) + len(natives)
    told = [Look(c.name, n.name) for c, n in zip(relation.columns, natives, strict=True)]
    numbers = number_columns(told, known, there, last)
    return numbers, now is not None and is_unsure(told, numbers, known, there, last)


def _column(
    told: RelationColumn, native: NativeType, number: int, found: SourceColumn | None
) -> SourceColumn:
    if found is not None and (found.native.oid, found.native.typmod) == (native.oid, native.typmod):
        return replace(found, name=told.name)
    return SourceColumn(number, told.name, native, nullable=True, generated=False, filled=True)


def _forgotten(told: RelationColumn) -> NativeType:
    """A dropped type. Its values come as text all the same."""
    return NativeType(told.type_oid, told.typmod, "unknown", told.type_oid, told.typmod, "b")


def _key(
    relation: Relation, now: catalog.Relation | None, numbers: Sequence[int], before: TableSchema | None
) -> set[str]:
    """Names of the key columns. Under FULL the message marks all columns: only the catalogue knows."""
    if relation.identity in "di":
        return {c.name for c in relation.columns if c.in_key}
    names = {f"{relation.oid}.{n}": c.name for n, c in zip(numbers, relation.columns, strict=True)}
    current = {f"{relation.oid}.{n}" for n in (now.primary if now else ())}
    earlier = {c.origin for c in before.columns if c.name in before.key} if before else set()
    # The one before until the table is read again, as it will be: nobody knows which rows come under which.
    key = next((marks for marks in (earlier, current) if marks and marks <= names.keys()), set())
    return {names[mark] for mark in key}


def _keys_apart(schema: TableSchema, now: catalog.Relation) -> bool:
    """Whether the table has another key now than its changes come under."""
    return _key_marks(schema) != _key_marks(now.schema) and schema.table == now.table


def must_reload(
    before: TableSchema, after: TableSchema, columns: Sequence[SourceColumn], *, rewritten: bool
) -> bool:
    """Whether rows written before the change may now read differently without having been logged.

    `columns` are those of `after`. Renamed and dropped ones are harmless. An added one is if it is known what
    older rows hold in it: what the catalogue remembers, or NULL where nothing can have filled it: no default
    or identity, and no rewrite of the table that would have erased that memory. What a widening with USING
    does to values cannot be seen.
    """
    old, new = _by_number(before), _by_number(after)
    if old is None or new is None:
        told = [[(c.source_name, c.native) for c in s.columns] for s in (before, after)]
        return told[0] != told[1] or _key_names(before) != _key_names(after)
    if _tables(before) != _tables(after) or _key_marks(before) != _key_marks(after):
        return True
    if any(not _harmless(old[n].native, c.native) for n, c in new.items() if n in old):
        return True
    looks = [[(c.source_name, c.native) for c in found.values()] for found in (old, new)]
    if looks[0] == looks[1] and old.keys() != new.keys():
        return True
    lost = {(c.source_name, c.native) for n, c in old.items() if n not in new}
    filled = {c.number for c in columns if c.filled}
    added = [(n, c) for n, c in new.items() if n not in old]
    return any(
        (c.source_name, c.native) in lost  # rows under one name, and nobody knows which are of which
        or n < max(old, default=0)  # it was there, and the log did not carry it
        or (c.fill is None and (rewritten or n in filled))
        for n, c in added
    )


def _by_number(schema: TableSchema) -> dict[int, Column] | None:
    """The columns by their numbers; None where these are not known."""
    columns = sorted(schema.columns, key=_number)
    return None if any(not _number(c) for c in columns) else {_number(c): c for c in columns}


def _number(column: Column) -> int:
    return int(column.origin.partition(".")[2] or 0)


def _tables(schema: TableSchema) -> set[str]:
    return {c.origin.partition(".")[0] for c in schema.columns}


def _key_marks(schema: TableSchema) -> set[str]:
    return {c.origin for c in schema.columns if c.name in schema.key}


def _key_names(schema: TableSchema) -> set[str]:
    return {c.source_name for c in schema.columns if c.name in schema.key}


_INTEGERS = {"smallint": 2, "integer": 4, "bigint": 8}
_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
_VARYING = re.compile(r"character varying\((\d+)\)")


def _harmless(old: str, new: str) -> bool:
    """Whether every value of the old type is the same value in the new one."""
    if old == new or (old, new) == ("real", "double precision"):
        return True
    if old in _INTEGERS and new in _INTEGERS:
        return _INTEGERS[old] <= _INTEGERS[new]
    return _wider_numeric(old, new) or _wider_text(old, new)


def _wider_numeric(old: str, new: str) -> bool:
    was, now = _NUMERIC.fullmatch(old), _NUMERIC.fullmatch(new)
    if was is None:
        return False
    if now is None:
        return new == "numeric"
    (p, s), (q, t) = map(int, was.groups()), map(int, now.groups())
    return t >= s and q - t >= p - s


def _wider_text(old: str, new: str) -> bool:
    if new not in ("text", "character varying") and not _VARYING.fullmatch(new):
        return False
    was, now = _VARYING.fullmatch(old), _VARYING.fullmatch(new)
    if now is None:
        return was is not None or old in ("text", "character varying")
    return was is not None and int(was[1]) <= int(now[1])
