"""The lake as Delta tables: `lake/<table>/<mirror|history|changes>`, one atomic commit for each step.

DuckDB writes the Parquet files; a commit takes them in, lets others go and carries the Mark, all in one
numbered JSON file that only one writer can create. docs/lake.md describes what a reader finds.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import duckdb_type, literal, quote
from headwater.config import HistoryNames, memory_bytes
from headwater.errors import ConfigError, StorageError
from headwater.lake import Change, Held, Kind, NewFile, Staged
from headwater.lake.commits import (
    MARK,
    commit_anew,
    commit_info,
    explain,
    folder_of,
    mark_in,
    promise_of,
    raced,
    read_held,
    schema_in,
)
from headwater.lake.engine import Engines
from headwater.lake.layout import history_layout, names_of, plain_layout
from headwater.lake.placed import Room, write_placed
from headwater.lake.placing import PLAIN, Placing, values_of
from headwater.lake.stats import ALWAYS, FileFacts, stats_json
from headwater.lake.stored import from_stored, stored_type, to_stored
from headwater.lake.tail import (
    MADE,
    emptied,
    history_rows,
    is_outdated,
    mirror_rows,
    tail_beyond,
    tail_of,
    through,
)
from headwater.model import Mark, TableId, TableSchema
from headwater.storage import Storage

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from duckdb import DuckDBPyConnection

#: Files grow to so many rows, or about so many bytes: what a touched key makes us write again.
FILE_ROWS = 245_760
FILE_BYTES = 96_000_000
GROUP_ROWS = 122_880
#: A file that left a table is kept for its readers this long.
RETENTION_HOURS = 7 * 24
#: So many lake tables are kept open between refreshes.
KEPT_OPEN = 300
#: Rows wider than this (bytes in memory) are not sorted where they would not all fit.
WIDE_ROW = 1_000
#: So many files are stored at the same time, where there are more.
_AT_ONCE = 8


class Lake:
    """The lake tables of one store. Implements `TableFormat`."""

    def __init__(self, storage: Storage, memory_limit: str = "1GB") -> None:
        if storage.local and set("%?#") & set(str(storage.local)):
            raise ConfigError(
                f"{storage.local}: the deltalake library cannot work in a folder with %, ? or # in its name",
                hint="choose another folder for: store:",
            )
        self._storage = storage
        self._memory_limit = memory_limit
        self._work: Path | None = None
        self._engines = Engines()
        # What was opened stays open: the next look reads only the commits that came since.
        self._opened: dict[tuple[TableId, Kind], DeltaTable] = {}
        self._helds: dict[tuple[TableId, Kind], Held] = {}

    @contextmanager
    def connect(self, memory_limit: str = "") -> Iterator[DuckDBPyConnection]:
        """A DuckDB connection of bounded memory that spills into scratch and never goes to the network."""
        with self._engines.connect(memory_limit or self._memory_limit, str(self._workplace())) as con:
            yield con

    def open(self, table: TableId, kind: Kind) -> Held | None:
        """The newest version; None when nothing was ever committed."""
        delta = self._delta(table, kind)
        if delta is None:
            return None
        known = self._helds.get((table, kind))
        if known is None or known.version != delta.version():
            known = self._helds[table, kind] = read_held(delta, table, kind)
        return known

    def mark(self, table: TableId, kind: Kind = "mirror") -> Mark | None:
        """How far of the raw log a table holds; None when it does not exist."""
        delta = self._delta(table, kind)
        return None if delta is None else mark_in(commit_info(delta, table, kind))

    def version(self, table: TableId, kind: Kind = "mirror") -> int:
        """The newest Delta version; -1 when the table does not exist."""
        delta = self._delta(table, kind)
        return -1 if delta is None else int(delta.version())

    def commits(self, table: TableId, kind: Kind = "mirror") -> list[tuple[int, Mark]]:
        """Every Delta version of ours that is still in the table's log, oldest first, with its Mark."""
        delta = self._delta(table, kind)
        infos = [] if delta is None else reversed(delta.history())
        return [(int(info["version"]), mark_in(info)) for info in infos if MARK in info]

    def schema(self, table: TableId, kind: Kind = "mirror") -> TableSchema | None:
        """The columns as the lake holds them (dropped ones too, types as wide as ever seen), and the key."""
        delta = self._delta(table, kind)
        return None if delta is None else schema_in(commit_info(delta, table, kind))

    def files(self, table: TableId, kind: Kind = "mirror") -> list[Path]:
        """Local copies of every file of the newest version, in no order."""
        held = self.open(table, kind)
        return [] if held is None else self._local(held, _paths(held))

    def relation(
        self, con: DuckDBPyConnection, table: TableId, kind: Kind = "mirror", empty: TableSchema | None = None
    ) -> str:
        """SQL to stand after FROM in `con`, which a format may have to set up: the newest version of a table.

        A table that never had a row has no files: then it is an empty relation of the columns of `empty`, and
        a StorageError without. The history of a table without a key is its changes.
        """
        held = self.open(table, kind)
        if held is not None and kind == "history" and not held.schema.key:
            held = None
        if held is None and kind == "history":
            held = self._keyless_history(table)
        if held is not None:
            changes = None if kind == "changes" else self.open(table, "changes")
            held = _of_one_making(held, changes)
            tail, reached = tail_of(held, changes), through(held)
            if changes is None or reached is None or (tail is None and changes.schema == held.schema):
                return self.scan(held)
            if kind == "history":
                return history_rows(self, held, tail or tail_beyond(changes, reached))
            return mirror_rows(self, held, tail, changes.schema)
        if empty is None or self.open(table, "changes") is not None:
            # It had rows: no rows would be a wrong answer.
            told = "   (a table has a history where its mode is history)" if kind == "history" else ""
            raise StorageError(f"{table}: the lake has no {kind} of this table", hint=f"headwater run{told}")
        return _nothing(history_layout(empty, HistoryNames()) if kind == "history" else plain_layout(empty))

    def made(self, table: TableId) -> str:
        """By which casts a table was folded; "" where it never had any."""
        changes = self.open(table, "changes")
        return changes.notes.get(MADE, "") if changes else ""

    def tail_rows(self, table: TableId) -> int:
        """About how many rows `changes` holds beyond the mirror."""
        mirror = self.open(table, "mirror")
        tail = tail_of(mirror, self.open(table, "changes")) if mirror else None
        return tail.rows if tail else 0

    def staged(self, table: TableId) -> Staged:
        """The staged changes, for the handoff."""
        held = self.open(table, "changes")
        if held is None:
            raise StorageError(f"{table}: the lake has no changes of this table", hint="headwater run")
        keyed, reshaped = (int(held.notes.get(name, -1)) for name in ("keyed", "reshaped"))
        files, made = self._local(held, _paths(held)), held.notes.get(MADE, "")
        return Staged(files, held.schema, self.highest(held), held.mark, made, keyed, reshaped)

    def width(self, held: Held) -> int:
        """Bytes of a row in memory, from the footers of a few of the table's files; 0 when it has none."""
        import pyarrow.parquet as pq

        footers = [pq.read_metadata(path) for path in self._local(held, _paths(held)[:4])]
        groups = [f.row_group(n) for f in footers for n in range(f.num_row_groups)]
        rows = sum(g.num_rows for g in groups)
        return sum(g.total_byte_size for g in groups) // rows if rows else 0

    def write(
        self,
        con: DuckDBPyConnection,
        rows: str,
        layout: Mapping[str, pa.DataType],
        order: Sequence[str],
        row_bytes: int = 0,
        placing: Placing | None = None,
    ) -> list[NewFile]:
        """Write the rows of a query into local files of bounded size, ordered by SQL over its columns."""
        placing = placing or PLAIN
        # A row group is built in memory, once for each thread.
        group = min(GROUP_ROWS, memory_bytes(self._memory_limit) // 16 // max(row_bytes, 1))
        group = max(min(group, placing.rows or group) // 2048, 1) * 2048
        wanted = placing.rows or self.file_rows(row_bytes)
        if not placing.whole:
            sorted_by = order if order and self._can_sort(con, rows, row_bytes) else ()
            spare = memory_bytes(self._memory_limit) // 16 // max(row_bytes, 1)
            room = Room(self._workplace(), group, max(wanted // group, 1), spare)
            return write_placed(con, rows, layout, sorted_by, room, placing)
        folder, name = self._workplace(), uuid.uuid4().hex
        columns = ", ".join(to_stored(name, kind) for name, kind in layout.items())
        ordered = f"ORDER BY {', '.join(order)}" if order and self._can_sort(con, rows, row_bytes) else ""
        written = con.execute(
            f"""
            COPY (SELECT {columns} FROM ({rows}) {ordered}) TO {literal(str(folder))} (
                FORMAT parquet, {placing.codec},
                ROW_GROUP_SIZE {group}, ROW_GROUPS_PER_FILE {max(wanted // group, 1)},
                FILENAME_PATTERN '{name}-{{i}}', OVERWRITE_OR_IGNORE, RETURN_STATS
            )
            """
        ).fetchall()
        stored = {name: stored_type(kind) for name, kind in layout.items()}
        for row in written:
            if not row[1]:
                Path(row[0]).unlink()
        return [
            NewFile(Path(row[0]), row[1], stats_json(FileFacts(row[1], row[4]), stored, ALWAYS))
            for row in written
            if row[1]
        ]

    def file_rows(self, row_bytes: int) -> int:
        """How many rows of a width in memory make a file: at rest they take about half of it."""
        return min(FILE_ROWS, 2 * FILE_BYTES // max(row_bytes, 1))

    def _can_sort(self, con: DuckDBPyConnection, rows: str, row_bytes: int) -> bool:
        """Whether the order is to be had: DuckDB 2.0 spills a sort of narrow rows, but not of wide ones."""
        if row_bytes <= WIDE_ROW:
            return True
        count = con.execute(f"SELECT count(*) FROM ({rows})").fetchall()[0][0]
        return bool(count * row_bytes < memory_bytes(self._memory_limit) // 4)

    def commit(self, table: TableId, kind: Kind, held: Held | None, change: Change) -> Held:
        """Make the next version after `held` (None: the first); all of it or nothing."""
        from deltalake import Schema
        from deltalake.exceptions import DeltaError
        from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

        uri, options = self._storage.delta(folder_of(table, kind))
        fields = Schema.from_arrow(
            pa.schema(
                [(name, stored_type(t)) for name, t in change.layout.items()]
                + [(name, pa.string()) for name in change.partition]
            )
        )
        now = int(time.time() * 1000)
        adds = [
            AddAction(name, size, values_of(file.folder, change.partition), now, True, file.stats)
            for file, (name, size) in zip(change.add, self._upload(table, kind, change), strict=True)
        ]
        promise = promise_of(change)
        try:
            if held is None:
                create_table_with_add_actions(
                    uri, fields, adds, mode="error", storage_options=options,
                    partition_by=list(change.partition) or None, commit_properties=promise,
                    configuration={"delta.enableExpiredLogCleanup": "false"},
                )  # fmt: skip
            else:
                delta = self._at(table, kind, held.version)
                steps = self._allow_local_times(delta, held, change)
                steps += 1 if change.replace else 1 + self._add_columns(delta, held, change)
                removes = [] if change.replace else [RemoveAction(path, True, now) for path in change.remove]
                mode = "overwrite" if change.replace else "append"
                if change.partition != held.partition:
                    commit_anew(self._storage, held, delta, change, fields, adds)
                else:
                    delta.create_write_transaction(
                        [*adds, *removes], mode, fields, list(change.partition) or None,
                        commit_properties=promise,
                    )  # fmt: skip
                delta.update_incremental()
                if delta.version() != held.version + steps:
                    raise raced(table, kind)
                self._settle(table, kind, range(held.version + 1, delta.version() + 1))
                self._keep(table, kind, delta)
                self._helds[table, kind] = read_held(delta, table, kind)
                return self._helds[table, kind]
        except DeltaError as failed:
            raise explain(failed, table, kind) from None
        self._settle(table, kind, range(1))
        done = self.open(table, kind)
        assert done is not None
        return done

    def _upload(self, table: TableId, kind: Kind, change: Change) -> list[tuple[str, int]]:
        """Store the new files; returns their names in the table's folder, and their sizes."""

        gone, step = set(change.remove), max(len(change.add), 1)

        def store(number: int, file: NewFile) -> tuple[str, int]:
            name = "/".join(filter(None, (file.folder, _file_name(change.mark, number, file.path))))
            # The right bytes of a file that went bad have its name, and the bad ones are there yet.
            while name in gone:
                number += step
                name = "/".join(filter(None, (file.folder, _file_name(change.mark, number, file.path))))
            size = file.path.stat().st_size
            self._storage.upload(file.path, f"{folder_of(table, kind)}/{name}", step="lake")
            return name, size

        if len(change.add) <= _AT_ONCE:
            return [store(number, file) for number, file in enumerate(change.add)]
        # Thousands of small files: what takes time is to wait for each of them.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(store, range(len(change.add)), change.add))

    def sweep(self, held: Held) -> Held:
        """Delete the files that left the table more than a week ago, or that no commit ever named."""
        from deltalake.exceptions import DeltaError

        delta = self._at(held.table, held.kind, held.version)
        said = Change(held.mark, held.schema, held.layout, notes=held.notes, partition=held.partition)
        try:
            delta.vacuum(RETENTION_HOURS, dry_run=False, commit_properties=promise_of(said))
            delta.update_incremental()
        except DeltaError as failed:
            raise explain(failed, held.table, held.kind) from None
        self._keep(held.table, held.kind, delta)
        swept = self.open(held.table, held.kind)
        assert swept is not None
        return swept

    def scan(self, held: Held, paths: Sequence[str] | None = None, *, name_files: bool = False) -> str:
        """SQL to stand after FROM: the rows of some files (default: all) in the types of `held.layout`."""
        wanted = list(_paths(held) if paths is None else paths)
        # The empty rows give every column, also to files that were written before it was added.
        columns = {name: stored_type(kind) for name, kind in held.layout.items()}
        if name_files:
            columns["_hw_file"] = pa.string()
        rows = _nothing(columns)
        if wanted:
            there = ", ".join(literal(str(path)) for path in self._local(held, wanted))
            named = ", filename = '_hw_file'" if name_files else ""
            rows = (
                # A folder's name is no column of ours, whatever it says.
                f"(SELECT * FROM read_parquet([{there}], union_by_name = true, "
                f"hive_partitioning = false{named}) "
                f"UNION ALL BY NAME SELECT * FROM {rows})"
            )
        shown = [from_stored(name, kind) for name, kind in held.layout.items()]
        if name_files:
            shown.append("_hw_file")
        return f"(SELECT {', '.join(shown)} FROM {rows})"

    def locate(self, held: Held, paths: Sequence[str]) -> Mapping[str, str]:
        """What `_hw_file` says in a scan of these files -> the path that the format knows."""
        return {str(there): path for there, path in zip(self._local(held, paths), paths, strict=True)}

    def highest(self, held: Held) -> int:
        """The highest `_hw_seq`: by the files' bounds, or by reading where another writer left them out."""
        known = held.files["max._hw_seq"].to_pylist() if "max._hw_seq" in held.files.column_names else [None]
        if None not in known:
            return max(known, default=-1)
        with self.connect() as con:
            found = con.execute(f"SELECT max(_hw_seq) FROM {self.scan(held)}").fetchall()[0][0]
        return -1 if found is None else int(found)

    def _workplace(self) -> Path:
        if self._work is None or not self._work.is_dir():
            self._work = self._storage.scratch()
        return self._work

    def _settle(self, table: TableId, kind: Kind, versions: range) -> None:
        """Make commits durable on a local disk, where the library does not."""
        if self._storage.local is None:
            return
        log = self._storage.local / folder_of(table, kind) / "_delta_log"
        commits = [log / f"{version:020d}.json" for version in versions]
        for path in [*commits, log, log.parent]:
            place = os.open(path, os.O_RDONLY)
            try:
                os.fsync(place)
            finally:
                os.close(place)

    def _keyless_history(self, table: TableId) -> Held | None:
        changes = self.open(table, "changes")
        return changes if changes is not None and not changes.schema.key else None

    def _local(self, held: Held, paths: Sequence[str]) -> list[Path]:
        sizes = dict(zip(_paths(held), held.files["size_bytes"].to_pylist(), strict=True))
        folder = folder_of(held.table, held.kind)
        return [self._storage.fetch(f"{folder}/{path}", size=sizes[path]) for path in paths]

    def _delta(self, table: TableId, kind: Kind) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        known = self._still_there(table, kind)
        uri, options = self._storage.delta(folder_of(table, kind))
        local = self._storage.local
        if local is not None and not (local / folder_of(table, kind) / "_delta_log").is_dir():
            return None
        try:
            if known is not None:
                known.update_incremental()
                return known
            delta = DeltaTable(uri, storage_options=options)
        except TableNotFoundError:
            return None
        except DeltaError as failed:
            raise explain(failed, table, kind) from None
        self._keep(table, kind, delta)
        return delta

    def _still_there(self, table: TableId, kind: Kind) -> DeltaTable | None:
        """What is open already, unless the table was moved away under it."""
        delta = self._opened.get((table, kind))
        if delta is None:
            return None
        newest = f"{folder_of(table, kind)}/_delta_log/{delta.version():020d}.json"
        if self._storage.exists(newest):
            return delta
        self._forget(table, kind)
        return None

    def _keep(self, table: TableId, kind: Kind, delta: DeltaTable) -> None:
        while len(self._opened) >= KEPT_OPEN:
            self._forget(*next(iter(self._opened)))
        self._opened[table, kind] = delta

    def _forget(self, table: TableId, kind: Kind) -> None:
        self._opened.pop((table, kind), None)
        self._helds.pop((table, kind), None)

    def _at(self, table: TableId, kind: Kind, version: int) -> DeltaTable:
        """The table at a version, to go on from; whoever moves it must keep it again."""
        from deltalake import DeltaTable

        delta = self._opened.get((table, kind))
        self._forget(table, kind)
        if delta is not None and delta.version() == version:
            return delta
        uri, options = self._storage.delta(folder_of(table, kind))
        return DeltaTable(uri, version=version, storage_options=options)

    def _allow_local_times(self, delta: DeltaTable, held: Held, change: Change) -> int:
        """Delta must be told before a table has times without a zone; returns the commits it took."""
        from deltalake import TableFeatures

        local = pa.timestamp("us")
        if local not in change.layout.values() or local in held.layout.values():
            return 0
        said = promise_of(Change(held.mark, held.schema, held.layout, notes=held.notes))
        feature = TableFeatures.TimestampWithoutTimezone
        before = delta.version()
        delta.alter.add_feature(feature, allow_protocol_versions_increase=True, commit_properties=said)
        delta.update_incremental()
        return int(delta.version()) - before

    def _add_columns(self, delta: DeltaTable, held: Held, change: Change) -> int:
        """New columns come in a commit of their own, under the old mark; returns how many that took."""
        from deltalake import Schema

        added = pa.schema(
            [(name, stored_type(t)) for name, t in change.layout.items() if name not in held.layout]
        )
        if not len(added):
            return 0
        layout = {**held.layout, **{n: t for n, t in change.layout.items() if n not in held.layout}}
        before = Change(held.mark, held.schema, layout, notes=held.notes, partition=held.partition)
        delta.alter.add_columns(Schema.from_arrow(added).fields, commit_properties=promise_of(before))
        delta.update_incremental()
        return 1


def _of_one_making(held: Held, changes: Held | None) -> Held:
    """A base, or one without rows where the changes were folded again since, by other casts."""
    if changes is None or not changes.schema.key or not is_outdated(held, changes):
        return held
    if held.kind == "history":
        return emptied(held, changes, history_layout(changes.schema, names_of(held.notes)))
    return emptied(held, changes, plain_layout(changes.schema))


def _paths(held: Held) -> list[str]:
    paths: list[str] = held.files["path"].to_pylist()
    return paths


def _file_name(mark: Mark, number: int, file: Path) -> str:
    """Unique to the content: a crash and a new run write it again, or another name, never other bytes."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    return f"{mark.seq:012d}-{number:04d}-{digest}.parquet"


def _nothing(columns: Mapping[str, pa.DataType]) -> str:
    """No rows, of these columns."""
    cells = ", ".join(f"CAST(NULL AS {duckdb_type(kind)}) AS {quote(name)}" for name, kind in columns.items())
    return f"(SELECT {cells} WHERE FALSE)"
