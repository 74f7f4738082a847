"""Folders of mirror and history: rows lie where the layout says, whoever reads them; only what must moves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import QueryBuilder

from headwater.config import Files, TableSpec
from headwater.errors import ConfigError, Conflict
from headwater.lake import Change, Kind, delta, rewrite
from headwater.lake.commits import folder_of
from headwater.lake.delta import Lake
from headwater.lake.placing import PARTITION, folder_of_file, place
from headwater.model import Column
from headwater.partition import parse
from headwater.refresh import policy
from lake.laid import BASES, check_folders, delta_of, folders_of, held_of, rows_of
from lake.test_refresh import Script
from oracle.checks import check, read_lake
from oracle.stories import random_cuts, random_stop, random_story
from oracle.story import FIRST, TABLE, Row, tell
from oracle.test_fold import long_tails, play
from oracle.world import World
from raw.batches import open_bucket
from servers.s3 import Bucket

Worlds = Callable[..., World]


def laid(layout: str, **files: object) -> TableSpec:
    return TableSpec(TABLE, partition=parse(layout) if layout else None, files=Files(**files))  # type: ignore[arg-type]


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Worlds]:
    made: list[World] = []

    def make(spec: TableSpec) -> World:
        made.append(World(tmp_path / str(len(made)), spec))
        return made[-1]

    yield make
    for world in made:
        world.close()


STORIES = [
    ("/@2(nn=%.1i)/@big(b=%2s)", {}),
    ("/@id(k=%i)", {"compression": "gzip"}),
    ("/@2(%i)", {"slices": 3}),
    ("/@price(p=%s)/@1(%i)/@1(K=x%3i)", {"compression": "snappy"}),
    ("", {"slices": 2}),
]


@pytest.mark.parametrize("number", range(len(STORIES)))
def test_a_layout_changes_no_row(worlds: Worlds, number: int) -> None:
    layout, files = STORIES[number]
    dice = random.Random(number)
    told = tell(random_story(dice))
    world = worlds(laid(layout, **files))
    stop = random_stop(dice) if number % 2 else None
    with long_tails() if number % 3 else nullcontext():
        play(world, told, random_cuts(dice), stop, random_cuts(dice))
    facts = read_lake(world)
    check(told, facts)
    check_folders(world)
    world.compact()
    assert read_lake(world) == facts
    check_folders(world)


TEXTS = [
    None, "", "/", "..", ".", "a/b", "a=b", "%41", "A", "a", "%", "_x", "__EMPTY__", "😀", "e\u0301", "é",
    "\u212b", "日本 語", "x" * 150, "x" * 151, "x" * 300, "x" * 300 + "y", "tab\tnew\nline", "*?[a]{b}", "~",
    "__HIVE_DEFAULT_PARTITION__", "#", "a\\b", "con", "a:b", "'\"",
]  # fmt: skip


def hostile(script: Script) -> None:
    """A row for each text read, and one changed; and one that moves."""
    script.read(*(script.row("r", id=n, n=n, big=text) for n, text in enumerate([*TEXTS, "old"])))
    script.put(
        *(script.row("u", id=n, n=n, big=text) for n, text in enumerate(TEXTS) if n % 2),
        script.row("u", id=len(TEXTS), n=0, big="new/folder"),
    )


def read_by_others(world: World, kind: Kind = "mirror") -> list[list[tuple[object, ...]]]:
    """The rows as deltalake, DataFusion and Polars give them, in one order."""
    table = delta_of(world, kind)
    uri, options = world.storage.delta(folder_of(TABLE, kind))
    shown = ["id", "n", "big", "v", "_hw_seq"]
    found = [rows_of(table.to_pyarrow_table(columns=shown))]
    asked = QueryBuilder().register("it", table).execute(f"SELECT {', '.join(shown)} FROM it")
    found.append(rows_of(pa.table(asked.read_all())))
    # Polars does not find files in a bucket whose path has letters beyond ASCII (docs/partitions.md).
    polars = pl.read_delta(uri, storage_options=options, use_pyarrow=bool(options)).select(shown)
    return [*found, rows_of(polars.to_arrow())]


def test_hostile_values_read_back_everywhere(worlds: Worlds) -> None:
    plain, world = worlds(laid("")), worlds(laid("/@big(v=%s)/@2(%.1i)"))
    for one in (plain, world):
        hostile(Script(one))
        one.refresh()
    assert read_lake(world) == read_lake(plain)
    check_folders(world)
    for kind in BASES:
        one, other, polars = read_by_others(world, kind)
        assert other == one
        # Polars takes the folder column from the path, where this text stands for NULL; the data is right.
        word = "__HIVE_DEFAULT_PARTITION__"
        assert polars == [(*row[:3], None, row[4]) if row[3] == word else row for row in one]
        values = {str(row[2]): row[3] for row in one}
        assert set(TEXTS) <= {row[2] for row in one}
        assert values["None"] is None and values[""] == values["__EMPTY__"] == "__EMPTY__"
        assert values["a/b"] == "a/b" and values["😀"] == "😀" and values["%41"] == "%41"
        assert len({folder.split("/")[0] for folder in folders_of(world, kind)}) == len(
            {str(row[2]) + str(row[2] is None) for row in one}
        )
    filtered = delta_of(world, "mirror").to_pyarrow_table(filters=[("v", "=", "new/folder")])
    assert filtered["id"].to_pylist() == [len(TEXTS)]
    # DuckDB without Delta: the folders are Hive's.
    files = [str(path) for path in world.lake.files(TABLE)]
    query = "SELECT id, v FROM read_parquet(?, hive_partitioning = true, hive_types = {'v': VARCHAR})"
    hive = dict(duckdb.sql(query, params=[files]).fetchall())
    assert hive == {row[0]: row[3] for row in read_by_others(world)[0]}


@pytest.mark.live
def test_hostile_values_in_a_bucket(tmp_path: Path, s3: Bucket) -> None:
    world = World(tmp_path, laid("/@big(v=%s)"))
    world.storage = open_bucket(s3, tmp_path / "bucket")
    world.log, world.lake = type(world.log)(world.storage, "writer"), Lake(world.storage, "500MB")
    hostile(Script(world))
    world.refresh()
    facts = read_lake(world)
    check_folders(world)
    one, *others = read_by_others(world)
    assert len(one) == len(TEXTS) + 1 and all(other == one for other in others)
    assert set(TEXTS) < {row[2] for row in one}
    # What left the table goes, and nothing else.
    for kind in BASES:
        table = delta_of(world, kind)
        gone = table.vacuum(0, dry_run=False, enforce_retention_duration=False)
        assert gone and not set(gone) & set(held_of(world, kind).files["path"].to_pylist())
    world.lake = Lake(open_bucket(s3, tmp_path / "fresh"), "500MB")
    assert read_lake(world) == facts
    world.spec = laid("/@id(x=%i)")
    world.compact()
    assert read_lake(world) == facts
    check_folders(world)
    world.storage.close()


def test_dates_before_1970_and_zones(worlds: Worlds) -> None:
    world = worlds(laid("/@day(yr=%y)/@at(h=%M%d%H)"))
    script = Script(world)
    more = Column("day", pa.date32(), "date"), Column("at", pa.timestamp("us", "UTC"), "timestamptz")
    script.schema = replace(FIRST, columns=(*FIRST.columns, *more))
    moment = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    script.read(
        script.row("r", id=1, day=date(1969, 12, 31), at=moment),
        script.row("r", id=2, day=date(1, 1, 1), at=datetime(1, 1, 1, tzinfo=UTC)),
        script.row("r", id=3, day=None, at=None),
        script.row("r", id=4, day=None, at=moment, text='{"day": "infinity"}'),
    )
    world.refresh()
    assert folders_of(world) == [
        "yr=0001/h=010100", "yr=1969/h=123123",
        "yr=__HIVE_DEFAULT_PARTITION__/h=123123",
        "yr=__HIVE_DEFAULT_PARTITION__/h=__HIVE_DEFAULT_PARTITION__",
    ]  # fmt: skip
    check_folders(world)


def test_a_row_that_moves_leaves_other_folders_alone(worlds: Worlds) -> None:
    world = worlds(laid("/@n(nn=%i)"))
    script = Script(world)
    script.read(*(script.row("r", id=i, n=i % 10) for i in range(100)))
    world.refresh()
    before = {kind: set(held_of(world, kind).files["path"].to_pylist()) for kind in BASES}
    script.put(script.row("u", id=13, n=7), script.row("d", ["n", "big", "price"], id=4))
    world.refresh()
    check_folders(world)
    for kind in BASES:
        after = set(held_of(world, kind).files["path"].to_pylist())
        touched = {folder_of_file(path) for path in before[kind] ^ after}
        assert touched == {"nn=3", "nn=7", "nn=4"}, kind
    assert [r["n"] for r in world.rows("mirror") if r["id"] == 13] == [7]
    assert len(world.rows("mirror")) == 99


def test_a_key_that_tells_its_folder_is_looked_for_there_alone(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    scan = Lake.scan

    def record(lake: Lake, held: object, paths: object = None, *, name_files: bool = False) -> str:
        if name_files:
            looked.append(len(paths))  # type: ignore[arg-type]
        return scan(lake, held, paths, name_files=name_files)  # type: ignore[arg-type]

    monkeypatch.setattr(Lake, "scan", record)
    for layout, most in (("/@id(k=%.1i)", 1), ("/@n(k=%i)", 10)):
        world = worlds(laid(layout))
        script = Script(world)
        # No bounds help: each file has the lowest key and the highest, as far as they tell.
        monkeypatch.setattr(
            "headwater.lake.touched.within_bounds", lambda con, held, paths, keys: list(paths)
        )
        script.read(*(script.row("r", id=i, n=i % 10) for i in range(100)))
        world.refresh()
        looked.clear()
        script.put(script.row("u", id=55, n=5))
        world.refresh()
        assert looked and max(looked) == most, layout
        assert len(world.rows("mirror")) == 100


def test_many_folders_make_few_files(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    world = worlds(laid("/@n(n1=%i)"))
    script = Script(world)
    script.read(*(script.row("r", id=i, n=i % 400) for i in range(800)))
    world.refresh()
    assert len(folders_of(world)) == len(folders_of(world, "history")) == 400
    for step in range(4):
        script.put(*(script.row("u", id=i, n=i % 400) for i in range(step, 800, 80)))
        world.refresh()
        world.compact()
    assert len(folders_of(world)) == 400
    # Open versions one file a folder; closed ones one in the folders where there are some.
    assert len(folders_of(world, "history")) <= 400 + 40
    assert len(world.rows("mirror")) == 800
    assert len(world.rows("history")) == 800 + 40


def test_closed_versions_of_a_folder_are_merged_as_they_grow(worlds: Worlds) -> None:
    world = worlds(laid("/@n(n1=%i)"))
    script = Script(world)
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    for number in range(20):
        script.put(script.row("u", id=1, n=1, big=str(number)))
        world.refresh()
    assert len(world.rows("history")) == 21
    assert len(folders_of(world, "history")) <= 1 + 5, "about the logarithm of their number"
    check_folders(world)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "GROUP_ROWS", 2048)
    monkeypatch.setattr(delta, "FILE_ROWS", 2048)
    monkeypatch.setattr(rewrite, "PACK_ROWS", 2048)
    monkeypatch.setattr(rewrite, "SMALL_ROWS", 512)
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    monkeypatch.setattr(policy, "WRITES", 0)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("slices", [0, 2])
def test_large_folders_are_rewritten_file_by_file(worlds: Worlds, slices: int) -> None:
    dice = random.Random(3)
    world = worlds(laid("/@n(n1=%.3i)", slices=slices))
    script = Script(world)
    rows = {i * 10: dice.randrange(2000) for i in range(12_000)}
    script.read(*(script.row("r", id=k, n=v) for k, v in rows.items()))
    world.refresh()
    for _ in range(3):
        changes: list[Row] = []
        for _ in range(200):
            key = dice.randrange(13_000) * 10 + dice.choice([0, 0, 1])
            if key not in rows:
                rows[key] = dice.randrange(3000)
                changes.append(script.row("c", id=key, n=rows[key]))
            elif dice.random() < 0.3:
                rows.pop(key)
                changes.append(script.row("d", ["n", "big", "price"], id=key))
            else:
                rows[key] = dice.randrange(3000)
                changes.append(script.row("u", id=key, n=rows[key]))
        script.put(*changes)
        world.refresh()
        world.compact()
        assert {r["id"]: r["n"] for r in world.rows("mirror")} == rows
        current = [r for r in world.rows("history") if r["is_current"]]
        assert {r["id"]: r["n"] for r in current} == rows and len(current) == len(rows)
    check_folders(world)
    assert max(held_of(world, "mirror").files["num_records"].to_pylist()) <= 3 * 2048


def test_a_layout_that_changes_moves_all_files_once(worlds: Worlds) -> None:
    world = worlds(laid(""))
    script = Script(world)
    script.read(*(script.row("r", id=i, n=i % 3, big="b") for i in range(30)))
    script.put(script.row("u", id=1, n=2))
    world.refresh()
    facts = read_lake(world)
    for layout in ("/@n(n1=%i)", "/@2(n1=%i)", "/@big(b=%s)/@n(%i)", "/@n(%i)", "/@id(%i)", ""):
        versions = {kind: held_of(world, kind).version for kind in BASES}
        before = held_of(world, "mirror").notes.get(PARTITION, "")
        world.spec = laid(layout)
        world.compact()
        check_folders(world)
        assert read_lake(world) == facts
        moved = place(world.spec, held_of(world, "mirror").schema).text != before
        for kind in BASES:
            assert held_of(world, kind).version - versions[kind] == int(moved), (layout, kind)
            then = delta_of(world, kind)
            now = then.to_pyarrow_table().num_rows
            then.load_as_version(versions[kind])
            assert then.to_pyarrow_table().num_rows == now
    script.put(script.row("u", id=1, n=1))
    world.spec = laid("/@n(x=%i)")
    world.refresh()
    check_folders(world)
    assert len(world.rows("mirror")) == 30


def test_another_writer_is_never_overwritten_by_a_new_layout(worlds: Worlds) -> None:
    world = worlds(laid(""))
    script = Script(world)
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    held = held_of(world, "mirror")
    other = Lake(world.storage)
    theirs = other.open(TABLE, "mirror")
    again = Change(held.mark, held.schema, held.layout, notes=held.notes)
    other.commit(TABLE, "mirror", theirs, again)
    with pytest.raises(Conflict), world.lake.connect() as con:
        placing = place(laid("/@n(x=%i)"), held.schema)
        add = world.lake.write(con, f"SELECT * FROM {world.lake.scan(held)}", held.layout, [], 0, placing)
        change = replace(again, add=add, replace=True, partition=placing.names)
        world.lake.commit(TABLE, "mirror", held, change)
    assert len(world.rows("mirror")) == 1


def test_a_column_that_comes_later_under_the_name_of_a_folder(worlds: Worlds) -> None:
    world = worlds(laid("/@n(later=%i)"))
    script = Script(world)
    script.read(script.row("r", id=1, n=1))
    world.refresh()
    script.schema = replace(FIRST, columns=(*FIRST.columns, Column("Later", pa.string(), "text")))
    script.put(script.row("u", id=1, n=2, Later="x"))
    with pytest.raises(ConfigError, match="is a column of the table too"):
        world.refresh()
    assert [(r["n"], r["Later"]) for r in world.rows("mirror")] == [(2, "x")], "it is taken in all the same"
    world.spec = laid("/@n(n_part=%i)")
    world.compact()
    assert [(r["n"], r["Later"]) for r in world.rows("mirror")] == [(2, "x")]
    check_folders(world)


def test_a_table_without_a_key(worlds: Worlds) -> None:
    world = worlds(laid("/@big(b=%s)"))
    script = Script(world)
    script.schema = replace(FIRST, key=())
    script.read(*(script.row("r", id=i % 5, n=1, big="ab"[i % 2]) for i in range(20)))
    world.refresh()
    script.put(script.row("d", id=1, n=1, big="b"), script.row("c", id=9, n=1, big="c"))
    world.refresh()
    assert folders_of(world) == ["b=a", "b=b", "b=c"]
    check_folders(world)
    assert len(world.rows("mirror")) == 20
    world.spec = laid("")
    script.put(script.row("c", id=9, n=1, big="c"))
    world.refresh()
    assert folders_of(world) == [""] and len(world.rows("mirror")) == 21


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("/@n(Big=%i)", "the folder's name `Big` is a column of the table too"),
        ("/@n(valid_TO=%i)", "is a column of the table too"),
        ("/@n(_hw_seq=%i)", "names that begin with _hw_ are ours"),
        ("/@n(a b=%i)", "Delta takes no column called `a b`"),
        ("/@big(a=%i)", "takes a whole number"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(worlds: Worlds, layout: str, says: str) -> None:
    spec = replace(laid(layout), partition_at="headwater.yml:7")
    with pytest.raises(ConfigError) as refused:
        place(spec, FIRST)
    assert says in str(refused.value) and refused.value.hint
    assert str(refused.value).startswith("headwater.yml:7: ")
    assert str(refused.value).split("\n")[1].strip() == layout


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip"])
def test_compression_and_size_of_files(worlds: Worlds, compression: str) -> None:
    sizes = {}
    for size in ("", "1MB"):
        world = worlds(laid("", compression=compression, size=size))
        script, dice = Script(world), random.Random(1)
        script.read(*(script.row("r", id=i, n=i, big=dice.randbytes(400).hex()) for i in range(8000)))
        world.refresh()
        for kind in ("changes", *BASES):
            for path in world.lake.files(TABLE, kind):
                assert pq.read_metadata(path).row_group(0).column(0).compression == compression.upper()
        sizes[size] = held_of(world, "mirror").files["size_bytes"].to_pylist()
    assert len(sizes[""]) == 1 and len(sizes["1MB"]) > 2
    assert max(sizes["1MB"]) < 1_700_000


def test_slices(worlds: Worlds) -> None:
    for layout, folders in (("", [""] * 4), ("/@n(x=%i)", ["x=0"] * 4 + ["x=1"] * 4)):
        world = worlds(laid(layout, slices=4))
        script = Script(world)
        script.read(*(script.row("r", id=i, n=i % 2) for i in range(80)))
        for _ in range(3):
            world.refresh()
            assert folders_of(world) == folders
            counts = held_of(world, "mirror").files["num_records"].to_pylist()
            assert max(counts) - min(counts) <= 1
            script.put(script.row("u", id=4, n=0, big="again"))
