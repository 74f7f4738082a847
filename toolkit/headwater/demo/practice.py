"""The database that notebooks may write to: the one of `make lab`, which says so itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg import sql

from headwater.config import Config, DbtConfig, WarehouseConfig
from headwater.errors import ConfigError, SourceError
from headwater.pipeline import Pipeline
from headwater.secrets import Secret, resolve
from headwater.sources.postgres.connect import make_server

#: The comment on the schema `nyc` that `make lab` makes.
_MARK = "make lab: notebooks may write here"

_PARAMETERS = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey")


def mark(url: str) -> None:
    """Let notebooks write to a database that has the schema `nyc`."""
    with psycopg.connect(url) as connection:
        connection.execute(f"comment on schema nyc is '{_MARK}'".encode())


def is_practice(pipeline: Pipeline) -> bool:
    """Whether the source of a pipeline is the lab's; a source that cannot be asked is not."""
    try:
        with _connect(pipeline.config) as connection:
            return _is_marked(connection)
    except (SourceError, psycopg.Error):
        return False


@contextmanager
def practice_database(pipeline: Pipeline) -> Iterator[psycopg.Connection]:
    """A session in the lab's database, in autocommit; raises ConfigError for every other database."""
    with _connect(pipeline.config) as connection:
        if not _is_marked(connection):
            raise ConfigError(
                "this is not the database of make lab, and notebooks write to no other",
                hint="-p demo false   (only reads and shows)",
            )
        yield connection


def beside(pipeline: Pipeline, name: str, tables: Sequence[str]) -> Config:
    """A pipeline of a notebook's own over the same source, with all that it stores in the folder `name`."""
    config, folder = pipeline.config, _folder(pipeline, name)
    warehouse = WarehouseConfig(path=str(folder / "warehouse.duckdb"))
    own = Config(_name(pipeline, name), config.source, str(folder / "lake"), tables=tuple(tables))
    return replace(own, warehouse=warehouse, dbt=DbtConfig(str(folder / "dbt")))


def clear(pipeline: Pipeline, name: str, tables: Sequence[str]) -> None:
    """Take away what `beside` and a notebook made in the lab: folder, slot, publication and these tables."""
    own = sql.Identifier(f"headwater_{_name(pipeline, name)}")
    with practice_database(pipeline) as db:
        slots = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like %s"
        db.execute(slots, [f"headwater_{_name(pipeline, name)}_%"])
        db.execute(sql.SQL("drop publication if exists {}").format(own))
        for table in tables:
            db.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(*table.split("."))))
    shutil.rmtree(_folder(pipeline, name), ignore_errors=True)


def _name(pipeline: Pipeline, name: str) -> str:
    return f"{pipeline.config.name}_{name}".replace("-", "_")[:40]


def _folder(pipeline: Pipeline, name: str) -> Path:
    return (pipeline.path or Path("headwater.yml")).absolute().parent / name


def _connect(config: Config) -> psycopg.Connection:
    said = {name: str(config.source[name]) for name in ("url", *_PARAMETERS) if name in config.source}
    secret = config.source.get("password")
    if isinstance(secret, str | Secret):
        said["password"] = resolve(secret).reveal()
    return make_server(said.pop("url", None), said).session()


def _is_marked(connection: psycopg.Connection) -> bool:
    found = connection.execute(
        "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = 'nyc'"
    ).fetchone()
    return found == (_MARK,)
