"""Jobs with which the harness is tested."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

from benchmarks.stopwatch import Stopwatch


def spend(watch: Stopwatch, megabytes: int, seconds: float) -> dict[str, Any]:
    """A job that holds memory and a core outside its timed block, then in it, then in a child."""
    kept = bytearray(megabytes << 20)
    _burn(seconds)
    with watch:
        _burn(seconds)
        child = f"x = bytearray({megabytes} << 20); import time; t = time.process_time()\n"
        busy = f"{child}while time.process_time() - t < {seconds}: pass"
        subprocess.run([sys.executable, "-c", busy], check=True)
    return {"kept": len(kept)}


def _burn(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def burn(watch: Stopwatch, seconds: float) -> dict[str, Any]:
    _burn(seconds)
    return {}


def wait(watch: Stopwatch) -> dict[str, Any]:
    threading.Event().wait(0.5)
    return {}


def break_down(watch: Stopwatch) -> None:
    raise ValueError("no such table")
