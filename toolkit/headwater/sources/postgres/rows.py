"""From the cells of some rows to the table of change rows that both paths, log and snapshot, hand on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.errors import DecodeError
from headwater.model import META, TableSchema
from headwater.sources.postgres.cells import UNSET, Cells, Ints, Mask
from headwater.sources.postgres.values import BadCell, NativeType, convert, texts

#: The meta columns made here; position, time and transaction are the reader's to add.
_OURS = ("_hw_op", "_hw_seq", "_hw_unset", "_hw_text")


@dataclass(frozen=True, slots=True)
class Odd:
    """Rows whose value the typed column cannot hold, and the texts of these values, one a marked row."""

    rows: Mask
    texts: pa.Array


Filled = tuple[pa.Array, Odd | None]
#: What makes a column of Arrow from cells; raises BadCell.
Converter = Callable[[Cells, NativeType], Filled]


def convert_text(cells: Cells, native: NativeType) -> Filled:
    """A column of texts, such as the log has."""
    array, odd = convert(cells, native)
    return array, None if odd is None else Odd(odd, texts(cells.pick(odd)))


def row_schema(schema: TableSchema) -> pa.Schema:
    """The table's columns and the meta columns made here."""
    return pa.schema([*schema.arrow(), *(META.field(name) for name in _OURS)])


def build_table(  # noqa: PLR0913
    schema: TableSchema,
    natives: Sequence[NativeType],
    columns: Iterable[Cells],
    ops: pa.Array,
    seqs: Ints,
    converter: Converter,
) -> pa.Table:
    """Convert the columns, one after the other, and add the meta columns made here."""
    arrays: list[pa.Array] = []
    odd: dict[str, Odd] = {}
    unset: dict[str, Mask] = {}
    for column, native, cells in zip(schema.columns, natives, columns, strict=True):
        array, oddities = _convert(schema, column.name, native, cells, converter)
        if array.type != column.type:
            raise ValueError(
                f"{schema.table}, column {column.name}: {column.type} in the schema, not {array.type}"
            )
        arrays.append(array)
        if oddities is not None:
            odd[column.name] = oddities
        missing = cells.state == UNSET
        if missing.any():
            unset[column.name] = missing
    arrays += [ops, pa.array(seqs, pa.int64()), _unset_lists(unset, len(seqs)), _odd_texts(odd, len(seqs))]
    return pa.Table.from_arrays(arrays, schema=row_schema(schema))


def _convert(
    schema: TableSchema, name: str, native: NativeType, cells: Cells, converter: Converter
) -> Filled:
    try:
        return converter(cells, native)
    except BadCell as error:
        row, why = error.row, error.why
    raise DecodeError(f"{schema.table}, column {name} ({native.name}), row {row} of the batch: {why}")


def _unset_lists(unset: dict[str, Mask], count: int) -> pa.Array:
    """For each row the names of its columns that were not carried, null when it has all."""
    kind = META.field("_hw_unset").type
    if not unset:
        return pa.nulls(count, kind)
    masks = np.array(list(unset.values()))
    rows = np.flatnonzero(masks.any(axis=0))
    bits = np.ascontiguousarray(np.packbits(masks[:, rows], axis=0).T)
    # Few patterns, many rows: one list a pattern, taken by row.
    _, samples, pattern = np.unique(
        bits.view(np.dtype((np.void, bits.shape[1]))).ravel(), return_index=True, return_inverse=True
    )
    lists = [[n for n, m in zip(unset, masks[:, rows[s]], strict=True) if m] for s in samples]
    index = np.zeros(count, np.int64)
    index[rows] = pattern
    without = np.ones(count, bool)
    without[rows] = False
    return pa.array(lists, kind).take(pa.array(index, mask=without))


def _odd_texts(odd: dict[str, Odd], count: int) -> pa.Array:
    """For each row a JSON object of the texts its typed columns cannot hold, null when there is none."""
    if not odd:
        return pa.nulls(count, pa.string())
    some = np.logical_or.reduce([one.rows for one in odd.values()])
    rows = np.flatnonzero(some)
    fields = []
    for name, one in odd.items():
        # Odd texts are numbers, times and words such as NaN: nothing in them needs an escape.
        here = one.rows[rows]
        opened = pa.scalar(json.dumps(name, ensure_ascii=False) + ':"')
        text = one.texts.take(pa.array(np.cumsum(here) - 1, mask=~here))
        fields.append(pc.binary_join_element_wise(opened, text, '"', ""))
    joined = pc.binary_join_element_wise(*fields, ",", null_handling="skip")
    objects = pc.binary_join_element_wise("{", joined, "}", "")
    index = np.zeros(count, np.int64)
    index[rows] = np.arange(len(rows))
    return objects.take(pa.array(index, mask=~some))
