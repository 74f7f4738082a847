"""Verify: source = lake = warehouse at one position, by digests computed in each engine; docs/verify.md."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from headwater.canonical import column_texts, digest_sql, held_types, literal, row_text, shown_text
from headwater.errors import SourceError
from headwater.keys import format_key
from headwater.model import EACH_RUN, SKIPPED, Digest, Position, TableId, TableSchema
from headwater.sources import Cut

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Kind = Literal["missing", "extra", "different"]

#: Gives SQL that can stand after FROM, and the connection it holds on; None when there is no such table.
Relation = Callable[[TableId], "tuple[str, DuckDBPyConnection] | None"]

#: The most keys named for one table and target.
LIMIT = 20

# A comparison by key first finds which of this many slices of the keys differ, then looks into a few of them:
# memory stays bounded whether one row differs or all do.
_SLICES = 4096
_SLICES_READ = 64


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """One key that is not the same: missing in the target, extra there, or different in the named columns."""

    where: str  # lake | warehouse
    key: str  # as `headwater explain` takes it; for a table without a key the MD5 of the row
    kind: Kind
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Apart:
    """What a lake does not have as the source has it, by its casts.

    columns   those with another type
    keys      canonical texts (`row_text`) of keys that wait in the quarantine
    rows      of a table without a key, how many rows wait
    """

    columns: frozenset[str] = frozenset()
    keys: Sequence[str] = ()
    rows: int = 0


@dataclass(frozen=True, slots=True)
class TableCheck:
    """One table compared; a target that lacks the table counts as empty. `warehouse` is None without one."""

    table: TableId
    source: Digest
    lake: Digest
    warehouse: Digest | None
    equal: bool
    differing: tuple[KeyDifference, ...]
    seconds: float
    masked: tuple[str, ...] = ()  # columns that the source cannot be compared in
    retyped: tuple[str, ...] = ()  # columns with another type than in the source, not compared
    waiting: int = 0  # keys (without a key: rows) in the quarantine, not compared
    skipped: str = ""  # why it was not compared; "" where it was


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Every table compared at one position of the source."""

    position: Position
    tables: tuple[TableCheck, ...]

    @property
    def equal(self) -> bool:
        """Whether every table is equal in every target it has."""
        return all(check.equal for check in self.tables)

    def lines(self) -> list[str]:
        """The report for a person, plain text; the last line is the verdict."""
        lines = [line for check in self.tables for line in _describe(check)]
        wrong = sum(not check.equal for check in self.tables)
        skipped = sum(bool(check.skipped) for check in self.tables)
        total = len(self.tables) - skipped
        verdict = f"{wrong} of {total} tables differ" if wrong else f"{total} tables equal"
        verdict += f", {skipped} not compared" if skipped else ""
        return [*lines, f"verify: {verdict}"]

    def to_json(self) -> dict[str, object]:
        """The report as plain values for a JSON writer."""
        doc = asdict(self)
        for check in doc["tables"]:
            check["table"] = f"{check['table']['namespace']}.{check['table']['name']}"
        return {"equal": self.equal, "position": self.position.token, "tables": doc["tables"]}


def verify(
    cut: Cut,
    tables: Sequence[TableSchema],
    lake: Relation,
    warehouse: Relation | None = None,
    *,
    scratch: str | Path | None = None,
    apart: Mapping[TableId, Apart] | None = None,
) -> list[TableCheck]:
    """Compare each table of the cut with the lake, and with the warehouse if there is one.

    apart   what is not to be compared of a table

    Lake and warehouse must stand at the cut's position. Where a digest differs, the table is read once
    through the cut into a temporary file under `scratch` (default: the system's) to name the keys.
    """
    left = {schema.table: (apart or {}).get(schema.table, Apart()) for schema in tables}
    return [_check(cut, schema, lake, warehouse, scratch, left[schema.table]) for schema in tables]


def digest(schema: TableSchema, relation: str, connection: DuckDBPyConnection) -> Digest:
    """The digest of a relation, whatever wider types it holds the columns in."""
    held = _held(relation, connection)
    rows, *words = connection.execute(digest_sql(schema, relation, held)).fetchall()[0]
    return Digest(rows, (int(words[0]), int(words[1]), int(words[2]), int(words[3])))


