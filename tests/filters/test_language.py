"""The filter language: text in, text out; what it refuses it points at."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import ConfigError
from headwater.predicate import All, Among, Flag, IsNull, Like, Name, Node, Not, Some, Test, parse_predicate

CASES = Path(__file__).parents[1] / "cases"


def read(name: str) -> list[tuple[str, str]]:
    lines = (CASES / name).read_text().splitlines()
    cut = [line.rpartition(" => ") for line in lines if line and not line.startswith("#")]
    return [(text, wanted) for text, _, wanted in cut]


@pytest.mark.parametrize(("text", "printed"), read("filters.txt"))
def test_it_prints_back(text: str, printed: str) -> None:
    made = parse_predicate(text)
    assert str(made) == printed
    assert parse_predicate(printed).node == made.node


@pytest.mark.parametrize(("text", "wanted"), read("filter_refusals.txt"))
def test_it_points_at_what_it_refuses(text: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as failed:
        parse_predicate(text)
    what, shown, caret = str(failed.value).split("\n")
    assert f"{len(caret) - 2}: {what}" == wanted
    assert shown == f"  {text}" and failed.value.hint


def test_it_is_not_read_for_ever() -> None:
    with pytest.raises(ConfigError, match="too many parentheses"):
        parse_predicate("(" * 5000 + "a" + ")" * 5000)
    assert str(parse_predicate(" and ".join(["a"] * 5000))).count("and") == 4999


_NAMES = st.builds(
    Name, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
)
_CONSTANTS = (
    st.booleans()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
)
_LEAVES = (
    st.builds(Test, _NAMES, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), _CONSTANTS | _NAMES)
    | st.builds(Among, _NAMES, st.lists(_CONSTANTS, min_size=1, max_size=3).map(tuple))
    | st.builds(Like, _NAMES, st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])))
    | st.builds(IsNull, _NAMES)
    | st.builds(Flag, _NAMES)
)


def _compose(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    turned = inner.filter(lambda node: not isinstance(node, Not))
    return st.builds(All, several) | st.builds(Some, several) | st.builds(Not, turned)


@given(st.recursive(_LEAVES, _compose, max_leaves=8))
def test_every_filter_prints_to_a_text_that_means_it(node: Node) -> None:
    assert parse_predicate(str(node)).node == node
