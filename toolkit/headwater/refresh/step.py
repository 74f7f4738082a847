"""One segment of one table: folded in DuckDB, then committed. Of a table with a key, to `changes` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pyarrow as pa

from headwater.columns import changed_types, ident, key_idents, meta_from
from headwater.errors import SchemaConflict
from headwater.failpoints import reach
from headwater.fold import Batch, Gone, Placed, Segment, Shape, as_called_now, grow, retyped, sql
from headwater.lake import Change, Held, Kind
from headwater.lake.byfolder import rewrite_placed
from headwater.lake.keys import Keys
from headwater.lake.layout import CARRIED, plain_layout
from headwater.lake.placing import place, placed_anew
from headwater.lake.rewrite import Swap
from headwater.lake.tail import KEYED, SETTLED, Pick, mirror_rows, tail_of
from headwater.lake.touched import files_with
from headwater.model import STRIDE, Mark, TableSchema
from headwater.raw import RawLog
from headwater.refresh.parking import Parking
from headwater.refresh.parts import META, Bench, Work, paths_of, read_again
from headwater.refresh.review import refuse_casts, refuse_columns, refuse_left_out, refuse_truncate

#: Notes of `changes`: the highest number of the newest full load ...
WHOLE = "whole"
#: ... that there is nothing else in it ...
FIRST = "first"
#: ... and the number from which on names, or what old rows hold, are as they are now.
RESHAPED = "reshaped"


@dataclass(frozen=True, slots=True)
class Counts:
    """Versions made, and the net change of the mirror."""

    versions: int
    inserted: int
    updated: int
    deleted: int


class Step:
    """One segment of one table on its way into the lake. `held` is brought forward with each commit.

    exact   look at the rows under all changes, to refuse those that do not fit before anything is committed;
            else only for cells that changes lack, and the rest is found at compaction
    """

    def __init__(self, work: Work, log: RawLog, segment: Segment, *, exact: bool) -> None:
        self.segment = segment
        self.mark = Mark(segment.epoch, segment.last)
        self._work, self._log, self._exact = work, log, exact
        self._lake, self._spec, self._held = work.lake, work.spec, work.held
        self._in_order = False  # whether versions come by their numbers
        held = work.held
        casts = work.spec.casts
        stored = [log.schema(self._spec.table, b.ref.schema) for b in segment.batches]
        self._mirror = held["mirror"]
        before = held["changes"] or self._mirror
        self._before = before.schema if before else None
        if casts:
            newest = log.schema(self._spec.table, log.tables()[self._spec.table].schema)
            refuse_casts(self._spec, [*([self._before] if self._before else []), *stored], newest)
            stored = [as_called_now(schema, newest) for schema in stored]
        policies = self._spec.policies
        seen = [retyped(schema, casts) for schema in stored]
        growth = grow(self._before, seen, discard=policies.schema == "discard")
        self.schema = growth.schema
        self._placed = [_as_stored(raw, its) for raw, its in zip(stored, growth.placed, strict=True)]
        self._seen = seen[-1]
        there = {ident(c) for c in self._placed[-1].schema.columns}
        present = frozenset(c.name for c in self.schema.columns if ident(c) in there)
        unlogged = any(b.ref.reload for b in segment.batches)
        self._shape = Shape(self.schema, present, unlogged, casts)
        widths = [b.ref.memory // b.ref.rows for b in segment.batches if b.ref.rows]
        row_bytes = max([*widths, self._lake.width(self._mirror) if self._mirror else 0], default=0)
        self._bench = Bench(work, self._shape, row_bytes)
        self._run, self._rows, self._ask = self._bench.run, self._bench.rows, self._bench.ask
        self.parking = (
            Parking(work, self._bench, segment, [p.schema for p in self._placed]) if casts else None
        )

    @property
    def _accepted(self) -> bool:
        """Whether this was let in before, and is only folded again."""
        return self.segment.last <= self._work.accepted

    @property
    def _same_key(self) -> bool:
        return self._before is None or key_idents(self._before) == key_idents(self.schema)

    def run(self) -> Counts:
        """Fold and commit; on an error nothing more is committed than was."""
        changes = self._held["changes"]
        if self.schema.key and changes is not None and changes.mark.seq >= self.mark.seq:
            return Counts(0, 0, 0, 0)
        self._refuse_schema()
        with self._bench.clean():
            counts = self._fold()
            self._set_aside()
            self._commit("changes", self._changes)
            if not self.schema.key:
                self._commit("mirror", self._mirrored)
        return counts

    def _refuse_schema(self) -> None:
        """Raise for columns that must not come in."""
        if self._before is None:
            return
        if self._spec.policies.schema != "evolve" and not self._accepted:
            refuse_columns(self._spec, self._before, self._seen, self.schema)
        if self._before.left_out and not self.segment.snapshot:
            refuse_left_out(self._spec, self._before, self.schema)

    # Raw rows and mirror rows in, versions out.

    def _fold(self) -> Counts:
        if not self.segment.snapshot:
            return self._fold_changes()
        several = self.segment.several and bool(self.schema.key)
        name = "_hw_all" if several else self._sent
        self._run(f"CREATE TEMP VIEW {name} AS {self._raw(entries=True)}")
        if several:
            self._settle_sittings()
        if self.parking:
            if several:
                self._run("ALTER VIEW _hw_raw RENAME TO _hw_sent")
            self.parking.park_snapshot(self._gone().seq)
        self._view_base()
        if self.schema.key_chosen:
            self._refuse(self._shape.valueless())
            self._refuse(sql("twice", parts=self._bench.parts))
        self._run(sql("cut"))
        if self._mirror is None or not self._same_key:
            self._run(self._shape.reload(self._gone()))
            self._in_order = self._mirror is None and not several
        elif self.schema.key:
            self._run(self._shape.snapshot(self._gone()))
        else:
            self._run(*self._shape.keyless_snapshot(self._gone()))
        return self._count()

    @property
    def _sent(self) -> str:
        """The name of raw rows as they come: parking decides which of them go on as `_hw_raw`."""
        return "_hw_sent" if self.parking else "_hw_raw"

    def _set_aside(self) -> None:
        """Commit what waits, before anything goes on without it."""
        change = self.parking.change(self._pieces(), self._held.get("quarantine")) if self.parking else None
        if change is not None:
            reach("quarantine.before")
            self._work.commit("quarantine", change)
            reach("quarantine.after")

    def _settle_sittings(self) -> None:
        """The net rows of an epoch read in several sittings: a row read takes the place of its key's."""
        bench, shape = self._bench, self._shape
        same_key = shape.same_key("r", "k")
        self._run(
            sql("several", parts=bench.parts),
            f"CREATE TEMP TABLE _hw_raw AS SELECT * FROM _hw_all WHERE _hw_op = 't' UNION ALL "
            f"SELECT r.* FROM _hw_all AS r SEMI JOIN _hw_many AS k ON {same_key} WHERE _hw_op <> 't'",
            f"CREATE TEMP VIEW _hw_base AS SELECT *, {shape.named_parts} FROM ({shape.nothing()})",
        )
        truncates, lacking, moved, odd = map(bool, self._rows(_FACTS)[0])
        unset = [r[0] for r in self._rows(_UNSET)] if lacking else []
        self._run(shape.changes(unset=unset, truncates=truncates, moved=moved, odd=odd))
        # What was not there yet is read later, or came by another way: only what is left over must be whole.
        left = "SELECT * FROM _hw_versions WHERE _hw_live"
        lost = f"SELECT _hw_op, _hw_seq, TRUE, {bench.parts} FROM ({left}) WHERE _hw_lost"
        self._refuse(f"{lost} ORDER BY _hw_seq LIMIT 1")
        self._run(
            f"CREATE TEMP TABLE _hw_net AS {left}",
            "DROP TABLE _hw_versions", "DROP TABLE _hw_raw", "DROP VIEW _hw_base",
            sql(
                "net", columns=", ".join(shape.names), parts=bench.parts, same_key=same_key,
                entry=str(self.segment.last),
            ),
        )  # fmt: skip

    def _fold_changes(self) -> Counts:
        if self._before is not None and not self._same_key:
            before, now = ", ".join(self._before.key), ", ".join(self.schema.key)
            raise SchemaConflict(
                f"{self._spec.table}: its key changed, from ({before}) to ({now})",
                hint=read_again(self._spec.table),
            )
        kept = sum(b.ref.memory for b in self.segment.batches) <= self._work.room
        raw = self._raw(entries=not self.schema.key or self.parking is not None)
        self._run(f"CREATE TEMP {'TABLE' if kept else 'VIEW'} {self._sent} AS {raw}")
        if self.parking:
            self.parking.park_changes()
        if not self.schema.key:
            self._fold_bag()
            return self._count()
        if self.schema.key_chosen:
            self._refuse(self._shape.valueless())
        truncates, lacking, moved, odd = map(bool, self._rows(_FACTS)[0])
        if truncates and self._spec.policies.on_truncate == "fail" and not self._accepted:
            raise refuse_truncate(self._spec)
        if not (truncates or lacking or self._exact or self.schema.partial):
            self._run("CREATE TEMP VIEW _hw_versions AS SELECT * FROM _hw_raw")
            return self._pass_on()
        unset = [r[0] for r in self._rows(_UNSET)] if lacking else []
        self._bring_base(unset, whole=truncates)
        odd = odd or bool(self._ask("SELECT count(_hw_text) FROM _hw_base"))
        self._run(self._shape.changes(unset=unset, truncates=truncates, moved=moved, odd=odd))
        if self._spec.policies.on_truncate == "ignore":
            # The row that a truncate took at the source is still here.
            self._run("UPDATE _hw_versions SET _hw_op = 'u' WHERE _hw_op = 'c' AND _hw_was <> 'd'")
        seen = self._exact or truncates or self.schema.partial
        unknown = "coalesce(_hw_was, 'd') = 'd'" if seen else "_hw_was = 'd'"
        self._refuse(sql("wrong", parts=self._bench.parts, unknown=unknown))
        return self._count()

    def _fold_bag(self) -> None:
        if self._ask("SELECT count(*) FROM _hw_raw WHERE _hw_op = 't'"):
            if self._spec.policies.on_truncate == "fail" and not self._accepted:
                raise refuse_truncate(self._spec)
            self._view_base()
        else:
            self._load_bag()
        odd = self._ask(
            "SELECT (SELECT count(_hw_text) FROM _hw_raw) + (SELECT count(_hw_text) FROM _hw_base)"
        )
        self._run(*self._shape.keyless_changes(odd=bool(odd)))
        self._refuse(sql("wrong", parts=self._bench.parts, unknown="_hw_was = 'unmatched'"))

    def _pass_on(self) -> Counts:
        """Changes that lack nothing are versions as they came."""
        self._in_order = True
        versions, inserted, updated, deleted, most = self._rows(sql("plain", parts=self._bench.parts))[0]
        if most > 1:
            same_key = self._shape.same_key("_hw_raw", "k")
            self._refuse(sql("wrong_plain", parts=self._bench.parts, same_key=same_key))
        return Counts(int(versions), inserted, updated, deleted)

    def _raw(self, *, entries: bool) -> str:
        """The segment's raw rows in their order, one piece for each schema version."""
        pieces = [
            self._shape.raw(placed, paths, [b.entry for b in batches] if entries else ())
            for placed, paths, batches in self._files()
        ]
        if not pieces:
            pieces.append(self._shape.nothing())
        kept = " WHERE _hw_op <> 't'" if self._spec.policies.on_truncate == "ignore" else ""
        named = f"SELECT *, {self._shape.named_parts} FROM ({{}}){kept}"
        return " UNION ALL ".join(named.format(piece) for piece in pieces)

    def _files(self) -> Iterator[tuple[Placed, list[str], list[Batch]]]:
        """The segment's files in their order, by schema version."""
        filled = [(b, p) for b, p in zip(self.segment.batches, self._placed, strict=True) if b.ref.rows]
        filled.sort(key=lambda found: found[0].ref.first_seq)
        for placed, group in groupby(filled, key=lambda found: found[1]):
            batches = [batch for batch, _ in group]
            yield placed, [str(self._log.fetch(b.ref)) for b in batches], batches

    def _pieces(self) -> Iterator[tuple[TableSchema, list[str]]]:
        return ((placed.schema, paths) for placed, paths, _ in self._files())

    def _view_base(self) -> None:
        """The whole mirror; for a full load without the rows whose keys wait."""
        rows = self._base([c.name for c in self.schema.columns])
        if self.parking and self.segment.snapshot:
            rows = self.parking.base(rows)
        self._run(f"CREATE TEMP VIEW _hw_base AS {rows}")

    def _bring_base(self, unset: Sequence[str], *, whole: bool) -> None:
        """The key and `unset` cells of rows under the changes."""
        if whole:
            self._run(f"CREATE TEMP TABLE _hw_base AS {self._base(unset)}")
            return
        if self._exact or self.schema.partial:
            self._run(f"CREATE TEMP TABLE _hw_touched AS SELECT DISTINCT {self._bench.parts} FROM _hw_raw")
        else:
            self._run(sql("lacking", parts=self._bench.parts))
        paths: Sequence[str] | None = None
        keys = self._bench.keys("_hw_touched", self._mirror)
        if self._mirror is not None and not self._exact:
            cells = self._shape.carried(self._mirror.schema)
            target = self._bench.target(self._mirror, cells, plain_layout(self.schema))
            paths = files_with(target, paths_of(self._mirror), keys)
        touched = f"SEMI JOIN _hw_touched AS k ON {keys.same('b', 'k')}"
        base = self._base(unset, paths)
        self._run(f"CREATE TEMP TABLE _hw_base AS SELECT b.* FROM ({base}) AS b {touched}")

    def _load_bag(self) -> None:
        """Of a table without a key, the rows equal to deleted ones."""
        self._run(
            f"CREATE TEMP TABLE _hw_touched AS SELECT DISTINCT {self._bench.parts} FROM _hw_raw "
            "WHERE _hw_op = 'd'"
        )
        if self._mirror is None:
            self._view_base()
            return
        keys, cells = self._bench.keys("_hw_touched"), self._shape.carried(self._mirror.schema)
        target = self._bench.target(self._mirror, cells, plain_layout(self.schema))
        paths = files_with(target, paths_of(self._mirror), keys)
        touched = f"SEMI JOIN _hw_touched AS k ON {keys.same('b', 'k')}"
        base = self._base([c.name for c in self.schema.columns], paths)
        self._run(f"CREATE TEMP TABLE _hw_base AS SELECT b.* FROM ({base}) AS b {touched}")

    def _base(self, names: Sequence[str], paths: Sequence[str] | None = None) -> str:
        """The rows that are there, under their parts; of their cells only the key's and `names`."""
        held = self._mirror
        if held is None:
            return f"SELECT *, {self._shape.named_parts} FROM ({self._shape.nothing()})"
        shape = self._shape
        pick = Pick(
            lambda s: (
                f"{shape.wanted(s, names)}, {meta_from(s, self.schema)}, {shape.absent(s)} AS _hw_absent"
            ),
            [*shape.names, *CARRIED, "_hw_absent"],
            paths,
        )
        tail = tail_of(held, self._held["changes"])
        rows = mirror_rows(self._lake, held, tail, self._keyed_as_before(), pick)
        return f"SELECT *, {shape.named_parts} FROM {rows}"

    def _keyed_as_before(self) -> TableSchema:
        """The lake's columns under the key that its rows have now."""
        names = {ident(c): c.name for c in self.schema.columns}
        marks = key_idents(self._before) if self._before else ()
        return replace(self.schema, key=tuple(names[mark] for mark in marks))

    def _gone(self) -> Gone:
        """Keys that a snapshot lacks end at its first number; an empty one has the next that is free."""
        numbers = [b.ref.first_seq for b in self.segment.batches if b.ref.rows]
        last = self.segment.batches[-1]
        return Gone(min(numbers) // STRIDE * STRIDE if numbers else last.next_row, last.entry)

    def _refuse(self, query: str) -> None:
        """Raise the conflict that a query finds."""
        for op, seq, lost, *key in self._rows(query):
            entry = next(b.entry for b in self.segment.batches if b.ref.first_seq <= seq <= b.ref.last_seq)
            raise self._bench.refuse(op, seq, key, lost=lost, entry=entry)

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
        self._work.commit(kind, change)
        reach(f"{kind}.after")

    def _changes(self, held: Held | None) -> Change:
        """Every version beyond the mark, appended."""
        layout = plain_layout(self.schema)
        columns = ", ".join(self._shape.names)
        rows = f"SELECT {columns}, {META} FROM _hw_versions"
        if not self.schema.key:
            rows += f" WHERE _hw_entry > {held.mark.seq if held else -1}"
        anew = held is not None and changed_types(held.schema, self.schema)
        if held is not None and anew:
            old = f"SELECT {self._shape.carried(held.schema)} FROM {self._lake.scan(held)}"
            rows = f"{old} UNION ALL {rows}"
        # Raw rows come in their order; a window or a join would have mixed them.
        add = self._bench.write(rows, layout, [] if self._in_order and not anew else ["_hw_seq"])
        return Change(self.mark, self.schema, layout, add, replace=anew, notes=self._notes(held))

    def _notes(self, held: Held | None) -> dict[str, str]:
        """What compaction and the handoff must know of the versions."""
        making = self._making(held)
        notes = {name: told for name, told in (held.notes if held else {}).items() if name != FIRST} | making
        if held is not None and changed_types(held.schema, self.schema):
            notes[RESHAPED] = str(self._gone().seq)
        if not self.schema.key:
            return making | ({RESHAPED: notes[RESHAPED]} if RESHAPED in notes else {})
        if self.segment.snapshot:
            gone = self._gone().seq
            notes[WHOLE] = str(max(gone, *(b.ref.last_seq for b in self.segment.batches)))
            if held is None:
                notes[FIRST] = "1"
            elif key_idents(held.schema) != key_idents(self.schema):
                notes[KEYED] = str(gone)
        return notes

    def _making(self, held: Held | None) -> dict[str, str]:
        """What is to be known of a table with casts: the rules, and what no longer waits."""
        notes = dict(self._work.making)
        settled = self.parking.settled if self.parking else None
        before = held.notes.get(SETTLED) if held else None
        if settled is not None:
            notes[SETTLED] = str(settled)
        elif before is not None and notes:
            notes[SETTLED] = before
        return notes

    def _mirrored(self, held: Held | None) -> Change:
        """Of a table without a key, the rows that are there now, in place of those that were."""
        layout = plain_layout(self.schema)
        columns = ", ".join(self._shape.names)
        fresh = f"SELECT {columns}, {META} FROM _hw_versions WHERE _hw_live"
        placing = place(self._spec, self.schema).measured(held, self._held["changes"])
        notes = self._making(held) | dict(placing.notes)
        if held is None or not self._same_key:
            add, anew = self._bench.write(fresh, layout, self._bench.order, placing), held is not None
            return Change(self.mark, self.schema, layout, add, (), anew, notes, placing.names)
        keys = Keys("_hw_gone", ["_hw_seq"], "_hw_seq", pa.int64())
        target = self._bench.target(held, self._shape.carried(held.schema), layout, placing)
        anew = changed_types(held.schema, self.schema) or placed_anew(held, placing)
        swap = Swap(keys, fresh, self._bench.order, everything=anew)
        done = rewrite_placed(target, paths_of(held), swap)
        return Change(self.mark, self.schema, layout, done.add, done.remove, anew, notes, placing.names)


_FACTS = """
SELECT count(*) FILTER (_hw_op = 't'), count(*) FILTER (_hw_op <> 'd' AND len(_hw_unset) > 0),
    count(*) FILTER (_hw_op = 'c' AND len(_hw_unset) > 0), count(_hw_text)
FROM _hw_raw
"""
_UNSET = "SELECT DISTINCT unnest(_hw_unset) FROM _hw_raw WHERE _hw_op <> 'd'"


def _as_stored(stored: TableSchema, placed: Placed) -> Placed:
    """The columns in their places with the types of the raw log, before their casts."""
    marks = {c.name: c.ident for c in placed.schema.columns}
    columns = tuple(replace(c, ident=marks[c.name]) for c in stored.columns if c.name in marks)
    return Placed(replace(stored, columns=columns), placed.gone)
