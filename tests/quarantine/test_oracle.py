"""Quarantine against plain Python: what waits, what is shown meanwhile, what a mended rule makes of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from oracle.checks import check, describe, read_lake
from oracle.conftest import Worlds
from oracle.stories import random_cuts, random_stop, random_story
from oracle.story import tell
from oracle.test_fold import ALWAYS, EXAMPLES, long_tails, play
from quarantine.model import MENDED, check_model, dated, shown, spec

pytestmark = pytest.mark.slow

#: A story is folded five times here.
FEWER = settings(ALWAYS, max_examples=max(4, EXAMPLES // 4))


@FEWER
@given(seed=st.integers(0, 2**32))
def test_a_mended_rule_is_as_if_it_had_always_been(worlds: Worlds, seed: int) -> None:
    dice = random.Random(seed)
    told = dated(tell(random_story(dice), full_identity=dice.random() < 0.3))
    stop = random_stop(dice)
    note(describe(told))
    at_once, piecewise = worlds(spec()), worlds(spec())
    play(at_once, told, [])
    check_model(told, at_once)
    play(piecewise, told, random_cuts(dice), stop)
    check_model(told, piecewise)
    assert read_lake(piecewise) == read_lake(at_once), f"folded in pieces, stopped at {stop}"
    for world in (at_once, piecewise):
        world.spec = spec(MENDED)
        world.refresh()
        check(told, read_lake(world))
        assert not shown(world).waits


@FEWER
@given(seed=st.integers(0, 2**32))
def test_a_large_table_does_the_same(worlds: Worlds, seed: int) -> None:
    """Nothing is compacted but full loads, and changes are not looked up before they are committed."""
    dice = random.Random(seed)
    told = dated(tell(random_story(dice), full_identity=dice.random() < 0.3))
    note(describe(told))
    world = worlds(spec())
    with long_tails():
        play(world, told, random_cuts(dice), None, random_cuts(dice))
        check_model(told, world)
        world.spec = spec(MENDED)
        world.refresh()
        check(told, read_lake(world))
