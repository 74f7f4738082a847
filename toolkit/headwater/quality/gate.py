"""The gate: judges what is not handed off yet, remembers what it let through, and says what has to wait.

A table that waits keeps its place: the next run judges all that came since, as the rows are then. So a table
goes on by itself when its data is right again, and what a person accepts is let through once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Literal

from headwater.config import TableSpec
from headwater.errors import ConfigError, HeadwaterError
from headwater.failpoints import reach
from headwater.fold import retyped
from headwater.memo import lake_id
from headwater.model import TableId, TableSchema
from headwater.quality import Check, QualityResult, TableResult
from headwater.quality.export import Suite, make_suite
from headwater.quality.gx import Judge
from headwater.quality.keep import keep
from headwater.quality.memory import (
    Accepted,
    Judged,
    Known,
    load_accepted,
    load_judged,
    load_known,
    load_references,
    save_judged,
    save_known,
)
from headwater.quality.place import Place
from headwater.quality.refer import Parent, reference_rules
from headwater.quality.rows import Rows, open_batch, open_table
from headwater.quality.rules import (
    Counted,
    Rule,
    age_rule,
    contract_rule,
    count,
    schema_rules,
    seen_rules,
    type_rule,
    volume_rule,
)
from headwater.quality.seen import seen_columns
from headwater.quality.wanted import Wanted, judge, understand, unique_rules

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from headwater.lake import Held
    from headwater.lake.delta import Lake


@dataclass(slots=True)
class _Opened:
    """One table about to be judged. What went wrong on the way is a check that failed."""

    table: TableId
    spec: TableSpec
    known: Known
    changes: Held | None = None
    rows: Rows | None = None
    wanted: Sequence[Wanted] = ()
    rules: Sequence[Rule] = ()
    checks: list[Check] = field(default_factory=list)
    counted: Counted | None = None
    seconds: float = 0.0

    @contextmanager
    def catching(self) -> Iterator[None]:
        """What keeps this table from being judged is a failure of its own, and no other's."""
        import duckdb

        began = monotonic()
        try:
            yield
        except HeadwaterError as failed:
            self._refuse(f"{failed}; try: {failed.hint}" if failed.hint else str(failed))
        except duckdb.Error as failed:
            # Its text may hold the value of a cell.
            self._refuse(f"DuckDB: {type(failed).__name__}")
        self.seconds += monotonic() - began

    def _refuse(self, why: str) -> None:
        broken = Check("judging", (), "schema", "critical", "the table can be judged", "unjudged", why=why)
        self.checks = [*self.checks, broken]


