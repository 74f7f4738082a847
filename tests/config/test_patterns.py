"""Which tables a list of patterns picks."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.config import parse_pattern, quote_table, select
from headwater.errors import ConfigError
from headwater.model import TableId


def ids(*names: str) -> list[TableId]:
    return [TableId(*name.split("|")) for name in names]


TABLES = ids(
    "public|orders", "public|Orders", "public|order_items", "public|audit_log", "sales|orders", "odd.name|t",
    "public|a.b", "public|*", "public|we[i]rd", 'public|q"q', "public|!x",
)  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "picked"),
    [
        (["public.orders"], ["public|orders"]),
        (["PUBLIC.orders", "public.orders"], None),
        (["public.order*"], ["public|orders", "public|order_items"]),
        (["*.orders"], ["public|orders", "sales|orders"]),
        (["public.?rders"], ["public|orders", "public|Orders"]),
        (["public.[A-Z]*"], ["public|Orders"]),
        (["s*.*"], ["sales|orders"]),
        (['"odd.name".t'], ["odd.name|t"]),
        (['"odd.name".*'], ["odd.name|t"]),
        (['public."a.b"'], ["public|a.b"]),
        (['public."*"'], ["public|*"]),
        (['public."we[i]rd"'], ["public|we[i]rd"]),
        (["public.we[i]rd"], None),
        (['public."q""q"'], ['public|q"q']),
        (["public.!x"], ["public|!x"]),
        (["*", "!public.*"], ["sales|orders", "odd.name|t"]),
        (["!public.*", "*.*"], ["sales|orders", "odd.name|t"]),
        (["*.orders", "!sales.nothing_*"], ["public|orders", "sales|orders"]),
        (["*.orders", "!public.audit_lgo"], None),
        (["public.orders", "!public.orders"], None),
        ([], None),
    ],
)
def test_select(patterns: list[str], picked: list[str] | None) -> None:
    if picked is None:
        with pytest.raises(ConfigError) as failed:
            select(patterns, TABLES)
        assert failed.value.hint
    else:
        assert select(patterns, TABLES) == ids(*picked)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("public.ordesr", "did you mean public.orders"),
        ("Public.orders", "did you mean public.orders"),
        ("!public.audit_lgo", "did you mean public.audit_log"),
        ("zzz.qqq", 'schemas with tables: "odd.name", public, sales'),
        ("orders", "for example public.orders"),
    ],
)
def test_what_fits_nothing_names_what_is_near(pattern: str, hint: str) -> None:
    with pytest.raises(ConfigError) as failed:
        select(["*.*", pattern], TABLES)
    assert hint in failed.value.hint


def test_no_tables_at_all_is_a_matter_of_grants() -> None:
    with pytest.raises(ConfigError) as failed:
        select(["*.*"], [])
    assert "grant" in failed.value.hint


@pytest.mark.parametrize(
    "text", ["", ".", "a", "a.", ".a", "a.b.c", '"a.b', '"".a', '"a"b.c', 'a."b"c', "!", "!a", '"a.b"']
)
def test_what_does_not_name_tables(text: str) -> None:
    with pytest.raises(ConfigError, match="does not name tables"):
        parse_pattern(text)


_names = st.text(min_size=1)


@given(_names, _names, _names, _names)
@example("!a", "b", "a", "b")
@example("a", "b ", "a", "b")
@example(" a", "b", "a", "b")
@example("*", "*", "x", "y")
@example("a\nb", "c", "ab", "c")
def test_a_quoted_name_means_that_table_and_no_other(space: str, name: str, space2: str, name2: str) -> None:
    one, two = TableId(space, name), TableId(space2, name2)
    pattern = parse_pattern(quote_table(one))
    assert not pattern.leave_out
    assert pattern.exact == one
    assert pattern.fits(one)
    assert pattern.fits(two) == (one == two)


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_a_config_error(text: str) -> None:
    try:
        parse_pattern(text).fits(TableId("a", "b"))
    except ConfigError as failed:
        assert failed.hint


def test_ten_thousand_names_over_ten_thousand_tables_are_cheap() -> None:
    tables = [TableId("public", f"t{n}") for n in range(10_000)]
    began = time.monotonic()
    assert select([quote_table(t) for t in tables] + ["!public.t7", "*.t1*"], tables) == [
        t for t in tables if t.name != "t7"
    ]
    assert time.monotonic() - began < 5


def test_a_pattern_that_would_make_a_regex_explode_does_not() -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError):
        select(["public." + "*a" * 25 + "b"], [TableId("public", "a" * 60)])
    assert time.monotonic() - began < 2
