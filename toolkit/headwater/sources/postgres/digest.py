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

from collections.abc import Collection, Sequence

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


def digests_query(schema: TableSchema, source: str, slices: int = 1, where: str = "") -> str:
    """SQL of one row for each slice that has rows: its number, the count, the four sums.

    `source` stands after FROM.
    """
    fields = [_field(f"t{n}") for n in range(len(schema.columns))]
    names = [c.name for c in schema.columns]
    key = [fields[names.index(name)] for name in schema.key]
    texts = [f"{_text(c)} as t{n}" for n, c in enumerate(schema.columns)]
    words = ", ".join(f"sum({_word('h', at)})" for at in (1, 9, 17, 25))
    condition = f" where {where}" if where else ""
    # One slice is all there is, or the row tells its own: then no row needs a second MD5.
    told = f", {_md5(key)} as g" if key and slices > 1 else ""
    sliced = _slice("g" if told else "h", slices) if slices > 1 else "0"
    return (
        f"select {sliced} as slice, count(*), {words} from (select {_md5(fields)} as h{told}"
        f" from (select {', '.join(texts)} from {source}{condition} offset 0) as texts) as rows group by 1"
    )


def slice_condition(schema: TableSchema, slices: int, chosen: Collection[int]) -> str:
    """SQL that is true for the rows of some slices."""
    columns = {c.name: c for c in schema.columns}
    fields = [_field(f"({_text(columns[name])})") for name in schema.key or columns]
    return f"{_slice(_md5(fields), slices)} in ({', '.join(map(str, sorted(chosen)))})"


def _text(column: Column) -> str:
    # IS NOT NULL is false for a composite value with a NULL in it.
    return (
        f"case when {quote_name(column.source_name)} is distinct from null then {canonical_text(column)} end"
    )


def _field(text: str) -> str:
    return f"coalesce(octet_length({text})::text || ':' || {text}, 'N')"


def _md5(fields: Sequence[str]) -> str:
    return f"md5({' || '.join(fields) or chr(39) * 2})"


def _slice(md5: str, slices: int) -> str:
    return f"{_word(md5, 1)} % {slices}"


def _word(md5: str, at: int) -> str:
    return f"('x' || substr({md5}, {at}, 8))::bit(32)::bigint"
