"""What the catalogue says of tables: columns, keys, replica identity; in a constant number of queries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import psycopg

from headwater.model import Column, TableId, TableInfo, TableSchema
from headwater.naming import column_names
from headwater.sources.postgres.values import NativeType, arrow_type

_KINDS = {"r": "table", "p": "partitioned", "f": "foreign", "v": "view", "m": "materialized view"}
#: Kinds whose changes are in the log.
_LOGGED = "rp"

#: Which columns the user chose as the key of a table; () for the source's own.
ChosenKeys = Callable[[TableId], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """One column as the catalogue has it now."""

    number: int
    name: str
    native: NativeType
    nullable: bool
    generated: bool  # GENERATED ALWAYS AS (...): neither in the log nor in our reads
    filled: bool  # rows older than the column may hold something else than NULL in it
    large: bool = False  # its values may be stored out of line, where an update leaves unchanged ones out
    missing: str | None = None  # what they do hold, where the catalogue remembers it

    @property
    def kept(self) -> bool:
        """Whether the log carries it."""
        return not self.generated


@dataclass(frozen=True)
class Relation:
    """One table as the catalogue has it now."""

    oid: int
    table: TableId
    kind: str  # pg_class.relkind
    persistence: str  # pg_class.relpersistence: p u t
    identity: str  # pg_class.relreplident: d i f n
    primary: tuple[int, ...]  # column numbers of the primary key, unless that is deferrable
    index: tuple[int, ...]  # column numbers of the replica identity index
    deferrable: bool  # has a primary key that cannot be an identity
    guarded: bool  # row security is switched on
    rewritten: bool  # its file is not its first: TRUNCATE, VACUUM FULL, ALTER TABLE was here
    parent: str  # the table it is a partition of, as SQL spells it; ""
    naked_parts: tuple[str, ...]  # partitions without a usable replica identity
    last: int = 0  # the highest column number it ever gave
    columns: tuple[SourceColumn, ...] = ()
    chosen: tuple[str, ...] = ()  # names of the key that the user chose

    @cached_property
    def kept(self) -> tuple[SourceColumn, ...]:
        """The columns that log and snapshot carry, in the table's order."""
        return tuple(c for c in self.columns if c.kept)

    @cached_property
    def schema(self) -> TableSchema:
        """The table as the rest of Headwater sees it."""
        numbers = self.index if self.identity == "i" else self.primary
        own = {c.name for c in self.kept if c.number in numbers}
        made = make_schema(self.oid, self.table, self.kept, self.chosen or own)
        return replace(made, key_chosen=True) if self.chosen else made

    @property
    def logged(self) -> bool:
        """Whether the log can have its changes."""
        return self.kind in _LOGGED

    @cached_property
    def carried(self) -> frozenset[str]:
        """Names of the columns that every change carries of the row before it."""
        numbers = self.index if self.identity == "i" else self._default_key()
        return frozenset(c.name for c in self.kept if self.identity == "f" or c.number in numbers)

    @property
    def omits(self) -> frozenset[str]:
        """Names of the columns that an update may leave out: unchanged, and stored out of line."""
        return frozenset(c.name for c in self.kept if c.large) - self.carried

    @property
    def identified(self) -> bool:
        """Whether UPDATE and DELETE keep working when it is published."""
        return self.identity == "f" or bool(self.index if self.identity == "i" else self._default_key())

    def _default_key(self) -> tuple[int, ...]:
        return self.primary if self.identity == "d" else ()

    @property
    def obstacle(self) -> str:
        """Why it cannot be captured as it is, in one line; "" when it can."""
        part = self.naked_parts[0] if self.naked_parts else ""
        obstacles = (
            (not self.logged, f"a {_KINDS.get(self.kind)}: its changes are not in this server's log"),
            (bool(self.parent), f"a partition of {self.parent}, under whose name its changes come"),
            (self.persistence != "p", "unlogged or temporary: its changes are not in the log"),
            (not self.kept, "has no column that the log carries"),
            (
                not self.identified,
                "no replica identity: UPDATE and DELETE on it would fail once it is published",
            ),
            (bool(part), f"partition {part} has no replica identity: UPDATE and DELETE would fail there"),
            (bool(self.unkept), f"has no column {', '.join(self.unkept)}, which its key names"),
            (
                not self.carried >= set(self.chosen),
                f"its replica identity does not carry the chosen key ({', '.join(self.chosen)})",
            ),
        )
        return next((why for wrong, why in obstacles if wrong), "")

    @property
    def unkept(self) -> tuple[str, ...]:
        """Columns of the chosen key that it does not have, or that are generated."""
        return tuple(name for name in self.chosen if name not in {c.name for c in self.kept})


def make_schema(
    oid: int, table: TableId, columns: Sequence[SourceColumn], key: Collection[str]
) -> TableSchema:
    """The schema of columns with file names, Arrow types and key; the key is in the table's column order.

    A column's origin is `<oid of the table>.<number of the column>`, or the oid alone where `number` is 0.
    """
    names = column_names([c.name for c in columns])
    made = tuple(
        Column(
            name,
            arrow_type(c.native),
            c.native.name,
            c.nullable,
            c.name,
            f"{oid}.{c.number}" if c.number else str(oid),
        )
        for name, c in zip(names, columns, strict=True)
    )
    return TableSchema(table, made, tuple(c.name for c in made if c.source_name in key))


