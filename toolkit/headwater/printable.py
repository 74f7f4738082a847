"""Text that is safe on a terminal: names come from other people's databases."""

from __future__ import annotations

import unicodedata

_STEPS = (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10))


def printable(text: str) -> str:
    """The text with control, invisible and direction-changing characters written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def width(text: str) -> int:
    """How many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def size(count: int) -> str:
    """Bytes for a person, in PostgreSQL's units: powers of 1024."""
    for unit, step in _STEPS:
        if abs(count) >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"


def span(seconds: float) -> str:
    """A time for a person, in the unit that gives a number of one or two digits."""
    for unit, step in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * step:
            return f"{seconds / step:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
