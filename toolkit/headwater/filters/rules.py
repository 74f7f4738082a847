"""What the configuration chooses of a table's rows, what its schema says then, what is refused. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from headwater.config import TableSpec
from headwater.errors import ConfigError
from headwater.filters.sql import columns_of, compile_predicate
from headwater.model import EACH_RUN, SKIPPED, TableId, TableInfo, TableSchema
from headwater.predicate import parse_predicate


@dataclass(frozen=True, slots=True)
class Problem:
    """A setting that cannot be followed or has a price, and what to do."""

    table: TableId
    what: str
    hint: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Bound:
    """A filter that fits a schema: SQL, and the columns it looks at."""

    condition: str
    columns: tuple[str, ...]


def bind(texts: Sequence[str], schema: TableSchema) -> Bound | None:
    """The filters, all of which must hold, over rows of a schema; None for none. Raises ConfigError."""
    parsed = [parse_predicate(text) for text in texts if text]
    if not parsed:
        return None
    conditions = [compile_predicate(one, schema) for one in parsed]
    names = {name for one in parsed for name in columns_of(one, schema)}
    return Bound(" AND ".join(f"({c})" for c in conditions), tuple(sorted(names)))


def is_logged(info: TableInfo, spec: TableSpec) -> bool:
    """Whether changes of a table are followed."""
    return info.logged and spec.deltas


def choose(info: TableInfo, spec: TableSpec, *, asked: bool) -> TableInfo:
    """A table as it is copied. What has no log can be, where that is asked for: whole, with each run."""
    logged = is_logged(info, spec)
    loaded = SKIPPED if spec.skip_load else loaded_by(spec, logged=logged)
    schema = replace(info.schema, where=written(spec.where, spec), loaded=loaded)
    if logged or not asked or not info.schema.columns:
        return replace(info, schema=schema) if logged else info
    return replace(info, schema=schema, logged=False, note="")


def loaded_by(spec: TableSpec, *, logged: bool) -> str:
    """What a full load that is not skipped leaves out, as schemas tell it."""
    return written(spec.initial_where, spec) if logged else EACH_RUN


def written(text: str, spec: TableSpec) -> str:
    """A filter as schemas tell it; a digest where it names a column that is masked."""
    if not text or not any(name.name in spec.masks for name in parse_predicate(text).names()):
        return text
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:32]}"


def is_stale(before: TableSchema, now: TableSchema) -> bool:
    """Whether the rows stored under a schema are others than the ones chosen now.

    A table of which everything was loaded needs no other load because the next one would read less.
    """
    return before.where != now.where or (bool(before.loaded) and before.loaded != now.loaded)


def find_problems(info: TableInfo, spec: TableSpec) -> Iterator[Problem]:
    """What is wrong with the filters of a table."""
    table, texts = info.schema.table, (spec.where, spec.initial_where)
    try:
        bind(texts, info.schema)
    except ConfigError as failed:
        yield Problem(table, str(failed), failed.hint)
        return
    if not is_logged(info, spec) or not (any(texts) or spec.skip_load):
        return
    if not info.schema.key and (spec.initial_where or spec.skip_load):
        yield Problem(
            table, "has no key, so that changes of rows that were not loaded cannot be told from others",
            "key: [...]   in the table's settings",
        )  # fmt: skip
    yield from _find_omitted(info, spec)


def _find_omitted(info: TableInfo, spec: TableSpec) -> Iterator[Problem]:
    """Values that the log leaves out, where the row that has them may not be in the copy."""
    looked_at = {n.name for n in parse_predicate(spec.where).names()} if spec.where else set()
    unseen, others = sorted(looked_at & info.omits), sorted(info.omits - looked_at)
    again = "the table is read again then" if spec.where and not spec.initial_where else ""
    again = again if again and not spec.skip_load else "the table stops then"
    said = []
    if unseen:
        said.append(f"{', '.join(unseen)}, which `where` looks at: the table is read again then")
    if others:
        said.append(f"{', '.join(others[:5])} of a row that is not in the copy yet: {again}")
    for what in said:
        yield Problem(
            info.schema.table, f"an update may leave out, if it is long and unchanged, {what}",
            f"ALTER TABLE {quote_sql(info.schema.table)} REPLICA IDENTITY FULL;", fatal=False,
        )  # fmt: skip


def quote_sql(table: TableId) -> str:
    """A table's name in SQL."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (table.namespace, table.name))
