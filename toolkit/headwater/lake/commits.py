"""What a Delta commit of ours says beside its files, and what trouble with one means."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pyarrow as pa

from headwater.errors import Conflict, Corrupt, HeadwaterError, SchemaConflict, StorageError
from headwater.lake import Change, Held, Kind
from headwater.model import Mark, TableId, TableSchema, arrow_type
from headwater.naming import lake_folder
from headwater.storage import Storage

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable, Schema
    from deltalake.transaction import AddAction

MARK = "headwater.mark"
_APP = "headwater"
_SCHEMA = "headwater.schema"
_LAYOUT = "headwater.layout"
_NOTES = "headwater.notes"


def folder_of(table: TableId, kind: Kind) -> str:
    """Where a lake table lies in the store."""
    return f"{lake_folder(table)}/{kind}"


def promise_of(change: Change) -> CommitProperties:
    """What rides along in the commit. No retries: whoever comes second must look again."""
    from deltalake import CommitProperties, Transaction

    return CommitProperties(dict(_said(change)), 0, [Transaction(_APP, change.mark.seq)])


def commit_anew(  # noqa: PLR0913
    storage: Storage,
    held: Held,
    delta: DeltaTable,
    change: Change,
    schema: Schema,
    adds: Sequence[AddAction],
) -> None:
    """The next version of a table, with other partition columns: which the library has no call for.

    The same file that the library would write, under a name that only one writer can create.
    """
    now, known = int(time.time() * 1000), delta.metadata()
    operation = {"mode": "Overwrite", "partitionBy": json.dumps(list(change.partition))}
    info = {"timestamp": now, "operation": "WRITE", "operationParameters": operation, **_said(change)}
    table = {
        "id": known.id, "name": known.name, "description": known.description,
        "format": {"provider": "parquet", "options": {}}, "schemaString": schema.to_json(),
        "partitionColumns": list(change.partition), "createdTime": known.created_time,
        "configuration": known.configuration,
    }  # fmt: skip
    actions: list[Mapping[str, object]] = [
        {"commitInfo": info}, {"txn": {"appId": _APP, "version": change.mark.seq}}, {"metaData": table},
    ]  # fmt: skip
    for path in pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist():
        actions.append({"remove": {"path": path, "deletionTimestamp": now, "dataChange": True}})
    for add in adds:
        # As the library spells paths: a reader may look for a removed file by its spelling.
        path = quote(add.path, safe="/=~._-")
        actions.append({"add": {
            "path": path, "partitionValues": dict(add.partition_values), "size": add.size,
            "modificationTime": add.modification_time, "dataChange": True, "stats": add.stats,
        }})  # fmt: skip
    text = "\n".join(json.dumps(action, ensure_ascii=False, separators=(",", ":")) for action in actions)
    name = f"{folder_of(held.table, held.kind)}/_delta_log/{held.version + 1:020d}.json"
    if not storage.create(name, text.encode(), step="anew") and storage.find(name) != text.encode():
        raise raced(held.table, held.kind)


def _said(change: Change) -> Mapping[str, str]:
    layout = {name: str(kind) for name, kind in change.layout.items()}
    return {
        MARK: json.dumps({"epoch": change.mark.epoch, "seq": change.mark.seq}),
        _SCHEMA: json.dumps(json.loads(change.schema.to_json()), separators=(",", ":"), sort_keys=True),
        _LAYOUT: json.dumps(layout, separators=(",", ":")),
        _NOTES: json.dumps(dict(change.notes), separators=(",", ":"), sort_keys=True),
    }


def read_held(delta: DeltaTable, table: TableId, kind: Kind) -> Held:
    """The version that is open."""
    info = commit_info(delta, table, kind)
    layout = {name: arrow_type(text) for name, text in json.loads(info[_LAYOUT]).items()}
    files = pa.table(delta.get_add_actions(flatten=True))
    # The library gives paths as they stand in the log, where they are URLs.
    paths = pa.array([unquote(path) for path in files["path"].to_pylist()], pa.string())
    files = files.set_column(files.column_names.index("path"), "path", paths)
    return Held(
        table, kind, int(delta.version()), mark_in(info), schema_in(info), layout, files,
        json.loads(info[_NOTES]), tuple(delta.metadata().partition_columns),
    )  # fmt: skip


def commit_info(delta: DeltaTable, table: TableId, kind: Kind) -> Mapping[str, str]:
    """What the newest commit of ours says; other writers' maintenance commits are passed over."""
    for depth in (1, 10, None):
        for info in delta.history(depth):
            if MARK in info:
                return dict(info)
    raise Corrupt(
        f"{folder_of(table, kind)}: no commit of headwater in its log",
        hint="move the folder away, then: headwater run   (folds it from the raw log)",
    )


def mark_in(info: Mapping[str, str]) -> Mark:
    """The Mark of a commit."""
    doc = json.loads(info[MARK])
    return Mark(int(doc["epoch"]), int(doc["seq"]))


def schema_in(info: Mapping[str, str]) -> TableSchema:
    """The schema of a commit."""
    return TableSchema.from_json(info[_SCHEMA])


def raced(table: TableId, kind: Kind) -> Conflict:
    """Somebody else made the next version."""
    return Conflict(
        f"{folder_of(table, kind)}: another writer was first", hint="headwater run   (see that only one runs)"
    )


def explain(failed: Exception, table: TableId, kind: Kind) -> HeadwaterError:
    """The named error for one of the library."""
    from deltalake.exceptions import CommitFailedError, SchemaMismatchError

    where = f"{folder_of(table, kind)}: {first_line(failed)}"
    if isinstance(failed, CommitFailedError) or "already exists" in str(failed):
        return Conflict(
            f"{where} (another writer was first)", hint="headwater run   (see that only one runs)"
        )
    if isinstance(failed, SchemaMismatchError):
        return SchemaConflict(where)
    return StorageError(where)


def first_line(failed: Exception) -> str:
    """What an error says, in one line."""
    return str(failed).strip().splitlines()[0][:500] if str(failed).strip() else type(failed).__name__
