"""What `check` and `status` tell of published views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from headwater.config import Config, TableSpec
from headwater.errors import HeadwaterError
from headwater.fold import retyped
from headwater.formats import Formats, kinds, refuse
from headwater.lake.delta import Lake
from headwater.model import Finding, TableSchema


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """Where a published view stands; entry -1 before the first time."""

    format: str
    kind: str
    entry: int
    lake_entry: int
    rows: int
    pointer: str


def check_formats(config: Config, schemas: Sequence[TableSchema]) -> Iterator[Finding]:
    """What the published formats of tables cannot hold of their columns, as these are cast."""
    if config.glue is not None and not config.publishes:
        found = "no table has a format that is registered there"
        yield Finding("warn", "lake.glue", found, "lake: {format: iceberg, glue: {database: ...}}")
    for schema in schemas:
        spec = config.spec(schema.table)
        if not spec.formats:
            continue
        finding = Finding("ok", "format", ", ".join(("delta", *spec.formats)), table=schema.table)
        try:
            refuse(spec, retyped(schema, spec.casts), registered=config.glue is not None)
        except HeadwaterError as failed:
            finding = replace(finding, level="fail", found=str(failed), fix=failed.hint)
        yield finding


def standing(formats: Formats, lake: Lake, spec: TableSpec) -> Sequence[ViewStatus]:
    """Where each view of a table stands, beside the lake table that it follows."""
    if not spec.formats:
        return ()
    there = {(s.target.view, s.target.kind): s for s in formats.shown(spec)}
    rows = []
    for view, kind in ((v, k) for v in spec.formats for k in kinds(spec)):
        mark, shown = lake.mark(spec.table, kind), there.get((view, kind))
        if mark is not None and shown is None:
            rows.append(ViewStatus(view, kind, -1, mark.seq, 0, ""))
        elif mark is not None and shown is not None:
            rows.append(ViewStatus(view, kind, shown.mark.seq, mark.seq, shown.rows, shown.pointer))
    return rows
