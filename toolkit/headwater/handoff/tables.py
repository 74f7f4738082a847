"""One captured table as dbt sees it: its names in the project, its columns, and the checks on both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from headwater.config import HistoryNames, Mode, Names, TableSpec, quote_table
from headwater.errors import ConfigError, WarehouseError
from headwater.model import TableId, TableSchema
from headwater.naming import relation_name, warehouse_name


class Staged(Protocol):
    """The staged changes of one table, at rest.

    files     local Parquet files, all of them and no others; older ones may lack columns
    schema    what the files hold together; each column casts to its type here
    high_seq  the highest `_hw_seq` in them
    made      changes when all of them were made anew; "" where that never happened
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
    def made(self) -> str:
        """Which making this is."""
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
    """What the models of one table are generated from. `relation` is plain: `naming.relation_name`.

    current_as, past_as   what the views of `current` and `past` are called in the warehouse, where the user
                          has rules for that; "" for the names of the models
    """

    schema: TableSchema
    mode: Mode = "history"
    history: HistoryNames = field(default_factory=HistoryNames)
    relation: str = ""
    current_as: str = ""
    past_as: str = ""

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

    @property
    def relations(self) -> Mapping[str, str]:
        """What each model is called in the warehouse; the ones people read first."""
        found = {self.current: self.current_as or self.current}
        if self.versioned:
            found[self.past] = self.past_as or self.past
        found[self.base] = self.base
        return {**found, self.versions: self.versions} if self.versioned else found


def table_model(schema: TableSchema, spec: TableSpec, names: Names) -> TableModel:
    """The model of a table under its settings and the pipeline's names."""
    current, past = _called(schema.table, spec.called, names)
    return TableModel(schema, spec.mode, spec.history, current_as=current, past_as=past)


def table_models(
    staged: Mapping[TableId, Staged], specs: Mapping[TableId, TableSpec], names: Names | None = None
) -> tuple[TableModel, ...]:
    """The models of the staged tables, by name; raises WarehouseError if two would have one."""
    found = tuple(
        table_model(staged[t].schema, specs.get(t, TableSpec(t)), names or Names()) for t in sorted(staged)
    )
    for error in alike(found):
        raise error
    return found


def alike(models: Sequence[TableModel]) -> Iterator[WarehouseError]:
    """What to say of each table whose relations would have the names of another's, or of its own.

    Capitals count for nothing: most warehouses fold them.
    """
    taken: dict[str, TableModel] = {}
    for model in models:
        for name in model.relations.values():
            other = taken.setdefault(name.casefold(), model)
            if other is not model:
                yield _alike(other, model, name)
                break
        if len({n.casefold() for n in model.relations.values()}) < len(model.relations):
            hint = "names: {current: <table>, history: <table>_history}"
            yield WarehouseError(f"{model.schema.table}: two of its relations would have one name", hint=hint)


def _alike(one: TableModel, other: TableModel, name: str) -> WarehouseError:
    table, free = other.schema.table, f"{other.relation}_2" if name == other.relation else other.relation
    pattern = json.dumps(quote_table(table), ensure_ascii=False)
    return WarehouseError(
        f"{one.schema.table} and {table} would both be called {name} in the warehouse",
        hint=f"tables: [{{name: {pattern}, as: {free}}}]   (or a rule with <schema> in it: names)",
    )


def _called(table: TableId, called: str, names: Names) -> tuple[str, str]:
    """The names of a table's current rows and of its history; "" for those of the models."""
    if called:
        past = names.history or "<table>__history"
        return called, warehouse_name(TableId(table.namespace, called), past, "keep")
    if names == Names():
        return "", ""
    current = names.current or "stg_<schema>__<table>"
    past = names.history or f"{current}__history"
    return warehouse_name(table, current, names.case), warehouse_name(table, past, names.case)


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
