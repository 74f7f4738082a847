"""Staging: puts staged changes where the dbt sources read them, before dbt runs.

DuckDB reads Parquet in place, so a source is a view over exactly the files of the lake (never a pattern:
files that no version names may lie beside them). Other warehouses load them into a table of that name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import duckdb_type, literal, quote
from headwater.config import WarehouseConfig
from headwater.errors import WarehouseError
from headwater.handoff.built import Place
from headwater.handoff.tables import Staged, TableModel, open_end
from headwater.handoff.warehouses import DUCKDB
from headwater.model import META

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CARRIED = [(f.name, f.type) for f in META if f.name != "_hw_unset"]

#: Bytes of a cell beside what a text or binary value takes.
_CELL = 16

#: How the comment of a source of ours begins.
_SIGN = "headwater "


#: The table beside the sources that says of which making the models are.
_MADE = "_hw_made"


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the table of a model must look like for changes to be merged into it.

    types      lower-case column name -> SQL type; a column that is not there yet is added by dbt
    needed     columns that cannot be added later: the rows before would lack them
    not_null   exactly the columns that are never null; they hold the key
    """

    model: str
    types: Mapping[str, str]
    needed: frozenset[str]
    not_null: frozenset[str]
    open_column: str = ""
    open_end: datetime | None = None


def stage(
    warehouse: WarehouseConfig,
    tables: Sequence[tuple[TableModel, Staged]],
    places: Mapping[str, Place] | None = None,
    *,
    news: Collection[str] | None = None,
) -> frozenset[str]:
    """Point the sources at the staged files; returns the relations whose models must be built anew.

    That is so where a type or name of a column, the key, a name of the history or the cells of old rows
    changed, where a model holds changes of another log, and where the changes were made anew: merging would
    mix values. `places` says where models are, if not in the configured schema. What costs a query is looked
    at for the relations in `news` alone (None: for all). Creates the warehouse file if there is none. All or
    nothing. Raises WarehouseError.
    """
    with opened(warehouse.path) as con:
        held = _sources(con, warehouse.staging_schema)
        con.begin()
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(warehouse.staging_schema)}")
        for table, staged in tables:
            sign = _sign(staged)
            if held.get(table.relation) != sign:
                name = _named((warehouse.staging_schema, table.relation))
                con.execute(f"CREATE OR REPLACE VIEW {name} AS {select_staged(con, staged)}")
                con.execute(f"COMMENT ON VIEW {name} IS {literal(sign)}")
        con.commit()
        columns = _columns(con)
        made = _made(con, warehouse.staging_schema) if any(s.made for _, s in tables) else {}
        return frozenset(
            table.relation
            for table, staged in tables
            for shape in _shapes(table)
            for place in [(places or {}).get(shape.model, (warehouse.schema, shape.model))]
            if place in columns
            and not (
                (not staged.made or made.get(table.relation) == staged.made)
                and _fits(shape, columns[place])
                and (
                    (news is not None and table.relation not in news)
                    or _continues(
                        con, shape, place, (warehouse.staging_schema, table.relation), staged.reshaped
                    )
                )
            )
        )


def note_made(warehouse: WarehouseConfig, made: Mapping[str, str]) -> None:
    """Keep in the warehouse of which making the models of these relations are."""
    with opened(warehouse.path) as con:
        name = _named((warehouse.staging_schema, _MADE))
        con.begin()
        con.execute(f"CREATE TABLE IF NOT EXISTS {name} (relation VARCHAR, made VARCHAR)")
        con.execute(f"DELETE FROM {name} WHERE list_contains(?, relation)", [list(made)])
        con.executemany(f"INSERT INTO {name} VALUES (?, ?)", [list(row) for row in made.items()])
        con.commit()


def _made(con: DuckDBPyConnection, schema: str) -> dict[str, str]:
    there = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?"
    if not con.execute(there, [schema, _MADE]).fetchall()[0][0]:
        return {}
    return dict(con.execute(f"SELECT relation, made FROM {_named((schema, _MADE))}").fetchall())


def unstage(warehouse: WarehouseConfig, tables: Sequence[TableModel]) -> None:
    """Take the sources away again, and their schema if nothing else is in it."""
    schema = warehouse.staging_schema
    with opened(warehouse.path) as con:
        con.begin()
        held = _sources(con, schema)
        for table in tables:
            if held.pop(table.relation, "").startswith(_SIGN):
                con.execute(f"DROP VIEW {_named((schema, table.relation))}")
        there = "SELECT 1 FROM duckdb_schemas() WHERE schema_name = ? AND database_name = current_database()"
        rest = "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND database_name = current_database()"
        if (
            con.execute(there, [schema]).fetchall()
            and not held
            and not con.execute(rest, [schema]).fetchall()
        ):
            con.execute(f"DROP SCHEMA {quote(schema)}")
        con.commit()


