"""Runs in a process of their own: started, watched, paused and stopped from another one.

The process is the command line's equal: it holds the pipeline's lease, ends at a safe stop, and may be killed
at any instant. When its parent goes away, it stops by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headwater.errors import ConfigError, Conflict, HeadwaterError
from headwater.events import Event, Sink, tell
from headwater.model import TableId
from headwater.state import RunRecord

Mode = Literal["run", "full", "follow"]
State = Literal["idle", "running", "pausing", "paused", "stopping"]

MODES: Sequence[Mode] = ("run", "full", "follow")


@dataclass(frozen=True, slots=True)
class Failure:
    """What stopped a run, and the next command to type."""

    message: str
    hint: str


class Background:
    """The runs of one pipeline file that this process started; one at a time."""

    def __init__(self, path: str | Path, sinks: Sequence[Sink] = ()) -> None:
        """Sinks are called in a thread of ours."""
        self.path = Path(path).absolute()
        self.failure: Failure | None = None
        self.last: RunRecord | None = None
        self._sinks = sinks
        self._state: State = "idle"
        self._mode: Mode = "run"
        self._build = True
        self._asked: Sequence[Sequence[str | int]] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """What the process does, or is asked to do."""
        return self._state

    @property
    def mode(self) -> Mode:
        """The mode of the run, or of the last one."""
        return self._mode

    def start(self, mode: Mode = "run", *, build: bool = True) -> None:
        """Begin a run; raises Conflict while one goes on.

        mode   "run": load what is new and catch up; "full": read all tables again; "follow": go on
        build  whether dbt builds after it
        """
        if mode not in MODES:
            raise ConfigError(f"no run mode {mode!r}", hint="one of: " + ", ".join(MODES))
        with self._lock:
            if self._state not in ("idle", "paused"):
                raise Conflict("a run is going on here already", hint="stop it first")
            self._mode, self._build, self._asked = mode, build, None
            self._begin()

    def pause(self) -> None:
        """Stop at the next safe stop, to go on from there; what is done is kept."""
        self._end("pausing")

    def resume(self) -> None:
        """Go on with a paused run."""
        with self._lock:
            if self._state == "paused":
                self._begin()

    def stop(self) -> None:
        """Stop at the next safe stop; asked a second time, at once, as safely as kill -9."""
        with self._lock:
            again = self._state == "stopping"
            if self._state == "paused":
                self._state = "idle"
                return
        if again and self._process is not None:
            self._process.kill()
        else:
            self._end("stopping")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the process has ended; whether it has."""
        if self._reader is not None:
            self._reader.join(seconds)
            return not self._reader.is_alive()
        return True

    def _begin(self) -> None:
        request = {"path": str(self.path), "mode": self._mode, "build": self._build, "asked": self._asked}
        self.failure, self._state = None, "running"
        # In a session of its own: the interrupt that ends a notebook's cell is not meant for it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "headwater.background.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            encoding="utf-8",
        )
        self._say(json.dumps(request))
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _say(self, line: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has just ended: `_read` sees the same

    def _end(self, state: State) -> None:
        with self._lock:
            if self._state in ("running", "pausing"):
                self._state = state
                self._say("stop")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stdin is not None
        finished = False
        for line in process.stdout:
            finished = self._take(json.loads(line)) or finished
        code = process.wait()
        process.stdout.close()
        process.stdin.close()
        with self._lock:
            if not finished and self._state == "running":
                self.failure = Failure(
                    f"the process of the run ended with {code}",
                    "start it again: it goes on from the last entry",
                )
            self._state = "paused" if self._state == "pausing" and not finished else "idle"

    def _take(self, said: Mapping[str, Any]) -> bool:
        """Take in one line; whether the run came to its own end."""
        if "event" in said:
            kind, pipeline, table, data = said["event"]
            tell(self._sinks, Event(kind, pipeline, TableId(*table) if table else None, data))
        elif "record" in said:
            self.last = RunRecord.from_json(said["record"])
        elif "asked" in said:
            self._asked = said["asked"]
        elif "failure" in said:
            self.failure = Failure(**said["failure"])
            return True
        return bool(said.get("finished"))


def describe(failed: BaseException) -> Failure:
    """An error as it is shown."""
    if isinstance(failed, HeadwaterError):
        return Failure(str(failed), failed.hint)
    return Failure(
        f"this is a bug in headwater: {type(failed).__name__}: {failed}",
        "headwater run --debug   (shows where)",
    )
