"""docs/types.md, written from the code: `python -m headwater.sources.postgres.typepage > docs/types.md`."""

from __future__ import annotations

import sys

import pyarrow as pa

from headwater.canonical import duckdb_type
from headwater.sources.postgres.values import SETTINGS, NativeType, arrow_type

#: A type as the page spells it, its oid and typmod, and which of its values are kept as text beside a NULL.
_TYPED: tuple[tuple[str, int, int, str], ...] = (
    ("boolean", 16, -1, ""),
    ("smallint", 21, -1, ""),
    ("integer", 23, -1, ""),
    ("bigint", 20, -1, ""),
    ("oid", 26, -1, ""),
    ("real", 700, -1, ""),
    ("double precision", 701, -1, ""),
    ("numeric(12,2): up to 38 digits", 1700, 4 + (12 << 16 | 2), "`NaN`"),
    ("numeric(3,-2): negative scale", 1700, 4 + (3 << 16 | 0x7FE), "`NaN`"),
    ("numeric(3,5): scale beyond precision", 1700, 4 + (3 << 16 | 5), "`NaN`"),
    ("numeric(39,2): more than 38 digits", 1700, 4 + (39 << 16 | 2), ""),
    ("numeric", 1700, -1, ""),
    ("date", 1082, -1, "`infinity`, `-infinity`"),
    ("time", 1083, -1, "`24:00:00`"),
    ("timestamp", 1114, -1, "`infinity`, `-infinity`, from 294247-01-10 04:00:54.775807 on"),
    ("timestamp with time zone", 1184, -1, "`infinity`, `-infinity`, from 294247-01-10 04:00:54.775807 on"),
    ("bytea", 17, -1, ""),
)

#: What becomes string: how the text looks, and the types.
_TEXTS: tuple[tuple[str, str], ...] = (
    ("as stored", 'text, character varying, character, name, "char", xml, json, citext, hstore'),
    ("normalised by the server: keys sorted, the last of duplicates", "jsonb, jsonpath"),
    ("the label", "enum types"),
    ("the array's own text with its bounds, such as `{1,NULL,3}` or `[2:3]={a,b}`", "every array type"),
    ('`(a,"b c",)`', "composite types"),
    ("`[1,5)`, `empty`, `{[1,3),[5,8)}`", "every range and multirange type"),
    ("`P1Y2M3DT4H5M6.7S`", "interval"),
    ("`12:34:56+02`", "time with time zone"),
    ("`-$1,234.50`, whatever the server's lc_monetary", "money"),
    ("`1011`", "bit, bit varying"),
    ("lower case with hyphens", "uuid"),
    (
        "as PostgreSQL prints it",
        "inet, cidr, macaddr, macaddr8, point, line, lseg, box, path, polygon, circle",
    ),
    ("as PostgreSQL prints it", "tsvector, tsquery, pg_lsn, pg_snapshot, txid_snapshot, tid, xid, xid8, cid"),
    (
        "the object's name",
        "regclass, regtype, regproc, regprocedure, regoper, regoperator, regrole, regnamespace",
    ),
    ("the object's name", "regconfig, regdictionary, regcollation, refcursor, aclitem, gtsvector"),
    (
        "as PostgreSQL prints it",
        "int2vector, oidvector, pg_node_tree, pg_ndistinct, pg_dependencies, pg_mcv_list",
    ),
    ("as PostgreSQL prints it", "pg_brin_bloom_summary, pg_brin_minmax_multi_summary"),
    (
        "its output function's text, such as the hex of EWKB for PostGIS",
        "every other type, of an extension or your own",
    ),
)

_PARQUET: dict[pa.DataType, str] = {
    pa.bool_(): "BOOLEAN",
    pa.int16(): "INT32, INT(16, signed)",
    pa.int32(): "INT32",
    pa.int64(): "INT64",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "BYTE_ARRAY, STRING",
    pa.binary(): "BYTE_ARRAY",
    pa.date32(): "INT32, DATE",
    pa.time64("us"): "INT64, TIME(micros)",
    pa.timestamp("us"): "INT64, TIMESTAMP(micros, local)",
    pa.timestamp("us", "UTC"): "INT64, TIMESTAMP(micros, UTC)",
}

_HEAD = """\
# Types

Written from the code by `python -m headwater.sources.postgres.typepage`; a test compares the two.

The rule is: **nothing is lost and nothing is guessed**. A type becomes a typed column when Arrow,
Parquet and DuckDB hold all its values, or all but a few. Those few are *odd*: the typed cell is NULL
and `_hw_text`, a JSON object in the same row, has their exact text under the column's name, in the raw
log, the lake and the warehouse. A type without a faithful match becomes a string, with the text that
PostgreSQL prints. Text that is no value of its type stops the run with an error that names table,
column and row, never the text.

## PostgreSQL

The log is read as text, a snapshot in binary where a type's binary form says the same, else as text;
all under the same settings, and one row has the same values, bit by bit, by both roads. A domain is read
as the type beneath it.

| PostgreSQL | Arrow | Parquet | DuckDB | kept as text in `_hw_text` |
|---|---|---|---|---|
"""

_MIDDLE = """
Exact means: integers and decimals digit by digit; floating point bit by bit, with -0, subnormals,
infinities and NaN; dates from 4714 BC to 5874897 AD and timestamps from 4714 BC in the proleptic
Gregorian calendar, where the year before 1 AD is 1 BC (year 0 of ISO 8601). Python's `datetime` ends at
the years 1 and 9999: read such columns through DuckDB, Polars or Arrow integers. The last microsecond
of 64 bits is kept as text because DuckDB reads that number as infinity. An infinite `numeric` is only
possible without a precision, where the column is a string.

| becomes `string`, as | types |
|---|---|
"""

_TAIL = """
NULL is NULL. A column the log did not carry (an unchanged TOAST value, the non-key columns of a delete
under a key-only replica identity) is NULL in the typed column and named in `_hw_unset`.

The text depends on these settings, which every session that reads has:

| setting | value |
|---|---|
"""


def render() -> str:
    """The page."""
    typed = (_typed_row(*row) for row in _TYPED)
    texts = (f"| {shape} | {names} |\n" for shape, names in _TEXTS)
    settings = (f"| {name} | {value} |\n" for name, value in SETTINGS.items())
    return "".join([_HEAD, *typed, _MIDDLE, *texts, _TAIL, *settings])


def _typed_row(spelt: str, oid: int, typmod: int, odd: str) -> str:
    kind = arrow_type(NativeType(oid, typmod, spelt, oid, typmod, "b"))
    parquet = _PARQUET.get(kind) or f"DECIMAL({kind.precision},{kind.scale})"
    return f"| {spelt} | {kind} | {parquet} | {duckdb_type(kind)} | {odd} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
