"""`Pipeline`: the verbs of the command line, in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from headwater import config as configuration
from headwater.config import Config, Policies, TableSpec
from headwater.errors import ConfigError
from headwater.model import Finding, TableId, TableInfo, TableSchema
from headwater.wiring import open_parts

if TYPE_CHECKING:
    import duckdb

    from headwater.certificate import Certificate
    from headwater.comparing import Comparing
    from headwater.deliver import Parts
    from headwater.events import Sink
    from headwater.explain import Step
    from headwater.handoff.build import BuildResult
    from headwater.handoff.dbt import Generated
    from headwater.lake import Kind
    from headwater.overview import Plan, Status
    from headwater.paging import Page
    from headwater.pulse import Pulse
    from headwater.quality import QualityResult
    from headwater.quarantine.rows import Queue, Waiting
    from headwater.reading import Reader
    from headwater.review import SchemaVersion
    from headwater.run import Runner
    from headwater.state import RunRecord
    from headwater.verify import VerifyReport


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
        """The preflight over the chosen tables: source, casts, folders, formats, names. Changes nothing."""
        from headwater.overview import preflight

        return preflight(self.parts, tables)

    def tables(self) -> Sequence[TableInfo]:
        """All tables of the source that could be captured."""
        return self.parts.source.tables()

    def plan(self) -> Plan:
        """What `run` would do now; changes nothing."""
        from headwater.overview import make_plan

        return make_plan(self.parts, self.dbt_diff)

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
        with self._running(sinks) as (runner, specs):
            chosen = configuration.select(tables or ["*.*"], list(specs))
            return self._comparing(runner).verify(chosen)

    def certify(
        self,
        tables: Sequence[str] | None = None,
        *,
        folder: str | Path | None = None,
        repair: bool = False,
        sinks: Sequence[Sink] = (),
    ) -> Certificate:
        """Compare as `verify` does, and the lake with itself too; write down what was found, for others.

        folder  where the certificate goes, or s3://bucket/prefix; default: `certificates` beside the
                pipeline file
        repair  put right what can be put right, key by key, and compare again
        """
        from headwater.certificate import place_of
        from headwater.certificate.certify import certify

        place = place_of(self.config, folder, self.path)
        with place.storage, self._running(sinks) as (runner, specs):
            chosen = configuration.select(tables or ["*.*"], list(specs))
            return certify(self._comparing(runner), specs, chosen, place, repair=repair)

    def _comparing(self, runner: Runner) -> Comparing:
        from headwater.comparing import Comparing

        return Comparing(runner, self._newest)

    def quality(
        self, tables: Sequence[str] | None = None, *, full: bool = False, sinks: Sequence[Sink] = ()
    ) -> QualityResult:
        """Judge tables (patterns; default: all): what waits, else the last batch; `full`: all of their rows.

        Changes nothing of what is handed off. Works while another process runs the pipeline, and without
        the source. Raises ConfigError without the extra `quality`.
        """
        from headwater.assessing import assess

        return assess(self.parts, tables, full=full, sinks=sinks)

    def quality_past(self) -> Sequence[QualityResult]:
        """The newest judgements of runs and of `quality`, oldest first."""
        from headwater.quality.keep import load_past

        return load_past(self.parts.storage)

    def quality_suites(self, folder: str | Path, tables: Sequence[str] | None = None) -> Sequence[Path]:
        """Write the rules of tables (patterns; default: all) as suites of Great Expectations; the files."""
        from headwater.assessing import suites

        return suites(self.parts, tables, Path(folder))

    def quality_docs(self, folder: str | Path, result: QualityResult) -> Sequence[Path]:
        """Write a judgement as Data Docs, which need the network when they are read; the files."""
        from headwater.assessing import data_docs

        return data_docs(self.parts, result, Path(folder))

    def quality_accept(self, tables: Sequence[str]) -> Sequence[TableId]:
        """Let what is held back of tables (patterns) through with the next run, once; returns them."""
        from headwater.assessing import let_through

        return let_through(self.parts, tables)

    def status(self) -> Status:
        """Where the pipeline stands; works while another process runs it, and without the source."""
        from headwater.overview import make_status

        return make_status(self.parts)

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

    def explain(self, table: str, key: str | Mapping[str, str], *, values: bool = False) -> Sequence[Step]:
        """Every change of one key, with its position, file, lake version, and the run that built it."""
        from headwater.explain import explain
        from headwater.memo import known_lake
        from headwater.state import KEEP_RUNS, last_runs

        parts, chosen = self.parts, self._captured(table)
        lake = known_lake(parts.storage)
        runs = [r for r in last_runs(parts.state, self.config.name, KEEP_RUNS) if r.lake == lake]
        return explain(parts.log, parts.lake, chosen, key, values=values, runs=runs)

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

    def schema_held(self, table: str) -> Sequence[str]:
        """What the policies of a table keep out of the lake now, in lines; `schema_accept` lets it in."""
        from headwater.coming import gone_tables, refusals
        from headwater.review import held_back

        chosen, parts = self._captured(table), self.parts
        spec = self.config.spec(chosen)
        said = held_back(parts.log, parts.lake, spec)
        if "fail" in (spec.policies.on_drop, spec.policies.on_rename):
            infos = {i.schema.table: i for i in parts.source.tables()}
            refused = refusals(self.config, [g for g in gone_tables(parts, infos) if g.table == chosen])
            said += [str(failed) for failed in refused.values()]
        return said

    def schema_accept(self, tables: Sequence[str]) -> Sequence[TableId]:
        """Let in, once, what the policies of these tables keep out: columns, a truncate, the loss of a table.

        So do casts that are right as they are, though columns are called otherwise now. Returns the tables
        that moved.
        """
        from headwater.coming import gone_tables
        from headwater.refresh import refresh
        from headwater.state import hold

        chosen = {self._captured(name): Policies() for name in tables}
        specs = {t: replace(self.config.spec(t), policies=p) for t, p in chosen.items()}
        with hold(self.parts.state, self.config.name):
            log, lake = self.parts.log, self.parts.lake
            moved = refresh(log, lake, specs, memory_limit=self.config.memory_limit, accept=True)
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

    def page(
        self,
        name: str,
        moment: datetime | str | None = None,
        *,
        kind: Kind = "mirror",
        first: int = 0,
        most: int = 50,
    ) -> Page:
        """Some rows of a table as text, to look at: now, or as of a moment; see `paging.Page`."""
        return self._reader.page(self._captured(name), kind, moment, first=first, most=most)

    def recent_keys(self, name: str, most: int = 12) -> Sequence[str]:
        """The keys of the rows of a table that changed last, as `explain` takes them."""
        return self._reader.keys(self._captured(name), most)

    def schema(self, name: str) -> TableSchema:
        """The newest columns and key of a captured table."""
        return self._newest(self._captured(name))

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
        from headwater.assessing import prepare
        from headwater.choosing import choose
        from headwater.run import Runner
        from headwater.state import hold

        with hold(self.parts.state, self.config.name) as lease:
            chosen = choose(self.parts)
            specs = {i.schema.table: self.config.spec(i.schema.table) for i in chosen.infos}
            prepare(self.parts, specs, chosen.infos)
            runner = Runner(
                self.parts, specs, chosen.infos, sinks, guard=lease.check,
                notes=chosen.notes, refused=chosen.refused, leaving=chosen.leaving,
            )  # fmt: skip
            yield runner, specs

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

    def _specs_in_lake(self) -> Mapping[TableId, TableSpec]:
        return {t: self.config.spec(t) for t in sorted(self.parts.log.tables())}
