"""What a judgement stands on."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.lake.delta import Lake
from headwater.model import TableId, TableSchema
from headwater.raw import RawLog
from headwater.state import StateStore
from headwater.storage import Storage


@dataclass(frozen=True, slots=True)
class Place:
    """Store, log, lake and state of one pipeline."""

    pipeline: str
    storage: Storage
    log: RawLog
    lake: Lake
    state: StateStore

    def newest(self, table: TableId) -> TableSchema:
        """The newest schema of a table in the raw log."""
        return self.log.schema(table, self.log.tables()[table].schema)
