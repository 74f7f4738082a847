"""The nouns of published views: what is shown, where, and of which version of a lake table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from headwater.lake import Held, Kind
from headwater.lake.commits import folder_of
from headwater.model import Mark, TableId
from headwater.storage import Storage

#: How a catalogue spells the partition of NULL.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class Target:
    """One view of one lake table."""

    table: TableId
    kind: Kind
    view: str

    @property
    def folder(self) -> str:
        """Where everything of the view lies in the store, apart from the lake table itself: so no VACUUM of
        Delta takes it for a left-over."""
        return f"{folder_of(self.table, self.kind)}_{self.view}"


@dataclass(frozen=True, slots=True)
class Shown:
    """Where a view stands.

    version, mark  the lake version it shows, and how far of the raw log that is
    rows           how many rows it has
    pointer        the file of the store that readers start from: a symlink manifest or Iceberg metadata
    """

    target: Target
    version: int
    mark: Mark
    rows: int
    pointer: str


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of a view: its values in the order of the columns, and the folder of its manifest."""

    values: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a catalogue is told of a view.

    columns     name -> the lake's Arrow type, without the partition columns
    location    URI of the folder of symlink manifests, or of the Iceberg table
    metadata    URI of the Iceberg metadata; "" for others
    partitions  of a partitioned view of symlink manifests
    """

    shown: Shown
    columns: Mapping[str, pa.DataType]
    partition: tuple[str, ...]
    location: str
    metadata: str = ""
    partitions: Sequence[Partition] = ()


class View(Protocol):
    """A published format. One committed version of a lake table in, a view of the same out."""

    def publish(self, held: Held) -> Listing:
        """Show this version, unless it is shown already; whole, or what was shown before stays.

        Any number of publishers may race, and any may be killed: the newest version wins in the end.
        """
        ...

    def shown(self, target: Target) -> Shown | None:
        """What readers see now; None before the first time."""
        ...


class Catalog(Protocol):
    """Where views are registered by name."""

    def register(self, listing: Listing, name: str) -> None:
        """Make the catalogue say what is shown; writes only what differs."""
        ...


def uri_of(storage: Storage, path: str) -> str:
    """The address of a file of the store for other engines."""
    place, _ = storage.delta(path)
    return f"file://{place}" if storage.local is not None else place


def own_columns(held: Held) -> dict[str, pa.DataType]:
    """The columns in the files of a view: a partition column is in the folder's name instead."""
    return {name: kind for name, kind in held.layout.items() if name not in held.partition}
