"""Work that takes its time: in a thread of its own, so that the notebook goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Seconds that the thread waits for more before it ends.
_IDLE = 20.0

Work = Callable[[], None]


class Worker:
    """One thread at most. Of each kind of work only the newest counts: what waits is replaced."""

    def __init__(self, rest: Work = lambda: None) -> None:
        """`rest` is called in the thread when there was nothing to do for a while, and at its end."""
        self._rest = rest
        self._todo: dict[str, Work] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False

    def do(self, kind: str, work: Work) -> None:
        """Do something as soon as may be; `work` raises nothing."""
        with self._changed:
            if self._closed:
                return
            self._todo.pop(kind, None)  # what was asked for last is done last
            self._todo[kind] = work
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headwater view", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, seconds: float = 30.0) -> bool:
        """Wait until nothing is left to do; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._todo or self._busy), seconds)

    def close(self) -> None:
        """Forget what waits, and end."""
        with self._changed:
            self._closed = True
            self._todo.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            work()

    def _next(self) -> Work | None:
        """The next work; None when there was none for a while."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._todo or self._closed, _IDLE)
            if not self._todo:
                # Still under the lock: whoever comes next begins another thread after this one has let go.
                self._rest()
                self._thread = None
                return None
            self._busy = True
            return self._todo.pop(next(iter(self._todo)))
