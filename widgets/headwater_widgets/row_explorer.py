"""`RowExplorer`: every change of one key, the row after each of them, and the table as it was then."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.canonical import literal, quote
from headwater.errors import ConfigError, HeadwaterError
from headwater.keys import format_key, parse_key
from headwater.model import TableId, TableSchema
from headwater.pipeline import Pipeline
from headwater_widgets import pages
from headwater_widgets.captured import CapturedView, name_of
from headwater_widgets.view import Verb, read_source

if TYPE_CHECKING:
    from headwater.explain import Step
    from headwater.lake import Kind
    from headwater.paging import Page

# JupyterLab drops what a kernel says beyond about 3 MB in three seconds.
#: Changes in one view, the newest; keys that are offered; cells of a page of the table.
_STEPS, _KEYS, _CELLS = 500, 12, 3_000
#: Changed columns that come with a change; the row has all of them.
_NAMED = 3
#: Characters of a cell: in a line, in a table, until somebody asks for all of it, and then.
_LINE, _NARROW, _CUT, _ALL = 48, 80, 160, 500_000
#: Changes in the static page.
_SHOWN = 40


class RowExplorer(CapturedView):
    """Looks at one row through time; reads only, and works while the pipeline runs."""

    _esm = read_source("dom.js", "captured.js", "row_explorer.js")

    def __init__(
        self, pipeline: Pipeline | str | Path = "headwater.yml", table: str = "", key: str = ""
    ) -> None:
        """`table` and `key` as `headwater explain` takes them; both can be chosen in the view.

        What cannot be read is shown in the widget, with what to do.
        """
        self.steps: Sequence[Step] = ()
        self.key = key
        self._schema: TableSchema | None = None
        super().__init__(pipeline)
        if table:
            self._begin(table)

    def explore(self, table: str, key: str | Mapping[str, str]) -> Sequence[Step]:
        """Show a key, and return its changes, as `Pipeline.explain` does; raises ConfigError."""
        with self._open() as pipeline:
            self._find(pipeline)
            schema = pipeline.schema(table)
            self.table, self.key = schema.table, _readable(key, schema)
            self.show(pipeline, schema.table)
        return self.steps

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for."""
        more: Mapping[str, Verb] = {
            "explain": self._ask,
            "row": self._row,
            "cell": self._cell,
            "page": self._page,
        }
        return {**super().verbs(), **more}

    def page(self) -> str:
        """The static HTML: what happened, without the values."""
        if self.table is None or self._problem is not None:
            return pages.problem("Row", self._problem)
        steps = self.steps[-_SHOWN:]
        head = ("at", "change", "columns", "position", "entry", "lake version", "warehouse")
        rows = [
            (_when(s.at), s.op, s.note or ", ".join(s.changed), s.position, str(s.entry),
             "" if s.lake_version is None else str(s.lake_version), s.run or s.warehouse)
            for s in steps
        ]  # fmt: skip
        said = f"{self.table} · {self.key} · {_count(len(self.steps))}" if self.key else str(self.table)
        more = f"the newest {_SHOWN} of {len(self.steps):,}" if len(self.steps) > _SHOWN else ""
        return pages.table("Row", said, head, rows, more, figures=(4, 5))

    def show(self, pipeline: Pipeline, table: TableId) -> None:
        """Tell what the table's key is, some keys, and its newest rows."""
        if table != self.table:
            self.steps, self.key = (), ""
        schema = pipeline.schema(name_of(table))
        self.table, self._schema = table, schema
        keys, failed = self._recent(pipeline, schema)
        self.tell(
            "table",
            index=self._tables.index(table),
            name=name_of(table),
            key=list(schema.key),
            masked=[c.name for c in schema.columns if c.mask],
            called={c.name: c.source_name for c in schema.columns if c.name != c.source_name},
            types={c.name: c.native or str(c.type) for c in schema.columns},
            keys=list(keys),
        )
        if failed is not None:
            self.fail(failed)
        elif not schema.key:
            self._tell_page(pipeline.page(name_of(table), kind="changes", most=_rows(schema)), None)
        if schema.key:
            self._explain(pipeline, schema, self.key)

    def _recent(self, pipeline: Pipeline, schema: TableSchema) -> tuple[Sequence[str], HeadwaterError | None]:
        """Some keys; a table that is not in the lake yet has none to offer, but may well be explained."""
        try:
            return (pipeline.recent_keys(name_of(schema.table), _KEYS) if schema.key else ()), None
        except HeadwaterError as failed:
            return (), failed

    # What the browser asks for.

    def _ask(self, said: Mapping[str, Any]) -> None:
        schema = self._schema
        if schema is None:
            raise ConfigError("no table is chosen", hint="choose a table first")
        given = [str(text) for text in said["key"]]
        whole = len(given) > 1 and not any(given[1:])
        key = given[0] if whole or len(given) == 1 else dict(zip(schema.key, given, strict=True))
        self.key = _readable(key, schema)
        self.later("steps", lambda pipeline: self._explain(pipeline, schema, self.key))

    def _row(self, said: Mapping[str, Any]) -> None:
        """The row after one of the changes."""
        step = self._step(said)
        if step is None:
            return
        now, was = step.row or step.before, step.before
        cells = [[name, _cell(now, name), name in step.changed, _cell(was, name)] for name in now]
        self.tell("row", step=int(said["step"]), gone=not step.row, cells=cells, key=step.key)

    def _cell(self, said: Mapping[str, Any]) -> None:
        """All of a cell that was cut."""
        step, name = self._step(said), str(said["column"])
        if step is None:
            return
        held = step.before if said["side"] == "before" else step.row
        text = held.get(name) or ""
        self.tell("cell", ask=said["ask"], text=text[:_ALL], more=len(text) - _ALL)

    def _step(self, said: Mapping[str, Any]) -> Step | None:
        """The change that is meant; None when another key was read meanwhile."""
        steps, wanted = self.steps, int(said["step"])
        return steps[wanted] if wanted < len(steps) else None

    def _page(self, said: Mapping[str, Any]) -> None:
        schema, moment, first = self._schema, said.get("moment") or None, max(0, int(said["first"]))
        if schema is None:
            return

        def read(pipeline: Pipeline) -> None:
            keyed, table, most = bool(schema.key), schema.table, _rows(schema)
            kind: Kind = "mirror" if keyed else "changes"
            found = pipeline.page(
                name_of(table), moment if keyed else None, kind=kind, first=first, most=most
            )
            self._tell_page(found, moment)

        self.later("page", read)

    # What the browser is told.

    def _begin(self, table: str) -> None:
        try:
            with self._open() as pipeline:
                self._find(pipeline)
                schema = pipeline.schema(table)
                self.table, self._schema = schema.table, schema
                if schema.key and self.key:
                    self.key = _readable(self.key, schema)
                    self._explain(pipeline, schema, self.key)
        except HeadwaterError as failed:
            self._problem, self.key = failed, ""

    def _look(self, pipeline: Pipeline) -> None:
        super()._look(pipeline)
        if self._problem is not None:
            # Told once, over what there is to see.
            problem, self._problem = self._problem, None
            raise problem

    def _explain(self, pipeline: Pipeline, schema: TableSchema, key: str) -> None:
        table = name_of(schema.table)
        found = pipeline.explain(table, key, values=True) if key else ()
        self.table, self._schema, self.key, self.steps = schema.table, schema, key, found
        first = max(0, len(found) - _STEPS)
        self.tell(
            "steps",
            key=key,
            fields=[parse_key(key, schema.key)[name] for name in schema.key] if key else [],
            first=first,
            steps=[_told(step) for step in found[first:]],
            copy=_copies(schema, key) if key else [],
        )

    def _tell_page(self, found: Page, moment: str | None) -> None:
        rows = [[_short(cell, _NARROW) for cell in row] for row in found.rows]
        self.tell("page", columns=list(found.columns), keys=list(found.keys), rows=rows, first=found.first,
                  most=_rows(self._schema), count=found.count, moment=moment)  # fmt: skip


