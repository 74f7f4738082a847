"""Settings of a table tried out on some rows of the source, before they are written. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headwater.config import Config, TableSpec
from headwater.deliver import Parts
from headwater.errors import ConfigError
from headwater.fold import retyped
from headwater.lake.placing import place
from headwater.layouts import Preview, cast_rows, first_rows
from headwater.model import ChangeBatch, TableId
from headwater.partition import bind as bind_layout
from headwater.partition import parse
from headwater.predicate import parse_predicate

#: So many rows of a sample are kept, and so many folders shown.
_ROWS, _FOLDERS = 10_000, 5


@dataclass(frozen=True, slots=True)
class Kept:
    """How many of the rows that were looked at a filter copies; `why` says why none could be."""

    kept: int = 0
    looked_at: int = 0
    why: str = ""


def unfiltered(config: Config) -> Config:
    """The same pipeline without filters: what a filter is tried on."""
    plain = {p: replace(spec, where="", initial_where="") for p, spec in config.overrides.items()}
    return replace(config, overrides=plain)


def take_sample(parts: Parts, table: TableId) -> ChangeBatch:
    """Some rows of a table, masked as the pipeline says; ConfigError for a table without rows."""
    known = {i.schema.table: i for i in parts.source.tables()}
    if table not in known or known[table].note:
        raise ConfigError(f"{table} cannot be copied", hint="headwater tables")
    batch = first_rows(parts.source, table)
    return replace(batch, rows=batch.rows.slice(0, _ROWS))


def try_layout(spec: TableSpec, sample: ChangeBatch, text: str) -> Preview:
    """The folders that the rows go to; raises ConfigError that points at the character."""
    import duckdb

    layout = parse(text)
    schema = retyped(sample.schema, spec.casts)
    lints = bind_layout(layout, schema).lints
    tried = replace(spec, partition=layout, partition_at="")
    folder = place(tried, schema).folder
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("_hw_first", sample.rows)
        rows = cast_rows(tried, sample.schema)
        found = con.execute(f"SELECT DISTINCT {folder} FROM ({rows})").fetchall()
    folders = sorted(row[0] for row in found)
    count = f"{len(folders):,} folders for {sample.rows.num_rows:,} rows" if len(folders) > _FOLDERS else ""
    return Preview(tuple(folders[:_FOLDERS]), tuple(filter(None, (*lints, count))))


def try_filter(sample: ChangeBatch, text: str) -> Kept:
    """How many of the rows a filter copies; raises ConfigError that points at the character."""
    import pyarrow.compute as pc

    from headwater.filters.rows import Engine
    from headwater.filters.rules import bind

    bound = bind([text], sample.schema)
    if bound is None:
        return Kept()
    masked = _masked(sample, [name.name for name in parse_predicate(text).names()])
    if masked:
        # What it finds would tell of values that nobody is to see here.
        return Kept(why=f"{', '.join(masked)} is masked, so the filter is not tried here")
    engine = Engine()
    fits = engine.fitting(bound.condition, sample.rows, bound.columns)
    engine.close()
    return Kept(int(pc.sum(fits).as_py() or 0), sample.rows.num_rows)


def _masked(sample: ChangeBatch, names: Sequence[str]) -> list[str]:
    return sorted({c.source_name for c in sample.schema.columns if c.mask and c.source_name in names})
