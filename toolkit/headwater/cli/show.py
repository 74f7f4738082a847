"""What the commands print: short aligned lines for a person, plain values for `--json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from headwater.printable import printable, span, width
from headwater.printable import size as in_units

if TYPE_CHECKING:
    from headwater.handoff.build import BuildResult
    from headwater.model import Column, Finding, TableId, TableInfo
    from headwater.overview import Plan, Status, TablePlan
    from headwater.quality import Check, QualityResult
    from headwater.quarantine.rows import Queue, Waiting
    from headwater.review import SchemaVersion
    from headwater.state import RunRecord

#: Facts of a source that are bytes.
_BYTES = frozenset({"retained_bytes", "safe_wal_size", "wal_budget", "wal_on_disk"})


@runtime_checkable
class _OwnJson(Protocol):
    def to_json(self) -> Mapping[str, object]: ...


def plain(value: object) -> object:
    """The value as JSON can hold it: dataclasses by field, names and moments as text, never a secret."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, Sequence | frozenset) and not isinstance(value, str):
        return [plain(v) for v in value]
    return _plain_object(value)


def column(one: Column) -> object:
    """A column of the source: what tells columns of the lake apart says nothing of it."""
    told = plain(one)
    assert isinstance(told, dict)
    return {name: value for name, value in told.items() if name not in ("ident", "retired")}


def _plain_object(value: object) -> object:
    from headwater.model import Position, TableId, TableSchema

    match value:
        case datetime():
            text: object = value.isoformat()
        case TableId():
            text = str(value)
        case Position():
            text = value.token
        case TableSchema():
            text = plain({"table": value.table, "key": value.key, "columns": value.columns})
        case _OwnJson():
            text = plain(value.to_json())
        case _ if is_dataclass(value):
            text = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        case _:
            text = str(value)
    return text


def align(rows: Sequence[Sequence[str]], right: str = "") -> list[str]:
    """Rows as lines of aligned cells; `right` names the columns (as digits) that are figures."""
    cells = [[printable(c) for c in row] for row in rows]
    widths = [max(width(row[n]) for row in cells) for n in range(len(cells[0]))] if cells else []
    figures = {int(d) for d in right}
    lines = []
    for row in cells:
        padded = [_pad(c, widths[n], n in figures) for n, c in enumerate(row)]
        lines.append("  ".join(padded).rstrip())
    return lines


def _pad(text: str, to: int, figure: bool) -> str:
    room = " " * (to - width(text))
    return room + text if figure else text + room


def size(count: int | None) -> str:
    """Bytes for a person; "?" when unknown."""
    return "?" if count is None else in_units(count)


def number(count: int | None) -> str:
    """A count with separators; "?" when unknown."""
    return "?" if count is None else f"{count:,}"


def behind(count: int | None) -> str:
    """How far behind the source, in words."""
    if count is None:
        return "how far behind is unknown"
    return "caught up" if count == 0 else f"{size(count)} behind"


def findings(found: Sequence[Finding]) -> list[str]:
    """A preflight: one line for each look, the statements to run under those that need them."""
    marks = {"ok": "ok", "warn": "warn", "fail": "FAIL"}
    lines = []
    for one in found:
        about = f"{one.table}: {one.what}" if one.table else one.what
        lines.append(f"{marks[one.level]:4}  {printable(about)}: {printable(one.found)}")
        lines += [f"      {printable(line)}" for line in one.fix.splitlines()]
    wrong = sum(f.level == "fail" for f in found)
    warned = sum(f.level == "warn" for f in found)
    verdict = f"{wrong} to mend" if wrong else "ready"
    lines.append(f"check: {verdict}" + (f", {warned} to think about" if warned else ""))
    following = "run the statements above, then: headwater check" if wrong else "headwater run"
    return [*lines, f"next: {following}"]


def compared(lines: Sequence[str], *, equal: bool, repaired: bool = False) -> list[str]:
    """What `verify` found, and what to type where the copy is not the source."""
    last = "headwater verify --repair   (puts these keys right; headwater explain TABLE KEY shows why)"
    if repaired:
        last = "headwater resync TABLE   (reads a table again that could not be repaired by key)"
    return [*map(printable, lines), *([] if equal else [f"next: {last}"])]


def versions(found: Sequence[SchemaVersion]) -> list[str]:
    """The versions of schemas, what changed under each."""
    lines = []
    for one in found:
        at = f"  {one.at:%Y-%m-%d %H:%M:%S}" if one.at else ""
        lines.append(f"{printable(str(one.table))} {one.version}  entry {one.entry}  {one.position}{at}")
        lines += [f"    {printable(change)}" for change in one.changes]
        lines += ["    rows changed without being logged: the table was read again"] if one.reload else []
    return lines or ["no table was captured yet"]


