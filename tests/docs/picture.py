"""Draws docs/demo.svg from what the demo printed: `headwater demo | python tests/docs/picture.py`."""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text


def draw(text: str) -> str:
    """The text as a terminal, without fonts from the network."""
    lines = [line for line in text.splitlines() if "python -c" not in line]
    console = Console(record=True, width=max(map(len, lines), default=80) + 1, file=io.StringIO())
    for line in lines:
        style = "bold green" if line.startswith("verify:") else ""
        console.print(Text(line, style=style), overflow="crop", no_wrap=True)
    svg = console.export_svg(title="make demo", theme=MONOKAI)
    return re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code, ", "")


if __name__ == "__main__":
    Path("docs/demo.svg").write_text(draw(sys.stdin.read()))
