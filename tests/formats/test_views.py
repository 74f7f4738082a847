"""The contract of published views for each format, through readers that know nothing of us."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from contracts.views import EVERY, PLAIN, ROWS, TABLE, Types, ViewContract, all_views
from headwater.canonical import duckdb_type, quote
from headwater.formats import Target
from headwater.formats.convert import BATCH_ROWS, GROUP, Converter
from headwater.formats.iceberg import Iceberg
from headwater.formats.symlink import Symlinks
from headwater.formats.views import View
from headwater.lake import Change, Held, NewFile
from headwater.lake.commits import folder_of
from headwater.lake.delta import Lake
from headwater.lake.stored import from_stored, stored_type
from headwater.model import Column, Mark, TableSchema
from headwater.storage import Storage
from raw.batches import open_bucket


class Stores:
    """The stores that views are tried on."""

    place = "folder"

    @pytest.fixture
    def again(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> Iterator[Callable[[], tuple[Storage, Lake]]]:
        bucket = request.getfixturevalue("s3") if self.place == "s3" else None
        with ExitStack() as cleanup:
            count = iter(range(100))

            def open_it() -> tuple[Storage, Lake]:
                cache = tmp_path / f"cache{next(count)}"
                storage = (
                    open_bucket(bucket, cache) if bucket else Storage.open(str(tmp_path / "s"), cache=cache)
                )
                cleanup.enter_context(storage)
                return storage, Lake(storage)

            yield open_it

    @pytest.fixture
    def opened(self, again: Callable[[], tuple[Storage, Lake]]) -> tuple[Storage, Lake]:
        return again()

    @pytest.fixture
    def storage(self, opened: tuple[Storage, Lake]) -> Storage:
        return opened[0]

    @pytest.fixture
    def lake(self, opened: tuple[Storage, Lake]) -> Lake:
        return opened[1]


def listed(storage: Storage, target: Target) -> list[bytes]:
    """The content of the files that the symlink manifests name, as Hive follows them."""
    base = f"file://{storage.local}/" if storage.local else storage.delta("x")[0].removesuffix("x")
    lines: list[str] = []
    for path in storage.list(f"{target.folder}/_symlink_format_manifest"):
        assert path.endswith("/manifest")
        lines += storage.read(path).decode().splitlines()
    assert len(lines) == len(set(lines))
    assert all(line.startswith(base) for line in lines)
    return [storage.read(line.removeprefix(base)) for line in lines]


def typed(table: pa.Table, layout: Types) -> pa.Table:
    """What is stored as text or wider, in the lake's types, ordered."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("t", table)
        cells = ", ".join(from_stored(name, kind) for name, kind in layout.items())
        return con.sql(f"SELECT {cells} FROM t ORDER BY id").to_arrow_table()


class TestIceberg(Stores, ViewContract):
    view = "iceberg"

    def make(self, storage: Storage, lake: Lake) -> View:
        return Iceberg(storage, lake)

    def read(self, storage: Storage, target: Target, layout: Types) -> pa.Table:
        from pyiceberg.table import StaticTable

        uri, options = storage.delta(target.folder)
        names = {
            "endpoint": "ENDPOINT_URL",
            "access-key-id": "ACCESS_KEY_ID",
            "secret-access-key": "SECRET_ACCESS_KEY",
            "region": "REGION",
        }
        properties = {f"s3.{n}": options[f"AWS_{o}"] for n, o in names.items() if f"AWS_{o}" in options}
        table = StaticTable.from_metadata(uri, properties)
        found = table.scan().to_arrow()
        assert found.schema.field("id").type == pa.int64()
        return typed(found.select(list(layout)), layout)


@pytest.mark.live
class TestIcebergOnS3(TestIceberg):
    place = "s3"


class TestParquet(Stores, ViewContract):
    view = "parquet"

    def make(self, storage: Storage, lake: Lake) -> View:
        return Symlinks(storage, lake, "parquet")

    def read(self, storage: Storage, target: Target, layout: Types) -> pa.Table:
        tables = [pq.read_table(io.BytesIO(data)) for data in listed(storage, target)]
        empty = pa.schema([(name, stored_type(kind)) for name, kind in layout.items()]).empty_table()
        return typed(pa.concat_tables([empty, *tables], promote_options="permissive"), layout)


class TestOrc(Stores, ViewContract):
    view = "orc"

    def make(self, storage: Storage, lake: Lake) -> View:
        return Symlinks(storage, lake, "orc")

    def read(self, storage: Storage, target: Target, layout: Types) -> pa.Table:
        files = [orc.ORCFile(io.BytesIO(data)) for data in listed(storage, target)]
        assert {str(file.compression) for file in files} <= {"SNAPPY"}
        # Columns by their place, as Hive reads ORC.
        tables = [file.read().rename_columns(list(layout)) for file in files]
        if not tables:
            return pa.schema(list(layout.items())).empty_table()
        return cast_texts(pa.concat_tables(tables), layout)


