"""What the views over captured tables have in common: a table is chosen, and something is read of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headwater.background import describe
from headwater.config.patterns import quote_table
from headwater.errors import ConfigError, HeadwaterError
from headwater.model import TableId
from headwater.pipeline import Pipeline
from headwater_widgets.view import Verb, View
from headwater_widgets.worker import Worker


class CapturedView(View):
    """A view of one captured table at a time. What the browser asks for is read beside the kernel's own work.

    `table` is the chosen one, None for none.
    """

    def __init__(self, pipeline: Pipeline | str | Path) -> None:
        """`pipeline` is a pipeline file, or an opened `Pipeline`."""
        if isinstance(pipeline, Pipeline):
            self._open: Callable[[], Pipeline] = lambda: Pipeline(pipeline.config, pipeline.path)
        else:
            self._open = lambda: Pipeline.open(pipeline)
        self.table: TableId | None = None
        self._tables: list[TableId] = []
        self._problem: HeadwaterError | None = None
        self._reader: Pipeline | None = None  # the worker's alone
        self._worker = Worker(self._let_go)
        super().__init__()

    def wait(self, seconds: float = 30.0) -> bool:
        """Wait until what the browser asked for is there; whether it is."""
        return self._worker.wait(seconds)

    def close(self) -> None:
        """Let go."""
        self._worker.close()
        super().close()

    def show(self, pipeline: Pipeline, table: TableId) -> None:
        """Read what there is to see of a table, and tell it."""
        raise NotImplementedError

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for."""
        return {
            "ready": lambda _: self.later("tables", self._look),
            "reload": lambda _: self.later("tables", self._look),
            "choose": self._choose,
        }

    def later(self, kind: str, work: Callable[[Pipeline], None]) -> None:
        """Do something beside the kernel, and say so meanwhile."""
        self.tell("reading")

        def careful() -> None:
            try:
                self._reader = self._reader or self._open()
                work(self._reader)
            except Exception as failed:  # noqa: BLE001  a person must get a sentence, also for a bug
                self._failed(failed)

        self._worker.do(kind, careful)

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _failed(self, failed: BaseException) -> None:
        said = describe(failed)
        self.tell("problem" if not self._tables else "failed", message=said.message, hint=said.hint)

    def _choose(self, said: Mapping[str, Any]) -> None:
        table = self._tables[int(said["index"])]
        self.later("table", lambda pipeline: self.show(pipeline, table))

    def _look(self, pipeline: Pipeline) -> None:
        """Tell the tables, and what is shown of the chosen one."""
        self._find(pipeline)
        schemas = sorted({t.namespace for t in self._tables})
        place = {schema: n for n, schema in enumerate(schemas)}
        # As one text: the kernel looks into every value of a message, and these may be thousands.
        names = json.dumps([[place[t.namespace], t.name] for t in self._tables])
        chosen = self._tables.index(self.table) if self.table in self._tables else None
        self.tell("tables", schemas=schemas, tables=names, chosen=chosen, pipeline=pipeline.config.name)
        if self.table is not None:
            self.show(pipeline, self.table)

    def _find(self, pipeline: Pipeline) -> None:
        self._tables = sorted(pipeline.parts.log.tables())
        if not self._tables:
            raise ConfigError(f"pipeline {pipeline.config.name} has read no table yet", hint="headwater run")


def name_of(table: TableId) -> str:
    """A table as `Pipeline` takes it, whatever it is called."""
    return quote_table(table)
