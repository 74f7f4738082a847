"""`ConnectionForm`: where a pipeline reads and where it writes; tested before it is written."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.background import describe
from headwater.config.edit import PipelineFile, Proposal, known_values, read_value
from headwater.config.fields import FILE, Field
from headwater.errors import HeadwaterError
from headwater.model import Finding
from headwater.pipeline import Pipeline
from headwater.printable import size
from headwater_widgets import pages
from headwater_widgets.forms import describe_fields, find_field, form_values, group_of
from headwater_widgets.view import Verb, View, read_source

#: What everybody fills in; all else stands behind "More".
_FRONT: Mapping[str, Sequence[str]] = {
    "source": ("kind", "host", "port", "user", "dbname", "password", "sslmode"),
    "store": ("url",),
    "warehouse": ("path", "schema"),
}
_SECTIONS = tuple(_FRONT)


def _fields() -> list[Field]:
    """All fields but the tables, which have a widget of their own."""
    return [f for f in FILE.fields if f.name != "tables"]


class ConnectionForm(View):
    """Source, lake and warehouse of a file. Secrets are references; nothing typed stays in the notebook."""

    _esm = read_source("dom.js", "connection_form.js")

    def __init__(self, path: str | Path = "headwater.yml") -> None:
        """A file that is not there yet is made by `save`."""
        self._path = Path(path).absolute()
        self._testing = threading.Lock()
        self.findings: Sequence[Finding] = ()
        super().__init__()
        self.reload()

    @property
    def diff(self) -> str:
        """What `save` would change in the file; raises ConfigError where it could not be read then."""
        return self._propose().diff

    def save(self) -> None:
        """Write the file; raises Conflict when somebody else changed it since it was read."""
        self._file.save(self._propose())
        self._doc = copy.deepcopy(self._file.doc)
        self._tell_form()

    def reload(self) -> None:
        """Read the file again; what was not saved is forgotten."""
        self._file = PipelineFile(self._path, make=True)
        self._doc = copy.deepcopy(self._file.doc)
        self._tell_form()

    def test(self) -> Sequence[Finding]:
        """The preflight of what stands in the form, saved or not; raises what keeps it from being asked."""
        with Pipeline(self._propose().config) as pipeline:
            found = [*pipeline.check(), _look_at_store(pipeline)]
        self.findings = found
        return found

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for."""
        return {
            "ready": lambda _: self._tell_form(),
            "reload": lambda _: self.reload(),
            "set": self._set,
            "test": lambda _: threading.Thread(target=self._test, daemon=True).start(),
            "save": self._save,
        }

    def page(self) -> str:
        """The static HTML."""
        rows = [
            (f"{section}.{name}", value)
            for section in _SECTIONS
            for name, value in self._section(section).items()
            if isinstance(value, str)
        ]
        return pages.table("Connection", self._path.name, ("field", "value"), rows)

    def _section(self, name: str) -> Mapping[str, object]:
        found = self._values().get(name, {})
        return found if isinstance(found, dict) else {}

    def _values(self) -> Mapping[str, object]:
        return form_values(_fields(), known_values(self._doc, FILE))

    def _set(self, said: Mapping[str, Any]) -> None:
        place, text = [str(p) for p in said["place"]], str(said["text"])
        value = read_value(find_field(_fields(), place), text) if text.strip() else None
        self._put(place, value)
        self._tell_draft()

    def _put(self, place: Sequence[str], value: Any) -> None:
        doc = self._doc
        if len(place) > 1:
            group = group_of(find_field(_fields(), place[:1]), doc.get(place[0]))
            self._doc[place[0]] = doc = group
        if value is None:
            doc.pop(place[-1], None)
            if not doc:
                self._doc.pop(place[0], None)
            return
        doc[place[-1]] = value
        self._shorten(place[0])

    def _shorten(self, name: str) -> None:
        """What can be said in one word stays one word, as it was in the file."""
        group, short, before = self._doc[name], find_field(_fields(), [name]).short, self._file.doc.get(name)
        if short and isinstance(group, dict) and list(group) == [short.name] and not isinstance(before, dict):
            self._doc[name] = group[short.name]

    def _test(self) -> None:
        if not self._testing.acquire(blocking=False):
            return
        try:
            self.tell("testing")
            found = [[f.level, f.what, f.found, f.fix, str(f.table or "")] for f in self.test()]
            self.tell("findings", findings=found)
        except Exception as failed:  # noqa: BLE001  a person must get a sentence, also for a bug
            said = describe(failed)
            self.tell("findings", findings=[["fail", "connection", said.message, said.hint, ""]])
        finally:
            self._testing.release()

    def _save(self, _said: Mapping[str, Any]) -> None:
        self.save()
        self.tell("saved", file=self._path.name)

    def _tell_form(self) -> None:
        fields = _fields()
        front = [f for f in fields if f.name in _SECTIONS]
        rest = [f for f in fields if f.name not in _SECTIONS]
        self.tell("form", file=self._path.name, sections=describe_fields(front), rest=describe_fields(rest),
                  front=dict(_FRONT), values=self._values())  # fmt: skip
        self._tell_draft()

    def _tell_draft(self) -> None:
        diff, wrong, hint = "", "", ""
        try:
            diff = self._propose().diff
        except HeadwaterError as failed:
            wrong, hint = str(failed), failed.hint
        self.tell("draft", diff=diff, wrong=wrong, hint=hint)

    def _propose(self) -> Proposal:
        return self._file.propose(self._doc)


def _look_at_store(pipeline: Pipeline) -> Finding:
    """Whether the lake's place can be read, and what is there."""
    last = pipeline.parts.log.last()
    held = f"{last.seq + 1:,} entries" if last else "nothing yet"
    taken = sum(ref.bytes for ref in last.batches) if last else 0
    return Finding(
        "ok", "store", f"{pipeline.config.store}: {held}" + (f", the last of {size(taken)}" if taken else "")
    )
