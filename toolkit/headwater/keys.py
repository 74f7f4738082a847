"""Keys as people write and read them: `7`, `id=7`, `a=1,b=2`, `name="x, \\"y\\""`. Pure text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from headwater.errors import ConfigError

_PLAIN = re.compile(r'[^\s,="\\][^,="\\]*(?<!\s)')
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^,"][^,]*|')


def format_key(values: Mapping[str, str]) -> str:
    """One line for a key, readable by `parse_key`; nothing in it can move a terminal's cursor."""
    return ",".join(f"{name}={_written(value)}" for name, value in values.items())


def parse_key(text: str, names: Sequence[str]) -> dict[str, str]:
    """The value of each key column out of `a=1,b=2` or, in key order, `1,2`; else a ConfigError.

    A key of one column takes the whole text as its value, commas and all, after `name=` or in quotes too.
    """
    if len(names) == 1:
        return {names[0]: _single(text, names[0])}
    parts = _split(text, names)
    if len(parts) != len(names):
        raise _misfit(text, names)
    named = [re.match(rf"({'|'.join(map(re.escape, names))})=", part) for part in parts]
    if not all(named):
        if any(named):
            raise _misfit(text, names)
        return {name: _read(part) for name, part in zip(names, parts, strict=True)}
    found = {m[1]: _read(part[m.end() :]) for m, part in zip(named, parts, strict=True) if m}
    if set(found) != set(names):
        raise _misfit(text, names)
    return {name: found[name] for name in names}


def _single(text: str, name: str) -> str:
    value = text.removeprefix(f"{name}=")
    return _read(value) if re.fullmatch(r'"(?:[^"\\]|\\.)*"', value) else value


def _split(text: str, names: Sequence[str]) -> list[str]:
    """Cut at the commas outside of quotes."""
    parts, at = [], 0
    while True:
        lead = re.compile(rf"({'|'.join(map(re.escape, names))})=").match(text, at)
        start = lead.end() if lead else at
        value = _VALUE.match(text, start)
        end = value.end() if value else start
        if end < len(text) and text[end] != ",":
            raise _misfit(text, names)
        parts.append(text[at:end])
        if end >= len(text):
            return parts
        at = end + 1


def _written(value: str) -> str:
    return value if _PLAIN.fullmatch(value) and value.isprintable() else json.dumps(value)


def _read(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        raise ConfigError(
            f"not a quoted value: {value[:80]}", hint='quote as in JSON: "a, \\"b\\""'
        ) from None


def _misfit(text: str, names: Sequence[str]) -> ConfigError:
    example = ",".join(f"{name}=..." for name in names)
    return ConfigError(
        f"the key {text[:80]!r} does not name a value for each of: {', '.join(names)}", hint=example
    )
