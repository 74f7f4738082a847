"""What a Delta commit of ours says beside its files, and what trouble with one means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.errors import Conflict, Corrupt, HeadwaterError, SchemaConflict, StorageError
from headwater.lake import Change, Held, Kind
from headwater.model import Mark, TableId, TableSchema, arrow_type
from headwater.naming import lake_folder

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

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

    layout = {name: str(kind) for name, kind in change.layout.items()}
    said = {
        MARK: json.dumps({"epoch": change.mark.epoch, "seq": change.mark.seq}),
        _SCHEMA: json.dumps(json.loads(change.schema.to_json()), separators=(",", ":"), sort_keys=True),
        _LAYOUT: json.dumps(layout, separators=(",", ":")),
        _NOTES: json.dumps(dict(change.notes), separators=(",", ":"), sort_keys=True),
    }
    return CommitProperties(said, 0, [Transaction(_APP, change.mark.seq)])


def read_held(delta: DeltaTable, table: TableId, kind: Kind) -> Held:
    """The version that is open."""
    info = commit_info(delta, table, kind)
    layout = {name: arrow_type(text) for name, text in json.loads(info[_LAYOUT]).items()}
    return Held(
        table, kind, int(delta.version()), mark_in(info), schema_in(info), layout,
        pa.table(delta.get_add_actions(flatten=True)), json.loads(info[_NOTES]),
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