class Gate:
    """Judges the tables of one pipeline; for one thread."""

    def __init__(self, place: Place, still: AbstractContextManager[object] | None = None) -> None:
        """While `still` is held, nobody folds: what is opened then of several tables is as of one moment."""
        self._place = place
        self._still = still or nullcontext()
        self._judge: Judge | None = None
        self._lake = ""

    def pass_on(
        self,
        specs: Mapping[TableId, TableSpec],
        marks: Mapping[TableId, str],
        run_id: str,
        at_once: Callable[[], object] = lambda: None,
    ) -> tuple[QualityResult | None, frozenset[TableId]]:
        """Judge the tables with news and those that wait; returns the result, and what has to wait.

        marks    where each table stands; one that stands where it was let through is not looked at
        at_once  called where something is judged, while nobody folds: sees exactly what is judged
        """
        place, lake = self._place, self._known_lake()
        judged = load_judged(place.state, place.pipeline, lake)
        specs = {t: s for t, s in specs.items() if s.quality.judged}
        blocked = {t for t, s in specs.items() if s.quality.gate == "block"}
        due = {t for t in specs if t in marks and judged.marks.get(t) != marks[t]}
        due |= {t for t in judged.held if t in specs}
        aged = {t for t, s in specs.items() if s.quality.max_age and t in marks} - due
        if not due and not aged:
            return None, frozenset()
        accepted = load_accepted(place.state, place.pipeline, lake)
        with place.lake.connect() as con:
            with self._still:
                at_once()
                known = {t: load_known(place.state, place.pipeline, lake, t) for t in sorted(due | aged)}
                opened = [self._open(con, specs[t], known[t], accepted.get(t), fresh=t in due) for t in known]
            self._judge_all(con, opened)
        held = {o.table for o in opened if o.table in blocked & due and any(c.holds for c in o.checks)}
        result = self._result(run_id, "batch", opened, held)
        reach("quality.before")
        self._remember(judged, [o for o in opened if o.table in due], held, marks)
        if any(t.checks for t in result.tables):
            result = keep(place.storage, result)
        reach("quality.after")
        return result, frozenset(held)

    def look(self, specs: Mapping[TableId, TableSpec], run_id: str, *, full: bool) -> QualityResult:
        """Judge tables for a person; nothing is let through. All rows, or what waits, else the last batch."""
        place, lake = self._place, self._known_lake()
        judged = load_judged(place.state, place.pipeline, lake)
        with place.lake.connect() as con:
            opened = []
            for table, spec in specs.items():
                known = load_known(place.state, place.pipeline, lake, table)
                if not full and table not in judged.held:
                    known = replace(known, passed=known.before)
                opened.append(self._open(con, spec, known, None, fresh=True, full=full))
            self._judge_all(con, opened)
        held = {o.table for o in opened if o.table in judged.held}
        return keep(place.storage, self._result(run_id, "table" if full else "batch", opened, held))

    def suites(self, specs: Mapping[TableId, TableSpec]) -> Mapping[TableId, Suite]:
        """The rules that tables would be judged by now, as suites of Great Expectations."""
        place, lake = self._place, self._known_lake()
        with place.lake.connect() as con:
            opened = [
                self._open(
                    con, spec, load_known(place.state, place.pipeline, lake, t), None, fresh=True, full=True
                )
                for t, spec in specs.items()
            ]
        return {o.table: make_suite(o.table, o.rules, o.spec.quality.expect) for o in opened}

    def _known_lake(self) -> str:
        self._lake = self._lake or lake_id(self._place.storage)
        return self._lake

    def _open(  # noqa: PLR0913
        self,
        con: DuckDBPyConnection,
        spec: TableSpec,
        known: Known,
        accepted: Accepted | None,
        *,
        fresh: bool,
        full: bool = False,
    ) -> _Opened:
        """Find the rows to judge (none: nothing came) and the rules; SQL names files, so it is as of now."""
        lake = self._place.lake
        opened = _Opened(spec.table, spec, known)
        with opened.catching():
            changes = opened.changes = lake.open(spec.table, "changes")
            if full:
                opened.rows = open_table(lake, con, spec.table, self._place.newest(spec.table))
            elif changes is not None and fresh:
                made = lake.made(spec.table)
                since = known.passed if known.made == made else -1
                if accepted is not None and accepted.made == made:
                    since = max(since, accepted.upto)
                if lake.highest(changes) > since:
                    opened.rows = open_batch(lake, con, changes, since)
            opened.rules = self._rules(con, opened)
        return opened

    def _rules(self, con: DuckDBPyConnection, opened: _Opened) -> list[Rule]:
        rows, spec, known = opened.rows, opened.spec, opened.known
        rules: list[Rule] = []
        if spec.quality.max_age:
            newest = self._newest_change(con, opened)
            rules.append(age_rule(spec.quality.max_age, newest))
        if rows is None:
            return rules
        opened.wanted = understand(rows.schema, spec.quality.expect)
        wanted = retyped(self._place.newest(spec.table), spec.casts)
        rules += [*schema_rules(rows), type_rule(rows, wanted, spec), *unique_rules(rows, opened.wanted)]
        if known.seen.columns:
            rules += [contract_rule(rows, known.seen), *seen_rules(rows, known.seen)]
        references = load_references(self._place.state, self._place.pipeline)
        return rules + reference_rules(rows, spec, references, self._parents(con))

    def _newest_change(self, con: DuckDBPyConnection, opened: _Opened) -> datetime | None:
        """The commit time of the newest change, which is in the file with the highest number."""
        changes, lake = opened.changes, self._place.lake
        if changes is None or not changes.files.num_rows:
            return None
        paths, names = changes.files["path"].to_pylist(), changes.files.column_names
        highest = changes.files["max._hw_seq"].to_pylist() if "max._hw_seq" in names else [None]
        if None not in highest:
            paths = [paths[highest.index(max(highest))]]
        found: datetime | None = con.execute(
            f"SELECT epoch_us(max(_hw_at)) FROM {lake.scan(changes, paths)}"
        ).fetchall()[0][0]
        return None if found is None else datetime.fromtimestamp(found / 1e6, UTC)  # type: ignore[operator]

    def _parents(self, con: DuckDBPyConnection) -> Callable[[TableId], Parent | None]:
        place = self._place

        @cache
        def find(table: TableId) -> Parent | None:
            if table not in place.log.tables() or not place.log.tables()[table].complete:
                return None
            newest = place.newest(table)
            schema = place.lake.schema(table, "changes") or newest
            schema = replace(schema, where=newest.where, loaded=newest.loaded)
            return Parent(schema, place.lake.relation(con, table, "mirror", newest))

        return find

    def _judge_all(self, con: DuckDBPyConnection, opened: Sequence[_Opened]) -> None:
        """Count table by table, judge the numbers of all at once, then what users expect of each."""
        self._judge = self._judge or Judge()
        for one in opened:
            with one.catching():
                one.checks = [*one.checks, *self._count(con, one)]
        self._settle(opened)
        for one in opened:
            others = [w for w in one.wanted if w.check.rule not in _COUNTED]
            if one.rows is not None and one.counted is not None and others:
                with one.catching():
                    one.checks = [*one.checks, *judge(con, one.rows, others, self._judge)]

    def _count(self, con: DuckDBPyConnection, one: _Opened) -> Sequence[Check]:
        if one.rows is None:
            told = [r for r in one.rules if r.told is not None]
            return [replace(r.check, rows=r.told[1], unexpected=r.told[0]) for r in told if r.told]
        one.counted = count(con, one.rows, one.rules, look=True)
        later = one.rows.scope == "batch" and one.rows.since >= 0
        volume = volume_rule(one.counted.rows, one.known.seen) if later else None
        if volume is None:
            return one.counted.checks
        return [*one.counted.checks, replace(volume[0], rows=one.counted.rows, unexpected=volume[1])]

    def _settle(self, opened: Sequence[_Opened]) -> None:
        """Let Great Expectations judge the numbers."""
        assert self._judge is not None
        counted = [(o, n) for o in opened for n, c in enumerate(o.checks) if c.outcome == "passed"]
        told = self._judge.counts([o.checks[n].unexpected for o, n in counted])
        for (one, n), its in zip(counted, told, strict=True):
            checks = one.checks
            if its.error:
                checks[n] = replace(checks[n], outcome="unjudged", why=its.error)
            elif not its.success:
                checks[n] = replace(checks[n], outcome="failed")

    def _result(
        self,
        run_id: str,
        scope: Literal["batch", "table"],
        opened: Iterable[_Opened],
        held: Collection[TableId],
    ) -> QualityResult:
        tables = tuple(
            TableResult(
                o.table, o.spec.quality.gate or "off", scope, o.counted.rows if o.counted else 0,
                tuple(o.checks), o.table in held, round(o.seconds, 3),
            )
            for o in opened
        )  # fmt: skip
        return QualityResult(run_id, self._place.pipeline, datetime.now(UTC), tables)

    def _remember(
        self,
        judged: Judged,
        opened: Sequence[_Opened],
        held: Collection[TableId],
        marks: Mapping[TableId, str],
    ) -> None:
        """What was let through, table by table, then where they stand: a stop between judges some again."""
        place = self._place
        for one in opened:
            if one.table not in held and one.changes is not None:
                save_known(place.state, place.pipeline, one.table, _passed(one, place.lake))
        reach("quality.judged")
        through = {o.table: marks[o.table] for o in opened if o.table not in held and o.table in marks}
        tables = {o.table for o in opened}
        waiting = {t: upto for t, upto in judged.held.items() if t not in tables}
        waiting |= {o.table: o.rows.upto if o.rows else o.known.passed for o in opened if o.table in held}
        kept = {t: m for t, m in judged.marks.items() if t not in held}
        now = Judged(judged.lake, {**kept, **through}, waiting)
        if now != judged:
            save_judged(place.state, place.pipeline, now)


