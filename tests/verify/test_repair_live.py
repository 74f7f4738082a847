"""Repair where the lake's files went bad, and where a table had another key once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable, write_deltalake

from headwater import Pipeline, config
from headwater.errors import Corrupt
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

SETUP = """
create table item (id int primary key, note text);
insert into item select n, 'n' || n from generate_series(1, 300) n;
create table turned (a int primary key, b int, v text);
insert into turned select n, 11 - n, 'v' from generate_series(1, 10) n;
create table loose (v int);
alter table loose replica identity full;
insert into loose values (1), (1), (2);
create table bare (id int primary key);
"""


@pytest.fixture
def pipeline(pg: Database, tmp_path: Path) -> Iterator[Pipeline]:
    pg.run(SETUP)
    (tmp_path / "password").write_text(pg.server.password)
    text = f"""
        pipeline: check
        source: {{kind: postgres, host: 127.0.0.1, port: {pg.server.port}, user: postgres, dbname: {pg.name},
                  password: "file:password", sslmode: disable}}
        store: ./lake
        tables: ["public.*"]
        """
    with Pipeline.open(config.parse(text, folder=tmp_path)) as opened:
        opened.run()
        yield opened


def certify(pipeline: Pipeline, folder: Path, *, repair: bool = False) -> Any:
    return pipeline.certify(folder=folder / "certificates", repair=repair)


def table_of(folder: Path, name: str, kind: str) -> DeltaTable:
    return DeltaTable(str(folder / "lake" / "lake" / f"public.{name}" / kind))


def go_bad(path: str, cells: str) -> None:
    """Other rows in a file of the same size, as after a fault of the disk."""
    wanted, made, pad = os.path.getsize(path), f"{path}.made", 0
    with duckdb.connect() as con:
        while (size := _copy(con, path, made, cells, pad)) != wanted:
            # What is padded has its length written before it, in as few bytes as that takes.
            pad += max((wanted - size) - 40, 1)
            assert size < wanted
    os.replace(made, path)


def _copy(con: duckdb.DuckDBPyConnection, path: str, made: str, cells: str, pad: int) -> int:
    con.execute(
        f"COPY (SELECT {cells} FROM read_parquet('{path}', hive_partitioning = false)) TO '{made}' "
        "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 22, PARQUET_VERSION v2, "
        f"KV_METADATA {{pad: '{'x' * pad}'}})"
    )
    return os.path.getsize(made)


@pytest.mark.parametrize("kind", ["mirror", "history", "changes"])
def test_a_file_that_went_bad_is_written_again(pipeline: Pipeline, tmp_path: Path, kind: str) -> None:
    before = pipeline.history("item").order("id").fetchall()
    (path,) = table_of(tmp_path, "item", kind).file_uris()
    # A key that the bounds in Delta's log deny.
    cells = "* REPLACE (CASE id WHEN 7 THEN 99999 ELSE id END AS id)"
    go_bad(path.removeprefix("file://"), cells)
    assert not certify(pipeline, tmp_path).equal
    found = certify(pipeline, tmp_path, repair=True)
    assert found.equal, "\n".join(found.lines())
    assert pipeline.history("item").order("id").fetchall() == before


@pytest.mark.parametrize("kind", ["mirror", "history", "changes"])
def test_rows_that_somebody_added_again_go(pipeline: Pipeline, tmp_path: Path, kind: str) -> None:
    before = pipeline.history("item").order("id").fetchall()
    table = table_of(tmp_path, "item", kind)
    # What is left without them is the very file that was there.
    write_deltalake(table, table.to_pyarrow_table().slice(0, 2), mode="append")
    assert not certify(pipeline, tmp_path).equal
    found = certify(pipeline, tmp_path, repair=True)
    assert found.equal, "\n".join(found.lines())
    assert pipeline.history("item").order("id").fetchall() == before


def test_a_file_that_cannot_be_read_is_said_by_its_table(pipeline: Pipeline, tmp_path: Path) -> None:
    assert certify(pipeline, tmp_path).equal
    (uri,) = table_of(tmp_path, "item", "history").file_uris()
    path = Path(uri.removeprefix("file://"))
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(Corrupt, match=r"public\.item: a file of it .* cannot be read"):
        certify(pipeline, tmp_path)


def test_what_is_not_compared_or_repaired_is_said(pg: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    pg.run("alter publication headwater_check drop table bare; insert into bare values (1)")
    pg.run("alter publication headwater_check add table bare")
    found = certify(pipeline, tmp_path, repair=True)
    tables = {table["table"]: table for table in found.document["tables"]}
    assert tables["public.loose"]["left_out"] == {"versions": ["it has no key"]}
    assert not tables["public.item"]["left_out"]
    assert not tables["public.bare"]["equal"]
    assert "headwater resync" in tables["public.bare"]["repair"]["left"]


def test_what_a_table_was_under_another_key_stays(pg: Database, pipeline: Pipeline, tmp_path: Path) -> None:
    pg.run("update turned set v = 'u' where a = 3")
    pipeline.run()
    pg.run("alter table turned drop constraint turned_pkey, add primary key (b); update turned set v = 'w'")
    pipeline.run()
    past = pipeline.history("turned").order("_hw_seq, b").fetchall()
    changes = pipeline.changes("turned").order("_hw_seq, b").fetchall()
    assert len(past) > 20  # those of the old key, too
    found = certify(pipeline, tmp_path, repair=True)
    assert found.equal and found.document["repairs"] == "none", "\n".join(found.lines())
    table_of(tmp_path, "turned", "mirror").update(updates={"v": "'other'"}, predicate="b IN (2, 3)")
    found = certify(pipeline, tmp_path, repair=True)
    assert not found.equal
    assert any("other columns once; headwater resync" in line for line in found.lines())
    assert pipeline.history("turned").order("_hw_seq, b").fetchall() == past
    assert pipeline.changes("turned").order("_hw_seq, b").fetchall() == changes


def test_a_column_that_was_called_otherwise_for_a_while(pg: Database, pipeline: Pipeline) -> None:
    pg.run("alter table item rename column note to other; update item set other = 'x' where id = 3")
    pg.run("alter table item rename column other to note")
    assert pipeline.verify(["public.item"]).equal
