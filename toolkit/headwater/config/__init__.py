"""What the user configured: `headwater.yml` as dataclasses. Strict; no clock, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from headwater.config.patterns import Pattern, parse_column, parse_pattern, quote_table, select
from headwater.model import TableId
from headwater.secrets import Secret

__all__ = [
    "Compact",
    "Config",
    "DbtConfig",
    "HistoryNames",
    "Mask",
    "MaskKind",
    "Mode",
    "Pattern",
    "Policies",
    "SchemaPolicy",
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
Compact = Literal["auto", "always"]
SchemaPolicy = Literal["evolve", "freeze", "discard"]
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
class Policies:
    """What the lake does when a table changes at the source; docs/schema-changes.md."""

    schema: SchemaPolicy = "evolve"
    on_drop: Literal["keep", "fail"] = "keep"
    on_rename: Literal["keep", "fail"] = "keep"
    on_truncate: Literal["apply", "ignore", "fail"] = "apply"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """How one table is copied. In `Config.overrides` the table may be a pattern; `spec` gives tables.

    columns   the columns to copy, as `parse_column` reads them; () for all
    masks     by the column's name at the source
    """

    table: TableId
    mode: Mode = "history"
    history: HistoryNames = field(default_factory=HistoryNames)
    compact: Compact = "auto"
    columns: tuple[str, ...] = ()
    masks: Mapping[str, Mask] = field(default_factory=dict)
    policies: Policies = field(default_factory=Policies)

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
    compact        when tails move into the lake's mirrors and histories
    mask_key       a reference to the key of hash and tokenize; "" without
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
    state: str = ""
    memory_limit: str = "1GB"
    compact: Compact = "auto"
    policies: Policies = field(default_factory=Policies)

    def spec(self, table: TableId) -> TableSpec:
        """How this table is copied: by the last entry with settings that fits it, else by the defaults.

        Columns are those of the last fitting entry that names any. Masks add up over all fitting entries, so
        that a later entry about something else unmasks nothing; the last one counts for each column.
        """
        made = TableSpec(table, self.mode, self.history, policies=self.policies)
        for pattern in reversed(list(self.overrides)):
            if parse_pattern(pattern).fits(table):
                made = replace(self.overrides[pattern], table=table)
                break
        choices = [o for p, o in self.overrides.items() if o.restricts and parse_pattern(p).fits(table)]
        columns = next((o.columns for o in reversed(choices) if o.columns), ())
        masks = {c: m for o in choices for c, m in o.masks.items()}
        return replace(made, compact=self.compact, columns=columns, masks=masks)

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
