"""Places where a crash test may kill this process: `HEADWATER_FAILPOINT=name[:nth]` ends it with SIGKILL.

Every durable write passes `<step>.before` and `<step>.after`. Without the variable a point costs one
comparison.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_WANTED, _, _NTH = os.environ.get("HEADWATER_FAILPOINT", "").partition(":")
_passed: Counter[str] = Counter()


def reach(name: str) -> None:
    """Kill this process here, with no chance to clean up, at the nth pass of the point asked for."""
    if not _WANTED or name != _WANTED:
        return
    _passed[name] += 1
    if _passed[name] == int(_NTH or 1):
        os.kill(os.getpid(), signal.SIGKILL)