def tables(infos: Sequence[TableInfo], picked: set[TableId]) -> list[str]:
    """The source's tables."""
    from headwater.config import quote_table
    from headwater.masking import describe

    rows = [["", "table", "rows", "size", "key", "kind", ""]]
    for info in infos:
        schema = info.schema
        mark = "*" if schema.table in picked else ""
        about = number(info.rows), size(info.bytes), ", ".join(schema.key) or "-", info.kind, info.note
        rows.append([mark, quote_table(schema.table), *about])
    masks = [_masks(i.schema.table, describe(i.schema)) for i in infos if i.schema.table in picked]
    counted = f"{len(picked):,} of {len(infos):,} tables are copied (*); rows and sizes are estimates"
    return [*align(rows, right="23"), *filter(None, masks), counted, "next: headwater plan"]


def _masks(table: TableId, masks: Sequence[str]) -> str:
    """The masked columns of a table in one line; "" when there are none."""
    return f"masks of {printable(str(table))}: {printable(', '.join(masks))}" if masks else ""


def plan(found: Plan) -> list[str]:
    """What a run would do."""
    heads = ["table", "action", "mode", "rows", "size", "why"]
    places = {"lake": any(t.lake for t in found.tables), "warehouse": any(t.warehouse for t in found.tables)}
    rows = [[*heads, *(name for name, known in places.items() if known)]]
    for t in found.tables:
        where = [t.lake] * places["lake"] + [", ".join(t.warehouse)] * places["warehouse"]
        rows.append([str(t.table), t.action, t.mode, number(t.rows), size(t.bytes), t.why, *where])
    masks = filter(None, (_masks(t.table, t.masks) for t in found.tables))
    laid = [line for t in found.tables for line in _laid(t)]
    views = (
        f"formats of {printable(str(t.table))}: delta, {', '.join(t.formats)}"
        for t in found.tables
        if t.formats
    )
    loads = [t for t in found.tables if t.action in ("load", "reload")]
    read = f"{len(loads):,} tables to read: about {number(sum(t.rows or 0 for t in loads))} rows"
    read += f", {size(sum(t.bytes or 0 for t in loads))}"
    log = "" if found.behind_bytes is None else f"; log to read: {size(found.behind_bytes)}"
    names = (f"names: {printable(line)}" for line in found.names)
    changes = [f"{printable(str(t.table))}: {printable(c)}" for t in found.tables for c in t.changes]
    files = sum(line.startswith("+++ ") for line in found.dbt)
    dbt = [f"{files:,} generated dbt files would change   (headwater dbt diff)"] if files else []
    said = [*masks, *laid, *views, *names, *changes, *dbt]
    return [*align(rows, right="34"), *said, read + log, "next: headwater run"]


def _laid(table: TablePlan) -> list[str]:
    """The folders of some rows of a table, and what there is to say of them."""
    name = printable(str(table.table))
    folders = [f"folders of {name}: {printable(', '.join(table.folders))}"] if table.folders else []
    return folders + [f"partition of {name}: {printable(line)}" for line in table.says]


def record(run: RunRecord, *, verbose: bool = True) -> list[str]:
    """What a run did, from where to where, and how far behind the source it ended."""
    seconds = f" in {run.seconds:.1f} s" if run.outcome == "done" else f" after {run.seconds:.1f} s"
    lines = [f"{run.pipeline}: {run.mode} run {run.run_id} {run.outcome}{seconds}"]
    if run.to_position:
        moved = run.from_position not in ("", run.to_position)
        way = f"from {run.from_position} to {run.to_position}" if moved else f"at {run.to_position}"
        head = f", source at {run.source_head}" if run.source_head else ""
        lines.append(f"  {printable(way + head)}: {behind(run.behind_bytes)}")
    lines += [f"  {line}" for line in (*_counts(run), *_misfits(run))]
    if run.models_built or run.tests_passed:
        lines.append(f"  dbt: {run.models_built:,} models built, {run.tests_passed:,} tests passed")
    if run.quality is not None:
        q = run.quality
        lines.append(
            f"  quality: {q.expectations:,} rules over {q.tables:,} tables, {_verdict(q.failed, q.warned)}"
        )
    lines += [f"  warning: {printable(w)}" for w in run.warnings]
    if run.error:
        lines.append(f"  {printable(run.error)}")
        lines += [f"  try: {printable(run.hint)}"] if run.hint else []
    elif verbose:
        lines.append("next: headwater verify")
    return lines


def _verdict(failed: int, warned: int) -> str:
    return f"{failed:,} failed, {warned:,} warnings" if failed or warned else "all right"


