"""What is wrong with the type changes that a pipeline file names, compared with the tables of the source."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headwater.canonical import quote
from headwater.casts import Cast, arrow_type, cast_sql
from headwater.config import Config, TableSpec, parse_pattern
from headwater.errors import ConfigError
from headwater.model import Column, TableId, TableSchema


@dataclass(frozen=True, slots=True)
class Problem:
    """A type change that cannot be made: what is wrong, with the file's line, and what to write instead."""

    table: TableId
    what: str
    hint: str


def find_problems(
    config: Config, schemas: Mapping[TableId, TableSchema], tables: Sequence[TableId]
) -> list[Problem]:
    """What is wrong with the casts of `tables`; `schemas` are those of the source, as they are stored.

    A column that the source does not have any more may be one of what was stored: then `schemas` has it.
    """
    found = []
    for table in tables:
        spec = config.spec(table)
        if spec.casts and table in schemas:
            found += list(_of_table(schemas[table], spec))
    for text, spec in config.overrides.items():
        fitting = [s for t, s in schemas.items() if parse_pattern(text).fits(t) and t in set(tables)]
        for name in spec.casts if fitting else ():
            if not any(name in _names(s) for s in fitting):
                found.append(_unknown(fitting, name, spec))
    return found


def _of_table(schema: TableSchema, spec: TableSpec) -> Iterator[Problem]:
    columns = {c.source_name: c for c in schema.columns}
    for name, cast in spec.casts.items():
        line = spec.cast_lines.get(name, "")
        where = f"{line}: " if line else ""
        left_out = any(c.source_name == name for c in schema.left_out)
        found = columns.get(name)
        if left_out or (found is not None and found.mask):
            what = f"{where}the column {name} cannot be cast: it is {'left out' if left_out else 'masked'}"
            yield Problem(schema.table, what, f"take {name} out of `cast`, or its mask out of `masks`")
        elif found is not None and found.name in schema.key:
            what = (
                f"{where}the key column {name} cannot be cast: '0012' and '12' would become one row,"
                " and one that does not fit could not be told from others"
            )
            yield Problem(schema.table, what, f"take {name} out of `cast`; a view or a model can cast it")
        elif found is not None:
            yield from _unfit(schema, found, cast, where)


def _unfit(schema: TableSchema, column: Column, cast: Cast, where: str) -> Iterator[Problem]:
    if column.type == arrow_type(cast) and cast.to != "hex":
        return
    try:
        cast_sql(cast, column.type, quote(column.name))
    except ConfigError as failed:
        name, native = column.source_name, column.native or str(column.type)
        yield Problem(schema.table, f"{where}the column {name} is {native}: {failed}", failed.hint)


def _unknown(fitting: Sequence[TableSchema], name: str, spec: TableSpec) -> Problem:
    line = spec.cast_lines.get(name, "")
    names = sorted({n for s in fitting for n in _names(s)})
    near = difflib.get_close_matches(name.lower(), {n.lower(): n for n in names}, n=1, cutoff=0.6)
    spelt = {n.lower(): n for n in names}
    hint = f"did you mean {spelt[near[0]]}?" if near else "one of: " + ", ".join(names[:20])
    what = f"{line + ': ' if line else ''}there is no column {name}, which its casts name"
    return Problem(fitting[0].table, what, hint)


def _names(schema: TableSchema) -> set[str]:
    return {c.source_name for c in (*schema.columns, *schema.left_out)}
