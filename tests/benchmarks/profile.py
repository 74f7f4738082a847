"""Where the wall time of a job goes: every thread's stack, looked at every few milliseconds.

Native code that holds the interpreter's lock delays a look, and the time is then still told of the line that
called it; no call is made slower, as a tracing profiler would.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Self

PAUSE = 0.004
#: Innermost functions in which a thread only waits for others.
_WAITING = {
    "wait",
    "acquire",
    "select",
    "poll",
    "get",
    "put",
    "_wait_for_tstate_lock",
    "_try_wait",
    "wait_readable",
}


class Sampler:
    """Counts looks by thread and by the innermost function of the named packages."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = tuple(f"{name}." for name in packages)
        self._seen: Counter[tuple[str, str, bool]] = Counter()
        self._looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def shares(self, least: float = 0.01) -> list[dict[str, object]]:
        """[{thread, function, waits, share of all looks}], the largest first."""
        return [
            {"thread": thread, "function": function, "waits": waits, "share": count / self._looks}
            for (thread, function, waits), count in self._seen.most_common()
            if count / self._looks >= least
        ]

    def _look(self) -> None:
        while not self._over.is_set():
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident != self._thread.ident and (place := self._place(frame)):
                    self._seen[(names.get(ident, "?").rstrip("0123456789-_"), *place)] += 1
            self._looks += 1
            time.sleep(PAUSE)

    def _place(self, frame: FrameType) -> tuple[str, bool] | None:
        """The innermost function of ours on a stack, and whether it waits for another thread or process."""
        waits = frame.f_code.co_name in _WAITING
        at: FrameType | None = frame
        while at is not None:
            module = str(at.f_globals.get("__name__", ""))
            if f"{module}.".startswith(self._packages):
                return f"{module}.{at.f_code.co_qualname}", waits
            at = at.f_back
        return None
