"""Histories held against what the staged changes tell of every version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import literal
from headwater.model import Column, Digest, TableSchema
from headwater.verify.compare import Options, Target, digests, held_columns, slices_for, unequal
from headwater.verify.found import KeyDifference
from headwater.verify.sides import Pair, Side, differences

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions that should be: SQL in a connection.

    notes  those of the lake's history, or of its mirror, whose rows have no `spans`
    """

    schema: TableSchema
    relation: str
    connection: DuckDBPyConnection
    notes: Mapping[str, str]
    spans: bool = True

    @property
    def whole(self) -> TableSchema:
        """The columns of a version: the table's, its span, and its place in the log."""
        more: dict[str, pa.DataType] = {"_hw_op": pa.string(), "_hw_seq": pa.int64()}
        if self.spans:
            more |= {self.notes[name]: _MOMENT for name in ("valid_from", "valid_to")}
            more |= {self.notes["current"]: pa.bool_(), "_hw_seq_to": pa.int64()}
        plain = tuple(replace(c, mask="") for c in self.schema.columns)
        return replace(self.schema, columns=(*plain, *(Column(name, its) for name, its in more.items())))


@dataclass(frozen=True, slots=True)
class VersionCheck:
    """One history compared; a version that should be there and is not is `missing`."""

    where: str
    expected: Digest
    found: Digest
    differing: tuple[KeyDifference, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether it holds every version, and no other."""
        return self.expected == self.found


def compare_versions(ours: Versions, targets: Mapping[str, Target], options: Options) -> list[VersionCheck]:
    """Hold each history against the versions that should be; a target that is not there counts as empty."""
    count = ours.connection.execute(f"SELECT count(*) FROM {ours.relation}").fetchall()[0][0]
    slices = slices_for(count)
    wanted = digests(ours.whole, ours.relation, ours.connection, slices)
    return [_compare(ours, wanted, slices, where, target, options) for where, target in targets.items()]


def _compare(  # noqa: PLR0913, PLR0917
    ours: Versions,
    wanted: Mapping[int, Digest],
    slices: int,
    where: str,
    target: Target,
    options: Options,
) -> VersionCheck:
    schema, none = ours.whole, Digest(0)
    found = digests(schema, *target, slices) if target else {}
    totals = sum(wanted.values(), none), sum(found.values(), none)
    wrong = unequal(wanted, found)
    if not wrong or target is None:
        return VersionCheck(where, *totals)
    relation, connection = target
    with TemporaryDirectory(prefix="headwater-verify-", dir=options.scratch) as folder:
        copy = _copy(ours, Path(folder) / "versions.parquet")
        pair = Pair(
            Side(schema, copy, held_columns(copy, connection), slices),
            Side(schema, relation, held_columns(relation, connection), slices),
            connection,
        )
        rows = totals[0].rows // slices + 1
        differing, counts = differences(pair, where, wrong, rows, options.limit)
    return VersionCheck(where, *totals, tuple(differing), counts)


def _copy(ours: Versions, path: Path) -> str:
    """The versions as a file, which any connection can read."""
    ours.connection.execute(f"COPY (SELECT * FROM {ours.relation}) TO {literal(str(path))} (FORMAT parquet)")
    return f"read_parquet({literal(str(path))})"
