"""Views in the Glue catalogue, on moto: tables, versions, partitions, names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest

from contracts.views import EVERY, ROWS, TABLE, ViewContract, every_row, in_folders
from headwater.config import TableSpec
from headwater.errors import ConfigError, Conflict, SchemaConflict, StorageError
from headwater.formats import Formats, catalog_name
from headwater.formats.aws import Glue
from headwater.formats.symlink import Symlinks
from headwater.formats.views import Listing, Partition, Shown, Target
from headwater.lake.delta import Lake
from headwater.model import Mark, TableId
from headwater.storage import Storage
from raw.batches import open_bucket
from servers.s3 import Bucket

pytestmark = pytest.mark.live

commit = ViewContract().commit


@pytest.fixture
def database(s3: Bucket) -> str:
    return s3.name.replace("-", "_")


@pytest.fixture
def glue(s3: Bucket, database: str) -> Glue:
    return open_glue(s3, database)


def open_glue(s3: Bucket, database: str, **session: str) -> Glue:
    keys = {"aws_access_key_id": s3.key, "aws_secret_access_key": s3.secret, **session}
    return Glue(database, session=keys, endpoint=s3.endpoint, region=s3.region)


@pytest.fixture
def client(s3: Bucket) -> Any:
    keys = {"aws_access_key_id": s3.key, "aws_secret_access_key": s3.secret}
    return boto3.client("glue", endpoint_url=s3.endpoint, region_name=s3.region, **keys)


@pytest.fixture
def lake(s3: Bucket, tmp_path: Path) -> Iterator[Lake]:
    with open_bucket(s3, tmp_path / "cache") as storage:
        yield Lake(storage)


def storage_of(lake: Lake) -> Storage:
    return lake._storage


def table(client: Any, database: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get_table(DatabaseName=database, Name=name)["Table"]
    return found


def versions(client: Any, database: str, name: str) -> int:
    return len(client.get_table_versions(DatabaseName=database, TableName=name)["TableVersions"])


def test_every_format_is_registered_under_its_name(
    lake: Lake, glue: Glue, client: Any, database: str
) -> None:
    types = {name: kind for name, (kind, _) in EVERY.items()}
    commit(lake, None, every_row(), types)
    spec = TableSpec(TABLE, formats=("iceberg", "parquet", "orc", "csv"))
    shown = Formats(storage_of(lake), lake, glue).publish(spec)
    names = [catalog_name(spec, s.target) for s in shown]
    assert len(set(names)) == 4
    iceberg, parquet, orc, csv = (table(client, database, name) for name in names)
    assert iceberg["Parameters"]["table_type"] == "ICEBERG"
    assert iceberg["Parameters"]["metadata_location"].endswith("/metadata/v1.metadata.json")
    for made in (parquet, orc, csv):
        assert made["StorageDescriptor"]["InputFormat"].endswith("SymlinkTextInputFormat")
        folder = made["StorageDescriptor"]["Location"].removeprefix(f"s3://{bucket_of(lake)}/some/where/")
        assert list(storage_of(lake).list(folder)) == [f"{folder}/manifest"]
    kinds = {c["Name"]: c["Type"] for c in parquet["StorageDescriptor"]["Columns"]}
    wanted = {"u64": "decimal(20,0)", "d5": "decimal(5,5)", "tod": "string", "tz": "timestamp"}
    assert {name: kinds[name] for name in wanted} == wanted
    assert "größe" in kinds
    assert {c["Type"] for c in csv["StorageDescriptor"]["Columns"]} == {"string"}
    assert csv["Parameters"]["skip.header.line.count"] == "1"
    assert {c["Name"]: c["Type"] for c in orc["StorageDescriptor"]["Columns"]}["day"] == "string"


def bucket_of(lake: Lake) -> str:
    return storage_of(lake).delta("x")[0].split("/")[2]


def test_columns_come_as_a_new_version_and_nothing_as_none(
    lake: Lake, glue: Glue, client: Any, database: str
) -> None:
    held = commit(lake, None, ROWS.format(0, 2))
    spec = TableSpec(TABLE, formats=("orc",))
    formats = Formats(storage_of(lake), lake, glue)
    name = catalog_name(spec, formats.publish(spec)[0].target)
    before = versions(client, database, name)
    formats.publish(spec)
    assert versions(client, database, name) == before
    more = {"id": pa.int64(), "t": pa.string(), "new": pa.int32(), "_hw_seq": pa.int64()}
    commit(lake, held, "SELECT 7::BIGINT AS id, 'x' AS t, 1 AS new, 9::BIGINT AS _hw_seq", more)
    formats.publish(spec)
    assert versions(client, database, name) == before + 1
    made = table(client, database, name)["StorageDescriptor"]["Columns"]
    assert [c["Name"] for c in made] == list(more)


def test_iceberg_moves_its_pointer(lake: Lake, glue: Glue, client: Any, database: str) -> None:
    held = commit(lake, None, ROWS.format(0, 2))
    spec = TableSpec(TABLE, formats=("iceberg",))
    formats = Formats(storage_of(lake), lake, glue)
    name = catalog_name(spec, formats.publish(spec)[0].target)
    client.update_table(
        DatabaseName=database,
        TableInput={
            "Name": name,
            "Parameters": {**table(client, database, name)["Parameters"], "mine": "stays"},
            "StorageDescriptor": {"Columns": []},
        },
    )
    commit(lake, held, ROWS.format(2, 4))
    formats.publish(spec)
    found = table(client, database, name)["Parameters"]
    assert found["metadata_location"].endswith("/v2.metadata.json")
    assert found["mine"] == "stays"


def test_partitions_come_and_go(lake: Lake, glue: Glue, client: Any, database: str) -> None:
    held = commit(lake, None, ROWS.format(0, 3))
    held = in_folders(storage_of(lake), lake, held, ["a", "b%2Fc", None])
    view = Symlinks(storage_of(lake), lake, "parquet")
    glue.register(view.publish(held), "t")
    found = table(client, database, "t")
    assert found["PartitionKeys"] == [{"Name": "part", "Type": "string"}]
    assert set(partitions(client, database)) == {("a",), ("b/c",), ("__HIVE_DEFAULT_PARTITION__",)}
    for values, folder in partitions(client, database).items():
        path = folder.removeprefix(f"s3://{bucket_of(lake)}/some/where/")
        line = storage_of(lake).read(f"{path}/manifest").decode()
        assert line.count("\n") == 1
        assert {"a": "part=a/", "b/c": "part=b%2Fc/"}.get(values[0], "part=__HIVE") in line
    fewer = replace(held, files=held.files.slice(0, 1), version=held.version + 1)
    glue.register(view.publish(fewer), "t")
    assert set(partitions(client, database)) == {("a",)}


def test_more_partitions_than_one_request_takes(glue: Glue, client: Any, database: str) -> None:
    target = Target(TableId("public", "many"), "mirror", "parquet")
    shown = Shown(target, 0, Mark(1, 1), 0, "p")
    parts = [Partition((f"{n}",), f"s3://b/m/n={n}") for n in range(230)]
    listing = Listing(shown, {"id": pa.int64()}, ("n",), "s3://b/m", partitions=parts)
    glue.register(listing, "t")
    moved = [replace(p, folder=p.folder + "x") if n % 2 else p for n, p in enumerate(parts)]
    glue.register(replace(listing, partitions=moved[:-40]), "t")
    found = partitions(client, database)
    assert len(found) == 190
    assert found["1",].endswith("n=1x")
    assert found["2",].endswith("n=2")


def partitions(client: Any, database: str) -> dict[tuple[str, ...], str]:
    pages = client.get_paginator("get_partitions").paginate(DatabaseName=database, TableName="t")
    return {
        tuple(p["Values"]): p["StorageDescriptor"]["Location"] for page in pages for p in page["Partitions"]
    }


def test_a_table_of_somebody_else_is_left_alone(lake: Lake, glue: Glue, client: Any, database: str) -> None:
    client.create_database(DatabaseInput={"Name": database})
    spec = TableSpec(TABLE, formats=("orc",))
    name = catalog_name(spec, Target(TABLE, "mirror", "orc"))
    theirs = {"Name": name, "StorageDescriptor": {"Columns": [{"Name": "x", "Type": "int"}]}}
    client.create_table(DatabaseName=database, TableInput=theirs)
    commit(lake, None, ROWS.format(0, 2))
    with pytest.raises(Conflict, match="is there already"):
        Formats(storage_of(lake), lake, glue).publish(spec)
    assert table(client, database, name)["StorageDescriptor"]["Columns"] == [{"Name": "x", "Type": "int"}]


def test_columns_that_athena_cannot_tell_apart(glue: Glue) -> None:
    shown = Shown(Target(TableId("public", "t"), "mirror", "orc"), 0, Mark(1, 1), 0, "p")
    columns = {"\u0130d": pa.int32(), "i\u0307d": pa.int32()}
    with pytest.raises(SchemaConflict, match="one column to Athena"):
        glue.register(Listing(shown, columns, (), "s3://b/m"), "t")


def test_names_never_collide() -> None:
    tables = [
        ("a", "b"),
        ("a", "b__history"),
        ("A", "b"),
        ("a", "B"),
        ("a", 'b"'),
        ("a__b", "c"),
        ("a", "b__c"),
    ]
    spec = TableSpec(TABLE, formats=("parquet", "orc"))
    names = {
        catalog_name(spec, Target(TableId(*t), kind, view))
        for t in tables
        for kind in ("mirror", "history")
        for view in spec.formats
    }
    assert len(names) == len(tables) * 4
    assert all(name == name.lower() and len(name) <= 100 for name in names)


def test_a_catalogue_that_is_away_says_so(s3: Bucket, lake: Lake) -> None:
    commit(lake, None, ROWS.format(0, 2))
    away = open_glue(replace(s3, endpoint="http://127.0.0.1:9"), "d")
    formats = Formats(storage_of(lake), lake, away)
    spec = TableSpec(TABLE, formats=("orc",))
    with pytest.raises(StorageError, match="glue d"):
        formats.publish(spec)
    # The view itself is there, and the next run goes on from it.
    assert formats.shown(spec)[0].rows == 2
    with pytest.raises(ConfigError, match=r"lake\.glue"):
        Glue("d", session={}, endpoint="nonsense", region="")
