"""From pgoutput messages (text form, protocol 1) to Arrow tables: the face of the pure half of the log.

I, U and D messages of one relation are laid behind one another and walked column by column (`tuples`); each
step reads one cell of every row. Nothing here runs Python per row or per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.model import STRIDE, Op, TableId, TableSchema
from headwater.sources.postgres.cells import UNSET, Cells, Ints, Mask, gather
from headwater.sources.postgres.frames import Frames, cut_pieces, lay_out
from headwater.sources.postgres.messages import (
    Begin,
    Commit,
    Message,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    TypeName,
    parse_begin,
    parse_commit,
    parse_message,
    parse_origin,
    parse_relation,
    parse_truncate,
    parse_type,
)
from headwater.sources.postgres.quoting import quote_table
from headwater.sources.postgres.rows import build_table, convert_text
from headwater.sources.postgres.tuples import DELETE, INSERT, KEY, NEW, OLD, Messages, read_messages
from headwater.sources.postgres.values import NativeType

__all__ = [
    "Begin",
    "Commit",
    "Message",
    "Origin",
    "Relation",
    "RelationColumn",
    "Truncate",
    "TypeName",
    "decode_changes",
    "parse_begin",
    "parse_commit",
    "parse_message",
    "parse_origin",
    "parse_relation",
    "parse_truncate",
    "parse_type",
]

_OPS = [str(Op.CREATE), str(Op.UPDATE), str(Op.DELETE)]
_CREATE, _UPDATE, _DELETE = range(3)


def decode_changes(
    relation: Relation,
    natives: Sequence[NativeType],
    schema: TableSchema,
    parts: Sequence[Frames],
    ordinals: npt.NDArray[np.int64],
) -> pa.Table:
    """Rows of I, U and D messages of one relation version, in order.

    Change number n (`ordinals`) becomes one row with _hw_seq n*STRIDE + 2, or two when the key changes: first
    the old row's delete at n*STRIDE + 1. Columns: schema.arrow(), _hw_op, _hw_seq, _hw_unset, _hw_text.
    `relation.columns`, `natives` and `schema.columns` are parallel. Raises DecodeError.
    """
    if not len(relation.columns) == len(natives) == len(schema.columns):
        raise ValueError("relation, types and schema differ in their number of columns")
    if sum(map(len, parts)) != len(ordinals):
        raise ValueError("one ordinal a message")
    numbers = np.asarray(ordinals, np.int64)
    if (np.diff(numbers) <= 0).any():
        raise ValueError("ordinals must rise")
    tables: list[pa.Table] = []
    done = 0
    for part in parts or [lay_out(())]:
        for a, b in cut_pieces(part.lengths):
            piece = numbers[done + a : done + b]
            tables.append(_decode_piece(relation, natives, schema, part.cut(a, b), piece))
        done += len(part)
    return pa.concat_tables(tables)


def _decode_piece(
    relation: Relation,
    natives: Sequence[NativeType],
    schema: TableSchema,
    frames: Frames,
    ordinals: Ints,
) -> pa.Table:
    messages = read_messages(relation.oid, len(natives), frames, ordinals)
    names = [c.name for c in schema.columns]
    keys = [names.index(k) for k in schema.key]
    if not keys:
        whole = (messages.kinds == INSERT) | (messages.tags == OLD)
        why = f"{schema.table} has no key, and the log does not carry the whole old row"
        messages.require(whole, np.arange(len(frames)), why, _full(schema.table))
    plan = _plan_rows(messages, keys)
    columns = (_column(messages, plan, j, c.in_key) for j, c in enumerate(relation.columns))
    columns = (_key_column(messages, plan, c, schema) if j in keys else c for j, c in enumerate(columns))
    ops = pa.array(_OPS).take(pa.array(plan.ops))
    return build_table(schema, natives, columns, ops, plan.seqs, convert_text)


@dataclass(slots=True)
class _Plan:
    """Which rows come out, one entry each: the message, the tuple, and where its unchanged cells are."""

    message: Ints
    main: Ints
    fill: Ints  # the old row's tuple, -1 without
    gone: Mask  # rows that are deletes
    ops: Ints
    seqs: Ints


def _plan_rows(messages: Messages, keys: list[int]) -> _Plan:
    kinds, tags, count = messages.kinds, messages.tags, len(messages.kinds)
    both = np.flatnonzero(messages.second >= 0)
    split = np.zeros(count, bool)
    split[both] = _key_differs(messages, keys, both) if keys else True
    message = np.repeat(np.arange(count), 1 + split)
    gone = kinds[message] == DELETE
    gone[np.cumsum(1 + split)[split] - 2] = True
    halved = split[message]
    main = np.where(gone | (tags[message] == NEW), message, messages.second[message])
    fill = np.where(gone | (tags[message] == NEW), -1, message)
    ops = np.where(gone, _DELETE, np.where(halved | (kinds[message] == INSERT), _CREATE, _UPDATE))
    seqs = messages.ordinals[message] * STRIDE + np.where(gone & halved, 1, 2)
    return _Plan(message, main, fill, gone, ops, seqs)


def _key_differs(messages: Messages, keys: list[int], rows: Ints) -> Mask:
    """Of updates that carry an old tuple: which have another key than it, compared as bytes."""
    differs = np.zeros(len(rows), bool)
    new = messages.second[rows]
    for j in keys:
        before, after = messages.cells(j, rows), messages.cells(j, new)
        changed = (before.state != after.state) | (before.lengths != after.lengths)
        changed &= after.state != UNSET
        # gather leaves out what has no value: two NULLs compare as null here, and are equal.
        changed |= pc.not_equal(gather(before), gather(after)).fill_null(False).to_numpy(zero_copy_only=False)
        differs |= changed
    return differs


def _column(messages: Messages, plan: _Plan, j: int, in_identity: bool) -> Cells:
    """Column j of the rows that come out."""
    cells = messages.cells(j, plan.main)
    tags = messages.tags[plan.message]
    if not in_identity:
        # A key-only tuple writes null for what it does not carry.
        cells.state[plan.gone & (tags == KEY)] = UNSET
    missing = (cells.state == UNSET) & (plan.fill >= 0) & (in_identity | (tags == OLD))
    rows = np.flatnonzero(missing)
    if len(rows):
        old = messages.cells(j, plan.fill[rows])
        cells.state[rows], cells.starts[rows], cells.lengths[rows] = old.state, old.starts, old.lengths
    carried = (cells.state != UNSET) | (messages.kinds[plan.message] != INSERT)
    messages.require(carried, plan.message, "an inserted row with a column left out")
    return cells


def _key_column(messages: Messages, plan: _Plan, cells: Cells, schema: TableSchema) -> Cells:
    """The same cells; all must be there."""
    why = f"the log does not carry the key of {schema.table}: its replica identity is another"
    messages.require(cells.state != UNSET, plan.message, why, _full(schema.table))
    return cells


def _full(table: TableId) -> str:
    return f"ALTER TABLE {quote_table(table)} REPLICA IDENTITY FULL;"
