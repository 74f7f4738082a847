"""Notebook widgets for Headwater: thin views over the `headwater` package.

`ConnectionForm`, `TablePicker`, `RunMonitor`, `RowExplorer`, `SchemaTimeline`, `QualityReport`, and `show`.
"""

from headwater_widgets.connection_form import ConnectionForm
from headwater_widgets.quality_report import QualityReport
from headwater_widgets.row_explorer import RowExplorer
from headwater_widgets.run_monitor import RunMonitor
from headwater_widgets.schema_timeline import SchemaTimeline
from headwater_widgets.sheet import show
from headwater_widgets.table_picker import TablePicker

__all__ = [
    "ConnectionForm",
    "QualityReport",
    "RowExplorer",
    "RunMonitor",
    "SchemaTimeline",
    "TablePicker",
    "show",
]
