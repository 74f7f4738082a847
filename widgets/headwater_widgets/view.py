"""What every widget has in common: messages instead of synced values, and a page that reads without a kernel.

Nothing that is shown is a synced value: a saved notebook holds the code of the view and the static HTML, but
no catalogue of thousands of tables, and nothing that somebody typed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import anywidget

from headwater.background import describe
from headwater.errors import ConfigError
from headwater.pipeline import Pipeline

Verb = Callable[[Mapping[str, Any]], None]


def read_source(*names: str) -> str:
    """Files of this package, one behind the other: a browser loads a widget's module as one text."""
    here = files(__package__)
    return "\n".join((here / name).read_text(encoding="utf-8") for name in names)


class View(anywidget.AnyWidget):
    """A widget that is told what to show, and says what was done to it.

    A subclass gives `verbs`, and `page` for readers without a kernel.
    """

    _css = read_source("look.css")

    def __init__(self) -> None:
        super().__init__()
        self.on_msg(self._receive)

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for, by the `kind` of its message."""
        raise NotImplementedError

    def page(self) -> str:
        """The static HTML."""
        raise NotImplementedError

    def tell(self, kind: str, **data: object) -> None:
        """Send something to every view of this widget; from any thread."""
        self.send({"kind": kind, **data})

    def fail(self, failed: BaseException) -> None:
        """Show an error with its hint."""
        said = describe(failed)
        self.tell("failed", message=said.message, hint=said.hint)

    def _receive(self, _widget: object, content: Mapping[str, Any], _buffers: object) -> None:
        try:
            self.verbs()[str(content.get("kind"))](content)
        except Exception as failed:  # noqa: BLE001  a person must get a sentence, also for a bug
            self.fail(failed)

    def _repr_mimebundle_(self, **_given: object) -> tuple[dict[str, object], dict[str, object]]:
        data, metadata = super()._repr_mimebundle_() or ({}, {})
        return {**data, "text/html": self.page()}, metadata


def find_file(pipeline: Pipeline | str | Path) -> Path:
    """The pipeline file behind what a widget was given."""
    if isinstance(pipeline, Pipeline):
        if pipeline.path is None:
            raise ConfigError(
                "this pipeline was not read from a file, so there is nothing to change",
                hint='Pipeline.open("headwater.yml")',
            )
        return pipeline.path
    return Path(pipeline).absolute()
