"""Every engine that reads a format finds the same rows, by one hash; Spark: tests/roundtrip."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyarrow import orc

from contracts.views import TABLE, ViewContract
from headwater.config import TableSpec
from headwater.formats import Formats, Shown
from headwater.lake.commits import folder_of
from headwater.lake.delta import Lake
from headwater.storage import Storage

#: Ordinary values: the contract suite tries the rest.
TYPES = {
    "id": pa.int64(),
    "ok": pa.bool_(),
    "n": pa.int32(),
    "price": pa.decimal128(38, 4),
    "name": pa.string(),
    "day": pa.date32(),
    "moment": pa.timestamp("us", "UTC"),
    "clock": pa.time64("us"),
    "raw": pa.binary(),
    "x": pa.float64(),
    "_hw_seq": pa.int64(),
}
ROWS = """
SELECT range AS id, range % 3 = 0 AS ok, CASE WHEN range % 5 > 0 THEN range::INTEGER - 500 END AS n,
    CAST((range - 500) || '00000000000000000000000000000.0625' AS DECIMAL(38, 4)) AS price,
    CASE range % 4 WHEN 0 THEN '' WHEN 1 THEN NULL ELSE 'ein "Wort", ' || chr(128512) || range END AS name,
    DATE '1582-10-20' + (range * 300)::INTEGER AS day,
    TIMESTAMPTZ '1969-12-31 23:59:59.999999+00' + INTERVAL (range * 86399) SECOND AS moment,
    TIME '00:00:00.000001' + INTERVAL (range) MINUTE AS clock,
    CASE WHEN range % 7 > 0 THEN encode(range || chr(0)) END AS raw, range / 7 AS x, range * 4 AS _hw_seq
FROM range({}, {})
"""
#: The rows as text: one spelling for all engines. {x} are cells that formats hold as text or binary.
CELLS = """
SELECT id, concat_ws('|', id, CAST(ok AS BOOLEAN), coalesce(CAST(n AS VARCHAR), '-'),
    CAST(price AS DECIMAL(38, 4)), coalesce(name, '-'), CAST(day AS DATE),
    epoch_us(CAST(moment AS TIMESTAMPTZ)), CAST(clock AS TIME), coalesce(lower({raw}), '-'),
    CAST(x AS DOUBLE), _hw_seq) AS line
FROM t ORDER BY CAST(id AS BIGINT)
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Storage, Lake, dict[str, Shown]]]:
    folder = tmp_path_factory.mktemp("readers")
    with Storage.open(str(folder / "store"), cache=folder) as storage:
        lake, made = Lake(storage), ViewContract()
        held = made.commit(lake, None, ROWS.format(0, 500), TYPES)
        gone = held.files["path"].to_pylist()
        held = made.commit(lake, held, ROWS.format(500, 800), TYPES)
        made.commit(lake, held, ROWS.format(800, 1000), TYPES, remove=gone)
        spec = TableSpec(TABLE, formats=("iceberg", "parquet", "orc", "csv"))
        yield storage, lake, {s.target.view: s for s in Formats(storage, lake).publish(spec)}


def files(storage: Storage, shown: Shown) -> list[str]:
    """The files of a view by its manifest."""
    return [line.removeprefix("file://") for line in storage.read(shown.pointer).decode().splitlines()]


def digest(table: Any, raw: str = "hex(raw)") -> str:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("t", table)
        lines = con.execute(CELLS.format(raw=raw)).fetchall()
    assert len(lines) == 500
    return hashlib.sha256("\n".join(line for _, line in lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def truth(published: tuple[Storage, Lake, dict[str, Shown]]) -> str:
    """The hash of the rows as we read them."""
    _, lake, _ = published
    held = lake.open(TABLE, "mirror")
    assert held is not None
    with lake.connect() as con:
        return digest(con.sql(f"SELECT * FROM {lake.scan(held)}").to_arrow_table())


def test_readers_of_files(
    published: tuple[Storage, Lake, dict[str, Shown]], truth: str, tmp_path: Path
) -> None:
    storage, _, shown = published
    parquet, csv = files(storage, shown["parquet"]), files(storage, shown["csv"])
    uri, _options = storage.delta(folder_of(TABLE, "mirror"))
    assert digest(DeltaTable(uri).to_pyarrow_table()) == truth
    assert digest(pl.read_delta(uri).to_arrow()) == truth
    assert digest(ds.dataset(parquet).to_table()) == truth
    assert digest(pl.read_parquet(parquet, glob=False).to_arrow()) == truth
    with duckdb.connect() as con:
        assert digest(con.read_parquet(parquet).to_arrow_table()) == truth
        assert (
            digest(con.read_csv(csv, all_varchar=True, allow_quoted_nulls=False).to_arrow_table(), "raw")
            == truth
        )
    texts = dict.fromkeys(TYPES, pl.String)
    found = pl.concat(
        pl.read_csv(
            gzip.decompress(Path(file).read_bytes()),
            schema_overrides=texts,
        )
        for file in csv
    )
    assert digest(found.to_arrow(), "raw") == truth
    assert (
        digest(pa.concat_tables(orc.ORCFile(file).read() for file in files(storage, shown["orc"]))) == truth
    )
    assert digest(pa.concat_tables(map(pq.read_table, parquet))) == truth


def test_readers_of_iceberg(published: tuple[Storage, Lake, dict[str, Shown]], truth: str) -> None:
    from pyiceberg.table import StaticTable

    storage, _, shown = published
    table = StaticTable.from_metadata(str(storage.fetch(shown["iceberg"].pointer)))
    assert digest(table.scan().to_arrow()) == truth
    assert digest(pl.scan_iceberg(table).collect().to_arrow()) == truth
    # Bounds let readers pass over files, and are right.
    assert len(list(table.scan(row_filter="id >= 900").plan_files())) == 1
    assert table.scan(row_filter="price > 0 and id < 600").to_arrow().num_rows == 100
    # An earlier version is not there: it was never published.
    assert len(table.metadata.snapshots) == 1
