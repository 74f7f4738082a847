"""`%load_ext headwater`: the command line as a line magic, SQL over the lake as a cell magic."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from headwater import Pipeline
from headwater.cli import main
from headwater.errors import HeadwaterError
from headwater_widgets.sheet import relation_html

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation
    from IPython.core.interactiveshell import InteractiveShell


@magics_class
class HeadwaterMagics(Magics):
    """The magics of one IPython shell."""

    @line_cell_magic
    def headwater(self, line: str, cell: str | None = None) -> DuckDBPyRelation | None:
        """`%headwater WORDS` runs a command; `%%headwater sql [-o NAME] [-c FILE]` the query in its cell."""
        words = _split(line)
        if cell is None:
            code = main(words)
            if code:
                # A notebook that runs unattended must stop here; the command has printed why.
                raise UsageError(f"headwater {' '.join(words[:1])} ended with exit code {code}")
            return None
        args = _Words().parse_args(words)
        try:
            # The relation outlives the pipeline: it has a connection of its own, over files in the lake.
            answer = Pipeline.open(args.config).sql(cell)
        except HeadwaterError as failed:
            raise UsageError(f"{failed}\n  try: {failed.hint}") from None
        if args.output:
            shell = self.shell
            assert shell is not None
            shell.user_ns[args.output] = answer
            return None
        return answer


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics, and show relations of DuckDB as tables."""
    shell.register_magics(HeadwaterMagics)
    formatters = shell.display_formatter.formatters if shell.display_formatter else {}
    if "text/html" in formatters:
        formatters["text/html"].for_type_by_name("duckdb._relation", "DuckDBPyRelation", relation_html)


class _Words(argparse.ArgumentParser):
    """The words after `%%headwater`."""

    def __init__(self) -> None:
        super().__init__("%%headwater", add_help=False)
        self.add_argument("verb", choices=["sql"])
        self.add_argument("-o", "--output", metavar="NAME")
        self.add_argument("-c", "--config", metavar="FILE", default="headwater.yml")

    def error(self, message: str) -> NoReturn:
        """Wrong use, told as IPython does."""
        raise UsageError(f"{message}\n  try: %%headwater sql [-o NAME] [-c FILE]")


def _split(line: str) -> Sequence[str]:
    try:
        return shlex.split(line)
    except ValueError as failed:
        raise UsageError(f"{failed} in: {line}") from None
