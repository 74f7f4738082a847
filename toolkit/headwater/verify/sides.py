"""Two sets of rows compared by key: SQL in the target's DuckDB connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from headwater.canonical import column_texts, row_text, shown_text, slice_of
from headwater.keys import format_key
from headwater.model import TableSchema
from headwater.verify.found import KeyDifference, Kind

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: About how many rows of each side are compared at once: memory is bounded whether one row differs or all.
_ROWS = 4_000_000

_UNEQUAL = """
CREATE OR REPLACE TEMP TABLE _hw_unequal AS
WITH both_sides AS (
    SELECT k, h, 1 AS n FROM ({ours}) UNION ALL SELECT k, h, -1 FROM ({theirs})
), unequal AS (SELECT k, h, sum(n) AS n FROM both_sides GROUP BY k, h HAVING sum(n) <> 0)
SELECT k, CASE WHEN min(n) > 0 THEN 'missing' WHEN max(n) < 0 THEN 'extra' ELSE 'different' END AS kind
FROM unequal GROUP BY k
"""

_Row = tuple[str | None, ...]  # the key's values for a person, then the MD5 of each column's text


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sets of rows: SQL in the target's connection, and its column types.

    slices   of how many; told by the schema's columns that are not masked
    without  whether the keys in `_hw_without` are left out
    """

    schema: TableSchema
    relation: str
    held: Mapping[str, str]
    slices: int = 1
    without: bool = False

    def rows(self, chosen: Sequence[int]) -> str:
        """SQL of the key text `k` and the MD5 `h` of each row in some slices.

        A table without a key has the MD5 as its key.
        """
        rows = f"SELECT {self._key_and_row()} FROM ({self._texts()})"
        if self.slices > 1:
            numbers = ", ".join(map(str, chosen))
            rows += f" WHERE {slice_of(self._sliced_by(), self.slices)} IN ({numbers})"
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
        place = self._places()
        row = f"md5({row_text(list(place.values()))})"
        key = row_text([place[name] for name in self.schema.key]) if self.schema.key else row
        return f"{key} AS k, {row} AS h"

    def _sliced_by(self) -> str:
        """The MD5 of `canonical.key_hash` for the schema that the digests were made by."""
        plain = self.schema.unmasked()
        place = self._places()
        named = [place[name] for name in plain.key or [c.name for c in plain.columns]]
        return f"md5({row_text(named)})"

    def _places(self) -> dict[str, str]:
        return {c.name: f"t{n}" for n, c in enumerate(self.schema.columns)}

    def _shown(self, name: str) -> str:
        if name not in self.held:
            return "CAST(NULL AS VARCHAR)"
        return shown_text(name, self.held[name], "_hw_text" in self.held)


@dataclass(frozen=True, slots=True)
class Pair:
    """The rows that should be, and those that are."""

    ours: Side
    theirs: Side
    connection: DuckDBPyConnection

    def leave_out(self, keys: Sequence[str]) -> None:
        """Make the keys known that sides `without` them leave out."""
        self.connection.register("_hw_without", pa.table({"k": pa.array(keys, pa.string())}))


def differences(
    pair: Pair, where: str, slices: Sequence[int], rows: int, limit: int
) -> tuple[list[KeyDifference], Mapping[str, int]]:
    """Up to `limit` keys of some slices whose rows are not the same, and how many there are of each kind.

    rows   about how many each side has in a slice
    """
    found: list[tuple[str, Kind]] = []
    counts: Counter[str] = Counter()
    step = max(_ROWS // max(rows, 1), 1)
    for some in (slices[first : first + step] for first in range(0, len(slices), step)):
        pair.connection.execute(_UNEQUAL.format(ours=pair.ours.rows(some), theirs=pair.theirs.rows(some)))
        counts.update(dict(pair.connection.execute(_KINDS).fetchall()))
        found += pair.connection.execute(_FIRST, [limit - len(found)]).fetchall()
    return list(_named(pair, where, found)), dict(counts)


_KINDS = "SELECT kind, count(*) FROM _hw_unequal GROUP BY kind ORDER BY kind"
_FIRST = "SELECT k, kind FROM _hw_unequal ORDER BY k LIMIT ?"


def _named(pair: Pair, where: str, found: Sequence[tuple[str, Kind]]) -> Iterator[KeyDifference]:
    schema = pair.ours.schema
    if not schema.key:
        for key, kind in found:
            yield KeyDifference(where, f"row {key}", kind, (), key)
        return
    keys = [key for key, _ in found]
    here, there = (_details(side, keys, pair.connection) for side in (pair.ours, pair.theirs))
    for key, kind in found:
        ours, theirs = here.get(key, []), there.get(key, [])
        shown = (ours or theirs)[0]
        name = format_key({name: shown[n] or "" for n, name in enumerate(schema.key)})
        yield KeyDifference(where, name, kind, _unequal_columns(schema, kind, ours, theirs), key)


def _details(side: Side, keys: Sequence[str], connection: DuckDBPyConnection) -> dict[str, list[_Row]]:
    """The rows of some keys, by key text."""
    found: dict[str, list[_Row]] = {}
    connection.register("_hw_named", pa.table({"k": pa.array(keys, pa.string())}))
    wanted = f"SELECT * EXCLUDE (h) FROM ({side.details()}) SEMI JOIN _hw_named USING (k)"
    for key, *row in connection.execute(wanted).fetchall():
        found.setdefault(key, []).append(tuple(row))
    return found


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
