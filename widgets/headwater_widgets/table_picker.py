"""`TablePicker`: which tables are copied, and how; shown as a diff of `headwater.yml`, then written."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.background import describe
from headwater.casts import TARGETS, read_cast
from headwater.config.draft import MASK_KEY, Draft, table_fields
from headwater.config.edit import PipelineFile, Proposal, read_value, write_value
from headwater.config.fields import Field
from headwater.config.patterns import is_chosen, parse_pattern, toggle_column
from headwater.errors import ConfigError, HeadwaterError
from headwater.masking.rules import find_problems
from headwater.model import Column, TableId, TableInfo, TableSchema
from headwater.pipeline import Pipeline
from headwater.printable import printable, size
from headwater_widgets import pages
from headwater_widgets.forms import describe_fields, find_field, form_values, group_of
from headwater_widgets.trying import TRIED, Trying
from headwater_widgets.view import Verb, View, find_file, read_source

#: Tables in the static page, and tables of which the next run's plan speaks by name.
_SHOWN = 40
#: A type change as it is typed: in letters, in words, or as a mapping.
_CAST = Field("cast", "another type", "{to: date, format: yyyyMMdd}", kind="mapping")
#: Settings with a place of their own in the view.
_OWN_PLACE = ("masks", "columns", "key", "cast")


class TablePicker(View):
    """Choose tables, masks and modes; nothing is written before `save`."""

    _esm = read_source("dom.js", "table_picker.js")

    def __init__(self, pipeline: Pipeline | str | Path = "headwater.yml") -> None:
        """`pipeline` is a pipeline file, or a `Pipeline` opened from one, which is read again after a save.

        A source that cannot be asked is shown in the widget, with what to do.
        """
        self._path = find_file(pipeline)
        self._pipeline = pipeline if isinstance(pipeline, Pipeline) else None
        self._draft: Draft | None = None
        self._infos: list[TableInfo] = []
        self._index: dict[TableId, int] = {}
        self._problem: HeadwaterError | None = None
        self._trying = Trying(self._tell_tried)
        super().__init__()
        self.reload()

    @property
    def chosen(self) -> list[str]:
        """The tables that would be copied, as `schema.table`."""
        return sorted(map(str, self.draft.chosen))

    @property
    def diff(self) -> str:
        """What `save` would change in the file."""
        return self._propose().diff

    @property
    def draft(self) -> Draft:
        """The choice so far; raises what keeps the source or the file from being read."""
        if self._draft is None:
            raise self._problem or ConfigError("the tables are not read yet", hint="picker.reload()")
        return self._draft

    def choose(self, *patterns: str, on: bool = True) -> None:
        """Choose the tables that patterns fit, or with `on=False` leave them out."""
        parsed = [parse_pattern(p) for p in patterns]
        self.draft.choose([t for t in self._index if any(p.fits(t) for p in parsed)], on)
        self._tell_all()

    def save(self) -> None:
        """Write the file; raises Conflict when somebody else changed it since it was read."""
        self.draft.save(self._propose())
        if self._pipeline is not None:
            self._pipeline.reload()
        self._tell_all()

    def reload(self) -> None:
        """Read the file and the source's tables again; unsaved choices are forgotten."""
        self._draft, self._problem = None, None
        try:
            file = PipelineFile(self._path)
            with Pipeline(file.check()) as pipeline:
                self._infos = sorted(pipeline.tables(), key=lambda i: i.schema.table)
            self._index = {info.schema.table: n for n, info in enumerate(self._infos)}
            self._draft = Draft(file, [i.schema.table for i in self._infos if not i.note])
        except HeadwaterError as failed:
            self._problem = failed
        self._tell_all()

    def close(self) -> None:
        """Let go."""
        self._trying.close()
        super().close()

    def verbs(self) -> Mapping[str, Verb]:
        """What the browser may ask for."""
        return {
            "ready": lambda _: self._tell_all(),
            "reload": lambda _: self.reload(),
            "choose": self._choose,
            "table": lambda said: self._tell_table(int(said["index"])),
            "set": self._set,
            "mask": self._mask,
            "column": self._column,
            "key": self._key,
            "cast": self._cast,
            "try": self._try,
            "reset": self._reset,
            "save": self._save,
        }

    def page(self) -> str:
        """The static HTML."""
        if self._draft is None:
            return pages.problem("Tables", self._problem)
        chosen = sorted(self._draft.chosen)
        marks = self._draft.marks(chosen)
        rows = [self._row(t, *marks.get(t, ("", 0))) for t in chosen[:_SHOWN]]
        said = f"{len(chosen):,} of {len(self._infos):,} tables are copied"
        more = f"and {len(chosen) - _SHOWN:,} more" if len(chosen) > _SHOWN else ""
        head = ("table", "rows", "size", "key", "settings")
        return pages.table("Tables", f"{said} · {self._path.name}", head, rows, more, figures=(1, 2))

    def _row(self, table: TableId, mode: str, masks: int) -> Sequence[str]:
        info = self._infos[self._index[table]]
        rows, taken = info.rows, info.bytes
        settings = [mode] if mode else []
        settings += [f"{masks} masked"] if masks else []
        return (
            str(table),
            "" if rows is None else f"{rows:,}",
            "" if taken is None else size(taken),
            ", ".join(info.schema.key) or "no key",
            ", ".join(settings),
        )

    # What the browser asks for.

    def _choose(self, said: Mapping[str, Any]) -> None:
        tables = [self._infos[int(n)].schema.table for n in said["tables"]]
        self.draft.choose(tables, bool(said["on"]))
        self._tell_draft(tables)

    def _set(self, said: Mapping[str, Any]) -> None:
        table, place, text = self._table(said), [str(p) for p in said["place"]], str(said["text"])
        fields = table_fields()
        value = read_value(find_field(fields, place), text) if text.strip() else None
        if len(place) > 1:
            group = group_of(find_field(fields, place[:1]), self.draft.settings(table).get(place[0]))
            group.pop(place[1], None)
            value = {**group, place[1]: value} if text.strip() else group or None
        self.draft.change(table, place[0], value)
        self._tell_draft([table])

    def _mask(self, said: Mapping[str, Any]) -> None:
        table, column, mask = self._table(said), str(said["column"]), said["mask"]
        masks = {**(self.draft.settings(table).get("masks") or {})}
        masks.pop(column, None)
        if mask:
            masks[column] = {str(mask): int(said["keep"])} if said.get("keep") else str(mask)
        self.draft.change(table, "masks", masks or None)
        self._tell_draft([table])

    def _column(self, said: Mapping[str, Any]) -> None:
        table = self._table(said)
        names = [c.source_name for c in self._columns(table)]
        columns = self.draft.settings(table).get("columns") or []
        made = toggle_column(columns, str(said["column"]), on=bool(said["on"]), names=names)
        self.draft.change(table, "columns", made or None)
        self._tell_draft([table])

    def _key(self, said: Mapping[str, Any]) -> None:
        """Take a column into the key, or out of it; the source's own key needs no words."""
        table, name = self._table(said), str(said["column"])
        own = self._own_key(table)
        key = [c for c in self.draft.settings(table).get("key") or own if c != name]
        key += [name] if said["on"] else []
        self.draft.change(table, "key", key if key and set(key) != set(own) else None)
        self._tell_draft([table])
        if not key and own:
            self._tell_table(int(said["index"]))

    def _cast(self, said: Mapping[str, Any]) -> None:
        """Give a column another type: in letters, in words, or as `{to: ..., format: ...}`."""
        table, column, text = self._table(said), str(said["column"]), str(said["text"]).strip()
        casts = {**(self.draft.settings(table).get("cast") or {})}
        casts.pop(column, None)
        if text:
            casts[column] = read_value(_CAST, text) if text.startswith("{") else text
            read_cast(casts[column])  # raises for what is no type
        self.draft.change(table, "cast", casts or None)
        self._tell_draft([table])

    def _try(self, said: Mapping[str, Any]) -> None:
        """Say what a partition or a filter would do while it is typed."""
        index, field, text = int(said["index"]), str(said["field"]), str(said["text"])
        table = self._table(said)
        self._trying.attempt(index, field, text, lambda: self.draft.tried(table, TRIED), table)

    def _own_key(self, table: TableId) -> list[str]:
        """The source's own key, under its own names."""
        info = self._infos[self._index[table]]
        return [] if info.schema.key_chosen else self._source_names(info, info.schema.key)

    def _source_names(self, info: TableInfo, columns: Sequence[str]) -> list[str]:
        names = {c.name: c.source_name for c in info.schema.columns}
        return [names[name] for name in columns]

    def _reset(self, _said: Mapping[str, Any]) -> None:
        self.draft.reset()
        self._tell_all()

    def _save(self, _said: Mapping[str, Any]) -> None:
        self.save()
        self.tell("saved", file=self._path.name)

    def _table(self, said: Mapping[str, Any]) -> TableId:
        return self._infos[int(said["index"])].schema.table

    # What the browser is told.

    def _tell_all(self) -> None:
        if self._draft is None:
            said = describe(self._problem or ConfigError("the tables are not read yet"))
            self.tell("problem", message=said.message, hint=said.hint)
            return
        schemas = sorted({i.schema.table.namespace for i in self._infos})
        place = {schema: n for n, schema in enumerate(schemas)}
        tables = [
            [
                place[i.schema.table.namespace],
                i.schema.table.name,
                i.rows,
                i.bytes,
                bool(i.schema.key),
                i.note,
            ]
            for i in self._infos
        ]
        chosen = sorted(self._index[t] for t in self._draft.chosen)
        fields = [f for f in table_fields() if f.name not in _OWN_PLACE]
        # As one text: the kernel looks into every value of a message, and these are many.
        self.tell("tables", file=self._path.name, schemas=schemas, tables=json.dumps(tables), chosen=chosen,
                  fields=describe_fields(fields), masks=_mask_kinds(), types=_types(), tried=list(TRIED),
                  marks=self._marks(None))  # fmt: skip
        self._tell_draft([])

    def _tell_draft(self, tables: Collection[TableId]) -> None:
        diff, wrong, hint = "", "", ""
        try:
            diff = self._propose().diff
        except HeadwaterError as failed:
            wrong, hint = str(failed), failed.hint
        changed = sorted(self._index[t] for t in self.draft.changed)
        note = ""
        if f"+mask_key: {MASK_KEY}" in diff.splitlines():
            note = (
                "The masks need a key. Before the next run: export HEADWATER_MASK_KEY=$(openssl rand -hex 32)"
            )
        self.tell(
            "draft", diff=diff, wrong=wrong, hint=hint, changed=changed, note=note, marks=self._marks(tables)
        )

    def _tell_table(self, index: int) -> None:
        info = self._infos[index]
        table = info.schema.table
        settings = self.draft.settings(table)
        chosen = settings.get("columns") or []
        masks, inherited = settings.get("masks") or {}, self.draft.inherited(table)
        key = set(settings.get("key") or self._source_names(info, info.schema.key))
        casts = settings.get("cast") or {}
        columns = [
            {
                "name": c.source_name,
                "type": c.native or str(c.type),
                "key": c.source_name in key,
                "cast": _typed(casts.get(c.source_name)),
                "on": is_chosen(c.source_name, chosen),
                "mask": _shown(masks.get(c.source_name)),
                "fixed": c.source_name in inherited,
            }
            for c in self._columns(table)
        ]
        fields = [f for f in table_fields() if f.name not in _OWN_PLACE]
        self.tell("table", index=index, note=info.note, columns=columns, values=form_values(fields, settings),
                  key=[printable(k) for k in info.schema.key], object=info.kind)  # fmt: skip

    def _tell_tried(self, index: int, field: str, found: Mapping[str, object]) -> None:
        self.tell("tried", index=index, field=field, **found)

    def _marks(self, tables: Collection[TableId] | None) -> list[list[object]]:
        marks = self.draft.marks(tables)
        missing = [] if tables is None else [t for t in tables if t not in marks]
        found: list[list[object]] = [[self._index[t], mode, masks] for t, (mode, masks) in marks.items()]
        return found + [[self._index[t], "", 0] for t in missing]

    def _columns(self, table: TableId) -> Sequence[Column]:
        schema = self._infos[self._index[table]].schema
        return (*schema.columns, *schema.left_out)

    def _propose(self) -> Proposal:
        """The file as it would be; raises too where the source's columns do not allow it."""
        made = self.draft.propose()
        changed = sorted(self.draft.changed & self.draft.chosen)
        if any(made.config.spec(t).restricts for t in changed):
            plain = {t: TableSchema(t, tuple(replace(c, mask="") for c in self._columns(t)), i.schema.key)
                     for t, i in ((i.schema.table, i) for i in self._infos)}  # fmt: skip
            for problem in find_problems(made.config, plain, changed):
                raise ConfigError(f"{problem.table} {problem.what}", hint=problem.hint)
        return made


def _typed(cast: Any) -> str:
    """A type change as it is typed."""
    return cast if isinstance(cast, str) else write_value(_CAST, cast)


def _types() -> list[str]:
    """What a column can become, to choose from."""
    plain = [t.word for t in TARGETS.values() if not t.takes_format and t.word != "decimal"]
    return [*plain, "decimal(18,2)", "@D(yyyyMMdd)", "@T(yyyyMMddHHmmss)"]


def _mask_kinds() -> list[dict[str, object]]:
    """The masks that `headwater.yml` knows: words, and words with a number."""
    masks = next(f for f in table_fields() if f.name == "masks").each
    assert masks is not None and masks.short is not None
    words = [{"name": w, "says": "", "number": False} for w in masks.short.choices]
    return words + [{"name": f.name, "says": f.says, "number": True} for f in masks.fields]


def _shown(mask: Any) -> list[object]:
    """A mask as [kind, number]."""
    if isinstance(mask, dict):
        ((kind, keep),) = mask.items()
        return [kind, keep]
    return [mask or "", None]
