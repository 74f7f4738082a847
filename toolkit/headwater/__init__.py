"""Headwater: log capture to Parquet you own, lake tables with history, and dbt models.

from headwater import Pipeline

with Pipeline.open("headwater.yml") as pipeline:
    print(pipeline.run())
    pipeline.table("public.orders")  # a DuckDB relation
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater import errors as errors
    from headwater.errors import HeadwaterError as HeadwaterError
    from headwater.model import TableId as TableId
    from headwater.pipeline import Pipeline as Pipeline

__version__ = "0.1.0"

# Heavy libraries stand behind some of these names: each is imported when it is first asked for (PEP 562).
_HOMES = {
    "HeadwaterError": "headwater.errors",
    "Pipeline": "headwater.pipeline",
    "TableId": "headwater.model",
    # What `%load_ext headwater` asks for; it is not part of this package, which knows no notebook.
    "load_ipython_extension": "headwater_widgets.magic",
}

__all__ = ["HeadwaterError", "Pipeline", "TableId", "__version__", "errors"]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("headwater.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headwater' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
