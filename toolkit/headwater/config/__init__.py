"""What the user configured: `headwater.yml` as dataclasses. Strict; no clock, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from headwater.casts import Cast
from headwater.config.patterns import Pattern, parse_column, parse_pattern, quote_table, select
from headwater.model import TableId
from headwater.partition import Layout
from headwater.secrets import Secret

__all__ = [
    "CastErrors",
    "Compact",
    "Compression",
    "Config",
    "CsvCompression",
    "DbtConfig",
    "Expectation",
    "Files",
    "Gate",
    "GlueConfig",
    "HistoryNames",
    "Mask",
    "MaskKind",
    "Mode",
    "Names",
    "Pattern",
    "Policies",
    "Quality",
    "Refers",
    "SchemaPolicy",
    "Severity",
    "TableSpec",
    "WarehouseConfig",
    "load",
    "memory_bytes",
    "parse",
    "parse_column",
    "parse_pattern",
    "quote_table",
    "select",
    "to_yaml",
]

Mode = Literal["history", "mirror"]
Case = Literal["unique", "lower", "upper", "keep"]
Compact = Literal["auto", "always"]
CastErrors = Literal["quarantine", "null", "fail"]
Compression = Literal["zstd", "snappy", "gzip"]
CsvCompression = Literal["gzip", "bzip2", "none"]
SchemaPolicy = Literal["evolve", "freeze", "discard"]
Gate = Literal["off", "warn", "block"]
Severity = Literal["critical", "warning", "info"]
MaskKind = Literal["drop", "null", "hash", "redact", "truncate", "tokenize"]


@dataclass(frozen=True, slots=True)
class HistoryNames:
    """The names of the SCD2 columns, and the value of an open end in UTC (None: NULL)."""

    valid_from: str = "valid_from"
    valid_to: str = "valid_to"
    current: str = "is_current"
    open_end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Mask:
    """What is stored instead of a column's values; `keep` characters stay with redact and truncate."""

    kind: MaskKind
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Files:
    """How the lake writes files; what is "" or 0 is as the pipeline or else the lake has it.

    size    how large a file of a mirror or a history grows, as `memory_bytes` reads it
    slices  into how many files a folder of these, or a table without folders, is divided
    """

    compression: Compression | Literal[""] = ""
    size: str = ""
    slices: int = 0

    def over(self, other: Files) -> Files:
        """These settings, and for what they leave open those of `other`."""
        return Files(
            self.compression or other.compression, self.size or other.size, self.slices or other.slices
        )


@dataclass(frozen=True, slots=True)
class Policies:
    """What the lake does when a table changes at the source; docs/schema-changes.md."""

    schema: SchemaPolicy = "evolve"
    on_drop: Literal["keep", "fail"] = "keep"
    on_rename: Literal["keep", "fail"] = "keep"
    on_truncate: Literal["apply", "ignore", "fail"] = "apply"


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation by Great Expectations' own name; `at` is where it stands, for errors."""

    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = "critical"
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Refers:
    """Columns (by the source's names) that hold a key of another table; `key` () for that table's own key."""

    columns: tuple[str, ...]
    table: TableId
    key: tuple[str, ...] = ()
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Quality:
    """How data is judged; what is "" or empty is as other settings have it. docs/quality.md.

    max_age  how old the newest change may be, such as `2h`; "" for no limit
    """

    gate: Gate | Literal[""] = ""
    max_age: str = ""
    expect: tuple[Expectation, ...] = ()
    references: tuple[Refers, ...] = ()

    def over(self, other: Quality) -> Quality:
        """These settings, and for what they leave open those of `other`; expectations add up."""
        return Quality(
            self.gate or other.gate,
            self.max_age or other.max_age,
            (*other.expect, *self.expect),
            (*other.references, *self.references),
        )

    @property
    def judged(self) -> bool:
        """Whether runs judge."""
        return self.gate in ("warn", "block")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """How one table is copied. In `Config.overrides` the table may be a pattern; `spec` gives tables.

    columns        the columns to copy, as `parse_column` reads them; () for all
    masks          by the column's name at the source
    key            the source's names of the columns that tell rows apart; () for the source's own key
    where          the filter of all rows (headwater.predicate); "" for none
    initial_where  the filter of full loads alone
    skip_load      whether the first load is left out
    deltas         whether changes are followed, else the table is read whole with each run
    views          whether the pattern fits views, materialised views and foreign tables too
    casts          by the column's name at the source
    on_cast_error  what becomes of a row with a value that does not fit; None: as other settings of it say
    cast_lines     where each cast stands, as `file:line`
    partition      the folders of the lake's files, and the file and line where that stands, for errors
    formats        the published views of mirror and history, beside Delta itself
    called         what its current rows are called in the warehouse; "": as the pipeline's `names` say
    """

    table: TableId
    mode: Mode = "history"
    history: HistoryNames = field(default_factory=HistoryNames)
    compact: Compact = "auto"
    columns: tuple[str, ...] = ()
    masks: Mapping[str, Mask] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    where: str = ""
    initial_where: str = ""
    skip_load: bool = False
    deltas: bool = True
    views: bool = False
    casts: Mapping[str, Cast] = field(default_factory=dict)
    on_cast_error: CastErrors | None = None
    cast_lines: Mapping[str, str] = field(default_factory=dict, compare=False)
    files: Files = field(default_factory=Files)
    partition: Layout | None = None
    partition_at: str = field(default="", compare=False)
    formats: tuple[str, ...] = ()
    csv_compression: CsvCompression = "gzip"
    called: str = ""
    policies: Policies = field(default_factory=Policies)
    quality: Quality = field(default_factory=Quality)

    @property
    def restricts(self) -> bool:
        """Whether some column is not copied as it is."""
        return bool(self.columns or self.masks)


