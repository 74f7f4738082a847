"""Compaction: what `changes` holds beyond the mirror and the history of a table moves into their files.

Nothing but `changes` is read for it, and of the bases the files that hold a touched key. Each base is one
atomic commit; a stop between the two leaves one with a longer tail, which the next compaction takes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from headwater.canonical import duckdb_type, literal, quote
from headwater.columns import changed_types
from headwater.failpoints import reach
from headwater.fold import Shape, sql
from headwater.lake import Change, Held, Kind, NewFile
from headwater.lake.byfolder import append_placed, rewrite_placed
from headwater.lake.layout import history_layout, history_meta, history_notes, is_spelt, plain_layout
from headwater.lake.placing import place, placed_anew
from headwater.lake.rewrite import Swap
from headwater.lake.tail import KEYED, THROUGH, Tail, tail_beyond, through
from headwater.lake.touched import Found, files_with
from headwater.refresh.parts import META, Bench, Work, paths_of
from headwater.refresh.step import FIRST, WHOLE

#: Closed versions of tails up to so many rows are sorted by key, where there is room for that.
SORTED_ROWS = 1_000_000


class Compaction:
    """One table with a key."""

    def __init__(self, work: Work) -> None:
        changes = work.held["changes"]
        assert changes is not None and changes.schema.key
        self._work = work
        self._lake, self._spec, self._held, self._changes = work.lake, work.spec, work.held, changes
        self._room = work.room
        self._bench = Bench(work, Shape(changes.schema, frozenset()), self._lake.width(changes))
        self._run = self._bench.run
        placing = place(work.spec, changes.schema)
        self._placing = placing.measured(work.held["mirror"], work.held["history"], changes)
        self._reached: int | None = None  # what `_hw_order` and `_hw_fresh` begin behind
        self._found: Found | None = None  # where the mirror has rows of the tail's keys
        # A full load that found all rows as they were has made no version, and is in the bases all the same.
        self._high = max(work.lake.highest(changes), int(changes.notes.get(WHOLE, -1)))

    def run(self) -> None:
        """Take in the tails; raises SchemaConflict for changes that do not fit what is under them."""
        with self._bench.clean():
            if FIRST in self._changes.notes and self._held["mirror"] is None:
                self._load()
                return
            self._refuse_misfit()
            if self._spec.mode == "history":
                self._commit("history", self._history(self._held["history"]))
            self._commit("mirror", self._mirror(self._held["mirror"]))

    def _commit(self, kind: Kind, change: Change) -> None:
        reach(f"{kind}.before")
        self._work.commit(kind, change)
        reach(f"{kind}.after")

    # The tail.

    def _tail(self, reached: int) -> Tail:
        return tail_beyond(self._changes, reached)

    def _begin(self, kind: Kind) -> int:
        """Behind which number the tail of a base begins; where it is made anew, at the table's key."""
        held = self._held[kind]
        reached = None if held is None or self._anew(kind, held) else through(held)
        return int(self._changes.notes.get(KEYED, -1)) if reached is None else reached

    def _anew(self, kind: Kind, held: Held) -> bool:
        """Whether a base is made anew from the changes: its columns got other names, or its lake is old."""
        if through(held) is None or not held.schema.key:
            return True
        return kind == "history" and not is_spelt(held.notes, self._spec.history)

    def _line_up(self, reached: int) -> None:
        """The order of the tail's versions, and the rows that are there at its end."""
        if self._reached == reached:
            return
        keys = self._tail(reached).keys(self._lake, self._bench.schema)
        parts = self._bench.parts
        self._run(
            sql("order", keys=keys, parts=parts),
            sql("fresh", tail=self._rows(self._tail(reached)), order=", ".join(self._bench.order)),
            "CREATE OR REPLACE TEMP TABLE _hw_keys AS "
            f"SELECT {parts} FROM _hw_order WHERE _hw_nth = 1 ORDER BY {parts}",
        )
        self._reached = reached

    def _rows(self, tail: Tail) -> str:
        """SQL to stand after FROM: the versions of a tail."""
        return f"(SELECT {self._shape.carried(self._changes.schema)} FROM {tail.scan(self._lake)})"

    @property
    def _shape(self) -> Shape:
        return self._bench.shape

    def _refuse_misfit(self) -> None:
        self._line_up(self._begin("mirror"))
        held = self._held["mirror"]
        if held is None or self._anew("mirror", held):
            self._run(f"CREATE TEMP TABLE _hw_found AS SELECT {self._bench.parts} FROM _hw_keys WHERE FALSE")
        else:
            layout = plain_layout(self._bench.schema)
            target = self._bench.target(held, self._mirror_cells(held), layout, self._placing)
            keys = self._bench.keys("_hw_keys", held)
            self._found = Found("_hw_found", files_with(target, paths_of(held), keys, found="_hw_found"))
        own = ", ".join(f"o.{part}" for part in self._shape.parts)
        query = sql(
            "misfit", own_parts=own, parts=self._bench.parts, same_key=self._shape.same_key("o", "f"),
            whole=str(self._changes.notes.get(WHOLE, -1)),
        )  # fmt: skip
        for op, seq, lost, *key in self._bench.rows(query):
            raise self._bench.refuse(op, seq, key, lost=lost)

    # Into the bases.

    def _mirror_cells(self, held: Held) -> str:
        return self._shape.carried(held.schema)

    def _mirror(self, held: Held | None) -> Change:
        """The rows that are there now, in place of those that were."""
        self._line_up(self._begin("mirror"))
        schema, layout = self._bench.schema, plain_layout(self._bench.schema)
        columns = ", ".join(self._shape.names)
        fresh = f"SELECT {columns}, {META} FROM _hw_fresh"
        if held is None or self._anew("mirror", held):
            add = self._bench.write(fresh, layout, self._bench.order, self._placing)
            return self._change(layout, add, (), held is not None, self._notes())
        target = self._bench.target(held, self._mirror_cells(held), layout, self._placing)
        anew = changed_types(held.schema, schema) or placed_anew(held, self._placing)
        keys = self._bench.keys("_hw_keys", held)
        swap = Swap(keys, fresh, self._bench.order, everything=anew, in_order=True, found=self._found)
        done = rewrite_placed(target, paths_of(held), swap)
        return self._change(layout, done.add, done.remove, anew, self._notes())

    def _notes(self, more: Mapping[str, str] | None = None) -> Mapping[str, str]:
        return {**(more or {}), **self._work.making, **self._placing.notes, THROUGH: str(self._high)}

    def _change(
        self,
        layout: Mapping[str, pa.DataType],
        add: Sequence[NewFile],
        remove: Sequence[str],
        replace: bool,
        notes: Mapping[str, str],
    ) -> Change:
        schema, mark = self._bench.schema, self._changes.mark
        return Change(mark, schema, layout, add, remove, replace, notes, self._placing.names)

    def _history(self, held: Held | None) -> Change:
        """Versions closed are appended; open ones are rewritten where their key got a version."""
        names, schema = self._spec.history, self._bench.schema
        layout, notes = history_layout(schema, names), self._notes(history_notes(names))
        reached = self._begin("history")
        self._line_up(reached)
        closed, opened = self._history_rows(self._tail(reached))
        order = self._bench.order
        # What was closed is read whole or by time: of a long tail it stays as it comes, where a sort is dear.
        rows = self._tail(reached).rows
        fits = rows <= SORTED_ROWS and rows * self._bench.row_bytes <= self._room
        closing = [*order, "_hw_seq"] if fits else []
        if held is None or self._anew("history", held):
            self._run(f"CREATE OR REPLACE TEMP VIEW _hw_open AS {self._no_open(layout)}")
            add = self._bench.write(closed, layout, closing, self._placing.undivided())
            add += self._bench.write(opened, layout, order, self._placing)
            return self._change(layout, add, (), held is not None, notes)
        keys, cells = self._bench.keys("_hw_keys", held), self._history_cells(held, layout)
        target = self._bench.target(held, cells, layout, self._placing)
        still = open_files(held)
        anew = changed_types(held.schema, schema) or placed_anew(held, self._placing)
        touched = files_with(target, still, keys)
        found = f"SELECT *, {keys.named} FROM (SELECT {cells} FROM {self._lake.scan(held, touched)})"
        self._run(
            f"CREATE TEMP TABLE _hw_open AS SELECT o.* FROM ({found}) AS o "
            f"SEMI JOIN _hw_keys AS k ON o._hw_seq_to IS NULL AND {keys.same('o', 'k')}"
        )
        shut = [path for path in paths_of(held) if path not in set(still)]
        if anew:
            columns = ", ".join(map(quote, layout))
            old = f"SELECT {columns} FROM (SELECT {cells} FROM {self._lake.scan(held, shut)})"
            closed = f"{old} UNION ALL {closed}"
        swap = Swap(keys, opened, order, only="_hw_seq_to IS NULL", everything=anew, in_order=True)
        done = rewrite_placed(target, still, swap)
        closed_too = append_placed(target, () if anew else shut, closed, closing)
        add, remove = [*closed_too.add, *done.add], [*closed_too.remove, *done.remove]
        return self._change(layout, add, remove, anew, notes)

    def _history_rows(self, tail: Tail) -> tuple[str, str]:
        """Queries of the rows that are closed, and of those that are open, after a tail."""
        closed = sql(
            "closed", open_columns=", ".join(f"o.{n}" for n in self._shape.names), tail=self._rows(tail),
            tail_columns=", ".join(f"t.{n}" for n in self._shape.names),
            same_key=self._shape.same_key("o", "n"), **self._span_names(),
        )  # fmt: skip
        return closed, self._opened()

    def _opened(self) -> str:
        end = self._spec.history.open_end
        # Without a type, a file of open versions alone would say that it holds integers.
        text = f"TIMESTAMPTZ {literal(end.isoformat(sep=' '))}" if end else "CAST(NULL AS TIMESTAMPTZ)"
        return sql("opened", columns=", ".join(self._shape.names), open_end=text, **self._span_names())

    def _span_names(self) -> dict[str, str]:
        names = self._spec.history
        return {
            "valid_from": quote(names.valid_from),
            "valid_to": quote(names.valid_to),
            "current": quote(names.current),
        }

    def _history_cells(self, held: Held, layout: Mapping[str, pa.DataType]) -> str:
        return f"{self._shape.cells(held.schema)}, {history_meta(held.schema, self._bench.schema, layout)}"

    def _no_open(self, layout: Mapping[str, pa.DataType]) -> str:
        cells = ", ".join(f"CAST(NULL AS {duckdb_type(t)}) AS {quote(n)}" for n, t in layout.items())
        return f"SELECT *, {self._shape.named_parts} FROM (SELECT {cells} WHERE FALSE)"

    # The first load: every row is there once, so files are made piece by piece.

    def _load(self) -> None:
        schema, names = self._bench.schema, self._spec.history
        made: dict[Kind, list[NewFile]] = {"history": [], "mirror": []}
        layouts: dict[Kind, Mapping[str, pa.DataType]] = {"mirror": plain_layout(schema)}
        notes: dict[Kind, Mapping[str, str]] = {"mirror": self._notes()}
        if self._spec.mode == "history" and self._held["history"] is None:
            layouts["history"] = history_layout(schema, names)
            notes["history"] = self._notes(history_notes(names))
        columns, order = ", ".join(self._shape.names), self._bench.order
        placing = self._placing
        # Folders are made in one go: each piece has rows for all of them.
        pieces = self._pieces() if placing.whole else [self._lake.scan(self._changes)]
        made_of = "TABLE" if placing.whole else "VIEW"
        for piece in pieces:
            self._run(f"CREATE OR REPLACE TEMP {made_of} _hw_fresh AS SELECT {columns}, {META} FROM {piece}")
            if "history" in layouts:
                made["history"] += self._bench.write(self._opened(), layouts["history"], order, placing)
            rows = f"SELECT {columns}, {META} FROM _hw_fresh"
            made["mirror"] += self._bench.write(rows, layouts["mirror"], order, placing)
        kinds: tuple[Kind, ...] = ("history", "mirror")
        for kind in kinds:
            if kind in layouts:
                self._commit(kind, self._change(layouts[kind], made[kind], (), False, notes[kind]))

    def _pieces(self) -> Iterator[str]:
        """The rows of `changes` in pieces that there is room for, as SQL to stand after FROM."""
        files = self._changes.files
        width = max(self._bench.row_bytes, 1)
        names = files.column_names
        for file in files.to_pylist():
            rows = self._lake.scan(self._changes, [file["path"]])
            low, high = file.get("min._hw_seq"), file.get("max._hw_seq")
            count = -(-(file["num_records"] or 1) * width // self._room)
            if count == 1 or low is None or high is None or "min._hw_seq" not in names:
                yield rows
                continue
            step = (high - low) // count + 1
            for start in range(low, high + 1, step):
                yield f"(SELECT * FROM {rows} WHERE _hw_seq >= {start} AND _hw_seq < {start + step})"


def open_files(held: Held) -> list[str]:
    """Files that may hold an open version: by our own writing, or after another engine's compaction."""
    paths = paths_of(held)
    if "null_count._hw_seq_to" not in held.files.column_names:
        return paths
    nulls = held.files["null_count._hw_seq_to"].to_pylist()
    return [path for path, count in zip(paths, nulls, strict=True) if count != 0]
