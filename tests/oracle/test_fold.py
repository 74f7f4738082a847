"""The SQL folds against plain Python: every version, the state as of every commit, the mirror."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from headwater.naming import table_path
from headwater.refresh import compaction, policy, step
from oracle.checks import check, describe, read_lake
from oracle.conftest import Worlds
from oracle.stories import random_cuts, random_stop, random_story
from oracle.story import Told, tell
from oracle.world import World

EXAMPLES = int(os.environ.get("HEADWATER_ORACLE_EXAMPLES", "25"))
ALWAYS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A seed cannot be shrunk; the story of the failing one is printed.
    phases=(Phase.explicit, Phase.generate),
    print_blob=True,
)
pytestmark = pytest.mark.slow


class PowerCut(Exception):
    """Raised where a process would die."""


@contextmanager
def power_cut(point: str, nth: int) -> Iterator[None]:
    """Stop at the nth pass of a failpoint between commits."""
    passed = 0

    def reach(name: str) -> None:
        nonlocal passed
        passed += name == point
        if name == point and passed == nth:
            raise PowerCut

    before = step.reach
    step.reach = compaction.reach = reach
    try:
        yield
    finally:
        step.reach = compaction.reach = before


def play(
    world: World,
    told: Told,
    cuts: Sequence[bool],
    stop: tuple[str, int] | None = None,
    compactions: Sequence[bool] = (),
) -> None:
    """Write the log, folding after the entries in `cuts` and at the end; compact after some folds."""
    pending = []
    count = len(told.entries)
    steps = zip(told.entries, [*cuts, *[False] * count], [*compactions, *[False] * count], strict=False)
    for entry, cut, compacts in steps:
        pending.append(entry)
        if cut:
            world.write(pending)
            _attempt(world.refresh, stop)
            if compacts:
                _attempt(world.compact, stop)
            pending = []
    world.write(pending)
    _attempt(world.refresh, stop)
    world.refresh()


def _attempt(act: Callable[[], object], stop: tuple[str, int] | None) -> None:
    if stop is None:
        act()
        return
    with power_cut(*stop):
        try:
            act()
        except PowerCut:
            return


@contextmanager
def long_tails() -> Iterator[None]:
    """Fold as a large table is folded: nothing is compacted but full loads and what a test compacts."""
    before = policy.SMALL_TABLE, policy.WRITES
    policy.SMALL_TABLE, policy.WRITES = -1, 0
    try:
        yield
    finally:
        policy.SMALL_TABLE, policy.WRITES = before


@ALWAYS
@given(seed=st.integers(0, 2**32))
def test_a_long_tail_is_read_as_if_it_were_compacted(worlds: Worlds, seed: int) -> None:
    """Folded in pieces, compacted at any moment, stopped anywhere: the rows are those of one fold."""
    dice = random.Random(seed)
    told = tell(random_story(dice), full_identity=dice.random() < 0.3)
    stop = random_stop(dice) if dice.random() < 0.5 else None
    note(describe(told))
    at_once, piecewise = worlds(), worlds()
    with long_tails():
        play(at_once, told, [])
        play(piecewise, told, random_cuts(dice), stop, random_cuts(dice))
    for world in (at_once, piecewise):
        facts = read_lake(world)
        check(told, facts)
        world.compact()
        assert read_lake(world) == facts, f"compacted at the end, stopped at {stop}"


@ALWAYS
@given(seed=st.integers(0, 2**32))
def test_the_lake_is_what_happened(worlds: Worlds, seed: int) -> None:
    dice = random.Random(seed)
    told = tell(random_story(dice), full_identity=dice.random() < 0.3)
    stop = random_stop(dice)
    note(describe(told))
    at_once, piecewise = worlds(), worlds()
    play(at_once, told, [])
    play(piecewise, told, random_cuts(dice), stop)
    facts = read_lake(at_once)
    check(told, facts)
    assert read_lake(piecewise) == facts, f"folded in pieces, stopped at {stop}"


@pytest.mark.parametrize("seed", range(4))
def test_a_suffix_that_comes_again_changes_nothing(worlds: Worlds, seed: int) -> None:
    """The mirror, or mirror and history, fall back to any earlier point: what follows is read once more."""
    told = tell(random_story(random.Random(seed)))
    world = worlds()
    assert world.storage.local
    folder = world.storage.local / "lake" / table_path(world.spec.table)
    third = len(told.entries) // 3 + 2
    world.write(told.entries[:third])
    world.refresh()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, folder.parent / "then", dirs_exist_ok=True)
    world.write(told.entries[third : 2 * third])
    world.refresh()
    world.write(told.entries[2 * third :])
    world.refresh()
    facts = read_lake(world)
    check(told, facts)
    for kinds in (["mirror"], ["mirror", "history"]):
        for kind in kinds:
            _replace(folder / kind, folder.parent / "then" / kind)
        world.lake = type(world.lake)(world.storage, "500MB")
        world.refresh()
        assert read_lake(world) == facts, f"{kinds} fell back (seed {seed})"


def _replace(target: Path, earlier: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if earlier.exists():
        shutil.copytree(earlier, target)


def test_the_stories_cover_what_may_follow_what() -> None:
    """Every pair of things that can happen to one key happens often enough to be a test of it."""
    pairs: Counter[tuple[str, str]] = Counter()
    for seed in range(200):
        pairs += tell(random_story(random.Random(seed))).pairs
    ends, starts = {"delete", "truncate", "vanish", "rekey"}, {"insert", "arrive", "reread"}
    lives = {"insert", "update", "touch", "arrive", "reread"}
    wanted = {(a, b) for a in ends for b in starts}
    wanted |= {
        (a, b) for a in lives for b in ("update", "touch", "rekey", "delete", "truncate", "vanish", "reread")
    }
    rare = {pair: pairs[pair] for pair in wanted if pairs[pair] < 5}
    assert not rare, rare
