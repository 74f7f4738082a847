"""`Masked`: any source, with its values masked before anybody else sees them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa

from headwater.config import Config
from headwater.errors import PreflightFailed
from headwater.masking.functions import MaskKey, Tools
from headwater.masking.rows import mask_rows
from headwater.masking.rules import (
    Problem,
    changed,
    find_problems,
    hides_fill,
    key_problems,
    mask_schema,
    unmask,
)
from headwater.model import ChangeBatch, Digest, Finding, Position, TableId, TableInfo, TableSchema
from headwater.sources import Begun, Cut, Source
from headwater.sources.through import Through, ThroughCut


class Masked(Through):
    """A `Source` over another one. What it yields, and every schema it tells or is told, is the masked one.

    It stands before every source, with masks or without: only so can it see that masks were taken away.
    """

    def __init__(self, source: Source, config: Config, key: MaskKey | None) -> None:
        """`key` is needed where the configuration hashes or tokenizes."""
        super().__init__(source)
        self._config = config
        self._tools = Tools(key)
        self._infos: dict[TableId, TableInfo] = {}  # as the source told them last
        self._stored: dict[TableId, TableSchema] = {}  # the newest masked schema of each table
        self._versions: dict[TableSchema, TableSchema] = {}  # the source's -> the masked one

    def check(self, tables: Sequence[TableId], whole: Sequence[TableId] = ()) -> Sequence[Finding]:
        """The source's preflight, and what is wrong with masks and chosen columns."""
        wrong = [Finding("fail", "masks", p.what, p.hint, p.table) for p in self._problems([*tables, *whole])]
        return [*self._source.check(tables, whole), *wrong]

    def tables(self) -> Sequence[TableInfo]:
        """The source's tables as they would be stored."""
        self._look()
        return [replace(info, schema=self._as_stored(info.schema)) for info in self._infos.values()]

    def prepare(self, tables: Sequence[TableId], since: Position | None) -> Sequence[TableId]:
        """Prepare the source; raises PreflightFailed first for masks that cannot be kept."""
        for problem in self._problems(tables):
            raise PreflightFailed(f"{problem.table} {problem.what}", hint=problem.hint)
        return self._source.prepare(tables, since)

    def unlogged(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableId]:
        """Tables whose rows read otherwise now: altered in the source, or under other masks than stored."""
        plain = {t: unmask(s) for t, s in known.items()}
        found = set(self._source.unlogged(plain))
        masked = {t: s for t, s in plain.items() if self._config.spec(t).masks}
        for schema in self._source.evolved(masked) if masked else ():
            before = known[schema.table]
            found |= {schema.table} if hides_fill(before, schema, self._version(schema, before)) else set()
        for table, before in known.items():
            if table in self._infos:
                now = self._version(self._infos[table].schema, before)
                found |= {table} if changed(before, now) else set()
        return sorted(found)

    def evolved(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableSchema]:
        """The source's, masked."""
        found = self._source.evolved({t: unmask(s) for t, s in known.items()})
        masked = [self._version(schema, known[schema.table]) for schema in found]
        return [schema for schema in masked if schema != known[schema.table]]

    @contextmanager
    def cut(self) -> Iterator[Cut]:
        """The source's cut, its rows masked."""
        with self._source.cut() as cut:
            yield _MaskedCut(cut, self)

    def changes(
        self,
        tables: Sequence[TableId],
        since: Position,
        until: Position | None = None,
        *,
        known: Mapping[TableId, TableSchema],
    ) -> Iterator[ChangeBatch | Position]:
        """The source's changes, masked; the first batch under other masks than known asks for a reload."""
        told: set[TableId] = set()
        for item in self._source.changes(tables, since, until, known=_Unmasked(known)):
            if isinstance(item, Position):
                yield item
                continue
            table = item.schema.table
            before = known.get(table) if table not in told else None
            batch = self.mask(item, before)
            if before is not None and (
                changed(before, batch.schema) or hides_fill(before, item.schema, batch.schema)
            ):
                batch = replace(batch, reload=True)
            told.add(table)
            yield batch

    def close(self) -> None:
        """Close the source."""
        self._source.close()
        self._tools.close()

    def mask(self, batch: ChangeBatch, before: TableSchema | None = None) -> ChangeBatch:
        """The batch as it is stored, after rows under the masked schema `before` (default: the last seen)."""
        masked = self._version(batch.schema, before)
        if masked == batch.schema:
            return batch
        return replace(batch, schema=masked, rows=mask_rows(batch.rows, batch.schema, masked, self._tools))

    def unmask(self, begun: Begun) -> Begun | None:
        """What was read of a table as its source knows it; None where a cut could not go on with it."""
        stored = begun.schema
        info = self._infos.get(stored.table)
        if info is None or self._version(info.schema, stored) != stored:
            return None
        if begun.keys.num_rows and any(c.mask for c in stored.columns if c.name in stored.key):
            return None
        return replace(begun, schema=info.schema)

    def _version(self, schema: TableSchema, before: TableSchema | None) -> TableSchema:
        """The masked schema of one version of a table; raises PreflightFailed where masks do not hold."""
        stored = self._stored.get(schema.table) if before is None else before
        known = self._versions.get(schema)
        if known is not None and known == stored:
            return known
        spec, info = self._config.spec(schema.table), self._infos.get(schema.table)
        now = info.schema if info else None
        masked = mask_schema(schema, spec, self._tools.key_id, stored, now)
        for problem in key_problems(schema, masked):
            raise PreflightFailed(f"{problem.table} {problem.what}", hint=problem.hint)
        self._versions[schema] = self._stored[schema.table] = masked
        return masked

    def _as_stored(self, schema: TableSchema) -> TableSchema:
        return mask_schema(schema, self._config.spec(schema.table), self._tools.key_id)

    def _look(self) -> None:
        self._infos = {info.schema.table: info for info in self._source.tables()}
        # What was decided without knowing these may be decided otherwise.
        self._versions.clear()

    def _problems(self, tables: Sequence[TableId]) -> Sequence[Problem]:
        if not any(spec.restricts for spec in self._config.overrides.values()):
            return []
        if not self._infos:
            self._look()
        return find_problems(self._config, {t: i.schema for t, i in self._infos.items()}, tables)


