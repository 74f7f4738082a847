"""What waits in the quarantine of a table: looked at, counted, given up."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from headwater.canonical import beside_text, column_texts, duckdb_type, literal, quote, row_text, shown_text
from headwater.config import TableSpec
from headwater.errors import ConfigError
from headwater.failpoints import reach
from headwater.keys import format_key, parse_key
from headwater.lake import KINDS, Change, Held, Kind
from headwater.lake.delta import Lake
from headwater.lake.tail import MADE
from headwater.model import TableId, TableSchema
from headwater.quarantine import DROPS, parked_rows, rules_of, wanted_making

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OPS = {"r": "read", "c": "insert", "u": "update", "d": "delete"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """One row that waits, in the order of the log.

    columns   those that do not fit, by their names at the source; none for a change that only queues behind
    rules     the type changes of these columns
    row       the row as the source wrote it; columns in `unset` were not sent and are as before
    """

    table: TableId
    key: str  # as `headwater explain` takes it; "" in a table without a key
    seq: int
    op: str
    at: datetime
    entry: int
    columns: str
    rules: str
    row: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits of one table: `misfits` rows do not fit, `queued` changes are behind them."""

    table: TableId
    misfits: int
    queued: int
    keys: int | None  # None in a table without a key
    columns: str
    since: datetime


def count_waiting(lake: Lake, table: TableId) -> int:
    """How many rows wait."""
    queue = look(lake, table)
    return queue.misfits + queue.queued if queue else 0


def is_recast(lake: Lake, spec: TableSpec) -> bool:
    """Whether a table with casts was folded by others than it has now, and is to be folded again."""
    changes = lake.open(spec.table, "changes") if spec.casts else None
    if changes is None:
        return False
    return rules_of(changes.notes.get(MADE, "")) != wanted_making(spec, lake.open(spec.table, "quarantine"))


def look(lake: Lake, table: TableId) -> Queue | None:
    """What waits of a table; None when nothing does."""
    held = _open(lake, table)
    rows = parked_rows(lake, held)
    if rows is None:
        return None
    key = _key_of(held)
    cells = [*(quote(name) for name in key), *(beside_text(name) for name in key)]
    with lake.connect() as con:
        misfits, queued, keys, columns, since = con.execute(
            f"SELECT count(_hw_column), count(*) - count(_hw_column), count(DISTINCT [{_texts(cells)}]), "
            "list_sort(list(DISTINCT _hw_column) FILTER (_hw_column IS NOT NULL)), "
            f"epoch_us(min(_hw_at)) FROM {rows}"
        ).fetchall()[0]
    if not misfits + queued:
        return None
    named = ", ".join(sorted({name for text in columns or () for name in text.split(", ")}))
    return Queue(table, misfits, queued, keys if key else None, named, _moment(since))


def waiting_rows(lake: Lake, table: TableId, keys: Sequence[str] = (), limit: int = 1000) -> list[Waiting]:
    """The first rows that wait, of these keys (as `explain` takes them; default: all), in order."""
    held = _open(lake, table)
    rows = parked_rows(lake, held)
    if rows is None:
        return []
    schema = _schema(held)
    types = {c.name: duckdb_type(c.type) for c in schema.columns}
    shown = ", ".join([*(shown_text(name, types[name], beside=True) for name in schema.key), "NULL"])
    with lake.connect() as con:
        chosen = _chosen(con, table, schema, keys)
        found = con.execute(
            f"SELECT [{shown}], _hw_seq, _hw_op, epoch_us(_hw_at), _hw_entry, coalesce(_hw_column, ''), "
            f"coalesce(_hw_rule, ''), _hw_row, coalesce(_hw_unset, '[]') FROM {rows} WHERE {chosen} "
            f"ORDER BY _hw_seq LIMIT {limit}"
        ).fetchall()
    return [
        Waiting(
            table,
            format_key({name: text or "" for name, text in zip(schema.key, key, strict=False)}),
            seq, _OPS[op], _moment(at), entry, columns, rules, json.loads(row), tuple(json.loads(unset)),
        )
        for key, seq, op, at, entry, columns, rules, row, unset in found
    ]  # fmt: skip


