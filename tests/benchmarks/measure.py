"""A job in a process of its own: seconds, CPU seconds and memory that are its alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
#: Seconds between two looks at a job's memory.
LOOK = 0.05
#: A job that takes longer than this hangs.
PATIENCE = 7200.0


class JobFailed(Exception):
    """A job ended with an error; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a job took.

    seconds, cpu_s  of the timed block: the process and the children that ended inside the block
    peak_mb         MiB of the whole process, from start to end: the larger of its own high-water mark and the
                    highest sum of resident memory over it and all its descendants, looked at every 50 ms
    """

    seconds: float
    cpu_s: float
    peak_mb: float
    facts: dict[str, Any] = field(default_factory=dict)


class Job:
    """A started job; `result` waits for its end."""

    def __init__(
        self, job: str, arguments: dict[str, Any], python: Path | None = None, profile: str = ""
    ) -> None:
        self._name = job
        self._folder = tempfile.TemporaryDirectory(prefix="headwater-job-")
        self._answer = Path(self._folder.name) / "answer.json"
        self._said = (Path(self._folder.name) / "said").open("w+b")
        self._peak = 0
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        if profile:
            environment["HEADWATER_PROFILE"] = profile
        self._process = subprocess.Popen(
            [str(python or sys.executable), "-m", "benchmarks.worker", job, str(self._answer)],
            stdin=subprocess.PIPE, stdout=self._said, stderr=self._said, env=environment,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments).encode())
        self._process.stdin.close()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def result(self) -> Sample:
        """Wait for the job; raises JobFailed with what it said."""
        try:
            code = self._process.wait(PATIENCE)
            self._watcher.join()
            if code or not self._answer.exists():
                self._said.seek(0)
                said = self._said.read().decode(errors="replace").strip()
                raise JobFailed(f"{self._name}: {said[-2000:]}")
            told = json.loads(self._answer.read_text())
        finally:
            self._process.kill()
            self._process.wait()
            self._said.close()
            self._folder.cleanup()
        peak = max(self._peak / (1 << 20), told["high_mb"])
        return Sample(told["seconds"], told["cpu_s"], peak, told["facts"])

    def _watch(self) -> None:
        while self._process.poll() is None:
            self._peak = max(self._peak, sum(map(resident, descendants(self._process.pid))))
            time.sleep(LOOK)


def run(job: str, *, python: Path | None = None, profile: str = "", **arguments: Any) -> Sample:
    """Run `module:function` of this package with these arguments in a process of its own.

    profile    packages, with commas between: the sample's facts then say where the time went (see `profile`)
    """
    return Job(f"benchmarks.{job}", arguments, python, profile).result()


def descendants(pid: int) -> Iterator[int]:
    """The process and all below it."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))


def resident(pid: int) -> int:
    """Bytes of a process that are in memory now."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