def _check(  # noqa: PLR0913
    cut: Cut,
    schema: TableSchema,
    lake: Relation,
    warehouse: Relation | None,
    scratch: str | Path | None,
    apart: Apart,
) -> TableCheck:
    started = time.monotonic()
    retyped = tuple(c.name for c in schema.columns if c.name in apart.columns)
    schema = replace(schema, columns=tuple(c for c in schema.columns if c.name not in retyped))
    if schema.loaded:
        return TableCheck(schema.table, Digest(0), Digest(0), None, True, (), 0.0, skipped=_why(schema))
    plain, masked = schema.unmasked(), tuple(c.name for c in schema.columns if c.mask)
    targets = {"lake": lake(schema.table)} | ({"warehouse": warehouse(schema.table)} if warehouse else {})
    with ThreadPoolExecutor(1, "headwater-verify") as beside:
        # The source computes for much longer than we do.
        asked = beside.submit(cut.digest, plain)
        # A table that is not there is an empty one: equal to one without rows, else all of it is missing.
        found = {where: digest(plain, *target) if target else Digest(0) for where, target in targets.items()}
        source = asked.result()
    wrong = [where for where, its in found.items() if its != source]
    if apart.rows:  # without a key only their number says what is not there
        wrong = [where for where in wrong if found[where].rows + apart.rows != source.rows]
    differing: list[KeyDifference] = []
    if any(targets[where] for where in wrong):
        with _truth(cut, schema, scratch) as truth:
            for where in list(wrong):
                named = _differences(schema, truth, where, targets[where], apart.keys)
                differing += named
                if apart.keys and targets[where] and not named:
                    wrong.remove(where)
    seconds = time.monotonic() - started
    waiting = len(apart.keys) or apart.rows
    return TableCheck(
        schema.table, source, found["lake"], found.get("warehouse"), not wrong, tuple(differing), seconds,
        masked, retyped, waiting,
    )  # fmt: skip


def _why(schema: TableSchema) -> str:
    """Why the source has other rows than the copy, of right."""
    if schema.loaded == EACH_RUN:
        return "read whole with each run, without a log, and so as of then"
    if schema.loaded == SKIPPED:
        return "its first load was skipped; headwater resync loads it"
    return "its load was filtered (initial_where), so that rows are left out that no change told of"


def _held(relation: str, connection: DuckDBPyConnection) -> dict[str, str]:
    """The DuckDB type of each column of a relation."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in described}


@contextmanager
def _truth(cut: Cut, schema: TableSchema, scratch: str | Path | None) -> Iterator[str]:
    """The source's rows as SQL to stand after FROM: one temporary Parquet file, written batch by batch."""
    import pyarrow.parquet as pq

    wanted = pa.schema([*schema.arrow(), ("_hw_text", pa.string())])
    with TemporaryDirectory(prefix="headwater-verify-", dir=scratch) as folder:
        path = Path(folder) / "truth.parquet"
        # Arrow leaves NaN out of its statistics, and DuckDB would then answer filters wrongly from them.
        with pq.ParquetWriter(path, wanted, compression="zstd", write_statistics=False) as writer:
            for batch in cut.read(schema.table):
                missing = set(wanted.names) - set(batch.rows.column_names)
                if missing:
                    raise SourceError(
                        f"{schema.table} lost the columns {', '.join(sorted(missing))} while it was compared",
                        hint="headwater run   (and then headwater verify again)",
                    )
                writer.write_table(batch.rows.select(wanted.names).cast(wanted))
        yield f"read_parquet({literal(str(path))})"


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two sets of rows under comparison: SQL in the target's connection, and its column types."""

    schema: TableSchema
    relation: str
    held: Mapping[str, str]
    without: bool = False  # whether the keys in `_hw_without` are left out

    def rows(self) -> str:
        """SQL of each row's key text `k` and MD5 `h`; a table without a key has the MD5 as its key."""
        rows = f"SELECT {self._key_and_row()} FROM ({self._texts()})"
        return f"SELECT * FROM ({rows}) ANTI JOIN _hw_without USING (k)" if self.without else rows

    def details(self) -> str:
        """SQL of `k`, then the key's values for a person, then the MD5 of each column's text."""
        shown = [f"{self._shown(name)} AS s{n}" for n, name in enumerate(self.schema.key)]
        wanted = [f"s{n}" for n in range(len(shown))] + [
            f"md5(t{n})" for n in range(len(self.schema.columns))
        ]
        return f"SELECT {self._key_and_row()}, {', '.join(wanted)} FROM ({self._texts(shown)})"

    def _texts(self, more: Sequence[str] = ()) -> str:
        named = [f"{text} AS t{n}" for n, text in enumerate(column_texts(self.schema, self.held).values())]
        return f"SELECT {', '.join([*named, *more]) or '1'} FROM {self.relation}"

    def _key_and_row(self) -> str:
        place = {c.name: f"t{n}" for n, c in enumerate(self.schema.columns)}
        row = f"md5({row_text(list(place.values()))})"
        key = row_text([place[name] for name in self.schema.key]) if self.schema.key else row
        return f"{key} AS k, {row} AS h"

    def _shown(self, name: str) -> str:
        if name not in self.held:
            return "CAST(NULL AS VARCHAR)"
        return shown_text(name, self.held[name], "_hw_text" in self.held)


