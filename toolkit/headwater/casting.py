"""What the casts of a pipeline mean for its steps: what cannot be cast, folded again, or compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from headwater.casts import arrow_type
from headwater.config import TableSpec
from headwater.deliver import Parts
from headwater.errors import SchemaConflict
from headwater.fold import retyped
from headwater.model import TableId, TableInfo, TableSchema
from headwater.quarantine import changed_rules
from headwater.quarantine.problems import Problem, find_problems
from headwater.quarantine.rows import is_recast, waiting_keys
from headwater.refresh.review import find_moved, refuse_casts
from headwater.verify import Apart


def cast_problems(parts: Parts, infos: Iterable[TableInfo], tables: Sequence[TableId]) -> Sequence[Problem]:
    """Casts that cannot be made. A column that went from the source is still one of what was stored."""
    config = parts.config
    if not any(spec.casts for spec in config.overrides.values()):
        return []
    state = parts.log.tables()
    schemas = {
        i.schema.table: _with_gone(parts, i.schema) if i.schema.table in state else i.schema for i in infos
    }
    return find_problems(config, schemas, tables)


def stale_casts(parts: Parts, infos: Iterable[TableInfo], tables: Sequence[TableId]) -> Sequence[Problem]:
    """Casts that name a column as it was called before: the table stops with its next change."""
    state, wanted, found = parts.log.tables(), set(tables), list[Problem]()
    for info in infos:
        table = info.schema.table
        spec = parts.config.spec(table) if table in state and table in wanted else None
        if spec is not None and spec.casts:
            try:
                _refuse_stale(parts, spec, info.schema)
            except SchemaConflict as refused:
                found.append(Problem(table, str(refused), refused.hint))
    return found


def _refuse_stale(parts: Parts, spec: TableSpec, newest: TableSchema) -> None:
    held = parts.lake.open(spec.table, "changes")
    if held is None:
        return
    refuse_casts(spec, [held.schema], newest)
    changed = changed_rules(spec, held, recast=is_recast(parts.lake, spec))
    if moved := find_moved(spec, held.schema, changed, newest):
        raise moved


def _with_gone(parts: Parts, schema: TableSchema) -> TableSchema:
    casts = parts.config.spec(schema.table).casts
    held = parts.lake.schema(schema.table, "changes") if casts else None
    names = {c.name for c in schema.columns}
    gone = [c for c in held.columns if c.name not in names and c.source_name in casts] if held else []
    fitting = [replace(c, type=arrow_type(casts[c.source_name])) for c in gone]
    return replace(schema, columns=(*schema.columns, *fitting))


def recast(parts: Parts, tables: Sequence[TableId]) -> Sequence[str]:
    """What to say of tables that are folded again."""
    found = [t for t in tables if is_recast(parts.lake, parts.config.spec(t))]
    return [f"{t} is folded again from the raw log: its casts changed" for t in found]


def apart(parts: Parts, schema: TableSchema) -> Apart:
    """What of a table cannot be compared with the source."""
    casts = parts.config.spec(schema.table).casts
    if not casts:
        return Apart()
    changed = zip(schema.columns, retyped(schema, casts).columns, strict=True)
    columns = frozenset(before.name for before, after in changed if before.type != after.type)
    return Apart(columns, *waiting_keys(parts.lake, schema))
