"""Drawing stories: moves over few keys, so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st
from oracle.story import VERBS, Deed, Move, Verb

KEYS = st.integers(1, 4)
#: A rare verb is drawn as often as the rest: what is drawn too seldom is not tested.
VERB: st.SearchStrategy[Verb] = st.sampled_from(VERBS)
MOVE = st.builds(Move, VERB, KEYS, KEYS, st.integers(0, 40), st.booleans())
TICK = st.sampled_from([1, 1, 60, 0, -30])
COMMIT = st.builds(
    Deed, st.just("commit"), st.lists(MOVE, min_size=1, max_size=7).map(tuple), TICK, st.booleans()
)
SEEN = st.lists(MOVE, max_size=3).map(tuple)
READING = st.builds(Deed, st.sampled_from(["resync", "cut off"]), SEEN, TICK)
SHAPE = st.builds(Deed, st.sampled_from(["add column", "widen"]))
DEEDS = st.lists(st.one_of(COMMIT, COMMIT, COMMIT, COMMIT, READING, SHAPE), min_size=1, max_size=8)
CUTS = st.lists(st.booleans(), min_size=24, max_size=24)
