"""dbt as a child process that ends with its parent: `python -m headwater.handoff.child PARENT ARGS...`.

A dbt left behind by a killed run would go on writing, and keep the warehouse locked against the next run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from headwater.startup import without

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _end_with(parent: int) -> None:
    """Ask the kernel for a SIGKILL when the parent is gone; go at once if it already is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def main() -> None:
    """Run dbt's own command line."""
    parent, *sys.argv[1:] = sys.argv[1:]
    _end_with(int(parent))
    # jsonschema builds the grammar of URLs with it, three seconds long, where JupyterLab is installed too.
    with without("rfc3987_syntax"):
        from dbt.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
