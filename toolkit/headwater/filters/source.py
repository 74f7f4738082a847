"""`Filtered`: any source, with the rows that a pipeline does not copy left out. Values are not masked yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from headwater.canonical import digests_sql
from headwater.config import Config, TableSpec
from headwater.errors import ConfigError, PreflightFailed
from headwater.filters.rows import Engine, keep_changes, lacking
from headwater.filters.rules import Bound, Problem, bind, choose, find_problems, is_stale, loaded_by, written
from headwater.model import (
    META,
    ChangeBatch,
    Digest,
    Finding,
    Position,
    TableId,
    TableInfo,
    TableSchema,
    add_digests,
)
from headwater.sources import Begun, Cut, Source
from headwater.sources.through import Through, ThroughCut


class Filtered(Through):
    """A `Source` over another one. Its schemas say which rows they leave out (`where`, `loaded`).

    It stands before every source, with filters or without: only so can it see that one was taken away.
    """

    def __init__(self, source: Source, config: Config) -> None:
        super().__init__(source)
        self._config = config
        self._engine = Engine()
        self._specs: dict[TableId, TableSpec] = {}
        self._infos: dict[TableId, TableInfo] = {}  # as the source told them last, by our choice
        self._bound: dict[tuple[TableSchema, tuple[str, ...]], Bound | None] = {}

    def check(self, tables: Sequence[TableId], whole: Sequence[TableId] = ()) -> Sequence[Finding]:
        """The source's preflight, and what is wrong with filters."""
        self._known()
        logged = [t for t in tables if self._is_logged(t)]
        unlogged = [*whole, *(t for t in tables if not self._is_logged(t))]
        wrong = [_finding(problem) for problem in self._problems([*logged, *unlogged])]
        return [*(self._source.check(logged, unlogged) if unlogged else self._source.check(logged)), *wrong]

    def tables(self) -> Sequence[TableInfo]:
        """The source's tables, as they are copied; those that nobody asked for as the source has them."""
        spec, asks = self._spec, self._config.asks_for
        found = {i.schema.table: i for i in self._source.tables()}
        self._infos = {t: choose(i, spec(t), asked=i.logged or asks(t)) for t, i in found.items()}
        return list(self._infos.values())

    def prepare(self, tables: Sequence[TableId], since: Position | None) -> Sequence[TableId]:
        """Prepare the source for tables with a log; raises PreflightFailed for filters that do not fit."""
        self._known()
        for problem in self._problems(tables):
            if problem.fatal:
                raise PreflightFailed(f"{problem.table}: {problem.what}", hint=problem.hint)
        return self._source.prepare([t for t in tables if self._is_logged(t)], since)

    def unlogged(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableId]:
        """Tables whose rows read otherwise now, or of which other rows are wanted than those stored."""
        infos = self._known()
        logged = {t: s for t, s in known.items() if self._is_logged(t)}
        found = set(self._source.unlogged(logged))
        found |= {t for t, s in logged.items() if t in infos and is_stale(s, infos[t].schema)}
        return sorted(found)

    def evolved(self, known: Mapping[TableId, TableSchema]) -> Sequence[TableSchema]:
        """The source's, of tables with a log, with the filters that rows are stored under."""
        self._known()
        plain = {t: replace(s, where="", loaded="") for t, s in known.items() if self._is_logged(t)}
        found = self._source.evolved(plain) if plain else ()
        return [replace(s, where=known[s.table].where, loaded=known[s.table].loaded) for s in found]

    @contextmanager
    def cut(self) -> Iterator[Cut]:
        """The source's cut, without the rows that are left out."""
        with self._source.cut() as cut:
            yield _FilteredCut(cut, self)

    def changes(
        self,
        tables: Sequence[TableId],
        since: Position,
        until: Position | None = None,
        *,
        known: Mapping[TableId, TableSchema],
    ) -> Iterator[ChangeBatch | Position]:
        """The source's changes of the rows that are copied."""
        self._known()
        logged = [t for t in tables if self._is_logged(t)]
        for item in self._source.changes(logged, since, until, known=known):
            if isinstance(item, Position):
                yield item
                continue
            batch = self._filter(item, known.get(item.schema.table))
            if batch.rows.num_rows or batch.reload:
                yield batch

    def close(self) -> None:
        """Close the source."""
        self._source.close()
        self._engine.close()

    def load(self, batch: ChangeBatch) -> ChangeBatch:
        """Rows of a full load: those that are copied."""
        table = batch.schema.table
        spec = self._spec(table)
        loaded = loaded_by(spec, logged=self._is_logged(table))
        schema = replace(batch.schema, where=written(spec.where, spec), loaded=loaded)
        bound = self._bind(batch.schema, spec.where, spec.initial_where)
        if bound is None:
            return batch if schema == batch.schema else replace(batch, schema=schema)
        fits = self._engine.fitting(bound.condition, batch.rows, bound.columns)
        return replace(batch, schema=schema, rows=batch.rows.filter(fits))

    def digests(self, rows: Iterator[ChangeBatch], schema: TableSchema, slices: int) -> Mapping[int, Digest]:
        """The digests of rows, computed here: the server does not know our language."""
        query = digests_sql(schema, "rows", slices=slices)
        return add_digests(
            {number: Digest(n, (a, b, c, d))}
            for batch in rows
            for number, n, a, b, c, d in self._engine.numbers(query, batch.rows)
        )

    def _filter(self, batch: ChangeBatch, before: TableSchema | None) -> ChangeBatch:
        table = batch.schema.table
        spec = self._spec(table)
        where = written(spec.where, spec)
        loaded = before.loaded if before else ""
        if before is not None and before.where != where:
            # Until the table is read again, changes come of rows that are not in the copy.
            loaded = loaded or before.where or "other rows"
        schema = replace(batch.schema, where=where, loaded=loaded)
        try:
            bound = self._bind(batch.schema, spec.where)
        except ConfigError:
            # Of before or after a column was renamed: the table is read again, if the filter fits it then.
            self.tables()
            if table in self._infos:
                self._bind(self._infos[table].schema, spec.where)
            return replace(batch, schema=schema, rows=batch.rows.slice(0, 0), reload=True)
        if bound is None:
            return batch if schema == batch.schema else replace(batch, schema=schema)
        rows = batch.rows
        fits = self._engine.fitting(bound.condition, rows, bound.columns)
        unknown = lacking(rows, bound.columns)
        unseen = pc.and_(unknown, pc.is_in(rows["_hw_op"], pa.array(["c", "u"])))
        reload = batch.reload or bool(pc.any(unseen, min_count=0).as_py())
        kept = keep_changes(rows, batch.schema, fits, unknown, self._engine)
        return replace(batch, schema=schema, rows=kept, reload=reload)

    def _spec(self, table: TableId) -> TableSpec:
        if table not in self._specs:
            self._specs[table] = self._config.spec(table)
        return self._specs[table]

    def _is_logged(self, table: TableId) -> bool:
        info = self._infos.get(table)
        return info is None or info.logged

    def _bind(self, schema: TableSchema, *texts: str) -> Bound | None:
        if not any(texts):
            return None
        found = schema, texts
        if found not in self._bound:
            self._bound[found] = bind(texts, schema)
        return self._bound[found]

    def _known(self) -> Mapping[TableId, TableInfo]:
        if not self._infos:
            self.tables()
        return self._infos

    def _problems(self, tables: Sequence[TableId]) -> Iterator[Problem]:
        for table in tables:
            if table in self._infos:
                yield from find_problems(self._infos[table], self._spec(table))


