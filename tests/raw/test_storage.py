"""The storage contract on a folder, on moto and on Ceph."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.storage import StorageContract
from headwater.storage import Storage
from raw.batches import open_bucket
from servers.s3 import Bucket


class TestFolder(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        with Storage.open(str(tmp_path / "not" / "yet" / "there"), cache=tmp_path / "cache") as storage:
            yield storage


@pytest.mark.live
class TestMoto(StorageContract):
    @pytest.fixture
    def storage(self, s3: Bucket, tmp_path: Path) -> Iterator[Storage]:
        with open_bucket(s3, tmp_path / "cache") as storage:
            yield storage


@pytest.mark.live
class TestMotoWithoutPrefix(StorageContract):
    @pytest.fixture
    def storage(self, s3: Bucket, tmp_path: Path) -> Iterator[Storage]:
        with open_bucket(s3, tmp_path / "cache", prefix="") as storage:
            yield storage


@pytest.mark.live
class TestCeph(StorageContract):
    @pytest.fixture
    def storage(self, s3_real: Bucket, tmp_path: Path) -> Iterator[Storage]:
        with open_bucket(s3_real, tmp_path / "cache") as storage:
            yield storage
