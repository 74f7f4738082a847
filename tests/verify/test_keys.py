from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import ConfigError
from headwater.keys import format_key, parse_key

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "a=1", "b=2,a=1", '"', "\\", " x ", "1,2", '"a"', "\x1b[31m", "id=5", "é😀", "\u202e"]
)


@pytest.mark.parametrize(
    ("text", "names", "values"),
    [
        ("7", ["id"], {"id": "7"}),
        ("id=7", ["id"], {"id": "7"}),
        ("a,b=c", ["id"], {"id": "a,b=c"}),
        ("", ["id"], {"id": ""}),
        ("1,2", ["a", "b"], {"a": "1", "b": "2"}),
        ("b=2,a=1", ["a", "b"], {"a": "1", "b": "2"}),
        (",x", ["a", "b"], {"a": "", "b": "x"}),
        ('"x, y",2', ["a", "b"], {"a": "x, y", "b": "2"}),
        ("2013-01-01 05:00:00+00,EWR", ["t", "o"], {"t": "2013-01-01 05:00:00+00", "o": "EWR"}),
        ("ab=1,a=2", ["a", "ab"], {"a": "2", "ab": "1"}),
    ],
)
def test_reads_what_people_type(text: str, names: list[str], values: Mapping[str, str]) -> None:
    assert parse_key(text, names) == values


@pytest.mark.parametrize("text", ["1", "1,2,3", "a=1,2", "a=1,a=2", 'a=1,b="x', 'a="x"y,b=1', ""])
def test_says_what_a_key_looks_like(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_key(text, ["a", "b"])
    assert refused.value.hint


@given(st.lists(_TEXT, min_size=1, max_size=4))
def test_reads_back_what_it_writes_on_one_harmless_line(values: list[str]) -> None:
    key = {f"k{n}": value for n, value in enumerate(values)}
    text = format_key(key)
    assert text.isprintable()
    assert parse_key(text, list(key)) == key
