"""COPY ... TO STDOUT: rows as they come from the server, in chunks, received ahead of who decodes them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress

import psycopg
from psycopg import pq

from headwater.errors import SourceError
from headwater.model import TableId
from headwater.sources.postgres.command import explain_result, run_command, wait_readable
from headwater.sources.postgres.connect import Server

#: Bytes of COPY text decoded at once.
CHUNK = 32 << 20
_BREATH = 256 << 10  # bytes between two looks at the throttle
_SILENCE = 600.0

Chunk = tuple[bytes, bool]  # whole rows, and whether more may follow


def receive(
    server: Server,
    reader: psycopg.Connection,
    table: TableId,
    queries: Iterable[str],
    pace: Callable[[int], None],
) -> Iterator[Chunk]:
    """What the queries give, in chunks of CHUNK bytes; `pace` is told of bytes that came."""
    held: list[bytes] = []
    size = due = 0
    for query in queries:
        for row in _copy(server, reader, f"read {table}", query):
            held.append(row)
            size += len(row)
            if size - due >= _BREATH:
                pace(size - due)
                due = size
            if size >= CHUNK:
                yield b"".join(held), True
                held, size, due = [], 0, 0
    yield b"".join(held), False


def ahead(chunks: Iterator[Chunk], reader: psycopg.Connection) -> Generator[Chunk, None, None]:
    """The same chunks; while one is in work, a thread receives the next one.

    Left before its end, it leaves the connection without its transaction.
    """
    first = next(chunks)
    if not first[1]:
        yield first
        return
    with _Receiver(chunks, reader) as receiver:
        yield first
        while (chunk := receiver.take())[1]:
            yield chunk
        yield chunk


class _Receiver:
    """The thread, and the one chunk that waits."""

    def __init__(self, chunks: Iterator[Chunk], reader: psycopg.Connection) -> None:
        self._chunks, self._reader = chunks, reader
        self._waiting: queue.Queue[Chunk | BaseException] = queue.Queue(1)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwater-receive", daemon=True)

    def __enter__(self) -> _Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._thread.is_alive():
            with suppress(psycopg.Error):
                self._reader.cancel_safe(timeout=3)
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._waiting.get(timeout=0.05)
        self._thread.join()

    def take(self) -> Chunk:
        """The next chunk; raises what ended the thread."""
        found = self._waiting.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _run(self) -> None:
        try:
            for chunk in self._chunks:
                if self._left.is_set():
                    return
                self._waiting.put(chunk)
        except BaseException as failed:  # noqa: BLE001  raised again by `take`
            self._waiting.put(failed)


def _copy(server: Server, reader: psycopg.Connection, doing: str, query: str) -> Iterator[bytes]:
    raw = reader.pgconn
    run_command(server, reader, f"copy ({query}) to stdout", doing, seconds=_SILENCE)
    with server.guard(doing):
        heard = time.monotonic()
        while (data := raw.get_copy_data(1))[0] >= 0:
            if data[0] > 0:
                heard = time.monotonic()
                yield bytes(data[1])
                continue
            if time.monotonic() - heard > _SILENCE:
                raise SourceError(f"cannot {doing}: no word from the server for {_SILENCE:.0f} s")
            wait_readable(raw, 1.0)
            raw.consume_input()
        result = raw.get_result()
        while raw.get_result() is not None:
            pass
    if result is None or result.status == pq.ExecStatus.FATAL_ERROR:
        raise explain_result(server, result, doing) if result else SourceError(f"cannot {doing}")
