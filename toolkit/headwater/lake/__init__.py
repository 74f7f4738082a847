"""The lake: for each captured table a mirror, a history and the staged changes, in an open table format.

To add a format, write a module with a class that satisfies `TableFormat`, register it in `wiring`, and
subclass the contract suite in ``tests/contracts/lake.py``. `delta.py` is the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import pyarrow as pa

from headwater.model import Mark, TableId, TableSchema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from headwater.lake.placing import Placing

Kind = Literal["mirror", "history", "changes", "quarantine"]

#: In the order their commits follow each other. The mirror is last: where it stands, the others stand too.
#: A table with casts may have a `quarantine` too, whose commits come before all of these.
KINDS: tuple[Kind, ...] = ("changes", "history", "mirror")


@dataclass(frozen=True, slots=True)
class Held:
    """One lake table at its newest version.

    files      one row a file: path (in the table's folder, as the store names it), size_bytes, num_records,
               partition.<name> for each of `partition`, and as far as known null_count.<column>,
               min.<column>, max.<column>
    layout     the columns in files, in order, with the Arrow types that readers see
    notes      what the writer kept beside the mark
    partition  the columns, all text, that are not in files: their values are those of a file's folders
    """

    table: TableId
    kind: Kind
    version: int
    mark: Mark
    schema: TableSchema
    layout: Mapping[str, pa.DataType]
    files: pa.Table
    notes: Mapping[str, str] = field(default_factory=dict)
    partition: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewFile:
    """A finished local Parquet file that a commit is to take in; `stats` is what the format says of it.

    folder  where in the table it belongs, "" for the top
    """

    path: Path
    rows: int
    stats: str
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One atomic step of a lake table: files in, files out, and the mark that becomes true with it.

    replace    the new files are the whole table, and its types may change
    partition  the names among the files' folders; other ones than before only with `replace`
    """

    mark: Mark
    schema: TableSchema
    layout: Mapping[str, pa.DataType]
    add: Sequence[NewFile] = ()
    remove: Sequence[str] = ()
    replace: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)
    partition: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Staged:
    """The staged changes of a table for the handoff: every version in full, in files of `schema`.

    A column of a type the format lacks is stored as `stored_type` says: cast it to the schema's type.
    """

    files: list[Path]
    schema: TableSchema
    high_seq: int  # the highest `_hw_seq` in them, -1 for none
    mark: Mark
    made: str = ""  # by which casts it was folded, and the how manieth time
    keyed: int = -1  # the `_hw_seq` behind which the table has this key
    reshaped: int = -1  # the `_hw_seq` from which on columns have the names and old rows the cells of today


class TableFormat(Protocol):
    """A table format with atomic, numbered versions. Errors are StorageErrors, a lost race is a Conflict."""

    def open(self, table: TableId, kind: Kind) -> Held | None:
        """The newest version; None when nothing was ever committed. Reads the store, never a cache."""
        ...

    def highest(self, held: Held) -> int:
        """The highest `_hw_seq` in a table; -1 for none."""
        ...

    def width(self, held: Held) -> int:
        """About how many bytes a row of the table takes in memory; 0 when it has none."""
        ...

    def write(
        self,
        con: DuckDBPyConnection,
        rows: str,
        layout: Mapping[str, pa.DataType],
        order: Sequence[str],
        row_bytes: int = 0,
        placing: Placing | None = None,
    ) -> list[NewFile]:
        """Write the rows of a query into local files of bounded size, ordered by SQL over its columns.

        `row_bytes` is about how wide a row is in memory: wide ones are written in smaller groups. `placing`
        says which folders they belong to.
        """
        ...

    def commit(self, table: TableId, kind: Kind, held: Held | None, change: Change) -> Held:
        """Make the next version after `held` (None: the first); all of it or nothing.

        Raises Conflict when `held` is no longer the newest: nothing of the change is visible then.
        """
        ...

    def scan(self, held: Held, paths: Sequence[str] | None = None, *, name_files: bool = False) -> str:
        """SQL to stand after FROM: the rows of some files (default: all) in the types of `held.layout`.

        With `name_files` there is a column `_hw_file`; `locate` says which path it stands for.
        """
        ...

    def locate(self, held: Held, paths: Sequence[str]) -> Mapping[str, str]:
        """What `_hw_file` says in a scan of these files -> the path that the format knows."""
        ...
