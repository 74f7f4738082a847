"""Refresh: raw log -> fold -> lake. A table with a key gets one commit, to `changes`: there it stands.

Its mirror and history are bases that compaction brings forward now and then; what lies between is read from
`changes` (headwater.lake.tail). A table without a key gets `changes`, then its mirror, anew. docs/lake.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.config import TableSpec, memory_bytes
from headwater.errors import CastFailed, Corrupt, HeadwaterError, SchemaConflict
from headwater.fold import Batch, Segment, cut_segments
from headwater.lake import KINDS, Change, Held, Kind
from headwater.lake.delta import Lake
from headwater.lake.tail import ACCEPTED, MADE, THROUGH, through
from headwater.model import Mark, TableId, TableSchema
from headwater.quarantine import changed_rules, making_number, next_making, rules_of, wanted_making
from headwater.raw import RawLog
from headwater.refresh.compaction import Compaction
from headwater.refresh.parts import Work
from headwater.refresh.policy import has_tail, is_due, is_small
from headwater.refresh.review import find_moved
from headwater.refresh.step import Counts, Step
from headwater.refresh.upkeep import keep_up

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Refreshed", "compact", "refresh"]

#: Raw rows may take this part of the memory at once: windows and joins over them keep some copies.
_SHARE = 8


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did to one table: raw rows read, net change of the mirror, versions made.

    parked, nulled   rows set aside, and rows that came in with NULL, because a value did not fit its cast
    made             by which casts the table is folded; another text once it was folded again from the start
    """

    mark: Mark
    rows_in: int
    inserted: int
    updated: int
    deleted: int
    versions: int
    schema: TableSchema
    parked: int = 0
    nulled: int = 0
    made: str = ""


def refresh(  # noqa: PLR0913
    log: RawLog,
    lake: Lake,
    specs: Mapping[TableId, TableSpec],
    *,
    after: int = -1,
    memory_limit: str,
    failed: dict[TableId, HeadwaterError] | None = None,
    accept: bool = False,
) -> Mapping[TableId, Refreshed]:
    """Fold every unread entry of the log into the lake; returns the tables that moved.

    after   every table is known to be folded through this entry: only a shortcut, -1 looks at all of them
    failed  takes the error of each table that failed, and nothing is raised for them
    accept  a person says that the casts are right as they are, though columns are called otherwise now

    A table whose newest snapshot has not ended yet waits and is not in the result: `after` of the next call
    must not pass it. One that fails does not stop the others; the first failure is raised when they are done.
    """
    done: dict[TableId, Refreshed] = {}
    failures: dict[TableId, HeadwaterError] = {} if failed is None else failed
    unread = _unread(log, lake, set(specs), after)
    if not unread:
        return done
    with lake.connect(memory_limit) as con:
        room = memory_bytes(memory_limit) // _SHARE
        for table, batches in unread.items():
            try:
                work = open_work(con, lake, specs[table], room)
                if moved_casts := _moved_casts(work, log):
                    if not accept:
                        raise moved_casts
                    work = open_work(con, lake, specs[table], room, anew=True)
                before = {kind: its.version for kind, its in (*work.held.items(), *work.old.items()) if its}
                again = "changes" in work.old
                moved = _fold(work, log, _collect(log, {table}, -1)[table] if again else batches)
                keep_up(work, before)
            except HeadwaterError as error:
                failures[table] = error
                continue
            if moved is not None:
                done[table] = moved
    if failures and failed is None:
        raise next(iter(failures.values()))
    return done


