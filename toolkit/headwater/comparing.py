"""A pipeline compared with its source at one position: `verify`, and what a certificate asks beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.canonical import quote
from headwater.casting import apart
from headwater.errors import SourceError, VerifyFailed
from headwater.handoff.build import Dbt
from headwater.handoff.tables import TableModel, table_model
from headwater.lake import Kind
from headwater.lake.derived import base_rows, from_changes
from headwater.lake.tail import is_outdated, through
from headwater.model import TableId, TableSchema
from headwater.run import Runner
from headwater.sources import Cut
from headwater.tally import Tally
from headwater.verify import (
    Options,
    Relation,
    TableCheck,
    VerifyReport,
    VersionCheck,
    Versions,
    compare_versions,
    readable,
    verify,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Schema changes while a comparison is prepared: try again at a later position, this often.
_SETTLES = 3

Found = tuple[str, "DuckDBPyConnection"] | None


@dataclass(frozen=True, slots=True)
class Settled:
    """The source cut at a position that lake and warehouse have reached."""

    cut: Cut
    schemas: Sequence[TableSchema]


class Comparing:
    """The comparisons of one pipeline; whoever makes it holds the pipeline's lease."""

    def __init__(self, runner: Runner, newest: Callable[[TableId], TableSchema]) -> None:
        """`newest` gives the columns of a table that can be compared."""
        self.runner, self.parts, self.newest = runner, runner.parts, newest

    def verify(self, tables: Sequence[TableId]) -> VerifyReport:
        """Source, lake and warehouse."""
        tally = Tally("verify")
        with self.settled(tables) as here:
            report = VerifyReport(here.cut.position, tuple(self.check(here)))
        if not report.equal:
            self.note_differs(tally, report.lines()[-1])
        return report

    def note_differs(self, tally: Tally, verdict: str) -> None:
        """Keep a failed run in the records: without it, the last one kept says that all went well."""
        tally.failed = VerifyFailed(verdict, hint="headwater verify --certificate --repair")
        self.runner.note(tally, "", None)

    @contextmanager
    def settled(self, tables: Sequence[TableId]) -> Iterator[Settled]:
        """Bring everything to a position, and hold the source there."""
        for _ in range(_SETTLES):
            self.runner.run("delta", build=False)
            with self.parts.source.cut() as cut:
                if not self.runner.settle(cut.position) and not self._renamed(tables):
                    yield Settled(cut, [self.newest(t) for t in tables])
                    return
        raise SourceError(
            "the tables change their columns faster than they can be compared", hint="headwater verify"
        )

    def _renamed(self, tables: Sequence[TableId]) -> bool:
        """Whether the source has no more column of a name that the log told last: the next run logs that."""
        log = self.parts.log
        logged = {t: log.schema(t, log.tables()[t].schema) for t in tables}
        known = {t: schema for t, schema in logged.items() if not schema.loaded}
        now = {s.table: {c.name for c in s.columns} for s in self.parts.source.evolved(known)}
        return any(c.name not in names for t, names in now.items() for c in self.newest(t).columns)

    def check(self, here: Settled) -> list[TableCheck]:
        """Each table compared."""
        with self.parts.lake.connect(self.parts.config.memory_limit) as con, self.warehouse() as find:
            return self._check(here, con, find, Options(self.parts.storage.scratch(), tell=self._told))

    def check_all(self, here: Settled, limit: int) -> list[tuple[TableCheck, Sequence[VersionCheck]]]:
        """Each table compared, the lake's `changes` and every history too; up to `limit` keys are named."""
        scratch = self.parts.storage.scratch()
        with self.parts.lake.connect(self.parts.config.memory_limit) as con, self.warehouse() as find:
            more = {"changes": lambda t: self._changes(con, t)}
            options = Options(scratch, limit, more, self._told)
            checks = self._check(here, con, find, options)
            found = []
            for check in checks:
                with readable(check.table):
                    found.append((check, self._versions(check, con, find, options)))
            return found

    def _check(
        self, here: Settled, con: DuckDBPyConnection, find: Callable[[str], Relation] | None, options: Options
    ) -> list[TableCheck]:
        left = {s.table: apart(self.parts, s) for s in here.schemas}
        warehouse = find("current") if find else None
        return verify(here.cut, here.schemas, self._lake(con), warehouse, apart=left, options=options)

    def _lake(self, con: DuckDBPyConnection) -> Relation:
        lake = self.parts.lake
        return lambda t: (lake.relation(con, t, empty=self.newest(t)), con)

    def _changes(self, con: DuckDBPyConnection, table: TableId) -> Found:
        """The current rows by the staged changes alone; None where a table has none of that kind."""
        lake = self.parts.lake
        changes = lake.open(table, "changes")
        if changes is None or not changes.schema.key:
            return None
        return from_changes(lake, lake.open(table, "mirror") or changes, changes), con

    def _versions(
        self,
        check: TableCheck,
        con: DuckDBPyConnection,
        find: Callable[[str], Relation] | None,
        options: Options,
    ) -> Sequence[VersionCheck]:
        """Mirror and history as their own files have them, and the warehouse's history, by the changes."""
        lake, table = self.parts.lake, check.table
        changes, found = lake.open(table, "changes"), list[VersionCheck]()
        if check.skipped or changes is None or not changes.schema.key:
            return found
        bases: tuple[Kind, ...] = ("mirror", "history")
        for kind in bases:
            held = lake.open(table, kind)
            reached = through(held) if held and not is_outdated(held, changes) else None
            if held is not None and reached is not None:
                rows = from_changes(lake, held, changes, reached)
                ours = Versions(changes.schema, rows, con, held.notes, spans=kind == "history")
                found += compare_versions(ours, {kind: (base_rows(lake, held, changes), con)}, options)
        held = lake.open(table, "history")
        if find is not None and held is not None and self.model(changes.schema).versioned:
            ours = Versions(changes.schema, from_changes(lake, held, changes), con, held.notes)
            found += compare_versions(ours, {"warehouse history": find("past")(table)}, options)
        return found

    def _told(self, table: TableId, done: int, parts: int) -> None:
        self.runner.tell("verify.progress", table, {"done": done, "parts": parts})

    def model(self, schema: TableSchema) -> TableModel:
        """The table as the warehouse has it."""
        config = self.parts.config
        return table_model(schema, config.spec(schema.table), config.names)

    @contextmanager
    def warehouse(self) -> Iterator[Callable[[str], Relation] | None]:
        """The models that people read, by "current" and "past"; None when there is no warehouse."""
        import duckdb

        config = self.parts.config
        warehouse = config.warehouse
        if warehouse is None:
            yield None
            return
        if not Path(warehouse.path).exists():
            yield lambda _: lambda _: None
            return
        with duckdb.connect(warehouse.path, read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            con.execute(f"SET memory_limit = '{config.memory_limit}'")
            there = set(con.execute("SELECT schema_name, view_name FROM duckdb_views()").fetchall())
            places = Dbt(config, Path(config.dbt.project)).built().places()

            def find(which: str, table: TableId) -> Found:
                model = self.model(self.newest(table))
                name = model.past if which == "past" else model.current
                place = places.get(name, (warehouse.schema, model.relations[name]))
                return (f"{quote(place[0])}.{quote(place[1])}", con) if place in there else None

            yield lambda which: lambda table: find(which, table)