@pytest.mark.live
class TestOrcOnS3(Stores):
    """Manifests and files of our own in a bucket; columns and types are tried on a folder."""

    place = "s3"

    @pytest.mark.parametrize(
        "test",
        [
            ViewContract.test_versions_follow_each_other,
            ViewContract.test_doing_it_again_writes_nothing,
            ViewContract.test_partitions,
        ],
    )
    def test_contract(
        self, storage: Storage, lake: Lake, test: Callable[[ViewContract, Storage, Lake], None]
    ) -> None:
        test(TestOrc(), storage, lake)

    def test_publishers_race(
        self, storage: Storage, lake: Lake, again: Callable[[], tuple[Storage, Lake]]
    ) -> None:
        TestOrc().test_publishers_race(storage, lake, again)


class TestCsv(Stores, ViewContract):
    view, compression = "csv", "gzip"

    def make(self, storage: Storage, lake: Lake) -> View:
        return Symlinks(storage, lake, "csv", self.compression)

    def unpack(self, data: bytes) -> bytes:
        return gzip.decompress(data)

    def read(self, storage: Storage, target: Target, layout: Types) -> pa.Table:
        rows: list[list[str | None]] = []
        for data in listed(storage, target):
            head, *some = parse_csv(self.unpack(data).decode())
            assert head == list(layout)
            rows += some
        columns = list(zip(*rows, strict=True)) if rows else [() for _ in layout]
        made = {n: pa.array(c, pa.string()) for n, c in zip(layout, columns, strict=True)}
        return cast_texts(pa.table(made), layout)


class Bzip2(TestCsv):
    compression = "bzip2"

    def unpack(self, data: bytes) -> bytes:
        return bz2.decompress(data)


class Uncompressed(TestCsv):
    compression = "none"

    def unpack(self, data: bytes) -> bytes:
        return data


@pytest.mark.parametrize("made", [Bzip2(), Uncompressed()])
def test_csv_is_compressed_otherwise(tmp_path: Path, made: TestCsv) -> None:
    """Another compression makes the files anew, and those before stay for their readers."""
    with Storage.open(str(tmp_path / "s"), cache=tmp_path) as storage:
        lake = Lake(storage)
        TestCsv().test_every_type_comes_back(storage, lake)
        before = set(storage.list(f"{made.target.folder}/data"))
        made.make(storage, lake).publish(held_in(lake))
        types = {name: kind for name, (kind, _) in EVERY.items()}
        assert made.read(storage, made.target, types).num_rows == 4
        assert before < set(storage.list(f"{made.target.folder}/data"))


@pytest.mark.parametrize("view", ["orc", "csv"])
def test_a_file_is_made_of_a_file_alone_or_with_others(tmp_path: Path, view: str) -> None:
    """The same bytes, because publishers race and a name is taken once; each with its own rows."""
    with Storage.open(str(tmp_path / "s"), cache=tmp_path) as storage:
        lake, add = Lake(storage), list[NewFile]()
        with lake.connect() as con:
            sizes = [3, 0, BATCH_ROWS + 1, *[2] * GROUP, BATCH_ROWS]
            for number, size in enumerate(sizes):
                rows = ROWS.format(number * 10_000, number * 10_000 + size)
                add += lake.write(con, rows, PLAIN, ["_hw_seq"])
        columns = (Column("id", pa.int64()), Column("t", pa.string()))
        schema = TableSchema(TABLE, columns, ("id",))
        held = lake.commit(TABLE, "mirror", None, Change(Mark(1, 0), schema, PLAIN, add))
        converter = Converter(lake, view, "none")
        paths = held.files["path"].to_pylist()
        together = {path: file.read_bytes() for path, file in converter.convert(held, paths, tmp_path)}
        assert sorted(together) == sorted(paths)
        for path in paths:
            ((_, file),) = converter.convert(held, [path], tmp_path)
            assert file.read_bytes() == together[path]
            found = orc.ORCFile(file).read() if view == "orc" else csv_table(file.read_text())
            wanted = pq.read_table(tmp_path / "s" / folder_of(TABLE, "mirror") / path)
            assert found["id"].cast(pa.int64()).to_pylist() == wanted["id"].to_pylist()


def csv_table(text: str) -> pa.Table:
    head, *rows = parse_csv(text)
    return pa.table({n: pa.array([row[at] for row in rows], pa.string()) for at, n in enumerate(head) if n})


def held_in(lake: Lake) -> Held:
    held = lake.open(TABLE, "mirror")
    assert held is not None
    return held


def test_each_format_has_its_class() -> None:
    classes = [TestIceberg, TestParquet, TestOrc, TestCsv]
    assert sorted(c.view for c in classes) == all_views()


def parse_csv(text: str) -> list[list[str | None]]:
    """Rows by docs/formats.md: nothing between commas is NULL, a pair of quotation marks is empty text."""
    marked = io.StringIO(text.replace('""', "\ue000"), newline="")
    rows: list[list[str | None]] = []
    for row in csv.reader(marked, strict=True):
        told = {"": None, "\ue000": ""}
        rows.append([told[cell] if cell in told else cell.replace("\ue000", '"') for cell in row])
    return rows


def cast_texts(table: pa.Table, layout: Types) -> pa.Table:
    """What is text in a format by its table of cells, in the lake's types, ordered."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("t", table)
        cells = []
        for name, kind in layout.items():
            column = quote(name)
            if kind == pa.binary() and table.schema.field(name).type == pa.string():
                column = f"unhex({column})"
            cells.append(f"CAST({column} AS {duckdb_type(kind)}) AS {quote(name)}")
        return con.sql(f"SELECT {', '.join(cells)} FROM t ORDER BY id").to_arrow_table()
