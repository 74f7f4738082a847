"""DuckDB as the lake uses it: of bounded memory, spilling into scratch, and never on the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headwater.config import memory_bytes
from headwater.errors import StorageError
from headwater.lake.commits import first_line

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Of `memory_limit`, the part that DuckDB's own accounting may fill: the rest is Python, Arrow, Delta and
#: what DuckDB does not count.
DUCKDB_SHARE = 0.6
#: But so much (bytes) in any case, if the limit allows it: below, what DuckDB pins at once does not fit.
DUCKDB_LEAST = 256_000_000


class Engines:
    """One DuckDB instance for each memory limit, kept: a new one costs more than a small fold."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, DuckDBPyConnection]] = {}

    @contextmanager
    def connect(self, limit: str, scratch: str) -> Iterator[DuckDBPyConnection]:
        """A connection of its own, with temporary tables of its own. Its errors are StorageErrors."""
        import duckdb

        try:
            with self._instance(limit, scratch).cursor() as con:
                yield con
        except duckdb.OutOfMemoryException as failed:
            self._kept.pop(limit, None)
            raise StorageError(
                f"DuckDB needs more than it may of memory_limit {limit}: {first_line(failed)}",
                hint="raise memory_limit in headwater.yml",
            ) from None
        except duckdb.IOException as failed:
            raise StorageError(
                f"DuckDB cannot read or write a file: {first_line(failed)}", hint="df -h"
            ) from None

    def _instance(self, limit: str, scratch: str) -> DuckDBPyConnection:
        import duckdb

        known = self._kept.get(limit)
        if known is not None and known[0] == scratch:
            return known[1]
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{_share(memory_bytes(limit))}B",
            "temp_directory": scratch,
            "threads": "2",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        con = duckdb.connect(config=settings)
        con.execute("SET GLOBAL TimeZone = 'UTC'")
        self._kept[limit] = (scratch, con)
        return con


def _share(limit: int) -> int:
    return max(int(limit * DUCKDB_SHARE), min(limit, DUCKDB_LEAST))
