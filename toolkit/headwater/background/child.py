"""The process behind `Background`: one request on the standard input, what happens as lines of JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from headwater.background import describe
from headwater.config import quote_table, select
from headwater.events import Event
from headwater.model import TableId
from headwater.pipeline import Pipeline
from headwater.startup import spare_pandas


class _Child:
    """One run, and the line to the parent."""

    def __init__(self, said: TextIO, answers: TextIO) -> None:
        self._said, self._answers = said, answers
        self._stopping = threading.Event()
        self._writing = threading.Lock()
        self._follows = False

    def run(self) -> None:
        """Read the request, do it, and tell how it ended."""
        request = json.loads(self._said.readline())
        self._follows = request["mode"] == "follow"
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            with Pipeline.open(request["path"]) as pipeline:
                self._run(pipeline, request)
            # A follower has no end of its own: it ends because it was asked to.
            self._tell({"finished": not self._follows})
        except KeyboardInterrupt:
            pass
        except Exception as failed:  # noqa: BLE001  told to the parent, who shows it
            self._tell({"failure": asdict(describe(failed))})

    def _run(self, pipeline: Pipeline, request: Mapping[str, Any]) -> None:
        build = bool(request["build"])
        if self._follows:
            for record in pipeline.follow([self._pass], stop=self._stopping.is_set, build=build):
                self._tell({"record": record.to_json()})
            return
        again = self._again(pipeline, request["asked"]) if request["mode"] == "full" else []
        mode = "full" if again else "auto"
        record = pipeline.run(mode, again or None, [self._pass], build=build)
        self._tell({"record": record.to_json()})

    def _again(self, pipeline: Pipeline, asked: Sequence[tuple[str, str, int]] | None) -> Sequence[str]:
        """The tables to read again: all, or after a pause those whose turn has not come yet."""
        state = pipeline.parts.log.tables()
        if asked is None:
            infos = pipeline.tables()
            chosen = select(pipeline.config.tables, [i.schema.table for i in infos if not i.note])
            asked = [(t.namespace, t.name, state[t].epoch if t in state else 0) for t in chosen]
            self._tell({"asked": asked})
        now = {t: s.epoch for t, s in state.items()}
        tables = [(TableId(namespace, name), epoch) for namespace, name, epoch in asked]
        return [quote_table(t) for t, epoch in tables if now.get(t, 0) == epoch]

    def _listen(self) -> None:
        """Wait for the word to stop, or for the parent to go away."""
        self._said.readline()
        self._stopping.set()
        if not self._follows:
            # A real signal, so that what waits for the network wakes up.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _pass(self, event: Event) -> None:
        table = [event.table.namespace, event.table.name] if event.table else None
        self._tell({"event": [event.kind, event.pipeline, table, dict(event.data)]})

    def _tell(self, line: Mapping[str, Any]) -> None:
        with self._writing:
            try:
                self._answers.write(json.dumps(line) + "\n")
                self._answers.flush()
            except BrokenPipeError:
                self._stopping.set()  # nobody listens any more; `_listen` sees the same


def main() -> None:
    """Serve one request. What libraries print goes nowhere: the standard output is the line to the parent."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spare_pandas()
    _Child(sys.stdin, answers).run()


if __name__ == "__main__":
    main()
