"""What the tests of the source share: a source on a database, and its changes as plain rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from headwater.model import ChangeBatch, Position, TableId, TableSchema
from headwater.sources.postgres import PostgresSource
from servers.postgres import Database

Row = dict[str, Any]


def table(name: str, namespace: str = "public") -> TableId:
    return TableId(namespace, name)


@contextmanager
def opened(url: str, **options: Any) -> Iterator[PostgresSource]:
    source = PostgresSource(url=url, **{"slot": "hw_test", "publication": "hw_test", **options})
    try:
        yield source
    finally:
        source.close()


@dataclass
class Follower:
    """Plays capture: remembers schemas and the position, confirms what it got."""

    source: PostgresSource
    tables: list[TableId]
    at: Position
    known: dict[TableId, TableSchema] = field(default_factory=dict)
    batches: list[ChangeBatch] = field(default_factory=list)

    def drain(self, until: Position | None = None, *, confirm: bool = True) -> list[Row]:
        """Rows of all tables in order since the last call, with `table` added."""
        self.batches = []
        for item in self.source.changes(self.tables, self.at, until, known=self.known):
            if isinstance(item, Position):
                self.at = item
                if confirm:
                    self.source.confirm(item)
            else:
                self.batches.append(item)
        for batch in self.batches:
            self.known[batch.schema.table] = batch.schema
        return rows_of(self.batches)

    @property
    def reloads(self) -> list[bool]:
        return [batch.reload for batch in self.batches]


def rows_of(batches: list[ChangeBatch]) -> list[Row]:
    rows = [{"table": batch.schema.table.name, **row} for batch in batches for row in batch.rows.to_pylist()]
    return sorted(rows, key=lambda row: row["_hw_seq"])


def brief(rows: list[Row], *names: str) -> list[tuple[Any, ...]]:
    """Operation and the named columns of each row."""
    return [(row["_hw_op"], *(row.get(name) for name in names)) for row in rows]


@contextmanager
def following(db: Database, *names: str, **options: Any) -> Iterator[Follower]:
    """A source that has been set up and stands at the head; the tables are in `public`."""
    tables = [table(name) for name in names]
    with opened(options.pop("url", db.url), **options) as source:
        source.prepare(tables, None)
        with source.cut() as cut:
            known = {t: list(cut.read(t))[-1].schema for t in tables}
        yield Follower(source, tables, cut.position, known)


def state(db: Database, name: str, *, columns: str = "*") -> list[tuple[Any, ...]]:
    return sorted(db.run(f"select {columns} from {name}"))


def apply(rows: list[Row], key: str, start: Mapping[Any, Row] | None = None) -> dict[Any, Row]:
    """The mirror that the rows leave behind, by key: the few lines of Python to judge the rest by."""
    mirror: dict[Any, Row] = dict(start or {})
    carried: Row = {}
    for row in rows:
        cells = {
            name: value for name, value in row.items() if not name.startswith("_hw_") and name != "table"
        }
        unset = row["_hw_unset"] or []
        if row["_hw_op"] == "t":
            mirror.clear()
        elif row["_hw_op"] == "d":
            carried = mirror.pop(row[key], {})
        else:
            before = mirror.get(row[key], carried)
            mirror[row[key]] = {n: before[n] if n in unset else v for n, v in cells.items()}
    return mirror