def judged(found: QualityResult) -> list[str]:
    """How tables were judged: what is wrong of each, then the verdict and where the report is."""
    lines = []
    for t in found.tables:
        held = ", held back" if t.held else ""
        what = "all rows" if t.scope == "table" else "what came"
        numbers = f"{len(t.checks):,} rules over {t.rows:,} rows ({what})"
        lines.append(f"{printable(str(t.table))}  {_verdict(t.failed, t.warned)}{held}  {numbers}")
        lines += [f"  {line}" for c in t.checks if c.wrong for line in _wrong(c)]
    lines.append(f"report: {printable(found.page)}")
    return [*lines, f"quality: {_verdict(found.failed, found.warned)}"]


def _wrong(check: Check) -> list[str]:
    kind = "could not be judged" if check.outcome == "unjudged" else "failed" if check.fails else "warning"
    of = f": {check.unexpected:,} of {check.rows:,}" if check.outcome == "failed" else ""
    columns = f" {', '.join(check.columns)}" if check.columns else ""
    lines = [printable(f"{kind}{columns}: {check.says} ({check.rule}){of}")]
    lines += [f"  {printable(check.why)}"] if check.why else []
    return lines + ([f"  rows: {printable('; '.join(check.keys))}"] if check.keys else [])


def _counts(run: RunRecord) -> list[str]:
    moved = {n: c for n, c in run.tables.items() if c.rows_in or c.inserted or c.updated or c.deleted}
    if not moved:
        return ["no changes"] if run.outcome == "done" else []
    rows = [["table", "rows in", "inserted", "updated", "deleted", "versions"]]
    for name, c in moved.items():
        rows.append([name, *(number(n) for n in (c.rows_in, c.inserted, c.updated, c.deleted, c.versions))])
    return align(rows, right="12345")


def _misfits(run: RunRecord) -> list[str]:
    """What did not fit its cast in a run."""
    lines = []
    for name, count in run.tables.items():
        if count.parked:
            lines.append(f"{printable(name)}: {count.parked:,} rows wait in quarantine")
        if count.nulled:
            lines.append(f"{printable(name)}: {count.nulled:,} rows with NULL for a value that does not fit")
    return lines + (["see: headwater quarantine list"] if any(c.parked for c in run.tables.values()) else [])


def queues(found: Sequence[Queue]) -> list[str]:
    """What waits, table by table."""
    if not found:
        return ["nothing waits in quarantine"]
    rows = [["table", "misfits", "queued", "keys", "columns", "since"]]
    for q in found:
        counts = number(q.misfits), number(q.queued), "-" if q.keys is None else number(q.keys)
        rows.append([str(q.table), *counts, q.columns, f"{q.since:%Y-%m-%d %H:%M:%S}"])
    return [*align(rows, right="123"), "next: mend the rules in `cast`, then: headwater quarantine retry"]


def waiting(found: Sequence[Waiting]) -> list[str]:
    """The rows that wait, in order."""
    if not found:
        return ["nothing waits"]
    rows = [["seq", "op", "at", "key", "does not fit", "row"]]
    for row in found:
        at, cells = f"{row.at:%Y-%m-%d %H:%M:%S}", ", ".join(f"{n}={v!r}" for n, v in row.row.items())
        rows.append([str(row.seq), row.op, at, row.key, row.rules or "(queued)", cells])
    return align(rows, right="0")


def round_line(run: RunRecord) -> str:
    """One line for a round of `run --follow`."""
    rows = sum(c.rows_in for c in run.tables.values())
    moved = sum(bool(c.rows_in) for c in run.tables.values())
    dbt = f", {run.models_built:,} models built" if run.models_built else ""
    at = f"{run.ended_at.astimezone():%H:%M:%S}"
    where = f"; at {printable(run.to_position)}" if run.to_position else ""
    failed = f"; failed: {printable(run.error)}" if run.error else ""
    return f"{at} {rows:,} rows of {moved:,} tables{dbt}{where}, {behind(run.behind_bytes)}{failed}"


def status(found: Status) -> list[str]:
    """Where a pipeline stands."""
    lines = [f"{found.pipeline}: {found.entries:,} entries in {printable(found.store)}"]
    if found.holder:
        lines.append(f"  running now: {printable(found.holder)}")
    lines.append(
        f"  at {printable(found.position)}, {behind(found.behind_bytes)}"
        if found.position
        else "  not run yet"
    )
    if found.source_error:
        lines.append(f"  the source cannot be asked: {printable(found.source_error)}")
    lines += [f"  source {line}" for line in _source(found)]
    loaded = sum(t.complete for t in found.tables)
    lines.append(f"  tables: {loaded:,} of {len(found.tables):,} loaded")
    lines += [f"    not loaded yet: {printable(str(t.table))}" for t in found.tables if not t.complete][:10]
    tails = [t for t in found.tables if t.tail]
    lines += [
        f"    {printable(str(t.table))}: {t.tail:,} changes beside the files of its mirror"
        for t in tails[:10]
    ]
    lines += [
        f"    {printable(str(t.table))}: {t.waiting:,} rows wait in quarantine   (headwater quarantine list)"
        for t in [t for t in found.tables if t.waiting][:10]
    ]
    lines += [
        f"    {printable(str(t.table))}: held back, as its data is not right   (headwater quality)"
        for t in [t for t in found.tables if t.held][:10]
    ]
    lines += _views(found)
    if found.runs:
        lines += [f"  {line}" for line in _runs(found.runs)]
    failed = bool(found.runs) and found.runs[0].outcome == "failed"
    hint = found.runs[0].hint if failed else ""
    return [*lines, f"next: {printable(hint) or 'headwater run'}"]


