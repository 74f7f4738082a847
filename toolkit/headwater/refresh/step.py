"""One segment of one table: folded in DuckDB, then committed to each of the table's lake tables."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.canonical import duckdb_type, literal, quote
from headwater.config import TableSpec, quote_table
from headwater.errors import Corrupt, SchemaConflict
from headwater.failpoints import reach
from headwater.fold import Gone, Segment, Shape, changed_types, sql, unite
from headwater.lake import Change, Held, Kind, NewFile, TableFormat
from headwater.lake.keys import Keys
from headwater.lake.layout import CARRIED, history_layout, history_notes, plain_layout
from headwater.lake.rewrite import Swap, rewrite
from headwater.lake.touched import Target, files_with
from headwater.model import STRIDE, Mark, TableId
from headwater.raw import RawLog

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_META = ", ".join(CARRIED)


@dataclass(frozen=True, slots=True)
class Counts:
    """Versions made, and the net change of the mirror."""

    versions: int
    inserted: int
    updated: int
    deleted: int


class Step:
    """One segment of one table on its way into the lake. `held` is brought forward with each commit."""

    def __init__(
        self, con: DuckDBPyConnection, log: RawLog, lake: TableFormat, spec: TableSpec, segment: Segment,
        held: dict[Kind, Held | None],
    ) -> None:  # fmt: skip
        self.segment = segment
        self.mark = Mark(segment.epoch, segment.last)
        self._con, self._log, self._lake, self._spec, self._held = con, log, lake, spec, held
        seen = [log.schema(spec.table, b.ref.schema) for b in segment.batches]
        self.schema = unite([*(h.schema for h in held.values() if h), *seen])
        unlogged = any(b.ref.reload for b in segment.batches)
        self._shape = Shape(self.schema, frozenset(c.name for c in seen[-1].columns), unlogged)
        self._mirror = held["mirror"]
        self._same_key = self._mirror is None or self._mirror.schema.key == self.schema.key
        widths = [b.ref.memory // b.ref.rows for b in segment.batches if b.ref.rows]
        self._row_bytes = max([*widths, lake.width(self._mirror) if self._mirror else 0], default=0)

    def run(self) -> Counts:
        """Fold and commit; on an error nothing more is committed than was."""
        with self._clean():
            self._fold()
            self._refuse_wrong()
            counts = self._count()
            self._commit("changes", self._changes)
            if self.schema.key and self._spec.mode == "history":
                self._commit("history", self._history)
            self._commit("mirror", self._mirrored)
        return counts

    # Raw rows and mirror rows in, versions out.

    def _fold(self) -> None:
        if not self.segment.snapshot:
            self._fold_changes()
            return
        self._run(f"CREATE TEMP VIEW _hw_raw AS {self._raw()}")
        self._view_base()
        self._run(sql("cut"))
        if self._mirror is None or not self._same_key:
            self._run(self._shape.reload(self._gone()))
        elif self.schema.key:
            self._run(self._shape.snapshot(self._gone()))
        else:
            self._run(*self._shape.keyless_snapshot(self._gone()))

    def _fold_changes(self) -> None:
        if self._mirror is not None and not self._same_key:
            before, now = ", ".join(self._mirror.schema.key), ", ".join(self.schema.key)
            raise SchemaConflict(
                f"{self._spec.table}: its key changed, from ({before}) to ({now})",
                hint=_read_again(self._spec.table),
            )
        self._run(f"CREATE TEMP TABLE _hw_raw AS {self._raw()}")
        truncates = bool(self._ask("SELECT count(*) FROM _hw_raw WHERE _hw_op = 't'"))
        if truncates:
            self._view_base()
        else:
            self._load_base()
        odd = bool(
            self._ask("SELECT (SELECT count(_hw_text) FROM _hw_raw) + (SELECT count(_hw_text) FROM _hw_base)")
        )
        if not self.schema.key:
            self._run(*self._shape.keyless_changes(odd=odd))
            return
        unset = [r[0] for r in self._rows("SELECT DISTINCT unnest(_hw_unset) FROM _hw_raw")]
        moved = bool(self._ask("SELECT count(*) FROM _hw_raw WHERE _hw_op = 'c' AND len(_hw_unset) > 0"))
        self._run(self._shape.changes(unset=unset, truncates=truncates, moved=moved, odd=odd))

    def _raw(self) -> str:
        """The segment's raw rows, one piece for each schema version."""
        filled = sorted((b for b in self.segment.batches if b.ref.rows), key=lambda b: b.ref.schema)
        pieces = []
        for fingerprint, group in groupby(filled, key=lambda b: b.ref.schema):
            batches = list(group)
            schema = self._log.schema(self._spec.table, fingerprint)
            paths = [str(self._log.fetch(b.ref)) for b in batches]
            pieces.append(self._shape.raw(schema, paths, [b.entry for b in batches]))
        if not pieces:
            pieces.append(self._shape.nothing())
        named = f"SELECT *, {self._shape.named_parts} FROM ({{}})"
        return " UNION ALL ".join(named.format(piece) for piece in pieces)

    def _view_base(self) -> None:
        """The whole mirror."""
        self._run(f"CREATE TEMP VIEW _hw_base AS {self._base(None)}")

    def _load_base(self) -> None:
        """The mirror rows of the touched keys; of a table without one, the rows equal to deleted ones."""
        deleted = "" if self.schema.key else "WHERE _hw_op = 'd'"
        self._run(
            f"CREATE TEMP TABLE _hw_touched AS SELECT DISTINCT {self._part_names()} FROM _hw_raw {deleted}"
        )
        if self._mirror is None:
            self._view_base()
            return
        keys, cells = self._keys("_hw_touched"), f"{self._shape.cells(self._mirror.schema)}, {_META}"
        target = self._target(self._mirror, cells, plain_layout(self.schema))
        paths = files_with(target, self._paths(self._mirror), keys)
        touched = f"SEMI JOIN _hw_touched AS k ON {keys.same('b', 'k')}"
        self._run(f"CREATE TEMP TABLE _hw_base AS SELECT b.* FROM ({self._base(paths)}) AS b {touched}")

    def _base(self, paths: list[str] | None) -> str:
        held = self._mirror
        if held is None:
            return f"SELECT *, {self._shape.named_parts} FROM ({self._shape.nothing()})"
        cells = f"{self._shape.cells(held.schema)}, {_META}, {self._shape.absent(held.schema)} AS _hw_absent"
        rows = f"SELECT {cells} FROM {self._lake.scan(held, paths)}"
        return f"SELECT *, {self._shape.named_parts} FROM ({rows})"

    def _gone(self) -> Gone:
        """Keys that a snapshot lacks end at its first number; an empty one has the next that is free."""
        numbers = [b.ref.first_seq for b in self.segment.batches if b.ref.rows]
        last = self.segment.batches[-1]
        return Gone(min(numbers) // STRIDE * STRIDE if numbers else last.next_row, last.entry)

    def _refuse_wrong(self) -> None:
        unknown = "coalesce(_hw_was, 'd') = 'd'" if self.schema.key else "_hw_was = 'unmatched'"
        if self.segment.snapshot:
            return
        found = self._rows(sql("wrong", parts=self._part_names(), unknown=unknown))
        if not found:
            return
        op, seq, entry, lost, *key = found[0]
        what = {
            "c": "inserts a row that is already there",
            "u": "updates a row that is not there",
            "d": "deletes a row that is not there",
        }.get(op, "does not fit")
        if lost:
            what = "lacks cells of a row that is not there"
        raise SchemaConflict(
            f"{self._spec.table}: change {seq} of raw log entry {entry} {what} (key {_shown(key)})",
            hint=_read_again(self._spec.table),
        )

    def _count(self) -> Counts:
        versions, inserted, updated, deleted = self._rows(sql("counts"))[0]
        if not self.schema.key and self._same_key and self._mirror is not None:
            deleted = self._ask("SELECT count(*) FROM _hw_gone")
        return Counts(versions, inserted, updated, deleted)

    # Versions into the lake tables.

    def _commit(self, kind: Kind, make: Callable[[Held | None], Change]) -> None:
        """Commit one lake table, unless it has all of this already."""
        held = self._held[kind]
        if held is not None and held.mark.seq >= self.mark.seq:
            return
        change = make(held)
        reach(f"{kind}.before")
        self._held[kind] = self._lake.commit(self._spec.table, kind, held, change)
        reach(f"{kind}.after")

    def _changes(self, held: Held | None) -> Change:
        """Every version beyond the mark, appended."""
        self._refuse_behind(held)
        layout = plain_layout(self.schema)
        beyond = held.mark.seq if held else -1
        columns = ", ".join(self._shape.names)
        rows = f"SELECT {columns}, {_META} FROM _hw_versions WHERE _hw_entry > {beyond}"
        replace = held is not None and changed_types(held.schema, self.schema)
        if held is not None and replace:
            old = f"SELECT {self._shape.cells(held.schema)}, {_META} FROM {self._lake.scan(held)}"
            rows = f"{old} UNION ALL {rows}"
        add = self._write(rows, layout, ["_hw_seq"])
        return Change(self.mark, self.schema, layout, add, replace=replace)

    def _refuse_behind(self, held: Held | None) -> None:
        if self._mirror is not None and (held is None or held.mark.seq < self._mirror.mark.seq):
            raise Corrupt(
                f"{self._spec.table}: the lake's staged changes end before its mirror does",
                hint="move the table's folder out of lake/, then: headwater run   (folds the raw log)",
            )

    def _history(self, held: Held | None) -> Change:
        """Versions closed are appended; open ones are rewritten where their key got a version."""
        names = self._spec.history
        layout, notes = history_layout(self.schema, names), history_notes(names)
        if self._must_replay(held, notes):
            return self._replayed(held, layout, notes)
        beyond = held.mark.seq if held else -1
        closed, opened = self._history_rows("_hw_versions", beyond)
        if held is None:
            self._run(f"CREATE OR REPLACE TEMP VIEW _hw_open AS {self._no_open(layout)}")
            add = self._write_history(closed, opened, layout)
            return Change(self.mark, self.schema, layout, add, notes=notes)
        self._run(
            f"CREATE TEMP TABLE _hw_ended AS SELECT DISTINCT {self._part_names()} "
            f"FROM _hw_versions WHERE _hw_entry > {beyond}"
        )
        keys, cells = self._keys("_hw_ended"), self._history_cells(held, layout)
        target = self._target(held, cells, layout)
        still = _open_files(held)
        replace = changed_types(held.schema, self.schema)
        touched = files_with(target, still, keys)
        found = f"SELECT *, {keys.named} FROM (SELECT {cells} FROM {self._lake.scan(held, touched)})"
        self._run(
            f"CREATE TEMP TABLE _hw_open AS SELECT o.* FROM ({found}) AS o "
            f"SEMI JOIN _hw_ended AS k ON o._hw_seq_to IS NULL AND {keys.same('o', 'k')}"
        )
        if replace:
            shut = [path for path in self._paths(held) if path not in set(still)]
            columns = ", ".join(map(quote, layout))
            old = f"SELECT {columns} FROM (SELECT {cells} FROM {self._lake.scan(held, shut)})"
            closed = f"{old} UNION ALL {closed}"
        swap = Swap(keys, opened, self._order(), only="_hw_seq_to IS NULL", everything=replace)
        done = rewrite(target, still, swap)
        add = [*self._write(closed, layout, [*self._order(), "_hw_seq"]), *done.add]
        return Change(self.mark, self.schema, layout, add, done.remove, replace, notes)

    def _must_replay(self, held: Held | None, notes: Mapping[str, str]) -> bool:
        """Whether to make history anew from the changes: it was switched on late, or got other names."""
        if held is None:
            return self._mirror is not None and self._same_key
        behind = self._mirror is not None and held.mark.seq < self._mirror.mark.seq
        return behind or dict(held.notes) != dict(notes)

    def _replayed(
        self, held: Held | None, layout: Mapping[str, pa.DataType], notes: Mapping[str, str]
    ) -> Change:
        changes = self._held["changes"]
        assert changes is not None
        shape = self._shape
        rows = f"(SELECT {shape.cells(changes.schema)}, {_META} FROM {self._lake.scan(changes)})"
        self._run(
            sql("replayed", changes=rows, key_parts=shape.named_parts, parts=self._part_names(), entry="0"),
            f"CREATE OR REPLACE TEMP VIEW _hw_open AS {self._no_open(layout)}",
        )
        add = self._write_history(*self._history_rows("_hw_replayed", -1), layout)
        return Change(changes.mark, self.schema, layout, add, replace=held is not None, notes=notes)

    def _history_rows(self, versions: str, beyond: int) -> tuple[str, str]:
        """Queries of the rows that are closed, and of those that are open, after these versions."""
        names = self._spec.history
        end = f"TIMESTAMPTZ {literal(names.open_end.isoformat(sep=' '))}" if names.open_end else "NULL"
        named = {
            "valid_from": quote(names.valid_from),
            "valid_to": quote(names.valid_to),
            "current": quote(names.current),
        }
        shared = {"columns": ", ".join(self._shape.names), "versions": versions, "mark": str(beyond), **named}
        closed = sql(
            "closed", open_columns=", ".join(f"o.{n}" for n in self._shape.names), parts=self._part_names(),
            same_key=self._shape.same_key("o", "n"), **shared,
        )  # fmt: skip
        return closed, sql("opened", open_end=end, **shared)

    def _write_history(self, closed: str, opened: str, layout: Mapping[str, pa.DataType]) -> list[NewFile]:
        order = self._order()
        written = self._write(closed, layout, [*order, "_hw_seq"])
        return [*written, *self._write(opened, layout, order)]

    def _history_cells(self, held: Held, layout: Mapping[str, pa.DataType]) -> str:
        own = {c.name for c in self.schema.columns}
        return ", ".join([self._shape.cells(held.schema), *(quote(n) for n in layout if n not in own)])

    def _no_open(self, layout: Mapping[str, pa.DataType]) -> str:
        cells = ", ".join(f"CAST(NULL AS {duckdb_type(t)}) AS {quote(n)}" for n, t in layout.items())
        return f"SELECT *, {self._shape.named_parts} FROM (SELECT {cells} WHERE FALSE)"

    def _mirrored(self, held: Held | None) -> Change:
        """The rows that are there now, in place of those that were."""
        layout = plain_layout(self.schema)
        columns = ", ".join(self._shape.names)
        fresh = f"SELECT {columns}, {_META} FROM _hw_versions WHERE _hw_live"
        if held is None or not self._same_key:
            add = self._write(fresh, layout, self._order())
            return Change(self.mark, self.schema, layout, add, replace=held is not None)
        if self.schema.key:
            self._run(
                f"CREATE TEMP TABLE _hw_gone AS "
                f"SELECT DISTINCT {self._part_names()} FROM _hw_versions WHERE _hw_known"
            )
            keys = self._keys("_hw_gone")
        else:
            keys = Keys("_hw_gone", ["_hw_seq"], "_hw_seq", pa.int64())
        target = self._target(held, f"{self._shape.cells(held.schema)}, {_META}", layout)
        replace = changed_types(held.schema, self.schema)
        done = rewrite(target, self._paths(held), Swap(keys, fresh, self._order(), everything=replace))
        return Change(self.mark, self.schema, layout, done.add, done.remove, replace)

    # Small things.

    def _target(self, held: Held, cells: str, layout: Mapping[str, pa.DataType]) -> Target:
        return Target(self._lake, self._con, held, cells, layout, self._row_bytes)

    def _write(self, rows: str, layout: Mapping[str, pa.DataType], order: Sequence[str]) -> list[NewFile]:
        return self._lake.write(self._con, rows, layout, order, self._row_bytes)

    def _keys(self, relation: str) -> Keys:
        """Rows' identities in a relation, to be looked for in lake files."""
        if not self.schema.key:
            return Keys(relation, self._shape.identity, "", pa.null())
        first = self.schema.key[0]
        kind = next(c.type for c in self.schema.columns if c.name == first)
        return Keys(relation, self._shape.identity, first, kind)

    def _order(self) -> list[str]:
        return [quote(name) for name in self.schema.key] or ["_hw_seq"]

    def _part_names(self) -> str:
        return ", ".join(self._shape.parts)

    @staticmethod
    def _paths(held: Held) -> list[str]:
        paths: list[str] = held.files["path"].to_pylist()
        return paths

    def _run(self, *statements: str) -> None:
        for statement in statements:
            self._con.execute(statement).fetchall()

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._con.execute(query).fetchall()

    def _ask(self, query: str) -> int:
        return int(self._rows(query)[0][0])

    @contextmanager
    def _clean(self) -> Iterator[None]:
        """Leave nothing in the connection."""
        try:
            yield
        finally:
            for kind, name in self._rows(_TEMPORARY):
                self._run(f"DROP {kind} {quote(name)}")


_TEMPORARY = """
SELECT 'VIEW', view_name FROM duckdb_views() WHERE temporary AND NOT internal
UNION ALL SELECT 'TABLE', table_name FROM duckdb_tables() WHERE temporary AND NOT internal
"""


def _open_files(held: Held) -> list[str]:
    """Files that may hold an open version: by our own writing, or after another engine's compaction."""
    paths: list[str] = held.files["path"].to_pylist()
    if "null_count._hw_seq_to" not in held.files.column_names:
        return paths
    nulls = held.files["null_count._hw_seq_to"].to_pylist()
    return [path for path, count in zip(paths, nulls, strict=True) if count != 0]


def _shown(key: list[Any]) -> str:
    return ", ".join("NULL" if part is None else str(part)[:80] for part in key)


def _read_again(table: TableId) -> str:
    return f"headwater run --full --table {shlex.quote(quote_table(table))}   (history is kept)"
