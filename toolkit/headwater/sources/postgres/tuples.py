"""The tuples inside I, U and D messages, found for all messages at once.

The messages lie apart in one buffer. Each step looks at one column of every row: the byte that
says what the cell is, its length, and so where the next cell starts. Every place is checked against the end
of its own message before it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headwater.errors import DecodeError
from headwater.sources.postgres.cells import NULL, UNSET, VALUE, Bytes, Cells, Ints, Mask, first
from headwater.sources.postgres.frames import Frames

INSERT, UPDATE, DELETE = ord("I"), ord("U"), ord("D")
NEW, KEY, OLD = ord("N"), ord("K"), ord("O")
_TEXT = ord("t")

#: pgoutput's kinds of cells as our states. `b` (binary) is no kind we ask for.
_UNKNOWN = 255
_STATES = np.full(256, _UNKNOWN, np.uint8)
_STATES[[_TEXT, ord("n"), ord("u")]] = VALUE, NULL, UNSET

#: Which tuple may come first in which message.
_FIRST = np.zeros((256, 256), bool)
_FIRST[INSERT, NEW] = True
_FIRST[UPDATE, [NEW, KEY, OLD]] = True
_FIRST[DELETE, [KEY, OLD]] = True

Found = tuple[Bytes, Ints, Ints]  # state, start and length of one column's cells


@dataclass(slots=True)
class Messages:
    """I, U and D messages and their tuples.

    Tuple m is the first tuple of message m; the second tuples (the new rows of updates that carry an old one)
    follow after all first ones. `columns[j]` holds column j of every tuple.
    """

    data: Bytes
    kinds: Bytes
    tags: Bytes  # NEW, KEY or OLD: what the first tuple is
    second: Ints  # the number of the second tuple, -1 without
    ordinals: Ints
    columns: list[Found]

    def cells(self, j: int, tuples: Ints) -> Cells:
        """Column j of those tuples, as a copy."""
        states, starts, lengths = self.columns[j]
        return Cells(self.data, starts[tuples], lengths[tuples], states[tuples])

    def require(self, good: Mask, rows: Ints, why: str, hint: str = "") -> None:
        """Raise for the first of the messages `rows` that is not good."""
        if not good.all():
            raise refusal(self.ordinals[rows[first(~good)]], why, hint)


def refusal(ordinal: np.int64, why: str, hint: str = "") -> DecodeError:
    """The error for one change, named by its number."""
    return DecodeError(f"change {int(ordinal)}: {why}", hint=hint)


class _Walk:
    """Reads tuples at `at`, each within its own `stop`; ordinals name the messages in errors."""

    def __init__(self, data: Bytes, at: Ints, stop: Ints, ordinals: Ints) -> None:
        self.data, self.at, self.stop, self.ordinals = data, at, stop, ordinals
        self.int32 = np.ndarray((len(data) - 3,), ">i4", data, 0, (1,))
        self.int16 = np.ndarray((len(data) - 1,), ">i2", data, 0, (1,))

    def require(self, good: Mask, why: str) -> None:
        if not good.all():
            raise refusal(self.ordinals[first(~good)], why)

    def width(self, columns: int) -> None:
        """Step over the number of columns."""
        self.require(self.at + 2 <= self.stop, "the message ends early")
        self.require(self.int16[self.at] == columns, f"a row has another number of columns than {columns}")
        self.at = self.at + 2

    def cell(self) -> Found:
        """State, start and length of the next cell of each tuple; steps behind it."""
        at = self.at
        self.require(at < self.stop, "the message ends early")
        kind = self.data[at]
        states = _STATES[kind]
        if not states.any():
            lengths = self.int32[at + 1].astype(np.int64)
            starts = at + 5
        else:
            self.require(states != _UNKNOWN, "a cell is neither text, null nor unchanged")
            carries = states == VALUE
            lengths = np.where(carries, self.int32[at + 1], 0)
            starts = at + np.where(carries, 5, 1)
        self.at = starts + lengths
        self.require((lengths >= 0) & (self.at <= self.stop), "a cell reaches beyond its message")
        return states, starts, lengths


def read_messages(oid: int, columns: int, frames: Frames, ordinals: Ints) -> Messages:
    """Find all cells of the messages. Raises DecodeError for anything out of order."""
    data, begins, sizes = frames.data, frames.starts, frames.lengths
    head = _Walk(data, begins, begins + sizes, ordinals)
    head.require(sizes >= 8, "the message ends early")
    kinds, tags = data[begins], data[begins + 5]
    head.require(_FIRST[kinds, tags], "neither an insert, an update nor a delete with its rows")
    head.require(head.int32[begins + 1] == np.int32(oid - (oid >> 31 << 32)), "a row of another relation")
    head.at = begins + 6
    head.width(columns)
    cells = [head.cell() for _ in range(columns)]
    both = np.flatnonzero((kinds == UPDATE) & (tags != NEW))
    second = np.full(len(kinds), -1, np.int64)
    if len(both):
        second[both] = len(kinds) + np.arange(len(both))
        more = _Walk(data, head.at[both], head.stop[both], ordinals[both])
        more.require(more.at < more.stop, "the message ends early")
        more.require(data[more.at] == NEW, "an update without its new row")
        more.at = more.at + 1
        more.width(columns)
        new = [more.cell() for _ in range(columns)]
        head.at[both] = more.at
        cells = [_stacked(a, b) for a, b in zip(cells, new, strict=True)]
    head.require(head.at == head.stop, "bytes after the end of the row")
    return Messages(data, kinds, tags, second, ordinals, cells)


def _stacked(above: Found, below: Found) -> Found:
    return (
        np.concatenate((above[0], below[0])),
        np.concatenate((above[1], below[1])),
        np.concatenate((above[2], below[2])),
    )
