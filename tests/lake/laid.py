"""What must hold of lake tables whose files lie in folders, whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from headwater.canonical import quote
from headwater.folders import shown
from headwater.lake import Held, Kind
from headwater.lake.commits import folder_of
from headwater.lake.placing import folder_of_file, place
from headwater.lake.stored import stored_type
from oracle.world import World

BASES: tuple[Kind, ...] = ("mirror", "history")


def delta_of(world: World, kind: Kind) -> DeltaTable:
    """A lake table as any other engine opens it."""
    uri, options = world.storage.delta(folder_of(world.spec.table, kind))
    return DeltaTable(uri, storage_options=options)


def held_of(world: World, kind: Kind) -> Held:
    held = type(world.lake)(world.storage).open(world.spec.table, kind)
    assert held is not None
    return held


def folders_of(world: World, kind: Kind = "mirror") -> list[str]:
    """The folder of each file."""
    return sorted(folder_of_file(path) for path in held_of(world, kind).files["path"].to_pylist())


def check_folders(world: World) -> None:
    """Every row is in its folder, and the table's partition columns say what the folders say."""
    for kind in BASES:
        if world.lake.open(world.spec.table, kind) is not None:
            check_folders_of(world, kind)


def check_folders_of(world: World, kind: Kind) -> None:
    held = held_of(world, kind)
    placing = place(world.spec, held.schema)
    assert held.partition == placing.names
    read = delta_of(world, kind).to_pyarrow_table()
    assert set(read.column_names) == {*held.layout, *held.partition}
    assert read.num_rows == sum(held.files["num_records"].to_pylist())
    types = {name: stored_type(type_) for name, type_ in held.layout.items()}
    for path in world.lake.files(world.spec.table, kind):
        # Some readers take no file whose types are not those of the table.
        there = pq.read_schema(path)
        assert {name: there.field(name).type for name in there.names}.items() <= types.items(), path
    with world.lake.connect() as con:
        for file in held.files.to_pylist():
            query = f"SELECT DISTINCT {placing.folder} FROM {world.lake.scan(held, [file['path']])}"
            folder = folder_of_file(file["path"])
            assert con.execute(query).fetchall() == [(folder,)], file["path"]
            if folder:
                values = dict(shown(part) for part in folder.split("/"))
                assert {n: file[f"partition.{n}"] for n in held.partition} == _named(values, held)
        con.register("_read", read)
        names = ", ".join(map(quote, held.partition))
        if names:
            told = con.execute(f"SELECT DISTINCT {placing.folder}, {names} FROM _read").fetchall()
            for folder, *cells in told:
                values = dict(shown(part) for part in folder.split("/"))
                assert dict(zip(held.partition, cells, strict=True)) == _named(values, held)


def _named(values: Mapping[str, str | None], held: Held) -> Mapping[str, str | None]:
    return {name: values[name] for name in held.partition}


def rows_of(table: pa.Table) -> list[tuple[object, ...]]:
    """All rows, in one order."""
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)
