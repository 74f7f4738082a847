"""Which rows of a table are copied: filters, skipped loads, tables without a log. docs/tables.md.

`sql` turns a filter into DuckDB SQL over rows of a schema, `constants` reads what columns are compared with,
`rows` puts batches through it, `rules` says what cannot be followed, `source` stands before any source.
"""

from headwater.filters.source import Filtered

__all__ = ["Filtered"]
