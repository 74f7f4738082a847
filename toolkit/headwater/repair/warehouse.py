"""Keys put again into the tables of the models, out of the staged changes that dbt builds them from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from headwater.canonical import literal, quote
from headwater.config import WarehouseConfig
from headwater.handoff.built import Place
from headwater.handoff.stage import opened, select_staged
from headwater.handoff.tables import Staged, TableModel, open_end
from headwater.model import TableSchema
from headwater.repair.keys import among, key_text, note_keys

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NEWEST = """
SELECT * EXCLUDE (_hw_age), _hw_op = 'd' AS _hw_deleted FROM (
    SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY _hw_seq DESC) AS _hw_age FROM {changes}
) WHERE _hw_age = 1
"""

_VERSIONS = """
SELECT * EXCLUDE (_hw_at_to), _hw_at AS {valid_from},
    CASE WHEN _hw_seq_to IS NULL THEN {open_end} ELSE _hw_at_to END AS {valid_to},
    _hw_seq_to IS NULL AND _hw_op <> 'd' AS {current}
FROM (
    SELECT *, lead(_hw_seq) OVER one_key AS _hw_seq_to, lead(_hw_at) OVER one_key AS _hw_at_to
    FROM {changes} WINDOW one_key AS (PARTITION BY {key} ORDER BY _hw_seq)
)
"""


def put_keys(
    warehouse: WarehouseConfig,
    model: TableModel,
    places: Mapping[str, Place],
    staged: Staged,
    schema: TableSchema,
    keys: Collection[str],
) -> int:
    """Put the current row and every version of these keys again; returns the rows that changed in number.

    schema  the source's newest, by which keys are told
    keys    by their text. No other row is touched, and all of it is one transaction.
    """
    with opened(warehouse.path) as con:
        con.execute("SET TimeZone = 'UTC'")
        note_keys(con, keys)
        rows = f"({select_staged(con, staged)})"
        changes = among(rows, key_text(schema, _types(con, rows)))
        con.execute(f"CREATE TEMP TABLE _hw_again AS SELECT * FROM {changes}")
        con.begin()
        done = 0
        for name, query in _queries(model):
            place = places.get(name, (warehouse.schema, model.relations[name]))
            done += _put(con, f"{quote(place[0])}.{quote(place[1])}", query, schema)
        con.commit()
        return done


def _queries(model: TableModel) -> Iterator[tuple[str, str]]:
    """What the tables of the models hold of the changes in `_hw_again`, as the macros say."""
    key = ", ".join(map(quote, model.schema.key))
    yield model.base, _NEWEST.format(key=key, changes="_hw_again")
    if model.versioned:
        names, end = model.history, open_end(model.history)
        yield model.versions, _VERSIONS.format(
            key=key, changes="_hw_again",
            valid_from=quote(names.valid_from), valid_to=quote(names.valid_to), current=quote(names.current),
            open_end=f"TIMESTAMPTZ {literal(end.isoformat(sep=' '))}" if end else "CAST(NULL AS TIMESTAMPTZ)",
        )  # fmt: skip


def _put(con: DuckDBPyConnection, table: str, query: str, schema: TableSchema) -> int:
    there = _types(con, table)
    named = {name.casefold(): name for name in there}
    wanted = [name for name in _types(con, f"({query})") if name.casefold() in named]
    suspects = f"{key_text(schema, there)} IN (SELECT k FROM _hw_suspects)"
    out = con.execute(f"DELETE FROM {table} WHERE {suspects}").fetchall()[0][0]
    cells = ", ".join(map(quote, wanted))
    into = ", ".join(quote(named[name.casefold()]) for name in wanted)
    put = con.execute(f"INSERT INTO {table} ({into}) SELECT {cells} FROM ({query})").fetchall()[0][0]
    return max(int(out), int(put))


def _types(con: DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
