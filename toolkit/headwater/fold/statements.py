"""The fold's statements: `.sql` templates filled in for the shape of one table. Pure text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from string import Template

import pyarrow as pa

from headwater.canonical import duckdb_type, literal, quote
from headwater.columns import (
    cast_from,
    ident,
    image,
    json_of,
    key_parts,
    meta_from,
    odd_keys,
    odd_text,
    spelling,
)
from headwater.fold.retype import Casts, cells_of
from headwater.growth import Placed
from headwater.model import TableSchema

_RAW_META = {
    "_hw_op": "VARCHAR",
    "_hw_seq": "BIGINT",
    "_hw_pos": "VARCHAR",
    "_hw_at": "TIMESTAMPTZ",
    "_hw_tx": "VARCHAR",
    "_hw_unset": "VARCHAR[]",
    "_hw_text": "VARCHAR",
    "_hw_absent": "VARCHAR[]",
    "_hw_entry": "BIGINT",
}


def text(name: str) -> str:
    """The template `name`.sql of this room."""
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def sql(name: str, **parts: str) -> str:
    """A template with its parts in place."""
    return Template(text(name)).substitute(parts)


@dataclass(frozen=True, slots=True)
class Gone:
    """Where the rows that a new epoch lacks are deleted; `_hw_cut` holds the rest, see cut.sql."""

    seq: int
    entry: int


@dataclass(frozen=True)
class Shape:
    """One table as the fold sees it.

    schema    the lake's columns
    present   which of them the source still has
    unlogged  columns that are new to a row hold something that was not logged; else they hold NULL
    casts     the type changes of raw rows
    """

    schema: TableSchema
    present: frozenset[str]
    unlogged: bool = False
    casts: Casts = field(default_factory=dict)

    @cached_property
    def names(self) -> list[str]:
        """The columns, quoted."""
        return [quote(c.name) for c in self.schema.columns]

    @cached_property
    def identity(self) -> list[str]:
        """SQL of what tells rows apart: the key, or the whole image of a row without one."""
        return key_parts(self.schema) if self.schema.key else [image(self.schema, self.present)]

    @cached_property
    def parts(self) -> list[str]:
        """The names that `identity` gets as columns."""
        return [f"_hw_k{n}" for n in range(len(self.identity))]

    @property
    def named_parts(self) -> str:
        """`identity` under its names."""
        return ", ".join(f"{e} AS {n}" for e, n in zip(self.identity, self.parts, strict=True))

    def valueless(self) -> str:
        """A query of the first row with a key column that has no value, of `_hw_raw`."""
        beside = {name: n for n, name in enumerate(odd_keys(self.schema), len(self.schema.key))}
        missing = [
            f"_hw_k{n} IS NULL" + (f" AND _hw_k{beside[name]} IS NULL" if name in beside else "")
            for n, name in enumerate(self.schema.key)
        ]
        where = " OR ".join(f"({m})" for m in missing)
        return (
            f"SELECT 'n', _hw_seq, FALSE, {', '.join(self.parts)} FROM _hw_raw"
            f" WHERE _hw_op <> 't' AND ({where}) ORDER BY _hw_seq LIMIT 1"
        )

    def nothing(self) -> str:
        """A query of no rows, with the columns of raw rows."""
        cells = [f"CAST(NULL AS {duckdb_type(c.type)}) AS {quote(c.name)}" for c in self.schema.columns]
        meta = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in _RAW_META.items()]
        return f"SELECT {', '.join([*cells, *meta])} WHERE FALSE"

    def cells(self, schema: TableSchema) -> str:
        """The lake's columns out of rows of an older lake schema."""
        return ", ".join(cast_from(schema, self.schema))

    def carried(self, schema: TableSchema) -> str:
        """The lake's columns and the meta columns out of rows of an older lake schema."""
        return f"{self.cells(schema)}, {meta_from(schema, self.schema)}"

    def absent(self, schema: TableSchema) -> str:
        """SQL of the list of columns whose cells in rows of `schema` nobody knows; NULL for none."""
        had = {ident(c) for c in schema.columns}
        missing = [c for c in self.schema.columns if ident(c) not in had]
        names = [literal(c.name) for c in missing if c.fill is None and not c.retired]
        return f"[{', '.join(names)}]" if names and self.unlogged else "CAST(NULL AS VARCHAR[])"

    def same_key(self, one: str, other: str) -> str:
        """The join condition that two aliases speak of the same row."""
        return " AND ".join(f"{one}.{p} IS NOT DISTINCT FROM {other}.{p}" for p in self.parts)

    def raw(self, placed: Placed, paths: Sequence[str], entries: Sequence[int] = ()) -> str:
        """The rows of raw files of one schema version, in the lake's columns, with their entries if given.

        `placed` has the columns' types as in these files, before their casts.
        """
        schema = placed.schema
        renamed = spelling(schema, self.schema)
        unset = "_hw_unset"
        if renamed:
            cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in renamed.items())
            unset = f"list_transform(_hw_unset, lambda _hw_name: CASE _hw_name {cases} ELSE _hw_name END)"
        cells = cells_of(schema, self.schema, self.casts, placed.gone)
        odd = " OR ".join(["_hw_text IS NOT NULL", *([cells.bad] if cells.bad else [])])
        known = (
            ", ".join(f"({literal(p)}, {e})" for p, e in zip(paths, entries, strict=True)) if entries else ""
        )
        return sql(
            "raw",
            columns=", ".join(cells.columns),
            inner=", ".join(["*", *cells.inner]),
            unset=unset,
            text=f"CASE WHEN {odd} THEN {json_of(list(cells.texts), list(cells.texts.values()))} END",
            absent=self.absent(schema),
            paths=", ".join(map(literal, paths)),
            named=", filename = '_hw_file'" if entries else "",
            entry="f._hw_entry" if entries else "-1 AS _hw_entry",
            entries=f"JOIN (VALUES {known}) AS f(_hw_name, _hw_entry) ON r._hw_file = f._hw_name"
            if entries
            else "",
        )

    def changes(self, *, unset: Collection[str], truncates: bool, moved: bool, odd: bool) -> str:
        """Versions of change rows under a key.

        unset      columns that some row does not carry, deletes apart
        truncates  there is one among the rows
        moved      a change of key left cells out
        odd        some row has `_hw_text`

        Of a table that is copied in part, changes may be of rows that are not there.
        """
        unset = [c.name for c in self.schema.columns if c.name in unset]
        ordered, happened = "ordered", "happened" if truncates else "sent"
        filled, values = "nothing AS (SELECT 1)", {name: quote(name) for name in self._plain()}
        if unset:
            ordered, filled = "filled", self._filled(unset, moved=moved, odd=odd)
            values |= {name: f"struct_extract({quote(name)}, 'v')" for name in unset}
        return self._with_columns(
            "changes",
            emptied=self._emptied() if truncates else "",
            tolerated=self._with_columns("tolerated", happened=happened) if self.schema.partial else "",
            happened="tolerated" if self.schema.partial else happened,
            filled=filled,
            settled=ordered,
            values=", ".join(f"{value} AS {quote(name)}" for name, value in values.items()),
            text=self._json(unset) if unset and odd else "_hw_text",
            lost=" OR ".join(map(_lost, unset)) if unset else "FALSE",
        )

    def _emptied(self) -> str:
        key = set(self.schema.key)
        cells = [quote(c.name) if c.name in key else f"CAST(NULL AS {duckdb_type(c.type)}) AS {quote(c.name)}"
                 for c in self.schema.columns]  # fmt: skip
        texts = [odd_text(name) for name in self.schema.key]
        return self._with_columns(
            "emptied", names=self._literals(), key_cells=", ".join(cells),
            key_text=json_of(list(self.schema.key), texts),
        )  # fmt: skip

    def wanted(self, schema: TableSchema, names: Collection[str]) -> str:
        """The key and the columns `names` out of rows of an older lake schema; NULL in the others."""
        needed = {*self.schema.key, *names} if self.schema.key else set(self._plain())
        cells = cast_from(schema, self.schema)
        return ", ".join(
            cell if c.name in needed else f"CAST(NULL AS {duckdb_type(c.type)}) AS {quote(c.name)}"
            for c, cell in zip(self.schema.columns, cells, strict=True)
        )

    def snapshot(self, gone: Gone) -> str:
        """Versions of a new epoch against the whole mirror."""
        present = [c for c in self.schema.columns if c.name in self.present]
        differs = [f"n.{quote(c.name)} IS DISTINCT FROM b.{quote(c.name)}" for c in present]
        # Zero and minus zero are one number to SQL, and two values to everyone who reads the bits.
        floats = [c for c in present if pa.types.is_floating(c.type)]
        differs += [f"signbit(n.{quote(c.name)}) IS DISTINCT FROM signbit(b.{quote(c.name)})" for c in floats]
        return sql(
            "snapshot",
            new_columns=", ".join(f"n.{n}" for n in self.names),
            base_columns=", ".join(f"b.{n}" for n in self.names),
            new_parts=", ".join(f"n.{n}" for n in self.parts),
            base_parts=", ".join(f"b.{n}" for n in self.parts),
            same_key=self.same_key("n", "b"),
            differs=" OR ".join([*differs, "n._hw_text IS DISTINCT FROM b._hw_text"]),
            **_gone(gone),
        )

    def reload(self, gone: Gone) -> str:
        """Versions of a new epoch that replaces whatever the mirror holds."""
        return self._with_columns("reload", **_gone(gone))

    def keyless_changes(self, *, odd: bool) -> list[str]:
        """Versions of change rows without a key, in two steps, and the mirror rows they take."""
        filled, filled_text = self._from_deleted()
        events = self._with_columns(
            "keyless_changes",
            filled=", ".join(filled),
            filled_text=filled_text if odd else "c._hw_text",
            image=self.identity[0],
        )
        return [events, self._with_columns("keyless_versions"), sql("keyless_gone")]

    def keyless_filled(self) -> str:
        """The rows of `_hw_lacking`, a table's without a key: new ones with the cells that old ones have."""
        filled, filled_text = self._from_deleted()
        rows = sql("keyless_filled", filled=", ".join(filled), filled_text=filled_text)
        return f"SELECT *, {self.named_parts} FROM ({rows})"

    def _from_deleted(self) -> tuple[list[str], str]:
        """The cells of a row `c`, and their texts, with those it lacks from the row `d` before it."""
        filled, texts = [], []
        for name in self._plain():
            there = f"list_contains(coalesce(c._hw_unset, []), {literal(name)})"
            cell = quote(name)
            filled.append(f"CASE WHEN {there} THEN d.{cell} ELSE c.{cell} END AS {cell}")
            texts.append(f"CASE WHEN {there} THEN {_odd('d', name)} ELSE {_odd('c', name)} END")
        return filled, json_of(self._plain(), texts)

    def keyless_snapshot(self, gone: Gone) -> list[str]:
        """Versions of a new epoch without a key, in two steps, and the mirror rows it takes."""
        return [
            self._with_columns("keyless_snapshot", image=self.identity[0]),
            self._with_columns("keyless_difference", **_gone(gone)),
            sql("keyless_surplus"),
        ]

    def _filled(self, unset: Sequence[str], *, moved: bool, odd: bool) -> str:
        parts = ", ".join(self.parts)
        fills = []
        for name in unset:
            odd_cell = odd_text(name) if odd else "CAST(NULL AS VARCHAR)"
            known = f"NOT list_contains(coalesce(_hw_absent, []), {literal(name)})"
            cell = f"struct_pack(v := {quote(name)}, t := {odd_cell}, known := {known})"
            carried = f"NOT list_contains(coalesce(_hw_unset, []), {literal(name)})"
            sent = f"CASE WHEN {carried} THEN {cell} END"
            past = f"last_value({sent} IGNORE NULLS) OVER lineage"
            fills.append(f"CASE WHEN _hw_op = 'd' THEN {sent} ELSE {past} END AS {quote(name)}")
        return sql(
            "filled",
            materialized="MATERIALIZED" if moved else "NOT MATERIALIZED",
            parts=parts,
            traced=sql("traced") if moved else "",
            traced_rows="traced" if moved else "(SELECT *, _hw_life AS _hw_lineage FROM lives)",
            unset=", ".join(map(quote, unset)),
            fills=", ".join(fills),
        )

    def _with_columns(self, name: str, **parts: str) -> str:
        return sql(name, **{"columns": ", ".join(self.names), "parts": ", ".join(self.parts), **parts})

    def _plain(self) -> list[str]:
        return [c.name for c in self.schema.columns]

    def _literals(self) -> str:
        return ", ".join(map(literal, self._plain()))

    def _json(self, filled: Collection[str] = ()) -> str:
        """`_hw_text` in its one form: the odd cells in the lake's column order, NULL for none."""
        texts = [f"struct_extract({quote(n)}, 't')" if n in filled else odd_text(n) for n in self._plain()]
        return json_of(self._plain(), texts)


def _lost(name: str) -> str:
    """SQL of whether a cell has no value: nothing to fill it from, or only a row older than the column."""
    cell = quote(name)
    unset = f"list_contains(coalesce(_hw_unset, []), {literal(name)})"
    return f"_hw_op <> 'd' AND ({cell} IS NULL OR {unset} AND NOT struct_extract({cell}, 'known'))"


def _odd(alias: str, name: str) -> str:
    return odd_text(name).replace("_hw_text", f"{alias}._hw_text", 1)


def _gone(gone: Gone) -> dict[str, str]:
    cut = {name: f"(SELECT _hw_{name} FROM _hw_cut)" for name in ("pos", "at", "tx")}
    return {"seq": str(gone.seq), "entry": str(gone.entry), **cut}
