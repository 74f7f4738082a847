"""Quarantine: rows with values that do not fit the type their column is cast to, and what queues behind them.

A lake table of its own for each table that has any. Its commits come before those of `changes`, and what
`changes` does not reach yet does not count: so a stop between the two needs no mending. docs/quarantine.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pyarrow as pa

from headwater.config import TableSpec
from headwater.lake import Held, Kind, TableFormat
from headwater.lake.layout import CARRIED
from headwater.lake.tail import MADE, SETTLED
from headwater.model import META, TableSchema

#: The note of a quarantine in which rows were given up: another one each time.
DROPS = "drops"

#: The note of `changes`: the casts by which the table was folded, as JSON: the column's name -> the rule.
RULES = "rules"

#: What a row has beside its key and the meta columns.
OWN: Mapping[str, pa.DataType] = {
    "_hw_entry": pa.int64(),
    "_hw_column": pa.string(),
    "_hw_rule": pa.string(),
    "_hw_row": pa.string(),
    "_hw_unset": pa.string(),
    "_hw_dropped": pa.bool_(),
}


def key_schema(schema: TableSchema) -> TableSchema:
    """The key columns of a table alone: what its quarantine holds in columns of their own."""
    columns = tuple(c for c in schema.columns if c.name in schema.key)
    return TableSchema(schema.table, columns, schema.key)


def quarantine_layout(schema: TableSchema) -> dict[str, pa.DataType]:
    """The columns of the quarantine of a table."""
    own = {c.name: c.type for c in key_schema(schema).columns}
    return own | {n: META.field(n).type for n in CARRIED} | dict(OWN)


def wanted_making(spec: TableSpec, quarantine: Held | None) -> str:
    """Names the rules that a table is to be folded by, and the rows given up; "" for no casts."""
    if not spec.casts:
        return ""
    rules = _rules(spec)
    drops = quarantine.notes.get(DROPS, "") if quarantine else ""
    said = json.dumps([rules, spec.on_cast_error == "null", drops], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def written_rules(spec: TableSpec) -> str:
    """The casts of a table as the note `RULES` has them."""
    return json.dumps(_rules(spec), sort_keys=True)


def changed_rules(spec: TableSpec, changes: Held, *, recast: bool) -> frozenset[str]:
    """The columns, by name, whose cast is not what it was when the table was folded.

    changes  its lake table, which need not be of the rules it has now: `recast` says that
    """
    now = _rules(spec)
    # A lake of before the note was written only tells whether anything changed.
    before = json.loads(changes.notes[RULES]) if RULES in changes.notes else {} if recast else now
    return frozenset(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _rules(spec: TableSpec) -> dict[str, dict[str, str | list[str]]]:
    return {column: cast.words() for column, cast in spec.casts.items()}


def next_making(wanted: str, before: str) -> str:
    """The `MADE` of a fold by the rules `wanted`, after one of `before`: never one that was there already."""
    count = making_number(before)
    return f"{wanted}-{count + 1}" if wanted or count else ""


def making_number(made: str) -> int:
    """The how manieth fold a `MADE` names; 0 where there never were casts."""
    return int(made.partition("-")[2] or 0)


def rules_of(made: str) -> str:
    """The rules in a `MADE`."""
    return made.partition("-")[0]


def standing(held: Mapping[Kind, Held | None]) -> Held | None:
    """The lake table that says how far a table is folded."""
    changes = held.get("changes")
    return changes if changes is not None and changes.schema.key else held.get("mirror")


def parked_rows(lake: TableFormat, held: Mapping[Kind, Held | None]) -> str | None:
    """SQL to stand after FROM: the rows that are set aside now; None when there is no quarantine."""
    quarantine, stands = held.get("quarantine"), standing(held)
    if quarantine is None or stands is None:
        return None
    if quarantine.notes.get(MADE, "") != stands.notes.get(MADE, ""):
        return None
    return (
        f"(SELECT * FROM {lake.scan(quarantine)} WHERE NOT _hw_dropped "
        f"AND _hw_entry <= {stands.mark.seq} AND _hw_seq >= {stands.notes.get(SETTLED, -1)})"
    )
