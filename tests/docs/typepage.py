"""docs/types.md from the code: a row for a type, a column for a place; tests/roundtrip tries each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from deltalake import Schema

from headwater.canonical import duckdb_type
from headwater.formats.cells import TYPES, cell_of
from headwater.formats.iceberg.schema import iceberg_types
from headwater.lake.stored import stored_type
from headwater.sources.postgres.values import SETTINGS, NativeType, arrow_type


@dataclass(frozen=True)
class Row:
    """Types that are treated alike.

    names   as PostgreSQL spells them, what stands after a colon being an explanation
    kept    of a typed column: the values that are kept as text beside a NULL; of text: what the text is
    """

    names: str
    kept: str = ""
    oid: int = 0
    typmod: int = -1

    @property
    def arrow(self) -> pa.DataType:
        """What the types become."""
        return arrow_type(NativeType(self.oid, self.typmod, self.names, self.oid, self.typmod, "b"))

    @property
    def types(self) -> list[str]:
        """Each type by itself."""
        names = self.names.split(": ", 1)[0]
        return [names] if "(" in names else names.split(", ")


def _numeric(precision: int, scale: int) -> int:
    return 4 + (precision << 16 | scale & 0x7FF)


_ENDLESS = "`infinity`, `-infinity`"
_BEYOND = f"{_ENDLESS}, from 294247-01-10 04:00:54.775807 on"
_PRINTED = "as PostgreSQL prints it"
_CALLED = "the object's name, as it is when the row is read"

ROWS: tuple[Row, ...] = (
    Row("boolean", oid=16),
    Row("smallint", oid=21),
    Row("integer", oid=23),
    Row("bigint", oid=20),
    Row("oid", oid=26),
    Row("real", oid=700),
    Row("double precision", oid=701),
    Row("numeric(12,2): up to 38 digits", "`NaN`", 1700, _numeric(12, 2)),
    Row("numeric(38,38)", "`NaN`", 1700, _numeric(38, 38)),
    Row("numeric(3,-2): negative scale", "`NaN`", 1700, _numeric(3, -2)),
    Row("numeric(3,5): scale beyond precision", "`NaN`", 1700, _numeric(3, 5)),
    Row("numeric(39,2): more than 38 digits", "text: all digits", 1700, _numeric(39, 2)),
    Row("numeric", "text: all digits, `NaN`, `Infinity`", 1700),
    Row("money", "text: `-$1,234.50`, whatever the server's lc_monetary"),
    Row("date", _ENDLESS, 1082),
    Row("time", "`24:00:00`", 1083),
    Row("time with time zone", "text: `12:34:56+02`"),
    Row("timestamp", _BEYOND, 1114),
    Row("timestamp with time zone", _BEYOND, 1184),
    Row("interval", "text: `P1Y2M3DT4H5M6.7S`"),
    Row("text, character varying, character, name, \"char\"", "text: as stored, blanks at the end too"),
    Row("bytea", oid=17),
    Row("bit, bit varying", "text: `1011`"),
    Row("uuid", "text: lower case with hyphens"),
    Row("json, xml", "text: as stored"),
    Row("jsonb, jsonpath", "text: as the server normalises it: keys sorted, the last of duplicates"),
    Row("enum types", "text: the label"),
    Row("domains: as the type beneath", "as of the type beneath"),
    Row("composite types", 'text: `(a,"b c",)`'),
    Row("arrays: of every type", "text: with its bounds, such as `{1,NULL,3}` or `[2:3]={a,b}`"),
    Row("int4range, int8range, numrange, tsrange, tstzrange, daterange", "text: `[1,5)`, `empty`"),
    Row(
        "int4multirange, int8multirange, nummultirange, tsmultirange, tstzmultirange, datemultirange",
        "text: `{[1,3),[5,8)}`",
    ),
    Row("inet, cidr, macaddr, macaddr8", f"text: {_PRINTED}"),
    Row("point, line, lseg, box, path, polygon, circle", f"text: {_PRINTED}"),
    Row("tsvector, tsquery", f"text: {_PRINTED}"),
    Row("pg_lsn, pg_snapshot, txid_snapshot, tid, xid, xid8, cid", f"text: {_PRINTED}"),
    Row(
        "regclass, regtype, regproc, regprocedure, regoper, regoperator, regrole, regnamespace, regconfig,"
        " regdictionary, regcollation",
        f"text: {_CALLED}",
    ),
    Row("refcursor, aclitem, int2vector, oidvector", f"text: {_PRINTED}"),
    Row("pg_node_tree, pg_ndistinct, pg_dependencies, pg_mcv_list", f"text: {_PRINTED}"),
    Row(
        "gtsvector, pg_brin_bloom_summary, pg_brin_minmax_multi_summary",
        f"text: {_PRINTED}; no SQL makes a value of these, so only NULL was tried",
    ),
    Row("citext, hstore", "text: as stored"),
    Row("other types: of an extension, or your own",
        "text: its output function's, such as the hex of EWKB for PostGIS"),
)  # fmt: skip

_PARQUET: dict[pa.DataType, str] = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "INT32, INT(8, signed)",
    pa.uint8(): "INT32, INT(8, unsigned)",
    pa.uint16(): "INT32, INT(16, unsigned)",
    pa.uint32(): "INT32, INT(32, unsigned)",
    pa.uint64(): "INT64, INT(64, unsigned)",
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


def parquet(kind: pa.DataType) -> str:
    """A column of the raw log's Parquet files."""
    return _PARQUET.get(kind) or f"DECIMAL({kind.precision},{kind.scale})"


