"""Views in the AWS Glue catalogue: Athena, Spectrum, EMR and Glue jobs find them by name.

Columns, location and partitions are written by us, so nobody runs a crawler or MSCK REPAIR TABLE. What Athena
makes of names and types, and the rights that this needs: docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from headwater.errors import ConfigError, Conflict, StorageError
from headwater.formats.cells import catalog_columns, glue_type
from headwater.formats.views import Listing
from headwater.model import TableId

_SYMLINKS = "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat"
_OUTPUT = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
_SERDES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "parquet": ("org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe", {"serialization.format": "1"}),
    "orc": ("org.apache.hadoop.hive.ql.io.orc.OrcSerde", {"serialization.format": "1"}),
    "csv": (
        "org.apache.hadoop.hive.serde2.OpenCSVSerde",
        {"separatorChar": ",", "quoteChar": '"', "escapeChar": '"'},
    ),
}
#: What one request takes.
_CREATED, _UPDATED, _DELETED = 100, 100, 25
_OWNER = "headwater.table"

Definition = dict[str, Any]


class Glue:
    """One database of the catalogue. Implements `Catalog`."""

    def __init__(
        self, database: str, *, session: Mapping[str, str], endpoint: str = "", region: str = ""
    ) -> None:
        """`session`: aws_access_key_id, aws_secret_access_key, aws_session_token; {} for the usual chain."""
        import boto3
        from botocore.exceptions import BotoCoreError

        self._database = database
        try:
            self._client: Any = boto3.client(
                "glue", endpoint_url=endpoint or None, region_name=region or None, **dict(session)
            )
        except (BotoCoreError, ValueError) as failed:
            raise ConfigError(f"lake.glue: {failed}", hint="lake: {glue: {region: eu-central-1}}") from None
        self._proven = False

    def register(self, listing: Listing, name: str) -> None:
        """Make the catalogue say what is shown; writes only what differs."""
        wanted = _definition(listing, name)
        self._prove_database()
        found = self._ask(lambda: self._client.get_table(DatabaseName=self._database, Name=name)["Table"])
        if found is None:
            self._create(wanted)
        else:
            _refuse_other(found, listing, f"{self._database}.{name}")
            self._update(found, wanted)
        if listing.partition:
            self._follow_partitions(listing, wanted)

    def _prove_database(self) -> None:
        if self._proven:
            return
        if self._ask(lambda: self._client.get_database(Name=self._database)) is None:
            made = {"Name": self._database, "Description": "tables of headwater"}
            self._ask(lambda: self._client.create_database(DatabaseInput=made), raced=True)
        self._proven = True

    def _create(self, wanted: Definition) -> None:
        made = self._ask(
            lambda: self._client.create_table(DatabaseName=self._database, TableInput=wanted), raced=True
        )
        if made is None:
            raise self._raced(wanted["Name"])

    def _update(self, found: Definition, wanted: Definition) -> None:
        """A new version of the table, unless it says all of it already. Columns come and go with versions."""
        if all(_same(found.get(key), value) for key, value in wanted.items()):
            return
        kept = {key: found[key] for key in ("Description", "Owner", "Retention") if key in found}
        parameters = {**found.get("Parameters", {}), **wanted["Parameters"]}
        request = {**kept, **wanted, "Parameters": parameters}
        version = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
        made = self._ask(
            lambda: self._client.update_table(DatabaseName=self._database, TableInput=request, **version),
            raced=True,
        )
        if made is None:
            raise self._raced(wanted["Name"])

    def _raced(self, name: str) -> Conflict:
        return Conflict(f"glue {self._database}.{name}: another writer was first", hint="headwater run")

    # Partitions.

    def _follow_partitions(self, listing: Listing, wanted: Definition) -> None:
        place = {"DatabaseName": self._database, "TableName": wanted["Name"]}
        there = {tuple(p["Values"]): p["StorageDescriptor"] for p in self._partitions(place)}
        storage = wanted["StorageDescriptor"]
        inputs = {
            p.values: {"Values": list(p.values), "StorageDescriptor": {**storage, "Location": p.folder}}
            for p in listing.partitions
        }
        new = [made for values, made in inputs.items() if values not in there]
        other = [
            {"PartitionValueList": made["Values"], "PartitionInput": made}
            for values, made in inputs.items()
            if values in there and not _same(there[values], made["StorageDescriptor"])
        ]
        gone = [{"Values": list(values)} for values in there if values not in inputs]
        client = self._client
        self._send(client.batch_create_partition, place, "PartitionInputList", new, _CREATED)
        self._send(client.batch_update_partition, place, "Entries", other, _UPDATED)
        self._send(client.batch_delete_partition, place, "PartitionsToDelete", gone, _DELETED)

    def _partitions(self, place: Mapping[str, str]) -> Iterator[Definition]:
        pages = self._ask(lambda: list(self._client.get_paginator("get_partitions").paginate(**place)))
        for page in pages or ():
            yield from page["Partitions"]

    def _send(
        self,
        act: Callable[..., Definition],
        place: Mapping[str, str],
        key: str,
        items: Sequence[Definition],
        most: int,
    ) -> None:
        for first in range(0, len(items), most):
            some = list(items[first : first + most])
            errors = (self._ask(partial(act, **place, **{key: some})) or {}).get("Errors", [])
            wrong = [e["ErrorDetail"] for e in errors if not _is_done(e["ErrorDetail"]["ErrorCode"])]
            if wrong:
                said = wrong[0].get("ErrorMessage", "")
                raise StorageError(
                    f"glue {place['TableName']}: {wrong[0]['ErrorCode']}: {said}", hint="headwater run"
                )

    def _ask(self, act: Callable[[], Any], *, raced: bool = False) -> Any:
        """The answer; None for what is not there, and with `raced` for what another writer made."""
        from botocore.exceptions import BotoCoreError, ClientError

        quiet = {"EntityNotFoundException"}
        quiet |= (
            {"AlreadyExistsException", "ConcurrentModificationException", "VersionMismatchException"}
            if raced
            else set()
        )
        try:
            return act()
        except ClientError as failed:
            code = failed.response.get("Error", {}).get("Code", "")
            if code in quiet:
                return None
            hint = "docs/formats.md names the rights that glue needs" if "Denied" in code else "headwater run"
            message = failed.response.get("Error", {}).get("Message", "")
            raise StorageError(f"glue {self._database}: {code}: {message}", hint=hint) from None
        except BotoCoreError as failed:
            raise StorageError(
                f"glue {self._database}: {failed}",
                hint="check lake.glue.endpoint, region and the credentials",
            ) from None


def _definition(listing: Listing, name: str) -> Definition:
    view, names = listing.shown.target.view, _names(listing)
    columns = [{"Name": names[c], "Type": glue_type(view, kind)} for c, kind in listing.columns.items()]
    says = {_OWNER: str(_identity(listing)), "headwater.mark": str(listing.shown.mark.seq)}
    if listing.metadata:
        return {
            "Name": name,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {**says, "table_type": "ICEBERG", "metadata_location": listing.metadata},
            "StorageDescriptor": {"Columns": columns, "Location": listing.location},
            "PartitionKeys": [],
        }
    serde, options = _SERDES[view]
    about = {"EXTERNAL": "TRUE", "classification": view}
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {**says, **about, **({"skip.header.line.count": "1"} if view == "csv" else {})},
        "StorageDescriptor": {
            "Columns": columns,
            "Location": listing.location,
            "InputFormat": _SYMLINKS,
            "OutputFormat": _OUTPUT,
            "SerdeInfo": {"SerializationLibrary": serde, "Parameters": dict(options)},
        },
        "PartitionKeys": [{"Name": names[p], "Type": "string"} for p in listing.partition],
    }


def _names(listing: Listing) -> Mapping[str, str]:
    return catalog_columns(_identity(listing), [*listing.columns, *listing.partition])


def _identity(listing: Listing) -> TableId:
    return listing.shown.target.table


def _refuse_other(found: Definition, listing: Listing, name: str) -> None:
    """A table that somebody else made is never replaced."""
    owner = found.get("Parameters", {}).get(_OWNER)
    if owner != str(_identity(listing)):
        raise Conflict(
            f"glue {name} is there already, and not of {_identity(listing)}",
            hint=f"another lake.glue.database, or: aws glue delete-table for {name}",
        )


def _same(there: object, wanted: object) -> bool:
    """Whether what is there says all of what is wanted; services add members of their own."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(_same(there.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        there = there if isinstance(there, list) else []
        return len(there) == len(wanted) and all(map(_same, there, wanted))
    return there == wanted


def _is_done(code: str) -> bool:
    """Whether another writer did the same before: a partition that is there, or gone."""
    return code in ("AlreadyExistsException", "EntityNotFoundException")
