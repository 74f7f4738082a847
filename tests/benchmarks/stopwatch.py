"""What a job gets as its first argument. Plain Python: peers run it in environments without our packages."""

from __future__ import annotations

import resource
import time
from types import TracebackType


class Stopwatch:
    """Wall and CPU seconds of its `with` blocks, of this process and the children that ended inside."""

    seconds = 0.0
    cpu_s = 0.0

    def __enter__(self) -> None:
        self._cpu, self._began = _cpu_seconds(), time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._began
        self.cpu_s += _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