def compact(lake: Lake, specs: Mapping[TableId, TableSpec], *, memory_limit: str) -> list[TableId]:
    """Move the tails of these tables into their mirrors and histories; returns the tables that had one."""
    done = []
    for table, spec in specs.items():
        with lake.connect(memory_limit) as con:
            work = open_work(con, lake, spec, memory_bytes(memory_limit) // _SHARE)
            if "changes" in work.old:
                continue  # it is to be folded again, by other casts
            _refuse_behind(table, work.held)
            if has_tail(spec, work.held):
                Compaction(work).run()
                done.append(table)
    return done


def _moved_casts(work: Work, log: RawLog) -> SchemaConflict | None:
    """The error for casts that would come over other columns than they were made for."""
    spec, changes = work.spec, work.held["changes"] or work.old.get("changes")
    if not spec.casts or changes is None:
        return None
    newest = log.schema(spec.table, log.tables()[spec.table].schema)
    changed = changed_rules(spec, changes, recast="changes" in work.old)
    return find_moved(spec, changes.schema, changed, newest)


def open_work(con: DuckDBPyConnection, lake: Lake, spec: TableSpec, room: int, *, anew: bool = False) -> Work:
    """The lake tables of a table, without those that were folded by other casts than it has now.

    These are left as they are until the first commit to each; readers go by the note of `changes`.
    `anew`: as if the casts were others, for they are of other columns.
    """
    held: dict[Kind, Held | None] = {kind: lake.open(spec.table, kind) for kind in KINDS}
    changes = held["changes"]
    said = {its.notes.get(MADE, "") for its in held.values() if its}
    if not (spec.casts or said - {""}):
        return Work(con, lake, spec, held, room)
    held["quarantine"] = lake.open(spec.table, "quarantine")
    wanted = wanted_making(spec, held["quarantine"])
    made = changes.notes.get(MADE, "") if changes else ""
    again = changes is not None and (anew or rules_of(made) != wanted)
    if again or changes is None:
        made = next_making(wanted, max(said, key=making_number, default=""))
    old = {kind: its for kind, its in held.items() if its and (again or its.notes.get(MADE, "") != made)}
    still = {kind: None if kind in old else its for kind, its in held.items()}
    accepted = -1
    if changes is not None:
        accepted = max(int(changes.notes.get(ACCEPTED, -1)), changes.mark.seq if again else -1)
    return Work(con, lake, spec, still, room, made, old, accepted)


def _unread(log: RawLog, lake: Lake, wanted: set[TableId], after: int) -> dict[TableId, list[Batch]]:
    """The batches beyond `after` of each table that can be folded now."""
    state = log.tables()
    found = _collect(log, {t for t in wanted if t in state and state[t].complete}, after)
    # The shortcut holds for the lake as it was: a table that is not there was empty, or its folder is gone.
    moved = (t for t, batches in found.items() if after >= 0 and any(b.ref.rows for b in batches))
    absent = {t for t in moved if lake.mark(t, "changes") is None}
    if absent:
        first = min(state[t].snapshot_entry if state[t].epoch == 1 else 0 for t in absent)
        found |= _collect(log, absent, first - 1)
    return found


def _collect(log: RawLog, wanted: set[TableId], after: int) -> dict[TableId, list[Batch]]:
    found: dict[TableId, list[Batch]] = defaultdict(list)
    for entry in log.entries(after):
        for ref in entry.batches:
            if ref.table in wanted:
                found[ref.table].append(
                    Batch(entry.seq, entry.next_row, ref, f"{entry.writer} {entry.position.token}")
                )
    return dict(found)


def _fold(work: Work, log: RawLog, batches: Sequence[Batch]) -> Refreshed | None:
    """Fold what one table has not read yet, piece by piece; None when there is nothing."""
    spec, held = work.spec, work.held
    if held["changes"] is None and all(b.ref.rows == 0 and b.ref.epoch == 1 for b in batches):
        return None  # it never had a row, and no lake table is made for it
    _refuse_behind(spec.table, held)
    _adopt(work.lake, held)
    if held["mirror"] is None:
        _compact_if_due(work)  # a first load that was stopped before it had one
    mark = _reached(held)
    read = mark.seq if mark else -1
    segments = _cut_unread(work, [b for b in batches if b.entry > read], started=mark is not None)
    done: Refreshed | None = None
    void = False  # whether what comes up to the next full load would stand on rows that could not be folded
    for place, segment in enumerate(segments):
        void = void and not segment.snapshot
        if void or not segment.rows and mark is None:
            continue
        step = Step(work, log, segment, exact=is_small(held, segment.rows))
        try:
            done = _sum(done, step, step.run(), work.made)
            mark = step.mark
            _compact_if_due(work)
        except (CastFailed, SchemaConflict) as error:
            # Changes that cannot be folded no longer matter where the table was read again after them.
            if not any(later.snapshot for later in segments[place + 1 :]):
                raise
            void = segment.snapshot or isinstance(error, CastFailed)
    if done is None:
        _compact_if_due(work)  # what was refused before is refused again until the table is read again
    return done


def _cut_unread(work: Work, batches: Sequence[Batch], *, started: bool) -> list[Segment]:
    """The pieces to fold; none goes across what the table's policies have let in before."""
    before = [b for b in batches if b.entry <= work.accepted]
    known = cut_segments(before, started=started, room=work.room)
    return known + cut_segments(batches[len(before) :], started=started or bool(known), room=work.room)


def _reached(held: Mapping[Kind, Held | None]) -> Mark | None:
    """How far a table is folded: its changes say so, or without a key the mirror, which comes last."""
    changes, mirror = held["changes"], held["mirror"]
    if changes is not None and changes.schema.key:
        return changes.mark
    return mirror.mark if mirror else None


def _refuse_behind(table: TableId, held: Mapping[Kind, Held | None]) -> None:
    changes, mirror = held["changes"], held["mirror"]
    if mirror is not None and (changes is None or changes.mark.seq < mirror.mark.seq):
        raise Corrupt(
            f"{table}: the lake's staged changes end before its mirror does",
            hint="move the table's folder out of lake/, then: headwater run   (folds the raw log)",
        )


def _adopt(lake: Lake, held: dict[Kind, Held | None]) -> None:
    """Tell the bases of an older lake how far they go, where they go as far as the changes do."""
    changes = held["changes"]
    if changes is None or not changes.schema.key:
        return
    bases: tuple[Kind, ...] = ("history", "mirror")
    for kind in bases:
        base = held[kind]
        if base is None or through(base) is not None or base.mark != changes.mark or not base.schema.key:
            continue
        notes = {**base.notes, THROUGH: str(lake.highest(changes))}
        change = Change(base.mark, base.schema, base.layout, notes=notes, partition=base.partition)
        held[kind] = lake.commit(base.table, kind, base, change)


def _compact_if_due(work: Work) -> None:
    if is_due(work.spec, work.held):
        Compaction(work).run()


def _sum(done: Refreshed | None, step: Step, counts: Counts, made: str) -> Refreshed:
    before = done or Refreshed(step.mark, 0, 0, 0, 0, 0, step.schema)
    return Refreshed(
        step.mark,
        before.rows_in + step.segment.rows,
        before.inserted + counts.inserted,
        before.updated + counts.updated,
        before.deleted + counts.deleted,
        before.versions + counts.versions,
        step.schema,
        before.parked + (step.parking.parked if step.parking else 0),
        before.nulled + (step.parking.nulled if step.parking else 0),
        made,
    )
