"""Parts of a table: ranges of heap blocks, read side by side and, if need be, under different snapshots.

A part of a partitioned table is the same range of blocks in every partition: reading a partition under its
own name would need a grant of its own. A name, `<oid>.<hash> <from>-<to>`, says which files the blocks were
counted in: in another one (VACUUM FULL, CLUSTER, TRUNCATE) the same blocks hold other rows, and no log tells.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Heap and TOAST of one part.
PART_BYTES = 128 << 20
_FEWEST = 64  # blocks: one row of each may be huge, but a query has its price too
_NAME = re.compile(r"(\d+)\.([0-9a-f]{12}) (\d+)-(\d*)")

Span = tuple[
    int, int | None
]  # blocks from (inclusive) and to (exclusive; None: to the end, wherever that is)


@dataclass(frozen=True, slots=True)
class File:
    """The heap of a table or partition."""

    oid: int
    node: int  # relfilenode
    blocks: int
    bytes: int  # TOAST included


def name_parts(files: Sequence[File], done: Iterable[str] = ()) -> list[str] | None:
    """The parts that cover all blocks that the done ones do not, [""] for all; None: those mean nothing now.

    The last part has no end. A heap that grew after it was read grew by rows that are in the log.
    """
    read: list[Span] = []
    for name in done:
        found = _NAME.fullmatch(name)
        if not found or f"{found[1]}.{found[2]}" != _tag(files, upto=int(found[1])):
            return None
        read.append((int(found[3]), int(found[4]) if found[4] else None))
    spans = [span for gap in _gaps(read) for span in _split(gap, files)]
    if spans == [(0, None)]:
        return [""]
    tag = _tag(files, upto=max(file.oid for file in files))
    return [f"{tag} {first}-{'' if last is None else last}" for first, last in spans]


def condition(part: str, name: str = "ctid") -> str:
    """SQL that is true for the rows of a part."""
    found = _NAME.fullmatch(part)
    if not found:
        raise ValueError(f"no part of a table: {part!r}")
    first, last = found[3], found[4]
    return f"{name} >= '({first},0)'" + (f" and {name} < '({last},0)'" if last else "")


def _tag(files: Iterable[File], *, upto: int) -> str:
    """Which files these are. Partitions made later have higher oids, and all of their rows are in the log."""
    text = ",".join(f"{f.oid}:{f.node}" for f in sorted(files, key=lambda f: f.oid) if f.oid <= upto)
    return f"{upto}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _gaps(read: Iterable[Span]) -> list[Span]:
    gaps: list[Span] = []
    at = 0
    for first, last in sorted(read, key=lambda span: span[0]):
        if first > at:
            gaps.append((at, first))
        if last is None:
            return gaps
        at = max(at, last)
    return [*gaps, (at, None)]


def _split(gap: Span, files: Sequence[File]) -> list[Span]:
    """Cut a range into pieces of about PART_BYTES, as the blocks lie now."""
    spans: list[Span] = []
    first, end = gap
    while True:
        here = [f for f in files if f.blocks > first]
        weight = sum(f.bytes / f.blocks for f in here)
        last = first + max(_FEWEST, int(PART_BYTES / weight)) if weight else None
        if last is not None and end is None and all(f.blocks <= last for f in here):
            last = None
        if last is None or (end is not None and last >= end):
            return [*spans, (first, end)]
        spans.append((first, last))
        first = last
