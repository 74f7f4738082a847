"""The raw log: immutable Parquet files, and one small create-only JSON file for each commit.

Open spec: docs/raw-log.md. Readers trust only entries; a file that no entry names does not exist. An entry
number can be written once, by whoever is first: that is what fences off a second writer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from headwater.errors import Conflict, Corrupt, StorageError
from headwater.model import STRIDE, BatchRef, ChangeBatch, Entry, Position, TableId, TableSchema
from headwater.raw.entries import (
    CHECKPOINT_EVERY,
    CHECKPOINTS,
    LOG,
    TableState,
    checkpoint_path,
    entry_path,
    fold_tables,
    number,
    read_checkpoint,
    read_entry,
    write_checkpoint,
    write_entry,
)
from headwater.raw.files import DATA, data_path, place_rows, read_schema, schema_path, write_rows
from headwater.storage import Storage

__all__ = ["RawLog", "TableState"]

_AHEAD = 16  # entries that are read at once from a bucket
_LOST = "another writer appended to this raw log; this run must end"
_AGAIN = "headwater run   (starts from what the other writer left; see that only one runs)"


class RawLog:
    """One reader, or one writer's session, of a raw log.

    A session stands on the entry that was the last when it first looked, and follows only its own appends.
    When somebody else appends, the session is over: from then on `append` and `stage` raise Conflict.
    """

    def __init__(self, storage: Storage, writer: str | None = None) -> None:
        self._storage = storage
        self._writer = writer or uuid.uuid4().hex
        self._newest: Entry | None = None  # the last entry seen
        self._looked = False
        self._stand = -1  # the entry our next append follows
        self._over = False
        self._tables: dict[TableId, TableState] = {}
        self._folded = -1
        self._schemas: dict[tuple[TableId, str], TableSchema] = {}
        self._work: Path | None = None

    def stage(self, batch: ChangeBatch, epoch: int, base: int, part: str = "") -> BatchRef:
        """Store a batch, its `_hw_seq` moved by `base`; invisible until an entry names it. Threads may share.

        `base` is a multiple of STRIDE and at least the last entry's `next_row`. Rows that are not the
        schema's columns and META, or whose `_hw_seq` does not grow, are a ValueError. `part` is the part of
        the table that this batch completes.
        """
        self._refuse_if_over()
        table, fingerprint = batch.schema.table, batch.schema.fingerprint()
        if batch.rows.num_rows == 0:
            self._store_schema(batch.schema, fingerprint)
            return BatchRef(
                table, epoch, batch.phase, fingerprint, "", 0, 0, "", 0, 0, batch.reload, part=part
            )
        rows = place_rows(batch.schema, batch.rows, base)
        self._store_schema(batch.schema, fingerprint)
        file = self._workplace() / uuid.uuid4().hex
        try:
            written = write_rows(rows, file, batch.schema.key)
            path = data_path(table, epoch, written)
            self._storage.upload(file, path, step="stage")
        except OSError as failed:
            raise self._storage.explain(failed, f"{DATA}/{table}") from failed
        finally:
            file.unlink(missing_ok=True)
        return BatchRef(
            table, epoch, batch.phase, fingerprint, path, rows.num_rows, written.bytes, written.sha256,
            written.first_seq, written.last_seq, batch.reload, rows.nbytes, part,
        )  # fmt: skip

    def append(
        self, refs: Sequence[BatchRef], position: Position, next_row: int, released: Sequence[TableId] = ()
    ) -> Entry:
        """Commit staged batches and the position they reach; durable on return.

        Raises Conflict when somebody else took this place in the log; nothing of ours is visible then.
        """
        self._look()
        self._refuse_if_over()
        stand = self._newest
        if (stand.seq if stand else -1) != self._stand:
            raise self._end_session()
        _check_rows(refs, stand.next_row if stand else 0, next_row)
        entry = Entry(self._stand + 1, position, tuple(refs), self._writer, next_row, tuple(released))
        data = write_entry(entry)
        if not self._storage.create(entry_path(entry.seq), data, step="entry"):
            # Ours, if it was the reply that got lost.
            there = self._read(entry.seq)
            self._newest = there
            if there != entry:
                raise self._end_session()
        self._newest, self._stand = entry, entry.seq
        if self._folded == entry.seq - 1:
            self._fold(entry)
        return entry

    def last(self) -> Entry | None:
        """The newest entry. About 2 log2(n) small requests the first time, one or two after that."""
        self._look()
        known = self._newest.seq if self._newest else -1
        newest = self._gallop(known)
        if newest != known:
            self._newest = self._read(newest)
        return self._newest

    def entries(self, after: int = -1, upto: int | None = None) -> Iterator[Entry]:
        """Entries `after` < seq <= `upto` (default: the last), in order; Corrupt when one is missing."""
        if upto is None:
            last = self.last()
            upto = last.seq if last else -1
        wanted = range(max(after, -1) + 1, upto + 1)
        if self._storage.local or len(wanted) < 2:
            yield from map(self._read, wanted)
            return
        with ThreadPoolExecutor(min(_AHEAD, len(wanted)), "headwater-entries") as pool:
            waiting: list[Future[Entry]] = []
            try:
                for seq in wanted:
                    waiting.append(pool.submit(self._read, seq))
                    if len(waiting) == _AHEAD:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def tables(self) -> Mapping[TableId, TableState]:
        """What the log says of each table as of its last entry."""
        last = self.last()
        upto = last.seq if last else -1
        if self._folded < 0 <= upto:
            self._resume_from_checkpoint(upto)
        for entry in self.entries(self._folded, upto):
            self._fold(entry)
        return MappingProxyType(dict(self._tables))

    def schema(self, table: TableId, fingerprint: str) -> TableSchema:
        """The schema of this fingerprint."""
        key = (table, fingerprint)
        if key not in self._schemas:
            path = schema_path(table, fingerprint)
            try:
                self._schemas[key] = read_schema(self._storage.read(path), table, fingerprint)
            except ValueError as failed:
                raise Corrupt(f"{path}: {failed}", hint="restore it from a backup") from None
        return self._schemas[key]

    def fetch(self, ref: BatchRef) -> Path:
        """The verified local file of a batch that has rows."""
        return self._storage.fetch(ref.path, sha256=ref.sha256, size=ref.bytes)

    def collect(self, older_than: timedelta = timedelta(days=1)) -> list[str]:
        """Delete data files that no entry names or ever can, and that are older; returns their names.

        A file is beyond hope when its rows start below the last entry's `next_row`: no entry to come may name
        them. So a file that another writer is about to commit is safe, whatever the clocks say.
        """
        last = self.last()
        if last is None:
            return []
        limit = datetime.now(UTC) - older_than
        doubtful = {
            file.path
            for file in self._storage.files(DATA)
            if file.modified < limit and _first_row(file.path) < last.next_row
        }
        if doubtful:
            for entry in self.entries(-1, last.seq):
                doubtful.difference_update(ref.path for ref in entry.batches)
        gone = sorted(doubtful)
        self._storage.delete(gone)
        return gone

    def _look(self) -> None:
        """Find the entry that this session stands on."""
        if self._looked:
            return
        newest = self._gallop(-1)
        # Numbers have no holes, so nothing may follow: else a lost entry would be written anew.
        for pause in (0.0, 0.1, 0.4):
            behind = self._storage.list(LOG, entry_path(newest) if newest >= 0 else "")
            if not any(number(path) > newest for path in behind):
                break
            # Somebody appends right now, and a bucket's listing may be ahead of its files.
            time.sleep(pause)
            newest = self._gallop(newest)
        else:
            raise _gone(newest + 1)
        self._newest = self._read(newest) if newest >= 0 else None
        self._stand, self._looked = newest, True

    def _gallop(self, known: int) -> int:
        """The last number that exists, given one that does (-1: none)."""
        low, step = known, 1
        while self._storage.exists(entry_path(low + step)):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._storage.exists(entry_path(middle)) else (low, middle)
        return low

    def _read(self, seq: int) -> Entry:
        data = self._storage.find(entry_path(seq))
        if data is None:
            raise _gone(seq)
        return read_entry(data, seq)

    def _fold(self, entry: Entry) -> None:
        fold_tables(self._tables, (entry,))
        self._folded = entry.seq
        if (entry.seq + 1) % CHECKPOINT_EVERY == 0:
            # A reader may lack the right to write, and without the checkpoint nothing is lost but time.
            with suppress(StorageError):
                data = write_checkpoint(entry.seq, self._tables)
                self._storage.create(checkpoint_path(entry.seq), data, step="checkpoint")

    def _resume_from_checkpoint(self, upto: int) -> None:
        """Start the fold from the newest checkpoint that can be read; without one, from the first entry."""
        there = sorted(seq for path in self._storage.list(CHECKPOINTS) if 0 <= (seq := number(path)) <= upto)
        for seq in reversed(there):
            try:
                self._tables = read_checkpoint(self._storage.read(checkpoint_path(seq)), seq)
            except StorageError:
                continue
            self._folded = seq
            return

    def _store_schema(self, schema: TableSchema, fingerprint: str) -> None:
        key = (schema.table, fingerprint)
        if key not in self._schemas:
            path = schema_path(schema.table, fingerprint)
            self._storage.create(path, schema.to_json().encode(), step="schema")
            self._schemas[key] = schema

    def _workplace(self) -> Path:
        if self._work is None or not self._work.is_dir():
            self._work = self._storage.scratch()
        return self._work

    def _refuse_if_over(self) -> None:
        if self._over:
            raise Conflict(_LOST, hint=_AGAIN)

    def _end_session(self) -> Conflict:
        self._over = True
        return Conflict(_LOST, hint=_AGAIN)


def _gone(seq: int) -> Corrupt:
    return Corrupt(f"{entry_path(seq)}: the entry is gone", hint="restore the folder raw/log from a backup")


def _check_rows(refs: Sequence[BatchRef], first: int, next_row: int) -> None:
    """Rows of an entry lie between the last entry's `next_row` and its own: `collect` relies on it."""
    if next_row % STRIDE or next_row < first:
        raise ValueError(f"next_row {next_row} is no multiple of {STRIDE} from {first} on")
    for ref in refs:
        if ref.rows and not first <= ref.first_seq <= ref.last_seq < next_row:
            raise ValueError(f"{ref.path}: rows outside {first} to {next_row}")


def _first_row(path: str) -> int:
    """The first `_hw_seq` in the name of a data file; of any other file, more than any."""
    name = path.rpartition("/")[2]
    return int(name[:20]) if len(name) == 66 and name[:20].isdigit() else 1 << 63
