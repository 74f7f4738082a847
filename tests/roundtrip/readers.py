"""Engines that read what is stored, each by itself, and what the cells that they find mean."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from csv import reader as text_rows
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder
from pyarrow import csv, orc

from postgres.plain import DAY, days_of, meaning

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ISO = re.compile(r"([+-]?\d{4,7})-(\d\d)-(\d\d)(?:T(\d\d:\d\d:\d\d\.\d{6})(Z?))?")
_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def _by_duckdb(lake: DeltaTable) -> pa.Table:
    return _parquet_by_duckdb(lake.file_uris())


def _by_deltalake(lake: DeltaTable) -> pa.Table:
    found = QueryBuilder().register("t", lake).execute("select * from t")
    return _without_views(pa.table(found.read_all()))


def _without_views(table: pa.Table) -> pa.Table:
    # Arrow's own functions do not take views yet.
    return table.cast(pa.schema([f.with_type(_VIEWS.get(f.type, f.type)) for f in table.schema]))


def _parquet_by_duckdb(files: list[str]) -> pa.Table:
    with _duckdb() as con:
        return con.sql("select * from read_parquet($1)", params=[files]).to_arrow_table()


def _csv_by_duckdb(files: list[str]) -> pa.Table:
    with _duckdb() as con:
        return con.read_csv(files, all_varchar=True, allow_quoted_nulls=False).to_arrow_table()  # type: ignore[arg-type]


@contextmanager
def _duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        yield con


def _parquet_by_pyarrow(files: list[str]) -> pa.Table:
    return pa.concat_tables(map(pq.read_table, files), promote_options="default")


def _csv_by_pyarrow(files: list[str]) -> pa.Table:
    """As text; a row of the tests is longer than a block of Arrow's own choice."""
    read, parse = csv.ReadOptions(block_size=1 << 26), csv.ParseOptions(newlines_in_values=True)
    tables = []
    for file in files:
        plain = gzip.decompress(Path(file).read_bytes())
        (names,) = text_rows([plain[: plain.index(b"\n")].decode()])
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
        )  # fmt: skip
        tables.append(csv.read_csv(io.BytesIO(plain), read, parse, convert))
    return pa.concat_tables(tables)


def _csv_by_polars(files: list[str]) -> pa.Table:
    frames = [pl.read_csv(gzip.decompress(Path(f).read_bytes()), infer_schema=False) for f in files]
    return _without_views(pl.concat(frames).to_arrow())


def _iceberg_by_pyiceberg(folder: str) -> pa.Table:
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(folder).scan().to_arrow()


def _iceberg_by_polars(folder: str) -> pa.Table:
    from pyiceberg.table import StaticTable

    return _without_views(pl.scan_iceberg(StaticTable.from_metadata(folder)).collect().to_arrow())


#: Readers of a table of the lake.
LAKE: Mapping[str, Callable[[DeltaTable], pa.Table]] = {
    "duckdb": _by_duckdb,
    "polars": lambda lake: pl.read_delta(lake.table_uri).to_arrow(),
    "pyarrow": lambda lake: _parquet_by_pyarrow(lake.file_uris()),
    "deltalake": _by_deltalake,
}
#: Readers of the files that a manifest names.
FILES: Mapping[tuple[str, str], Callable[[list[str]], pa.Table]] = {
    ("parquet", "duckdb"): _parquet_by_duckdb,
    ("parquet", "polars"): lambda files: _without_views(pl.read_parquet(files, glob=False).to_arrow()),
    ("parquet", "pyarrow"): _parquet_by_pyarrow,
    ("orc", "pyarrow"): lambda files: pa.concat_tables(orc.ORCFile(f).read() for f in files),
    ("csv", "duckdb"): _csv_by_duckdb,
    ("csv", "polars"): _csv_by_polars,
    ("csv", "pyarrow"): _csv_by_pyarrow,
}
#: Readers of an Iceberg table.
ICEBERG: Mapping[str, Callable[[str], pa.Table]] = {
    "pyiceberg": _iceberg_by_pyiceberg,
    "polars": _iceberg_by_polars,
}


def files_of(view: Path) -> list[str]:
    """The files of a view by its manifest."""
    lines = (view / "_symlink_format_manifest" / "manifest").read_text().splitlines()
    return [line.removeprefix("file://") for line in lines]


def read_view(view: str, reader: str, folder: Path) -> pa.Table:
    """What a reader finds in a view."""
    if view == "iceberg":
        return ICEBERG[reader](str(folder))
    return FILES[view, reader](files_of(folder))


@contextmanager
def open_spark() -> Iterator[SparkSession]:
    """A Spark of one core, in another time zone than UTC: nothing may depend on where it runs."""
    from pyspark.sql import SparkSession

    made = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    made = made.config("spark.sql.session.timeZone", "UTC").config("spark.driver.host", "127.0.0.1")
    made = made.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.memory", "1g")
    spark = made.config("spark.driver.extraJavaOptions", "-Duser.timezone=Europe/Berlin").getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def read_by_spark(spark: SparkSession, view: str, files: list[str]) -> pa.Table:
    """What Spark finds in the files of a view, by the call of docs/formats.md."""
    if view == "csv":
        options = {"header": True, "multiLine": True, "escape": '"', "nullValue": "\x01"}
        return spark.read.csv(files, **options).toArrow()  # type: ignore[arg-type]
    return (spark.read.parquet(*files) if view == "parquet" else spark.read.orc(files)).toArrow()


def spelled(column: pa.Array, wanted: pa.DataType) -> list[str | None]:
    """The canonical text of cells that a format holds as text."""
    return [None if text is None else _means(wanted, text) for text in column.cast(pa.string()).to_pylist()]


def _means(kind: pa.DataType, text: str) -> str:
    """What docs/types.md says that the text of a cell means."""
    if kind == pa.bool_():
        return {"true": "t", "false": "f"}[text]
    if pa.types.is_floating(kind):
        return meaning("real" if kind == pa.float32() else "double precision", text.encode())
    if kind == pa.time64("us"):
        assert len(text) == len("HH:MM:SS.ffffff")
        return meaning("time", text.encode())
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return str(_moment(text, kind))
    return text


def _moment(text: str, kind: pa.DataType) -> int:
    found = _ISO.fullmatch(text)
    assert found, text
    year, sized = int(found[1]), found[1].lstrip("+-")
    assert found[1][0] in "+-" or 0 <= year <= 9999, text
    assert len(sized) == 4 or year > 9999, text
    days = days_of(year, int(found[2]), int(found[3]))
    assert days is not None
    if found[4] is None:
        assert kind == pa.date32()
        return days
    assert bool(found[5]) == (kind == pa.timestamp("us", "UTC"))
    return days * DAY + int(meaning("time", found[4].encode()))


def only(table: pa.Table, op: str) -> pa.Table:
    """The rows of one kind."""
    return table.filter(pc.equal(table["_hw_op"].cast(pa.string()), op))
