"""Jobs without us: hand-written DuckDB SQL that rewrites files, and `deltalake` MERGE, on the same rows.

The base is 51 Parquet files of equal key ranges, sorted by key, with all the columns of the mirror.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lakes import SCHEMA, STEP, make_batch
from benchmarks.ours import MEMORY
from benchmarks.stopwatch import Stopwatch
from headwater.model import META

PARTS = 51
TOUCHED = range(35, 51)


def seed(watch: Stopwatch, folder: str, rows: int) -> dict[str, Any]:
    """The base, as files and as a Delta table partitioned likewise."""
    import deltalake
    import pyarrow as pa
    import pyarrow.parquet as pq

    dice = np.random.default_rng(1)
    with watch:
        for part in range(PARTS):
            first, last = rows * part // PARTS, rows * (part + 1) // PARTS
            pieces = [make_read(np.arange(at, min(at + STEP, last)), dice) for at in range(first, last, STEP)]
            table = pa.concat_tables(pieces)
            parted = table.append_column("p", pa.repeat(pa.scalar(part, pa.int32()), len(table)))
            file = _file(folder, part)
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, file, compression="zstd", row_group_size=122_880)
            deltalake.write_deltalake(
                f"{folder}/delta", parted,
                mode="append", partition_by=["p"], writer_properties=_zstd(),
            )  # fmt: skip
    return {}


def make_read(numbers: np.ndarray, dice: np.random.Generator) -> Any:
    """Rows of a full load as the mirror has them."""
    reads = make_batch(numbers * 2, np.repeat("r", len(numbers)), int(numbers[0]), dice)
    return reads.drop(["_hw_unset"])


def rewrite(
    watch: Stopwatch, folder: str, changes: list[str], parts: list[int], ordered: bool, rows: int
) -> dict[str, Any]:
    """Write these parts anew with the changes in: DuckDB, an anti join and a union for each file."""
    import duckdb

    out = Path(folder) / "rewritten"
    out.mkdir(exist_ok=True)
    order = "ORDER BY id" if ordered else ""
    with duckdb.connect(config={"memory_limit": MEMORY, "threads": "2"}) as con, watch:
        con.execute(
            f"CREATE TEMP TABLE ch AS SELECT *, {part_of(rows)} AS _hw_part FROM read_parquet({changes})"
        )
        for part in parts:
            con.execute(
                f"""
                COPY (
                    SELECT * FROM read_parquet('{_file(folder, part)}') AS b
                    WHERE NOT EXISTS (FROM ch WHERE ch._hw_part = {part} AND ch.id = b.id)
                    UNION ALL BY NAME
                    SELECT * EXCLUDE (_hw_unset, _hw_part) FROM ch
                    WHERE _hw_part = {part} AND _hw_op <> 'd'
                    {order}
                ) TO '{out}/{part}.parquet' (FORMAT parquet, COMPRESSION zstd)
                """
            )
    return {"rows": count_rows(out)}


def count_rows(folder: Path) -> int:
    """Rows of all files in a folder, from their footers."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in folder.iterdir())


def merge(watch: Stopwatch, folder: str, changes: list[str], rows: int) -> dict[str, Any]:
    """`deltalake` MERGE into the partitioned table, with the touched partitions named."""
    import deltalake
    import duckdb

    names = [*SCHEMA.arrow().names, *(name for name in META.names if name != "_hw_unset")]
    cells = {name: f"s.{name}" for name in [*names, "p"]}
    parts = ", ".join(map(str, TOUCHED))
    with watch:
        with duckdb.connect() as con:
            query = f"SELECT *, {part_of(rows)}::INT AS p FROM read_parquet({changes})"
            source = con.execute(query).to_arrow_table().drop(["_hw_unset"])
        table = deltalake.DeltaTable(f"{folder}/delta")
        done = (
            table.merge(
                source, f"t.p = s.p AND t.id = s.id AND t.p IN ({parts})",
                source_alias="s", target_alias="t", writer_properties=_zstd(),
            )
            .when_matched_delete("s._hw_op = 'd'")
            .when_matched_update(cells)
            .when_not_matched_insert(cells)
            .execute()
        )  # fmt: skip
    return {key: done[key] for key in done if key.startswith("num_target_rows")}


def _file(folder: str, part: int) -> Path:
    return Path(folder) / "files" / f"{part}.parquet"


def part_of(rows: int) -> str:
    """The part of a key: of k rows of a table, each part has its 51st."""
    return f"((id // 2 + 1) * {PARTS} - 1) // {rows}"


def _zstd() -> Any:
    import deltalake

    return deltalake.WriterProperties(compression="ZSTD")
