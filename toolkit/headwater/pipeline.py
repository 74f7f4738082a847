"""`Pipeline`: the verbs of the command line, in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from headwater import config as configuration
from headwater.canonical import quote
from headwater.config import Config, Policies, TableSpec
from headwater.errors import ConfigError, HeadwaterError, PreflightFailed, SourceError
from headwater.filters.rules import is_stale
from headwater.handoff.outlook import Outlook
from headwater.layouts import Preview, check_layouts, look_ahead, refuse_layouts
from headwater.masking.rules import changed, describe
from headwater.model import SKIPPED, Finding, TableId, TableInfo, TableSchema
from headwater.naming import lake_folder
from headwater.quarantine.rows import is_recast
from headwater.wiring import open_parts

if TYPE_CHECKING:
    import duckdb
    from duckdb import DuckDBPyConnection

    from headwater.deliver import Parts
    from headwater.events import Sink
    from headwater.explain import Step
    from headwater.forecast import Forecast
    from headwater.formats.told import ViewStatus
    from headwater.handoff.build import BuildResult
    from headwater.handoff.dbt import Generated
    from headwater.handoff.tables import TableModel
    from headwater.pulse import Pulse
    from headwater.quarantine.rows import Queue, Waiting
    from headwater.raw import TableState
    from headwater.reading import Reader
    from headwater.review import SchemaVersion
    from headwater.run import Runner
    from headwater.state import RunRecord
    from headwater.verify import Relation, VerifyReport

#: Up to so many tables, `status` and `plan` look into the lake of each.
_LOOKS = 200

#: Schema changes while a comparison is prepared: try again at a later position, this often.
_SETTLES = 3


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What a run would do with one table."""

    table: TableId
    action: str  # load | reload | follow | skip | release
    mode: str
    rows: int | None
    bytes: int | None
    why: str
    masks: tuple[str, ...] = ()  # each masked column and its mask, each column left out
    folders: tuple[str, ...] = ()  # of a table with a partition, the folders of some of its rows
    says: tuple[str, ...] = ()  # what is wrong with its partition, or to think about
    formats: tuple[str, ...] = ()  # beside Delta
    lake: str = ""  # its folder under the store
    warehouse: tuple[str, ...] = ()  # the relations that people read
    changes: tuple[str, ...] = ()  # what changed of its columns and is not in the log yet


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, and how much there is to read.

    names   what will be called otherwise in the warehouse, or cannot be called so, in lines
    """

    tables: Sequence[TablePlan]
    behind_bytes: int | None  # None before the first run
    names: Sequence[str] = ()
    dbt: Sequence[str] = ()  # what would change in the generated dbt files, as a unified diff


@dataclass(frozen=True, slots=True)
class TableStatus:
    """Where one table stands.

    waiting  rows in the quarantine; None: not looked, as its columns have no casts
    tail   about how many rows of changes are not in the files of its mirror yet; None: not looked
    views  where its published views stand, and the raw log's entry that the lake table stands at
    """

    table: TableId
    epoch: int
    complete: bool
    columns: int
    keyless: bool
    tail: int | None = None
    waiting: int | None = None
    views: Sequence[ViewStatus] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """Where a pipeline stands; `behind_bytes` and `source` are None and empty when the source is away.

    wal    how long the source can go on keeping its log for us; None when it keeps none
    """

    pipeline: str
    store: str
    entries: int
    position: str
    behind_bytes: int | None
    source: Mapping[str, str | int | None]
    source_error: str
    wal: Forecast | None
    tables: Sequence[TableStatus]
    runs: Sequence[RunRecord]
    holder: str  # who holds the pipeline's lease now; "" when nobody does


def choosable(infos: Sequence[TableInfo]) -> dict[TableId, TableInfo]:
    """What patterns choose from: all but views and the like that nobody asked for."""
    return {i.schema.table: i for i in infos if i.logged or not i.note}


class Pipeline:
    """One pipeline, opened. Close it, or use it in a `with` statement."""

    def __init__(self, config: Config, path: Path | None = None) -> None:
        """`path` is the file that the config was read from, where there is one."""
        self.config = config
        self.path = path
        self._parts: Parts | None = None
        self._lent: Parts | None = None

    @classmethod
    def open(cls, source: str | Path | Config = "headwater.yml") -> Pipeline:
        """Open a pipeline file, or a `Config` made elsewhere; raises ConfigError."""
        if isinstance(source, Config):
            return cls(source)
        return cls(configuration.load(source), Path(source).absolute())

    def reload(self) -> None:
        """Read the file again, if there is one; raises ConfigError, and then all stays as it was."""
        if self.path is not None:
            config = configuration.load(self.path)
            self.close()
            self.config = config

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections, scratch files and the state file."""
        if self._parts is not None:
            parts, self._parts = self._parts, None
            if self._lent is not None:
                self._lent.storage.close()
                self._lent = None
            parts.source.close()
            parts.look.close()
            parts.storage.close()
            parts.state.close()

    @property
    def parts(self) -> Parts:
        """The open parts."""
        if self._parts is None:
            self._parts = open_parts(self.config)
        return self._parts

    def check(self, tables: Sequence[str] | None = None) -> Sequence[Finding]:
        """The source's preflight over the chosen tables; changes nothing."""
        from headwater.casting import cast_problems
        from headwater.formats.told import check_formats

        known = choosable(self.parts.source.tables())
        infos = list(known.values())
        wanted = configuration.select(tables or self.config.tables, list(known))
        copied = configuration.select(self.config.tables, list(known)) if tables else wanted
        names = Outlook(self.config, [known[t].schema for t in copied if not known[t].note]).findings()
        problems = cast_problems(self.parts, infos, wanted)
        casts = [Finding("fail", "cast", p.what, p.hint, p.table) for p in problems]
        chosen = [i for i in infos if i.schema.table in set(wanted)]
        layouts = check_layouts(self.config, self.parts.lake, chosen)
        formats = check_formats(self.config, [i.schema for i in chosen])
        return [*self.parts.source.check(wanted), *casts, *layouts, *formats, *names]

    def tables(self) -> Sequence[TableInfo]:
        """All tables of the source that could be captured."""
        return self.parts.source.tables()

    def plan(self) -> Plan:
        """What `run` would do now; changes nothing."""
        from headwater.coming import gone_tables, wanted_tables
        from headwater.differences import differences

        parts = self.parts
        every = {i.schema.table: i for i in parts.source.tables()}
        infos = choosable(list(every.values()))
        wanted, away = wanted_tables(self.config, infos, gone_tables(parts, every))
        state, last = parts.log.tables(), parts.log.last()
        outlook = Outlook(self.config, [infos[t].schema for t in wanted if not infos[t].note])
        altered = [t for t in wanted if t in state and state[t].schema != infos[t].schema.fingerprint()]
        captured = {t: parts.log.schema(t, state[t].schema) for t in altered}
        evolved = {s.table: s for s in parts.source.evolved(captured)} if captured else {}
        rows = []
        for table in wanted:
            info, known = infos[table], state.get(table)
            action, why = self._intend(info, known)
            spec, masks = self.config.spec(table), tuple(describe(info.schema))
            laid = Preview() if info.note else look_ahead(spec, parts.lake, parts.source, info)
            facts = info.rows, info.bytes, why, masks, laid.folders, laid.says, spec.formats
            lands = lake_folder(table), outlook.read(table)
            changes: tuple[str, ...] = ()
            if table in evolved:
                changes = tuple(d.says for d in differences(captured[table], evolved[table]))
            rows.append(TablePlan(table, action, spec.mode, *facts, *lands, changes))
        reasons = {g.table: g.says for g in away}
        gone = [t for t, s in state.items() if s.complete and t not in set(wanted)]
        names = [*outlook.moved(), *(f"{f.found}: {f.fix}" for f in outlook.findings())]
        rows += [TablePlan(t, "release", "", None, None, reasons.get(t, "no longer chosen")) for t in gone]
        behind = parts.source.behind(last.position) if last else None
        looks = self.config.warehouse and last and len(rows) <= _LOOKS
        return Plan(rows, behind, names, self.dbt_diff() if looks else ())

    def run(
        self,
        mode: str = "auto",
        tables: Sequence[str] | None = None,
        sinks: Sequence[Sink] = (),
        *,
        build: bool = True,
    ) -> RunRecord:
        """Load what is new, then catch up, fold and build.

        mode    "auto": full the first time, delta after; "full": read the tables again (history is kept)
        tables  with mode "full": only these patterns are read again
        Raises the HeadwaterError that stopped it; the failed run is in `status`.
        """
        if mode not in ("auto", "full"):
            raise ConfigError(f"no run mode {mode!r}", hint='"auto" or "full"')
        with self._running(sinks) as (runner, specs):
            reload: Sequence[TableId] = ()
            if mode == "full" or tables:
                reload = configuration.select(tables or ["*.*"], list(specs))
            first = self.parts.log.last() is None
            return runner.run("full" if reload or first else "delta", reload, build=build)

    def follow(
        self,
        sinks: Sequence[Sink] = (),
        pause: float = 0.5,
        stop: Callable[[], bool] = lambda: False,
        *,
        build: bool = True,
    ) -> Iterator[RunRecord]:
        """Run until `stop()` is true, with `pause` seconds from one look at the source to the next.

        Yields a record for each round that brought something, and the last; see `headwater.follow`.
        """
        from headwater.follow import Follow
        from headwater.raw import RawLog

        with self._running(sinks) as (runner, _):
            try:
                yield from Follow(runner, pause=pause, build=build).rounds(stop)
            finally:
                # The follower wrote through a session of its own, which ends ours.
                self._parts = replace(self.parts, log=RawLog(self.parts.storage))

    def verify(self, tables: Sequence[str] | None = None, sinks: Sequence[Sink] = ()) -> VerifyReport:
        """Compare source, lake and warehouse at one position, while others write to the source."""
        from headwater.casting import apart
        from headwater.verify import VerifyReport, verify

        with self._running(sinks) as (runner, specs):
            chosen = configuration.select(tables or ["*.*"], list(specs))
            for _ in range(_SETTLES):
                runner.run("delta", build=False)
                with self.parts.source.cut() as cut:
                    if not runner.settle(cut.position):
                        schemas = [self._newest(t) for t in chosen]
                        with self._lake_relations() as lake, self._warehouse_relations() as warehouse:
                            scratch = self.parts.storage.scratch()
                            left = {s.table: apart(self.parts, s) for s in schemas}
                            checks = verify(cut, schemas, lake, warehouse, scratch=scratch, apart=left)
                        return VerifyReport(cut.position, tuple(checks))
        raise SourceError(
            "the tables change their columns faster than they can be compared", hint="headwater verify"
        )

    def status(self) -> Status:
        """Where the pipeline stands; works while another process runs it, and without the source."""
        from headwater.formats.told import standing
        from headwater.guard import LogGuard, Look
        from headwater.quarantine.rows import count_waiting
        from headwater.state import holder, last_runs

        parts = self.parts
        last = parts.log.last()
        look, behind, failed = Look({}, None), None, ""
        try:
            look = LogGuard(parts.source, parts.state, self.config.name).look()
            behind = parts.source.behind(last.position) if last else None
        except SourceError as away:
            failed = str(away)
        known = parts.log.tables()
        schemas = ((t, s, parts.log.schema(t, s.schema)) for t, s in sorted(known.items()))
        looks = len(known) <= _LOOKS
        return Status(
            pipeline=self.config.name,
            store=self.config.store,
            entries=last.seq + 1 if last else 0,
            position=parts.source.show(last.position) if last else "",
            behind_bytes=behind,
            source=look.facts,
            wal=look.forecast,
            source_error=failed,
            tables=[
                TableStatus(
                    t,
                    s.epoch,
                    s.complete,
                    len(c.columns),
                    not c.key,
                    parts.lake.tail_rows(t) if looks else None,
                    count_waiting(parts.lake, t) if looks and self.config.spec(t).casts else None,
                    standing(parts.formats, parts.lake, self.config.spec(t)) if looks else (),
                )
                for t, s, c in schemas
            ],
            runs=last_runs(parts.state, self.config.name, 5),
            holder=holder(parts.state, self.config.name),
        )

    def pulse(self) -> Pulse:
        """Where the pipeline stands in a few figures: `status` without the tables."""
        from headwater.pulse import take_pulse

        return take_pulse(self.parts)

    def compact(self, tables: Sequence[str] | None = None) -> Sequence[TableId]:
        """Move the changes of tables (patterns; default: all) into the files of mirror and history, now.

        Returns the tables that had any. For engines that read these files or published views of them; what we
        read is the same.
        """
        from headwater.deliver import Delivery
        from headwater.refresh import compact
        from headwater.state import hold

        specs = self._specs_in_lake()
        if not specs:
            raise ConfigError(f"pipeline {self.config.name} has read no table yet", hint="headwater run")
        chosen = configuration.select(tables or ["*.*"], list(specs))
        with hold(self.parts.state, self.config.name) as lease:
            lake, limit = self.parts.lake, self.config.memory_limit
            done = compact(lake, {t: specs[t] for t in chosen}, memory_limit=limit)
            Delivery(self.parts, {t: specs[t] for t in chosen}, lambda *_: None, lease.check).show_all()
            return done

    def explain(self, table: str, key: str, *, values: bool = False) -> Sequence[Step]:
        """Every change of one key, with its position, file and lake version."""
        from headwater.explain import explain

        return explain(self.parts.log, self.parts.lake, self._captured(table), key, values=values)

    def quarantine(self, tables: Sequence[str] | None = None) -> Sequence[Queue]:
        """What waits because a value did not fit its cast, for each of the tables (patterns; default: all).

        Works without the source, and while another process runs the pipeline.
        """
        from headwater.quarantine.rows import look

        found = [look(self.parts.lake, table) for table in self._cast_tables(tables)]
        return [queue for queue in found if queue is not None]

    def waiting(self, table: str, keys: Sequence[str] = (), limit: int = 1000) -> Sequence[Waiting]:
        """The first rows of a table that wait, in the order of the log; `keys` as `explain` takes them."""
        from headwater.quarantine.rows import waiting_rows

        return waiting_rows(self.parts.lake, self._captured(table), keys, limit)

    def retry(
        self, tables: Sequence[str] | None = None, sinks: Sequence[Sink] = (), *, build: bool = True
    ) -> RunRecord:
        """Fold the tables whose casts changed again from the raw log, and build; the source is not read.

        What fits now comes in as if it always had; what still does not fit goes on waiting.
        """
        from headwater.casting import recast

        with self._holding(sinks) as runner:
            chosen = self._cast_tables(tables)
            return runner.fold_again("retry", chosen, recast(self.parts, chosen), build=build)

    def give_up(
        self, table: str, keys: Sequence[str] = (), sinks: Sequence[Sink] = (), *, build: bool = True
    ) -> RunRecord:
        """Take the waiting rows of a table (or of these keys) in, with NULL for values that do not fit.

        The source's text of each stays beside it, in `_hw_text`.
        """
        from headwater.quarantine.rows import give_up

        chosen = self._captured(table)
        with self._holding(sinks) as runner:
            count = give_up(self.parts.lake, chosen, keys)
            told = f"{chosen}: {count:,} rows given up: NULL in place of what does not fit"
            return runner.fold_again("drop", [chosen], [told] if count else (), build=build)

    @contextmanager
    def _holding(self, sinks: Sequence[Sink]) -> Iterator[Runner]:
        """Hold the pipeline and give a runner that only works on what was captured."""
        from headwater.run import Runner
        from headwater.state import hold

        with hold(self.parts.state, self.config.name) as lease:
            yield Runner(self.parts, self._specs_in_lake(), (), sinks, guard=lease.check)

    def _cast_tables(self, tables: Sequence[str] | None) -> Sequence[TableId]:
        """The captured tables (patterns; default: all) that are cast, or were."""
        known = sorted(self.parts.log.tables())
        chosen = configuration.select(tables, known) if tables else known
        return [t for t in chosen if self.config.spec(t).casts or self.parts.lake.made(t)]

    def dbt_generate(self, *, force: bool = False) -> Generated:
        """Write the dbt models of all tables in the lake into the project; `force` replaces edited ones."""
        from headwater.handoff.dbt import generate, table_models

        specs = {t: s for t, s in self._specs_in_lake().items() if self.parts.lake.mark(t, "changes")}
        staged = {t: self.parts.lake.staged(t) for t in specs}
        models = table_models(staged, specs, self.config.names)
        return generate(Path(self.config.dbt.project), models, self.config, force=force)

    def dbt_diff(self) -> Sequence[str]:
        """What the generated dbt files would change with the columns that the source has now."""
        from headwater.coming import dbt_diff

        return dbt_diff(self.parts, self._specs_in_lake(), ask=True)

    def schema_log(self, table: str | None = None) -> Sequence[SchemaVersion]:
        """Every version of a table's columns (default: of all tables), and what changed."""
        from headwater.review import schema_versions

        tables = [self._captured(table)] if table else sorted(self.parts.log.tables())
        return schema_versions(self.parts.log, self.parts.source.show, tables)

    def schema_diff(self, table: str, since: int | None = None, to: int | None = None) -> Sequence[str]:
        """Two versions of a table's columns as a unified diff; by default the last two."""
        from headwater.review import schema_diff

        return schema_diff(self.schema_log(table), since, to)

    def schema_accept(self, tables: Sequence[str]) -> Sequence[TableId]:
        """Let in, once, what the policies of these tables keep out: columns, a truncate, the loss of a table.

        Returns the tables that moved.
        """
        from headwater.coming import gone_tables
        from headwater.refresh import refresh
        from headwater.state import hold

        chosen = {self._captured(name): Policies() for name in tables}
        specs = {t: replace(self.config.spec(t), policies=p) for t, p in chosen.items()}
        with hold(self.parts.state, self.config.name):
            log, lake = self.parts.log, self.parts.lake
            moved = refresh(log, lake, specs, memory_limit=self.config.memory_limit)
            infos = {i.schema.table: i for i in self.parts.source.tables()}
            gone = [g.table for g in gone_tables(self.parts, infos) if g.table in chosen]
            last = log.last()
            if gone and last is not None:
                log.append((), last.position, last.next_row, released=tuple(gone))
        return sorted({*moved, *gone})

    def dbt_build(self, *, full_refresh: bool = False) -> BuildResult | None:
        """Stage what the lake holds and build the models; None when the warehouse has it all."""
        from headwater.run import Runner
        from headwater.state import hold

        with hold(self.parts.state, self.config.name) as lease:
            runner = Runner(self.parts, self._specs_in_lake(), (), guard=lease.check)
            return runner.build(full_refresh=full_refresh)

    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        """The current rows of a table, as a lazy DuckDB relation (`.pl()`, `.df()`, `.to_arrow_table()`)."""
        return self._reader.rows(self._captured(name), "mirror")

    def history(self, name: str) -> duckdb.DuckDBPyRelation:
        """Every version of every row (SCD2)."""
        return self._reader.rows(self._captured(name), "history")

    def as_of(self, name: str, moment: datetime | str) -> duckdb.DuckDBPyRelation:
        """The rows of a table as they were at a moment (ISO 8601, in UTC unless it says otherwise)."""
        return self._reader.as_of(self._captured(name), moment)

    def changes(self, name: str, since: datetime | str | int | None = None) -> duckdb.DuckDBPyRelation:
        """Every change as a full row by order of the log, after a moment or a `_hw_seq` if given."""
        return self._reader.changes(self._captured(name), since)

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """The answer to a query over `schema.table`, `history.schema.table` and `changes.schema.table`."""
        return self._reader.ask(query, self.parts.log.tables())

    @property
    def _reader(self) -> Reader:
        from headwater.reading import Reader

        # A run gives back the copies of a bucket's files that it took; whoever holds a relation still reads.
        if self._lent is None:
            self._lent = self.parts if self.parts.storage.local else self.parts.apart()
        return Reader(self._lent.lake, self._newest, self.config.memory_limit)

    @contextmanager
    def _running(self, sinks: Sequence[Sink]) -> Iterator[tuple[Runner, Mapping[TableId, TableSpec]]]:
        """Hold the pipeline and give a runner over the tables that can be captured."""
        from headwater.run import Runner
        from headwater.state import hold

        with hold(self.parts.state, self.config.name) as lease:
            infos, notes, refused, leaving = self._choose()
            specs = {i.schema.table: self.config.spec(i.schema.table) for i in infos}
            runner = Runner(
                self.parts,
                specs,
                infos,
                sinks,
                guard=lease.check,
                notes=notes,
                refused=refused,
                leaving=leaving,
            )
            yield runner, specs

    def _choose(
        self,
    ) -> tuple[
        Sequence[TableInfo], Sequence[str], Mapping[TableId, HeadwaterError], Mapping[TableId, TableSpec]
    ]:
        """The chosen tables; one that cannot be captured is left out with a note, or refused if named.

        Tables that are gone come with their errors where their policy is to fail, else with their settings.
        """
        from headwater.casting import cast_problems, recast
        from headwater.coming import gone_tables, refusals, wanted_tables

        every = {i.schema.table: i for i in self.parts.source.tables()}
        infos = choosable(list(every.values()))
        wanted, away = wanted_tables(self.config, infos, gone_tables(self.parts, every))
        refused = refusals(self.config, away)
        wanted = [t for t in wanted if t not in refused]
        named = {configuration.parse_pattern(p).exact for p in self.config.tables}
        notes = [
            f"{g.says}: the lake {'reads it anew' if g.now == g.table else 'keeps what it has of it'}"
            for g in away
            if g.table not in refused
        ]
        for table in wanted:
            if note := infos[table].note:
                if table in named:
                    raise PreflightFailed(f"{table} cannot be captured: {note}", hint="headwater check")
                notes.append(f"{table} is left out: {note}")
        chosen = [infos[t] for t in wanted if not infos[t].note]
        refuse_layouts(self.config, self.parts.lake, chosen)
        state = self.parts.log.tables()
        for info in chosen:
            if unlike := self._unlike(info, state.get(info.schema.table)):
                notes.append(f"{info.schema.table} is read again: {unlike}")
        tables = [i.schema.table for i in chosen]
        notes += recast(self.parts, tables)
        for problem in cast_problems(self.parts, infos.values(), tables):
            raise PreflightFailed(f"{problem.table}: {problem.what}", hint=problem.hint)
        if not chosen:
            raise PreflightFailed("none of the chosen tables can be captured", hint="headwater check")
        leaving = [g.table for g in away if g.table not in refused and g.table not in every]
        return chosen, notes, refused, {t: self.config.spec(t) for t in leaving}

    def _intend(self, info: TableInfo, known: TableState | None) -> tuple[str, str]:
        """What a run would do with a table, and why."""
        if info.note:
            return "skip", info.note
        if not info.logged:
            return "load", f"{info.kind}: read whole with each run"
        if known is None and info.schema.loaded == SKIPPED:
            return "follow", "its first load is skipped"
        if known is None or not known.complete:
            return "load", "new" if known is None else "its load did not end"
        if unlike := "its columns changed" if known.reload else self._unlike(info, known):
            return "reload", unlike
        recast = is_recast(self.parts.lake, self.config.spec(info.schema.table))
        return "follow", "captured; other casts, so it is folded again" if recast else "captured"

    def _unlike(self, info: TableInfo, state: TableState | None) -> str:
        """How the table is copied otherwise now than the newest stored rows were."""
        if state is None or state.schema == info.schema.fingerprint() or not info.logged:
            return ""
        before, now = self.parts.log.schema(info.schema.table, state.schema), info.schema
        if masks := changed(before, now):
            return (
                f"other masks for {', '.join(masks)} than in what is stored, and what is stored keeps the"
                " ones it has (docs/masks.md)"
            )
        if is_stale(before, now):
            return "other rows are chosen than those stored (docs/tables.md)"
        if (before.key, before.key_chosen) != (
            now.key,
            now.key_chosen,
        ) and now.key_chosen | before.key_chosen:
            return f"its key is now ({', '.join(now.key)})"
        return ""

    def _captured(self, name: str) -> TableId:
        """The captured table a name means: `schema.table`, quoted where needed, or a unique last part."""
        known = sorted(self.parts.log.tables())
        if "." not in name:
            alone = [t for t in known if t.name == name]
            if len(alone) == 1:
                return alone[0]
            name = f"*.{name}"
        pattern = configuration.parse_pattern(name)
        found = [t for t in known if pattern.fits(t)]
        if len(found) != 1:
            hint = "headwater plan   (names the tables)" if known else "headwater run"
            raise ConfigError(f"{name} means {len(found) or 'none'} of the captured tables", hint=hint)
        return found[0]

    def _newest(self, table: TableId) -> TableSchema:
        log, lake = self.parts.log, self.parts.lake.schema(table, "changes")
        newest = log.schema(table, log.tables()[table].schema)
        left_out = {c.name for c in lake.left_out} if lake else ()
        if not left_out:
            return newest
        return replace(newest, columns=tuple(c for c in newest.columns if c.name not in left_out))

    @contextmanager
    def _lake_relations(self) -> Iterator[Relation]:
        lake = self.parts.lake
        with lake.connect(self.config.memory_limit) as con:
            yield lambda t: (lake.relation(con, t, empty=self._newest(t)), con)

    @contextmanager
    def _warehouse_relations(self) -> Iterator[Relation | None]:
        """The models of current rows in the warehouse; None when there is no warehouse."""
        import duckdb

        from headwater.handoff.build import Dbt

        warehouse = self.config.warehouse
        if warehouse is None:
            yield None
            return
        if not Path(warehouse.path).exists():
            yield lambda _: None
            return
        with duckdb.connect(warehouse.path, read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            there = set(con.execute("SELECT schema_name, view_name FROM duckdb_views()").fetchall())
            places = Dbt(self.config, Path(self.config.dbt.project)).built().places()

            def find(table: TableId) -> tuple[str, DuckDBPyConnection] | None:
                model = self._model(self._newest(table))
                place = places.get(model.current, (warehouse.schema, model.relations[model.current]))
                return (f"{quote(place[0])}.{quote(place[1])}", con) if place in there else None

            yield find

    def _model(self, schema: TableSchema) -> TableModel:
        from headwater.handoff.tables import table_model

        return table_model(schema, self.config.spec(schema.table), self.config.names)

    def _specs_in_lake(self) -> Mapping[TableId, TableSpec]:
        return {t: self.config.spec(t) for t in sorted(self.parts.log.tables())}
