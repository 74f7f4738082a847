"""What views leave behind: kept for their readers, then deleted; nothing that is shown ever is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.views import ROWS, TABLE
from formats import test_views as views
from headwater.formats import iceberg, symlink
from headwater.formats.iceberg import manifests, metadata
from headwater.lake.delta import Lake
from headwater.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage.open(str(tmp_path / "s"), cache=tmp_path) as storage:
        yield storage


def test_converted_files_stay_for_their_readers(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, lake = views.TestOrc(), Lake(storage)
    held = suite.commit(lake, None, ROWS.format(0, 2))
    suite.make(storage, lake).publish(held)
    data = f"{suite.target.folder}/data"
    (first,) = storage.list(data)
    storage.create(f"{data}/leftover.orc", b"of a stop")
    held = suite.commit(lake, held, ROWS.format(2, 3), remove=held.files["path"].to_pylist())
    suite.make(storage, lake).publish(held)
    assert {first, f"{data}/leftover.orc"} < set(storage.list(data))
    monkeypatch.setattr(symlink, "RETENTION_HOURS", 0)
    held = suite.commit(lake, held, ROWS.format(3, 4))
    suite.make(storage, lake).publish(held)
    assert first not in set(storage.list(data))
    # It may be somebody's who is about to name it.
    assert f"{data}/leftover.orc" in set(storage.list(data))
    monkeypatch.setattr(symlink, "LEFTOVER_HOURS", -1)
    monkeypatch.setattr(symlink, "SWEPT_AFTER", 1)
    suite.make(storage, lake).publish(suite.commit(lake, held, ROWS.format(4, 5)))
    assert len(list(storage.list(data))) == 3
    assert suite.ids(storage) == [2, 3, 4]


def test_records_do_not_pile_up(storage: Storage) -> None:
    suite, lake, held = views.TestParquet(), Lake(storage), None
    for number in range(25):
        held = suite.commit(lake, held, ROWS.format(number, number + 1))
        suite.make(storage, lake).publish(held)
    assert len(list(storage.list(f"{suite.target.folder}/_headwater"))) == 21
    assert suite.ids(storage) == list(range(25))


def test_iceberg_metadata_does_not_pile_up(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyiceberg.table import StaticTable

    monkeypatch.setattr(iceberg, "LEFTOVER_HOURS", -1)
    monkeypatch.setattr(iceberg, "SWEPT_AFTER", 5)
    monkeypatch.setattr(metadata, "SNAPSHOTS", 4)
    monkeypatch.setattr(manifests, "MERGED", 6)
    for room in (iceberg, metadata):
        monkeypatch.setattr(room, "KEPT", 3)
    suite, lake, held = views.TestIceberg(), Lake(storage), None
    for number in range(15):
        gone = held.files["path"].to_pylist()[:1] if held and number % 4 == 0 else []
        held = suite.commit(lake, held, ROWS.format(number, number + 1), remove=gone)
        suite.make(storage, lake).publish(held)
    names = [path.rsplit("/", 1)[-1] for path in storage.list(f"{suite.target.folder}/metadata")]
    assert sum(name.startswith("v") and name.endswith(".json") for name in names) == 3
    table = StaticTable.from_metadata(f"{storage.local}/{suite.target.folder}")
    assert len(table.metadata.snapshots) == 4
    assert sum(name.startswith("snap-") for name in names) == 4
    with lake.connect() as con:
        wanted = [
            r[0] for r in con.execute(f"SELECT id FROM {lake.relation(con, TABLE)} ORDER BY id").fetchall()
        ]
    assert suite.ids(storage) == wanted
    assert len(table.inspect.manifests()) <= 6
    for snapshot in table.metadata.snapshots:
        assert table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows > 0
    monkeypatch.setattr(metadata, "RETENTION_HOURS", 1e-9)
    assert held is not None
    suite.make(storage, lake).publish(suite.commit(lake, held, ROWS.format(15, 16)))
    table = StaticTable.from_metadata(f"{storage.local}/{suite.target.folder}")
    assert len(table.metadata.snapshots) == 2
