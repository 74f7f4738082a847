"""Which files of a lake table hold a key: by the bounds in their statistics, then by reading the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import quote
from headwater.lake import Held, TableFormat
from headwater.lake.keys import Keys
from headwater.lake.placing import Placing, folder_of_file, placed_anew
from headwater.lake.stored import stored_type

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Of all keys, the lowest that is not below a file decides whether the file can hold one.
_WITHIN_BOUNDS = """
SELECT f.path
FROM (SELECT path, {low} AS low, {high} AS high FROM _hw_files) AS f
ASOF LEFT JOIN (SELECT _hw_k0 FROM {keys}) AS k ON f.low <= k._hw_k0
WHERE f.low IS NULL OR f.high IS NULL OR k._hw_k0 <= f.high
"""

_FOUND = """
CREATE OR REPLACE TEMP TABLE {found} AS
SELECT {names}, _hw_file
FROM (SELECT {parts}, _hw_file FROM (SELECT {cells}, _hw_file FROM {rows}) WHERE {only}) AS r
SEMI JOIN {keys} AS k ON {same_key}
"""


@dataclass(frozen=True, slots=True)
class Found:
    """Where `files_with` found some keys: the files, and the temporary table of what was found."""

    table: str
    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class Target:
    """One lake table that rows go into."""

    lake: TableFormat
    con: DuckDBPyConnection
    held: Held | None
    cells: str  # the select list that brings its rows into `layout`
    layout: Mapping[str, pa.DataType]
    row_bytes: int  # about how wide a row is in memory
    placing: Placing = field(default_factory=Placing)
    key: Sequence[str] = ()  # the columns that the first of `Keys.names` are


def files_with(
    target: Target, paths: Sequence[str], keys: Keys, found: str = "_hw_places", only: str = "TRUE"
) -> list[str]:
    """Those of `paths` that hold a row of `keys`; the keys found stay in the temporary table `found`.

    `only` is SQL of which rows count.
    """
    lake, held = target.lake, target.held
    near = _in_folders(target, within_bounds(target.con, held, set(paths), keys), keys) if held else []
    names = ", ".join(keys.names)
    if not held or not near:
        target.con.execute(
            f"CREATE OR REPLACE TEMP TABLE {found} AS SELECT {names} FROM {keys.relation} WHERE FALSE"
        ).fetchall()
        return []
    located = lake.locate(held, near)
    rows = lake.scan(held, near, name_files=True)
    same_key = keys.same("r", "k")
    target.con.execute(
        _FOUND.format(
            found=found, names=names, parts=keys.named, cells=target.cells, rows=rows, keys=keys.relation,
            only=only, same_key=same_key,
        )
    ).fetchall()  # fmt: skip
    return [
        located[row[0]] for row in target.con.execute(f"SELECT DISTINCT _hw_file FROM {found}").fetchall()
    ]


def _in_folders(target: Target, paths: list[str], keys: Keys) -> list[str]:
    """Those of `paths` whose folder may hold a row of `keys`, where a key tells its folder."""
    assert target.held is not None
    if not target.placing.keyed or placed_anew(target.held, target.placing):
        return paths
    cells = ", ".join(f"{part} AS {quote(name)}" for part, name in zip(keys.names, target.key, strict=False))
    query = f"SELECT DISTINCT {target.placing.folder} FROM (SELECT {cells} FROM {keys.relation})"
    folders = {row[0] for row in target.con.execute(query).fetchall()}
    return [path for path in paths if folder_of_file(path) in folders]


def within_bounds(con: DuckDBPyConnection, held: Held, paths: set[str], keys: Keys) -> list[str]:
    """Those of `paths` that may hold a row of `keys`, as far as bounds tell."""
    column, names = keys.column, held.files.column_names
    everything = [path for path in held.files["path"].to_pylist() if path in paths]
    if f"min.{column}" not in names or f"max.{column}" not in names or column not in held.layout:
        return everything
    kind = held.layout[column]
    odd = con.execute(f"SELECT count(*) FROM {keys.relation} WHERE _hw_k0 IS NULL").fetchall()[0][0]
    if odd or stored_type(kind) != kind or kind != keys.kind:
        return everything
    low, high = f"min.{column}", f"max.{column}"
    con.register("_hw_files", held.files.select(["path", low, high]))
    try:
        found = con.execute(
            _WITHIN_BOUNDS.format(low=quote(low), high=quote(high), keys=keys.relation)
        ).fetchall()
    finally:
        con.unregister("_hw_files")
    return [row[0] for row in found if row[0] in paths]
