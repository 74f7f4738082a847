"""The canonical text of `verify` in PostgreSQL, by the Arrow type that the decoder gives a column.

| Arrow type       | text                                             | what the decoder puts into `_hw_text`|
|------------------|--------------------------------------------------|--------------------------------------|
| bool             | t or f                                           |                                      |
| int16 to int64   | decimal                                          |                                      |
| decimal128(p,s)  | with all its s digits                            | ~NaN ~Infinity ~-Infinity            |
| float32, float64 | the bits of the double as int64; one NaN         |                                      |
| string           | as the type's output function writes it          |                                      |
| binary           | lower-case hex                                   |                                      |
| date32           | days since 1970-01-01                            | ~infinity ~-infinity                 |
| time64[us]       | microseconds of the day                          | ~24:00:00                            |
| timestamp[us]    | microseconds since 1970-01-01 (UTC)              | ~text if infinite or beyond 64 bits  |

A row is, for each column in order, octet_length||':'||text, or N for NULL. The digest is the count of rows
and the sums of the four 32-bit words of each row's MD5. `headwater.canonical` is the same in DuckDB.
"""

from __future__ import annotations

import pyarrow as pa

from headwater.model import Column, TableSchema
from headwater.sources.postgres.quoting import quote_name

_DECIMAL = "case when {c}::text in ('NaN', 'Infinity', '-Infinity') then '~' else '' end || {c}::text"
_BITS = "('x' || encode(float8send({c}::float8), 'hex'))::bit(64)::bigint::text"
_FLOAT = "case when {c} = 'NaN' then '9221120237041090560' else " + _BITS + " end"
_DATE = "case when isfinite({c}) then ({c} - date '1970-01-01')::text else '~' || {c}::text end"
_TIME = (
    "case when {c} = time '24:00:00' then '~24:00:00'"
    " else (extract(epoch from {c}) * 1000000)::bigint::text end"
)
# 2**63 - 1 itself is text too: DuckDB reads that number as infinity. The moment is compared, not its epoch,
# which PostgreSQL rounds to 16 digits from there on.
_TIMESTAMP = (
    "case when isfinite({c}) and {c} < '294247-01-10 04:00:54.775807+00'"
    " then (extract(epoch from {c}) * 1000000)::bigint::text else '~' || {c}::text end"
)

_TEXTS: dict[pa.DataType, str] = {
    pa.bool_(): "case when {c} then 't' else 'f' end",
    pa.int16(): "{c}::text",
    pa.int32(): "{c}::text",
    pa.int64(): "{c}::text",
    pa.float32(): _FLOAT,
    pa.float64(): _FLOAT,
    # A cast to text would drop the blanks of char(n) and add the mask to inet.
    pa.string(): "format('%s', {c})",
    pa.binary(): "encode({c}, 'hex')",
    pa.date32(): _DATE,
    pa.time64("us"): _TIME,
    pa.timestamp("us"): _TIMESTAMP,
    pa.timestamp("us", "UTC"): _TIMESTAMP,
}


def canonical_text(column: Column) -> str:
    """SQL for the canonical text of a column's value; NULL gives NULL or text that nobody looks at."""
    template = _DECIMAL if pa.types.is_decimal(column.type) else _TEXTS[column.type]
    return template.replace("{c}", quote_name(column.source_name))


def digest_query(schema: TableSchema, source: str, where: str = "") -> str:
    """SQL of one row: the count, then the four sums. `source` stands after FROM."""
    names = [quote_name(c.source_name) for c in schema.columns]
    # IS NOT NULL is false for a composite value with a NULL in it.
    texts = [
        f"case when {name} is distinct from null then {canonical_text(c)} end as t{n}"
        for n, (name, c) in enumerate(zip(names, schema.columns, strict=True))
    ]
    fields = [f"coalesce(octet_length(t{n})::text || ':' || t{n}, 'N')" for n in range(len(texts))]
    words = ", ".join(
        f"coalesce(sum(('x' || substr(h, {at}, 8))::bit(32)::bigint), 0)" for at in (1, 9, 17, 25)
    )
    condition = f" where {where}" if where else ""
    return (
        f"select count(*), {words} from (select md5({' || '.join(fields) or chr(39) * 2}) as h"
        f" from (select {', '.join(texts)} from {source}{condition} offset 0) as texts) as rows"
    )
