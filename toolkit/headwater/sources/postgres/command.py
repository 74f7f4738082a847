"""Commands to a walsender, sent without blocking, so that time limits hold."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import psycopg
from psycopg import pq

from headwater.errors import HeadwaterError, SourceError
from headwater.sources.postgres.connect import Server

_ERRORS = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE, pq.ExecStatus.NONFATAL_ERROR)


@dataclass(frozen=True, slots=True)
class Identity:
    """What IDENTIFY_SYSTEM says, and the oid of the database."""

    system: str
    timeline: int
    flushed: str
    database: int


def run_command(  # noqa: PLR0913
    server: Server,
    sender: psycopg.Connection,
    command: str,
    doing: str,
    *,
    seconds: float = 60.0,
    late: Callable[[], SourceError] | None = None,
    lost: Collection[str] = (),
) -> pq.abc.PGresult:
    """Send one command and return its result; after `seconds` cancel it and raise what `late` returns.

    SQLSTATEs in `lost` are raised as PositionLost.
    """
    raw = sender.pgconn
    deadline = time.monotonic() + seconds
    with server.guard(doing):
        raw.send_query(command.encode())
        raw.flush()
        while raw.is_busy():
            if time.monotonic() > deadline:
                # Asked before the cancel: then nobody is in the way any more.
                error = late() if late else SourceError(f"cannot {doing}: no answer within {seconds:.0f} s")
                raw.get_cancel().cancel()
                raise error
            wait_readable(raw, 0.2)
            raw.consume_input()
        result = raw.get_result()
        if result is None:
            raise SourceError(f"cannot {doing}: the server gave no result")
        if result.status not in (pq.ExecStatus.COPY_BOTH, pq.ExecStatus.COPY_OUT):
            while raw.get_result() is not None:
                pass
    if result.status in _ERRORS:
        raise explain_result(server, result, doing, lost)
    return result


def explain_result(
    server: Server, result: pq.abc.PGresult, doing: str, lost: Collection[str] = ()
) -> HeadwaterError:
    """The error that a failed result stands for."""
    code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    said = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"no message").decode(errors="replace")
    return server.explain(doing, code, said, lost)


def wait_readable(raw: pq.abc.PGconn, seconds: float) -> bool:
    """Wait until the server may have sent something; False when time is up.

    TLS may hold decrypted bytes that no poll of the socket shows: there the wait is always short.
    """
    waiter = select.poll()
    waiter.register(raw.socket, select.POLLIN)
    return bool(waiter.poll(max(0, int(1000 * (min(seconds, 0.02) if raw.ssl_in_use else seconds)))))


def identify(server: Server, sender: psycopg.Connection) -> Identity:
    """Which cluster and database this is."""
    first = run_command(server, sender, "IDENTIFY_SYSTEM", "identify the server")
    query = "select oid from pg_database where datname = current_database()"
    oid = run_command(server, sender, query, "identify the database")
    return Identity(field(first, 0), int(field(first, 1)), field(first, 2), int(field(oid, 0)))


def field(result: pq.abc.PGresult, column: int) -> str:
    """A field of the first row."""
    return (result.get_value(0, column) or b"").decode()
