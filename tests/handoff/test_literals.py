"""No text gets out of its literal: whatever dbt's Jinja renders is the text again, and nothing ran."""

from __future__ import annotations

import yaml
from dbt_common.clients.jinja import get_environment
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.handoff.literals import code, jinja, jinja_dict, jinja_list, rendered
from headwater.handoff.yamltext import dump

PIECES = [
    *(
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "'",
        '"',
        "\\",
        "`",
        "\n",
        "\r",
        "\x00",
        "\x7f",
        "\u2028",
        "endraw",
        "-",
    ),
    *(
        "--",
        "*/",
        "/*",
        "${x}",
        " ",
        "\t",
        "ä",
        "価",
        "🦆",
        "\\u0041",
        "7*7",
        ": ",
        "- ",
        "&a",
        "!!x",
        "~",
        "#",
    ),
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)


def run(source: str, **names: object) -> str:
    """What dbt makes of a file with this text."""
    return str(get_environment().from_string(source).render(names))


def no_newlines_changed(text: str) -> str:
    return text.replace("\r\n", "\n")


@given(TEXT)
@example("{{ env_var('SECRET') }}")
@example("{% endraw %}{{ 7*7 }}")
@example("\\' ~ boom() ~ '")
@settings(max_examples=300)
def test_a_jinja_literal_gives_the_text_back(text: str) -> None:
    literal = jinja(text)
    assert run("{{ " + literal + " }}") == no_newlines_changed(text)
    assert run("{% set x = [" + literal + "] %}{{ x[0] }}") == no_newlines_changed(text)


@given(st.lists(TEXT, max_size=4), st.dictionaries(TEXT, TEXT, max_size=3))
@settings(max_examples=100)
def test_lists_and_dictionaries_give_their_texts_back(texts: list[str], items: dict[str, str]) -> None:
    found: list[object] = []
    run("{{ keep(" + jinja_list(texts) + ") }}{{ keep(" + jinja_dict(items) + ") }}", keep=found.append)
    assert found == [
        [no_newlines_changed(t) for t in texts],
        {no_newlines_changed(k): no_newlines_changed(v) for k, v in items.items()},
    ]


@given(TEXT)
@example("{{ env_var('SECRET') }}")
@example("# {% do boom() %}")
@settings(max_examples=300)
def test_a_yaml_value_is_the_text_once_dbt_rendered_it(text: str) -> None:
    said = f"About {code(text)}."
    value = yaml.safe_load(dump({"description": rendered(said)}))["description"]
    assert run(value) == no_newlines_changed(said)


@given(TEXT)
def test_a_code_span_ends_where_the_text_does(text: str) -> None:
    span = code(text)
    fence = span[: len(span) - len(span.lstrip("`"))] if not text.startswith("`") else span.split(" ", 1)[0]
    assert span.startswith(fence)
    assert span.endswith(fence)
    assert fence not in text