def no_keys(_table: TableId) -> tuple[str, ...]:
    """Every table has the source's own key."""
    return ()


def load_relations(
    session: psycopg.Connection, oids: Collection[int] | None = None, keys: ChosenKeys = no_keys
) -> dict[int, Relation]:
    """Tables by oid: the given ones, or all but partitions, temporary tables and the system's own."""
    wanted = None if oids is None else list(oids)
    rows = session.execute(_RELATIONS, {"oids": wanted}).fetchall()
    columns = _load_columns(session, [row[0] for row in rows])
    made = (_relation(row, tuple(columns.get(row[0], ()))) for row in rows)
    return {r.oid: replace(r, chosen=chosen) if (chosen := keys(r.table)) else r for r in made}


def _relation(row: Sequence[Any], columns: tuple[SourceColumn, ...]) -> Relation:
    oid, namespace, name, kind, persistence, identity, primary, index, *flags, naked, last = row
    deferrable, guarded, rewritten, parent = flags
    return Relation(
        oid, TableId(namespace, name), kind, persistence, identity, _numbers(primary), _numbers(index),
        deferrable, guarded, rewritten, parent or "", tuple(naked), last, columns,
    )  # fmt: skip


def find_relations(
    session: psycopg.Connection, tables: Collection[TableId], keys: ChosenKeys = no_keys
) -> dict[TableId, Relation]:
    """Those of the tables that exist, by name."""
    rows = session.execute(
        "select c.oid from unnest(%s::text[], %s::text[]) as w(namespace, name)"
        " join pg_namespace n on n.nspname = w.namespace"
        " join pg_class c on c.relnamespace = n.oid and c.relname = w.name"
        " and c.relkind in ('r', 'p', 'f', 'v', 'm')",
        [[t.namespace for t in tables], [t.name for t in tables]],
    ).fetchall()
    found = load_relations(session, [row[0] for row in rows], keys)
    return {relation.table: relation for relation in found.values()}


def list_tables(session: psycopg.Connection, keys: ChosenKeys = no_keys) -> list[TableInfo]:
    """Every table and view with estimates of rows and bytes, sorted by name."""
    relations = load_relations(session, keys=keys)
    estimates = _load_estimates(session)
    infos = []
    for oid, relation in relations.items():
        rows, size = estimates.get(oid, (None, None))
        kind = _KINDS.get(relation.kind, relation.kind)
        note, logged, omits = relation.obstacle, relation.logged, relation.omits
        infos.append(TableInfo(relation.schema, rows, size, kind, note, logged, omits))
    return sorted(infos, key=lambda info: info.schema.table)


def load_types(
    session: psycopg.Connection, types: Collection[tuple[int, int]]
) -> dict[tuple[int, int], NativeType]:
    """(type oid, typmod) -> type, for those that still exist."""
    rows = session.execute(
        "select t.oid, w.typmod, format_type(t.oid, w.typmod), t.typtype::text"
        " from unnest(%s::oid[], %s::int[]) as w(oid, typmod) join pg_type t on t.oid = w.oid",
        [[oid for oid, _ in types], [typmod for _, typmod in types]],
    ).fetchall()
    domains = _load_domains(session)
    return {(oid, typmod): _native(oid, typmod, name, kind, domains) for oid, typmod, name, kind in rows}


def _load_columns(session: psycopg.Connection, oids: list[int]) -> dict[int, list[SourceColumn]]:
    domains = _load_domains(session)
    found: dict[int, list[SourceColumn]] = {}
    natives: dict[tuple[int, int], NativeType] = {}
    for oid, number, name, type_oid, typmod, spelt, kind, required, generated, *fill in session.execute(
        _COLUMNS, {"oids": oids}
    ).fetchall():
        filled, *stored = fill
        native = natives.get((type_oid, typmod))
        if native is None:
            native = natives[type_oid, typmod] = _native(type_oid, typmod, spelt, kind, domains)
        domain = domains.get(type_oid)
        by_type = domain is not None and domain.filled
        column = SourceColumn(number, name, native, not required, generated, filled or by_type, *stored)
        found.setdefault(oid, []).append(column)
    return found


@dataclass(frozen=True, slots=True)
class _Domain:
    base: int
    typmod: int
    kind: str
    filled: bool


def _load_domains(session: psycopg.Connection) -> Mapping[int, _Domain]:
    """Every domain of the database with the type beneath the last domain under it."""
    rows = session.execute(
        "select d.oid, d.typbasetype, d.typtypmod, b.typtype::text, d.typdefault is not null"
        " from pg_type d join pg_type b on b.oid = d.typbasetype where d.typtype = 'd'"
    ).fetchall()
    domains = {row[0]: _Domain(*row[1:]) for row in rows}
    return {oid: _beneath(domain, domains) for oid, domain in domains.items()}


