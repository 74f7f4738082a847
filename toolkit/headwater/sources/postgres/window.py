"""A window of the stream: changes by table and schema version, then decoded whole columns at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headwater.errors import DecodeError
from headwater.model import META, STRIDE, ChangeBatch, Op, TableId, TableSchema
from headwater.sources.postgres.decode import decode_changes
from headwater.sources.postgres.messages import Begin, Relation, parse_relation
from headwater.sources.postgres.position import format_lsn
from headwater.sources.postgres.versions import Version, Versions


@dataclass(slots=True)
class Group:
    """Changes of one table under one RELATION message, as they came."""

    relation: Relation
    payloads: list[bytes] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)  # ordinals of truncates


@dataclass(slots=True)
class Commits:
    """Where in the numbering each transaction of a window begins, and what its rows say of it."""

    first: list[int] = field(default_factory=list)
    begins: list[Begin] = field(default_factory=list)

    def meta(self, ordinals: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """`_hw_pos`, `_hw_at` and `_hw_tx` of the changes with these numbers."""
        index = pa.array(np.searchsorted(np.array(self.first, np.int64), ordinals, side="right") - 1)
        positions = pa.array([format_lsn(b.final_lsn) for b in self.begins], pa.string())
        moments = pa.array([b.at for b in self.begins], pa.int64()).cast(pa.timestamp("us", "UTC"))
        names = pa.array([str(b.xid) for b in self.begins], pa.string())
        return {"_hw_pos": positions.take(index), "_hw_at": moments.take(index), "_hw_tx": names.take(index)}


class Window:
    """Gathers changes until `take`. Numbers them over all windows of a call; only wanted tables count.

    `relations` is what the server has announced on this connection, by oid as it stands in the messages.
    """

    def __init__(
        self, tables: Collection[TableId], versions: Versions, relations: dict[bytes, Relation]
    ) -> None:
        self.count = 0  # changes seen in this call
        self.bytes = 0  # size of the gathered messages
        self.rows = 0
        self._commits = Commits()
        self._groups: list[Group] = []
        self._open: dict[bytes, Group | None] = {}
        self._tables, self._versions, self._relations = frozenset(tables), versions, relations
        self._resolved: dict[Relation, Version] = {}

    def announce(self, payload: bytes) -> None:
        """Take in a RELATION message: from here on the table looks like this."""
        relation = parse_relation(payload)
        if self._relations.get(payload[1:5]) != relation:
            self._relations[payload[1:5]] = relation
            self._open.pop(payload[1:5], None)

    def truncate(self, oid: int, begin: Begin) -> None:
        """Take in the truncation of one table."""
        group = self._group(oid.to_bytes(4, "big"))
        if group is not None:
            group.truncated.append(self.count)
            self._count(0, begin)

    def add(self, payload: bytes, begin: Begin) -> None:
        """Take in an insert, update or delete."""
        try:
            group = self._open[payload[1:5]]
        except KeyError:
            group = self._group(payload[1:5])
        if group is not None:
            group.payloads.append(payload)
            group.ordinals.append(self.count)
            self._count(len(payload), begin)

    def _count(self, size: int, begin: Begin) -> None:
        commits = self._commits.begins
        if not commits or commits[-1] is not begin:
            self._commits.first.append(self.count)
            commits.append(begin)
        self.count += 1
        self.rows += 1
        self.bytes += size

    def _group(self, oid: bytes) -> Group | None:
        """Where changes of a table go; None when nobody asked for it."""
        if oid in self._open:
            return self._open[oid]
        relation = self._relations.get(oid)
        if relation is None:
            raise DecodeError(f"a change of table {int.from_bytes(oid, 'big')}, which was never announced")
        group = None
        if TableId(relation.namespace, relation.name) in self._tables:
            group = Group(relation)
            self._groups.append(group)
        self._open[oid] = group
        return group

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
    rows = decode_changes(
        version.relation, version.natives, schema, group.payloads, np.array(group.ordinals, np.int64)
    )
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