def _views(found: Status) -> list[str]:
    """How far the published views of tables are; those that are behind their lake table first."""
    rows = [(v.entry >= v.lake_entry, str(t.table), v) for t in found.tables for v in t.views]
    lines = []
    for current, table, v in sorted(rows, key=lambda row: row[:2])[:20]:
        at = "not published yet" if v.entry < 0 else f"entry {v.entry:,}, {number(v.rows)} rows"
        behind = "" if current or v.entry < 0 else f"; its lake table is at {v.lake_entry:,}"
        lines.append(f"    {printable(table)} {v.kind} as {v.format}: {at}{behind}")
    return lines


def _source(found: Status) -> list[str]:
    """What the source says of its log, and where that leads."""
    hidden = {"log_end_bytes", "release", "retained_bytes", "safe_wal_size"}
    facts = {n: v for n, v in found.source.items() if v is not None and not (found.wal and n in hidden)}
    lines = [f"{printable(name.replace('_', ' '))}: {_fact(name, value)}" for name, value in facts.items()]
    wal = found.wal
    if wal is None:
        return lines
    room = "no bound is known" if wal.room_bytes is None else f"room for {size(max(0, wal.room_bytes))} more"
    lines.append(f"log kept for us: {size(wal.retained_bytes)}; {room}")
    if wal.written_per_second is not None:
        ends = f"; used up in {span(wal.seconds)}" if wal.seconds is not None else ""
        lines.append(f"log written: {size(wal.written_per_second)}/s{ends}")
    if wal.says:
        lines += [f"log {wal.level}: {printable(wal.says)}", f"  try: {printable(wal.hint)}"]
    return lines


def _fact(name: str, value: str | int) -> str:
    return size(value) if isinstance(value, int) and name in _BYTES else printable(str(value))


def _runs(runs: Sequence[RunRecord]) -> list[str]:
    rows = [["last runs", "mode", "", "seconds", "rows in", ""]]
    for run in runs:
        began = f"{run.started_at.astimezone():%Y-%m-%d %H:%M:%S}"
        total = sum(c.rows_in for c in run.tables.values())
        rows.append([began, run.mode, run.outcome, f"{run.seconds:.1f}", number(total), run.error])
    return align(rows, right="34")


def facts(found: object) -> list[str]:
    """A small result, one line for each field."""
    doc = plain(found)
    shown = {k: _cell(v) for k, v in doc.items()} if isinstance(doc, Mapping) else {}
    return align([[name.replace("_", " ") + ":", text] for name, text in shown.items() if text])


def built(found: BuildResult) -> list[str]:
    """The models of a build, and its tests."""
    rows = [
        [m.name, m.status, "" if m.rows is None else f"{m.rows:,} rows", f"{m.seconds:.1f} s"]
        for m in found.models
    ]
    tests = f"{found.tests_passed:,} tests passed" + (
        f", {found.tests_failed:,} failed" if found.tests_failed else ""
    )
    anew = [f"built anew: {', '.join(map(printable, found.rebuilt))}"] if found.rebuilt else []
    return [*align(rows, right="23"), *anew, f"{tests}, {found.seconds:.1f} s in all"]


def steps(found: Sequence[object]) -> list[str]:
    """Every change of a key, one line each; columns that are empty throughout are left out."""
    docs = [_changed(d) for d in (plain(s) for s in found) if isinstance(d, dict)]
    names = [n for n in (docs[0] if docs else {}) if any(d[n] not in (None, "", [], {}) for d in docs)]
    heads = [n.replace("_", " ") for n in names]
    return align([heads, *([_cell(d[n]) for n in names] for d in docs)])


def _changed(doc: dict[str, Any]) -> dict[str, Any]:
    """A change with what its columns were and are, where that was asked for."""
    before, row = doc.pop("before", {}), doc.pop("row", {})
    if before and row:
        names = doc["changed"]
        doc["changed"] = [f"{n}: {_told(before.get(n))} -> {_told(row.get(n))}" for n in names]
    return doc


def _told(value: object) -> str:
    return "NULL" if value is None else str(value)


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(v) for v in value)
    return "" if value is None else str(value)
