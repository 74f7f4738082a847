"""The nouns every room shares. No I/O here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import pyarrow as pa


class Op(StrEnum):
    """What happened to a row, in Debezium's letters."""

    READ = "r"
    CREATE = "c"
    UPDATE = "u"
    DELETE = "d"
    TRUNCATE = "t"


#: Columns every change row carries after the table's own columns; docs/raw-log.md is the open spec.
META = pa.schema(
    [
        ("_hw_op", pa.string()),
        ("_hw_seq", pa.int64()),
        ("_hw_pos", pa.string()),
        ("_hw_at", pa.timestamp("us", "UTC")),
        ("_hw_tx", pa.string()),
        ("_hw_unset", pa.list_(pa.string())),
        ("_hw_text", pa.string()),
    ]
)

#: Every source change owns this many `_hw_seq` numbers n*STRIDE .. n*STRIDE+3:
#: +0 rows that the fold itself adds (a key gone at a resync), +1 the delete half of a key change,
#: +2 the change itself, +3 free.
STRIDE = 4

#: Begins the name of what a full load that goes on reads by key, beside parts that the source names.
KEYS_PART = "keys "

#: `TableSchema.loaded` of a table whose first load was skipped, and of one that is read whole each run.
SKIPPED, EACH_RUN = "skip", "each run"

_CHOICES = ("key_chosen", "where", "loaded")

Phase = Literal["snapshot", "snapshot_end", "changes"]


