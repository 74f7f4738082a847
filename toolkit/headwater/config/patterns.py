"""Which tables: patterns over `schema.table`, case-sensitive; quotes for names that hold dots or stars."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from headwater.errors import ConfigError
from headwater.model import TableId

_WILD = frozenset("*?[")
_PLAIN = re.compile(r'[^\s."*?\[\]!]+')
_COLUMN = re.compile(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<glob>[^"]+)')
_PART = re.compile(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<glob>[^."]+)')


@dataclass(frozen=True, slots=True)
class Part:
    """One side of the dot: a name as it is, or a glob (`*`, `?`, `[a-z]`)."""

    text: str
    glob: bool

    def fits(self, name: str) -> bool:
        """Whether a name is meant."""
        return fnmatch.fnmatchcase(name, self.text) if self.glob else name == self.text


@dataclass(frozen=True, slots=True)
class Pattern:
    """One entry of `tables:`."""

    namespace: Part
    name: Part
    leave_out: bool
    text: str

    @property
    def exact(self) -> TableId | None:
        """The one table it can mean, if it has no wildcard."""
        if self.namespace.glob or self.name.glob:
            return None
        return TableId(self.namespace.text, self.name.text)

    def fits(self, table: TableId) -> bool:
        """Whether a table is meant."""
        return self.name.fits(table.name) and self.namespace.fits(table.namespace)


@lru_cache(maxsize=1 << 15)
def parse_pattern(text: str) -> Pattern:
    """Read `schema.table`, `public.*`, `"odd.name".t`, `!public.audit_*`; raises ConfigError."""
    leave_out = text.startswith("!")
    rest = text[leave_out:].strip()
    if rest == "*":
        rest = "*.*"
    first = _PART.match(rest)
    second = (
        _PART.fullmatch(rest, first.end() + 1)
        if first and rest[first.end() : first.end() + 1] == "."
        else None
    )
    if first is None or second is None:
        raise ConfigError(f"{text!r} does not name tables", hint=_advice(rest))
    return Pattern(_part(first), _part(second), leave_out, text)


def parse_column(text: str) -> tuple[Part, bool]:
    """Read `name`, `secret_*`, `"odd*name"`, `!name`: what it fits, and whether that is left out."""
    leave_out = text.startswith("!")
    found = _COLUMN.fullmatch(text[leave_out:].strip())
    if found is None:
        raise ConfigError(f"{text!r} does not name columns", hint='columns: ["*", "!internal_*"]')
    return _part(found), leave_out


def is_chosen(name: str, columns: Sequence[str]) -> bool:
    """Whether a column is copied: some entry fits it and no `!` entry does; without entries all are."""
    parsed = [parse_column(text) for text in columns]
    wanted = [part for part, leave_out in parsed if not leave_out]
    if any(part.fits(name) for part, leave_out in parsed if leave_out):
        return False
    return not wanted or any(part.fits(name) for part in wanted)


def toggle_column(columns: Sequence[str], name: str, *, on: bool, names: Sequence[str]) -> list[str]:
    """The entries with one column chosen, or left out, and the others of `names` as before; [] for all."""
    exact = [(text, *parse_column(text)) for text in columns]
    alike = {text for text, part, out in exact if not part.glob and part.text == name and out == on}
    made = [text for text in columns if text not in alike]
    if is_chosen(name, made) != on:
        made.append(quote_column(name) if on else f"!{quote_column(name)}")
    wanted = {n for n in names if is_chosen(n, columns) and n != name} | ({name} if on else set())
    if not made or {n for n in names if is_chosen(n, made)} != wanted:
        # A glob stands in the way, or it was the last entry of a list: leave out by name instead.
        made = ["*", *(f"!{quote_column(n)}" for n in names if n not in wanted)]
    return [] if all(is_chosen(n, made) for n in names) and made in (["*"], []) else made


def quote_column(name: str) -> str:
    """The entry of `columns` that means exactly this column, quoted only where it must be."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def quote_table(table: TableId) -> str:
    """The pattern that means exactly this table, quoted only where it must be."""
    return f"{_quote(table.namespace)}.{_quote(table.name)}"


def select(patterns: Sequence[str], tables: Sequence[TableId]) -> list[TableId]:
    """The tables that some pattern fits and no `!` pattern fits, in the order given.

    Raises ConfigError for a pattern that fits nothing. An exclusion by wildcard may fit nothing; an exclusion
    by name may not, because a misspelt one would let the table through.
    """
    parsed = [parse_pattern(p) for p in patterns]
    known = frozenset(tables)
    for pattern in parsed:
        if not _fits_some(pattern, known, tables):
            raise ConfigError(f"{pattern.text!r} fits no table of the source", hint=_near(pattern, tables))
    wanted = fitting([p for p in parsed if not p.leave_out], tables)
    unwanted = fitting([p for p in parsed if p.leave_out], tables)
    picked = [t for t in tables if t in wanted and t not in unwanted]
    if not picked:
        raise ConfigError(
            "the patterns leave no table", hint="headwater tables   (shows what the source has)"
        )
    return picked


def _fits_some(pattern: Pattern, known: frozenset[TableId], tables: Sequence[TableId]) -> bool:
    if pattern.exact is not None:
        return pattern.exact in known
    return pattern.leave_out or any(pattern.fits(t) for t in tables)


def fitting(patterns: Sequence[Pattern], tables: Sequence[TableId]) -> set[TableId]:
    """The tables that some pattern fits, exclusions taken as patterns like the others."""
    # Names without wildcards are looked up, so that 10,000 of them over 10,000 tables stay cheap.
    exact = {p.exact for p in patterns if p.exact is not None}
    globs = [p for p in patterns if p.exact is None]
    return {t for t in tables if t in exact or any(p.fits(t) for p in globs)}


def _part(found: re.Match[str]) -> Part:
    quoted = found["quoted"]
    if quoted is not None:
        return Part(quoted.replace('""', '"'), glob=False)
    return Part(found["glob"], glob=not _WILD.isdisjoint(found["glob"]))


def _quote(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _advice(rest: str) -> str:
    if "." not in rest and rest:
        return f"write schema.table, for example public.{rest}"
    return 'write schema.table; put a name that holds a dot in double quotes: "odd.name".orders'


def _near(pattern: Pattern, tables: Sequence[TableId]) -> str:
    if not tables:
        return "the role sees no table at all: grant it USAGE on the schema and SELECT on the tables"
    target = f"{pattern.namespace.text}.{pattern.name.text}"
    spelt: dict[str, list[TableId]] = {}
    for table in tables:
        spelt.setdefault(str(table).lower(), []).append(table)
    near = difflib.get_close_matches(target.lower(), spelt, n=3, cutoff=0.7)
    if near:
        found = [table for name in near for table in spelt[name]][:3]
        return "did you mean " + " or ".join(map(quote_table, found)) + "?"
    schemas = sorted({t.namespace for t in tables})
    return (
        "schemas with tables: "
        + ", ".join(_quote(s) for s in schemas[:8])
        + "   (headwater tables shows all)"
    )
