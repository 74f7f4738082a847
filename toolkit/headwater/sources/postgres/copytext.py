"""COPY's text format: tabs between cells, newlines after rows, backslashes before what would be either.

https://www.postgresql.org/docs/current/sql-copy.html, "Text Format"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headwater.errors import DecodeError
from headwater.model import STRIDE, Op, TableSchema
from headwater.sources.postgres.cells import NULL, PAD, VALUE, BadCell, Bytes, Cells, Ints, pack
from headwater.sources.postgres.rows import build_table
from headwater.sources.postgres.values import NativeType

#: Bytes of rows decoded at once. Measured: 4 MiB stays in the caches, 16 MiB is a third slower.
PIECE = 4 << 20

_TAB, _NEWLINE, _BACKSLASH = 9, 10, 92

#: What the character after a backslash stands for; 0 for those COPY never writes.
_ESCAPES = np.zeros(256, np.uint8)
_ESCAPES[list(b"bfnrtv\\")] = list(b"\b\f\n\r\t\v\\")

Data = bytes | bytearray | memoryview | npt.NDArray[np.uint8]


def _view(data: Data) -> memoryview:
    plain = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data
    return memoryview(plain).cast("B")


def whole_rows(data: Data) -> int:
    """Where the last complete row ends: a newline in data is always escaped, so a bare one ends a row."""
    view = _view(data)
    end = len(view)
    while end:
        start = max(0, end - 65_536)
        found = bytes(view[start:end]).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def decode_copy(data: Data, natives: Sequence[NativeType], schema: TableSchema, first: int) -> pa.Table:
    """Whole rows as op `r`, row i with _hw_seq (first + i)*STRIDE + 2. Raises DecodeError.

    Columns: schema.arrow(), _hw_op, _hw_seq, _hw_unset, _hw_text. Types and schema.columns are parallel.
    """
    if len(natives) != len(schema.columns):
        raise ValueError("types and schema differ in their number of columns")
    view = _view(data)
    tables: list[pa.Table] = []
    count = start = 0
    while not tables or start < len(view):
        end = _piece_end(view, start)
        table = _decode_piece(pack((view[start:end],)), natives, schema, first + count)
        tables.append(table)
        count += table.num_rows
        start = end
    return pa.concat_tables(tables)


def _piece_end(view: memoryview, start: int) -> int:
    """Where about PIECE bytes of whole rows end, or one longer row."""
    size = PIECE
    while start + size < len(view):
        whole = whole_rows(view[start : start + size])
        if whole:
            return start + whole
        size *= 2
    return len(view)


@dataclass(slots=True)
class _Grid:
    """All cells of some rows, row by row."""

    data: Bytes
    starts: Ints
    lengths: Ints
    states: Bytes
    columns: int

    def column(self, j: int) -> Cells:
        every = slice(j, None, self.columns)
        return Cells(
            self.data, self.starts[every].copy(), self.lengths[every].copy(), self.states[every].copy()
        )


def _decode_piece(data: Bytes, natives: Sequence[NativeType], schema: TableSchema, first: int) -> pa.Table:
    try:
        rows, grid = _find_cells(data, len(natives))
    except BadCell as error:
        row, why = error.row, error.why
    else:
        ops = pa.array([str(Op.READ)]).take(pa.array(np.zeros(rows, np.int64)))
        seqs = (first + np.arange(rows)) * STRIDE + 2
        return build_table(schema, natives, (grid.column(j) for j in range(len(natives))), ops, seqs)
    raise DecodeError(f"{schema.table}, row {row} of the batch: {why}")


def _find_cells(data: Bytes, columns: int) -> tuple[int, _Grid]:
    """The number of rows, and all their cells, unescaped."""
    body = data[PAD : len(data) - PAD]
    marks = np.flatnonzero((body == _TAB) | (body == _NEWLINE)) + PAD
    newline = data[marks] == _NEWLINE
    if len(body) and body[-1] != _NEWLINE:
        raise BadCell(int(newline.sum()), "the row is cut off")
    if columns == 0:
        wrong = np.flatnonzero(~newline | (np.diff(marks, prepend=PAD - 1) != 1))
    else:
        wrong = np.flatnonzero(newline != (np.arange(len(marks)) % columns == columns - 1))
    if len(wrong):
        raise BadCell(int(newline[: wrong[0]].sum()), f"another number of columns than {columns}")
    starts = np.concatenate(([PAD], marks[:-1] + 1)) if len(marks) else marks
    grid = _Grid(data, starts, marks - starts, np.full(len(marks), VALUE, np.uint8), columns)
    if columns and (body == _BACKSLASH).any():
        grid = _unescaped(grid, marks)
    return len(marks) // max(columns, 1), grid


def _unescaped(grid: _Grid, marks: Ints) -> _Grid:
    """NULLs marked, and every backslash pair replaced by what it stands for."""
    data, starts, lengths = grid.data, grid.starts, grid.lengths
    two = np.flatnonzero(lengths == 2)
    nulls = two[(data[starts[two]] == _BACKSLASH) & (data[starts[two] + 1] == ord("N"))]
    grid.states[nulls] = NULL
    slashes = np.flatnonzero(data == _BACKSLASH)
    # In a run of backslashes the first, third, ... begin an escape.
    order = np.arange(len(slashes))
    opens = np.diff(slashes, prepend=-1) != 1
    at = slashes[(order - np.maximum.accumulate(np.where(opens, order, 0))) % 2 == 0]
    codes = data[at + 1]
    stands_for = _ESCAPES[codes]
    real = stands_for != 0
    if int((~real).sum()) != len(nulls) or (codes[~real] != ord("N")).any():
        known = np.isin(at, starts[nulls])
        row = int(np.searchsorted(marks, at[np.argmax(~real & ~known)])) // grid.columns
        raise BadCell(row, "a backslash before a character COPY never escapes")
    at, stands_for = at[real], stands_for[real]
    if len(at) == 0:
        return grid
    data = data.copy()
    data[at + 1] = stands_for
    cell = np.searchsorted(marks, at)
    fewer = np.bincount(cell, minlength=len(marks))
    before = np.cumsum(fewer) - fewer
    return _Grid(np.delete(data, at), starts - before, lengths - fewer, grid.states, grid.columns)
