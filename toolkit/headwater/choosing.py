"""Choosing: the tables that a run takes, what it would do with each, and what it must not touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater import config as configuration
from headwater.casting import cast_problems, recast
from headwater.coming import gone_tables, refusals, wanted_tables
from headwater.config import TableSpec
from headwater.deliver import Parts
from headwater.errors import HeadwaterError, PreflightFailed
from headwater.filters.rules import is_stale
from headwater.layouts import refuse_layouts
from headwater.masking.rules import changed
from headwater.model import SKIPPED, TableId, TableInfo
from headwater.quarantine.rows import is_recast
from headwater.raw import TableState


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a run works on.

    notes    what to say of tables that are left out, or read or folded again
    refused  tables that must not be touched, with the error that says why
    leaving  tables that are gone from the source, with their settings: the last of their changes is taken in
    """

    infos: Sequence[TableInfo]
    notes: Sequence[str]
    refused: Mapping[TableId, HeadwaterError]
    leaving: Mapping[TableId, TableSpec]


def choosable(infos: Sequence[TableInfo]) -> dict[TableId, TableInfo]:
    """What patterns choose from: all but views and the like that nobody asked for."""
    return {i.schema.table: i for i in infos if i.logged or not i.note}


def choose(parts: Parts) -> Chosen:
    """The chosen tables; one that cannot be captured is left out with a note, or refused if named.

    Tables that are gone come with their errors where their policy is to fail, else with their settings.
    Raises PreflightFailed.
    """
    every = {i.schema.table: i for i in parts.source.tables()}
    infos = choosable(list(every.values()))
    wanted, away = wanted_tables(parts.config, infos, gone_tables(parts, every))
    refused = refusals(parts.config, away)
    wanted = [t for t in wanted if t not in refused]
    named = {configuration.parse_pattern(p).exact for p in parts.config.tables}
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
    refuse_layouts(parts.config, parts.lake, chosen)
    state = parts.log.tables()
    for info in chosen:
        if unlike := unlike_stored(parts, info, state.get(info.schema.table)):
            notes.append(f"{info.schema.table} is read again: {unlike}")
    tables = [i.schema.table for i in chosen]
    notes += recast(parts, tables)
    for problem in cast_problems(parts, infos.values(), tables):
        raise PreflightFailed(f"{problem.table}: {problem.what}", hint=problem.hint)
    if not chosen:
        raise PreflightFailed("none of the chosen tables can be captured", hint="headwater check")
    leaving = [g.table for g in away if g.table not in refused and g.table not in every]
    return Chosen(chosen, notes, refused, {t: parts.config.spec(t) for t in leaving})


def intend(parts: Parts, info: TableInfo, known: TableState | None) -> tuple[str, str]:
    """What a run would do with a table, and why."""
    if info.note:
        return "skip", info.note
    if not info.logged:
        return "load", f"{info.kind}: read whole with each run"
    if known is None and info.schema.loaded == SKIPPED:
        return "follow", "its first load is skipped"
    if known is None or not known.complete:
        return "load", "new" if known is None else "its load did not end"
    if unlike := "its columns changed" if known.reload else unlike_stored(parts, info, known):
        return "reload", unlike
    recast = is_recast(parts.lake, parts.config.spec(info.schema.table))
    return "follow", "captured; other casts, so it is folded again" if recast else "captured"


def unlike_stored(parts: Parts, info: TableInfo, state: TableState | None) -> str:
    """How the table is copied otherwise now than the newest stored rows were."""
    if state is None or state.schema == info.schema.fingerprint() or not info.logged:
        return ""
    before, now = parts.log.schema(info.schema.table, state.schema), info.schema
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
