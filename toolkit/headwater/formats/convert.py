"""Parquet files of the lake as ORC or CSV files: to each one of its own, with its rows in its order.

What is made of a file depends on nothing but the file: publishers may race, and a store takes a name once.
docs/formats.md.
"""

from __future__ import annotations

import bz2
import gzip
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headwater.canonical import literal, quote
from headwater.errors import StorageError
from headwater.formats.cells import quoted_columns, select_cells
from headwater.formats.views import own_columns
from headwater.lake import Held
from headwater.lake.delta import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Sink = gzip.GzipFile | bz2.BZ2File

#: Rows in memory at once. Files of no more than these are read many at a time, by one query.
BATCH_ROWS = 8_192
#: So many files at a time.
GROUP = 64
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

    def convert(self, held: Held, paths: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
        """Make a local file in `folder` from each of these files of a lake table: (its path, the local file).

        Take each away before the next one is asked for.
        """
        rows = dict(zip(held.files["path"].to_pylist(), held.files["num_records"].to_pylist(), strict=True))
        small = [path for path in paths if rows[path] <= BATCH_ROWS]
        groups = [[path] for path in paths if rows[path] > BATCH_ROWS]
        groups += [small[first : first + GROUP] for first in range(0, len(small), GROUP)]
        for group in groups:
            try:
                yield from self._convert(held, group, folder, small=rows[group[0]] <= BATCH_ROWS)
            except OSError as failed:
                said = group[0] if len(group) == 1 else f"{len(group)} files from {group[0]} on"
                raise StorageError(f"{said}: cannot be made into {self._view}: {failed}") from failed

    def _convert(
        self, held: Held, group: Sequence[str], folder: Path, *, small: bool
    ) -> Iterator[tuple[str, Path]]:
        cells = select_cells(self._view, own_columns(held))
        rows = f"SELECT {cells}, _hw_file FROM {self._lake.scan(held, group, name_files=True)}"
        names = {path: name for name, path in self._lake.locate(held, group).items()}
        with self._lake.connect() as con:
            if self._view == "orc":
                yield from _write_orcs(con, rows, names, folder, small=small)
                return
            if len(group) > 1:
                con.execute(f"CREATE TEMP TABLE _hw_group AS {rows}")
                rows = "FROM _hw_group"
            for path, name in names.items():
                own = f"SELECT * EXCLUDE (_hw_file) FROM ({rows}) WHERE _hw_file = {literal(name)}"
                yield path, _compress(_write_csv(con, own, held, folder / "made.csv"), self._compression)


def _write_orcs(
    con: DuckDBPyConnection, rows: str, names: Mapping[str, str], folder: Path, *, small: bool
) -> Iterator[tuple[str, Path]]:
    """An ORC file from the rows of each file, which come file by file. `small`: one batch each."""
    reader = con.sql(rows).to_arrow_reader(BATCH_ROWS)
    empty = reader.schema.empty_table().drop_columns(["_hw_file"])
    paths, file = {name: path for path, name in names.items()}, folder / "made.orc"
    for name, pieces in groupby(_by_file(reader), key=itemgetter(0)):
        path = paths.pop(name)  # a file whose rows came apart would not be found a second time
        own: Iterable[pa.Table] = (table for _, table in pieces)
        if small:
            # However the batches were cut, so that its bytes are the same.
            own = [pa.concat_tables(own).combine_chunks()]
        yield path, _write_orc(file, empty, own)
    for path in paths.values():
        yield path, _write_orc(file, empty, [])


def _by_file(reader: pa.RecordBatchReader) -> Iterator[tuple[str, pa.Table]]:
    """Rows with the file they are of, by runs."""
    for batch in reader:
        table = pa.Table.from_batches([batch])
        runs = pc.run_end_encode(batch.column("_hw_file"))
        start = 0
        for name, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield name, table.slice(start, end - start).drop_columns(["_hw_file"])
            start = end


def _write_orc(file: Path, empty: pa.Table, pieces: Iterable[pa.Table]) -> Path:
    from pyarrow import orc

    with orc.ORCWriter(str(file), compression="snappy") as writer:
        writer.write(empty)
        for piece in pieces:
            writer.write(piece)
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
