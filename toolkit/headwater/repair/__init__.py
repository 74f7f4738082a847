"""Repair: the rows of some keys put right, in the lake by the raw log, in the warehouse by the lake.

What the source has otherwise than its log told is read, for these keys alone, and logged as what it is: so
a replay of the raw log gives the same. Nothing else is read again, and no other key is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

from headwater.config import TableSpec, memory_bytes
from headwater.deliver import Parts
from headwater.failpoints import reach
from headwater.handoff.built import Place
from headwater.handoff.tables import table_model
from headwater.lake import Kind
from headwater.lake.delta import Lake
from headwater.lake.derived import broken_files
from headwater.model import STRIDE, TableId, TableSchema
from headwater.refresh import open_work
from headwater.repair.lake import Mending
from headwater.repair.replay import replayed, same_key
from headwater.repair.unlogged import Seen, observed
from headwater.repair.warehouse import put_keys
from headwater.sources import Cut
from headwater.verify.compare import picked_batches
from headwater.verify.found import KeyDifference, TableCheck

#: More keys than this of one table are no accident to put right key by key.
MOST = 10_000

READ_AGAIN = "headwater resync reads it again"
#: A resync brings the warehouse nothing where the lake is right.
BUILD_AGAIN = "headwater dbt build --full-refresh builds the warehouse anew"


@dataclass(slots=True)
class Repair:
    """What was done to one table.

    keys    how many keys were put right, by place: changes, history, mirror, warehouse, raw log
    files   how many files of the lake were written again for it, by lake table
    left    why something was left as it is; "" where nothing was
    """

    table: TableId
    keys: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    left: str = ""


def mend_bases(parts: Parts, spec: TableSpec, schema: TableSchema) -> Repair:
    """Put mirror and history of a table right by its changes, without looking at the source."""
    done = Repair(spec.table)
    with _mending(parts, spec, schema) as mending:
        if mending is not None:
            for kind in _bases():
                mending.by_changes(kind)
            done.keys, done.files = mending.mended.keys, mending.mended.files
    return done


def is_broken(lake: Lake, table: TableId) -> bool:
    """Whether a file of the mirror or the history of a table is gone, or another one than it was."""
    held = [lake.open(table, kind) for kind in _bases()]
    return any(broken_files(lake, base) for base in held if base is not None)


def mend_lake(parts: Parts, spec: TableSpec, schema: TableSchema, keys: Sequence[str]) -> Repair:
    """Put the lake's rows of these keys as the raw log gives them."""
    done = Repair(spec.table, left=why_not(parts, spec, schema, keys))
    if done.left:
        return done
    with _mending(parts, spec, schema) as mending, parts.lake.connect(parts.config.memory_limit) as con:
        if mending is None:
            done.left = f"the lake does not hold it yet; headwater run, and then {READ_AGAIN}"
            return done
        with replayed(parts.storage, con, spec, keys, parts.config.memory_limit) as again:
            if spec.casts and again.open(spec.table, "quarantine") is not None:
                done.left = f"rows of it wait for their casts; headwater quarantine list {spec.table}"
                return done
            mending.by_raw(again, keys)
        for kind in _bases():
            mending.by_changes(kind, keys)
        done.keys, done.files = mending.mended.keys, mending.mended.files
    return done


def log_unseen(  # noqa: PLR0913, PLR0917
    parts: Parts,
    cut: Cut,
    schema: TableSchema,
    differing: Sequence[KeyDifference],
    check: TableCheck,
    guard: Callable[[], None],
) -> int:
    """Log what the source has otherwise than the log told, for the keys of `differing`; returns how many.

    The lake must hold all that is logged, and stand at the cut. `check` says which slices the keys are in.
    """
    table, lake = schema.table, parts.lake
    kinds = {key.text: key.kind for key in differing}
    held = lake.open(table, "changes")
    last = parts.log.last()
    if not kinds or held is None or last is None:
        return 0
    with lake.connect(parts.config.memory_limit) as con:
        seen = Seen(lake.relation(con, table), held.schema, parts.source.show(cut.position))
        read = picked_batches(cut, schema, check.slices, check.unequal)
        batch = observed(con, read, seen, kinds)
    state = parts.log.tables()[table]
    logged = parts.log.schema(table, state.schema)
    if batch is None or _stored(batch.schema) != _stored(logged):
        return 0
    # Under the schema of the log, which says more of how its columns came to be.
    ref = parts.log.stage(replace(batch, schema=logged), state.epoch, last.next_row)
    guard()
    reach("repair.before")
    parts.log.append([ref], cut.position, (ref.last_seq // STRIDE + 1) * STRIDE)
    reach("repair.after")
    return int(batch.rows.num_rows)


def mend_warehouse(
    parts: Parts, spec: TableSpec, schema: TableSchema, places: Mapping[str, Place], keys: Sequence[str]
) -> int:
    """Put the rows of these keys into the tables of the models again; returns how many keys."""
    warehouse = parts.config.warehouse
    if warehouse is None or not keys:
        return 0
    staged = parts.lake.staged(spec.table)
    model = table_model(staged.schema, spec, parts.config.names)
    reach("warehouse.before")
    put_keys(warehouse, model, places, staged, schema, keys)
    reach("warehouse.after")
    return len(keys)


def why_not(
    parts: Parts, spec: TableSpec, schema: TableSchema, keys: Sequence[str], cure: str = READ_AGAIN
) -> str:
    """Why keys of a table cannot be put right one by one, and what to do then; "" where they can."""
    if not schema.key:
        return f"it has no key to find its rows by; {cure}"
    if len(keys) > MOST:
        return f"more than {MOST:,} keys differ; {cure}"
    sources = {c.name: c.source_name for c in schema.columns}
    if any(sources[name] in spec.casts for name in schema.key) or not same_key(parts.log, spec.table, schema):
        return f"its key had another type or other columns once; {cure}"
    return ""


def _stored(schema: TableSchema) -> tuple[object, ...]:
    """What rows are stored under."""
    columns = tuple((c.name, c.type, c.mask) for c in schema.columns)
    return columns, schema.key, schema.where, schema.loaded


def _bases() -> Sequence[Kind]:
    """In the order that a compaction commits them."""
    return ("history", "mirror")


@contextmanager
def _mending(parts: Parts, spec: TableSpec, schema: TableSchema) -> Iterator[Mending | None]:
    """A table of the lake open for repair; None where its changes cannot be gone by."""
    limit = parts.config.memory_limit
    with parts.lake.connect(limit) as con:
        work = open_work(con, parts.lake, spec, memory_bytes(limit) // 8)
        changes = work.held["changes"]
        if changes is None or not changes.schema.key or not schema.key:
            yield None
            return
        with closing(Mending(parts.lake, spec, schema, work)) as mending:
            yield mending
