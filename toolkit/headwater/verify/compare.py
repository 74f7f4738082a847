"""One table compared: digests of slices first, then the rows of those slices alone that differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import digests_sql, held_types, literal
from headwater.errors import Corrupt, SourceError
from headwater.model import ChangeBatch, Digest, TableId, TableSchema, add_digests
from headwater.sources import Cut
from headwater.verify.found import LIMIT, Apart, KeyDifference, TableCheck, why_apart
from headwater.verify.sides import Pair, Side, differences

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Gives SQL that can stand after FROM, and the connection it holds on; None when there is no such table.
Relation = Callable[[TableId], "tuple[str, DuckDBPyConnection] | None"]

Target = tuple[str, "DuckDBPyConnection"] | None

#: A table has so many slices that each has about SLICE_ROWS rows, and no more than SLICES.
SLICE_ROWS = 2_048
SLICES = 4_096


def _ignore(_table: TableId, _done: int, _parts: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare.

    scratch  the folder of temporary files (None: the system's)
    limit    how many keys are named for one table and target
    more     further targets beside lake and warehouse, by name
    tell     told of a table, how many of its parts the source has computed, and of how many
    """

    scratch: str | Path | None = None
    limit: int = LIMIT
    more: Mapping[str, Relation] = field(default_factory=dict)
    tell: Callable[[TableId, int, int], None] = _ignore


def verify(  # noqa: PLR0913
    cut: Cut,
    tables: Sequence[TableSchema],
    lake: Relation,
    warehouse: Relation | None = None,
    *,
    apart: Mapping[TableId, Apart] | None = None,
    options: Options = Options(),  # noqa: B008  frozen
) -> list[TableCheck]:
    """Compare each table of the cut with the lake, and with the warehouse if there is one.

    apart   what is not to be compared of a table

    Lake and warehouse must stand at the cut's position. Of slices whose digests differ, the rows are read
    through the cut into a temporary file to name the keys.
    """
    targets = {"lake": lake} | ({"warehouse": warehouse} if warehouse else {}) | dict(options.more)
    left = {schema.table: (apart or {}).get(schema.table, Apart()) for schema in tables}
    checks = []
    for schema in tables:
        with readable(schema.table):
            checks.append(_check(cut, schema, targets, left[schema.table], options))
    return checks


@contextmanager
def readable(table: TableId) -> Iterator[None]:
    """Say whose rows DuckDB cannot read; not why, as that may have a cell's value in it."""
    import duckdb

    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException):
        raise  # the connection says what these mean
    except duckdb.Error as failed:
        raise Corrupt(
            f"{table}: a file of it in the lake, or the warehouse, cannot be read ({type(failed).__name__})",
            hint=f"move the folder of {table} out of lake/, then headwater run makes it from the raw log",
        ) from None


def digests(
    schema: TableSchema, relation: str, connection: DuckDBPyConnection, slices: int = 1
) -> dict[int, Digest]:
    """The digest of each slice of a relation, whatever wider types it holds the columns in."""
    held = held_columns(relation, connection)
    rows = connection.execute(digests_sql(schema, relation, held, slices)).fetchall()
    return {int(n): Digest(count, (int(a), int(b), int(c), int(d))) for n, count, a, b, c, d in rows}


def digest(schema: TableSchema, relation: str, connection: DuckDBPyConnection) -> Digest:
    """The digest of a whole relation."""
    return _total(digests(schema, relation, connection))


