"""Reading the lake: a table now, as of a moment, its versions and its changes, as lazy DuckDB relations.

Each has a connection of its own; `.pl(lazy=True)`, `.to_arrow_table()` and `.df()` give the same elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwater.canonical import literal, quote
from headwater.columns import key_parts
from headwater.errors import ConfigError
from headwater.lake import Kind
from headwater.lake.layout import CARRIED
from headwater.model import TableId, TableSchema
from headwater.paging import Page, read_keys, read_page

if TYPE_CHECKING:
    import duckdb
    from duckdb import DuckDBPyConnection

    from headwater.lake.delta import Lake

#: A moment: aware, or in UTC; as text in ISO 8601.
Moment = datetime | str

#: The catalogs of `open_views`: the default one has the tables as they are now.
_CATALOGS: tuple[tuple[str, Kind], ...] = (("", "mirror"), ("history", "history"), ("changes", "changes"))


class Reader:
    """Reads the lake tables of a pipeline; `newest` gives the newest schema in the raw log of a table."""

    def __init__(self, lake: Lake, newest: Callable[[TableId], TableSchema], memory_limit: str) -> None:
        self._lake, self._newest, self._memory_limit = lake, newest, memory_limit

    def rows(self, table: TableId, kind: Kind) -> duckdb.DuckDBPyRelation:
        """One lake table whole; raises StorageError where the lake has none of this kind."""
        con = self._connect()
        return con.sql(f"SELECT * FROM {self._scan(con, table, kind)}")

    def as_of(self, table: TableId, moment: Moment) -> duckdb.DuckDBPyRelation:
        """The rows that were there after the last commit at or before a moment, made of the changes.

        Raises ConfigError for a table without a key, and for a moment before its first load.
        """
        at = _read_moment(moment)
        schema = self._schema(table)
        if not schema.key:
            hint = "Pipeline.changes has all of its inserts and deletes"
            raise ConfigError(f"{table} has no key, so its rows of a moment cannot be told", hint=hint)
        con = self._connect()
        changes = self._scan(con, table, "changes")
        first = con.sql(f"SELECT min(_hw_at) FROM {changes}").fetchall()[0][0]
        if first is not None and at < first:
            hint = f'Pipeline.as_of("{table}", "{first.isoformat(sep=" ")}")   or any later moment'
            asked, known = at.isoformat(sep=" "), first.isoformat(sep=" ")
            raise ConfigError(f"no rows of {asked} are known: {table} was first read at {known}", hint=hint)
        return con.sql(
            f"""
            SELECT {", ".join([*(quote(c.name) for c in schema.columns), *CARRIED])} FROM (
                SELECT * FROM {changes} WHERE _hw_at <= {_moment_sql(at)}
                QUALIFY row_number() OVER (
                    PARTITION BY {", ".join(key_parts(schema))} ORDER BY _hw_seq DESC
                ) = 1
            ) WHERE _hw_op <> 'd'
            """
        )

    def changes(self, table: TableId, since: Moment | int | None = None) -> duckdb.DuckDBPyRelation:
        """Every change as a full row, after a moment or a `_hw_seq`; by their order in the log."""
        con = self._connect()
        beyond = ""
        if isinstance(since, int):
            beyond = f"WHERE _hw_seq > {since}"
        elif since is not None:
            beyond = f"WHERE _hw_at > {_moment_sql(_read_moment(since))}"
        return con.sql(f"SELECT * FROM {self._scan(con, table, 'changes')} {beyond} ORDER BY _hw_seq")

    def page(
        self, table: TableId, kind: Kind, moment: Moment | None = None, *, first: int = 0, most: int = 50
    ) -> Page:
        """Some rows of a table as text: now, or as of a moment."""
        rows = self.rows(table, kind) if moment is None else self.as_of(table, moment)
        return read_page(rows, self._schema(table), first, most)

    def keys(self, table: TableId, most: int) -> list[str]:
        """The keys of the rows that changed last, as `explain` takes them."""
        return read_keys(self.rows(table, "mirror"), self._schema(table), most)

    def ask(self, query: str, tables: Iterable[TableId]) -> duckdb.DuckDBPyRelation:
        """The answer to a query over `schema.table`, `history.schema.table` and `changes.schema.table`.

        Only what the query names is opened. Raises ConfigError for SQL that DuckDB refuses.
        """
        import duckdb

        con = self._connect()
        text = _bare(query)
        named = [t for t in tables if _bare(t.name) in text]
        try:
            for catalog, kind in _CATALOGS:
                if catalog in text:
                    self._open_views(con, catalog, kind, named)
            return con.sql(query)
        except duckdb.Error as failed:
            hint = "tables are schema.table, history.schema.table and changes.schema.table; headwater status"
            raise ConfigError(f"the query failed: {failed}", hint=hint) from None

    def _open_views(self, con: DuckDBPyConnection, catalog: str, kind: Kind, tables: list[TableId]) -> None:
        if catalog:
            con.execute(f"ATTACH ':memory:' AS {quote(catalog)}")
        prefix = f"{quote(catalog)}." if catalog else ""
        seen: dict[tuple[str, str], TableId] = {}
        for table in tables:
            folded = table.namespace.casefold(), table.name.casefold()
            if folded in seen:
                other = seen[folded]
                raise ConfigError(
                    f"{other} and {table} are one name in SQL of DuckDB",
                    hint=f"Pipeline.table({str(table)!r}) gives either",
                )
            seen[folded] = table
            if kind == "history" and self._lake.open(table, kind) is None:
                continue  # a mirror only; the query may be about the history of another table
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {prefix}{quote(table.namespace)}")
            view = f"{prefix}{quote(table.namespace)}.{quote(table.name)}"
            con.execute(f"CREATE VIEW {view} AS SELECT * FROM {self._scan(con, table, kind)}")

    def _schema(self, table: TableId) -> TableSchema:
        return self._lake.schema(table, "changes") or self._newest(table)

    def _scan(self, con: DuckDBPyConnection, table: TableId, kind: Kind) -> str:
        return self._lake.relation(con, table, kind, self._newest(table))

    def _connect(self) -> DuckDBPyConnection:
        import duckdb

        con = duckdb.connect(config={"memory_limit": self._memory_limit})
        con.execute("SET TimeZone = 'UTC'")
        return con


def _bare(text: str) -> str:
    """Text in which a name can be looked for, however it is quoted."""
    return text.casefold().replace('"', "")


def _read_moment(moment: Moment) -> datetime:
    """An aware moment; one without an offset is in UTC."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            hint = "for example 2026-05-01 12:00, in UTC, or 2026-05-01T12:00+02:00"
            raise ConfigError(f"no moment: {moment!r}", hint=hint) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _moment_sql(moment: datetime) -> str:
    return f"TIMESTAMPTZ {literal(moment.astimezone(UTC).isoformat(sep=' '))}"
