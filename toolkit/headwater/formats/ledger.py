"""The numbered records of a view of symlink manifests: what each publication shows, and which one is settled.

A record is created only if its number is free: that settles who publishes what. Then the manifests follow it,
and `current.json` says that they have. Whoever finds a record that is newer than `current.json` writes the
manifests of the newest again: so neither a stop nor a slow publisher leaves an older version in view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from headwater.errors import Corrupt
from headwater.model import Mark
from headwater.storage import Storage

_FORMAT = "headwater-view/1"
#: So many records stay, for publishers that are still looking at them.
KEPT = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the lake table as a view shows it; `folder` is that of its partition, "" for none."""

    base: str  # the path in the lake table's folder
    path: str  # the path in the store of the file that is shown
    rows: int
    folder: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One publication.

    shape    stands for the columns and the settings: files made for another one are made anew
    dropped  files of ours that earlier records showed -> when they left (seconds since 1970)
    """

    number: int
    version: int
    mark: Mark
    shape: str
    parts: Sequence[Part]
    dropped: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The record as it is stored."""
        doc = {"format": _FORMAT, **asdict(self)}
        return json.dumps(doc, separators=(",", ":"), sort_keys=True).encode() + b"\n"

    @property
    def folders(self) -> Mapping[str, Sequence[Part]]:
        """The files by the folder of their partition; without files, the root alone."""
        found: dict[str, list[Part]] = {}
        for part in sorted(self.parts, key=lambda part: part.path):
            found.setdefault(part.folder, []).append(part)
        return found or {"": []}


def read_record(data: bytes, path: str) -> Record:
    """Read back what `to_json` wrote."""
    try:
        doc: dict[str, Any] = json.loads(data)
        assert doc.pop("format") == _FORMAT
        doc["mark"] = Mark(**doc["mark"])
        doc["parts"] = tuple(Part(**{**part, "values": tuple(part["values"])}) for part in doc["parts"])
        return Record(**doc)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise Corrupt(f"{path}: not a record of a published view", hint=f"delete {path}") from None


class Ledger:
    """The records of one view."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, f"{folder}/_headwater"
        self.pointer = f"{self._folder}/current.json"

    def newest(self) -> Record | None:
        """The record with the highest number, settled or not."""
        names = [path for path in self._storage.list(self._folder) if path != self.pointer]
        return self._read(names[-1]) if names else None

    def settled(self) -> Record | None:
        """What the manifests say, as far as that is known."""
        data = self._storage.find(self.pointer)
        return None if data is None else read_record(data, self.pointer)

    def claim(self, record: Record, step: str) -> bool:
        """Make it the newest; False when somebody else took its number."""
        path, data = self._path(record.number), record.to_json()
        return self._storage.create(path, data, step=step) or self._storage.find(path) == data

    def settle(self, record: Record, step: str) -> None:
        """Note that the manifests say what this record does, and let old records go."""
        self._storage.replace(self.pointer, record.to_json(), step=step)
        if record.number >= KEPT:
            self._storage.delete([self._path(record.number - KEPT)])

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:012d}.json"

    def _read(self, path: str) -> Record:
        return read_record(self._storage.read(path), path)
