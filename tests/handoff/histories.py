"""Random staged changes, and in plain Python the tables they must become."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.model import META, STRIDE, Column, TableId, TableSchema

Row = Mapping[str, object]

CARRIED = pa.schema([f for f in META if f.name != "_hw_unset"])
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Files:
    """What a lake would stage."""

    schema: TableSchema
    files: Sequence[Path]
    high_seq: int
    made: str = ""
    keyed: int = -1
    reshaped: int = -1


@dataclass
class Stage:
    """Writes change rows of one table into Parquet files, beside files that nobody names."""

    folder: Path
    schema: TableSchema
    files: list[Path] = field(default_factory=list)
    high: int = -1

    def add(self, rows: Iterable[Row], schema: TableSchema | None = None) -> Files:
        """One more file."""
        told = list(rows)
        self.files.append(self._write(f"{len(self.files)}.parquet", told, schema or self.schema))
        if told:
            self._write(
                "orphan.parquet", [{**told[0], "_hw_seq": 10**9, "_hw_op": "u"}], schema or self.schema
            )
        self.high = max([self.high, *(int(str(r["_hw_seq"])) for r in told)])
        return self.now()

    def only(self, rows: Iterable[Row]) -> Files:
        """These rows and no others."""
        self.files, self.folder = [], self.folder.with_name(self.folder.name + "_")
        return self.add(rows)

    def now(self) -> Files:
        return Files(self.schema, tuple(self.files), self.high)

    def _write(self, name: str, rows: list[Row], schema: TableSchema) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        arrow = pa.schema([*schema.arrow(), *CARRIED])
        pq.write_table(pa.Table.from_pylist([dict(r) for r in rows], schema=arrow), path)
        return path


def schema(name: str, *, key: Sequence[str] = ("id",), extra: Sequence[Column] = ()) -> TableSchema:
    """A table with a few types; `order` and `Größe` need their quotes."""
    columns = (
        Column("id", pa.int64(), "bigint", False),
        Column("region", pa.string(), "text", False),
        Column("order", pa.string(), "text"),
        Column("Größe", pa.decimal128(10, 2), "numeric(10,2)"),
        Column("seen", pa.timestamp("us", "UTC"), "timestamptz"),
        Column("score", pa.float64(), "float8"),
        *extra,
    )
    return TableSchema(TableId("public", name), columns, tuple(key))


def keyed(seed: int, key: Sequence[str], steps: int = 60) -> list[Row]:
    """Changes of a table with a key: loads, inserts, updates, deletes, key changes, truncates, re-inserts."""
    rng = random.Random(seed)
    live: dict[tuple[object, ...], Row] = {}
    found: list[Row] = []
    for n in range(steps):
        at = START + timedelta(seconds=rng.randrange(100))  # commit times that run backwards
        base = n * STRIDE
        kind = rng.choices(["insert", "update", "delete", "move", "truncate"], [40, 30, 15, 10, 3])[0]
        if kind == "truncate":
            found += [_row(r, "d", base + 2, at) for r in live.values()]
            live = {}
        elif kind == "insert" or not live:
            row = _values(rng)
            if tuple(row[k] for k in key) not in live:
                found.append(_row(row, "r" if n < 5 else "c", base + 2, at))
                live[tuple(row[k] for k in key)] = row
        else:
            old = rng.choice(sorted(live, key=repr))
            row = {**_values(rng), **dict(zip(key, old, strict=True))}
            if kind == "update":
                found.append(_row(row, "u", base + 2, at))
                live[old] = row
            elif kind == "delete":
                found.append(_row(live.pop(old), "d", base + 2, at))
            elif (new := _values(rng)) and tuple(new[k] for k in key) not in live:
                found += [_row(live.pop(old), "d", base + 1, at), _row(new, "c", base + 2, at)]
                live[tuple(new[k] for k in key)] = new
    return found


def keyless(seed: int, steps: int = 60) -> list[Row]:
    """Changes of a table without a key, with many equal rows."""
    rng = random.Random(seed)
    live: list[Row] = []
    found: list[Row] = []
    for n in range(steps):
        at, base = START + timedelta(seconds=n), n * STRIDE
        kind = rng.choices(["insert", "update", "delete", "truncate"], [50, 20, 25, 3])[0]
        row: Row = {
            "id": rng.randrange(2),
            "region": "eu",
            "order": rng.choice([None, "", "x"]),
            "score": rng.choice([0.0, -0.0, None]),
            "_hw_text": rng.choice([None, '{"score": "NaN"}']),
        }
        if kind == "truncate":
            found += [_row(r, "d", base + 2, at) for r in live]
            live = []
        elif kind == "insert" or not live:
            found.append(_row(row, "c", base + 2, at))
            live.append(row)
        else:
            old = live.pop(rng.randrange(len(live)))
            found.append(_row(old, "d", base + (1 if kind == "update" else 2), at))
            if kind == "update":
                found.append(_row(row, "c", base + 2, at))
                live.append(row)
    return found


def state(rows: Iterable[Row], table: TableSchema) -> list[tuple[object, ...]]:
    """The rows there are at the end: the table's columns, `_hw_text` and `_hw_seq`, in order of `_hw_seq`."""
    newest: dict[tuple[object, ...], Row] = {}
    for row in sorted(rows, key=_seq):
        newest[tuple(row[k] for k in table.key)] = row
    there = sorted((r for r in newest.values() if r["_hw_op"] != "d"), key=_seq)
    return [(*_cells(r, table), r["_hw_seq"]) for r in there]