@dataclass(frozen=True, slots=True, order=True)
class TableId:
    """A table's name at its source, exactly as the source spells it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name in our files, our Arrow type, and what the source calls it and its type.

    `origin` is the source's own mark of it: another column under the same name has another mark. "": unknown.
    `mask` says what became of the values before they were stored (masking.py), "" for nothing.
    `fill` is what rows older than the column hold in it, in DuckDB's spelling (`binary`: hex); None: NULL.
    Of the lake alone: `ident` tells it apart from all other columns the table ever had, under whatever name
    ("": its name, folded), and `retired` says why no new row has it, `dropped` or `retyped`.
    """

    name: str
    type: pa.DataType
    native: str = ""
    nullable: bool = True
    source_name: str = ""
    origin: str = ""
    mask: str = ""
    fill: str | None = None
    ident: str = ""
    retired: str = ""

    def __post_init__(self) -> None:
        if not self.source_name:
            object.__setattr__(self, "source_name", self.name)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table's columns and key as of one moment. `key` holds `Column.name`s; () means keyless.

    left_out    columns of the source that the configuration leaves out: no row has them
    key_chosen  the key is the user's word, not a constraint of the source: it may turn out not to be one
    where       the filter of all rows, loaded or changed; "" for none
    loaded      SKIPPED, EACH_RUN, or the filter of the full load alone; "" where one reads everything
    """

    table: TableId
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    left_out: tuple[Column, ...] = ()
    key_chosen: bool = False
    where: str = ""
    loaded: str = ""

    @property
    def partial(self) -> bool:
        """Whether changes may come of rows that are not in the copy: the source has others."""
        return bool(self.where or self.loaded)

    def arrow(self) -> pa.Schema:
        """The Arrow schema of the table's own columns; every field nullable (deletes carry only keys)."""
        return pa.schema([(c.name, c.type) for c in self.columns])

    def unmasked(self) -> TableSchema:
        """The same without the masked columns: what can be compared with the source."""
        return replace(self.without({c.name for c in self.columns if c.mask}), left_out=())

    def without(self, names: Collection[str]) -> TableSchema:
        """The same without some columns, in the key too."""
        kept = tuple(c for c in self.columns if c.name not in names)
        return replace(self, columns=kept, key=tuple(k for k in self.key if k not in names))

    def to_json(self) -> str:
        """A stable text form; equal schemas give equal bytes."""
        doc = {
            "table": [self.table.namespace, self.table.name],
            "key": list(self.key),
            "columns": [_written(c) for c in self.columns],
            **({"left_out": [_written(c) for c in self.left_out]} if self.left_out else {}),
            **{name: value for name in _CHOICES if (value := getattr(self, name))},
        }
        return json.dumps(doc, ensure_ascii=True, sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> TableSchema:
        """Read back what `to_json` wrote."""
        doc = json.loads(text)
        columns, left_out = (tuple(map(_read, doc.get(name, ()))) for name in ("columns", "left_out"))
        choices = {name: doc[name] for name in _CHOICES if name in doc}
        return cls(TableId(*doc["table"]), columns, tuple(doc["key"]), left_out, **choices)

    def fingerprint(self) -> str:
        """32 hex digits that name this schema version in the raw log."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]


def _written(column: Column) -> dict[str, str | bool]:
    return {
        "name": column.name,
        "source_name": column.source_name,
        "arrow": str(column.type),
        "native": column.native,
        "nullable": column.nullable,
        **({"origin": column.origin} if column.origin else {}),
        **({"mask": column.mask} if column.mask else {}),
        **({} if column.fill is None else {"fill": column.fill}),
        **({"ident": column.ident} if column.ident else {}),
        **({"retired": column.retired} if column.retired else {}),
    }


def _read(doc: Mapping[str, Any]) -> Column:
    return Column(
        doc["name"],
        arrow_type(doc["arrow"]),
        doc["native"],
        doc["nullable"],
        doc["source_name"],
        doc.get("origin", ""),
        doc.get("mask", ""),
        doc.get("fill"),
        doc.get("ident", ""),
        doc.get("retired", ""),
    )


_SIMPLE: dict[str, pa.DataType] = {
    str(t): t
    for t in (
        pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
        pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.date32(), pa.time64("us"),
        pa.timestamp("us"), pa.timestamp("us", "UTC"),
    )
}  # fmt: skip


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `str(type)` spelt; raises ValueError for one no schema of ours uses."""
    if text in _SIMPLE:
        return _SIMPLE[text]
    if text.startswith("decimal128("):
        precision, scale = text[len("decimal128(") : -1].split(",")
        return pa.decimal128(int(precision), int(scale))
    raise ValueError(f"not an Arrow type of the raw log: {text!r}")


@dataclass(frozen=True, slots=True)
class Position:
    """Where to resume. Only the source that made it may look inside; compare for equality only."""

    token: str


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes to one table under one schema, in source order. Crosses source -> raw.

    rows      `schema.arrow()` columns + META. `_hw_seq` counts from the start of the source call, for rows
              of a cut from the start of the batch (change n owns n*STRIDE..); capture shifts it to its
              place in the log.
    reload    rows already in the table changed without being logged (a column default, a rename, a
              new type): the table must be read again.
    """

    schema: TableSchema
    rows: pa.Table
    phase: Phase = "changes"
    reload: bool = False


@dataclass(frozen=True, slots=True)
class BatchRef:
    """A batch at rest: one immutable Parquet file, or no file when it has no rows."""

    table: TableId
    epoch: int  # 1 for the first full load; grows by one with each full load or resync of the table
    phase: Phase
    schema: str  # TableSchema.fingerprint()
    path: str  # under the log's root; "" when rows == 0
    rows: int
    bytes: int
    sha256: str
    first_seq: int  # lowest and highest _hw_seq in the file; both 0 when rows == 0
    last_seq: int
    reload: bool = False
    memory: int = 0  # bytes of the rows in Arrow: what a reader must have room for
    part: str = ""  # the part of the table that is whole with this batch, as the source names it


@dataclass(frozen=True, slots=True)
class Entry:
    """One atomic commit to the raw log: files plus the source position they reach."""

    seq: int  # 0, 1, 2 ... without holes
    position: Position
    batches: Sequence[BatchRef]
    writer: str  # unique to the process that wrote it: tells a lost reply from a lost race
    next_row: int  # the first `_hw_seq` the following entry may use, a multiple of STRIDE
    released: tuple[TableId, ...] = ()  # tables no longer captured from here on


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """How far of the raw log a lake table holds, stored inside its commits: entries up to and with `seq`."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What a source knows of a table before capture: schema and estimates (None: unknown).

    logged  the source logs its changes; else it is read whole with each run
    omits   columns (by source name) that the log may leave out of an update that did not change them
    """

    schema: TableSchema
    rows: int | None = None
    bytes: int | None = None
    kind: str = "table"  # table | partitioned | view | ...
    note: str = ""  # why it cannot be captured as it is, in one line; "" when it can
    logged: bool = True
    omits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key: where no cell of `columns` is NULL, some row of `parent` has these values in `key`.

    All names are the source's.
    """

    table: TableId
    columns: tuple[str, ...]
    parent: TableId
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a preflight: what was looked at, whether it is right, and the statement that mends it."""

    level: Literal["ok", "warn", "fail"]
    what: str
    found: str
    fix: str = ""
    table: TableId | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """An order-free fingerprint of a set of rows, the same in every engine: count, and sums of md5 words."""

    rows: int
    words: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))

    def __add__(self, other: Digest) -> Digest:
        """The digest of both sets together."""
        a, b, c, d = (one + its for one, its in zip(self.words, other.words, strict=True))
        return Digest(self.rows + other.rows, (a, b, c, d))


def add_digests(found: Iterable[Mapping[int, Digest]]) -> dict[int, Digest]:
    """The digests of slices out of those of their parts."""
    total: dict[int, Digest] = {}
    for digests in found:
        for number, digest in digests.items():
            total[number] = total.get(number, Digest(0)) + digest
    return total
