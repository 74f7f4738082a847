"""What a build will call things: where each table lands, which views move, and which names cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headwater.config import Config
from headwater.errors import ConfigError
from headwater.handoff.build import Dbt
from headwater.handoff.moved import moves
from headwater.handoff.tables import TableModel, alike, table_model
from headwater.model import Finding, TableId, TableSchema


class Outlook:
    """The names of some tables in the configured warehouse; without one there are none."""

    def __init__(self, config: Config, schemas: Sequence[TableSchema]) -> None:
        self._config = config
        self._models: dict[TableId, TableModel] = {}
        self._refused: dict[TableId, ConfigError] = {}
        for schema in schemas if config.warehouse else ():
            try:
                self._models[schema.table] = table_model(schema, config.spec(schema.table), config.names)
            except ConfigError as refused:
                self._refused[schema.table] = refused

    def relations(self, table: TableId) -> Mapping[str, str]:
        """dbt model -> `schema.name` in the warehouse; what people read comes first."""
        warehouse, model = self._config.warehouse, self._models.get(table)
        if warehouse is None or model is None:
            return {}
        return {name: f"{warehouse.schema}.{its}" for name, its in model.relations.items()}

    def read(self, table: TableId) -> tuple[str, ...]:
        """The relations of a table that people read."""
        model = self._models.get(table)
        found = self.relations(table)
        return tuple(found[name] for name in (model.current, model.past) if name) if model else ()

    def moved(self) -> Iterator[str]:
        """A line for each relation that the next build gives another name, or another schema."""
        warehouse = self._config.warehouse
        if warehouse is None:
            return
        built = Dbt(self._config, Path(self._config.dbt.project)).built()
        for move in moves(warehouse, list(self._models.values()), built):
            old, new = ".".join(move.old), ".".join(move.new)
            if move.anew:
                yield f"{new} is built anew with the next build; {old} stays until you: {move.drop()}"
            else:
                yield f"{old} is called {new} from the next build on"

    def findings(self) -> Iterator[Finding]:
        """What is wrong with the names, with what to write instead."""
        for table, refused in self._refused.items():
            yield Finding("fail", "names in the warehouse", str(refused), refused.hint, table)
        for clash in alike(list(self._models.values())):
            yield Finding("fail", "names in the warehouse", str(clash), clash.hint)
