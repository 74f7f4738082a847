"""kill -9 around every commit of a fold with a quarantine, of giving up, and of folding again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oracle.checks import check, read_lake
from oracle.stories import random_story
from oracle.story import TABLE, Deed, Move, Told, tell
from oracle.world import World
from quarantine.model import MENDED, check_model, dated, shown, spec

pytestmark = pytest.mark.crash

RUNNER = """
import sys
from pathlib import Path
from headwater.quarantine.rows import give_up
from oracle.story import TABLE
from oracle.world import World
from quarantine.model import MENDED, spec
world = World(Path(sys.argv[1]), spec(MENDED if sys.argv[2] == "mended" else None))
if sys.argv[2] == "drop":
    give_up(world.lake, TABLE)
world.refresh()
world.close()
"""
#: The second and third time: there is something before and behind.
POINTS = [f"quarantine.{side}:{nth}" for side in ("before", "after") for nth in (1, 2)]
POINTS += [f"changes.{side}:2" for side in ("before", "after")]
AGAIN = [f"{kind}.{side}:1" for kind in ("changes", "mirror") for side in ("before", "after")]


def run(folder: Path, what: str, failpoint: str = "") -> int:
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "HEADWATER_FAILPOINT": failpoint
    }  # fmt: skip
    command = [sys.executable, "-c", RUNNER, str(folder), what]
    return subprocess.run(command, env=environment, check=False).returncode


@pytest.fixture(scope="module")
def told() -> Told:
    """Changes and readings in turn, so that each makes commits; misfits in all of them."""
    deeds: list[Deed] = []
    for key in range(1, 4):
        deeds += random_story(random.Random(key), length=2)
        # The value 3 is a day with a time, which does not fit.
        deeds += [Deed("resync", (Move("insert", key, key, 3, False),))]
        deeds += [Deed("commit", (Move("insert", 4, 4, key, False), Move("update", 4, 4, 3, False)))]
    return dated(tell(deeds))


@pytest.mark.parametrize("failpoint", POINTS)
def test_killed_in_a_fold(tmp_path: Path, told: Told, failpoint: str) -> None:
    world = World(tmp_path, spec())
    half = len(told.entries) // 2
    world.write(told.entries[:half])
    assert run(tmp_path, "strict", failpoint) == -signal.SIGKILL, "the point was not passed"
    world.write(told.entries[half:])
    if run(tmp_path, "strict", failpoint) != 0:
        assert run(tmp_path, "strict") == 0
    check_model(told, world)
    world.spec = spec(MENDED)
    world.refresh()
    check(told, read_lake(world))
    world.close()


@pytest.mark.parametrize("failpoint", AGAIN)
def test_killed_while_it_is_folded_again(tmp_path: Path, told: Told, failpoint: str) -> None:
    world = World(tmp_path, spec())
    world.write(told.entries)
    world.refresh()
    before = read_lake(world)
    assert run(tmp_path, "mended", failpoint) == -signal.SIGKILL, "the point was not passed"
    between = read_lake(world)
    assert failpoint != "changes.before:1" or between == before
    assert run(tmp_path, "mended") == 0
    check(told, read_lake(world))
    assert not shown(world).waits
    world.close()


@pytest.mark.parametrize("failpoint", ["drop.before", "drop.after", "changes.before", "changes.after"])
def test_killed_while_giving_up(tmp_path: Path, told: Told, failpoint: str) -> None:
    world = World(tmp_path, spec())
    world.write(told.entries)
    world.refresh()
    assert shown(world).waits
    assert run(tmp_path, "drop", failpoint) == -signal.SIGKILL, "the point was not passed"
    assert run(tmp_path, "drop" if failpoint == "drop.before" else "strict") == 0
    assert not shown(world).waits
    gone = {row["id"] for row in world.rows("mirror")}
    assert gone == set(told.live), "every row is there, with NULL for what does not fit"
    for row in world.rows("mirror"):
        assert (row["big"] is None) == (
            told.live[int(str(row["id"]))]["big"] is None or "big" in str(row["_hw_text"])
        )
    assert world.spec.table == TABLE
    world.close()