def delta(kind: pa.DataType) -> str:
    """A column of the lake's Delta tables."""
    found = Schema.from_arrow(pa.schema([("x", stored_type(kind))])).fields[0].type
    return str(found.type) + _clock(kind)


def iceberg(kind: pa.DataType) -> str:
    """A column of an Iceberg view."""
    return str(iceberg_types({"x": kind})["x"]) + _clock(kind)


def _clock(kind: pa.DataType) -> str:
    return " `HH:MM:SS.ffffff`" if kind == pa.time64("us") else ""


def shown(view: str, kind: pa.DataType) -> str:
    """A column of a view of Hive folders."""
    made = cell_of(view, kind)
    assert made is not None, f"{view} cannot hold {kind}, which check refuses: the page has to say so"
    decimal = pa.types.is_decimal(kind)
    return made.held.replace("(p, s)", f"({kind.precision}, {kind.scale})") if decimal else made.held


#: The columns of the page: its head, and what a column of an Arrow type is there. More places: more rows.
PLACES: tuple[tuple[str, Callable[[pa.DataType], str]], ...] = (
    ("Arrow", str),
    ("raw log (Parquet)", parquet),
    ("lake: `delta`", delta),
    ("`iceberg`", iceberg),
    ("`parquet`", lambda kind: shown("parquet", kind)),
    ("`orc`", lambda kind: shown("orc", kind)),
    ("`csv`", lambda kind: shown("csv", kind)),
    ("warehouse (DuckDB)", duckdb_type),
)


def type_contract() -> str:
    """The table of all types and places."""
    heads = ["PostgreSQL", *(head for head, _ in PLACES), "what else is kept, and how"]
    return "\n".join([_line(heads), "|---" * len(heads) + "|", *(_line(cells) for cells in _cells())])


def _cells() -> Iterator[list[str]]:
    for row in ROWS:
        nested = row.names.startswith("domains")
        places = ["as beneath" if nested else place(row.arrow) for _, place in PLACES]
        plain = not row.kept or row.kept.startswith(("text", "as of"))
        kept = row.kept if plain else f"{row.kept} in `_hw_text`"
        yield [row.names, *places, kept]
    known = {row.arrow for row in ROWS}
    for kind in TYPES.values():
        # A source of another distribution may have it; tests/contracts takes it through lake and views.
        if kind not in known and not pa.types.is_decimal(kind):
            yield ["none", *(place(kind) for _, place in PLACES), "for sources that have the type"]


def type_settings() -> str:
    """The settings under which the source's text is read."""
    return "\n".join(["| setting | value |", "|---|---|", *(f"| {n} | {v} |" for n, v in SETTINGS.items())])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
