"""One captured table as dbt sees it: its names in the project, its columns, and the checks on both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from headwater.config import HistoryNames, Mode, TableSpec
from headwater.errors import ConfigError
from headwater.model import TableId, TableSchema
from headwater.naming import relation_name


class Staged(Protocol):
    """The staged changes of one table, at rest.

    files     local Parquet files, all of them and no others; older ones may lack columns
    schema    what the files hold together; each column casts to its type here
    high_seq  the highest `_hw_seq` in them
    keyed     the `_hw_seq` behind which the table has this key; -1: always
    reshaped  the `_hw_seq` from which on columns have the names, and old rows the cells, of today; -1: always
    """

    @property
    def files(self) -> Sequence[object]:
        """The paths of the files."""
        ...

    @property
    def schema(self) -> TableSchema:
        """The schema of the rows."""
        ...

    @property
    def high_seq(self) -> int:
        """The highest `_hw_seq`."""
        ...

    @property
    def keyed(self) -> int:
        """Rows up to here had another key."""
        ...

    @property
    def reshaped(self) -> int:
        """Models that hold no change from here on were built from other columns."""
        ...


@dataclass(frozen=True, slots=True)
class TableModel:
    """What the models of one table are generated from. `relation` is plain: `naming.relation_name`."""

    schema: TableSchema
    mode: Mode = "history"
    history: HistoryNames = field(default_factory=HistoryNames)
    relation: str = ""

    def __post_init__(self) -> None:
        if not self.relation:
            table = self.schema.table
            object.__setattr__(self, "relation", relation_name(table.namespace, table.name))
        _check_names(self)

    @property
    def base(self) -> str:
        """The model of the table's state: the newest change of each key; without a key every change."""
        return f"base_{self.relation}"

    @property
    def current(self) -> str:
        """The model of the rows that are there now."""
        return f"stg_{self.relation}"

    @property
    def versions(self) -> str:
        """The model of every version, deletes included; "" when the table has none."""
        return f"base_{self.relation}__history" if self.versioned else ""

    @property
    def past(self) -> str:
        """The model of the history people read; "" when the table has none."""
        return f"stg_{self.relation}__history" if self.versioned else ""

    @property
    def versioned(self) -> bool:
        """Whether there is a history: equal rows without a key have no versions to tell apart."""
        return self.mode == "history" and bool(self.schema.key)


def table_models(
    staged: Mapping[TableId, Staged], specs: Mapping[TableId, TableSpec]
) -> tuple[TableModel, ...]:
    """The models of the staged tables, in order of their names."""
    return tuple(
        TableModel(staged[t].schema, specs[t].mode, specs[t].history)
        if t in specs
        else TableModel(staged[t].schema)
        for t in sorted(staged)
    )


def open_end(names: HistoryNames) -> datetime | None:
    """The value of an open end, in UTC."""
    end = names.open_end
    return None if end is None else end.astimezone(UTC) if end.tzinfo else end.replace(tzinfo=UTC)


def _check_names(model: TableModel) -> None:
    """Column names go into SQL and YAML that dbt writes, with quotes around them but without escapes."""
    table, history = model.schema.table, model.history
    names = [c.name for c in model.schema.columns]
    if model.versioned:
        names += [history.valid_from, history.valid_to, history.current]
    seen: set[str] = set()
    for name in names:
        if not re.fullmatch(r"\w+", name) or name.casefold().startswith("_hw_"):
            raise ConfigError(
                f"{table}: {name!r} cannot be a column of a dbt model", hint="letters, digits and _ only"
            )
        if name.casefold() in seen:
            raise ConfigError(
                f"{table} has a column {name!r} of its own, which its history needs",
                hint=f"tables: [{{name: {table}, history: {{{_setting(history, name)}: row_{name}}}}}]",
            )
        seen.add(name.casefold())


def _setting(history: HistoryNames, name: str) -> str:
    """The setting that chose a history column's name."""
    chosen = {
        history.valid_from: "valid_from",
        history.valid_to: "valid_to",
        history.current: "current",
    }
    return chosen.get(name, "valid_from")
