"""A base and its tail: a mirror or a history read together with the changes it does not hold yet.

`changes` holds every version of a table with a key. A base says in its notes how far it goes (`through`);
what lies beyond is its tail. All of it is SQL text over scans, so that a reader needs nothing but DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from headwater.canonical import literal, quote
from headwater.columns import cast_from, key_parts, meta_from
from headwater.lake import Held, TableFormat
from headwater.lake.layout import CARRIED, history_layout, history_meta, names_of
from headwater.model import TableSchema

#: The note of a base: the highest `_hw_seq` of `changes` that is in it. Older lakes have none, and no tail.
THROUGH = "through"

#: The note of a table with casts: by which rules it was folded, and the how manieth time. What has another
#: note than its `changes` was made by other rules and does not count.
MADE = "made"
#: The note of what stands for a table: rows set aside before this `_hw_seq` no longer hold anything up.
SETTLED = "settled"
#: The note of `changes` that were folded again: up to this entry the policies have let everything in before.
ACCEPTED = "accepted"
#: The note of `changes`: the number behind which a table that had no key has one.
KEYED = "keyed"

Cells = Callable[[TableSchema], str]

_META = ", ".join(CARRIED)

_MIRROR = """(
WITH _hw_newest AS MATERIALIZED (SELECT {parts}, max(_hw_seq) AS _hw_last FROM {tail_keys} GROUP BY {parts})
SELECT {columns} FROM (SELECT *, {named} FROM (SELECT {base_cells} FROM {base})) AS b
ANTI JOIN _hw_newest AS n ON {same_key}
UNION ALL
SELECT {columns} FROM (SELECT {tail_cells} FROM {tail}) AS t
SEMI JOIN _hw_newest AS n ON t._hw_seq = n._hw_last
WHERE t._hw_op <> 'd'
)"""

_HISTORY = """(
WITH _hw_order AS MATERIALIZED (
    SELECT {parts}, _hw_seq, _hw_at,
        lead(_hw_seq) OVER one_key AS _hw_next, lead(_hw_at) OVER one_key AS _hw_next_at,
        row_number() OVER one_key AS _hw_nth
    FROM {tail_keys} WINDOW one_key AS (PARTITION BY {parts} ORDER BY _hw_seq)
)
SELECT {columns}, {valid_from},
    CASE WHEN n._hw_seq IS NULL THEN o.{valid_to} ELSE n._hw_at END AS {valid_to},
    n._hw_seq IS NULL AND o.{current} AS {current},
    {meta}, coalesce(o._hw_seq_to, n._hw_seq) AS _hw_seq_to
FROM (SELECT *, {named} FROM (SELECT {base_cells} FROM {base})) AS o
LEFT JOIN (SELECT * FROM _hw_order WHERE _hw_nth = 1) AS n ON o._hw_seq_to IS NULL AND {same_key}
UNION ALL
SELECT {columns}, o._hw_at, CASE WHEN n._hw_next IS NULL THEN {open_end} ELSE n._hw_next_at END,
    n._hw_next IS NULL, {meta}, n._hw_next
FROM (SELECT {tail_cells} FROM {tail} WHERE _hw_op <> 'd') AS o
JOIN _hw_order AS n ON o._hw_seq = n._hw_seq
)"""


@dataclass(frozen=True, slots=True)
class Tail:
    """Rows of `changes` beyond `through`: all of them are in the files `paths`, `rows` of them at most.

    upto  without those beyond this number
    """

    changes: Held
    through: int
    paths: Sequence[str]
    rows: int
    upto: int | None = None

    def scan(self, lake: TableFormat) -> str:
        """SQL to stand after FROM: its rows."""
        within = f"_hw_seq > {self.through}"
        within += f" AND _hw_seq <= {self.upto}" if self.upto is not None else ""
        return f"(SELECT * FROM {lake.scan(self.changes, self.paths)} WHERE {within})"

    def keys(self, lake: TableFormat, schema: TableSchema) -> str:
        """SQL to stand after FROM: what tells its rows apart, and their place in the log."""
        cells = ", ".join(cast_from(self.changes.schema, schema))
        rows = f"SELECT {cells}, {_META} FROM {self.scan(lake)}"
        return f"(SELECT {_named(schema)}, _hw_seq, _hw_op, _hw_at FROM ({rows}))"


def through(base: Held) -> int | None:
    """The highest `_hw_seq` of `changes` that a base holds; None for one that was never told."""
    return int(base.notes[THROUGH]) if THROUGH in base.notes else None


def tail_beyond(changes: Held, reached: int) -> Tail:
    """What `changes` holds beyond a number."""
    names = changes.files.column_names
    paths: list[str] = changes.files["path"].to_pylist()
    highest = changes.files["max._hw_seq"].to_pylist() if "max._hw_seq" in names else [None] * len(paths)
    counts = changes.files["num_records"].to_pylist()
    found = [
        (path, count or 0)
        for path, high, count in zip(paths, highest, counts, strict=True)
        if high is None or high > reached
    ]
    return Tail(changes, reached, [path for path, _ in found], sum(count for _, count in found))


def tail_of(base: Held, changes: Held | None) -> Tail | None:
    """The tail of a base; None when the base is all there is."""
    reached = through(base)
    if changes is None or reached is None or not changes.schema.key:
        return None
    tail = tail_beyond(changes, reached)
    return tail if tail.paths else None


def is_outdated(base: Held, changes: Held | None) -> bool:
    """Whether a base was folded by other casts than the changes are."""
    return changes is not None and base.notes.get(MADE, "") != changes.notes.get(MADE, "")


def emptied(base: Held, changes: Held, layout: Mapping[str, pa.DataType]) -> Held:
    """A base without rows, so that all of it is read from the changes."""
    notes = {**base.notes, THROUGH: changes.notes.get(KEYED, "-1")}
    none = base.files.slice(0, 0)
    return replace(base, schema=changes.schema, layout=layout, files=none, notes=notes)


@dataclass(frozen=True, slots=True)
class Pick:
    """What to read of a mirror.

    cells    the select list that brings rows of an older schema into `columns`
    paths    only these files of the base; None: all
    """

    cells: Cells
    columns: Sequence[str]
    paths: Sequence[str] | None = None


def mirror_rows(
    lake: TableFormat, base: Held, tail: Tail | None, schema: TableSchema, pick: Pick | None = None
) -> str:
    """SQL to stand after FROM: the rows that are there now, in the columns of `schema` unless picked."""
    if pick is None:
        names = [*(quote(c.name) for c in schema.columns), *CARRIED]
        pick = Pick(lambda held: f"{', '.join(cast_from(held, schema))}, {meta_from(held, schema)}", names)
    if tail is None:
        return f"(SELECT {pick.cells(base.schema)} FROM {lake.scan(base, pick.paths)})"
    return _MIRROR.format(
        parts=_parts(schema), named=_named(schema), same_key=_same_key(schema, "b", "n"),
        columns=", ".join(pick.columns),
        base_cells=pick.cells(base.schema), base=lake.scan(base, pick.paths),
        tail_cells=pick.cells(tail.changes.schema), tail=tail.scan(lake), tail_keys=tail.keys(lake, schema),
    )  # fmt: skip


def history_rows(lake: TableFormat, base: Held, tail: Tail) -> str:
    """SQL to stand after FROM: every version, in the columns of the newest schema."""
    schema, names = tail.changes.schema, names_of(base.notes)
    layout = history_layout(schema, names)
    end = names.open_end
    return _HISTORY.format(
        parts=_parts(schema), named=_named(schema), same_key=_same_key(schema, "o", "n"),
        tail_keys=tail.keys(lake, schema),
        columns=", ".join(f"o.{quote(c.name)}" for c in schema.columns),
        meta=", ".join(f"o.{name}" for name in CARRIED),
        valid_from=quote(names.valid_from), valid_to=quote(names.valid_to), current=quote(names.current),
        open_end=f"TIMESTAMPTZ {literal(end.isoformat(sep=' '))}" if end else "NULL",
        base_cells=", ".join([*cast_from(base.schema, schema), history_meta(base.schema, schema, layout)]),
        base=lake.scan(base), tail=tail.scan(lake),
        tail_cells=f"{', '.join(cast_from(tail.changes.schema, schema))}, {_META}",
    )  # fmt: skip


def _parts(schema: TableSchema) -> str:
    return ", ".join(f"_hw_k{n}" for n in range(len(key_parts(schema))))


def _named(schema: TableSchema) -> str:
    return ", ".join(f"{part} AS _hw_k{n}" for n, part in enumerate(key_parts(schema)))


def _same_key(schema: TableSchema, one: str, other: str) -> str:
    names = [f"_hw_k{n}" for n in range(len(key_parts(schema)))]
    return " AND ".join(f"{one}.{n} IS NOT DISTINCT FROM {other}.{n}" for n in names)
