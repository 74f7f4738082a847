"""kill -9 before and after every durable write of a refresh: run again, and nothing is lost or twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.config import TableSpec
from headwater.partition import parse
from lake.laid import check_folders
from oracle.checks import check, read_lake
from oracle.stories import random_story
from oracle.story import TABLE, Deed, Move, Told, tell
from oracle.world import World

pytestmark = pytest.mark.crash

RUNNER = """
import sys
from pathlib import Path
from headwater.config import TableSpec
from headwater.partition import parse
from oracle.story import TABLE
from oracle.world import World
world = World(Path(sys.argv[1]), TableSpec(TABLE, partition=parse(sys.argv[2]) if sys.argv[2] else None))
world.refresh()
world.compact()
world.close()
"""
#: A small table is compacted with each fold; a long tail only by `compact`: much at once.
_LARGE = "from headwater.refresh import policy\npolicy.SMALL_TABLE, policy.WRITES = -1, 0\n"
TAILS = {"small": "", "large": _LARGE}
STEPS = [f"{kind}.{side}:2" for kind in ("changes", "history", "mirror") for side in ("before", "after")]
#: An upload is a file of a commit to come: the first of all, and one in the middle.
STEPS += [f"lake.{side}:{nth}" for side in ("before", "after") for nth in (1, 4)]


#: Folders of a table that has none yet: `anew` is the commit that moves its files, first of the history.
LAYOUT = "/@2(nn=%.1i)/@big(b=%2s)"
MOVES = ["lake.after:3", "anew.before:1", "anew.after:1", "anew.before:2", "anew.after:2"]


def run(folder: Path, failpoint: str = "", tail: str = "small", layout: str = "") -> int:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "HEADWATER_FAILPOINT": failpoint}
    return subprocess.run(
        [sys.executable, "-c", TAILS[tail] + RUNNER, str(folder), layout], env=environment, check=False
    ).returncode


@pytest.fixture(scope="module")
def told() -> Told:
    """Changes and readings in turn: each is a round of commits of its own."""
    dice, deeds = random.Random(5), []
    for key in range(1, 4):
        deeds += [*random_story(dice, length=2), Deed("resync", (Move("insert", key, key, 7, False),))]
    return tell(deeds)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("failpoint", STEPS)
def test_killed_in_a_refresh(tmp_path: Path, told: Told, failpoint: str, tail: str) -> None:
    world = World(tmp_path)
    half = len(told.entries) // 2
    world.write(told.entries[:half])
    assert run(tmp_path, failpoint, tail) == -signal.SIGKILL, "the point was not passed"
    world.write(told.entries[half:])
    if run(tmp_path, failpoint, tail) != 0:
        assert run(tmp_path, tail=tail) == 0
    check(told, read_lake(world))
    assert run(tmp_path, tail=tail) == 0
    check(told, read_lake(world))
    world.close()


@pytest.mark.parametrize("failpoint", MOVES)
def test_killed_while_files_move_into_folders(tmp_path: Path, told: Told, failpoint: str) -> None:
    world = World(tmp_path, TableSpec(TABLE, partition=parse(LAYOUT)))
    half = len(told.entries) // 2
    world.write(told.entries[:half])
    assert run(tmp_path) == 0
    assert run(tmp_path, failpoint, layout=LAYOUT) == -signal.SIGKILL, "the point was not passed"
    world.write(told.entries[half:])
    assert run(tmp_path, layout=LAYOUT) == 0
    check(told, read_lake(world))
    check_folders(world)
    world.close()
