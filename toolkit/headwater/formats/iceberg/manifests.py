"""Iceberg's manifests of a lake version: what stayed is named by its old manifests, not written anew."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.formats.iceberg.schema import Shape, iceberg_types
from headwater.formats.views import Target, uri_of
from headwater.lake import Held
from headwater.lake.commits import folder_of
from headwater.storage import Storage

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile, ManifestEntry, ManifestFile
    from pyiceberg.table.snapshots import Snapshot
    from pyiceberg.types import PrimitiveType

#: So many manifests are merged into one.
MERGED = 64


@dataclass(frozen=True, slots=True)
class Written:
    """A manifest list in the store, and what its snapshot added and removed."""

    location: str
    added: int
    removed: int
    added_rows: int
    removed_rows: int
    files: int
    rows: int
    bytes: int


class Manifests:
    """The manifests of one view."""

    def __init__(self, storage: Storage, target: Target) -> None:
        self.target = target
        self._storage, self._folder = storage, f"{target.folder}/metadata"
        self._base = uri_of(storage, target.folder).removesuffix(target.folder)

    def uri(self, path: str) -> str:
        """The address of a file of the store."""
        return self._base + path

    def path(self, uri: str) -> str:
        """The name in the store of an address."""
        return uri.removeprefix(self._base)

    def of(self, snapshot: Snapshot) -> Sequence[ManifestFile]:
        """The manifests of a snapshot."""
        from pyiceberg.manifest import read_manifest_list

        from headwater.formats.iceberg.local import LocalFile

        return list(read_manifest_list(LocalFile(self._fetch(snapshot.manifest_list))))

    def write(self, held: Held, shape: Shape, snapshot: tuple[int, int], parent: Snapshot | None) -> Written:
        """Write what is new of a version.

        `snapshot` is the new one's id and sequence number, `parent` the one to go on from.
        """
        wanted = {f"{folder_of(held.table, held.kind)}/{file['path']}": file for file in _files(held)}
        uris = {self.uri(path): path for path in wanted}
        kept, again, gone = self._sort(self.of(parent) if parent else (), set(uris))
        there = {entry.data_file.file_path for entry in again} | self._paths(kept)
        make = _Maker(held, shape)
        added = [make.file(uri, wanted[path]) for uri, path in sorted(uris.items()) if uri not in there]
        manifests = list(kept)
        if added or again or gone:
            manifests.append(self._write_manifest(shape, snapshot[0], (added, again, gone)))
        location = self._write_list(manifests, snapshot, parent)
        return Written(
            location,
            len(added),
            len(gone),
            sum(file.record_count for file in added),
            sum(entry.data_file.record_count for entry in gone),
            len(wanted),
            sum(int(file["num_records"]) for file in wanted.values()),
            sum(int(file["size_bytes"]) for file in wanted.values()),
        )

    def _sort(
        self, manifests: Sequence[ManifestFile], wanted: set[str]
    ) -> tuple[list[ManifestFile], list[ManifestEntry], list[ManifestEntry]]:
        """Manifests that hold as they are, entries that need another one, entries of files that are gone."""
        kept: list[ManifestFile] = []
        again: list[ManifestEntry] = []
        gone: list[ManifestEntry] = []
        for manifest in manifests:
            entries = self._entries(manifest)
            left = [entry for entry in entries if entry.data_file.file_path not in wanted]
            if left or len(manifests) >= MERGED:
                gone += left
                again += [entry for entry in entries if entry.data_file.file_path in wanted]
            elif entries:
                kept.append(manifest)
        return kept, again, gone

    def _paths(self, manifests: Iterable[ManifestFile]) -> set[str]:
        return {entry.data_file.file_path for manifest in manifests for entry in self._entries(manifest)}

    def _entries(self, manifest: ManifestFile) -> Sequence[ManifestEntry]:
        from headwater.formats.iceberg.local import Fetched

        return manifest.fetch_manifest_entry(Fetched(self._fetch))

    def _fetch(self, uri: str) -> Path:
        return self._storage.fetch(self.path(uri))

    def _write_manifest(
        self,
        shape: Shape,
        snapshot: int,
        content: tuple[Sequence[DataFile], Sequence[ManifestEntry], Sequence[ManifestEntry]],
    ) -> ManifestFile:
        from pyiceberg.manifest import ManifestEntry, ManifestEntryStatus, write_manifest

        from headwater.formats.iceberg.local import LocalFile

        added, again, gone = content
        name = f"{uuid.uuid4()}-m0.avro"
        file = self._storage.scratch() / name
        with write_manifest(2, shape.spec, shape.schema, LocalFile(file), snapshot, "deflate") as writer:
            for new in added:
                writer.add(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, data_file=new))
            for entry in again:
                writer.existing(entry)
            for entry in gone:
                writer.delete(entry)
        made = writer.to_manifest_file()
        made[0] = self._upload(file, name)  # its path
        return made

    def _write_list(
        self, manifests: Sequence[ManifestFile], snapshot: tuple[int, int], parent: Snapshot | None
    ) -> str:
        from pyiceberg.manifest import write_manifest_list

        from headwater.formats.iceberg.local import LocalFile

        name = f"snap-{snapshot[0]}-1-{uuid.uuid4()}.avro"
        file = self._storage.scratch() / name
        before = parent.snapshot_id if parent else None
        with write_manifest_list(2, LocalFile(file), snapshot[0], before, snapshot[1], "deflate") as writer:
            writer.add_manifests(list(manifests))
        return self._upload(file, name)

    def _upload(self, file: Path, name: str) -> str:
        path = f"{self._folder}/{name}"
        self._storage.upload(file, path, step="iceberg.manifest")
        return self.uri(path)


class _Maker:
    """Entries of the files of one lake version."""

    def __init__(self, held: Held, shape: Shape) -> None:
        self._partition = held.partition
        self._fields = {field.name: field.field_id for field in shape.schema.fields}
        self._types = iceberg_types(held.layout)

    def file(self, uri: str, facts: Mapping[str, Any]) -> DataFile:
        """One file, with the bounds of its columns as far as the lake knows them."""
        from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
        from pyiceberg.typedef import Record

        nulls = {
            number: int(facts[f"null_count.{name}"])
            for name, number in self._fields.items()
            if facts.get(f"null_count.{name}") is not None
        }
        rows = int(facts["num_records"])
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=uri,
            file_format=FileFormat.PARQUET,
            partition=Record(*(facts[f"partition.{name}"] for name in self._partition)),
            record_count=rows,
            file_size_in_bytes=int(facts["size_bytes"]),
            value_counts=dict.fromkeys(nulls, rows),
            null_value_counts=nulls,
            lower_bounds=dict(self._bounds(facts, "min")),
            upper_bounds=dict(self._bounds(facts, "max")),
        )

    def _bounds(self, facts: Mapping[str, Any], which: str) -> Iterable[tuple[int, bytes]]:
        from pyiceberg.conversions import to_bytes

        for name, kind in self._types.items():
            value = facts.get(f"{which}.{name}")
            if value is not None and _is_bounded(kind):
                yield self._fields[name], to_bytes(kind, value)


def _is_bounded(kind: PrimitiveType) -> bool:
    """Bounds of floats would hide NaN from readers that skip files by them."""
    from pyiceberg import types

    return not isinstance(kind, types.FloatType | types.DoubleType | types.BooleanType | types.BinaryType)


def _files(held: Held) -> Sequence[Mapping[str, Any]]:
    """What the lake says of its files. Days and moments are numbers: Python has none before the year 1."""
    files = held.files
    for place, field in enumerate(files.schema):
        number = pa.int32() if pa.types.is_date32(field.type) else pa.int64()
        if pa.types.is_date32(field.type) or pa.types.is_timestamp(field.type):
            files = files.set_column(place, field.name, files.column(place).cast(number))
    rows: Sequence[Mapping[str, Any]] = files.to_pylist()
    return rows
