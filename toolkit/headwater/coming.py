"""What the next run would find changed: tables that are gone, columns, and the dbt files that follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headwater import config as configuration
from headwater.config import Config, TableSpec
from headwater.deliver import Parts
from headwater.errors import SchemaRefused
from headwater.growth import grow
from headwater.handoff.dbt import diff, table_models
from headwater.lake import Staged
from headwater.model import Mark, TableId, TableInfo, TableSchema
from headwater.refresh.review import accept_command


@dataclass(frozen=True, slots=True)
class Gone:
    """A captured table that is not what it was: dropped, renamed, or dropped and made again (`now` says)."""

    table: TableId
    now: TableId | None

    @property
    def says(self) -> str:
        """In one line."""
        if self.now == self.table:
            return f"{self.table} was dropped at the source and made again"
        if self.now is not None:
            return f"{self.table} was renamed to {self.now} at the source"
        return f"{self.table} was dropped at the source"


def gone_tables(parts: Parts, infos: Mapping[TableId, TableInfo]) -> list[Gone]:
    """The tables that were followed until now and are gone, by the marks of their columns."""
    state = {t: s for t, s in parts.log.tables().items() if s.followed}
    by_mark = {_mark(info.schema): table for table, info in infos.items()}
    found = []
    for table, known in sorted(state.items()):
        if table in infos and infos[table].schema.fingerprint() == known.schema:
            continue
        mark = _mark(parts.log.schema(table, known.schema))
        if table not in infos:
            found.append(Gone(table, by_mark.get(mark) if mark else None))
        elif mark and _mark(infos[table].schema) not in ("", mark):
            found.append(Gone(table, table))
    return found


def wanted_tables(
    config: Config, infos: Mapping[TableId, TableInfo], gone: Sequence[Gone]
) -> tuple[list[TableId], list[Gone]]:
    """The chosen tables that are there, and those of `gone` that are chosen too."""
    away = [g.table for g in gone if g.table not in infos]
    wanted = configuration.select(config.tables, [*infos, *away])
    return [t for t in wanted if t in infos], [g for g in gone if g.table in wanted]


def refusals(config: Config, gone: Sequence[Gone]) -> Mapping[TableId, SchemaRefused]:
    """Those of the gone tables whose policy is to fail."""
    found = {}
    for each in gone:
        policies = config.spec(each.table).policies
        renamed = each.now is not None and each.now != each.table
        if (policies.on_rename if renamed else policies.on_drop) == "fail":
            how = "on_rename" if renamed else "on_drop"
            found[each.table] = SchemaRefused(f"{each.says} ({how}: fail)", hint=accept_command(each.table))
    return found


def coming_schemas(parts: Parts, tables: Collection[TableId], *, ask: bool) -> Mapping[TableId, TableSchema]:
    """The lake's schemas once all that is logged, and with `ask` what the source has now, is in them."""
    state = {t: s for t, s in parts.log.tables().items() if t in tables}
    known = {t: parts.log.schema(t, s.schema) for t, s in state.items()}
    found = {t: [s] for t, s in known.items()}
    for schema in parts.source.evolved(known) if ask and known else ():
        found[schema.table].append(schema)
    lake = {t: parts.lake.schema(t, "changes") for t in found}
    return {
        t: grow(lake[t], seen, discard=parts.config.spec(t).policies.schema == "discard").schema
        for t, seen in found.items()
        if lake[t] is not None
    }


def dbt_diff(parts: Parts, specs: Mapping[TableId, TableSpec], *, ask: bool) -> list[str]:
    """A unified diff of the generated dbt files, from what is in the project to what would be written."""
    there = [t for t in specs if parts.lake.mark(t, "changes")]
    coming = coming_schemas(parts, there, ask=ask)
    # The files themselves may be far away, and say no more.
    staged = {t: Staged([], schema, -1, Mark(0, 0)) for t, schema in coming.items()}
    return diff(Path(parts.config.dbt.project), table_models(staged, specs), parts.config)


def _mark(schema: TableSchema) -> str:
    """The source's own mark of a table; "" where it has none."""
    marks = {c.origin.partition(".")[0] for c in (*schema.columns, *schema.left_out)}
    return marks.pop() if len(marks) == 1 else ""
