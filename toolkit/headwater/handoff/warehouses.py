"""Warehouses: a row of facts each. One more is one more row, its staging in stage.py and its profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from headwater import canonical
from headwater.config import WarehouseConfig
from headwater.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Warehouse:
    """What the generated project must know of a warehouse.

    adapter       the PyPI name of the dbt adapter
    column_type   the SQL type that holds an Arrow type without loss, spelt as the warehouse itself spells it
    quote         an SQL identifier for any name
    """

    kind: str
    adapter: str
    column_type: Callable[[pa.DataType], str]
    quote: Callable[[str], str]
    text: str
    integer: str
    moment: str
    flag: str


DUCKDB = Warehouse(
    kind="duckdb",
    adapter="dbt-duckdb",
    column_type=canonical.duckdb_type,
    quote=canonical.quote,
    text="VARCHAR",
    integer="BIGINT",
    moment="TIMESTAMP WITH TIME ZONE",
    flag="BOOLEAN",
)

WAREHOUSES: Mapping[str, Warehouse] = {w.kind: w for w in (DUCKDB,)}


def warehouse_of(config: WarehouseConfig) -> Warehouse:
    """The facts of the configured warehouse."""
    try:
        return WAREHOUSES[config.kind]
    except KeyError:
        known = ", ".join(sorted(WAREHOUSES))
        raise ConfigError(
            f"no warehouse of kind {config.kind!r}", hint=f"warehouse: {{kind: {known}}}"
        ) from None