def _beneath(domain: _Domain, domains: Mapping[int, _Domain]) -> _Domain:
    if domain.kind != "d":
        return domain
    under = _beneath(domains[domain.base], domains)
    return replace(under, filled=domain.filled or under.filled)


def _native(oid: int, typmod: int, name: str, kind: str, domains: Mapping[int, _Domain]) -> NativeType:
    domain = domains.get(oid)
    if domain is None:
        return NativeType(oid, typmod, name, oid, typmod, kind)
    return NativeType(oid, typmod, name, domain.base, domain.typmod, domain.kind)


def _load_estimates(session: psycopg.Connection) -> dict[int, tuple[int | None, int | None]]:
    rows = session.execute(_ESTIMATES).fetchall()
    return {oid: (tuples, size) for oid, tuples, size in rows}


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(n) for n in (text or "").split())


# INCLUDE columns stand behind the key's own in indkey. A deferrable key is no identity (relcache.c).
_RELATIONS = """
with keys as materialized (
    select i.indrelid, i.indisprimary, i.indisreplident, i.indimmediate,
           array_to_string((i.indkey::int2[])[0 : i.indnkeyatts - 1], ' ') as numbers
    from pg_index i where (i.indisprimary or i.indisreplident) and i.indisvalid
)
select c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       p.numbers, r.numbers,
       exists (select from keys k where k.indrelid = c.oid and k.indisprimary and not k.indimmediate),
       c.relrowsecurity,
       case when c.relkind <> 'p' then c.relfilenode <> c.oid
            else exists (select from pg_partition_tree(c.oid) t join pg_class l on l.oid = t.relid
                         where t.isleaf and l.relfilenode <> l.oid) end,
       case when c.relispartition then (select i.inhparent::regclass::text from pg_inherits i
                                        where i.inhrelid = c.oid) end,
       case when c.relkind <> 'p' then '{}'::text[] else array(
            select l.oid::regclass::text from pg_partition_tree(c.oid) t join pg_class l on l.oid = t.relid
            where t.isleaf and not (l.relreplident = 'f' or exists (
                select from keys k where k.indrelid = l.oid and k.indimmediate
                and case l.relreplident when 'd' then k.indisprimary when 'i' then k.indisreplident end))
            order by 1 limit 3) end,
       c.relnatts::int
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join keys p on p.indrelid = c.oid and p.indisprimary and p.indimmediate
left join keys r on r.indrelid = c.oid and r.indisreplident and r.indimmediate
where case when %(oids)s::oid[] is null
      then c.relkind in ('r', 'p', 'f', 'v', 'm') and not c.relispartition and c.relpersistence <> 't'
           and n.nspname not like 'pg\\_%%' and n.nspname <> 'information_schema'
           and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                           and d.deptype = 'e')
      else c.oid = any(%(oids)s::oid[]) end
"""

# A number of up to 28 digits is shorter than a pointer to where it would be stored out of line.
_COLUMNS = """
select a.attrelid, a.attnum::int, a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod),
       t.typtype::text, a.attnotnull, a.attgenerated <> '',
       (a.atthasdef and a.attgenerated = '') or a.atthasmissing or a.attidentity <> '',
       a.attstorage <> 'p' and case when c.relkind <> 'p' then c.reltoastrelid <> 0
            else exists (select from pg_partition_tree(c.oid) p join pg_class l on l.oid = p.relid
                         where l.reltoastrelid <> 0) end
           and not (a.atttypid = 'numeric'::regtype and a.atttypmod >= 4 and (a.atttypmod - 4) >> 16 <= 28),
       case when a.atthasmissing then (a.attmissingval::text::text[])[1] end
from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_class c on c.oid = a.attrelid
where a.attrelid = any(%(oids)s::oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
"""

# pg_total_relation_size takes a lock: tables that somebody holds exclusively would make the list wait.
_ESTIMATES = """
with recursive held as materialized (
    select distinct relation from pg_locks
    where mode = 'AccessExclusiveLock' and granted and relation is not null
      and database = (select oid from pg_database where datname = current_database())
), part as (
    select i.inhparent as root, i.inhrelid as oid from pg_inherits i
      join pg_class c on c.oid = i.inhparent and c.relkind = 'p' and not c.relispartition
    union all
    select p.root, i.inhrelid from part p join pg_inherits i on i.inhparent = p.oid
), unit as (
    select oid as root, oid from pg_class where relkind in ('r', 'm') and not relispartition
    union all select root, oid from part
), sized as (
    select u.root, case when c.reltuples >= 0 then c.reltuples::bigint
                        else nullif(pg_stat_get_live_tuples(c.oid), 0) end as tuples,
           case when not exists (select from held where held.relation = c.oid)
                then pg_total_relation_size(c.oid) end as size
    from unit u join pg_class c on c.oid = u.oid join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and c.relpersistence <> 't' and n.nspname not like 'pg\\_%'
      and n.nspname <> 'information_schema'
)
select root, case when bool_and(tuples is not null) then sum(tuples)::bigint end,
       case when bool_and(size is not null) then sum(size)::bigint end
from sized group by root
"""
