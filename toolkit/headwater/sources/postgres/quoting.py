"""Names and texts as PostgreSQL SQL: every statement of this room that holds a name is built with these."""

from __future__ import annotations

from headwater.model import TableId


def quote_name(name: str) -> str:
    """Any name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Any text as a literal, whatever standard_conforming_strings says."""
    quoted = text.replace("'", "''")
    return " E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in text else "'" + quoted + "'"


def quote_option(text: str) -> str:
    """Any text as a literal of the replication protocol, where only the quote itself is escaped."""
    return "'" + text.replace("'", "''") + "'"


def quote_table(table: TableId) -> str:
    """A table with its schema."""
    return f"{quote_name(table.namespace)}.{quote_name(table.name)}"
