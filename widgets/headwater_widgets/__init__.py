"""Notebook widgets for Headwater: thin views over the `headwater` package.

from headwater_widgets import ConnectionForm, QualityReport, RunMonitor, TablePicker
"""

from headwater_widgets.connection_form import ConnectionForm
from headwater_widgets.quality_report import QualityReport
from headwater_widgets.run_monitor import RunMonitor
from headwater_widgets.table_picker import TablePicker

__all__ = ["ConnectionForm", "QualityReport", "RunMonitor", "TablePicker"]
