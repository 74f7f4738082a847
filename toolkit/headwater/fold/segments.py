"""Segments: the unread batches of one table, cut into the pieces that are folded and committed one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from headwater.errors import Corrupt
from headwater.model import KEYS_PART, BatchRef

#: A fold of changes takes no more rows than this, nor more bytes than it has room for, unless one entry has.
SEGMENT_ROWS = 4_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch and the entry that names it."""

    entry: int
    next_row: int  # the entry's
    ref: BatchRef
    sitting: str = ""  # who wrote it, at which position of the source


@dataclass(frozen=True, slots=True)
class Segment:
    """Whole entries of one table: either one complete snapshot, or changes.

    A snapshot that was read in several sittings has the changes between them in it.
    """

    batches: tuple[Batch, ...]

    @property
    def snapshot(self) -> bool:
        """Whether it is a whole snapshot."""
        return self.batches[0].ref.phase != "changes"

    @property
    def several(self) -> bool:
        """Whether it is a snapshot of several sittings: then a row may be there more than once."""
        return self.snapshot and (
            len({b.sitting for b in self.batches}) > 1
            # A sitting that goes on always completes such a part, also where nothing else tells it apart.
            or any(b.ref.phase == "changes" or b.ref.part.startswith(KEYS_PART) for b in self.batches)
        )

    @property
    def epoch(self) -> int:
        """The epoch that the table has after it."""
        return self.batches[-1].ref.epoch

    @property
    def last(self) -> int:
        """Its last entry."""
        return self.batches[-1].entry

    @property
    def rows(self) -> int:
        """Raw rows in it."""
        return sum(b.ref.rows for b in self.batches)


def cut_segments(batches: Sequence[Batch], *, started: bool, room: int) -> list[Segment]:
    """Cut the unread batches of a table whose newest epoch is complete into pieces of about `room` bytes.

    Snapshots that never ended are void, with the changes that came between their sittings: a load that died
    for good is read again in a new epoch. A table that the lake does not have yet (not `started`) begins with
    its first whole snapshot, which holds what was before.
    """
    begun = {b.ref.epoch for b in batches if b.ref.phase != "changes"}
    ended = {b.ref.epoch for b in batches if b.ref.phase == "snapshot_end"}
    valid = [b for b in batches if b.ref.epoch in ended or b.ref.epoch not in begun]
    segments = list(_cut(valid, room))
    if not started:
        first = next((n for n, s in enumerate(segments) if s.snapshot), len(segments))
        segments = segments[first:]
    return segments


def _cut(batches: Iterable[Batch], room: int) -> Iterator[Segment]:
    pending: list[Batch] = []
    for entry, group in groupby(batches, key=lambda b: b.entry):
        step = list(group)
        if len({0 if b.ref.phase == "changes" else b.ref.epoch for b in step}) > 1:
            raise Corrupt(
                f"raw log entry {entry}: holds both snapshot and changes of {step[0].ref.table}",
                hint="headwater run --full",
            )
        if pending and _apart(pending, step, room):
            yield Segment(tuple(pending))
            pending = []
        pending += step
    if pending:
        yield Segment(tuple(pending))


def _apart(pending: Sequence[Batch], step: Sequence[Batch], room: int) -> bool:
    """Whether the next entry starts a new segment."""
    last, first = pending[-1].ref, step[0].ref
    if pending[0].ref.phase != "changes":
        return any(b.ref.phase == "snapshot_end" for b in pending) or first.epoch != last.epoch
    if first.phase != "changes":
        return True
    refs = [b.ref for b in (*pending, *step)]
    full = sum(r.rows for r in refs) > SEGMENT_ROWS or sum(r.memory for r in refs) > room
    # What cannot be folded is passed over by the segment, and most trouble begins with a new schema.
    return full or last.schema != first.schema
