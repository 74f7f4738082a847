"""Tables chosen one by one, as the entries of `tables:` that say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from headwater.config import Config
from headwater.config.edit import PipelineFile, Proposal
from headwater.config.fields import FILE, Field
from headwater.config.patterns import Pattern, fitting, parse_pattern, quote_table
from headwater.config.rewrite import Doc, same
from headwater.errors import ConfigError
from headwater.model import TableId

#: Settings whose members add up over all entries that fit, and those that the last one gives that says them;
#: all others come from the last entry that fits.
_MERGED = ("masks", "cast", "lake")
_LATEST = ("columns", "key", "where", "initial_where", "partition", "on_cast_error")
_ADDED_UP = _MERGED + _LATEST
#: Masks that need a key, and where the key goes unless the file says so.
_KEYED, MASK_KEY = ("hash", "tokenize"), "env:HEADWATER_MASK_KEY"


def table_fields() -> Sequence[Field]:
    """The fields of one table's settings, as `headwater.yml` knows them now."""
    tables = next(f for f in FILE.fields if f.name == "tables")
    assert tables.item is not None
    return [f for f in tables.item.fields if f.name != "name"]


class Draft:
    """What the user chose so far, over a file that is not touched until `save`."""

    def __init__(self, file: PipelineFile, tables: Sequence[TableId]) -> None:
        """`tables` are those of the source that can be captured."""
        self.file = file
        self._tables = list(tables)
        self._settings: dict[TableId, dict[str, Doc]] = {}
        self._before = self._fitting(_entries(file.doc))
        self._chosen = set(self._before)

    @property
    def chosen(self) -> frozenset[TableId]:
        """The tables that would be copied."""
        return frozenset(self._chosen)

    @property
    def changed(self) -> frozenset[TableId]:
        """The tables that differ from the file."""
        return frozenset(self._chosen ^ self._before) | self._settings.keys()

    def choose(self, tables: Collection[TableId], on: bool) -> None:
        """Choose tables, or leave them out."""
        known = set(tables) & set(self._tables)
        self._chosen = self._chosen | known if on else self._chosen - known

    def change(self, table: TableId, name: str, value: Doc) -> None:
        """Give a table a setting of its own; None takes it away."""
        if name not in {f.name for f in table_fields()}:
            raise ConfigError(f"a table has no setting {name!r}", hint="docs/configuration.md")
        changes = self._settings.setdefault(table, {})
        changes[name] = value
        before = _effective(_entries(self.file.doc), table).get(name)
        if same(before, value) or (before is None and value in ({}, [])):
            del changes[name]
        if not changes:
            del self._settings[table]

    def settings(self, table: TableId) -> Mapping[str, Doc]:
        """What holds for a table by the file and by the changes so far, without the defaults."""
        merged = {**_effective(_entries(self.file.doc), table), **self._settings.get(table, {})}
        return {k: v for k, v in merged.items() if v is not None}

    def marks(self, tables: Collection[TableId] | None = None) -> Mapping[TableId, tuple[str, int]]:
        """Mode and number of masks of the tables (default: all) that have settings of their own."""
        own: dict[TableId, dict[str, Doc]] = defaultdict(dict)
        wanted = set(self._tables if tables is None else tables)
        for entry in _entries(self.file.doc):
            if not isinstance(entry, dict) or len(entry) == 1:
                continue
            exact = _exact(entry)
            fits = {exact} if exact is not None else {t for t in wanted if _fits(entry, t)}
            for table in fits & wanted:
                masks = {**(own[table].get("masks") or {}), **_masks(entry)}
                own[table] = {"mode": entry.get("mode"), "masks": masks}
        for table in self._settings.keys() & wanted:
            own[table] |= {k: v for k, v in self._settings[table].items() if k in ("mode", "masks")}
        return {t: (str(s.get("mode") or ""), len(s.get("masks") or {})) for t, s in own.items()}

    def inherited(self, table: TableId) -> Mapping[str, Doc]:
        """Masks that entries for other tables too give this one: they cannot be taken away here."""
        entries = [e for e in _entries(self.file.doc) if _exact(e) != table and _fits(e, table)]
        return {c: m for e in entries for c, m in _masks(e).items()}

    def reset(self) -> None:
        """Forget every choice that was not saved."""
        self._settings.clear()
        self._chosen = set(self._before)

    def propose(self) -> Proposal:
        """The file that says what was chosen; raises ConfigError where none can."""
        if not self.changed:
            return self.file.propose(self.file.doc)
        entries = self._choose(_entries(self.file.doc))
        for table, changes in self._settings.items():
            if table in self._chosen:
                _settle(entries, table, changes)
        self._refuse_unlike(entries)
        doc = {**self.file.doc, "tables": entries}
        if "mask_key" not in doc and any(map(_needs_key, entries)):
            doc["mask_key"] = MASK_KEY
        return self.file.propose(doc)

    def tried(self, table: TableId, without: Collection[str]) -> Config:
        """The pipeline with a table as it is set here but for some settings; raises ConfigError."""
        settings = {k: v for k, v in self.settings(table).items() if k not in without}
        others = [e for e in _entries(self.file.doc) if _exact(e) != table]
        doc = {**self.file.doc, "tables": [*others, {"name": quote_table(table), **settings}]}
        if "mask_key" not in doc and _needs_key(settings):
            doc["mask_key"] = MASK_KEY
        return self.file.propose(doc).config

    def save(self, proposal: Proposal) -> None:
        """Write the file, and go on from it; raises Conflict when somebody else changed it."""
        self.file.save(proposal)
        self._before = self._fitting(_entries(self.file.doc))
        self.reset()

    def _fitting(self, entries: Sequence[Doc]) -> set[TableId]:
        patterns = list(map(_pattern, entries))
        wanted = fitting([p for p in patterns if not p.leave_out], self._tables)
        return wanted - fitting([p for p in patterns if p.leave_out], self._tables)

    def _choose(self, entries: list[Doc]) -> list[Doc]:
        schemas: dict[str, set[TableId]] = defaultdict(set)
        for table in self._tables:
            schemas[table.namespace].add(table)
        for schema, all_of_it in schemas.items():
            chosen, before = self._chosen & all_of_it, self._before & all_of_it
            if chosen == before:
                continue
            if not chosen:
                entries = _without_schema(entries, schema, all_of_it)
            elif chosen == all_of_it and not before and len(chosen) > 1:
                entries = _with_schema(entries, schema, all_of_it)
            else:
                entries = _some_of_schema(entries, schema, before, chosen)
        return entries

    def _refuse_unlike(self, entries: Sequence[Doc]) -> None:
        """The entries must choose exactly what was chosen."""
        if all(_pattern(e).leave_out for e in entries):
            raise ConfigError("no table is chosen", hint="choose at least one")
        for table in sorted(self._chosen - self._fitting(entries)):
            by = next((p.text for p in map(_pattern, entries) if p.leave_out and p.fits(table)), "")
            raise ConfigError(
                f"{table} is left out by {by!r}, together with others",
                hint="take that line out of `tables` in the file, then choose again",
            )
        for table in sorted(self._fitting(entries) - self._chosen):
            raise ConfigError(f"{table} cannot be left out", hint="edit `tables` in the file")


