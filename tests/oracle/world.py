"""A store with a real raw log and lake, and readers that give back plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from headwater.config import TableSpec
from headwater.lake import Kind
from headwater.lake.delta import Lake
from headwater.model import STRIDE, ChangeBatch, Position
from headwater.raw import RawLog
from headwater.refresh import Refreshed, compact, refresh
from headwater.storage import Storage
from oracle.story import TABLE, Batch, Row, raw_table


class World:
    """One store: under a folder, or the one given."""

    def __init__(
        self, folder: Path, spec: TableSpec | None = None, *, storage: Storage | None = None
    ) -> None:
        self.storage = storage or Storage.open(str(folder / "store"), cache=folder / "cache")
        self.log = RawLog(self.storage, "writer")
        self.lake = Lake(self.storage, "500MB")
        self.spec = spec or TableSpec(TABLE)

    def write(self, entries: Sequence[Sequence[Batch]]) -> None:
        """Append entries to the raw log."""
        for batches in entries:
            last = self.log.last()
            base = last.next_row if last else 0
            refs, highest = [], base - 1
            for batch in batches:
                rows = raw_table(batch)
                if rows.num_rows:
                    highest = max(highest, rows["_hw_seq"][-1].as_py())
                    moved = pc.subtract(rows["_hw_seq"], base)
                    rows = rows.set_column(rows.column_names.index("_hw_seq"), "_hw_seq", moved)
                change = ChangeBatch(batch.schema, rows, batch.phase, batch.reload)
                refs.append(self.log.stage(change, batch.epoch, base))
            next_row = (highest // STRIDE + 1) * STRIDE
            self.log.append(refs, Position(str(highest)), next_row)

    def refresh(self, after: int = -1) -> Refreshed | None:
        """Fold what is unread."""
        return refresh(
            self.log, self.lake, {self.spec.table: self.spec}, after=after, memory_limit="500MB"
        ).get(self.spec.table)  # fmt: skip

    def compact(self) -> None:
        """Move tails into their bases."""
        compact(self.lake, {self.spec.table: self.spec}, memory_limit="500MB")

    def rows(self, kind: Kind, order: str = "_hw_seq") -> list[Row]:
        """All rows of a lake table as dicts, odd cells as their text."""
        with self.lake.connect() as con:
            relation = self.lake.relation(con, self.spec.table, kind)
            found: pa.Table = con.sql(f"SELECT * FROM {relation} ORDER BY {order}").to_arrow_table()
        return found.to_pylist()

    def close(self) -> None:
        """Let go."""
        self.storage.close()


def plain(row: Row, names: Sequence[str]) -> Row:
    """The table's own cells; an odd one is its text."""
    cells = {name: row.get(name) for name in names}
    if row.get("_hw_text"):
        import json

        cells |= json.loads(str(row["_hw_text"]))
    return cells


def moment(value: object) -> datetime:
    """A time cell."""
    assert isinstance(value, datetime)
    return value
