"""A bound on how fast all connections together take what the server sends."""

from __future__ import annotations

import threading
import time


class Throttle:
    """At most `rate` bytes a second, over all threads that share it; 0: no bound."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0  # the moment from which on more may be taken

    def wait(self, size: int, stop: threading.Event) -> None:
        """Account for `size` bytes that came, and wait until more may come, or until `stop`."""
        if not self._rate:
            return
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self._rate
            pause = self._free - time.monotonic()
        if pause > 0:
            stop.wait(pause)
