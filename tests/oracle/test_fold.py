"""The SQL folds against plain Python: every version, the state as of every commit, the mirror."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from oracle.checks import check, describe, read_lake
from oracle.conftest import Worlds
from oracle.stories import CUTS, DEEDS
from oracle.story import Deed, Told, tell
from oracle.world import World

from headwater.naming import table_path
from headwater.refresh import step

EXAMPLES = int(os.environ.get("HEADWATER_ORACLE_EXAMPLES", "40"))
ALWAYS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    print_blob=True,
)
pytestmark = pytest.mark.slow


def play(world: World, told: Told, cuts: Sequence[bool]) -> None:
    """Write the log, folding after the entries that `cuts` names, and at the end."""
    pending = []
    for entry, cut in zip(told.entries, [*cuts, *[False] * len(told.entries)], strict=False):
        pending.append(entry)
        if cut:
            world.write(pending)
            world.refresh()
            pending = []
    world.write(pending)
    world.refresh()


@ALWAYS
@given(deeds=DEEDS, cuts=CUTS, full=st.booleans())
def test_the_lake_is_what_happened(worlds: Worlds, deeds: list[Deed], cuts: list[bool], full: bool) -> None:
    told = tell(deeds, full_identity=full)
    note(describe(told))
    at_once, piecewise = worlds(), worlds()
    play(at_once, told, [])
    play(piecewise, told, cuts)
    if at_once.lake.mark(at_once.spec.table) is None:
        assert not told.versions
        return
    facts = read_lake(at_once)
    check(told, facts)
    assert read_lake(piecewise) == facts, "folded in pieces"
