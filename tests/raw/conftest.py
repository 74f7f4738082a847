"""Places for a raw log: a folder, moto, Ceph."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headwater.storage import Storage
from raw.batches import open_bucket

Place = Callable[[], Storage]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.live)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Opens the same, at first empty, storage again and again; each opening has a cache of its own."""
    bucket = request.getfixturevalue("s3") if request.param == "s3" else None
    with ExitStack() as cleanup:
        count = iter(range(1000))

        def open_storage() -> Storage:
            cache = tmp_path / f"cache{next(count)}"
            storage = (
                open_bucket(bucket, cache) if bucket else Storage.open(str(tmp_path / "lake"), cache=cache)
            )
            return cleanup.enter_context(storage)

        yield open_storage


@pytest.fixture
def storage(place: Place) -> Storage:
    """One empty storage."""
    return place()
