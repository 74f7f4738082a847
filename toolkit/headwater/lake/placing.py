"""Where the rows of a mirror or a history lie: the folders of the table's layout, and files of which size."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from headwater.config import Files, TableSpec, memory_bytes
from headwater.errors import ConfigError
from headwater.folders import shown
from headwater.lake import Held
from headwater.model import TableSchema
from headwater.partition import Layout, bind, folder_sql
from headwater.pointing import point

#: The note of a base: the layout that its files lie in, with the columns by name.
PARTITION = "partition"
#: No reader of Delta takes these in a column's name.
_NOT_IN_DELTA = re.compile(r"[ ,;{}()\n\t=]")


@dataclass(frozen=True, slots=True)
class Placing:
    """How rows are spread over files.

    segments  DuckDB SQL of each folder of a row over the table's columns, outermost first
    names     the columns that readers see in folders with a name
    text      what a base notes of it: with another text its files are made anew
    keyed     the key alone tells the folder
    rows      how many rows a file has at most; 0: as many as the lake likes
    """

    segments: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    text: str = ""
    keyed: bool = False
    files: Files = field(default_factory=Files)
    rows: int = 0

    @property
    def whole(self) -> bool:
        """Whether files need not be told apart by where their rows belong."""
        return not self.segments and self.files.slices <= 1

    @property
    def folder(self) -> str:
        """SQL of the path of a row's folder."""
        return " || '/' || ".join(f"({segment})" for segment in self.segments) or "''"

    @property
    def codec(self) -> str:
        """How DuckDB is to compress."""
        kind = self.files.compression or "zstd"
        return "COMPRESSION zstd, COMPRESSION_LEVEL 1" if kind == "zstd" else f"COMPRESSION {kind}"

    @property
    def notes(self) -> Mapping[str, str]:
        """What a base notes."""
        return {PARTITION: self.text} if self.text else {}

    def inside(self) -> Placing:
        """The same for rows of one folder."""
        return Placing(files=replace(self.files, slices=0), rows=self.rows)

    def undivided(self) -> Placing:
        """The same without slices."""
        return replace(self, files=replace(self.files, slices=0))

    def measured(self, *samples: Held | None) -> Placing:
        """The same with `rows` out of the wanted size, by what rows of these tables take at rest."""
        if not self.files.size:
            return self
        held = next((h for h in samples if h and h.files.num_rows and sum(_counts(h))), None)
        size = memory_bytes(self.files.size)
        if held is None:
            return self
        width = sum(held.files["size_bytes"].to_pylist()) / sum(_counts(held))
        return replace(self, rows=max(int(size / width), 1))


#: Files as the lake likes them, in one folder.
PLAIN = Placing()


def place(spec: TableSpec, schema: TableSchema) -> Placing:
    """The placing of a table's bases, whose columns are those of `schema`.

    Raises ConfigError at the character of the layout, and with its line of the pipeline file.
    """
    if spec.partition is None:
        return Placing(files=spec.files)
    spans = () if spec.mode != "history" else (
        spec.history.valid_from, spec.history.valid_to, spec.history.current
    )  # fmt: skip
    try:
        columns = bind(spec.partition, schema).columns
        _refuse_names(spec.partition, schema, spans)
        segments = folder_sql(spec.partition, schema)
    except ConfigError as failed:
        said = f"{spec.partition_at}: the partition of {schema.table}: {failed}"
        raise ConfigError(said.removeprefix(": "), hint=failed.hint) from None
    named = (replace(s, column=c.name) for s, c in zip(spec.partition.segments, columns, strict=True))
    return Placing(
        tuple(segments),
        tuple(s.name for s in spec.partition.segments if s.name),
        str(Layout(tuple(named))),
        {c.name for c in columns} <= set(schema.key),
        spec.files,
    )


def placed_anew(held: Held, placing: Placing) -> bool:
    """Whether a base lies in other folders than it should."""
    return held.notes.get(PARTITION, "") != placing.text


def folder_of_file(path: str) -> str:
    """The folder of a file's path in its table; "" without one."""
    return path.rpartition("/")[0]


def values_of(folder: str, names: Collection[str]) -> Mapping[str, str | None]:
    """The partition columns of a folder's path and their values, as readers see them."""
    found = dict(shown(part) for part in folder.split("/")) if folder else {}
    return {name: found[name] for name in names}


def _refuse_names(layout: Layout, schema: TableSchema, spans: Collection[str]) -> None:
    """A folder's name is a column to readers, beside those that the table has."""
    taken = {c.name.casefold() for c in schema.columns} | {name.casefold() for name in spans}
    text = layout.text or str(layout)
    for segment in layout.segments:
        name = segment.name
        if name.casefold() in taken:
            raise point(
                text, segment.at, f"the folder's name `{name}` is a column of the table too",
                f"give it another, for example {name}_part=",
            )  # fmt: skip
        if name.casefold().startswith("_hw_"):
            raise point(text, segment.at, "names that begin with _hw_ are ours", "give it another name")
        if _NOT_IN_DELTA.search(name):
            raise point(
                text, segment.at, f"Delta takes no column called `{name}`",
                "write the name without blanks, commas, semicolons, braces, parentheses and =",
            )  # fmt: skip


def _counts(held: Held) -> list[int]:
    return [count or 0 for count in held.files["num_records"].to_pylist()]