#: What users expect and DuckDB counts.
_COUNTED = {"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"}


def _passed(one: _Opened, lake: Lake) -> Known:
    """What is known of a table that was let through."""
    known, rows = one.known, one.rows
    assert one.changes is not None
    known = replace(known, made=lake.made(one.table))
    if rows is None or one.counted is None:
        return replace(known, passed=max(known.passed, lake.highest(one.changes)))
    size = one.counted.rows if rows.since >= 0 else None
    seen = known.seen.merge(seen_columns(rows.schema), one.counted.spans, size)
    return replace(known, passed=rows.upto, before=rows.since, seen=seen)


def accept(place: Place, tables: Sequence[TableId]) -> Mapping[TableId, int]:
    """Let what is held of tables through, once; returns which. Raises ConfigError where none was held."""
    from headwater.quality.memory import save_accepted

    lake = lake_id(place.storage)
    held = load_judged(place.state, place.pipeline, lake).held
    chosen = {t: held[t] for t in tables if t in held}
    if not chosen:
        raise ConfigError("none of these tables is held back", hint="headwater quality")
    made = {t: Accepted(upto, place.lake.made(t)) for t, upto in chosen.items()}
    save_accepted(place.state, place.pipeline, lake, made)
    return chosen


def refuse_wrong(specs: Iterable[TableSpec], schemas: Mapping[TableId, TableSchema]) -> None:
    """Raise ConfigError for what users expect that cannot be judged, and for a library that is missing."""
    from headwater.quality.gx import require

    judged = [s for s in specs if s.quality.judged]
    if judged:
        require()
    for spec in judged:
        if spec.table in schemas:
            understand(retyped(schemas[spec.table], spec.casts), spec.quality.expect)
