"""What a table's policies let into the lake: a change that they do not stops the table, and no other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence, Set

from headwater.columns import ident
from headwater.config import TableSpec, quote_table
from headwater.differences import differences
from headwater.errors import SchemaConflict, SchemaRefused
from headwater.growth import RETYPED
from headwater.model import TableId, TableSchema
from headwater.refresh.parts import read_again


def refuse_columns(spec: TableSpec, before: TableSchema, seen: TableSchema, grown: TableSchema) -> None:
    """Raise SchemaRefused for columns that `schema: freeze` or `discard` keeps out.

    before, grown   the lake's schema without and with those of the raw log's `seen`
    """
    changes = [d for d in differences(before, seen) if d.what not in ("nullable", "masked")]
    if spec.policies.schema == "discard":
        retyped = {c.source_name for c in grown.columns if c.retired == RETYPED}
        retyped -= {c.source_name for c in before.columns if c.retired == RETYPED}
        changes = [
            d
            for d in changes
            if d.what in ("renamed", "key") or (d.what == "retyped" and d.column in retyped)
        ]
    if changes:
        said = "; ".join(d.says for d in changes)
        raise SchemaRefused(
            f"{spec.table}: {said} (schema: {spec.policies.schema})", hint=accept_command(spec.table)
        )


def refuse_casts(spec: TableSpec, known: Sequence[TableSchema], newest: TableSchema) -> None:
    """Raise SchemaConflict for a cast that names a column as it was called before: its rule would be lost."""
    names = {c.origin: c.source_name for c in newest.columns if c.origin}
    taken = {*names.values(), *(c.source_name for c in newest.columns)}
    for column in (c for schema in known for c in schema.columns if c.source_name in spec.casts):
        now = names.get(column.origin)
        if now and now not in spec.casts and column.source_name not in taken:
            line = spec.cast_lines.get(column.source_name, "")
            raise SchemaConflict(
                f"{line + ': ' if line else ''}{spec.table}: the column {column.source_name}, which its casts"
                f" name, is called {now} now",
                hint=f"name {now} in the table's `cast`, then: headwater run",
            )


def find_moved(
    spec: TableSpec, before: TableSchema, changed: Set[str], newest: TableSchema
) -> SchemaConflict | None:
    """The error for a column that another cast has since it is called otherwise; None where there is none.

    Names were swapped, or a column took the name of one that is cast. `changed`: the names whose
    cast is not as it was (`quarantine.changed_rules`): who changed it since knows what it is for.
    """
    names = {c.origin: c.source_name for c in newest.columns if c.origin}
    for column in (c for c in before.columns if not c.retired):
        was, now = column.source_name, names.get(column.origin)
        if now is None or now == was or not changed.isdisjoint((was, now)):
            continue  # it is called as before, gone, or was looked after
        given_up = now not in spec.casts and was not in {c.source_name for c in newest.columns}
        if spec.casts.get(was) != spec.casts.get(now) and not given_up:  # that is for `refuse_casts` to say
            line = spec.cast_lines.get(now) or spec.cast_lines.get(was, "")
            where = f"{line}: {spec.table}" if line else f"{spec.table}"
            return SchemaConflict(
                f"{where}: the column {was} is called {now} now, and its casts are as they were",
                hint="name the columns in the table's `cast` as they are called now, then: headwater run; or,"
                f" if they are right as they are: {accept_command(spec.table)}",
            )
    return None


def refuse_left_out(spec: TableSpec, before: TableSchema, grown: TableSchema) -> None:
    """Raise for columns that were discarded: rows that came meanwhile have them only at the source."""
    marks = {ident(c) for c in before.columns}
    fresh = {c.origin or c.name for c in grown.columns if ident(c) not in marks and not c.retired}
    late = [c.source_name for c in before.left_out if (c.origin or c.name) in fresh]
    if late:
        raise SchemaConflict(
            f"{spec.table}: {', '.join(late)} was discarded until now", hint=read_again(spec.table)
        )


def refuse_truncate(spec: TableSpec) -> SchemaRefused:
    """The error for a truncate under `on_truncate: fail`."""
    return SchemaRefused(
        f"{spec.table}: was truncated at the source (on_truncate: fail)", hint=accept_command(spec.table)
    )


def accept_command(table: TableId) -> str:
    """The hint where a person has to say yes."""
    return f"headwater schema accept {shlex.quote(quote_table(table))}"
