"""Overview: what a run would do, where a pipeline stands, and whether it can run. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headwater import config as configuration
from headwater.assessing import find_problems, held_tables
from headwater.casting import cast_problems, stale_casts
from headwater.choosing import choosable, intend
from headwater.coming import gone_tables, wanted_tables
from headwater.deliver import Parts
from headwater.differences import differences
from headwater.errors import SourceError
from headwater.formats.told import check_formats, standing
from headwater.guard import LogGuard, Look
from headwater.handoff.outlook import Outlook
from headwater.layouts import Preview, check_layouts, look_ahead
from headwater.masking.rules import describe
from headwater.model import Finding, TableId
from headwater.naming import lake_folder
from headwater.quarantine.rows import count_waiting
from headwater.state import holder, last_runs

if TYPE_CHECKING:
    from headwater.forecast import Forecast
    from headwater.formats.told import ViewStatus
    from headwater.state import RunRecord

#: Up to so many tables, `status` and `plan` look into the lake of each.
_LOOKS = 200


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
    held   whether its handoff is held back, as its data is not right
    """

    table: TableId
    epoch: int
    complete: bool
    columns: int
    keyless: bool
    tail: int | None = None
    waiting: int | None = None
    views: Sequence[ViewStatus] = ()
    held: bool = False


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


def preflight(parts: Parts, tables: Sequence[str] | None = None) -> Sequence[Finding]:
    """The preflight over the chosen tables: source, casts, folders, formats, names."""
    known = choosable(parts.source.tables())
    infos = list(known.values())
    wanted = configuration.select(tables or parts.config.tables, list(known))
    copied = configuration.select(parts.config.tables, list(known)) if tables else wanted
    names = Outlook(parts.config, [known[t].schema for t in copied if not known[t].note]).findings()
    problems = [*cast_problems(parts, infos, wanted), *stale_casts(parts, infos, wanted)]
    casts = [Finding("fail", "cast", p.what, p.hint, p.table) for p in problems]
    chosen = [i for i in infos if i.schema.table in set(wanted)]
    layouts = check_layouts(parts.config, parts.lake, chosen)
    formats = check_formats(parts.config, [i.schema for i in chosen])
    rules = find_problems(parts, chosen) if parts.config.judges else []
    named = {configuration.parse_pattern(p).exact for p in [*parts.config.tables, *(tables or ())]}
    left_out = {t for t in wanted if known[t].note} - named
    source = [_ease(f) if f.table in left_out else f for f in parts.source.check(wanted)]
    return [*source, *casts, *layouts, *formats, *rules, *names]


def _ease(finding: Finding) -> Finding:
    """What a table lacks that only patterns name: a run leaves it out and goes on."""
    if finding.level != "fail":
        return finding
    return replace(finding, level="warn", found=f"{finding.found}; runs leave the table out")


def make_plan(parts: Parts, dbt_diff: Callable[[], Sequence[str]]) -> Plan:
    """What `run` would do now; `dbt_diff` is asked where there are not too many tables for it."""
    every = {i.schema.table: i for i in parts.source.tables()}
    infos = choosable(list(every.values()))
    wanted, away = wanted_tables(parts.config, infos, gone_tables(parts, every))
    state, last = parts.log.tables(), parts.log.last()
    outlook = Outlook(parts.config, [infos[t].schema for t in wanted if not infos[t].note])
    altered = [t for t in wanted if t in state and state[t].schema != infos[t].schema.fingerprint()]
    captured = {t: parts.log.schema(t, state[t].schema) for t in altered}
    evolved = {s.table: s for s in parts.source.evolved(captured)} if captured else {}
    rows = []
    for table in wanted:
        info, known = infos[table], state.get(table)
        action, why = intend(parts, info, known)
        spec, masks = parts.config.spec(table), tuple(describe(info.schema))
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
    looks = parts.config.warehouse and last and len(rows) <= _LOOKS
    return Plan(rows, behind, names, dbt_diff() if looks else ())


def make_status(parts: Parts) -> Status:
    """Where the pipeline stands; works while another process runs it, and without the source."""
    last = parts.log.last()
    look, behind, failed = Look({}, None), None, ""
    try:
        look = LogGuard(parts.source, parts.state, parts.config.name).look()
        behind = parts.source.behind(last.position) if last else None
    except SourceError as away:
        failed = str(away)
    known = parts.log.tables()
    schemas = ((t, s, parts.log.schema(t, s.schema)) for t, s in sorted(known.items()))
    looks = len(known) <= _LOOKS
    held = held_tables(parts)
    return Status(
        pipeline=parts.config.name,
        store=parts.config.store,
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
                count_waiting(parts.lake, t) if looks and parts.config.spec(t).casts else None,
                standing(parts.formats, parts.lake, parts.config.spec(t)) if looks else (),
                t in held,
            )
            for t, s, c in schemas
        ],
        runs=last_runs(parts.state, parts.config.name, 5),
        holder=holder(parts.state, parts.config.name),
    )
