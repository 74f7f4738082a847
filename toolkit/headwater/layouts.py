"""What `check` and `plan` say of the tables' folders before anything is written: errors, advice, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.columns import cast_from
from headwater.config import Config, TableSpec
from headwater.errors import ConfigError, SourceError
from headwater.fold import retyped
from headwater.fold.retype import cells_of
from headwater.growth import unite
from headwater.lake.placing import Placing, place, placed_anew
from headwater.model import ChangeBatch, Finding, TableId, TableInfo, TableSchema
from headwater.partition import bind
from headwater.quarantine.rows import is_recast

if TYPE_CHECKING:
    from headwater.lake.delta import Lake
    from headwater.sources import Source

#: So many folders are shown, of so many rows looked at.
_SHOWN, _LOOKED_AT = 3, 10_000


@dataclass(frozen=True, slots=True)
class Preview:
    """The folders that some rows of a table go to, and what there is to say of its layout."""

    folders: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


def check_layouts(config: Config, lake: Lake, infos: Sequence[TableInfo]) -> list[Finding]:
    """For each table with folders: what cannot be followed, what to think about, or that all is well."""
    found: list[Finding] = []
    for info in infos:
        spec = config.spec(info.schema.table)
        if spec.partition is None:
            continue
        try:
            schema = _in_lake(spec, lake, info)
            place(spec, schema)
        except ConfigError as failed:
            first, *rest = str(failed).split("\n")
            found.append(_finding("fail", first, "\n".join([*rest, failed.hint]), spec.table))
            continue
        lints = bind(spec.partition, schema).lints
        found += [_finding("warn", lint, "", spec.table) for lint in lints]
        if not lints:
            found.append(_finding("ok", str(spec.partition), "", spec.table))
    return found


def refuse_layouts(config: Config, lake: Lake, infos: Sequence[TableInfo]) -> None:
    """Raise ConfigError for the layout of a table that would be read for the first time, if it cannot be."""
    for info in infos:
        spec = config.spec(info.schema.table)
        if spec.partition is not None and lake.open(spec.table, "changes") is None:
            place(spec, retyped(info.schema, spec.casts))


def look_ahead(spec: TableSpec, lake: Lake, source: Source, info: TableInfo) -> Preview:
    """What a table's layout means for its rows: of the lake, or the first ones of the source."""
    if spec.partition is None:
        moved = _moves(spec, lake, Placing())
        return Preview(says=("its files leave their folders",)) if moved else Preview()
    try:
        schema = _in_lake(spec, lake, info)
        placing = place(spec, schema)
    except ConfigError as failed:
        return Preview(says=(*str(failed).split("\n"), failed.hint))
    says = list(bind(spec.partition, schema).lints)
    if _moves(spec, lake, placing):
        says.append(
            "its files move into these folders: the table is written anew, once, when it is compacted"
        )
    try:
        folders = _examples(spec, lake, source, schema)
    except SourceError as failed:
        return Preview(says=(*says, f"no row can be looked at: {failed}"))
    return Preview(folders, tuple(says))


def _finding(level: str, found: str, fix: str, table: TableId) -> Finding:
    return Finding(level, "partition", found, fix, table)  # type: ignore[arg-type]


def _in_lake(spec: TableSpec, lake: Lake, info: TableInfo) -> TableSchema:
    """The columns as the lake will have them, after their casts."""
    held, fresh = lake.schema(spec.table, "changes"), retyped(info.schema, spec.casts)
    return unite([held, fresh]) if held is not None and not is_recast(lake, spec) else fresh


def _moves(spec: TableSpec, lake: Lake, placing: Placing) -> bool:
    mirror = lake.open(spec.table, "mirror")
    return mirror is not None and placed_anew(mirror, placing)


def _examples(spec: TableSpec, lake: Lake, source: Source, wanted: TableSchema) -> tuple[str, ...]:
    import duckdb

    changes, folder = lake.open(spec.table, "changes"), place(spec, wanted).folder
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        if changes is not None and changes.files.num_rows and not is_recast(lake, spec):
            newest = changes.files["path"].to_pylist()[:1]
            # They may be of before a column came.
            cells = ", ".join(cast_from(changes.schema, wanted))
            rows = f"(SELECT {cells}, _hw_text FROM {lake.scan(changes, newest)} WHERE _hw_op <> 'd')"
        else:
            first = first_rows(source, spec.table)
            con.register("_hw_first", first.rows)
            rows = f"({cast_rows(spec, first.schema)})"
        some = f"(SELECT * FROM {rows} LIMIT {_LOOKED_AT})"
        found = con.execute(f"SELECT DISTINCT {folder} FROM {some} LIMIT {_SHOWN}").fetchall()
        return tuple(sorted(row[0] for row in found))


def cast_rows(spec: TableSpec, schema: TableSchema) -> str:
    """The source's rows under their casts, without those that would not come in."""
    cells = cells_of(schema, retyped(schema, spec.casts), spec.casts)
    inner = ", ".join(["*", *cells.inner])
    fits = f" WHERE NOT ({cells.bad})" if cells.bad and spec.on_cast_error == "quarantine" else ""
    return f"SELECT {', '.join(cells.columns)}, _hw_text FROM (SELECT {inner} FROM _hw_first){fits}"


def first_rows(source: Source, table: TableId) -> ChangeBatch:
    """The first rows of a table at the source, as it copies them."""
    with source.cut() as cut:
        # One is enough: a read that is left ends the cut, and this one has no other.
        return next(iter(cut.read(table)))