def _entries(doc: Mapping[str, Doc]) -> list[Doc]:
    found = doc.get("tables", ["*.*"])
    return list(found) if isinstance(found, list) else []


def _pattern(entry: Doc) -> Pattern:
    return parse_pattern(str(entry["name"] if isinstance(entry, dict) else entry))


def _exact(entry: Doc) -> TableId | None:
    pattern = _pattern(entry)
    return None if pattern.leave_out else pattern.exact


def _fits(entry: Doc, table: TableId) -> bool:
    pattern = _pattern(entry)
    return not pattern.leave_out and pattern.fits(table)


def _of_schema(entry: Doc, schema: str) -> bool:
    namespace = _pattern(entry).namespace
    return not namespace.glob and namespace.text == schema


def _all_of(schema: str) -> str:
    return quote_table(TableId(schema, "x")).removesuffix("x") + "*"


def _without_schema(entries: list[Doc], schema: str, tables: Collection[TableId]) -> list[Doc]:
    left = [e for e in entries if _pattern(e).leave_out or not _of_schema(e, schema)]
    still = fitting([p for p in map(_pattern, left) if not p.leave_out], list(tables))
    out = f"!{_all_of(schema)}"
    return [*left, out] if still and out not in left else left


def _with_schema(entries: list[Doc], schema: str, tables: Collection[TableId]) -> list[Doc]:
    left = [e for e in entries if not (_pattern(e).leave_out and _of_schema(e, schema))]
    patterns = [p for p in map(_pattern, left) if not p.leave_out]
    return left if fitting(patterns, list(tables)) == set(tables) else [*left, _all_of(schema)]


