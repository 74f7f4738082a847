"""One Parquet file of the lake as one ORC or CSV file: the same rows in the same order. docs/formats.md."""

from __future__ import annotations

import bz2
import gzip
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import literal, quote
from headwater.errors import StorageError
from headwater.formats.cells import quoted_columns, select_cells
from headwater.formats.views import own_columns
from headwater.lake import Held
from headwater.lake.delta import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Sink = gzip.GzipFile | bz2.BZ2File

#: Rows in memory at once.
BATCH_ROWS = 8_192
_CHUNK = 1 << 20

#: The suffix of a CSV file, and what it goes through.
_COMPRESSED: Mapping[str, tuple[str, Callable[[IO[bytes]], Sink] | None]] = {
    "none": (".csv", None),
    # The time of day in a gzip header would make other bytes of equal rows.
    "gzip": (".csv.gz", lambda raw: gzip.GzipFile("", "wb", 6, raw, mtime=0)),
    "bzip2": (".csv.bz2", lambda raw: bz2.BZ2File(raw, "wb")),
}


class Converter:
    """From the lake's files to one format."""

    def __init__(self, lake: Lake, view: str, compression: str) -> None:
        self._lake, self._view, self._compression = lake, view, compression

    @property
    def suffix(self) -> str:
        """What the files' names end in."""
        return ".orc" if self._view == "orc" else _COMPRESSED[self._compression][0]

    def convert(self, held: Held, path: str, folder: Path) -> Path:
        """Make a local file in `folder` from one file of a lake table."""
        cells = select_cells(self._view, own_columns(held))
        rows = f"SELECT {cells} FROM {self._lake.scan(held, [path])}"
        try:
            with self._lake.connect() as con:
                if self._view == "orc":
                    return _write_orc(con, rows, folder / "made.orc")
                plain = _write_csv(con, rows, held, folder / "made.csv")
            return _compress(plain, self._compression)
        except OSError as failed:
            raise StorageError(f"{path}: cannot be made into {self._view}: {failed}") from failed


def _write_orc(con: DuckDBPyConnection, rows: str, file: Path) -> Path:
    from pyarrow import orc

    reader = con.sql(rows).to_arrow_reader(BATCH_ROWS)
    with orc.ORCWriter(str(file), compression="snappy") as writer:
        writer.write(reader.schema.empty_table())
        for batch in reader:
            writer.write(pa.Table.from_batches([batch]))
    return file


def _write_csv(con: DuckDBPyConnection, rows: str, held: Held, file: Path) -> Path:
    quoted = ", ".join(map(quote, quoted_columns(own_columns(held))))
    forced = f", FORCE_QUOTE ({quoted})" if quoted else ""
    con.execute(
        f"COPY ({rows}) TO {literal(str(file))} (FORMAT csv, HEADER true, DELIMITER ',', QUOTE '\"', "
        f"ESCAPE '\"', NULLSTR ''{forced})"
    )
    return file


def _compress(file: Path, compression: str) -> Path:
    suffix, wrap = _COMPRESSED[compression]
    if wrap is None:
        return file
    packed = file.with_name(f"made{suffix}")
    with file.open("rb") as source, packed.open("wb") as raw, wrap(raw) as target:
        shutil.copyfileobj(source, target, _CHUNK)
    file.unlink()
    return packed