def spans(
    warehouse: WarehouseConfig,
    tables: Sequence[TableModel],
    rebuilt: Collection[TableModel],
    places: Mapping[str, Place],
    room: int,
) -> list[int | None]:
    """Where to cut what the models have not read yet into spans of about `room` bytes of changes.

    The `_hw_seq` that each span ends with; the last has no end (None), and most often it is the only one.
    """
    with opened(warehouse.path, read_only=True) as con:
        there = _columns(con)
        news = []
        for table in tables:
            source = (warehouse.staging_schema, table.relation)
            width = " + ".join([str(_CELL * (len(table.schema.columns) + len(_CARRIED))), *_lengths(table)])
            place = places.get(table.base, (warehouse.schema, table.base))
            low = "-1"
            if table not in rebuilt and place in there:
                low = f"(SELECT coalesce(max(_hw_seq), -1) FROM {_named(place)})"
            news.append(f"SELECT _hw_seq, {width} AS _hw_width FROM {_named(source)} WHERE _hw_seq > {low}")
        total = " UNION ALL ".join(news)
        if con.execute(f"SELECT coalesce(sum(_hw_width), 0) FROM ({total})").fetchall()[0][0] <= room:
            return [None]
        cuts = con.execute(
            f"""
            SELECT max(_hw_seq) FROM (
                SELECT _hw_seq, sum(_hw_width) OVER (ORDER BY _hw_seq) // {room} AS span FROM ({total})
            ) GROUP BY span ORDER BY 1
            """
        ).fetchall()
        return [*(row[0] for row in cuts[:-1]), None]


def _lengths(table: TableModel) -> Iterator[str]:
    """SQL of the bytes in each column that holds more than a number."""
    for column in table.schema.columns:
        if pa.types.is_string(column.type):
            yield f"coalesce(strlen({quote(column.name)}), 0)"
        elif pa.types.is_binary(column.type):
            yield f"coalesce(octet_length({quote(column.name)}), 0)"


def row_counts(warehouse: WarehouseConfig, relations: Mapping[str, Place]) -> Mapping[str, int]:
    """The rows of each relation (name -> schema and name in the warehouse) that is there."""
    with opened(warehouse.path, read_only=True) as con:
        there = {
            (schema, name)
            for schema, name in con.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() "
                "UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
            ).fetchall()
        }
        counts = [
            f"SELECT {literal(name)}, count(*) FROM {_named(place)}"
            for name, place in relations.items()
            if place in there
        ]
        return dict(con.execute(" UNION ALL ".join(counts)).fetchall()) if counts else {}


@contextmanager
def opened(path: str, *, read_only: bool = False) -> Iterator[DuckDBPyConnection]:
    """The warehouse; raises WarehouseError for what it refuses."""
    import duckdb

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        con = duckdb.connect(path, read_only=read_only)
    except (OSError, duckdb.Error) as failed:
        reason = str(failed).split("\n", 1)[0]
        busy = "lock" in reason or "different configuration" in reason
        hint = f"close the other program that has {path} open" if busy else f"ls -l {path}"
        raise WarehouseError(f"the warehouse {path} cannot be opened: {reason}", hint=hint) from None
    try:
        yield con
    except duckdb.Error as failed:
        reason = str(failed).split("\n", 1)[0]
        raise WarehouseError(f"the warehouse {path} refused: {reason}", hint="headwater status") from None
    finally:
        con.close()


def _sources(con: DuckDBPyConnection, schema: str) -> dict[str, str]:
    """The sign of each source that is there."""
    return dict(
        con.execute(
            "SELECT view_name, coalesce(comment, '') FROM duckdb_views() WHERE schema_name = ? "
            "AND database_name = current_database()",
            [schema],
        ).fetchall()
    )


def _sign(staged: Staged) -> str:
    """Names exactly this content: the same sign, the same view."""
    what = "\0".join([staged.schema.fingerprint(), str(staged.keyed), *map(_path, staged.files)])
    return f"{_SIGN}{hashlib.sha256(what.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


def _path(file: object) -> str:
    return os.path.abspath(str(file))


