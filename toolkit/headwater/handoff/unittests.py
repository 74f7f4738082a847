"""dbt unit tests for a table's models: small stories in the table's own columns and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headwater.handoff.tables import TableModel
from headwater.handoff.warehouses import Warehouse
from headwater.handoff.yamltext import Node

Story = Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class _Change:
    """One change in a story: which of two rows, which of two contents, what happened, and when."""

    row: int
    content: int
    op: str
    seq: int


def unit_tests(table: TableModel, source: str, facts: Warehouse) -> Sequence[Story]:
    """The unit tests of one table."""
    teller = _Teller(table, facts)
    changes = f"source('{source}', '{table.relation}')"
    if not table.schema.key:
        return [teller.multiset()]
    stories = [teller.newest(changes), teller.window(changes), teller.current()]
    return [*stories, teller.versions(changes)] if table.versioned else stories


class _Teller:
    """Tells the stories of one table, in its key and its first other column."""

    def __init__(self, table: TableModel, facts: Warehouse) -> None:
        self._table = table
        self._facts = facts
        columns = table.schema.columns
        key = set(table.schema.key)
        told = next((c.name for c in columns if c.name not in key), None)
        self._samples = {c.name: _samples(c.type) for c in columns if c.name in key or c.name == told}

    def newest(self, changes: str) -> Story:
        """The newest change of a key wins."""
        story = [_Change(0, 0, "c", 2), _Change(0, 1, "u", 6), _Change(1, 0, "c", 10), _Change(1, 0, "d", 14)]
        expected = [
            {**self._values(story[1]), "_hw_seq": 6, "_hw_deleted": False},
            {**self._values(story[3]), "_hw_seq": 14, "_hw_deleted": True},
        ]
        what, macros = "newest_change_wins_and_deletes_stay", {"is_incremental": False}
        return self._story(self._table.base, what, changes, story, expected, macros)

    def window(self, changes: str) -> Story:
        """Changes that the model holds already are left out."""
        story = [_Change(0, 0, "c", 2), _Change(1, 0, "c", 6)]
        expected = [{**self._values(story[1]), "_hw_seq": 6}]
        what, macros = "reads_only_what_is_new", {"is_incremental": True, "headwater_low_mark": 2}
        return self._story(self._table.base, what, changes, story, expected, macros)

    def current(self) -> Story:
        """Deleted rows are not current."""
        story = [_Change(0, 1, "u", 6), _Change(1, 0, "d", 14)]
        expected = [{**self._values(story[0]), "_hw_seq": 6}]
        given = f"ref('{self._table.base}')"
        return self._story(self._table.current, "has_no_deleted_rows", given, story, expected)

    def versions(self, changes: str) -> Story:
        """Updates and deletes end versions."""
        story = [_Change(0, 0, "c", 2), _Change(0, 1, "u", 6), _Change(0, 1, "d", 10), _Change(0, 0, "c", 14)]
        current = self._table.history.current
        expected = [
            {**self._values(change), "_hw_seq": change.seq, "_hw_seq_to": end, current: end is None}
            for change, end in zip(story, (6, 10, 14, None), strict=True)
        ]
        what, macros = "each_version_ends_where_the_next_begins", {"is_incremental": False}
        return self._story(self._table.versions, what, changes, story, expected, macros)

    def multiset(self) -> Story:
        """Without a key a delete takes one of the rows that equal it."""
        story = [_Change(0, 0, "c", 2), _Change(0, 0, "c", 6), _Change(0, 0, "d", 10), _Change(0, 1, "c", 14)]
        expected = [{**self._values(c), "_hw_seq": c.seq} for c in (story[1], story[3])]
        given = f"ref('{self._table.base}')"
        return self._story(self._table.current, "a_delete_takes_one_of_equal_rows", given, story, expected)

    def _story(
        self,
        model: str,
        what: str,
        given: str,
        story: Sequence[_Change],
        expected: Sequence[Story],
        macros: Story | None = None,
    ) -> Story:
        found: dict[str, Node] = {"name": f"{model}__{what}", "model": model}
        if macros:
            # A build with a span of changes to apply again runs the unit tests as well.
            found["overrides"] = {"macros": macros, "vars": {"headwater_after": None, "headwater_upto": None}}
        found["given"] = [{"input": given, "format": "sql", "rows": self._rows(story, given)}]
        return {**found, "expect": {"rows": list(expected)}}

    def _values(self, change: _Change) -> dict[str, Node]:
        key = set(self._table.schema.key)
        return {n: pair[change.row if n in key else change.content] for n, pair in self._samples.items()}

    def _rows(self, story: Sequence[_Change], given: str) -> str:
        """The story as a query, first what differs from row to row, then the columns around it."""
        facts = self._facts
        cells = [f"    {self._cell(c.name, facts.column_type(c.type))}," for c in self._table.schema.columns]
        marked = given.startswith("ref") and bool(self._table.schema.key)
        told: list[str] = []
        names = [*map(facts.quote, self._samples), "_hw_op", "_hw_seq"]
        for change in story:
            values = [*(f"'{v}'" for v in self._values(change).values()), f"'{change.op}'", str(change.seq)]
            named = [f"{v} as {n}" for v, n in zip(values, names, strict=True)]
            told.append("select " + ", ".join(values if told else named))
        return "\n".join(
            [
                "select",
                *cells,
                "    _hw_op,",
                "    _hw_seq,",
                f"    cast(null as {facts.moment}) as _hw_at,",
                f"    cast(null as {facts.text}) as _hw_text" + ("," if marked else ""),
                *(["    _hw_op = 'd' as _hw_deleted"] if marked else []),
                "from (",
                "    " + "\n    union all ".join(told),
                ") as story",
                "",
            ]
        )

    def _cell(self, name: str, kind: str) -> str:
        quoted = self._facts.quote(name)
        return f"cast({quoted if name in self._samples else 'null'} as {kind}) as {quoted}"


def _samples(arrow: pa.DataType) -> tuple[str, str]:
    """Two different values of a type, as text that casts to it."""
    if pa.types.is_decimal(arrow):
        return ("1", "2") if arrow.precision > arrow.scale else ("0", "0." + "1".rjust(arrow.scale, "0"))
    for fits, pair in _PAIRS:
        if fits(arrow):
            return pair
    return ("a", "b")


_PAIRS = (
    (pa.types.is_boolean, ("false", "true")),
    (pa.types.is_integer, ("1", "2")),
    (pa.types.is_floating, ("1.5", "2.5")),
    (pa.types.is_date, ("2026-01-01", "2026-01-02")),
    (pa.types.is_time, ("01:00:00", "02:00:00")),
    (pa.types.is_timestamp, ("2026-01-01 00:00:00", "2026-01-02 00:00:00")),
)
