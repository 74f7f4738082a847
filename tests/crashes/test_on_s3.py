"""kill -9 where the store is a bucket: in the parts of a load, in folds, compactions, merges and sweeps."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capture.test_load_live import SETUP, assert_exact, capture_child, finish, parts_of, refs, writers
from headwater.storage import Storage
from lake.test_refresh import Script
from oracle.checks import check, read_lake
from oracle.stories import random_story
from oracle.story import TABLE, Deed, Move, Told, tell
from oracle.world import World
from raw.batches import options_of
from servers.postgres import Database
from servers.s3 import Bucket

pytestmark = [pytest.mark.live, pytest.mark.crash]

#: Every fold merges what it may and sweeps; files leave their cache as soon as they may. A small tail goes
#: with each fold, a large one only with `compact`, a growing one stays.
RUNNER = """
import json, sys
from pathlib import Path
from headwater.refresh import policy, upkeep
from headwater.storage import Storage
from oracle.world import World
upkeep.MERGED, upkeep.SWEPT_AFTER = 2, 1
if sys.argv[4] != "small":
    policy.SMALL_TABLE, policy.WRITES = -1, 0
store, options, cache = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
world = World(cache, storage=Storage.open(store, options, cache=cache, cache_bytes=20_000))
world.refresh()
if sys.argv[4] == "large":
    world.compact()
world.close()
"""
MOTO = [
    ("small", "lake.after:4"),
    ("small", "mirror.after:1"),
    ("large", "history.after:1"),
]
REAL = [("small", "lake.before:3"), ("large", "mirror.before:1")]
STEPS = [*(("s3", *step) for step in MOTO), *(("s3_real", *step) for step in REAL)]


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """On moto, or on a real server."""
    found: Bucket = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def open_world(bucket: Bucket, tmp_path: Path) -> Iterator[Callable[[], World]]:
    """Opens the bucket's world; each opening has a cache of its own, which holds hardly anything."""
    opened: list[World] = []

    def get() -> World:
        cache = tmp_path / f"cache{len(opened)}"
        storage = Storage.open(f"{bucket.url}/w", options_of(bucket), cache=cache, cache_bytes=20_000)
        opened.append(World(cache, storage=storage))
        return opened[-1]

    yield get
    for world in opened:
        world.close()


@pytest.fixture(scope="module")
def told() -> Told:
    """Changes and readings in turn: each is a round of commits of its own."""
    dice, deeds = random.Random(5), []
    for key in range(1, 4):
        deeds += [*random_story(dice, length=2), Deed("resync", (Move("insert", key, key, 7, False),))]
    return tell(deeds)


def run(bucket: Bucket, cache: Path, tail: str, failpoint: str = "") -> int:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "HEADWATER_FAILPOINT": failpoint}
    told = json.dumps(options_of(bucket))
    command = [sys.executable, "-c", RUNNER, f"{bucket.url}/w", told, str(cache), tail]
    return subprocess.run(command, env=environment, check=False).returncode


@pytest.mark.parametrize(("bucket", "tail", "failpoint"), STEPS, indirect=["bucket"])
def test_killed_in_a_refresh(
    bucket: Bucket, open_world: Callable[[], World], tmp_path: Path, told: Told, tail: str, failpoint: str
) -> None:
    world, cache = open_world(), tmp_path / "runners"
    codes = []
    third = -(-len(told.entries) // 3)
    for first in range(0, len(told.entries), third):
        world.write(told.entries[first : first + third])
        codes.append(run(bucket, cache, tail, failpoint))
        if codes[-1]:
            assert run(bucket, cache, tail) == 0
    assert -signal.SIGKILL in codes, "the point was not passed"
    assert set(codes) <= {0, -signal.SIGKILL}
    check(told, read_lake(open_world()))


@pytest.mark.parametrize(
    ("bucket", "failpoint"), [("s3", "merge.before"), ("s3_real", "merge.after")], indirect=["bucket"]
)
def test_killed_in_a_merge(
    bucket: Bucket, open_world: Callable[[], World], tmp_path: Path, failpoint: str
) -> None:
    world, cache = open_world(), tmp_path / "runners"
    script = Script(world)
    script.read(*(script.row("r", id=k, n=0) for k in range(1, 4)))
    assert run(bucket, cache, "growing", failpoint) == 0
    codes = []
    for n in range(1, 4):
        script.put(*(script.row("u", id=k, n=n) for k in range(1, 4)))
        codes.append(run(bucket, cache, "growing", failpoint))
        if codes[-1]:
            assert run(bucket, cache, "growing") == 0
    assert -signal.SIGKILL in codes, "the point was not passed"
    read = open_world()
    held = read.lake.open(TABLE, "changes")
    assert held is not None and held.files.num_rows < 4
    assert sorted((r["id"], r["n"]) for r in read.rows("mirror")) == [(1, 3), (2, 3), (3, 3)]
    every = [(k, n) for k in range(1, 4) for n in range(4)]
    assert sorted((r["id"], r["n"]) for r in read.rows("changes")) == every
    assert sorted((r["id"], r["n"]) for r in read.rows("history")) == every


@pytest.mark.parametrize(
    ("bucket", "failpoint"), [("s3", "stage.after:7"), ("s3_real", "entry.after:2")], indirect=["bucket"]
)
def test_killed_in_a_load(pg: Database, bucket: Bucket, tmp_path: Path, failpoint: str) -> None:
    pg.run(SETUP)
    with writers(pg, len(failpoint)):
        killed = capture_child(pg, tmp_path, failpoint=failpoint, bucket=bucket)
        assert finish(killed) == -signal.SIGKILL
        child = capture_child(pg, tmp_path, bucket=bucket)
        time.sleep(2)
        child.kill()
        finish(child)
        finish(capture_child(pg, tmp_path, bucket=bucket))
    finish(capture_child(pg, tmp_path, bucket=bucket))
    copy = tmp_path / "copy"
    for key in [*bucket.keys()]:  # noqa: SIM118
        (copy / key).parent.mkdir(parents=True, exist_ok=True)
        bucket.client().download_file(bucket.name, key, str(copy / key))
    assert_exact(pg, copy)
    assert {ref["epoch"] for ref in refs(copy)} == {1}
    names = [part for part in parts_of(copy, 1) if not part.startswith("keys")]
    assert len(names) == len(set(names)) > 8
