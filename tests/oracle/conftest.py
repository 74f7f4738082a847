"""Stories are told on a memory disk where there is one: the folds are under test here, not fsync."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headwater.config import TableSpec
from oracle.world import World

Worlds = Callable[..., World]


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    """Makes new, empty stores."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="headwater-oracle-", dir=place) as folder, ExitStack() as cleanup:
        count = iter(range(1_000_000))

        def make(spec: TableSpec | None = None) -> World:
            world = World(Path(folder) / str(next(count)), spec)
            cleanup.callback(world.close)
            return world

        yield make
