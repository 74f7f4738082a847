"""The data files of the raw log: one Parquet file for one batch; equal rows give equal bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.errors import StorageError
from headwater.model import META, STRIDE, TableId, TableSchema
from headwater.naming import table_path

DATA = "raw/data"
SCHEMAS = "raw/schemas"

#: Each row group has its own dictionaries: at 122,880 rows (DuckDB's measure) files of an orders table were
#: 40 % bigger and took 50 % longer to write. Readers still find parallel work, in groups and in files.
_GROUP_ROWS = 524_288
_GROUP_BYTES = 128 << 20
_LAST = (1 << 63) - 1

#: A column gets a dictionary when a sample of this many rows has less than a quarter as many values. One for
#: a column of different values costs half of the time of a write, and makes the file bigger.
_SAMPLE = 4096

#: These are part of what makes equal rows equal bytes; so are the columns with statistics, and the encodings.
#: Measured with these encodings: level 3 takes half as long again as level 1, and saves nothing.
_OPTIONS: Mapping[str, str | int | bool] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "zstd",
    "compression_level": 1,
    "write_page_index": True,
    "store_schema": False,
}


@dataclass(frozen=True, slots=True)
class Written:
    """What a data file turned out to be."""

    bytes: int
    sha256: str
    first_seq: int
    last_seq: int


def schema_path(table: TableId, fingerprint: str) -> str:
    """The name of a schema file."""
    return f"{SCHEMAS}/{table_path(table)}/{fingerprint}.json"


def data_path(table: TableId, epoch: int, written: Written) -> str:
    """The name of a data file: a function of its content."""
    name = f"{written.first_seq:020d}-{written.last_seq:020d}-{written.sha256[:16]}"
    return f"{DATA}/{table_path(table)}/e{epoch:06d}/{name}.parquet"


def place_rows(schema: TableSchema, rows: pa.Table, base: int) -> pa.Table:
    """The rows with `_hw_seq` moved by `base`, in the columns of the spec; ValueError if they have others."""
    wanted = pa.schema([*schema.arrow(), *META])
    if rows.schema.names != wanted.names or rows.schema.types != wanted.types:
        raise ValueError(f"{schema.table}: the rows are not the schema's columns followed by META")
    if base % STRIDE or base < 0:
        raise ValueError(f"{schema.table}: base {base} is no multiple of {STRIDE}")
    seqs = rows["_hw_seq"]
    if seqs.null_count:
        raise ValueError(f"{schema.table}: a row without _hw_seq")
    numbers = seqs.to_numpy()
    if numbers[0] < 0 or numbers[-1] > _LAST - base or bool((np.diff(numbers) <= 0).any()):
        raise ValueError(f"{schema.table}: _hw_seq does not grow from row to row")
    columns = [pc.add_checked(seqs, base) if name == "_hw_seq" else rows[name] for name in wanted.names]
    return pa.Table.from_arrays(columns, schema=wanted)


def write_rows(rows: pa.Table, file: Path, key: Sequence[str] = ()) -> Written:
    """Write a batch of at least one row, one row group after the other.

    Each group is made one chunk, because page boundaries follow chunks. `created_by` in the footer is Arrow's
    own, and another Arrow version may write other bytes.
    """
    step = _group_rows(rows)
    if step >= rows.num_rows:
        rows = rows.combine_chunks()
    repeated, encodings = _encodings(rows)
    described, rows = _described(rows.schema, key), _say_once(rows, repeated)
    order = [pq.SortingColumn(rows.schema.get_field_index("_hw_seq"))]
    with (
        _Hashed(file) as sink,
        pq.ParquetWriter(
            sink,
            rows.schema,
            sorting_columns=order,
            write_statistics=described,
            use_dictionary=repeated,
            column_encoding=encodings,
            **_OPTIONS,
        ) as writer,
    ):
        for first in range(0, rows.num_rows, step):
            writer.write_table(rows.slice(first, step).combine_chunks(), row_group_size=step)
    seqs = rows["_hw_seq"]
    return Written(sink.bytes, sink.digest.hexdigest(), seqs[0].as_py(), seqs[-1].as_py())


def _described(schema: pa.Schema, key: Sequence[str]) -> list[str]:
    """Columns with minimum and maximum: those that rows are looked for by, for it takes a comparison a row.

    Not floats, where Arrow passes over NaN and readers skip rows.
    """
    return [
        f.name for f in schema if not pa.types.is_floating(f.type) and (f.name in key or _is_whole(f.type))
    ]


def _say_once(rows: pa.Table, repeated: Collection[str]) -> pa.Table:
    """The same with texts that are equal in all rows held once, so that they are not hashed row by row.

    Looks at values only. Readers of the file see no difference.
    """
    for name in repeated:
        n = rows.schema.get_field_index(name)
        if n < 0 or not pa.types.is_string(rows.schema.field(n).type):
            continue
        column = rows.column(n)
        if column.null_count or not pc.all(pc.equal(column, column[0])).as_py():
            continue
        once = pa.DictionaryArray.from_arrays(np.zeros(len(column), np.int32), pa.array([column[0]]))
        rows = rows.set_column(n, name, once)
    return rows


def _encodings(rows: pa.Table) -> tuple[list[str], dict[str, str]]:
    """Columns that get a dictionary, and encodings of others. Looks at values only, as `_group_rows` does."""
    sample = rows.take(np.arange(0, rows.num_rows, max(1, rows.num_rows // _SAMPLE)))
    repeated, encodings = ["_hw_unset.list.element"], {}
    for field in rows.schema:
        if _is_whole(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif not pa.types.is_nested(field.type) and not pa.types.is_boolean(field.type):
            values = pc.count_distinct(sample[field.name], mode="all").as_py()
            if 4 * values < sample.num_rows:
                repeated.append(field.name)
    return repeated, encodings


def _is_whole(kind: pa.DataType) -> bool:
    """Whether values are whole numbers of 32 or 64 bits to Parquet."""
    return bool(
        pa.types.is_signed_integer(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_time64(kind)
    )


def _group_rows(rows: pa.Table) -> int:
    """How many rows make a row group. Looks at values only: how the rows lie in memory must not show."""
    size = 0
    for column in rows.columns:
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            size += pc.sum(pc.binary_length(column)).as_py() or 0
        size += 8 * rows.num_rows
    return int(max(1, min(_GROUP_ROWS, rows.num_rows * _GROUP_BYTES // size)))


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: Path) -> None:
        self._sink = file.open("wb")
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._sink.write(data)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self.closed = True
        self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_schema(data: bytes, table: TableId, fingerprint: str) -> TableSchema:
    """A schema from its file, checked against its name."""
    found = hashlib.sha256(data).hexdigest()[:32]
    if found != fingerprint:
        raise ValueError(f"expected fingerprint {fingerprint}, found {found}")
    try:
        schema = TableSchema.from_json(data)
    except ValueError:
        raise StorageError(
            f"{schema_path(table, fingerprint)}: written by a newer headwater",
            hint="pip install --upgrade headwater",
        ) from None
    return schema
