"""Static HTML for readers without a kernel: a saved notebook, nbconvert, a page on a code host."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from headwater.errors import HeadwaterError
from headwater.printable import printable

# Code hosts cut style sheets out of outputs and keep attributes, so the little there is stands inline.
_BOX = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45"
_CELL = "padding:3px 12px 3px 0;text-align:{};border-bottom:1px solid rgba(128,128,128,.25)"


def text(value: str) -> str:
    """A name from somebody's database, harmless in HTML."""
    return escape(printable(value))


def table(
    title: str,
    said: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    more: str = "",
    figures: Sequence[int] = (),
) -> str:
    """A headline, a line, and a table; `figures` are the columns that stand to the right."""
    return _page(f"Headwater · {title}", said, _grid(head, rows, more, figures))


def sheet(
    title: str,
    said: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    more: str = "",
    figures: Sequence[int] = (),
) -> str:
    """The same where a notebook shows rows: headline and line only if there are any."""
    return _page(title, said, _grid(head, rows, more, figures))


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], more: str, figures: Sequence[int]) -> str:
    aligned = [_CELL.format("right" if n in figures else "left") for n in range(len(head))]
    cells = "".join(f'<th style="{s}">{text(h)}</th>' for h, s in zip(head, aligned, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{s}">{text(c)}</td>' for c, s in zip(row, aligned, strict=True))
        + "</tr>"
        for row in rows
    )
    shown = f'<table style="border-collapse:collapse"><tr>{cells}</tr>{body}</table>' if rows else ""
    return shown + (f"<p>{text(more)}</p>" if more else "")


def problem(title: str, failed: HeadwaterError | None) -> str:
    """What kept the widget from showing anything."""
    hint = f"<p>try: <code>{text(failed.hint)}</code></p>" if failed and failed.hint else ""
    return _page(f"Headwater · {title}", str(failed or "nothing to show"), hint)


def _page(title: str, said: str, inside: str) -> str:
    top = (f"<b>{text(title)}</b>" if title else "") + (f"<p>{text(said)}</p>" if said else "")
    return f'<div style="{_BOX}">{top}{inside}</div>'
