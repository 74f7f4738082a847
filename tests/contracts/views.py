# ruff: noqa: E501  one value, one line
"""What every published view must do: subclass, give `view` and `read`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from headwater.errors import SchemaConflict
from headwater.formats import Target
from headwater.formats.cells import CELLS
from headwater.formats.views import View
from headwater.lake import Change, Held
from headwater.lake.commits import folder_of
from headwater.lake.delta import Lake
from headwater.model import Column, Mark, TableId, TableSchema
from headwater.storage import Storage

TABLE = TableId("s", "Weird 'Näme\"/.. %2F")
Types = Mapping[str, pa.DataType]

PLAIN: Types = {"id": pa.int64(), "t": pa.string(), "_hw_seq": pa.int64()}

#: Every type, with values that some reader or writer has been seen to bend.
EVERY: Mapping[str, tuple[pa.DataType, Sequence[str]]] = {
    "id": (pa.int64(), ["1", "2", "3", "4"]),
    "bool": (pa.bool_(), ["true", "false", "NULL", "NULL"]),
    "i8": (pa.int8(), ["-128", "127", "NULL", "0"]),
    "i16": (pa.int16(), ["-32768", "32767", "NULL", "0"]),
    "i32": (pa.int32(), ["-2147483648", "2147483647", "NULL", "0"]),
    "i64": (pa.int64(), ["-9223372036854775808", "9223372036854775807", "NULL", "0"]),
    "u8": (pa.uint8(), ["255", "0", "NULL", "1"]),
    "u16": (pa.uint16(), ["65535", "0", "NULL", "1"]),
    "u32": (pa.uint32(), ["4294967295", "0", "NULL", "1"]),
    "u64": (pa.uint64(), ["18446744073709551615", "0", "NULL", "1"]),
    "f32": (pa.float32(), ["'nan'", "'-inf'", "NULL", "-0.0::FLOAT"]),
    "f64": (pa.float64(), ["0.1::DOUBLE", "'inf'", "NULL", "-0.0::DOUBLE"]),
    "d38": (pa.decimal128(38, 2), ["999999999999999999999999999999999999.99", "-0.01", "NULL", "0"]),
    "d5": (pa.decimal128(5, 5), ["0.00001", "-0.99999", "NULL", "0"]),
    "d9": (pa.decimal128(9, 0), ["123456789", "-1", "NULL", "0"]),
    "text": (pa.string(), ["''", "NULL", "chr(13) || chr(10) || '\"a\",''b''\\N;\U00020bb7'", "'NULL'"]),
    "blob": (pa.binary(), ["''::BLOB", "NULL", "'\\x00\\xFF\\x0A'::BLOB", "'x'::BLOB"]),
    "day": (pa.date32(), ["DATE '0001-01-01'", "DATE '9999-12-31'", "NULL", "DATE '1582-10-10'"]),
    "tod": (pa.time64("us"), ["TIME '00:00:00'", "TIME '23:59:59.999999'", "NULL", "TIME '12:30:00'"]),
    "ts": (pa.timestamp("us"), ["'1969-12-31 23:59:59.999999'", "'0001-01-01'", "NULL", "'9999-12-31 23:59:59.999999'"]),
    "tz": (
        pa.timestamp("us", "UTC"),
        ["'1500-02-28 23:59:59.5+00'", "'2024-03-31 01:30:00.123456+00'", "NULL", "'9999-12-31 00:00:00+00'"],
    ),
    "Größe": (pa.int32(), ["1", "2", "3", "NULL"]),
    "select": (pa.string(), ["'a'", "'b'", "NULL", "'d'"]),
    "_hw_seq": (pa.int64(), ["4", "8", "12", "16"]),
}  # fmt: skip

ROWS = "SELECT range AS id, 'row ' || range AS t, range * 4 AS _hw_seq FROM range({}, {})"


class ViewContract:
    """One suite for all views."""

    view: str

    def make(self, storage: Storage, lake: Lake) -> View:
        """The view, opened."""
        raise NotImplementedError

    def read(self, storage: Storage, target: Target, layout: Types) -> pa.Table:
        """What a reader that knows nothing of us finds, in the types of the lake."""
        raise NotImplementedError

    def commit(self, lake: Lake, held: Held | None, rows: str, types: Types = PLAIN, **more: Any) -> Held:
        """The next version of the mirror, with these rows more."""
        columns = tuple(Column(name, kind) for name, kind in types.items() if name != "_hw_seq")
        with lake.connect() as con:
            add = lake.write(con, rows, types, ["_hw_seq"]) if rows else []
        mark = Mark(1, held.mark.seq + 1 if held else 0)
        return lake.commit(
            TABLE, "mirror", held, Change(mark, TableSchema(TABLE, columns, ("id",)), types, add, **more)
        )

    @property
    def target(self) -> Target:
        return Target(TABLE, "mirror", self.view)

    def ids(self, storage: Storage, types: Types = PLAIN) -> list[int]:
        return sorted(self.read(storage, self.target, types)["id"].to_pylist())

    def test_nothing_is_shown_at_first(self, storage: Storage, lake: Lake) -> None:
        assert self.make(storage, lake).shown(self.target) is None

    def test_versions_follow_each_other(self, storage: Storage, lake: Lake) -> None:
        view = self.make(storage, lake)
        held = self.commit(lake, None, ROWS.format(0, 3))
        shown = view.publish(held).shown
        assert (shown.version, shown.mark, shown.rows) == (held.version, held.mark, 3)
        assert view.shown(self.target) == shown
        assert self.ids(storage) == [0, 1, 2]
        first = held.files["path"].to_pylist()
        held = self.commit(lake, held, ROWS.format(3, 5))
        assert self.ids(storage) == [0, 1, 2]  # as of the version that is shown
        view.publish(held)
        assert self.ids(storage) == [0, 1, 2, 3, 4]
        held = self.commit(lake, held, ROWS.format(7, 9), remove=first)
        assert view.publish(held).shown.rows == 4
        assert self.ids(storage) == [3, 4, 7, 8]

    def test_doing_it_again_writes_nothing(self, storage: Storage, lake: Lake) -> None:
        view, held = self.make(storage, lake), self.commit(lake, None, ROWS.format(0, 3))
        view.publish(held)
        before = {file.path: file.modified for file in storage.files(self.target.folder)}
        assert self.make(storage, lake).publish(held) == view.publish(held)
        assert {file.path: file.modified for file in storage.files(self.target.folder)} == before

    def test_every_type_comes_back(self, storage: Storage, lake: Lake) -> None:
        types = {name: kind for name, (kind, _) in EVERY.items()}
        held = self.commit(lake, None, every_row(), types)
        self.make(storage, lake).publish(held)
        found = self.read(storage, self.target, types)
        with lake.connect() as con:
            wanted = con.sql(f"SELECT * FROM {lake.scan(held)} ORDER BY id").to_arrow_table()
        assert found.column_names == wanted.column_names
        assert texts(found) == texts(wanted)

    def test_a_column_is_added(self, storage: Storage, lake: Lake) -> None:
        view, held = self.make(storage, lake), self.commit(lake, None, ROWS.format(0, 2))
        view.publish(held)
        more = {"id": pa.int64(), "t": pa.string(), "new": pa.time64("us"), "_hw_seq": pa.int64()}
        row = "SELECT 9::BIGINT AS id, 'x' AS t, TIME '10:00:00' AS new, 99::BIGINT AS _hw_seq"
        view.publish(self.commit(lake, held, row, more))
        found = self.read(storage, self.target, more)
        assert found["id"].to_pylist() == [0, 1, 9]
        assert [str(v) for v in found["new"].to_pylist()] == ["None", "None", "10:00:00"]
        assert found["t"].to_pylist() == ["row 0", "row 1", "x"]

    @pytest.mark.parametrize(("wider", "value"), [(pa.int64(), 7), (pa.string(), "7")])
    def test_a_column_is_widened(
        self, storage: Storage, lake: Lake, wider: pa.DataType, value: object
    ) -> None:
        narrow = {"id": pa.int64(), "n": pa.int32(), "_hw_seq": pa.int64()}
        view = self.make(storage, lake)
        held = self.commit(
            lake, None, "SELECT 1::BIGINT AS id, 7::INTEGER AS n, 4::BIGINT AS _hw_seq", narrow
        )
        view.publish(held)
        wide = {**narrow, "n": wider}
        rows = f"SELECT id, CAST(n AS {'BIGINT' if wider == pa.int64() else 'VARCHAR'}) AS n, _hw_seq FROM {lake.scan(held)}"
        view.publish(self.commit(lake, held, rows, wide, replace=True))
        assert self.read(storage, self.target, wide)["n"].to_pylist() == [value]

    def test_a_table_may_be_empty(self, storage: Storage, lake: Lake) -> None:
        view, held = self.make(storage, lake), self.commit(lake, None, ROWS.format(0, 2))
        view.publish(held)
        held = self.commit(lake, held, "", remove=held.files["path"].to_pylist())
        assert view.publish(held).shown.rows == 0
        assert self.ids(storage) == []
        view.publish(self.commit(lake, held, ROWS.format(5, 6)))
        assert self.ids(storage) == [5]

    def test_an_older_version_is_named_again(self, storage: Storage, lake: Lake) -> None:
        view, held = self.make(storage, lake), self.commit(lake, None, ROWS.format(0, 2))
        view.publish(held)
        later = self.commit(lake, held, ROWS.format(2, 4), remove=held.files["path"].to_pylist())
        view.publish(later)
        # What a restore does: the files of the older version in a new one.
        older = replace(held, version=later.version + 1)
        assert view.publish(older).shown.mark == held.mark
        assert self.ids(storage) == [0, 1]

    def test_a_table_that_was_made_anew(self, storage: Storage, lake: Lake) -> None:
        held = self.commit(lake, None, ROWS.format(0, 2))
        held = self.commit(lake, held, ROWS.format(2, 4))
        self.make(storage, lake).publish(held)
        storage.delete(list(storage.list(folder_of(TABLE, "mirror"))))
        again = Lake(storage)
        held = self.commit(again, None, ROWS.format(7, 8))
        self.make(storage, again).publish(held)
        assert self.ids(storage) == [7]

    def test_a_version_that_is_old_is_not_shown_again(self, storage: Storage, lake: Lake) -> None:
        old = self.commit(lake, None, ROWS.format(0, 2))
        new = self.commit(lake, old, ROWS.format(2, 3))
        view = self.make(storage, lake)
        view.publish(new)
        assert view.publish(old).shown.version == new.version
        assert self.ids(storage) == [0, 1, 2]

    def test_publishers_race(
        self, storage: Storage, lake: Lake, again: Callable[[], tuple[Storage, Lake]]
    ) -> None:
        helds = [self.commit(lake, None, ROWS.format(0, 1))]
        for number in range(1, 6):
            helds.append(self.commit(lake, helds[-1], ROWS.format(number, number + 1)))
        failed: list[BaseException] = []

        def publish(held: Held, view: View) -> None:
            try:
                view.publish(held)
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        racers = [threading.Thread(target=publish, args=(held, self.make(*again()))) for held in helds]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert not failed
        assert self.ids(storage) == list(range(6))

    def test_a_slow_publisher_does_not_win(
        self, storage: Storage, lake: Lake, again: Callable[[], tuple[Storage, Lake]]
    ) -> None:
        """Its pointer comes last, over that of a newer version."""
        old = self.commit(lake, None, ROWS.format(0, 2))
        new = self.commit(lake, old, ROWS.format(2, 3))
        slow, replace_file, passed = self.make(storage, lake), storage.replace, []

        def replace_late(path: str, data: bytes, *, step: str = "replace") -> None:
            if not passed:
                passed.append(path)
                self.make(*again()).publish(new)
            replace_file(path, data, step=step)

        storage.replace = replace_late  # type: ignore[method-assign]
        slow.publish(old)
        assert passed
        assert self.ids(storage) == [0, 1, 2]

    def test_a_vacuum_of_delta_leaves_it(self, storage: Storage, lake: Lake) -> None:
        held = self.commit(lake, None, ROWS.format(0, 2))
        self.make(storage, lake).publish(held)
        uri, options = storage.delta(folder_of(TABLE, "mirror"))
        DeltaTable(uri, storage_options=options).vacuum(
            0, dry_run=False, enforce_retention_duration=False, full=True
        )
        assert self.ids(storage) == [0, 1]

    def test_a_type_that_cannot_be_held_is_refused(self, storage: Storage, lake: Lake) -> None:
        held = self.commit(lake, None, ROWS.format(0, 2))
        odd = replace(held, layout={**held.layout, "list": pa.list_(pa.int64())})
        with pytest.raises(SchemaConflict, match="column list"):
            self.make(storage, lake).publish(odd)
        assert self.make(storage, lake).shown(self.target) is None

    def test_partitions(self, storage: Storage, lake: Lake) -> None:
        view, parts = self.make(storage, lake), ["a", "b%2Fc", None]
        held = in_folders(storage, lake, self.commit(lake, None, ROWS.format(0, 3)), parts)
        listing = view.publish(held)
        assert listing.partition == ("part",)
        assert self.ids(storage) == [0, 1, 2]
        fewer = replace(held, files=held.files.slice(0, 1), version=held.version + 1)
        view.publish(fewer)
        assert self.ids(storage) == [0]
        nothing = replace(held, files=held.files.slice(0, 0), version=held.version + 2)
        view.publish(nothing)
        assert self.ids(storage) == []


def every_row() -> str:
    """SQL of the rows of EVERY."""
    rows = zip(*(cells for _, cells in EVERY.values()), strict=True)
    kinds = [(name, kind) for name, (kind, _) in EVERY.items()]
    from headwater.canonical import duckdb_type, quote

    return " UNION ALL ".join(
        "SELECT " + ", ".join(
            f"CAST({cell} AS {duckdb_type(kind)}) AS {quote(name)}" for cell, (name, kind) in zip(row, kinds, strict=True)
        )
        for row in rows
    )  # fmt: skip


def texts(table: pa.Table) -> list[tuple[str | None, ...]]:
    """The rows as text that tells every value apart, NaN and -0.0 too."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("t", table)
        cells = ", ".join(f'CAST("{name}" AS VARCHAR)' for name in table.column_names)
        return con.execute(f"SELECT {cells} FROM t ORDER BY id").fetchall()


def in_folders(storage: Storage, lake: Lake, held: Held, parts: Sequence[str | None]) -> Held:
    """The version as a lake with native partitions would tell it: a file of one row for each folder."""
    rows = []
    for number, part in enumerate(parts):
        folder = f"part={part or '__HIVE_DEFAULT_PARTITION__'}"
        with lake.connect() as con:
            (made,) = lake.write(con, f"SELECT * FROM {lake.scan(held)} WHERE id = {number}", held.layout, [])
        path, size = f"{folder}/file-{number}.parquet", made.path.stat().st_size
        storage.upload(made.path, f"{folder_of(TABLE, 'mirror')}/{path}")
        value = part.replace("%2F", "/") if part else None
        rows.append({"path": path, "size_bytes": size, "num_records": 1, "partition.part": value})
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("size_bytes", pa.int64()),
            ("num_records", pa.int64()),
            ("partition.part", pa.string()),
        ]
    )
    return replace(
        held, files=pa.Table.from_pylist(rows, schema), partition=("part",), version=held.version + 1
    )


def all_views() -> Sequence[str]:
    """The formats there are: each must have its class in tests/formats."""
    return sorted(CELLS)