def _readable(key: str | Mapping[str, str], schema: TableSchema) -> str:
    """A key in full, as `explain` takes it; raises ConfigError."""
    if not schema.key:
        raise ConfigError(
            f"{schema.table} has no key: its rows cannot be told apart",
            hint=f"Pipeline.changes({name_of(schema.table)!r}) has all of its inserts and deletes",
        )
    return format_key(parse_key(key, schema.key) if isinstance(key, str) else dict(key))


def _told(step: Step) -> Mapping[str, object]:
    """A change as the browser shows it."""
    names = step.changed if step.before and step.row else tuple(step.row or step.before)
    changes = [
        [name, _cell(step.before, name, _LINE), _cell(step.row, name, _LINE)] for name in names[:_NAMED]
    ]
    return {
        "seq": step.seq, "op": step.op, "key": step.key, "at": _when(step.at), "moment": _moment(step.at),
        "position": step.position, "tx": step.tx, "note": step.note, "entry": step.entry,
        "version": step.lake_version, "file": step.file, "waits": step.waits, "warehouse": step.warehouse,
        "run": step.run, "built": _when(step.built_at), "changes": changes, "changed": len(names),
    }  # fmt: skip


def _rows(schema: TableSchema | None) -> int:
    """The rows of a page of a table."""
    return min(25, max(5, _CELLS // max(1, len(schema.columns) if schema else 1)))


def _cell(held: Mapping[str, str | None], name: str, most: int = _CUT) -> Sequence[object] | None:
    """A cell as [text, characters]; a NULL has no text, and what is not known is None."""
    if name not in held:
        return None
    text = held[name]
    return _short((text, len(text or "")), most)


def _short(cell: tuple[str | None, int], most: int) -> Sequence[object]:
    text, length = cell
    return [None if text is None else text[:most], length]


def _when(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def _count(changes: int) -> str:
    return "this key was never there" if not changes else f"{changes:,} change{'s' if changes > 1 else ''}"


def _copies(schema: TableSchema, key: str) -> Sequence[Sequence[str]]:
    """What to type to get the same elsewhere."""
    table, fields = name_of(schema.table), parse_key(key, schema.key)
    where = " AND ".join(f"{quote(name)} = {literal(text)}" for name, text in fields.items())
    place = f"{quote(schema.table.namespace)}.{quote(schema.table.name)}"
    return [
        ["command", f"headwater explain {shlex.quote(table)} {shlex.quote(key)} --values"],
        ["Python", f"p.explain({table!r}, {key!r}, values=True)"],
        ["SQL", f"SELECT * FROM changes.{place} WHERE {where} ORDER BY _hw_seq"],
    ]