class _MaskedCut(ThroughCut):
    """A cut whose rows are masked."""

    def __init__(self, cut: Cut, source: Masked) -> None:
        super().__init__(cut)
        self._source = source

    def parts(self, table: TableId, begun: Begun | None = None) -> Sequence[str] | None:
        """The cut's parts; None too where what was read has other masks, or its keys are masked."""
        if begun is None:
            return self._cut.parts(table)
        known = self._source.unmask(begun)
        return None if known is None else self._cut.parts(table, known)

    def read(self, table: TableId, part: str = "") -> Iterator[ChangeBatch]:
        """Every row of the part, masked."""
        return (self._source.mask(batch) for batch in self._cut.read(table, part))

    def find(self, table: TableId, keys: pa.Table) -> Iterator[ChangeBatch]:
        """The rows with these keys, masked."""
        return (self._source.mask(batch) for batch in self._cut.find(table, keys))

    def digests(self, schema: TableSchema, slices: int = 1, part: str = "") -> Mapping[int, Digest]:
        """The source's digests of columns that are not masked (`TableSchema.unmasked`)."""
        return self._cut.digests(schema, slices, part)

    def pick(
        self, schema: TableSchema, slices: int, chosen: Collection[int], part: str = ""
    ) -> Iterator[ChangeBatch]:
        """The rows of slices, told by columns that are not masked; the rows themselves are."""
        return (self._source.mask(batch) for batch in self._cut.pick(schema, slices, chosen, part))


class _Unmasked(Mapping[TableId, TableSchema]):
    """Stored schemas as the source knows them, each made when asked for."""

    def __init__(self, known: Mapping[TableId, TableSchema]) -> None:
        self._known = known

    def __getitem__(self, table: TableId) -> TableSchema:
        return unmask(self._known[table])

    def __iter__(self) -> Iterator[TableId]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
