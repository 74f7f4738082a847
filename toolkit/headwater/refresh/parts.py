"""What steps and compactions share: statements in a connection, and how a lake table is addressed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.canonical import quote
from headwater.columns import spelling
from headwater.config import Files, TableSpec, quote_table
from headwater.errors import Incomplete, SchemaConflict
from headwater.fold import Shape
from headwater.lake import Change, Held, Kind, NewFile
from headwater.lake.delta import Lake
from headwater.lake.keys import Keys
from headwater.lake.layout import CARRIED
from headwater.lake.placing import PLAIN, Placing
from headwater.lake.tail import ACCEPTED, MADE
from headwater.lake.touched import Target
from headwater.model import TableId
from headwater.quarantine import RULES, written_rules

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

META = ", ".join(CARRIED)


@dataclass(frozen=True, slots=True)
class Work:
    """One table to work on. `held` is its lake tables, brought forward with each commit.

    room    bytes of rows that may be kept in memory at once
    made    by which casts it is folded, and the how manieth time; "" for none, ever
    old     lake tables that were folded by other casts: the first commit to one replaces it
    accepted   up to this entry of the log the table's policies have let everything in before
    """

    con: DuckDBPyConnection
    lake: Lake
    spec: TableSpec
    held: dict[Kind, Held | None]
    room: int
    made: str = ""
    old: dict[Kind, Held] = field(default_factory=dict)
    accepted: int = -1

    @property
    def making(self) -> Mapping[str, str]:
        """What the commits say of `made`."""
        accepted = {ACCEPTED: str(self.accepted)} if self.accepted >= 0 else {}
        return {MADE: self.made, RULES: written_rules(self.spec), **accepted} if self.made else {}

    def commit(self, kind: Kind, change: Change) -> None:
        """Commit one lake table."""
        before = self.held.get(kind)
        if kind in self.old:
            before, change = self.old.pop(kind), replace(change, replace=True)
        self.held[kind] = self.lake.commit(self.spec.table, kind, before, change)


class Bench:
    """One table on a connection of its own: what is made there is temporary, and gone with `clean`."""

    def __init__(self, work: Work, shape: Shape, row_bytes: int) -> None:
        self.con, self.lake, self.table = work.con.cursor(), work.lake, work.spec.table
        self.shape, self.row_bytes = shape, row_bytes
        self.schema = shape.schema
        self._codec = Placing(files=Files(work.spec.files.compression))

    def run(self, *statements: str) -> None:
        """Execute."""
        for statement in statements:
            self.con.execute(statement).fetchall()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.con.execute(query).fetchall()

    def ask(self, query: str) -> int:
        """The one number that a query gives."""
        return int(self.rows(query)[0][0] or 0)

    @contextmanager
    def clean(self) -> Iterator[None]:
        """Leave nothing behind."""
        try:
            yield
        finally:
            self.con.close()

    @property
    def parts(self) -> str:
        """The names of what tells rows apart."""
        return ", ".join(self.shape.parts)

    @property
    def order(self) -> list[str]:
        """What files of current rows are sorted by."""
        return [quote(name) for name in self.schema.key] or ["_hw_seq"]

    def keys(self, relation: str, held: Held | None = None) -> Keys:
        """Rows' identities in a relation, to be looked for in the files of `held`."""
        if not self.schema.key or (held is not None and self.schema.key[0] in self._renamed(held)):
            return Keys(relation, self.shape.identity, "", pa.null())
        first = self.schema.key[0]
        kind = next(c.type for c in self.schema.columns if c.name == first)
        return Keys(relation, self.shape.identity, first, kind)

    def _renamed(self, held: Held) -> set[str]:
        """Columns whose bounds in the files are kept under another name."""
        return set(spelling(held.schema, self.schema).values())

    def target(
        self, held: Held, cells: str, layout: Mapping[str, pa.DataType], placing: Placing = PLAIN
    ) -> Target:
        """A lake table that rows go into."""
        return Target(self.lake, self.con, held, cells, layout, self.row_bytes, placing, self.schema.key)

    def write(
        self,
        rows: str,
        layout: Mapping[str, pa.DataType],
        order: Sequence[str],
        placing: Placing | None = None,
    ) -> list[NewFile]:
        """Rows of a query into new files; of `changes` without a placing."""
        return self.lake.write(self.con, rows, layout, order, self.row_bytes, placing or self._codec)

    def refuse(
        self, op: str, seq: int, key: Sequence[Any], *, lost: bool, entry: int | None = None
    ) -> SchemaConflict:
        """The error for a change that does not fit; `entry` as far as known."""
        what = {
            "c": "inserts a row that is already there",
            "u": "updates a row that is not there",
            "d": "deletes a row that is not there",
            "r": "reads a row whose key another row has",
            "n": "is of a row without a value in its key",
        }.get(op, "does not fit")
        if lost:
            what = "lacks cells of a row that is not there"
        place = "" if entry is None else f" of raw log entry {entry}"
        hint = read_again(self.table)
        if op in "crn" and self.schema.key_chosen:
            names = ", ".join(self.schema.key)
            other = "other" if op == "n" else "more"
            hint = f"name {other} columns than ({names}) in the table's `key`, then: {hint}"
        # Rows come into a filtered copy by right; where the load was cut short, reading it all is no way out.
        kind = Incomplete if lost and self.schema.where and not self.schema.loaded else SchemaConflict
        return kind(f"{self.table}: change {seq}{place} {what} (key {_shown(key)})", hint=hint)


def paths_of(held: Held) -> list[str]:
    """The files of a lake table."""
    paths: list[str] = held.files["path"].to_pylist()
    return paths


def _shown(key: Sequence[Any]) -> str:
    return ", ".join("NULL" if part is None else str(part)[:80] for part in key)


def read_again(table: TableId) -> str:
    """The hint where only another full load helps."""
    return f"headwater run --full --table {shlex.quote(quote_table(table))}   (history is kept)"
