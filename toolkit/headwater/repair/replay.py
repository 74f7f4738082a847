"""Some keys of a table folded once more from the raw log, into a lake of their own that is thrown away."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.canonical import held_types, literal
from headwater.columns import ident
from headwater.config import Policies, TableSpec
from headwater.lake.delta import Lake
from headwater.model import BatchRef, TableId, TableSchema
from headwater.raw import RawLog
from headwater.refresh import refresh
from headwater.repair.keys import among, key_text, note_keys
from headwater.storage import Storage

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# A row that got its key from another one may have cells of it: the log gives the old key one number before.
_ORIGINS = """
SELECT DISTINCT d.k FROM (SELECT *, {key} AS k FROM {rows}) AS d
JOIN (SELECT _hw_seq FROM (SELECT *, {key} AS k FROM {rows}) AS c SEMI JOIN _hw_suspects AS w ON c.k = w.k
      WHERE _hw_op = 'c' AND len(_hw_unset) > 0) AS c ON d._hw_seq = c._hw_seq - 1
WHERE d._hw_op = 'd'
"""


class KeyedLog(RawLog):
    """A raw log as it would be if a table never had other keys than some. For reading only."""

    def __init__(self, storage: Storage, con: DuckDBPyConnection, folder: Path) -> None:
        """The keys are those noted in `con`; `folder` is for the files made."""
        super().__init__(storage)
        self._con, self._folder = con, folder

    def fetch(self, ref: BatchRef) -> Path:
        """The rows of the keys in a batch, and truncates, which are of all keys."""
        rows = self.rows(ref)
        made = self._folder / f"{uuid.uuid4().hex}.parquet"
        truncates = f"SELECT * FROM {rows} WHERE _hw_op = 't'"
        kept = among(f"(SELECT * FROM {rows} WHERE _hw_op <> 't')", self.key(ref))
        query = f"SELECT * FROM {kept} UNION ALL {truncates} ORDER BY _hw_seq"
        self._con.execute(f"COPY ({query}) TO {literal(str(made))} (FORMAT parquet)")
        return made

    def rows(self, ref: BatchRef) -> str:
        """SQL to stand after FROM: the whole batch."""
        return f"read_parquet({literal(str(super().fetch(ref)))})"

    def key(self, ref: BatchRef) -> str:
        """SQL of the key's text over rows of the batch."""
        schema = self.schema(ref.table, ref.schema)
        return key_text(schema, held_types(schema))

    def batches(self, table: TableId) -> Iterator[BatchRef]:
        """Every batch of a table that has rows."""
        for entry in self.entries():
            yield from (ref for ref in entry.batches if ref.table == table and ref.rows)


@contextmanager
def replayed(
    storage: Storage, con: DuckDBPyConnection, spec: TableSpec, keys: Collection[str], memory_limit: str
) -> Iterator[Lake]:
    """A lake that holds these keys of a table as the raw log gives them, and what they come from."""
    folder = storage.scratch()
    log = KeyedLog(storage, con, folder)
    _trace(log, con, spec.table, keys)
    with closing(Storage.open(str(folder / "again"), cache=folder / "cache")) as apart:
        lake = Lake(apart, memory_limit)
        # What was let in once is let in again; what is left out stays so.
        kept = spec.policies
        schema, truncate = kept.schema, kept.on_truncate
        policies = Policies(
            schema=schema if schema == "discard" else "evolve",
            on_truncate="apply" if truncate == "fail" else truncate,
        )
        plain = replace(spec, policies=policies, partition=None, formats=())
        refresh(log, lake, {spec.table: plain}, memory_limit=memory_limit)
        yield lake


def same_key(log: RawLog, table: TableId, newest: TableSchema) -> bool:
    """Whether all rows of a table in the log have the key that it has now, whatever it was called."""
    wanted = _key_types(newest)
    found = {ref.schema for e in log.entries() for ref in e.batches if ref.table == table and ref.rows}
    return all(_key_types(log.schema(table, fingerprint)) == wanted for fingerprint in found)


def _key_types(schema: TableSchema) -> list[object]:
    columns = {c.name: c for c in schema.columns}
    return [(ident(columns[name]), columns[name].type, columns[name].mask) for name in schema.key]


def _trace(log: KeyedLog, con: DuckDBPyConnection, table: TableId, keys: Collection[str]) -> None:
    """Note the keys, and those that their rows had before."""
    known, news = set(keys), set(keys)
    while news:
        note_keys(con, known)
        found: set[str] = set()
        for ref in log.batches(table):
            rows = con.execute(_ORIGINS.format(key=log.key(ref), rows=log.rows(ref))).fetchall()
            found |= {row[0] for row in rows}
        news = found - known
        known |= news
