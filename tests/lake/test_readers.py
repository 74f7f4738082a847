"""Who opened a table goes on reading it as it was, whatever is compacted, merged and swept meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from headwater.lake import Kind, delta
from headwater.lake.commits import folder_of
from headwater.refresh import policy, upkeep
from headwater.storage import Storage
from lake.test_refresh import Script
from oracle.story import TABLE
from oracle.world import World
from raw.batches import options_of
from servers.s3 import Bucket

ROWS = 20_000
KINDS: tuple[Kind, ...] = ("mirror", "history", "changes")

Open = Callable[[], World]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.live)])
def open_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same store again and again, each time with a cache of its own that holds hardly anything."""
    bucket: Bucket | None = request.getfixturevalue("s3") if request.param == "s3" else None
    opened: list[World] = []

    def get() -> World:
        cache = tmp_path / f"cache{len(opened)}"
        url, options = (bucket.url, options_of(bucket)) if bucket else (str(tmp_path / "store"), {})
        storage = Storage.open(url, options, cache=cache, cache_bytes=20_000)
        opened.append(World(tmp_path, storage=storage))
        return opened[-1]

    yield get
    for world in opened:
        world.close()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small files; every fold merges and sweeps; tails stay until they are compacted."""
    monkeypatch.setattr(delta, "GROUP_ROWS", 2048)
    monkeypatch.setattr(delta, "FILE_ROWS", 2048)
    monkeypatch.setattr(upkeep, "MERGED", 2)
    monkeypatch.setattr(upkeep, "SWEPT_AFTER", 1)
    monkeypatch.setattr(policy, "SMALL_TABLE", -1)
    monkeypatch.setattr(policy, "WRITES", 0)


def load(world: World) -> Script:
    """A base, and a tail over it."""
    script = Script(world)
    script.read(*(script.row("r", id=k, n=0) for k in range(ROWS)))
    world.refresh()
    script.put(*(script.row("u", id=k, n=1) for k in range(0, ROWS, 10)))
    world.refresh()
    return script


def work_on(world: World, script: Script) -> None:
    """Folds, merges, compactions and sweeps: no file of the tables stays in them."""
    for n in range(2, 5):
        script.put(*(script.row("u", id=k, n=n) for k in range(0, ROWS, 50)))
        world.refresh()
    script.put(*(script.row("d", ["n", "big", "price"], id=k) for k in range(0, ROWS, 3)))
    world.refresh()
    world.compact()
    world.refresh()


@pytest.mark.usefixtures("busy")
def test_a_reader_goes_on(open_world: Open) -> None:
    writer, reader = open_world(), open_world()
    script = load(writer)
    query = "SELECT id, n, _hw_seq FROM"
    with reader.lake.connect() as con, reader.lake.connect() as other:
        relations = {kind: reader.lake.relation(con, TABLE, kind) for kind in KINDS}
        before = {kind: sorted(con.sql(f"{query} {r}").fetchall()) for kind, r in relations.items()}
        begun = other.execute(f"{query} {relations['mirror']}")
        some = begun.fetchmany(100)
        uri, options = reader.storage.delta(folder_of(TABLE, "mirror"))
        engine = DeltaTable(uri, storage_options=options)
        rows = sorted(engine.to_pyarrow_table(columns=["id"])["id"].to_pylist())

        held = {path.name for path in writer.lake.files(TABLE, "mirror")}
        work_on(writer, script)
        assert not held & {path.name for path in writer.lake.files(TABLE, "mirror")}

        assert sorted(some + begun.fetchall()) == before["mirror"]
        for kind, relation in relations.items():
            assert sorted(con.sql(f"{query} {relation}").fetchall()) == before[kind], kind
        assert sorted(engine.to_pyarrow_table(columns=["id"])["id"].to_pylist()) == rows
    now = {row["id"]: row["n"] for row in open_world().rows("mirror")}
    assert now == {k: 4 if k % 50 == 0 else int(k % 10 == 0) for k in range(ROWS) if k % 3}
