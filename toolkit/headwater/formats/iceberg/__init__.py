"""The Iceberg view: the lake's own Parquet files under Iceberg metadata. Needs `headwater[iceberg]`.

The metadata lies as in Iceberg's Hadoop tables: `metadata/v<n>.metadata.json`, created only if the number is
free, and `metadata/version-hint.text`, which says n. So readers open it by its folder, without a catalogue.
docs/formats.md, docs/decisions/0081.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from headwater.errors import ConfigError, Corrupt
from headwater.formats.cells import refuse_unheld
from headwater.formats.iceberg.manifests import Manifests, Written
from headwater.formats.iceberg.schema import Shape, name_mapping, shape_of
from headwater.formats.views import Listing, Shown, Target
from headwater.lake import Held
from headwater.lake.delta import RETENTION_HOURS, Lake
from headwater.model import Mark
from headwater.storage import Storage

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

#: So many snapshots stay at most, and none that was succeeded longer ago than the lake keeps files.
SNAPSHOTS = 100
#: So many metadata files stay.
KEPT = 20
#: Every so many publications, files that nothing names and that are a day old are deleted.
SWEPT_AFTER = 16
LEFTOVER_HOURS = 24

_VERSION = re.compile(r"v(\d+)\.metadata\.json")
_MARK, _LAKE_VERSION, _CONTENT = "headwater.mark", "headwater.version", "headwater.content"


class Iceberg:
    """The view `iceberg` of the lake tables of one store. Implements `View`."""

    def __init__(self, storage: Storage, lake: Lake) -> None:
        try:
            import pyiceberg  # noqa: F401
        except ImportError:
            raise ConfigError(
                "format: iceberg needs pyiceberg, which is not installed",
                hint="pip install 'headwater[iceberg]'",
            ) from None
        self._storage, self._lake = storage, lake

    def shown(self, target: Target) -> Shown | None:
        """What readers see now."""
        hint = self._hint(target)
        if hint is None:
            return None
        metadata = self._read(target, hint)
        return None if metadata is None else _shown(target, hint, metadata)

    def publish(self, held: Held) -> Listing:
        """Show this version, unless it is shown already."""
        target = Target(held.table, held.kind, "iceberg")
        refuse_unheld(held.table, "iceberg", held.layout)
        while True:
            number, newest = self._newest(target)
            if newest is not None and int(newest.properties[_LAKE_VERSION]) > held.version:
                held = self._reopened(held)
            if newest is not None and _is_shown(newest, held):
                break
            newest, number = self._next(target, held, number, newest), number + 1
            data = newest.model_dump_json().encode()
            path = _metadata(target, number)
            if self._storage.create(path, data, step="iceberg.metadata") or self._storage.find(path) == data:
                break
        number, newest = self._settle(target, number, newest)
        manifests = Manifests(self._storage, target)
        return Listing(
            _shown(target, number, newest),
            held.layout,
            held.partition,
            manifests.uri(target.folder),
            manifests.uri(_metadata(target, number)),
        )

    def _reopened(self, held: Held) -> Held:
        """The version there is now: somebody has published a newer one, or the table was made anew."""
        newest = self._lake.open(held.table, held.kind)
        assert newest is not None
        return newest

    # The pointer.

    def _hint(self, target: Target) -> int | None:
        data = self._storage.find(_hint(target))
        if data is None:
            return None
        if not data.strip().isdigit():
            raise Corrupt(
                f"{_hint(target)}: not a number", hint=f"delete {_hint(target)}, then: headwater run"
            )
        return int(data)

    def _newest(self, target: Target) -> tuple[int, TableMetadata | None]:
        """The highest number and its metadata: that of the hint, or one behind it after a stop."""
        number = self._hint(target)
        if number is None:
            names = (
                _VERSION.fullmatch(p.rsplit("/", 1)[-1])
                for p in self._storage.list(f"{target.folder}/metadata")
            )
            number = max((int(found[1]) for found in names if found), default=0)
        newest = self._read(target, number) if number else None
        while (behind := self._read(target, number + 1)) is not None:
            number, newest = number + 1, behind
        return number, newest

    def _read(self, target: Target, number: int) -> TableMetadata | None:
        from pyiceberg.table.metadata import TableMetadataUtil

        data = self._storage.find(_metadata(target, number))
        return None if data is None else TableMetadataUtil.parse_raw(data.decode())

    def _settle(self, target: Target, number: int, metadata: TableMetadata) -> tuple[int, TableMetadata]:
        """Let the hint say the newest number, however often that moves on meanwhile."""
        while self._hint(target) != number:
            self._storage.replace(_hint(target), str(number).encode(), step="iceberg.pointer")
            newest, found = self._newest(target)
            if newest == number or found is None:
                self._sweep(target, number, metadata)
                break
            number, metadata = newest, found
        return number, metadata

    # Metadata.

    def _next(self, target: Target, held: Held, number: int, before: TableMetadata | None) -> TableMetadata:
        """The metadata of a version; its manifests are in the store, and nobody sees them yet."""
        from pyiceberg.table.metadata import TableMetadataV2
        from pyiceberg.table.refs import SnapshotRef, SnapshotRefType
        from pyiceberg.table.snapshots import MetadataLogEntry, SnapshotLogEntry
        from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

        shape, manifests = shape_of(held, before), Manifests(self._storage, target)
        sequence = (before.last_sequence_number if before else 0) + 1
        now = max(int(time.time() * 1000), (before.last_updated_ms if before else 0) + 1)
        kept = [] if before is None or shape.anew else _unexpired(before, now)
        parent = before.current_snapshot() if before is not None and kept else None
        ident = uuid.uuid4().int >> 65
        written = manifests.write(held, shape, ident, sequence, parent)
        snapshot = _snapshot(held, shape, ident, sequence, now, written, parent)
        log = list(before.metadata_log)[-KEPT + 2 :] if before else []
        if before is not None:
            log.append(
                MetadataLogEntry(
                    metadata_file=manifests.uri(_metadata(target, number)),
                    timestamp_ms=before.last_updated_ms,
                )
            )
        snapshots = [*kept, snapshot]
        schemas = [*before.schemas] if before is not None and not shape.anew else []
        return TableMetadataV2(
            location=manifests.uri(target.folder),
            table_uuid=before.table_uuid if before else uuid.uuid4(),
            last_updated_ms=now,
            last_column_id=shape.last_column,
            schemas=schemas if shape.schema in schemas else [*schemas, shape.schema],
            current_schema_id=shape.schema.schema_id,
            partition_specs=[shape.spec],
            default_spec_id=shape.spec.spec_id,
            last_partition_id=shape.last_partition,
            properties=_properties(held, shape),
            current_snapshot_id=ident,
            snapshots=snapshots,
            snapshot_log=[
                SnapshotLogEntry(snapshot_id=s.snapshot_id, timestamp_ms=s.timestamp_ms) for s in snapshots
            ],
            metadata_log=log,
            sort_orders=[UNSORTED_SORT_ORDER],
            refs={"main": SnapshotRef(snapshot_id=ident, snapshot_ref_type=SnapshotRefType.BRANCH)},
            last_sequence_number=sequence,
        )

    # Upkeep.

    def _sweep(self, target: Target, number: int, metadata: TableMetadata) -> None:
        """Delete metadata that nothing names, now and then."""
        if number % SWEPT_AFTER:
            return
        manifests, live = Manifests(self._storage, target), {_hint(target)}
        live |= {_metadata(target, n) for n in range(number - KEPT + 1, number + 2)}
        for snapshot in metadata.snapshots:
            live.add(manifests.path(snapshot.manifest_list))
            live |= {manifests.path(manifest.manifest_path) for manifest in manifests.of(snapshot)}
        old = datetime.now(UTC) - timedelta(hours=LEFTOVER_HOURS)
        files = self._storage.files(f"{target.folder}/metadata")
        self._storage.delete([f.path for f in files if f.path not in live and f.modified < old])


def _metadata(target: Target, number: int) -> str:
    return f"{target.folder}/metadata/v{number}.metadata.json"


def _hint(target: Target) -> str:
    return f"{target.folder}/metadata/version-hint.text"


def _content(held: Held) -> str:
    """Stands for the columns and files of a version."""
    layout = {name: str(kind) for name, kind in held.layout.items()}
    said = [layout, held.partition, sorted(held.files["path"].to_pylist())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _mark(held: Held) -> str:
    return json.dumps({"epoch": held.mark.epoch, "seq": held.mark.seq})


def _is_shown(metadata: TableMetadata, held: Held) -> bool:
    said = metadata.properties
    return (said[_CONTENT], said[_MARK]) == (_content(held), _mark(held))


def _shown(target: Target, number: int, metadata: TableMetadata) -> Shown:
    snapshot, said = metadata.current_snapshot(), metadata.properties
    rows = snapshot.summary["total-records"] if snapshot and snapshot.summary else None
    mark = Mark(**json.loads(said[_MARK]))
    return Shown(target, int(said[_LAKE_VERSION]), mark, int(rows or 0), _metadata(target, number))


def _properties(held: Held, shape: Shape) -> dict[str, str]:
    return {
        "schema.name-mapping.default": name_mapping(shape.schema),
        # Files belong to the lake: an engine that expires snapshots must not delete them.
        "gc.enabled": "false",
        _MARK: _mark(held),
        _LAKE_VERSION: str(held.version),
        _CONTENT: _content(held),
    }


def _snapshot(  # noqa: PLR0913
    held: Held, shape: Shape, ident: int, sequence: int, now: int, written: Written, parent: Snapshot | None
) -> Snapshot:
    from pyiceberg.table.snapshots import Operation, Snapshot, Summary

    kinds: Mapping[tuple[bool, bool], Operation] = {
        (True, False): Operation.APPEND,
        (False, False): Operation.APPEND,
        (False, True): Operation.DELETE,
        (True, True): Operation.OVERWRITE,
    }
    summary = Summary(
        kinds[bool(written.added), bool(written.removed)],
        **{
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
        },
    )
    return Snapshot(
        snapshot_id=ident,
        parent_snapshot_id=parent.snapshot_id if parent else None,
        sequence_number=sequence,
        timestamp_ms=now,
        manifest_list=written.location,
        summary=summary,
        schema_id=shape.schema.schema_id,
    )


def _unexpired(metadata: TableMetadata, now: int) -> Sequence[Snapshot]:
    """The snapshots whose files are surely there: the current one, and those succeeded not long ago."""
    snapshots = sorted(metadata.snapshots, key=lambda s: s.timestamp_ms)
    oldest = now - RETENTION_HOURS * 3_600_000
    ends = [s.timestamp_ms for s in snapshots[1:]] + [now]
    return [s for s, end in zip(snapshots, ends, strict=True) if end > oldest][-SNAPSHOTS + 1 :]
