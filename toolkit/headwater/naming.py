"""Names that are safe in paths, Parquet, Delta and SQL, and never collide. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from headwater.model import TableId

_PATH_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_PLAIN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LOOKS_HASHED = re.compile(r".*_[0-9a-f]{8}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PATH_LIMIT = 100
_LONGEST = 63
_SCHEMA_KEPT = 16


def path_part(name: str) -> str:
    """One path component for any name, injective: bytes outside [a-z0-9_-] become ~xx, long names get a hash.

    `~` needs no escape in a URL, unlike `%`, which Delta paths and object stores decode again.
    """
    text = "".join(chr(b) if b in _PATH_SAFE else f"~{b:02x}" for b in name.encode("utf-8", "surrogatepass"))
    if len(text) > _PATH_LIMIT:
        text = f"{text[: _PATH_LIMIT - 34]}~~{_digest(name, 32)}"
    return text


def table_path(table: TableId) -> str:
    """The folder name of a table: namespace and name, joined by the one dot."""
    return f"{path_part(table.namespace) or '~'}.{path_part(table.name) or '~'}"


def lake_folder(table: TableId) -> str:
    """The folder of a table's Delta tables under the store."""
    return f"lake/{table_path(table)}"


def relation_name(*parts: str) -> str:
    """A plain lower-case SQL and dbt name ([a-z0-9_]) for the parts; plain parts stay readable, injective."""
    plain = all(_PLAIN.fullmatch(p) and not _LOOKS_HASHED.fullmatch(p) for p in parts)
    text = "__".join(parts)
    if plain and len(text) <= 50:
        return text
    cleaned = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:41].strip("_")
    return f"{cleaned or 'x'}_{_digest(chr(0).join(parts), 8)}"


def warehouse_name(table: TableId, template: str, case: str) -> str:
    """What a relation is called by the user's rules: `<schema>` and `<table>` of `template` filled in.

    case   "unique": capitals get a hash, as in `relation_name`; "lower", "upper", "keep": they do not, so
           that two tables may come to one name, which the caller has to refuse
    Letters beyond [A-Za-z0-9_] always get a hash. At most 63 characters, where every warehouse still reads
    all of a name.
    """
    plain = _PLAIN if case == "unique" else _WORD
    schema, name = (_spelt(part, plain) for part in (table.namespace, table.name))
    excess = len(template.replace("<schema>", schema).replace("<table>", name)) - _LONGEST
    if excess > 0:
        schema, cut = schema[:_SCHEMA_KEPT], len(schema) - len(schema[:_SCHEMA_KEPT])
        kept = len(name) - (excess - (cut if "<schema>" in template else 0)) - 9
        name = f"{name[: max(kept, 1)]}_{_digest(chr(0).join((table.namespace, table.name)), 8)}"
    text = template.replace("<schema>", schema).replace("<table>", name)
    return {"upper": text.upper(), "keep": text}.get(case, text.lower())


def _spelt(part: str, plain: re.Pattern[str]) -> str:
    if plain.fullmatch(part) and not _LOOKS_HASHED.fullmatch(part.lower()):
        return part
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", part)[:41].strip("_")
    return f"{cleaned or 'x'}_{_digest(part, 8)}"


def column_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names columns get in files, one for each, in order.

    A name of letters, digits and underscores is kept as it is, unless it starts with `_hw_` or another column
    differs from it only in case (DuckDB would take them for one): then, and for every other name, the unsafe
    characters become `_` and a hash of the true name is appended.
    """
    folded = Counter(n.casefold() for n in names)

    def pick(name: str) -> str:
        safe = re.fullmatch(r"\w+", name) is not None and not name.casefold().startswith("_hw_")
        unique = folded[name.casefold()] == 1 or name == name.casefold()
        if safe and unique and not _LOOKS_HASHED.fullmatch(name.casefold()):
            return name
        cleaned = re.sub(r"\W+", "_", name).strip("_")
        if cleaned.casefold().startswith("hw_"):
            cleaned = "x_" + cleaned
        return f"{cleaned[:50] or 'x'}_{_digest(name, 8)}"

    return tuple(pick(n) for n in names)


def _digest(text: str, size: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:size]
