"""What every TableFormat must do: subclass, give the fixture `format` (new, empty) and `again` (reopened)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import pyarrow as pa
import pytest

from headwater.errors import Conflict
from headwater.lake import Change, Held, TableFormat
from headwater.model import Column, Mark, TableId, TableSchema

TABLE = TableId("s", "Weird Näme/..")
SCHEMA = TableSchema(
    TABLE, (Column("id", pa.int64(), "int8", False), Column("t", pa.string(), "text")), ("id",)
)
LAYOUT = {"id": pa.int64(), "t": pa.string(), "_hw_seq": pa.int64()}


class FormatContract:
    """One suite for all formats."""

    @pytest.fixture
    def con(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            yield con

    def put(
        self, lake: TableFormat, con: duckdb.DuckDBPyConnection, held: Held | None, ids: range, **more: object
    ) -> Held:
        """Commit rows of these ids; the mark is the highest id."""
        cells = "range AS id, 'row ' || range AS t, range * 4 AS _hw_seq"
        rows = f"SELECT {cells} FROM range({ids.start}, {ids.stop})"
        add = lake.write(con, rows, LAYOUT, ["id"])
        change = Change(Mark(1, ids.stop), SCHEMA, LAYOUT, add, **more)  # type: ignore[arg-type]
        return lake.commit(TABLE, "mirror", held, change)

    def ids(self, lake: TableFormat, con: duckdb.DuckDBPyConnection) -> list[int]:
        """What is there."""
        held = lake.open(TABLE, "mirror")
        assert held is not None
        return [row[0] for row in con.execute(f"SELECT id FROM {lake.scan(held)} ORDER BY id").fetchall()]

    def test_nothing_is_there_at_first(self, format: TableFormat) -> None:
        assert format.open(TABLE, "mirror") is None

    def test_rows_mark_and_schema_come_back(
        self, format: TableFormat, again: Callable[[], TableFormat], con: duckdb.DuckDBPyConnection
    ) -> None:
        self.put(format, con, None, range(3), notes={"a": "b"})
        other = again()
        held = other.open(TABLE, "mirror")
        assert held is not None
        assert (held.mark, held.schema, dict(held.layout)) == (Mark(1, 3), SCHEMA, LAYOUT)
        assert dict(held.notes) == {"a": "b"}
        assert self.ids(other, con) == [0, 1, 2]
        assert other.open(TABLE, "history") is None

    def test_a_commit_adds_and_removes_at_once(
        self, format: TableFormat, con: duckdb.DuckDBPyConnection
    ) -> None:
        held = self.put(format, con, None, range(3))
        first = held.files["path"].to_pylist()
        held = self.put(format, con, held, range(3, 5))
        assert self.ids(format, con) == [0, 1, 2, 3, 4]
        held = self.put(format, con, held, range(7, 9), remove=first)
        assert self.ids(format, con) == [3, 4, 7, 8]
        assert held.version == 2
        assert sum(held.files["num_records"].to_pylist()) == 4

    def test_a_replacement_is_all_there_is(self, format: TableFormat, con: duckdb.DuckDBPyConnection) -> None:
        held = self.put(format, con, None, range(3))
        wide = {**LAYOUT, "id": pa.string()}
        add = format.write(con, "SELECT 'x' AS id, 'y' AS t, 1 AS _hw_seq", wide, [])
        held = format.commit(TABLE, "mirror", held, Change(Mark(1, 9), SCHEMA, wide, add, replace=True))
        assert con.execute(f"SELECT id FROM {format.scan(held)}").fetchall() == [("x",)]

    def test_a_new_column_is_null_in_old_rows(
        self, format: TableFormat, con: duckdb.DuckDBPyConnection
    ) -> None:
        held = self.put(format, con, None, range(2))
        more = {"id": pa.int64(), "t": pa.string(), "new": pa.time64("us"), "_hw_seq": pa.int64()}
        change = Change(Mark(1, 9), SCHEMA, more)
        held = format.commit(TABLE, "mirror", held, change)
        assert con.execute(f"SELECT * FROM {format.scan(held)} ORDER BY id").fetchall() == [
            (0, "row 0", None, 0), (1, "row 1", None, 4),
        ]  # fmt: skip

    def test_a_table_may_lose_its_last_file(
        self, format: TableFormat, con: duckdb.DuckDBPyConnection
    ) -> None:
        held = self.put(format, con, None, range(2))
        gone = Change(Mark(1, 9), SCHEMA, LAYOUT, (), held.files["path"].to_pylist())
        held = format.commit(TABLE, "mirror", held, gone)
        assert self.ids(format, con) == []
        assert held.mark == Mark(1, 9)

    def test_files_can_be_told_apart(self, format: TableFormat, con: duckdb.DuckDBPyConnection) -> None:
        held = self.put(format, con, self.put(format, con, None, range(2)), range(5, 7))
        paths = held.files["path"].to_pylist()
        located = format.locate(held, paths)
        found = con.execute(f"SELECT DISTINCT _hw_file FROM {format.scan(held, name_files=True)}").fetchall()
        assert sorted(located[row[0]] for row in found) == sorted(paths)

    def test_the_second_of_two_writers_is_told(
        self, format: TableFormat, again: Callable[[], TableFormat], con: duckdb.DuckDBPyConnection
    ) -> None:
        self.put(format, con, None, range(3))
        with pytest.raises(Conflict):
            self.put(again(), con, None, range(3, 5))
        one, other = format.open(TABLE, "mirror"), again()
        assert one is not None
        theirs = other.open(TABLE, "mirror")
        self.put(format, con, one, range(5, 6))
        with pytest.raises(Conflict):
            self.put(other, con, theirs, range(6, 7))
        assert self.ids(format, con) == [0, 1, 2, 5]
