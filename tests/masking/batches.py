"""Batches made of Python rows, and masks over them."""

import json
from typing import Any

import pyarrow as pa

from headwater.config import Mask, TableSpec
from headwater.masking.functions import MaskKey, Tools
from headwater.masking.rows import mask_rows
from headwater.masking.rules import mask_schema
from headwater.model import META, Column, TableId, TableSchema
from headwater.secrets import Secret

TABLE = TableId("public", "people")
SECRET = "0123456789abcdef0123456789abcdef"
KEY = MaskKey(Secret(SECRET))
TOOLS = Tools(KEY)


def schema_of(*columns: tuple[str, pa.DataType, str], key: tuple[str, ...] = ("id",)) -> TableSchema:
    made = [Column(name, kind, native, origin=f"7.{n}") for n, (name, kind, native) in enumerate(columns, 1)]
    return TableSchema(TABLE, (Column("id", pa.int64(), "bigint", False, origin="7.99"), *made), key)


def spec_of(*columns: str, **masks: Mask) -> TableSpec:
    return TableSpec(TABLE, columns=columns, masks=masks)


def rows_of(schema: TableSchema, *rows: dict[str, Any]) -> pa.Table:
    """Rows; `text` and `unset` are the two meta columns that speak of others."""
    listed = []
    for number, row in enumerate(rows):
        values = {k: v for k, v in row.items() if k not in ("text", "unset", "op")}
        text = json.dumps(row["text"], ensure_ascii=False) if "text" in row else None
        meta = {"_hw_op": row.get("op", "c"), "_hw_seq": number * 4 + 2, "_hw_pos": "0/1", "_hw_text": text}
        listed.append({"id": number, **values, **meta, "_hw_unset": row.get("unset")})
    return pa.Table.from_pylist(listed, schema=pa.schema([*schema.arrow(), *META]))


def mask(schema: TableSchema, spec: TableSpec, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows under the masks, as Python values."""
    masked = mask_schema(schema, spec, KEY.id)
    made = mask_rows(rows_of(schema, *rows), schema, masked, TOOLS)
    made.validate(full=True)
    assert made.schema.equals(pa.schema([*masked.arrow(), *META]))
    result: list[dict[str, Any]] = made.to_pylist()
    return result
