"""COPY's binary format: a head, one CopyData a row, and a trailer; cells found for all rows at once.

https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format". The server sends each row as one
message (protocol-flow, "COPY Operations"), the first one behind the head: so the frames are the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headwater.errors import DecodeError
from headwater.model import STRIDE, Op, TableSchema
from headwater.sources.postgres.binary import convert_binary, fixed_width
from headwater.sources.postgres.cells import (
    LIMIT,
    NULL,
    VALUE,
    BadCell,
    Bytes,
    Cells,
    Copied,
    Ints,
    Mask,
    first,
    records,
)
from headwater.sources.postgres.frames import Frames, compact, cut_pieces, lay_out, merge
from headwater.sources.postgres.rows import build_table
from headwater.sources.postgres.values import NativeType

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
_TRAILER = b"\xff\xff"
_LENGTH = np.dtype(">i4")


def take_rows(messages: Iterable[Frames]) -> Iterator[Frames]:
    """The rows of one COPY, without what stands around them. Raises DecodeError if that is missing."""
    begun = ended = False
    for frames in messages:
        if ended:
            raise DecodeError("rows behind the end of a COPY")
        rows = frames if begun else _behind_head(frames)
        begun = True
        if len(rows) and rows.payload(len(rows) - 1) == _TRAILER:
            rows, ended = rows.cut(0, len(rows) - 1), True
        yield rows
    if not ended:
        raise DecodeError("a COPY without its end")


def _behind_head(frames: Frames) -> Frames:
    head = len(_SIGNATURE)
    if not frames.payload(0).startswith(_SIGNATURE):
        raise DecodeError("not the binary format of COPY")
    starts, lengths = frames.starts.copy(), frames.lengths.copy()
    starts[0] += head
    lengths[0] -= head
    behind = Frames(frames.data, starts, lengths)
    return behind if lengths[0] else behind.cut(1)


def decode_copy(
    parts: Sequence[Frames], natives: Sequence[NativeType], schema: TableSchema, start: int
) -> pa.Table:
    """Rows as op `r`, row i with _hw_seq (start + i)*STRIDE + 2. Raises DecodeError.

    Columns: schema.arrow(), _hw_op, _hw_seq, _hw_unset, _hw_text. Types and schema.columns are parallel.
    """
    if len(natives) != len(schema.columns):
        raise ValueError("types and schema differ in their number of columns")
    tables: list[pa.Table] = []
    for part in merge(parts) or [lay_out(())]:
        for a, b in cut_pieces(part.lengths):
            rows = part.cut(a, b)
            # Arrow's offsets have 32 bits; a row has at most 1 GiB, and its buffer perhaps more.
            rows = rows if len(part.data) < LIMIT else compact(rows)
            tables.append(_decode_piece(rows, natives, schema, start))
            start += b - a
    return pa.concat_tables(tables)


def _decode_piece(rows: Frames, natives: Sequence[NativeType], schema: TableSchema, start: int) -> pa.Table:
    try:
        cells = _find_cells(rows, [fixed_width(native) for native in natives])
    except BadCell as error:
        row, why = error.row, error.why
    else:
        ops = pa.repeat(str(Op.READ), len(rows))
        seqs = (start + np.arange(len(rows))) * STRIDE + 2
        return build_table(schema, natives, cells, ops, seqs, convert_binary)
    raise DecodeError(f"{schema.table}, row {row} of the batch: {why}")


def _find_cells(rows: Frames, widths: Sequence[int]) -> list[Cells]:
    """The cells of each column; `widths`: bytes of every value of a column, 0 where they vary.

    Every place is checked against the end of its own row before it is read.
    """
    data, at, stop = rows.data, rows.starts, rows.starts + rows.lengths
    _require(rows.lengths >= 2, "the row ends early")
    int16 = np.ndarray((len(data) - 1,), ">i2", data, 0, (1,))
    int32 = np.ndarray((len(data) - 3,), ">i4", data, 0, (1,))
    _require(int16[at] == len(widths), f"another number of columns than {len(widths)}")
    at = at + 2
    found: list[Cells] = []
    while len(found) < len(widths):
        run, at = _next_run(data, at, stop, widths[len(found) :])
        found += run
        if len(found) < len(widths):
            _require(at + 4 <= stop, "the row ends early")
            cells, at = _next_cell(data, int32, at)
            _require(at <= stop, "a cell reaches beyond its row")
            found.append(cells)
    _require(at == stop, "bytes after the end of the row")
    return found


def _next_run(data: Bytes, at: Ints, stop: Ints, widths: Sequence[int]) -> tuple[list[Cells], Ints]:
    """The columns of fixed width up to one that is not, or that lacks a value: read with one copy a row."""
    wanted = list(takewhile(bool, widths))
    size = sum(wanted) + 4 * len(wanted)
    if not size or not len(at) or (at + size > stop).any():
        return [], at
    found: list[Cells] = []
    copies, state = records(data, at, size), np.full(len(at), VALUE, np.uint8)
    offset = 0
    for width in wanted:
        if (Copied(copies, offset, 4).view(_LENGTH) != width).any():
            break
        offset += 4
        copied = Copied(copies, offset, width)
        found.append(Cells(data, at + offset, np.full(len(at), width), state, copied))
        offset += width
    return found, at + offset


def _next_cell(data: Bytes, int32: npt.NDArray[np.int32], at: Ints) -> tuple[Cells, Ints]:
    """The cell of each row whose length stands there, and where the next one does."""
    lengths = int32[at].astype(np.int64)
    starts = at + 4
    state = np.full(len(at), VALUE, np.uint8)
    if (none := lengths < 0).any():
        _require(lengths >= -1, "a cell with a length below -1")
        state[none] = NULL
        lengths[none] = 0
    return Cells(data, starts, lengths, state), starts + lengths


def _require(good: Mask, why: str) -> None:
    if not good.all():
        raise BadCell(first(~good), why)
