"""Assessing: what of a pipeline's quality is asked for before, beside and after runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from headwater import config as configuration
from headwater.config import TableSpec
from headwater.deliver import Parts, tell_judged
from headwater.errors import ConfigError, SourceError
from headwater.events import Event, Sink, tell
from headwater.memo import lake_id
from headwater.model import Finding, Reference, TableId, TableInfo
from headwater.quality import QualityResult
from headwater.quality.memory import Accepted, load_accepted, load_judged, save_references
from headwater.state import RunRecord, append_run
from headwater.tally import count_judged


def prepare(parts: Parts, specs: Mapping[TableId, TableSpec], infos: Iterable[TableInfo]) -> None:
    """Before a run: refuse rules that cannot be judged, and ask the source for its foreign keys.

    Raises ConfigError before anything was read.
    """
    if any(spec.quality.judged for spec in specs.values()):
        from headwater.quality.gate import refuse_wrong

        refuse_wrong(specs.values(), {i.schema.table: i.schema for i in infos})
        save_references(parts.state, parts.config.name, parts.source.references())


#: The foreign keys of the source, and what a person lets through.
Rules = tuple[Sequence[Reference], Mapping[TableId, Accepted]]


def rules_of(parts: Parts) -> Rules:
    """Ask the source for its foreign keys again, and the state for what was accepted; for a follower."""
    name, found = parts.config.name, parts.look.references()
    save_references(parts.state, name, found)
    return sorted(found, key=repr), load_accepted(parts.state, name, lake_id(parts.storage))


def find_problems(parts: Parts, infos: Sequence[TableInfo]) -> list[Finding]:
    """For the preflight: what users expect that cannot be judged."""
    from headwater.quality.gate import refuse_wrong

    found = []
    for info in infos:
        spec = parts.config.spec(info.schema.table)
        try:
            refuse_wrong([spec], {info.schema.table: info.schema})
        except ConfigError as failed:
            found.append(Finding("fail", "quality", str(failed), failed.hint, info.schema.table))
            if not spec.quality.expect:
                break  # the library is missing, for every table
    return found


def held_tables(parts: Parts) -> frozenset[TableId]:
    """The tables whose handoff waits for their data to be right."""
    if not parts.config.judges or parts.log.last() is None:
        return frozenset()
    held = load_judged(parts.state, parts.config.name, lake_id(parts.storage)).held
    return frozenset(t for t in held if parts.config.spec(t).quality.gate == "block")


def assess(parts: Parts, tables: Sequence[str] | None, *, full: bool, sinks: Sequence[Sink]) -> QualityResult:
    """Judge tables (patterns; default: all) now, whether runs judge them or not; adds a run record.

    Works while another process runs the pipeline, and without the source: then by the foreign keys known.
    """
    from headwater.quality.gate import Gate

    began, name = datetime.now(UTC), parts.config.name
    specs = _chosen(parts, tables)
    with suppress(SourceError):
        save_references(parts.state, name, parts.source.references())
    result = Gate(parts.place).look(specs, uuid.uuid4().hex[:12], full=full)
    tell_judged(lambda kind, table, data: tell(sinks, Event(kind, name, table, data)), result)
    failed = result.verdict == "failed"
    record = RunRecord(
        run_id=result.run_id,
        pipeline=name,
        mode="quality",
        started_at=began,
        ended_at=datetime.now(UTC),
        outcome="failed" if failed else "done",
        error=f"{result.failed} rules failed" if failed else "",
        hint="headwater quality" if failed else "",
        quality=count_judged(result),
    )
    append_run(parts.state, replace(record, warnings=tuple(parts.state.warnings)))
    return result


def suites(parts: Parts, tables: Sequence[str] | None, folder: Path) -> Sequence[Path]:
    """Write the rules of tables (patterns; default: all) into a folder; returns the files."""
    from headwater.quality.export import write_suites
    from headwater.quality.gate import Gate

    return write_suites(folder, Gate(parts.place).suites(_chosen(parts, tables)))


def data_docs(parts: Parts, result: QualityResult, folder: Path) -> Sequence[Path]:
    """Write what was judged as Data Docs; returns the files, the index first."""
    from headwater.quality.export import write_data_docs
    from headwater.quality.gate import Gate

    specs = {t.table: parts.config.spec(t.table) for t in result.tables}
    return write_data_docs(folder, result, Gate(parts.place).suites(specs))


def _chosen(parts: Parts, tables: Sequence[str] | None) -> Mapping[TableId, TableSpec]:
    known = sorted(t for t, state in parts.log.tables().items() if state.complete)
    if not known:
        raise ConfigError(f"pipeline {parts.config.name} has read no table yet", hint="headwater run")
    return {t: parts.config.spec(t) for t in configuration.select(tables or ["*.*"], known)}


def let_through(parts: Parts, tables: Sequence[str]) -> Sequence[TableId]:
    """Let what is held back of tables (patterns) through with the next run; returns those that were held."""
    from headwater.quality.gate import accept

    known = sorted(parts.log.tables())
    return sorted(accept(parts.place, configuration.select(tables, known)))