def slices_for(rows: int) -> int:
    """Into how many slices a table is cut: a power of two."""
    return min(SLICES, 1 << max(rows // SLICE_ROWS, 0).bit_length()) if rows >= SLICE_ROWS else 1


def unequal(ours: Mapping[int, Digest], theirs: Mapping[int, Digest]) -> list[int]:
    """The slices that differ."""
    none = Digest(0)
    return sorted(n for n in ours.keys() | theirs.keys() if ours.get(n, none) != theirs.get(n, none))


def _check(
    cut: Cut, schema: TableSchema, targets: Mapping[str, Relation], apart: Apart, options: Options
) -> TableCheck:
    started = time.monotonic()
    if schema.loaded:
        none = Digest(0)
        return TableCheck(schema.table, none, none, None, True, (), 0.0, skipped=why_apart(schema))
    retyped = tuple(c.name for c in schema.columns if c.name in apart.columns)
    schema = schema.without(apart.columns)
    plain, masked = schema.unmasked(), tuple(c.name for c in schema.columns if c.mask)
    held = {where: relation(schema.table) for where, relation in targets.items()}
    # What a table has none of is not compared; a lake or a warehouse without it is an empty one.
    held = {where: its for where, its in held.items() if its or where not in options.more}
    slices = slices_for(max((_count(*target) for target in held.values() if target), default=0))
    with ThreadPoolExecutor(1, "headwater-verify") as beside:
        # The source computes for much longer than we do.
        asked = beside.submit(_source_digests, cut, plain, slices, options)
        # A table that is not there is an empty one: equal to one without rows, else all of it is missing.
        found = {where: digests(plain, *it, slices) if it else {} for where, it in held.items()}
        source = asked.result()
    total, totals = _total(source), {where: _total(its) for where, its in found.items()}
    wrong = {where: odd for where, its in found.items() if (odd := unequal(source, its))}
    if apart.rows:  # without a key only their number says what is not there
        wrong = {w: s for w, s in wrong.items() if totals[w].rows + apart.rows != total.rows}
    named = _Naming(cut, schema, slices, max(total.rows, 1) // slices + 1, apart.keys, options)
    read = named.name({where: (held[where], its) for where, its in wrong.items()}) if wrong else 0
    if apart.keys:
        wrong = {w: s for w, s in wrong.items() if not held[w] or named.counts[w]}
    return TableCheck(
        schema.table, total, totals["lake"], totals.get("warehouse"), not wrong, tuple(named.found),
        time.monotonic() - started, masked, retyped, len(apart.keys) or apart.rows, slices=slices,
        unequal=tuple(sorted(set().union(*wrong.values()))), rows_read=read, counts=named.counts,
        more={where: its for where, its in totals.items() if where not in ("lake", "warehouse")},
    )  # fmt: skip


def _source_digests(cut: Cut, schema: TableSchema, slices: int, options: Options) -> dict[int, Digest]:
    """The source's digests, part by part: no statement is long, and the cut may pause between two."""
    parts = cut.parts(schema.table) or [""]
    found = []
    for number, part in enumerate(parts, 1):
        found.append(cut.digests(schema, slices, part))
        options.tell(schema.table, number, len(parts))
    return add_digests(found)


class _Naming:
    """Names the keys of one table that differ."""

    def __init__(  # noqa: PLR0913, PLR0917
        self, cut: Cut, schema: TableSchema, slices: int, rows: int, without: Sequence[str], options: Options
    ) -> None:
        """`rows` is about how many there are in a slice."""
        self._cut, self._schema, self._slices, self._rows = cut, schema, slices, rows
        self._without, self._options = without, options
        self.found: list[KeyDifference] = []
        self.counts: dict[str, Mapping[str, int]] = {}

    def name(self, wrong: Mapping[str, tuple[Target, Sequence[int]]]) -> int:
        """Read the slices that differ in some target, and compare by key; returns the rows read."""
        there = {where: (target, slices) for where, (target, slices) in wrong.items() if target}
        if not there:
            return 0
        chosen = sorted(set().union(*(slices for _, slices in there.values())))
        with picked(self._cut, self._schema, self._slices, chosen, self._options.scratch) as truth:
            for where, (target, slices) in there.items():
                assert target is not None
                self._compare(truth.relation, where, target, slices)
        return truth.rows

    def _compare(
        self, truth: str, where: str, target: tuple[str, DuckDBPyConnection], slices: Sequence[int]
    ) -> None:
        relation, connection = target
        apart, its = bool(self._without), self._schema
        ours = Side(its, truth, held_types(its), self._slices, apart)
        pair = Pair(
            ours, Side(its, relation, held_columns(relation, connection), self._slices, apart), connection
        )
        if apart:
            pair.leave_out(self._without)
        found, self.counts[where] = differences(pair, where, slices, self._rows, self._options.limit)
        self.found += found


def name_keys(  # noqa: PLR0913, PLR0917
    cut: Cut, schema: TableSchema, check: TableCheck, target: Target, apart: Apart, options: Options
) -> list[KeyDifference]:
    """The keys of the lake that differ now, in the slices that differed in an earlier check of the cut."""
    rows = max(check.source.rows, 1) // check.slices + 1
    plain = schema.without(apart.columns)
    naming = _Naming(cut, plain, check.slices, rows, apart.keys, options)
    naming.name({"lake": (target, check.unequal)})
    return naming.found


def _total(found: Mapping[int, Digest]) -> Digest:
    return sum(found.values(), Digest(0))


def _count(relation: str, connection: DuckDBPyConnection) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0])


def held_columns(relation: str, connection: DuckDBPyConnection) -> dict[str, str]:
    """The DuckDB type of each column of a relation."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in described}


@dataclass(slots=True)
class Picked:
    """Rows of the source at rest: SQL to stand after FROM, and how many there are."""

    relation: str
    rows: int = 0


@contextmanager
def picked(
    cut: Cut, schema: TableSchema, slices: int, chosen: Collection[int], scratch: str | Path | None
) -> Iterator[Picked]:
    """The source's rows of some slices: one temporary Parquet file, written batch by batch."""
    import pyarrow.parquet as pq

    wanted = pa.schema([*schema.arrow(), ("_hw_text", pa.string())])
    with TemporaryDirectory(prefix="headwater-verify-", dir=scratch) as folder:
        path = Path(folder) / "truth.parquet"
        truth = Picked(f"read_parquet({literal(str(path))})")
        # Arrow leaves NaN out of its statistics, and DuckDB would then answer filters wrongly from them.
        with pq.ParquetWriter(path, wanted, compression="zstd", write_statistics=False) as writer:
            for batch in picked_batches(cut, schema, slices, chosen):
                missing = set(wanted.names) - set(batch.rows.column_names)
                if missing:
                    raise SourceError(
                        f"{schema.table} lost the columns {', '.join(sorted(missing))} while it was compared",
                        hint="headwater run   (and then headwater verify again)",
                    )
                writer.write_table(batch.rows.select(wanted.names).cast(wanted))
                truth.rows += batch.rows.num_rows
        yield truth


def picked_batches(
    cut: Cut, schema: TableSchema, slices: int, chosen: Collection[int]
) -> Iterator[ChangeBatch]:
    """The source's rows of some slices, part by part."""
    plain = schema.unmasked()
    for part in cut.parts(schema.table) or [""]:
        if slices == 1:
            yield from cut.read(schema.table, part)
        else:
            yield from cut.pick(plain, slices, chosen, part)
