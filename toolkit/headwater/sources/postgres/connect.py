"""Connections: TLS verified by default, the same settings on each, errors without secrets."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import conninfo
from psycopg.abc import RV, PQGen

from headwater.errors import ConfigError, Conflict, HeadwaterError, PositionLost, PreflightFailed, SourceError
from headwater.sources.postgres import values

#: Text leaves the server in one form on every connection, snapshot or stream.
_SETTINGS: Mapping[str, str] = {
    **values.SETTINGS,
    # regclass and its kin print a name with its schema unless that is on the path: the same path everywhere.
    "search_path": "pg_catalog",
    "quote_all_identifiers": "off",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

#: What a session that only looks things up may wait for.
_LOOK = {"statement_timeout": "60s", "lock_timeout": "10s", "jit": "off"}
#: A session that reads a table or the log may take as long as it takes.
_READ = {"statement_timeout": "0", "lock_timeout": "60s", "jit": "off"}
#: The server ends a sender that has heard nothing for this long; ours to choose, whatever its default is.
_SEND = {"statement_timeout": "0", "lock_timeout": "0", "wal_sender_timeout": "60s"}

_KEEPALIVE: Mapping[str, str] = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


#: Seconds we wait for the answer of a query that looks something up; the server itself gives up after 60.
_PATIENCE = 75.0


class Session(psycopg.Connection):
    """A session that waits _PATIENCE for each answer: statement_timeout needs a live network."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Drive one exchange with the server; one that takes too long ends the session."""
        deadline = time.monotonic() + (timeout or _PATIENCE)
        return super().wait(self._limited(gen, deadline), interval)

    def _limited(self, gen: PQGen[RV], deadline: float) -> PQGen[RV]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server did not answer in time")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: RV = done.value
            return result


@dataclass(frozen=True, slots=True)
class Server:
    """Where the database is and how to get in. Its repr shows neither password nor user."""

    params: Mapping[str, str] = field(repr=False)

    def session(self) -> psycopg.Connection:
        """A session for looking things up, in autocommit."""
        return self._connect(_LOOK, Session)

    def reader(self) -> psycopg.Connection:
        """A session for reading tables, in autocommit; it raises where row security would hide rows."""
        return self._connect({**_READ, "row_security": "off"})

    def sender(self) -> psycopg.Connection:
        """A replication session of this database (the `replication` keyword of pg_hba.conf is not needed)."""
        return self._connect(_SEND, replication="database")

    def _connect(
        self,
        settings: Mapping[str, str],
        kind: type[psycopg.Connection] = psycopg.Connection,
        **more: str,
    ) -> psycopg.Connection:
        wanted = " ".join(f"-c {name}={value}" for name, value in {**_SETTINGS, **settings}.items())
        own = self.params.get("options", "")
        params = {**self.params, **more, "options": f"{own} {wanted}".strip()}
        with self.guard("connect"):
            connection = kind.connect(autocommit=True, **params)  # type: ignore[arg-type]
            # PostgreSQL 17 ends long transactions if told to; older servers do not know the setting.
            if connection.info.server_version >= 170000:
                connection.pgconn.exec_(b"set transaction_timeout = 0")
        return connection

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Turn what the driver raises while `doing` something into an error of ours, without its secrets."""
        try:
            yield
        except psycopg.Error as failed:
            error = self.explain(doing, failed.sqlstate or "", str(failed))
            raise error from None

    def explain(self, doing: str, code: str, said: str, lost: Collection[str] = ()) -> HeadwaterError:
        """The error for what a server or driver said; SQLSTATEs in `lost` mean that the log is gone."""
        text = f"cannot {doing} at {self.place()}: {self._scrub(said)}"
        if code in lost:
            return PositionLost(text)
        if code == "55006":
            return Conflict(text, hint="select * from pg_replication_slots;   (who uses the slot)")
        if code == "42501":
            return PreflightFailed(text, hint="headwater check   (prints the grants that are missing)")
        return SourceError(text, hint=self._hint(said))

    def place(self) -> str:
        """Host, port and database, for error texts."""
        host = self.params.get("host") or self.params.get("hostaddr") or "the local socket"
        return f"{host}:{self.params.get('port', '5432')}/{self.params.get('dbname', '')}"

    def _scrub(self, said: str) -> str:
        for secret in (self.params.get("password", ""), self.params.get("sslpassword", "")):
            if len(secret) > 2:
                said = said.replace(secret, "***")
        return " ".join(said.split())

    def _hint(self, said: str) -> str:
        for words, hint in _HINTS:
            if words in said:
                return hint
        return ""


_HINTS = (
    (
        "does not support SSL",
        "switch TLS on at the server (ssl = on); for one on this machine add ?sslmode=disable to the url",
    ),
    (
        "certificate verify failed",
        "add sslrootcert=/path/to/ca.pem, the certificate of the authority that signed the server's",
    ),
    (
        "root certificate file",
        "add sslrootcert=/path/to/ca.pem, the certificate of the authority that signed the server's",
    ),
    (
        "does not match host name",
        "use the host name that is in the server's certificate, or sslmode=verify-ca if you trust every name",
    ),
    ("no pg_hba.conf entry", "add to pg_hba.conf: hostssl <database> <user> <address> scram-sha-256"),
    ("password authentication failed", "check user and password of the source in headwater.yml"),
    ("no password supplied", "give the source a password: password: env:NAME in headwater.yml"),
    ("Connection refused", "check that the server runs and listens there"),
    ("could not translate host name", "check the host name of the source"),
    ("resolve host", "check the host name of the source"),
    ("timeout", "check network and firewall between here and the server, then run again"),
    ("remaining connection slots", "raise max_connections, or end idle sessions, then run again"),
)


def make_server(
    url: str | None, given: Mapping[str, str | int | None], *, connect_timeout: int = 10
) -> Server:
    """The server that a URL and single parameters name; a parameter wins over the same one in the URL."""
    params = _parse(url) if url else {}
    params |= {name: str(value) for name, value in given.items() if value is not None}
    if "dbname" not in params and "service" not in params and "PGDATABASE" not in os.environ:
        raise ConfigError("the source names no database", hint="postgresql://user@host:5432/DATABASE")
    defaults = {"connect_timeout": str(connect_timeout), "application_name": "headwater", **_KEEPALIVE}
    # libpq leaves TLS alone on unix sockets, so that the rule needs no exception for them.
    params.setdefault("sslmode", "verify-full")
    if params["sslmode"] == "verify-full":
        params.setdefault("sslrootcert", _own_authorities() or "system")
    if params["sslmode"] == "verify-full" and params["sslrootcert"] == "system":
        params["sslrootcert"] = _system_authorities()
    return Server({**defaults, **params})


def _parse(url: str) -> dict[str, str]:
    try:
        parsed = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        parsed = None
    if parsed is None:
        # The driver's own message repeats a piece of the password.
        raise ConfigError(
            "the url of the source cannot be read as a PostgreSQL URL",
            hint="postgresql://user:password@host:5432/database, with % in it written %25, @ %40, / %2F",
        )
    return {name: str(value) for name, value in parsed.items() if value is not None}


def _own_authorities() -> str:
    path = Path.home() / ".postgresql" / "root.crt"
    return str(path) if path.is_file() else ""


def _system_authorities() -> str:
    """The system's bundle as a file: the driver's wheels carry an OpenSSL that looks elsewhere."""
    candidates = (os.environ.get("SSL_CERT_FILE", ""), *_BUNDLES, ssl.get_default_verify_paths().cafile or "")
    return next((path for path in candidates if path and os.path.isfile(path)), "system")
