"""A block of stream messages taken apart as columns: which is what, and what begins and commits say.

Pure: frames in, arrays out. The layout is that of the streaming replication protocol (an XLogData header of
25 bytes) around pgoutput's messages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.errors import DecodeError
from headwater.sources.postgres.cells import Bytes, Ints, Mask
from headwater.sources.postgres.frames import Frames, read_int32, read_uint64
from headwater.sources.postgres.messages import EPOCH, Begin

#: CopyData's own header of a message: kind, two LSNs, a clock.
HEADER = 25
KEEPALIVE, KEEPALIVE_SIZE = ord("k"), 18

#: What a message is: a row, a begin, a commit or a keepalive of the right length, nothing to us, or else.
OTHER, ROW, BEGIN, COMMIT, IGNORED, ALIVE = range(6)

_XLOG_DATA = ord("w")
_CODES = np.full(256, OTHER, np.uint8)
_CODES[list(b"IUD")] = ROW
_CODES[list(b"OYM")] = IGNORED
_CODES[list(b"BC")] = BEGIN, COMMIT
_BEGIN_SIZE, _COMMIT_SIZE, _ROW_SIZE = HEADER + 21, HEADER + 26, HEADER + 6

_LAST_CLOCK = 2**63 - 1 - EPOCH

Longs = npt.NDArray[np.uint64]


def classify(frames: Frames) -> Bytes:
    """What each message is."""
    data, starts, lengths = frames.data, frames.starts, frames.lengths
    codes = _CODES[data[starts + HEADER]]
    codes[(data[starts] != _XLOG_DATA) | (lengths <= HEADER)] = OTHER
    codes[(codes == ROW) & (lengths < _ROW_SIZE)] = OTHER
    codes[(codes == BEGIN) & (lengths != _BEGIN_SIZE)] = OTHER
    codes[(codes == COMMIT) & (lengths != _COMMIT_SIZE)] = OTHER
    codes[(data[starts] == KEEPALIVE) & (lengths == KEEPALIVE_SIZE)] = ALIVE
    return codes


@dataclass(frozen=True, slots=True)
class Begins:
    """Begin messages as columns."""

    final_lsn: Longs
    at: Ints  # commit time, microseconds since 1970-01-01 UTC
    xid: Ints

    def one(self, k: int) -> Begin:
        """A single one."""
        return Begin(int(self.final_lsn[k]), int(self.at[k]), int(self.xid[k]))

    def pick(self, which: Ints) -> Begins:
        """Those at these indices."""
        return Begins(self.final_lsn[which], self.at[which], self.xid[which])

    def after(self, begin: Begin | None) -> Begins:
        """The same with one before them."""
        if begin is None:
            return self
        before = one_begin(begin)
        return Begins(
            np.concatenate((before.final_lsn, self.final_lsn)),
            np.concatenate((before.at, self.at)),
            np.concatenate((before.xid, self.xid)),
        )


def read_begins(frames: Frames, which: Ints) -> Begins:
    """The begins at these indices."""
    at = frames.starts[which] + HEADER + 1
    clock = read_uint64(frames.data, at + 8).view(np.int64)
    if (clock > _LAST_CLOCK).any():
        raise DecodeError("a transaction of a time beyond all calendars")
    return Begins(read_uint64(frames.data, at), clock + EPOCH, read_int32(frames.data, at + 16) & 0xFFFF_FFFF)


def read_commits(frames: Frames, which: Ints) -> tuple[Longs, Longs]:
    """`lsn` and `end_lsn` of the commits at these indices."""
    at = frames.starts[which] + HEADER + 2
    return read_uint64(frames.data, at), read_uint64(frames.data, at + 8)


def read_keepalives(frames: Frames, which: Ints) -> tuple[Longs, Mask]:
    """How far each of the keepalives says that the log was read, and whether it wants an answer."""
    at = frames.starts[which] + 1
    return read_uint64(frames.data, at), frames.data[at + 16] != 0


def read_oids(frames: Frames, which: Ints) -> Ints:
    """The relation of the rows at these indices."""
    return read_int32(frames.data, frames.starts[which] + HEADER + 1) & 0xFFFF_FFFF


def find_disorder(codes: Bytes, is_open: bool) -> int:
    """The first message outside of a transaction, or that begins one inside of another; else how many."""
    depth = np.cumsum((codes == BEGIN).astype(np.int64) - (codes == COMMIT)) + is_open
    wrong = (depth < 0) | (depth > 1) | ((codes == ROW) & (depth != 1))
    return int(np.argmax(wrong)) if wrong.any() else len(codes)


def distinct(numbers: Ints) -> tuple[Ints, Ints]:
    """The different ones, and which of them each is; cheap when there is only one."""
    if len(numbers) and (numbers == numbers[0]).all():
        return numbers[:1], np.zeros(len(numbers), np.int64)
    return np.unique(numbers, return_inverse=True)


def one_begin(begin: Begin) -> Begins:
    """A begin as columns."""
    return Begins(
        np.array([begin.final_lsn], np.uint64),
        np.array([begin.at], np.int64),
        np.array([begin.xid], np.int64),
    )


_DIGITS = np.frombuffer(b"0123456789ABCDEF", np.uint8)
_SHIFTS = np.arange(28, -4, -4, dtype=np.uint64)


def format_lsns(lsns: Longs) -> pa.Array:
    """Numbers as `format_lsn` spells them, all at once."""
    high, which = np.unique(lsns >> np.uint64(32), return_inverse=True)
    fronts = pa.array([f"{part:X}/" for part in high.tolist()], pa.string())
    digits = np.ascontiguousarray(_DIGITS[(lsns[:, None] >> _SHIFTS) & np.uint64(15)])
    back = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(lsns), [None, pa.py_buffer(digits)])
    short = pc.utf8_ltrim(back.cast(pa.binary()).cast(pa.string()), "0")
    low = pc.if_else(pc.equal(short, ""), "0", short)
    return pc.binary_join_element_wise(fronts.take(pa.array(which)), low, "")
