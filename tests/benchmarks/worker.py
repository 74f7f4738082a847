"""The process of a job: `python -m benchmarks.worker MODULE:FUNCTION ANSWER`, arguments as JSON on stdin."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.stopwatch import Stopwatch


def run(job: str, answer: Path, profile: str | None) -> None:
    """Call the function and write down what it took and said."""
    module, _, name = job.partition(":")
    function = getattr(importlib.import_module(module), name)
    arguments = json.load(sys.stdin)
    watch = Stopwatch()
    if profile:
        from benchmarks.profile import Sampler

        with Sampler(profile.split(",")) as sampler:
            facts = function(watch, **arguments) or {}
        facts["profile"] = sampler.shares()
    else:
        facts = function(watch, **arguments) or {}
    told = {"seconds": watch.seconds, "cpu_s": watch.cpu_s, "high_mb": high_water(), "facts": facts}
    answer.write_text(json.dumps(told))


def high_water() -> float:
    """The most memory (MiB) that was ever resident in this process since it became a Python."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), os.environ.get("HEADWATER_PROFILE"))
