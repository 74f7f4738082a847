"""The Iceberg view: the lake's own Parquet files under Iceberg metadata. Needs `headwater[iceberg]`.

The metadata lies as in Iceberg's Hadoop tables: `metadata/v<n>.metadata.json`, created only if the number is
free, and `metadata/version-hint.text`, which says n. So readers open it by its folder, without a catalogue.
docs/formats.md, docs/decisions/0081.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from headwater.errors import ConfigError, Corrupt
from headwater.formats.cells import refuse_unheld
from headwater.formats.iceberg.manifests import Manifests
from headwater.formats.iceberg.metadata import (
    KEPT,
    hint_path,
    is_shown,
    lake_version,
    metadata_path,
    next_metadata,
    shown_of,
)
from headwater.formats.views import Listing, Shown, Target
from headwater.lake import Held
from headwater.lake.delta import Lake
from headwater.storage import Storage

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadataV2

#: Every so many publications, files that nothing names and that are a day old are deleted.
SWEPT_AFTER = 16
LEFTOVER_HOURS = 24

_VERSION = re.compile(r"v(\d+)\.metadata\.json")


def require_pyiceberg() -> None:
    """Raise ConfigError where the library is not installed."""
    if find_spec("pyiceberg") is None:
        raise ConfigError(
            "format: iceberg needs pyiceberg, which is not installed",
            hint="pip install 'headwater[iceberg]'",
        )


class Iceberg:
    """The view `iceberg` of the lake tables of one store. Implements `View`."""

    def __init__(self, storage: Storage, lake: Lake) -> None:
        require_pyiceberg()
        self._storage, self._lake = storage, lake

    def shown(self, target: Target) -> Shown | None:
        """What readers see now."""
        hint = self._hint(target)
        if hint is None:
            return None
        metadata = self._read(target, hint)
        return None if metadata is None else shown_of(target, hint, metadata)

    def publish(self, held: Held) -> Listing:
        """Show this version, unless it is shown already."""
        target = Target(held.table, held.kind, "iceberg")
        refuse_unheld(held.table, "iceberg", held.layout)
        while True:
            number, newest = self._newest(target)
            if newest is not None and lake_version(newest) > held.version:
                held = self._reopened(held)
            if newest is not None and is_shown(newest, held):
                break
            newest, number = next_metadata(Manifests(self._storage, target), held, number, newest), number + 1
            data = newest.model_dump_json().encode()
            path = metadata_path(target, number)
            if self._storage.create(path, data, step="iceberg.metadata") or self._storage.find(path) == data:
                break
        number, newest = self._settle(target, number, newest)
        manifests = Manifests(self._storage, target)
        return Listing(
            shown_of(target, number, newest),
            held.layout,
            held.partition,
            manifests.uri(target.folder),
            manifests.uri(metadata_path(target, number)),
        )

    def _reopened(self, held: Held) -> Held:
        """The version there is now: somebody has published a newer one, or the table was made anew."""
        newest = self._lake.open(held.table, held.kind)
        assert newest is not None
        return newest

    # The pointer.

    def _hint(self, target: Target) -> int | None:
        data = self._storage.find(hint_path(target))
        if data is None:
            return None
        if not data.strip().isdigit():
            raise Corrupt(
                f"{hint_path(target)}: not a number", hint=f"delete {hint_path(target)}, then: headwater run"
            )
        return int(data)

    def _newest(self, target: Target) -> tuple[int, TableMetadataV2 | None]:
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

    def _read(self, target: Target, number: int) -> TableMetadataV2 | None:
        from pyiceberg.table.metadata import TableMetadataV2

        data = self._storage.find(metadata_path(target, number))
        return None if data is None else TableMetadataV2.model_validate_json(data)

    def _settle(self, target: Target, number: int, metadata: TableMetadataV2) -> tuple[int, TableMetadataV2]:
        """Let the hint say the newest number, however often that moves on meanwhile."""
        while self._hint(target) != number:
            self._storage.replace(hint_path(target), str(number).encode(), step="iceberg.pointer")
            newest, found = self._newest(target)
            if newest == number or found is None:
                self._sweep(target, number, metadata)
                break
            number, metadata = newest, found
        return number, metadata

    # Upkeep.

    def _sweep(self, target: Target, number: int, metadata: TableMetadataV2) -> None:
        """Delete metadata that nothing names, now and then."""
        if number % SWEPT_AFTER:
            return
        manifests, live = Manifests(self._storage, target), {hint_path(target)}
        live |= {metadata_path(target, n) for n in range(number - KEPT + 1, number + 2)}
        for snapshot in metadata.snapshots:
            live.add(manifests.path(snapshot.manifest_list))
            live |= {manifests.path(manifest.manifest_path) for manifest in manifests.of(snapshot)}
        old = datetime.now(UTC) - timedelta(hours=LEFTOVER_HOURS)
        files = self._storage.files(f"{target.folder}/metadata")
        self._storage.delete([f.path for f in files if f.path not in live and f.modified < old])