def give_up(lake: Lake, table: TableId, keys: Sequence[str] = ()) -> int:
    """Give up the values that do not fit, of these keys (default: all); returns in how many rows.

    From the next fold on, these rows count as if `on_cast_error` were null for them: the table has to be
    folded again. In a table without a key, all rows with the same text are given up.
    """
    held = _open(lake, table)
    rows, quarantine = parked_rows(lake, held), held["quarantine"]
    if rows is None or quarantine is None:
        return 0
    schema = _schema(held)
    if keys and not schema.key:
        raise ConfigError(f"{table} has no key", hint="headwater quarantine drop TABLE   (all of it)")
    with lake.connect() as con:
        chosen = f"_hw_column IS NOT NULL AND {_chosen(con, table, schema, keys)}"
        con.execute(f"CREATE TEMP TABLE _hw_chosen AS SELECT _hw_seq FROM {rows} WHERE {chosen}")
        count = int(con.execute("SELECT count(*) FROM _hw_chosen").fetchall()[0][0])
        if not count:
            return 0
        dropped = "_hw_dropped OR _hw_seq IN (SELECT _hw_seq FROM _hw_chosen)"
        every = f"SELECT * REPLACE ({dropped} AS _hw_dropped) FROM {lake.scan(quarantine)}"
        add = lake.write(con, every, quarantine.layout, ["_hw_seq"])
        con.execute("DROP TABLE _hw_chosen")
    notes = {**quarantine.notes, DROPS: uuid.uuid4().hex[:16]}
    change = Change(quarantine.mark, quarantine.schema, quarantine.layout, add, replace=True, notes=notes)
    reach("drop.before")
    lake.commit(table, "quarantine", quarantine, change)
    reach("drop.after")
    return count


def waiting_keys(lake: Lake, schema: TableSchema) -> tuple[list[str], int]:
    """For a comparison with the source: the canonical key texts that wait, and how many rows more it has.

    The second is for a table without a key, whose rows wait one by one.
    """
    held = _open(lake, schema.table)
    rows = parked_rows(lake, held)
    if rows is None:
        return [], 0
    types = {c.name: c for c in schema.columns}
    keys = TableSchema(schema.table, tuple(types[name] for name in schema.key), schema.key)
    with lake.connect() as con:
        if schema.key:
            own = {c.name: duckdb_type(c.type) for c in _schema(held).columns} | {"_hw_text": "VARCHAR"}
            texts = list(column_texts(keys, own).values())
            return [r[0] for r in con.execute(f"SELECT DISTINCT {row_text(texts)} FROM {rows}").fetchall()], 0
        more = f"SELECT count(*) FILTER (_hw_op <> 'd') - count(*) FILTER (_hw_op = 'd') FROM {rows}"
        return [], int(con.execute(more).fetchall()[0][0])


def _open(lake: Lake, table: TableId) -> dict[Kind, Held | None]:
    return {kind: lake.open(table, kind) for kind in (*KINDS, "quarantine")}


def _schema(held: Mapping[Kind, Held | None]) -> TableSchema:
    quarantine = held["quarantine"]
    assert quarantine is not None
    return quarantine.schema


def _key_of(held: Mapping[Kind, Held | None]) -> Sequence[str]:
    return _schema(held).key


def _texts(cells: Sequence[str]) -> str:
    return ", ".join(f"CAST({cell} AS VARCHAR)" for cell in cells) or "'1'"


def _chosen(con: DuckDBPyConnection, table: TableId, schema: TableSchema, keys: Sequence[str]) -> str:
    """SQL of whether a row has one of these keys; ConfigError for a text that cannot be a key."""
    if keys and not schema.key:
        raise ConfigError(f"{table} has no key", hint="headwater quarantine show TABLE   (shows all of it)")
    types = {c.name: duckdb_type(c.type) for c in schema.columns}
    parsed = [parse_key(text, schema.key) for text in keys]
    one = (" AND ".join(_is(con, name, types[name], text) for name, text in key.items()) for key in parsed)
    return " OR ".join(f"({condition})" for condition in one).join("()") if parsed else "TRUE"


def _is(con: DuckDBPyConnection, name: str, kind: str, text: str) -> str:
    odd = f"({quote(name)} IS NULL AND {beside_text(name)} = {literal(text)})"
    if "\0" in text:
        raise ConfigError(f"{name}: a key has no NUL byte", hint="headwater quarantine list")
    fits = con.execute(f"SELECT TRY_CAST({literal(text)} AS {kind}) IS NOT NULL").fetchall()[0][0]
    return f"({quote(name)} = CAST({literal(text)} AS {kind}) OR {odd})" if fits else odd


def _moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
