"""From a RELATION message to a schema, with the catalogue's help while that still knows the columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg

from headwater.errors import PreflightFailed
from headwater.model import TableId, TableSchema
from headwater.sources.postgres import catalog
from headwater.sources.postgres.catalog import ChosenKeys, SourceColumn
from headwater.sources.postgres.messages import Relation, RelationColumn
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
        now = catalog.load_relations(session, {r.oid for r in relations})
        columns = {r.oid: {c.name: c for c in now[r.oid].kept} for r in relations if r.oid in now}
        missing = {
            (c.type_oid, c.typmod)
            for r in relations
            for c in r.columns
            if not _same(columns.get(r.oid, {}).get(c.name), c)
        }
        types = catalog.load_types(session, missing) if missing else {}
        return [self._resolve(r, now.get(r.oid), columns.get(r.oid, {}), types) for r in relations]

    def _resolve(
        self,
        relation: Relation,
        now: catalog.Relation | None,
        columns: Mapping[str, SourceColumn],
        types: Mapping[tuple[int, int], NativeType],
    ) -> Version:
        made = tuple(_column(c, columns.get(c.name), types) for c in relation.columns)
        table = TableId(relation.namespace, relation.name)
        chosen = self._keys(table)
        if not {c.name for c in made} >= set(chosen):
            raise PreflightFailed(
                f"{table} has no column {', '.join(chosen)} any more, which its key names",
                hint="headwater check",
            )
        schema = catalog.make_schema(relation.oid, table, made, chosen or _key(relation, now))
        schema = replace(schema, key_chosen=bool(chosen))
        before = self._known.get(table)
        rewritten = now is None or now.rewritten
        reload = before is not None and must_reload(before, schema, made, rewritten=rewritten)
        self._known[table] = schema
        return Version(relation, tuple(c.native for c in made), schema, reload)


def _same(column: SourceColumn | None, told: RelationColumn) -> bool:
    return column is not None and (column.native.oid, column.native.typmod) == (told.type_oid, told.typmod)


def _column(
    told: RelationColumn, found: SourceColumn | None, types: Mapping[tuple[int, int], NativeType]
) -> SourceColumn:
    if found is not None and _same(found, told):
        return found
    native = types.get((told.type_oid, told.typmod))
    if native is None:
        # A dropped type. Its values come as text all the same.
        native = NativeType(told.type_oid, told.typmod, "unknown", told.type_oid, told.typmod, "b")
    return SourceColumn(0, told.name, native, nullable=True, generated=False, filled=True)


def _key(relation: Relation, now: catalog.Relation | None) -> set[str]:
    """Names of the key columns. Under FULL the message marks all columns: only the catalogue knows."""
    if relation.identity in "di":
        return {c.name for c in relation.columns if c.in_key}
    if now is None:
        return set()
    key = {c.name for c in now.kept if c.number in now.primary}
    return key if key <= {c.name for c in relation.columns} else set()


def must_reload(
    before: TableSchema, after: TableSchema, columns: Sequence[SourceColumn], *, rewritten: bool
) -> bool:
    """Whether rows written before the change may now read differently without having been logged.

    An added column is harmless only if nothing can have filled it: no default or identity, none remembered
    for older rows, and no rewrite of the table that would have erased that memory. What a widening with
    USING does to values cannot be seen.
    """
    old = {c.source_name: c for c in before.columns}
    new = {c.source_name: c for c in after.columns}
    added = [c for c in columns if c.name not in old]
    if added and (len(new) - len(added) < len(old) or rewritten or any(c.filled for c in added)):
        return True
    kept = [(old[name], new[name]) for name in new if name in old]
    if any(_another(a.origin, b.origin) or not _harmless(a.native, b.native) for a, b in kept):
        return True
    return _key_names(before) != _key_names(after)


def _another(old: str, new: str) -> bool:
    """Whether two columns of one name are not the same: dropped and made again, or tables changed names."""
    return bool(old and new) and any(a != b for a, b in zip(old.split("."), new.split("."), strict=False))


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
