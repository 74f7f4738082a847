"""`SchemaTimeline`: every version of a table's columns, what changed, and what waits for somebody's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.differences import differences
from headwater.errors import ConfigError, HeadwaterError, SourceError
from headwater.model import TableId
from headwater.pipeline import Pipeline
from headwater.review import held_back, schema_diff
from headwater_widgets import pages
from headwater_widgets.captured import CapturedView, name_of
from headwater_widgets.view import Verb, read_source

if TYPE_CHECKING:
    from headwater.review import SchemaVersion

#: Versions in the static page.
_SHOWN = 40


class SchemaTimeline(CapturedView):
    """Shows how a table's columns came to be what they are; only `accept` changes anything."""

    _esm = read_source("dom.js", "captured.js", "schema_timeline.js")

    def __init__(self, pipeline: Pipeline | str | Path = "headwater.yml", table: str = "") -> None:
        """`table` as `headwater schema log` takes it; it can be chosen in the view."""
        self.versions: Sequence[SchemaVersion] = ()
        self.held: Sequence[str] = ()
        self._away = ""
        super().__init__(pipeline)
        if table:
            self._begin(table)

    def accept(self) -> Sequence[TableId]:
        """Let in what the policies of the shown table keep out, once; as `Pipeline.schema_accept`."""
        if self.table is None:
            raise ConfigError("no table is chosen", hint="SchemaTimeline(pipeline, table)")
        with self._open() as pipeline:
            return self._accept(pipeline, self.table)

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for."""
        return {**super().verbs(), "diff": self._diff, "accept": self._let_in}

    def page(self) -> str:
        """The static HTML."""
        if self.table is None or self._problem is not None:
            return pages.problem("Schema", self._problem)
        rows = [
            (str(v.version), _when(v), v.position, str(v.entry), "; ".join(v.changes))
            for v in self.versions[-_SHOWN:]
        ]
        more = "held back by its policies: " + "; ".join(self.held) if self.held else ""
        head = ("version", "at", "position", "entry", "what changed")
        return pages.table("Schema", str(self.table), head, rows, more, figures=(0, 3))

    def show(self, pipeline: Pipeline, table: TableId) -> None:
        """Tell every version of a table, and what is held back."""
        self._read(pipeline, table)
        self.tell(
            "versions",
            index=self._tables.index(table),
            name=name_of(table),
            versions=[
                _told(before, v) for before, v in zip([None, *self.versions], self.versions, strict=False)
            ],
            held=list(self.held),
            away=self._away,
            left=[c.source_name for c in self._left_out(pipeline, table)],
        )

    def _read(self, pipeline: Pipeline, table: TableId) -> None:
        self.table, self._away = table, ""
        self.versions = pipeline.schema_log(name_of(table))
        try:
            self.held = pipeline.schema_held(name_of(table))
        except SourceError as away:
            self.held = held_back(pipeline.parts.log, pipeline.parts.lake, pipeline.config.spec(table))
            self._away = f"whether the table is still there cannot be seen: {away}"

    def _left_out(self, pipeline: Pipeline, table: TableId) -> Sequence[Any]:
        held = pipeline.parts.lake.schema(table, "changes")
        return held.left_out if held and pipeline.config.spec(table).policies.schema == "discard" else ()

    def _begin(self, table: str) -> None:
        try:
            with self._open() as pipeline:
                self._find(pipeline)
                self._read(pipeline, pipeline.schema(table).table)
        except HeadwaterError as failed:
            self._problem = failed

    def _look(self, pipeline: Pipeline) -> None:
        super()._look(pipeline)
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    # What the browser asks for.

    def _diff(self, said: Mapping[str, Any]) -> None:
        since, to = int(said["since"]), int(said["to"])
        versions = self.versions
        if not 1 <= to <= len(versions):
            return  # of a table that was shown before
        # Version 0 is what was before the first: nothing.
        found = schema_diff(versions, since, to) if since else schema_diff(versions[to - 1 : to], None, 1)
        self.tell("diff", since=since, to=to, diff="\n".join([*found[:2], *found[3:]]))

    def _let_in(self, said: Mapping[str, Any]) -> None:
        table = self._tables[int(said["index"])]

        def work(pipeline: Pipeline) -> None:
            moved = self._accept(pipeline, table)
            self.show(pipeline, table)
            self.tell("accepted", moved=[str(t) for t in moved])

        self.later("accept", work)

    def _accept(self, pipeline: Pipeline, table: TableId) -> Sequence[TableId]:
        return pipeline.schema_accept([name_of(table)])


def _told(before: SchemaVersion | None, version: SchemaVersion) -> Mapping[str, object]:
    """A version as the browser shows it."""
    changes = [["first", said] for said in version.changes]
    if before is not None:
        changes = [[d.what, d.says] for d in differences(before.schema, version.schema)]
    return {
        "version": version.version, "entry": version.entry, "position": version.position,
        "at": _when(version), "reload": version.reload, "changes": changes,
        "columns": len(version.schema.columns),
    }  # fmt: skip


def _when(version: SchemaVersion) -> str:
    return "" if version.at is None else f"{version.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
