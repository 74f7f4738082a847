"""A window of the stream: changes by table and schema version, then decoded whole columns at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headwater.errors import DecodeError
from headwater.model import META, STRIDE, ChangeBatch, Op, TableId, TableSchema
from headwater.sources.postgres.blocks import Begins, distinct, format_lsns, one_begin
from headwater.sources.postgres.cells import Ints, Mask
from headwater.sources.postgres.decode import decode_changes
from headwater.sources.postgres.frames import Frames, compact, merge
from headwater.sources.postgres.messages import Begin, Relation, parse_relation
from headwater.sources.postgres.versions import Version, Versions

#: A part of a block is copied out of it when it is less than this share of it: else it would keep it all.
_SHARE = 8


@dataclass(slots=True)
class Group:
    """Changes of one table under one RELATION message, as they came."""

    relation: Relation
    parts: list[Frames] = field(default_factory=list)
    ordinals: list[Ints] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)  # ordinals of truncates

    def add(self, frames: Frames, ordinals: Ints) -> None:
        """Take in I, U and D messages, in order."""
        self.parts.append(compact(frames) if _SHARE * frames.size < len(frames.data) else frames)
        self.ordinals.append(ordinals)


@dataclass(slots=True)
class Commits:
    """Where in the numbering each transaction of a window begins, and what its rows say of it."""

    first: list[Ints] = field(default_factory=list)
    begins: list[Begins] = field(default_factory=list)

    def meta(self, ordinals: Ints) -> dict[str, pa.Array]:
        """`_hw_pos`, `_hw_at` and `_hw_tx` of the changes with these numbers."""
        index = pa.array(np.searchsorted(np.concatenate(self.first), ordinals, side="right") - 1)
        moments = pa.array(np.concatenate([b.at for b in self.begins])).cast(pa.timestamp("us", "UTC"))
        names = pa.array(np.concatenate([b.xid for b in self.begins])).cast(pa.string())
        positions = format_lsns(np.concatenate([b.final_lsn for b in self.begins]))
        return {"_hw_pos": positions.take(index), "_hw_at": moments.take(index), "_hw_tx": names.take(index)}


class Window:
    """Gathers changes until `take`. Numbers them over all windows of a call; only wanted tables count.

    `relations` is what the server has announced on this connection, by oid.
    """

    def __init__(
        self, tables: Collection[TableId], versions: Versions, relations: dict[int, Relation]
    ) -> None:
        self.count = 0  # changes seen in this call
        self.bytes = 0  # size of the gathered messages
        self.rows = 0
        self._commits = Commits()
        self._groups: list[Group] = []
        self._open: dict[int, Group] = {}
        self._tables, self._versions, self._relations = frozenset(tables), versions, relations
        self._resolved: dict[Relation, Version] = {}

    def announce(self, payload: bytes) -> None:
        """Take in a RELATION message: from here on the table looks like this."""
        relation = parse_relation(payload)
        if self._relations.get(relation.oid) != relation:
            self._relations[relation.oid] = relation
            self._open.pop(relation.oid, None)
        else:
            # Something about the table changed, and its columns may be others that look the same.
            self._resolved.pop(relation, None)

    def truncate(self, oid: int, begin: Begin) -> None:
        """Take in the truncation of one table."""
        if self._is_wanted(oid):
            self._group(oid).truncated.append(self.count)
            self._count(0, one_begin(begin), np.zeros(1, np.int64))

    def wants(self, oids: Ints) -> Mask:
        """Which changes are of wanted tables."""
        few, which = distinct(oids)
        return np.array([self._is_wanted(oid) for oid in few.tolist()], bool)[which]

    def add(self, frames: Frames, oids: Ints, owners: Ints, begins: Begins) -> None:
        """Take in inserts, updates and deletes of wanted tables; `owners`: which of `begins` each is of."""
        if not len(frames):
            return
        ordinals = self.count + np.arange(len(frames))
        few, which = distinct(oids)
        if len(few) == 1:
            self._group(int(few[0])).add(frames, ordinals)
        else:
            order = np.argsort(which, kind="stable")
            bounds = np.searchsorted(which[order], np.arange(len(few) + 1))
            for k, oid in enumerate(few.tolist()):
                mine = order[bounds[k] : bounds[k + 1]]
                self._group(oid).add(frames.pick(mine), ordinals[mine])
        self._count(frames.size, begins, owners)

    def _count(self, size: int, begins: Begins, owners: Ints) -> None:
        changes = np.flatnonzero(np.diff(owners, prepend=-1))
        self._commits.first.append(self.count + changes)
        self._commits.begins.append(begins.pick(owners[changes]))
        self.count += len(owners)
        self.rows += len(owners)
        self.bytes += size

    def _is_wanted(self, oid: int) -> bool:
        relation = self._relations.get(oid)
        if relation is None:
            raise DecodeError(f"a change of table {oid}, which was never announced")
        return TableId(relation.namespace, relation.name) in self._tables

    def _group(self, oid: int) -> Group:
        """Where changes of a wanted table go."""
        if oid not in self._open:
            self._open[oid] = Group(self._relations[oid])
            self._groups.append(self._open[oid])
        return self._open[oid]

    def take(self) -> Iterator[ChangeBatch]:
        """The batches of what was gathered, one for each table and schema version; empties the window."""
        groups, commits = self._groups, self._commits
        self._groups, self._commits, self._open, self.bytes, self.rows = [], Commits(), {}, 0, 0
        new = [g.relation for g in groups if g.relation not in self._resolved]
        fresh = dict(zip(new, self._versions.resolve(new), strict=True))
        self._resolved |= fresh
        for group in groups:
            version = self._resolved[group.relation]
            reload = version.reload and fresh.pop(group.relation, None) is not None
            yield ChangeBatch(version.schema, _decode(group, version, commits), "changes", reload)


def _decode(group: Group, version: Version, commits: Commits) -> pa.Table:
    schema = version.schema
    numbers = np.concatenate([np.empty(0, np.int64), *group.ordinals])
    rows = decode_changes(version.relation, version.natives, schema, merge(group.parts), numbers)
    if group.truncated:
        rows = pa.concat_tables([rows, _truncates(group.truncated, rows.schema)]).sort_by("_hw_seq")
    ordinals = rows["_hw_seq"].to_numpy() // STRIDE
    return arrange(rows, schema, commits.meta(ordinals))


def _truncates(ordinals: list[int], shape: pa.Schema) -> pa.Table:
    columns = {
        "_hw_op": pa.array([Op.TRUNCATE.value] * len(ordinals), pa.string()),
        "_hw_seq": pa.array([n * STRIDE + 2 for n in ordinals], pa.int64()),
    }
    return pa.table([columns.get(f.name, pa.nulls(len(ordinals), f.type)) for f in shape], schema=shape)


def arrange(rows: pa.Table, schema: TableSchema, meta: dict[str, pa.Array]) -> pa.Table:
    """The decoder's rows with the remaining meta columns, in the order the raw log wants."""
    wanted = pa.schema([*schema.arrow(), *META])
    return pa.table([meta[f.name] if f.name in meta else rows[f.name] for f in wanted], schema=wanted)