def versions(
    rows: Iterable[Row], table: TableSchema, end: datetime | None = None
) -> list[tuple[object, ...]]:
    """The history: columns, `_hw_text`, valid_from, valid_to, is_current, `_hw_seq`, `_hw_seq_to`."""
    by_key: dict[tuple[object, ...], list[Row]] = {}
    for row in sorted(rows, key=_seq):
        by_key.setdefault(tuple(row[k] for k in table.key), []).append(row)
    found = []
    for changes in by_key.values():
        for row, after in zip(changes, [*changes[1:], None], strict=True):
            if row["_hw_op"] == "d":
                continue
            until, place = (after["_hw_at"], after["_hw_seq"]) if after else (end, None)
            found.append((*_cells(row, table), row["_hw_at"], until, after is None, row["_hw_seq"], place))
    return sorted(found, key=lambda v: int(str(v[-2])))


def multiset(rows: Iterable[Row], table: TableSchema) -> Counter[str]:
    """The rows without a key that are there at the end, counted; as text, which tells -0.0 from 0.0."""
    found: Counter[str] = Counter()
    for row in sorted(rows, key=_seq):
        found[repr(_cells(row, table))] += -1 if row["_hw_op"] == "d" else 1
    return +found


def _cells(row: Row, table: TableSchema) -> tuple[object, ...]:
    return (*(row.get(c.name) for c in table.columns), row.get("_hw_text"))


def _seq(row: Row) -> int:
    return int(str(row["_hw_seq"]))


def _row(values: Row, op: str, seq: int, at: datetime) -> Row:
    return {**values, "_hw_op": op, "_hw_seq": seq, "_hw_at": at, "_hw_pos": f"0/{seq:X}", "_hw_tx": "7"}


def _values(rng: random.Random) -> dict[str, object]:
    odd = rng.random() < 0.1
    return {
        "id": rng.randrange(8),
        "region": rng.choice(["eu", "us"]),
        "order": rng.choice([None, "", "a'b", '"', "ä" * 3, "{{ 7 }}"]),
        "Größe": None if odd else Decimal(rng.randrange(10**6)) / 100,
        "seen": START + timedelta(microseconds=rng.randrange(10**9)),
        "score": rng.choice([0.5, 1e300, None]),
        "_hw_text": '{"Größe": "NaN"}' if odd else None,
    }
