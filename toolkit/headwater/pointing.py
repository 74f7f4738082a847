"""Errors that point at the character. No I/O."""

from __future__ import annotations

from headwater.errors import ConfigError
from headwater.printable import printable, width


def point(text: str, at: int, message: str, hint: str) -> ConfigError:
    """A ConfigError whose second and third line show `text` with a caret under its character `at`.

    `at == len(text)` points just behind the end: something is missing there.
    """
    indent = " " * width(printable(text[:at]))
    return ConfigError(f"{message}\n  {printable(text)}\n  {indent}^", hint=hint)
