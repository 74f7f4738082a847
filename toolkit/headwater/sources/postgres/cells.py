"""Cells: one column of text values lying somewhere in one buffer, and the two ways to get them out of it.

`gather` copies cells of any length into one Arrow array; `words` reads a fixed number of bytes at each cell.
Neither runs Python per row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.errors import DecodeError

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

#: What a cell holds: a value, SQL NULL, or nothing at all (the log did not carry the column).
VALUE, NULL, UNSET = 0, 1, 2

#: Bytes before the first and after the last cell of a buffer that `words` may touch.
PAD = 32

#: Bytes of the longest buffer whose cells can be gathered.
LIMIT = 2**31 - 1


class BadCell(DecodeError):
    """A cell's text is none its type allows. Names the row, never the text: it may be personal data."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(f"row {row}: {why}")
        self.row, self.why = row, why


@dataclass(frozen=True, slots=True)
class Copied:
    """Cells of one length, read together with others of their rows."""

    records: Bytes  # shape (rows, bytes of a record)
    offset: int
    width: int

    def view(self, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """The cells as numbers of that kind, which has their width."""
        rows, size = self.records.shape
        return np.ndarray((rows,), kind, self.records, self.offset, (size,))


@dataclass(slots=True)
class Cells:
    """One column of n cells lying in one buffer; two cells are the same bytes or do not overlap."""

    data: Bytes
    starts: Ints
    lengths: Ints
    state: Bytes  # VALUE, NULL or UNSET; start and length count only for VALUE
    copied: Copied | None = None  # where they have been read already: then each has a value of one length

    def has_value(self) -> Mask:
        """True where there is a value."""
        return np.equal(self.state, VALUE)

    def pick(self, rows: Ints | Mask) -> Cells:
        """Some of the rows, in the order given."""
        return Cells(self.data, self.starts[rows], self.lengths[rows], self.state[rows])


def pack(parts: Iterable[bytes | memoryview]) -> Bytes:
    """The parts behind one another, with PAD bytes on either side."""
    pad = bytes(PAD)
    return np.frombuffer(b"".join([pad, *parts, pad]), np.uint8)


def settled(cells: Cells) -> Cells:
    """The same cells in a buffer with its pads; those without a value are empty."""
    starts, lengths, data = cells.starts, cells.lengths, cells.data
    valid = cells.has_value()
    if not valid.all():
        used = starts[valid]
        starts = np.where(valid, starts, used[0] if len(used) else 0)
        lengths = np.where(valid, lengths, 0)
    if len(starts) == 0:
        return Cells(pack(()), starts, lengths, cells.state)
    front, back = int(starts.min()), int((starts + lengths).max())
    if front < 0 or back > len(data) or int(lengths.min()) < 0:
        raise ValueError("cells outside their buffer")
    if front < PAD or back > len(data) - PAD:
        data = pack((data.tobytes(),))
        starts = starts + PAD
    if len(data) > LIMIT:
        raise ValueError("one call converts buffers of at most 2 GiB")
    return Cells(data, starts, lengths, cells.state)


def gather(cells: Cells) -> pa.Array:
    """The cells as one binary array, null where there is no value. `cells` must be settled."""
    valid = cells.has_value()
    used = None if valid.all() else np.flatnonzero(valid)
    starts = cells.starts if used is None else cells.starts[used]
    lengths = cells.lengths if used is None else cells.lengths[used]
    if len(starts) == 0:
        return pa.nulls(len(valid), pa.binary())
    index = None
    bounds = _bounds(starts, lengths)
    if (bounds[1:] < bounds[:-1]).any():
        places, index = np.unique(starts << 31 | lengths, return_inverse=True)
        bounds = _bounds(places >> 31, places & LIMIT)
        if (bounds[1:] < bounds[:-1]).any():
            raise ValueError("cells overlap")
    # The buffer read as one long array of cell, gap, cell, gap ...: `take` copies every second element.
    segments = pa.Array.from_buffers(
        pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(cells.data)]
    )
    which = np.arange(0, len(bounds), 2) if index is None else index * 2
    if used is None:
        return pc.take(segments, pa.array(which), boundscheck=False)
    spread = np.zeros(len(valid), np.int64)
    spread[used] = which
    return pc.take(segments, pa.array(spread, mask=~valid), boundscheck=False)


def _bounds(starts: Ints, lengths: Ints) -> npt.NDArray[np.int32]:
    bounds = np.empty(2 * len(starts), np.int32)
    bounds[0::2] = starts
    np.add(starts, lengths, out=bounds[1::2], casting="unsafe")
    return bounds


def records(data: Bytes, at: Ints, size: int) -> Bytes:
    """So many bytes from each place; shape (len(at), size)."""
    windows = np.ndarray((len(data) - size + 1,), np.dtype((np.void, size)), data, 0, (1,))
    return windows[at].view(np.uint8).reshape(len(at), size)


def words(data: Bytes, at: Ints, count: int) -> Words:
    """`count` little-endian 64-bit words from each place; shape (len(at), count)."""
    return records(data, at, 8 * count).view("<u8")


def contents(array: pa.Array) -> Bytes:
    """The bytes of all values of a binary array made by `gather`, one behind the other."""
    values = array.buffers()[2]
    if values is None:
        return np.empty(0, np.uint8)
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, 4 * array.offset)
    return np.frombuffer(values, np.uint8)[int(offsets[0]) : int(offsets[-1])]


def first(bad: Mask) -> int:
    """The first row that is marked."""
    return int(np.argmax(bad))
