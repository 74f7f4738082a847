"""Work that takes its time: in a thread, with a pipeline of its own, so that the notebook goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from headwater.pipeline import Pipeline

#: Seconds that the thread waits for more before it lets go of the pipeline and ends.
_IDLE = 20.0

Work = Callable[[Pipeline], None]


class Worker:
    """One thread at most. Of each kind of work only the newest counts: what waits is replaced."""

    def __init__(self, opened: Callable[[], Pipeline], fail: Callable[[BaseException], None]) -> None:
        """`opened` opens a pipeline for the thread; `fail` is told what went wrong, in the thread."""
        self._opened, self._fail = opened, fail
        self._todo: dict[str, Work] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False

    def do(self, kind: str, work: Work) -> None:
        """Do something as soon as may be."""
        with self._changed:
            self._todo[kind] = work
            if self._thread is None and not self._closed:
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
        pipeline: Pipeline | None = None
        try:
            while (work := self._next()) is not None:
                try:
                    pipeline = pipeline or self._opened()
                    work(pipeline)
                except Exception as failed:  # noqa: BLE001  a person must get a sentence, also for a bug
                    self._fail(failed)
        finally:
            if pipeline is not None:
                pipeline.close()

    def _next(self) -> Work | None:
        """The next work; None when there was none for a while."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._todo or self._closed, _IDLE)
            if not self._todo:
                self._thread = None
                return None
            self._busy = True
            return self._todo.pop(next(iter(self._todo)))