def select_staged(con: DuckDBPyConnection, staged: Staged) -> str:
    """SQL of the staged rows in the types of their schema."""
    wanted = [(c.name, c.type) for c in staged.schema.columns] + _CARRIED
    if not staged.files:
        nulls = ", ".join(f"CAST(NULL AS {duckdb_type(t)}) AS {quote(n)}" for n, t in wanted)
        return f"SELECT {nulls} WHERE false"
    paths = ", ".join(literal(_path(f)) for f in staged.files)
    rows = f"read_parquet([{paths}], union_by_name => true, hive_partitioning => false)"
    there = {name.casefold() for name, *_ in con.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()}
    cells = ", ".join(
        f"CAST({quote(n) if n.casefold() in there else 'NULL'} AS {duckdb_type(t)}) AS {quote(n)}"
        for n, t in wanted
    )
    # Rows of before a change of key cannot be told apart by the key of now: no model can hold them.
    keyed = f" WHERE _hw_seq > {staged.keyed}" if staged.keyed >= 0 else ""
    return f"SELECT {cells} FROM {rows}{keyed}"


def _columns(con: DuckDBPyConnection) -> Mapping[Place, Mapping[str, tuple[str, bool]]]:
    """Of each table in the warehouse the columns, in lower case: type, and whether they may be null."""
    held: dict[Place, dict[str, tuple[str, bool]]] = {}
    for schema, table, column, kind, nullable in con.execute(
        "SELECT c.schema_name, c.table_name, lower(column_name), data_type, is_nullable "
        "FROM duckdb_columns() c JOIN duckdb_tables() t USING (table_oid, schema_oid, database_oid) "
        "WHERE c.database_name = current_database() AND NOT c.internal"
    ).fetchall():
        held.setdefault((schema, table), {})[column] = (kind, nullable)
    return held


def _fits(shape: _Shape, held: Mapping[str, tuple[str, bool]]) -> bool:
    if not shape.needed <= held.keys():
        return False
    if any(held[n][0] != kind for n, kind in shape.types.items() if n in held):
        return False
    return {n for n, (_, nullable) in held.items() if not nullable} == shape.not_null


def _continues(con: DuckDBPyConnection, shape: _Shape, place: Place, source: Place, reshaped: int) -> bool:
    """Whether the rows are of the source's log under its columns, and open versions have the open end."""
    if not _same_log(con, place, source, reshaped):
        return False
    if not shape.open_column:
        return True
    found = con.execute(
        f"SELECT epoch_us({quote(shape.open_column)}) FROM {_named(place)} WHERE _hw_seq_to IS NULL LIMIT 1"
    ).fetchone()
    return found is None or found[0] == _micros(shape.open_end)


def _same_log(con: DuckDBPyConnection, place: Place, source: Place, reshaped: int) -> bool:
    """Whether the newest change a model holds is one of the source: a lake made anew counts from 0 again."""
    held = _named(place)
    newest = con.execute(
        f"SELECT _hw_seq, epoch_us(_hw_at) FROM {held} "
        f"WHERE _hw_seq = (SELECT max(_hw_seq) FROM {held}) LIMIT 1"
    ).fetchone()
    if newest is None:
        return True
    if newest[0] < reshaped:
        return False
    known = con.execute(
        f"SELECT 1 FROM {_named(source)} "
        "WHERE _hw_seq = ? AND epoch_us(_hw_at) IS NOT DISTINCT FROM ? LIMIT 1",
        newest,
    )
    return known.fetchone() is not None


def _named(place: Place) -> str:
    return f"{quote(place[0])}.{quote(place[1])}"


def _micros(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    since = moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _shapes(table: TableModel) -> Iterator[_Shape]:
    """The shapes of a table's incremental models."""
    key = frozenset(name.casefold() for name in table.schema.key)
    types = {c.name.casefold(): DUCKDB.column_type(c.type) for c in table.schema.columns}
    types |= {
        "_hw_op": DUCKDB.text,
        "_hw_seq": DUCKDB.integer,
        "_hw_at": DUCKDB.moment,
        "_hw_text": DUCKDB.text,
    }
    meta = frozenset({"_hw_op", "_hw_seq", "_hw_at", "_hw_text"})
    fixed = key | {"_hw_seq"}
    flags = {"_hw_deleted": DUCKDB.flag} if key else {}
    yield _Shape(table.base, types | flags, meta | key | flags.keys(), fixed)
    if table.versioned:
        names = table.history
        spans = {
            names.valid_from.casefold(): DUCKDB.moment,
            names.valid_to.casefold(): DUCKDB.moment,
            names.current.casefold(): DUCKDB.flag,
            "_hw_seq_to": DUCKDB.integer,
        }
        yield _Shape(
            table.versions, types | spans, meta | key | spans.keys(), fixed, names.valid_to, open_end(names)
        )
