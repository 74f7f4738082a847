"""Writing rows into the files of many folders at once, in bounded memory.

DuckDB spreads the rows: what is to come into the folders' files waits in pages that spill, and a folder gets
one file, or several where it has more rows than a file. It is given hashes of the folders, which are short
names whatever the folders are called; the file's own rows then tell where it belongs.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import literal
from headwater.lake import NewFile
from headwater.lake.placing import Placing
from headwater.lake.stats import ALWAYS, FileFacts, stats_json
from headwater.lake.stored import from_stored, stored_type, to_stored

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: So many rows are collected before they are passed on to their files, if there is room.
_FLUSHED = 524_288


@dataclass(frozen=True, slots=True)
class Room:
    """A folder to write in, the rows of a row group, the groups of a file, and the rows to collect first."""

    folder: Path
    group_rows: int
    file_groups: int
    spare_rows: int


def write_placed(
    con: DuckDBPyConnection,
    rows: str,
    layout: Mapping[str, pa.DataType],
    order: Sequence[str],
    room: Room,
    placing: Placing,
) -> list[NewFile]:
    """Write the rows of a query into local files, each of the rows of one folder."""
    name = uuid.uuid4().hex
    work = room.folder / f"{name}.d"
    columns = ", ".join(to_stored(column, kind) for column, kind in layout.items())
    kinds, slices = "_hw_folder", max(placing.files.slices, 1)
    told = f"md5({placing.folder}) AS _hw_folder"
    query = f"SELECT *, {told} FROM ({rows})"
    if slices > 1:
        # Equal in size; and apart in their keys where the rows can be sorted.
        over = f"PARTITION BY _hw_folder ORDER BY {', '.join(order)}" if order else "PARTITION BY _hw_folder"
        query = f"SELECT *, ntile({slices}) OVER ({over}) AS _hw_slice FROM ({query})"
        kinds += ", _hw_slice"
    ordered = f"ORDER BY {', '.join(order)}" if order else ""
    held = min(_FLUSHED, max(room.spare_rows, 2048))
    con.execute(f"SET GLOBAL partitioned_write_flush_threshold = {held}").fetchall()
    work.mkdir()
    try:
        written = con.execute(
            f"""
            COPY (SELECT {columns}, {kinds} FROM ({query}) {ordered}) TO {literal(str(work))} (
                FORMAT parquet, {placing.codec}, PARTITION_BY ({kinds}),
                ROW_GROUP_SIZE {room.group_rows}, ROW_GROUPS_PER_FILE {room.file_groups},
                FILENAME_PATTERN 'f{{i}}', OVERWRITE_OR_IGNORE, RETURN_STATS
            )
            """
        ).fetchall()
        written = [row for row in written if row[1]]
        folders = _folders(con, [row[0] for row in written], layout, placing)
        stored = {column: stored_type(kind) for column, kind in layout.items()}
        made = []
        for number, row in enumerate(sorted(written, key=lambda row: str(row[0]))):
            path = Path(row[0]).rename(room.folder / f"{name}-{number}.parquet")
            stats = stats_json(FileFacts(row[1], row[4]), stored, ALWAYS)
            made.append(NewFile(path, row[1], stats, folders[row[0]]))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sorted(made, key=lambda file: file.folder)


def _folders(
    con: DuckDBPyConnection, files: Sequence[str], layout: Mapping[str, pa.DataType], placing: Placing
) -> Mapping[str, str]:
    """The folder that each file's rows belong to."""
    if not files or not placing.segments:
        return dict.fromkeys(files, "")
    there = ", ".join(map(literal, files))
    shown = ", ".join(from_stored(column, kind) for column, kind in layout.items())
    # All rows of a file have one folder, so any of them tells it.
    query = (
        f"SELECT _hw_file, first({placing.folder}) FROM (SELECT {shown}, _hw_file FROM read_parquet("
        f"[{there}], hive_partitioning = false, filename = '_hw_file')) GROUP BY _hw_file"
    )
    return dict(con.execute(query).fetchall())
