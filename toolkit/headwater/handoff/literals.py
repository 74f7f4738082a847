"""Text inside files that dbt renders with Jinja: escaped so that no name can run anything.

dbt renders models, comments and YAML values alike, and `{% raw %}` ends at a name that holds `{% endraw %}`.
So a text is written as a Jinja string literal in which every character that Jinja, SQL or YAML could act on
is an escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff'\"\\\\{}%#]")


def jinja(text: str) -> str:
    """A Jinja string literal that stands for the text."""
    return "'" + _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n")) + "'"


def jinja_list(texts: Iterable[str]) -> str:
    """A Jinja list of strings, on one line."""
    return "[" + ", ".join(map(jinja, texts)) + "]"


def jinja_dict(items: Mapping[str, str]) -> str:
    """A Jinja dictionary of strings, one entry a line."""
    if not items:
        return "{}"
    return "{\n" + "".join(f"    {jinja(k)}: {jinja(v)},\n" for k, v in items.items()) + "}"


def rendered(text: str) -> str:
    """The text as the value of a YAML field that dbt renders: as it is where nothing in it is active."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    plain = not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\\\\{}%#]", text)
    return text if plain else "{{ " + jinja(text) + " }}"


def code(text: str) -> str:
    """The text as a Markdown code span, whatever backticks it holds, so that dbt docs shows it as it is."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{pad}{text}{pad}{fence}"
