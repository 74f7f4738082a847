"""Iceberg's table metadata of a lake version, in the words of Iceberg's specification."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headwater.formats.iceberg.manifests import Manifests, Written
from headwater.formats.iceberg.schema import Shape, name_mapping, shape_of
from headwater.formats.views import Shown, Target
from headwater.lake import Held
from headwater.lake.delta import RETENTION_HOURS
from headwater.model import Mark

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadataV2
    from pyiceberg.table.snapshots import Snapshot

#: So many snapshots stay at most, and none that was succeeded longer ago than the lake keeps files.
SNAPSHOTS = 100
#: So many metadata files stay.
KEPT = 20

_MARK, _LAKE_VERSION, _CONTENT = "headwater.mark", "headwater.version", "headwater.content"


def metadata_path(target: Target, number: int) -> str:
    """The name in the store of a numbered metadata file."""
    return f"{target.folder}/metadata/v{number}.metadata.json"


def hint_path(target: Target) -> str:
    """The name in the store of the file that says the newest number."""
    return f"{target.folder}/metadata/version-hint.text"


def lake_version(metadata: TableMetadataV2) -> int:
    """The version of the lake table that is shown."""
    return int(metadata.properties[_LAKE_VERSION])


def is_shown(metadata: TableMetadataV2, held: Held) -> bool:
    """Whether the metadata shows just this version: its columns, files and mark."""
    said = metadata.properties
    return (said[_CONTENT], said[_MARK]) == (_content(held), _mark(held))


def shown_of(target: Target, number: int, metadata: TableMetadataV2) -> Shown:
    """Where the view stands by its metadata."""
    snapshot, said = metadata.current_snapshot(), metadata.properties
    rows = snapshot.summary["total-records"] if snapshot and snapshot.summary else None
    mark = Mark(**json.loads(said[_MARK]))
    return Shown(target, lake_version(metadata), mark, int(rows or 0), metadata_path(target, number))


def next_metadata(
    manifests: Manifests, held: Held, number: int, before: TableMetadataV2 | None
) -> TableMetadataV2:
    """The metadata of a version, to follow `before` with its number; its manifests are stored by then."""
    from pyiceberg.table.metadata import TableMetadataV2
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

    shape, target = shape_of(held, before), manifests.target
    sequence = (before.last_sequence_number if before else 0) + 1
    now = max(int(time.time() * 1000), (before.last_updated_ms if before else 0) + 1)
    kept = [] if before is None or shape.anew else _unexpired(before, now)
    parent = kept[-1] if kept else None
    ident = uuid.uuid4().int >> 65
    written = manifests.write(held, shape, (ident, sequence), parent)
    snapshot = {
        "snapshot-id": ident,
        **({"parent-snapshot-id": parent.snapshot_id} if parent else {}),
        "sequence-number": sequence,
        "timestamp-ms": now,
        "manifest-list": written.location,
        "summary": _summary(held, written),
        "schema-id": shape.schema.schema_id,
    }
    schemas = [*before.schemas] if before is not None and not shape.anew else []
    log = [entry.model_dump(by_alias=True) for entry in before.metadata_log[-KEPT + 2 :]] if before else []
    if before is not None:
        uri = manifests.uri(metadata_path(target, number))
        log.append({"metadata-file": uri, "timestamp-ms": before.last_updated_ms})
    return TableMetadataV2.model_validate(
        {
            "format-version": 2,
            "location": manifests.uri(target.folder),
            "table-uuid": before.table_uuid if before else uuid.uuid4(),
            "last-updated-ms": now,
            "last-column-id": shape.last_column,
            "schemas": schemas if shape.schema in schemas else [*schemas, shape.schema],
            "current-schema-id": shape.schema.schema_id,
            "partition-specs": [shape.spec],
            "default-spec-id": shape.spec.spec_id,
            "last-partition-id": shape.last_partition,
            "properties": _properties(held, shape),
            "current-snapshot-id": ident,
            "snapshots": [*kept, snapshot],
            "snapshot-log": [
                *({"snapshot-id": s.snapshot_id, "timestamp-ms": s.timestamp_ms} for s in kept),
                {"snapshot-id": ident, "timestamp-ms": now},
            ],
            "metadata-log": log,
            "sort-orders": [UNSORTED_SORT_ORDER],
            "refs": {"main": {"snapshot-id": ident, "type": "branch"}},
            "last-sequence-number": sequence,
        }
    )


def _content(held: Held) -> str:
    """Stands for the columns and files of a version."""
    layout = {name: str(kind) for name, kind in held.layout.items()}
    said = [layout, held.partition, sorted(held.files["path"].to_pylist())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _mark(held: Held) -> str:
    return json.dumps({"epoch": held.mark.epoch, "seq": held.mark.seq})


def _properties(held: Held, shape: Shape) -> Mapping[str, str]:
    return {
        "schema.name-mapping.default": name_mapping(shape.schema),
        # Files belong to the lake: an engine that expires snapshots must not delete them.
        "gc.enabled": "false",
        _MARK: _mark(held),
        _LAKE_VERSION: str(held.version),
        _CONTENT: _content(held),
    }


def _summary(held: Held, written: Written) -> Mapping[str, Any]:
    operation = (
        "overwrite" if written.added and written.removed else "delete" if written.removed else "append"
    )
    return {
        "operation": operation,
        "added-data-files": str(written.added),
        "deleted-data-files": str(written.removed),
        "added-records": str(written.added_rows),
        "deleted-records": str(written.removed_rows),
        "total-data-files": str(written.files),
        "total-records": str(written.rows),
        "total-files-size": str(written.bytes),
        "total-delete-files": "0",
        "total-position-deletes": "0",
        "total-equality-deletes": "0",
        _MARK: _mark(held),
        _LAKE_VERSION: str(held.version),
    }


def _unexpired(metadata: TableMetadataV2, now: int) -> Sequence[Snapshot]:
    """The snapshots whose files are surely there, oldest first: the current one, and those succeeded not long
    ago.
    """
    snapshots = sorted(metadata.snapshots, key=lambda s: s.timestamp_ms)
    oldest = now - RETENTION_HOURS * 3_600_000
    ends = [s.timestamp_ms for s in snapshots[1:]] + [now]
    return [s for s, end in zip(snapshots, ends, strict=True) if end > oldest][-SNAPSHOTS + 1 :]
