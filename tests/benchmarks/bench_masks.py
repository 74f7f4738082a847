"""What masks cost: rows a second through each, beside the copy of the column that any batch needs."""

from __future__ import annotations

import time
from decimal import Decimal
from statistics import median

import pyarrow as pa
import pytest

from headwater.config import Mask
from headwater.masking.rows import mask_rows
from headwater.masking.rules import mask_schema
from masking.batches import KEY, TOOLS, rows_of, schema_of, spec_of

ROWS = 200_000

KINDS = {
    "unique texts": (pa.string(), [f"user{n}@example.com" for n in range(ROWS)]),
    "1,000 distinct texts": (pa.string(), [f"user{n % 1000}@example.com" for n in range(ROWS)]),
    "unique integers": (pa.int64(), list(range(ROWS))),
    "unique decimals": (pa.decimal128(12, 2), [Decimal(n) / 4 for n in range(ROWS)]),
}
MASKS = [Mask("hash"), Mask("tokenize"), Mask("redact", 4), Mask("truncate", 3), Mask("null"), Mask("drop")]


@pytest.mark.parametrize("values", KINDS)
@pytest.mark.parametrize("mask", MASKS, ids=lambda m: m.kind)
def test_rows_a_second(values: str, mask: Mask) -> None:
    kind, data = KINDS[values]
    schema = schema_of(("v", kind, "text"))
    one = rows_of(schema, {})
    rows = pa.concat_tables([one] * ROWS).combine_chunks().set_column(1, "v", pa.array(data, kind))
    masked = mask_schema(schema, spec_of(v=mask), KEY.id)
    seconds, cpu = [], []
    for _ in range(3):
        began, used = time.perf_counter(), time.process_time()
        assert len(mask_rows(rows, schema, masked, TOOLS)) == ROWS
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    print(
        f"\n{mask.kind:10} {values:22} {ROWS / median(seconds):>12,.0f} rows/s"
        f" {median(cpu) / ROWS * 1e6:8.2f} us CPU a row"
    )
