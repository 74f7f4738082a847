"""Hive views: files that a symlink manifest names, so that Athena, Spectrum, Trino and Hive read one version.

`parquet` shows the lake table's own files. `orc` and `csv` show one file of their own for each of these. The
manifest of each partition is replaced whole; `ledger` says how publishers take turns. docs/formats.md.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from headwater.formats.cells import refuse_unheld
from headwater.formats.convert import Converter
from headwater.formats.ledger import Ledger, Part, Record
from headwater.formats.views import (
    NULL_PARTITION,
    Listing,
    Partition,
    Shown,
    Target,
    own_columns,
    uri_of,
)
from headwater.lake import Held, Kind
from headwater.lake.commits import folder_of
from headwater.lake.delta import RETENTION_HOURS, Lake
from headwater.model import TableId
from headwater.storage import Storage

#: A look for files that no record names, left by a stop, comes with every so many publications.
SWEPT_AFTER = 64
#: They are deleted when they are older than this: before, somebody may be about to name them.
LEFTOVER_HOURS = 24
#: So many files that left a view are kept at most for readers that still have them open.
MOST_DROPPED = 1_000


class Symlinks:
    """The view `parquet`, `orc` or `csv` of the lake tables of one store. Implements `View`."""

    def __init__(self, storage: Storage, lake: Lake, view: str, compression: str = "gzip") -> None:
        self._storage, self._lake, self._view = storage, lake, view
        self._converter = Converter(lake, view, compression) if view != "parquet" else None

    def shown(self, target: Target) -> Shown | None:
        """What readers see now."""
        record = Ledger(self._storage, target.folder).settled()
        return None if record is None else self._shown(target, record)

    def publish(self, held: Held) -> Listing:
        """Show this version, unless it is shown already."""
        target = Target(held.table, held.kind, self._view)
        refuse_unheld(held.table, self._view, held.layout)
        ledger, shape = Ledger(self._storage, target.folder), self._shape(held)
        while True:
            newest = ledger.newest()
            if newest is not None and newest.version > held.version:
                held = self._reopened(held.table, held.kind)
            if newest is not None and self._is_shown(newest, held, shape):
                record = newest
                break
            record = self._record(target, held, shape, newest)
            if ledger.claim(record, f"{self._view}.record"):
                break
        record = self._settle(target, ledger, record)
        return self._listing(target, held, record)

    def _reopened(self, table: TableId, kind: Kind) -> Held:
        """The version there is now: somebody has published a newer one, or the table was made anew."""
        held = self._lake.open(table, kind)
        assert held is not None
        return held

    def _is_shown(self, record: Record, held: Held, shape: str) -> bool:
        bases = {part.base for part in record.parts}
        return (record.mark, record.shape) == (held.mark, shape) and bases == set(
            held.files["path"].to_pylist()
        )

    def _shape(self, held: Held) -> str:
        """What files are made for: other columns or another compression make them anew, so that readers who
        go by the place of a column find it in all of them."""
        said = {
            "columns": {name: str(kind) for name, kind in held.layout.items()},
            "partition": held.partition,
            "suffix": self._converter.suffix if self._converter else ".parquet",
        }
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]

    def _record(self, target: Target, held: Held, shape: str, before: Record | None) -> Record:
        known = {part.base: part for part in before.parts} if before and before.shape == shape else {}
        folder = folder_of(held.table, held.kind)
        new = [path for path in held.files["path"].to_pylist() if path not in known]
        made = self._made(target, held, new, shape) if self._converter else {p: f"{folder}/{p}" for p in new}
        parts = []
        for file in held.files.to_pylist():
            path = str(file["path"])
            part = known.get(path)
            if part is None:
                values = tuple(_value(file[f"partition.{name}"]) for name in held.partition)
                shown = made[path]
                part = Part(path, shown, int(file["num_records"]), _named(path, held.partition), values)
            parts.append(part)
        number = before.number + 1 if before else 0
        dropped = _dropped(before, parts, time.time()) if self._converter else {}
        return Record(number, held.version, held.mark, shape, tuple(parts), dropped)

    def _made(self, target: Target, held: Held, paths: Sequence[str], shape: str) -> Mapping[str, str]:
        """Make the files of the view that are not there yet: path in the lake table -> path in the store."""
        assert self._converter is not None
        made = {}
        for path in paths:
            there = PurePosixPath(path)
            name = str(there.parent / f"{there.stem}-{shape}{self._converter.suffix}")
            made[path] = f"{target.folder}/data/{name}"
        lacking = [path for path in paths if not self._storage.exists(made[path])]
        if lacking:
            for path, file in self._converter.convert(held, lacking, self._storage.scratch()):
                self._storage.upload(file, made[path], step=f"{self._view}.data")
        return made

    def _settle(self, target: Target, ledger: Ledger, record: Record) -> Record:
        """Bring the manifests to the newest record, however often that moves on meanwhile."""
        settled = ledger.settled()
        if settled is not None and settled.number == record.number:
            return record
        while True:
            self._write_manifests(target, record, settled)
            newest = ledger.newest()
            if newest is None or newest.number == record.number:
                ledger.settle(record, f"{self._view}.pointer")
                self._sweep(target, record, settled)
                return record
            # Somebody went on meanwhile, and what was just written may lie over theirs: all of it again.
            record, settled = newest, None

    def _write_manifests(self, target: Target, record: Record, settled: Record | None) -> None:
        """Every partition's manifest that differs from the settled record's.

        Where that is not the one before, or a stop may lie between, all are written, and others go.
        """
        known: Mapping[str, Sequence[Part]] = {}
        if settled is not None and settled.number == record.number - 1:
            known = settled.folders
        for folder, parts in record.folders.items():
            if [p.path for p in known.get(folder, ())] != [p.path for p in parts] or folder not in known:
                lines = "".join(f"{uri_of(self._storage, part.path)}\n" for part in parts)
                path = _manifest(target, folder)
                self._storage.replace(path, lines.encode(), step=f"{self._view}.manifest")
        wanted = {_manifest(target, folder) for folder in record.folders}
        there = [_manifest(target, f) for f in known] if known else self._storage.list(_manifests(target))
        self._storage.delete([path for path in there if path not in wanted])

    def _sweep(self, target: Target, record: Record, settled: Record | None) -> None:
        """Delete files of ours that left long ago, or that no record ever named."""
        if self._converter is None:
            return
        fewer = settled is not None and bool(set(settled.dropped) - set(record.dropped))
        if not (fewer or record.number % SWEPT_AFTER == SWEPT_AFTER - 1):
            return
        kept = {part.path for part in record.parts} | set(record.dropped)
        old = datetime.now(UTC) - timedelta(hours=LEFTOVER_HOURS)
        gone = settled.dropped if settled is not None else {}
        files = self._storage.files(f"{target.folder}/data")
        self._storage.delete(
            [f.path for f in files if f.path not in kept and (f.path in gone or f.modified < old)]
        )

    def _shown(self, target: Target, record: Record) -> Shown:
        rows = sum(part.rows for part in record.parts)
        pointer = (
            _manifest(target, "") if "" in record.folders else Ledger(self._storage, target.folder).pointer
        )
        return Shown(target, record.version, record.mark, rows, pointer)

    def _listing(self, target: Target, held: Held, record: Record) -> Listing:
        folders = record.folders.items() if held.partition else ()
        partitions = [
            Partition(parts[0].values, uri_of(self._storage, f"{_manifests(target)}/{folder}"))
            for folder, parts in folders
            if parts
        ]
        return Listing(
            self._shown(target, record),
            own_columns(held),
            held.partition,
            uri_of(self._storage, _manifests(target)),
            partitions=partitions,
        )


def _manifests(target: Target) -> str:
    return f"{target.folder}/_symlink_format_manifest"


def _manifest(target: Target, folder: str) -> str:
    return "/".join(filter(None, (_manifests(target), folder, "manifest")))


def _value(text: str | None) -> str:
    return NULL_PARTITION if text is None else text


def _named(path: str, partition: Sequence[str]) -> str:
    """The folders of a path that are native partitions."""
    names = set(partition)
    return "/".join(step for step in path.split("/")[:-1] if step.partition("=")[0] in names)


def _dropped(before: Record | None, parts: Sequence[Part], now: float) -> Mapping[str, float]:
    """What left the view, and when; without what left it so long ago that nobody reads it any more."""
    if before is None:
        return {}
    kept = {part.path for part in parts}
    left = dict(before.dropped) | {part.path: now for part in before.parts if part.path not in kept}
    fresh = {path: at for path, at in left.items() if path not in kept and now - at < RETENTION_HOURS * 3600}
    return dict(sorted(fresh.items(), key=lambda item: item[1])[-MOST_DROPPED:])