@dataclass(frozen=True, slots=True)
class WarehouseConfig:
    """Where the generated dbt models build. `path` is the DuckDB file."""

    kind: str = "duckdb"
    path: str = "warehouse.duckdb"
    schema: str = "main"
    staging_schema: str = "headwater_staging"
    keep_staging: bool = True


@dataclass(frozen=True, slots=True)
class Names:
    """What the relations that people read are called in the warehouse; docs/names.md.

    current, history   with `<schema>` and `<table>` in them; "" for `stg_<schema>__<table>`, which the model
                       is called as well, and for the same with `__history` behind
    """

    current: str = ""
    history: str = ""
    case: Case = "unique"


@dataclass(frozen=True, slots=True)
class GlueConfig:
    """The database of the AWS Glue catalogue that published views are registered in."""

    database: str
    region: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class DbtConfig:
    """The dbt project that `headwater dbt generate` writes into, and the folder of ours inside it."""

    project: str = "dbt"
    folder: str = "models/headwater"


@dataclass(frozen=True, slots=True)
class Config:
    """One pipeline, checked. Paths are absolute, secrets references (`env:NAME`, `file:PATH`) or `Secret`.

    source         `kind`, then what that kind takes, each only if the user gave it
    store_options  what the user gave beside `url`; every value is text, the secret ones are references
    tables         the patterns, exclusions included
    overrides      pattern -> settings, in the file's order; ask `spec` instead of looking here
    mode, history, policies  what holds for tables without settings of their own
    names          what tables are called in the warehouse
    compact        when tails move into the lake's mirrors and histories
    files          how the lake's files are written, for tables without settings of their own
    formats, csv_compression  the published views of tables without settings of their own
    glue           where they are registered
    mask_key       a reference to the key of hash and tokenize; "" without
    sign_key       a reference to the key that certificates are signed with; "" without
    state          "" stands for the default place, `headwater.state.default_path`
    """

    name: str
    source: Mapping[str, object]
    store: str
    store_options: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ("*.*",)
    overrides: Mapping[str, TableSpec] = field(default_factory=dict)
    mode: Mode = "history"
    history: HistoryNames = field(default_factory=HistoryNames)
    warehouse: WarehouseConfig | None = None
    dbt: DbtConfig = field(default_factory=DbtConfig)
    mask_key: str = ""
    sign_key: str = ""
    state: str = ""
    memory_limit: str = "1GB"
    compact: Compact = "auto"
    files: Files = field(default_factory=Files)
    formats: tuple[str, ...] = ()
    csv_compression: CsvCompression = "gzip"
    glue: GlueConfig | None = None

    @property
    def publishes(self) -> bool:
        """Whether any table may have a published view."""
        return bool(self.formats) or any(spec.formats for spec in self.overrides.values())

    names: Names = field(default_factory=Names)
    policies: Policies = field(default_factory=Policies)
    quality: Quality = field(default_factory=Quality)

    @property
    def judges(self) -> bool:
        """Whether runs judge any table."""
        return self.quality.judged or any(spec.quality.judged for spec in self.overrides.values())

    def spec(self, table: TableId) -> TableSpec:
        """How this table is copied: by the last entry with settings that fits it, else by the defaults.

        Columns, key, filters and the partition are those of the last fitting entry that names any. Masks add
        up over all fitting entries, so that a later entry about something else unmasks nothing, nor lets rows
        in; the last one counts for each column. So do casts; `on_cast_error` and each setting of `files` are
        those of the last fitting entry that says them, and so are those of `quality`; expectations and
        references add up. Nor does a later entry take away a name that an
        earlier one gave.
        """
        made = TableSpec(
            table,
            self.mode,
            self.history,
            formats=self.formats,
            csv_compression=self.csv_compression,
            policies=self.policies,
        )
        for pattern in reversed(list(self.overrides)):
            if parse_pattern(pattern).fits(table):
                made = replace(self.overrides[pattern], table=table)
                break
        fitting = [o for p, o in self.overrides.items() if parse_pattern(p).fits(table)]
        latest = fitting[::-1]
        files, quality = self.files, self.quality
        for one in fitting:
            files, quality = one.files.over(files), one.quality.over(quality)
        placed = next((o for o in latest if o.partition), made)
        return replace(
            made,
            compact=self.compact,
            files=files,
            partition=placed.partition,
            partition_at=placed.partition_at,
            columns=next((o.columns for o in latest if o.columns), ()),
            masks={c: m for o in fitting for c, m in o.masks.items()},
            key=next((o.key for o in latest if o.key), ()),
            where=next((o.where for o in latest if o.where), ""),
            initial_where=next((o.initial_where for o in latest if o.initial_where), ""),
            casts={c: its for o in fitting for c, its in o.casts.items()},
            on_cast_error=next((o.on_cast_error for o in latest if o.on_cast_error), None),
            cast_lines={c: line for o in fitting for c, line in o.cast_lines.items()},
            quality=quality,
            called=next((o.called for o in self.overrides.values() if o.called and o.table == table), ""),
        )

    def asks_for(self, table: TableId) -> bool:
        """Whether a table without a log (a view, a foreign table) is meant: by its name, or by `views`."""
        named = any(parse_pattern(p).exact == table for p in self.tables)
        return named or any(o.views and parse_pattern(p).fits(table) for p, o in self.overrides.items())

    def secrets(self) -> tuple[Secret, ...]:
        """The secrets given by value on the command line, for scrubbing error texts."""
        return tuple(value for value in self.source.values() if isinstance(value, Secret))


def memory_bytes(limit: str) -> int:
    """The bytes of a `memory_limit`: powers of 1000 for kB, MB, GB, TB, of 1024 with an `i` in the unit."""
    unit = limit.lstrip("0123456789.").strip()
    step = 1024 if "i" in unit else 1000
    return int(float(limit.removesuffix(unit)) * step ** ("KMGT".index(unit[0].upper()) + 1))


def load(path: str | Path = "headwater.yml") -> Config:
    """Read and check a pipeline file; raises ConfigError that names file:line and what to write instead."""
    from headwater.config.files import load_file

    return load_file(Path(path))


def parse(text: str, *, name: str = "headwater.yml", folder: str | Path = ".") -> Config:
    """Check the text of a file called `name`; relative paths in it are relative to `folder`."""
    from headwater.config.files import parse_text

    return parse_text(text, name, Path(folder))


def to_yaml(config: Config, *, folder: str | Path | None = None) -> str:
    """The file that stands for a config: `parse(to_yaml(c)) == c`. Paths below `folder` are written relative.

    A secret given by value is written as `env:HEADWATER_SOURCE_PASSWORD`: the value never reaches a file.
    """
    from headwater.config.files import write_text

    return write_text(config, Path(folder) if folder is not None else None)
