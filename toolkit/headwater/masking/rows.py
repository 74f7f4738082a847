"""Batches under masks: the columns, and what the meta columns say of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from headwater.canonical import canonical_text, column_texts, duckdb_type, literal, quote, shown_text
from headwater.errors import SourceError
from headwater.masking.functions import MASKS, SHOWN, Refused, Tools
from headwater.masking.rules import read_mask
from headwater.model import META, Column, TableSchema


def mask_rows(rows: pa.Table, schema: TableSchema, masked: TableSchema, tools: Tools) -> pa.Table:
    """The rows of `schema` as rows of `masked`, in the same order, with META.

    `_hw_text` loses the texts of masked columns, `_hw_unset` the names of columns that were left out. Raises
    SourceError, without a value in it, for rows that cannot be masked.
    """
    try:
        return _mask_rows(rows, schema, masked, tools)
    except Refused:
        names = ", ".join(
            c.name for c in (*masked.columns, *masked.left_out) if c.mask or c in masked.left_out
        )
        raise SourceError(f"{schema.table}: the rows cannot be masked ({names})", hint=_REPORT) from None


_REPORT = "headwater check; if all is well there, please report this"


def _mask_rows(rows: pa.Table, schema: TableSchema, masked: TableSchema, tools: Tools) -> pa.Table:
    own = {c.name: c for c in schema.columns}
    marked = [c for c in masked.columns if c.mask]
    texts = _texts(rows, schema, [(own[c.name], c) for c in marked], tools)
    made = {c.name: _mask(c, texts.get(c.name, rows[c.name]), tools) for c in marked}
    gone = [c.name for c in masked.left_out]
    made["_hw_text"] = _without_texts(rows["_hw_text"], [*(c.name for c in marked), *gone], tools)
    made["_hw_unset"] = _without_names(rows["_hw_unset"], gone, tools)
    wanted = pa.schema([*masked.arrow(), *META])
    return pa.table([made[f.name] if f.name in made else rows[f.name] for f in wanted], wanted)


def _mask(column: Column, values: pa.ChunkedArray, tools: Tools) -> pa.ChunkedArray:
    mask = read_mask(column.mask)
    make = MASKS[mask.kind]
    if make is None:
        raise ValueError(f"{column.name} has the mask {mask.kind}, and so is no column")
    return make(values, mask.keep, tools)


def _texts(
    rows: pa.Table, schema: TableSchema, columns: Sequence[tuple[Column, Column]], tools: Tools
) -> dict[str, pa.ChunkedArray]:
    """The texts of those columns whose mask is over a text that their values are not yet."""
    wanted = {c.name: text for c, masked in columns if (text := _text(schema, c, masked))}
    if not wanted:
        return {}
    needed = rows.select([*wanted, "_hw_text"])
    listed = ", ".join(f"{text} AS {quote(name)}" for name, text in wanted.items())
    found = tools.query(f"SELECT {listed} FROM rows", needed)
    return {name: found[name] for name in wanted}


def _text(schema: TableSchema, column: Column, masked: Column) -> str:
    """SQL of the text that the mask is over; "" where that is the value itself, or where none is needed."""
    kind = read_mask(masked.mask).kind
    if kind == "hash":
        return _canonical(schema, column)
    if kind not in SHOWN or column.type == pa.string():
        return ""
    if column.type == pa.binary():
        return canonical_text(quote(column.name), duckdb_type(column.type))
    return shown_text(column.name, duckdb_type(column.type), beside=True)


def _canonical(schema: TableSchema, column: Column) -> str:
    """Numbers lose the zeros at their end, so that 1.50, 1.5 and 1.5000 are one text whatever their scale."""
    numeric = pa.types.is_decimal(column.type) or column.native.startswith("numeric")
    if column.type == pa.string() and not numeric:
        return ""
    one = TableSchema(schema.table, (column,))
    text = quote(column.name) if column.type == pa.string() else column_texts(one)[column.name]
    if not numeric:
        return text
    return rf"regexp_replace(regexp_replace({text}, '^(-?\d+\.\d*[1-9])0+$', '\1'), '^(-?\d+)\.0+$', '\1')"


def _without_texts(texts: pa.ChunkedArray, names: Sequence[str], tools: Tools) -> pa.ChunkedArray:
    """`_hw_text` without these columns."""
    if texts.null_count == len(texts):
        return texts
    patch = literal(json.dumps(dict.fromkeys(names)))
    # A null in a merge patch takes the member out (RFC 7396).
    left = f"nullif(CAST(json_merge_patch(t, {patch}) AS VARCHAR), '{{}}')"
    sql = f"SELECT CASE WHEN t IS NOT NULL THEN {left} END AS t FROM rows"
    return tools.query(sql, pa.table({"t": texts}))["t"]


def _without_names(lists: pa.ChunkedArray, names: Sequence[str], tools: Tools) -> pa.ChunkedArray:
    """`_hw_unset` without these columns; null where none is left."""
    if not names or lists.null_count == len(lists):
        return lists
    gone = ", ".join(map(literal, names))
    kept = f"[name FOR name IN u IF name NOT IN ({gone})]"
    return tools.query(
        f"SELECT CASE WHEN len({kept}) > 0 THEN {kept} END AS u FROM rows", pa.table({"u": lists})
    )["u"]
