"""A table of the lake put right: changes by the raw log, mirror and history by the changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from headwater.canonical import canonical_text, column_texts, duckdb_type, quote, row_text
from headwater.columns import cast_from, changed_types, meta_from
from headwater.config import Files, TableSpec
from headwater.fold import Shape
from headwater.lake import Change, Held, Kind
from headwater.lake.byfolder import rewrite_placed
from headwater.lake.delta import Lake
from headwater.lake.derived import base_rows, broken_files, cells_of, derivable, from_changes, layout_of
from headwater.lake.keys import Keys
from headwater.lake.layout import CARRIED, plain_layout
from headwater.lake.placing import PLAIN, Placing, place, placed_anew
from headwater.lake.rewrite import Swap
from headwater.lake.tail import through
from headwater.lake.touched import Found, Target, files_with
from headwater.model import TableSchema
from headwater.refresh.parts import Bench, Work, paths_of
from headwater.repair.keys import among, key_text, note_keys

_META = ", ".join(CARRIED)

# Rows of one side that the other has not, by the text of everything in them.
_WRONG = """
CREATE OR REPLACE TEMP TABLE _hw_wrong AS
SELECT k FROM (
    SELECT k, h, 1 AS n FROM ({wanted}) UNION ALL SELECT k, h, -1 FROM ({there})
) GROUP BY k, h HAVING sum(n) <> 0
"""


@dataclass(slots=True)
class Mended:
    """What was done to one table: keys and files written again, by lake table."""

    keys: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


class Mending:
    """One table of the lake with a key, open for repair. `schema` is the source's newest."""

    def __init__(self, lake: Lake, spec: TableSpec, schema: TableSchema, work: Work) -> None:
        changes = work.held["changes"]
        assert changes is not None and changes.schema.key
        self._lake, self._spec, self._newest, self._work = lake, spec, schema, work
        self._bench = Bench(work, Shape(changes.schema, frozenset()), lake.width(changes))
        self._con = self._bench.con
        self.mended = Mended()

    @property
    def _changes(self) -> Held:
        changes = self._work.held["changes"]
        assert changes is not None
        return changes

    def by_raw(self, again: Lake, keys: Collection[str]) -> None:
        """Put the changes of these keys as a lake has them that was folded from the raw log again."""
        schema, made = self._changes.schema, again.open(self._spec.table, "changes")
        layout = plain_layout(schema)
        cells = ", ".join([*(quote(c.name) for c in schema.columns), _META])
        wanted = f"(SELECT {cells} FROM {self._lake.scan(self._changes, [])})"
        if made is not None:
            own = f"{', '.join(cast_from(made.schema, schema))}, {meta_from(made.schema, schema)}"
            wanted = f"(SELECT {own} FROM {again.scan(made)})"
        there = f"(SELECT {cells} FROM {self._lake.scan(self._changes)})"
        if not self._find_wrong(wanted, there, layout, keys):
            return
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE _hw_swap AS SELECT DISTINCT _hw_seq AS _hw_k0 FROM ("
            f"SELECT _hw_seq FROM {self._wrong(there)} UNION ALL SELECT _hw_seq FROM {self._wrong(wanted)})"
        )
        # Files of changes are ranges of numbers.
        by_number = Keys("_hw_swap", ["_hw_seq"], "_hw_seq", pa.int64())
        self._swap("changes", cells, layout, by_number, f"SELECT * FROM {self._wrong(wanted)}")

    def by_changes(self, kind: Kind, keys: Collection[str] | None = None) -> None:
        """Put these keys (None: all that are wrong) of a mirror or a history as the changes tell."""
        held = self._work.held.get(kind)
        reached = through(held) if held is not None else None
        if held is None or reached is None:
            return  # never compacted: all of it is read from the changes
        schema = self._changes.schema
        cells, layout = cells_of(held, schema), layout_of(held, schema)
        wanted = from_changes(self._lake, held, self._changes, reached)
        broken = broken_files(self._lake, held)
        good = [path for path in paths_of(held) if path not in set(broken)]
        there = base_rows(self._lake, held, self._changes, good)
        # Which rows were in a file that is gone, nobody knows.
        if not self._find_wrong(wanted, there, layout, None if broken else keys) and not broken:
            return
        parts = self._bench.shape.named_parts
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE _hw_swap AS SELECT DISTINCT {self._bench.parts} FROM ("
            f"SELECT {parts} FROM {self._wrong(there)} UNION ALL SELECT {parts} FROM {self._wrong(wanted)})"
        )
        fresh = f"SELECT * FROM {self._wrong(wanted)}"
        self._swap(kind, cells, layout, self._bench.keys("_hw_swap", held), fresh, broken)

    def _find_wrong(
        self, wanted: str, there: str, layout: Mapping[str, pa.DataType], keys: Collection[str] | None
    ) -> bool:
        """Note in `_hw_wrong` the keys whose rows are not the same."""
        if keys is not None:
            note_keys(self._con, keys)
            wanted, there = (among(rows, self._key()) for rows in (wanted, there))
        sides = {"wanted": wanted, "there": there}
        hashed = {
            n: f"SELECT {self._key()} AS k, {self._image(layout)} AS h FROM {r}" for n, r in sides.items()
        }
        self._con.execute(_WRONG.format(**hashed))
        self._con.execute("CREATE OR REPLACE TEMP TABLE _hw_bad AS SELECT DISTINCT k FROM _hw_wrong")
        return bool(self._bench.ask("SELECT count(*) FROM _hw_bad"))

    def _wrong(self, rows: str) -> str:
        return among(rows, self._key(), "_hw_bad")

    def _key(self) -> str:
        """SQL of the key's text over rows in the lake's columns."""
        held = {c.name: duckdb_type(c.type) for c in self._changes.schema.columns}
        return key_text(self._newest, held | {"_hw_text": "VARCHAR"})

    def _image(self, layout: Mapping[str, pa.DataType]) -> str:
        """SQL of an MD5 of everything in a row; of a delete, of what every log tells of it."""
        schema = self._changes.schema
        own = column_texts(schema)
        texts = [f"CASE WHEN _hw_op <> 'd' THEN {text} END" for text in own.values()]
        meta = [n for n in layout if n not in own and n not in ("_hw_text", "_hw_pos", "_hw_tx")]
        texts += [canonical_text(quote(name), duckdb_type(layout[name])) for name in meta]
        return f"md5({row_text([f'({text})' for text in texts])})"

    def _swap(  # noqa: PLR0913, PLR0917
        self,
        kind: Kind,
        cells: str,
        layout: Mapping[str, pa.DataType],
        keys: Keys,
        fresh: str,
        broken: Sequence[str] = (),
    ) -> None:
        held = self._work.held[kind]
        assert held is not None
        schema = self._changes.schema
        placing, order = Placing(files=Files(self._spec.files.compression)), ["_hw_seq"]
        if kind != "changes":
            placing, order = place(self._spec, schema).measured(held, self._changes), self._bench.order
        anew = changed_types(held.schema, schema) or placed_anew(held, placing)
        target = self._bench.target(held, cells, layout, placing)
        sound = [path for path in paths_of(held) if path not in set(broken)]
        only = derivable(held, self._changes)
        found = None if anew else _found(target, sound, keys, only)
        swap = Swap(keys, fresh, order, only, everything=anew, found=found, in_place=False)
        done = rewrite_placed(target, sound, swap)
        notes = {**held.notes, **placing.notes}
        change = Change(
            held.mark, schema, layout, done.add, [*done.remove, *broken], anew, notes, placing.names
        )
        self._work.commit(kind, change)
        self.mended.keys[kind] = self._bench.ask("SELECT count(*) FROM _hw_bad")
        self.mended.files[kind] = len(done.add)

    def close(self) -> None:
        """Leave nothing behind in the connection."""
        self._con.close()


def _found(target: Target, paths: Sequence[str], keys: Keys, only: str) -> Found:
    """Where keys are, by the rows themselves: bounds and folders tell what was written once."""
    assert target.held is not None
    files = target.held.files
    plain = files.select([name for name in files.column_names if not name.startswith(("min.", "max."))])
    blind = replace(target, held=replace(target.held, files=plain), placing=PLAIN)
    return Found("_hw_places", files_with(blind, paths, keys, only=only))