def _finding(problem: Problem) -> Finding:
    what, *pointed = problem.what.splitlines()
    fix = "\n".join([*pointed, problem.hint])
    return Finding("fail" if problem.fatal else "warn", "filter", what, fix, problem.table)


class _FilteredCut(ThroughCut):
    """A cut whose rows are the ones that are copied."""

    def __init__(self, cut: Cut, source: Filtered) -> None:
        super().__init__(cut)
        self._source = source

    def parts(self, table: TableId, begun: Begun | None = None) -> Sequence[str] | None:
        """The cut's parts; None too where other rows were read than would be now."""
        if begun is None:
            return self._cut.parts(table)
        plain = replace(begun.schema, where="", loaded="")
        nothing = pa.schema([*plain.arrow(), *META]).empty_table()
        now = self._source.load(ChangeBatch(plain, nothing)).schema
        if now != begun.schema:
            return None
        return self._cut.parts(table, replace(begun, schema=plain))

    def read(self, table: TableId, part: str = "") -> Iterator[ChangeBatch]:
        """The rows of the part that are copied."""
        return self._kept(self._cut.read(table, part))

    def find(self, table: TableId, keys: pa.Table) -> Iterator[ChangeBatch]:
        """The rows with these keys that are copied."""
        return self._kept(self._cut.find(table, keys))

    def digests(self, schema: TableSchema, slices: int = 1, part: str = "") -> Mapping[int, Digest]:
        """The digests of the rows that are copied: where that is not all of them, they are read for it."""
        if not schema.where:
            return self._cut.digests(schema, slices, part)
        return self._source.digests(self.read(schema.table, part), schema, slices)

    def pick(
        self, schema: TableSchema, slices: int, chosen: Collection[int], part: str = ""
    ) -> Iterator[ChangeBatch]:
        """The rows of some slices that are copied."""
        return self._kept(self._cut.pick(schema, slices, chosen, part))

    def _kept(self, batches: Iterator[ChangeBatch]) -> Iterator[ChangeBatch]:
        for batch in batches:
            kept = self._source.load(batch)
            if kept.rows.num_rows or kept.phase == "snapshot_end":
                yield kept
