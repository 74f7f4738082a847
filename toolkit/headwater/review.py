"""Schema changes as a reviewed thing: every version that the raw log holds of a table, and what changed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from headwater.config import TableSpec
from headwater.differences import differences, written
from headwater.errors import ConfigError, SchemaRefused
from headwater.fold import retyped
from headwater.growth import grow
from headwater.lake.delta import Lake
from headwater.model import BatchRef, Position, TableId, TableSchema
from headwater.raw import RawLog
from headwater.refresh.review import refuse_columns, refuse_truncate


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """A table's columns from one entry of the raw log on.

    position, at   of the first row under it; with a load or without a row, where the entry ends, and None
    """

    table: TableId
    version: int
    entry: int
    position: str
    at: datetime | None
    fingerprint: str
    changes: tuple[str, ...]
    reload: bool  # rows changed without being logged: the table was read again behind it
    schema: TableSchema


def schema_versions(
    log: RawLog, show: Callable[[Position], str], tables: Sequence[TableId]
) -> list[SchemaVersion]:
    """Every version of the tables, by table and in order; a version that differs in nothing is none."""
    last: dict[TableId, TableSchema] = {}
    found: dict[TableId, list[SchemaVersion]] = {table: [] for table in tables}
    for entry in log.entries():
        for ref in entry.batches:
            if ref.table not in found:
                continue
            schema = log.schema(ref.table, ref.schema)
            before, known = last.get(ref.table), found[ref.table]
            said = _first(schema) if before is None else [d.says for d in differences(before, schema)]
            last[ref.table] = schema
            if not said:
                continue
            position, at = _begins(log, ref, show(entry.position))
            known.append(
                SchemaVersion(
                    ref.table, len(known) + 1, entry.seq, position, at, ref.schema, tuple(said), ref.reload,
                    schema,
                )
            )  # fmt: skip
    return [version for table in tables for version in found[table]]


def schema_diff(versions: Sequence[SchemaVersion], since: int | None, to: int | None) -> list[str]:
    """The columns of two versions of a table as a unified diff; by default of the last two."""
    newest = len(versions)
    numbers = [newest - 1 if since is None else since, newest if to is None else to]
    if since is None and to is not None:
        numbers[0] = to - 1
    for number in numbers:
        if not 1 <= number <= newest and not (since is None and number == 0):
            raise ConfigError(
                f"{versions[0].table} has no schema version {number}: they are 1 to {newest}",
                hint=f"headwater schema log {versions[0].table}",
            )
    old, new = (list(_lines(versions[n - 1].schema)) if n else [] for n in numbers)
    names = [f"version {n}" for n in numbers]
    return list(difflib.unified_diff(old, new, names[0], names[1], lineterm="", n=1000))


def held_back(log: RawLog, lake: Lake, spec: TableSpec) -> list[str]:
    """What the table's policies keep out of the lake now, in lines; `Pipeline.schema_accept` lets it in."""
    held, policies = lake.open(spec.table, "changes"), spec.policies
    if held is None or (policies.schema == "evolve" and policies.on_truncate != "fail"):
        return []
    refs = [r for e in log.entries(held.mark.seq) for r in e.batches if r.table == spec.table]
    said = []
    if policies.schema != "evolve":
        for fingerprint in dict.fromkeys(r.schema for r in refs):
            seen = retyped(log.schema(spec.table, fingerprint), spec.casts)
            grown = grow(held.schema, [seen], discard=policies.schema == "discard").schema
            try:
                refuse_columns(spec, held.schema, seen, grown)
            except SchemaRefused as refused:
                said.append(str(refused))
    if policies.on_truncate == "fail" and any(_truncates(log, r) for r in refs if r.phase == "changes"):
        said.append(str(refuse_truncate(spec)))
    return list(dict.fromkeys(said))


def _truncates(log: RawLog, ref: BatchRef) -> bool:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not ref.rows:
        return False
    ops = pq.read_table(log.fetch(ref), columns=["_hw_op"])["_hw_op"]
    return bool(pc.any(pc.equal(ops.cast("string"), "t")).as_py())


def _lines(schema: TableSchema) -> Iterator[str]:
    yield from map(written, schema.columns)
    yield f"key ({', '.join(schema.key)})" if schema.key else "no key"


def _first(schema: TableSchema) -> list[str]:
    key = f"key ({', '.join(schema.key)})" if schema.key else "no key"
    return [f"first seen: {len(schema.columns)} columns, {key}"]


def _begins(log: RawLog, ref: BatchRef, position: str) -> tuple[str, datetime | None]:
    """Where and when a batch begins."""
    if not ref.rows or ref.phase != "changes":
        return position, None
    import pyarrow.parquet as pq

    file = pq.ParquetFile(log.fetch(ref))
    first = next(file.iter_batches(1, columns=["_hw_pos", "_hw_at"])).to_pylist()[0]
    return str(first["_hw_pos"]), first["_hw_at"]