def _differences(
    schema: TableSchema,
    truth: str,
    where: str,
    target: tuple[str, DuckDBPyConnection] | None,
    without: Sequence[str] = (),
) -> list[KeyDifference]:
    """Up to LIMIT keys whose rows are not the same; not those whose text is in `without`."""
    if target is None:
        return []
    relation, connection = target
    if without:
        connection.register("_hw_without", pa.table({"k": pa.array(without, pa.string())}))
    ours = _Side(schema, truth, held_types(schema), bool(without))
    theirs = _Side(schema, relation, _held(relation, connection), bool(without))
    slices = _unequal_slices(ours, theirs, connection)
    if not slices:
        return []
    part = f"WHERE hash(k) % {_SLICES} IN ({', '.join(map(str, slices))})"
    found: list[tuple[str, Kind]] = connection.execute(
        f"""
        WITH both_sides AS (
            SELECT k, h, 1 AS n FROM ({ours.rows()}) {part}
            UNION ALL SELECT k, h, -1 FROM ({theirs.rows()}) {part}
        ), unequal AS (SELECT k, h, sum(n) AS n FROM both_sides GROUP BY k, h HAVING sum(n) <> 0)
        SELECT k, CASE WHEN min(n) > 0 THEN 'missing' WHEN max(n) < 0 THEN 'extra' ELSE 'different' END
        FROM unequal GROUP BY k ORDER BY k LIMIT {LIMIT}
        """
    ).fetchall()
    if not schema.key:
        return [KeyDifference(where, f"row {key}", kind) for key, kind in found]
    keys = [key for key, _ in found]
    here, there = (_details(side, keys, connection) for side in (ours, theirs))
    return [
        KeyDifference(
            where,
            _name(schema, (here.get(key) or there[key])[0]),
            kind,
            _unequal_columns(schema, kind, *pair),
        )
        for key, kind in found
        for pair in [(here.get(key, []), there.get(key, []))]
    ]


def _unequal_slices(ours: _Side, theirs: _Side, connection: DuckDBPyConnection) -> list[int]:
    """The numbers of the first few slices of keys in which the two sides differ."""
    each = "SELECT hash(k) % {n} AS slice, count(*) AS n, sum(hash(h)) AS s FROM ({rows}) GROUP BY ALL"
    found = connection.execute(
        f"""
        SELECT slice FROM ({each.format(n=_SLICES, rows=ours.rows())}) AS ours
        FULL JOIN ({each.format(n=_SLICES, rows=theirs.rows())}) AS theirs USING (slice)
        WHERE ours.n IS DISTINCT FROM theirs.n OR ours.s IS DISTINCT FROM theirs.s
        ORDER BY slice LIMIT {_SLICES_READ}
        """
    ).fetchall()
    return [row[0] for row in found]


_Row = tuple[str | None, ...]  # the key's values for a person, then the MD5 of each column's text


def _details(side: _Side, keys: Sequence[str], connection: DuckDBPyConnection) -> dict[str, list[_Row]]:
    """The rows of some keys, by key text."""
    found: dict[str, list[_Row]] = {}
    wanted = f"SELECT * EXCLUDE (h) FROM ({side.details()}) WHERE list_contains(?, k)"
    for key, *row in connection.execute(wanted, [list(keys)]).fetchall():
        found.setdefault(key, []).append(tuple(row))
    return found


def _name(schema: TableSchema, row: _Row) -> str:
    return format_key({name: row[n] or "" for n, name in enumerate(schema.key)})


def _unequal_columns(
    schema: TableSchema, kind: Kind, ours: list[_Row], theirs: list[_Row]
) -> tuple[str, ...]:
    """The columns that differ between the rows of one key; none when a row is just absent or there twice."""
    if kind != "different":
        return ()
    first = len(schema.key)
    return tuple(
        column.name
        for n, column in enumerate(schema.columns)
        if Counter(row[first + n] for row in ours) != Counter(row[first + n] for row in theirs)
    )


def _describe(check: TableCheck) -> list[str]:
    """The lines of one table."""
    if check.skipped:
        return [f"{check.table}  not compared: {check.skipped}"]
    rows = f"{check.source.rows:,} rows" if check.equal else _counts(check)
    lines = [f"{check.table}  {'equal' if check.equal else 'DIFFERS'}  {rows}  {check.seconds:.1f} s"]
    lines += _left_out(check)
    for found in check.differing:
        columns = f" in {', '.join(found.columns)}" if found.columns else ""
        lines.append(f"  {found.where}: {found.key}  {found.kind}{columns}")
    for where, its in (("lake", check.lake), ("warehouse", check.warehouse)):
        named = sum(found.where == where for found in check.differing)
        if named == LIMIT:
            lines.append(f"  {where}: only the first {LIMIT} keys are named")
        elif not named and not check.equal and its not in (None, check.source):
            lines.append(f"  {where}: {_EMPTY if its == Digest(0) else _UNNAMED}")
    return lines


def _left_out(check: TableCheck) -> list[str]:
    """What of a table was not compared."""
    lines = []
    if check.masked:
        number = f"{len(check.masked)} column{'s' if len(check.masked) > 1 else ''}"
        lines.append(f"  {number} masked, not compared: {', '.join(check.masked)}")
    if check.retyped:
        lines.append(f"  cast to another type, not compared: {', '.join(check.retyped)}")
    if check.waiting:
        lines.append(f"  {check.waiting:,} in quarantine, not compared: headwater quarantine list")
    return lines


_EMPTY = "nothing there; headwater run, then headwater verify"
_UNNAMED = "no row differs, so the source hashes in another way than it is read; please report this"


def _counts(check: TableCheck) -> str:
    sides = {"source": check.source, "lake": check.lake, "warehouse": check.warehouse}
    return ", ".join(f"{name} {its.rows:,} rows" for name, its in sides.items() if its)