def _some_of_schema(
    entries: list[Doc], schema: str, before: Collection[TableId], chosen: Collection[TableId]
) -> list[Doc]:
    """The tables named one by one, or the pattern there is with exclusions: whichever is shorter."""
    edited = _with(_without(entries, set(before) - set(chosen)), set(chosen) - set(before))
    anew = _without_schema(entries, schema, before)
    settings = any(isinstance(e, dict) and e not in anew for e in entries)
    if settings or any(_pattern(e).leave_out and e not in entries for e in anew):
        return edited
    named = _with(anew, chosen)
    return named if len(named) < len(edited) else edited


def _without(entries: list[Doc], tables: Collection[TableId]) -> list[Doc]:
    left = [e for e in entries if _exact(e) not in tables]
    still = fitting([p for p in map(_pattern, left) if not p.leave_out], sorted(tables))
    return [*left, *(f"!{quote_table(t)}" for t in sorted(still))]


def _with(entries: list[Doc], tables: Collection[TableId]) -> list[Doc]:
    left = [e for e in entries if not (_pattern(e).leave_out and _pattern(e).exact in tables)]
    there = fitting([p for p in map(_pattern, left) if not p.leave_out], sorted(tables))
    return [*left, *(quote_table(t) for t in sorted(set(tables) - there))]


def _effective(entries: Sequence[Doc], table: TableId) -> dict[str, Doc]:
    """The settings that the entries give a table, as `Config.spec` reads them."""
    fits = [e for e in entries if isinstance(e, dict) and len(e) > 1 and _fits(e, table)]
    made = {k: v for k, v in fits[-1].items() if k != "name" and k not in _ADDED_UP} if fits else {}
    merged = {name: {k: v for e in fits for k, v in _members(e, name).items()} for name in _MERGED}
    latest = {name: next((e[name] for e in reversed(fits) if e.get(name)), None) for name in _LATEST}
    return made | {name: value for name, value in {**latest, **merged}.items() if value}


def _settle(entries: list[Doc], table: TableId, changes: Mapping[str, Doc]) -> None:
    """Write a table's changes into its own entry; into a new last one where a later pattern would win."""
    own = next((n for n, e in enumerate(entries) if _exact(e) == table), None)
    wins = [n for n, e in enumerate(entries) if isinstance(e, dict) and len(e) > 1 and _fits(e, table)]
    there = entries[own] if own is not None else None
    if own is not None and (not wins or wins[-1] <= own):
        base = dict(there) if isinstance(there, dict) else {"name": there}
        if not isinstance(there, dict) and wins:
            base |= _inheritable(entries[wins[-1]])
    else:
        base = {"name": quote_table(table), **(_inheritable(entries[wins[-1]]) if wins else {})}
        base |= {k: v for k, v in there.items() if k in _ADDED_UP} if isinstance(there, dict) else {}
        if own is not None:
            del entries[own]
        entries.append(base)
        own = len(entries) - 1
    made = {**base, **changes}
    made["masks"] = _own_masks(entries, own, table, made.get("masks"))
    made = {k: v for k, v in made.items() if v is not None and v not in ({}, [])}
    entries[own] = made["name"] if len(made) == 1 else made


def _inheritable(entry: Doc) -> dict[str, Doc]:
    return {k: v for k, v in entry.items() if k != "name" and k not in _ADDED_UP}


def _own_masks(entries: Sequence[Doc], own: int, table: TableId, masks: Doc) -> Doc:
    """The masks without those that an earlier entry gives the table anyway."""
    earlier = _effective(entries[:own], table).get("masks", {})
    own_ones = {c: "null" if m is None else m for c, m in (masks or {}).items()}
    left = {c: m for c, m in own_ones.items() if c not in earlier or not same(earlier[c], m)}
    return {c: None if m == "null" else m for c, m in left.items()}


def _members(entry: Doc, name: str) -> dict[str, Doc]:
    """An entry's members of one setting, masks with `null` as a word."""
    if name == "masks":
        return _masks(entry)
    found = entry.get(name)
    return found if isinstance(found, dict) else {}


def _masks(entry: Doc) -> dict[str, Doc]:
    """An entry's masks by column; YAML reads the mask `null` as nothing."""
    found = entry.get("masks") if isinstance(entry, dict) else None
    return {str(c): "null" if m is None else m for c, m in found.items()} if isinstance(found, dict) else {}


def _needs_key(entry: Doc) -> bool:
    return any(m in _KEYED for m in _masks(entry).values() if isinstance(m, str))
