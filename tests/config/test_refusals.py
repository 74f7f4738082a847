"""Every refusal of a pipeline file, text in, text out: refusals.txt. A new case needs no Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headwater.config import parse
from headwater.errors import ConfigError

OK = 'source: {kind: postgres, url: "postgresql://a@b/c"}\nstore: ./lake'


def cases() -> list[tuple[str, str, str]]:
    text = Path(__file__).with_name("refusals.txt").read_text().split("\n", 2)[2]
    parts = [
        re.match(r"(.*?)^--- (.*?)\n(.*)", part, re.DOTALL | re.MULTILINE) for part in text.split("===\n")
    ]
    assert all(parts)
    return [(p[2], p[1].replace("{ok}", OK), p[3].rstrip("\n")) for p in parts if p]


@pytest.mark.parametrize(("given", "expected"), [c[1:] for c in cases()], ids=[c[0] for c in cases()])
def test_refusal(given: str, expected: str) -> None:
    with pytest.raises(ConfigError) as failed:
        parse(given)
    assert f"{failed.value}\ntry: {failed.value.hint}".rstrip() == expected.rstrip()
    assert "hunter2" not in f"{failed.value!r}{failed.value.hint}"
    assert failed.value.__cause__ is None
