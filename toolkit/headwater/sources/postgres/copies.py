"""COPY ... TO STDOUT (FORMAT binary): rows as they come, in chunks, received ahead of who decodes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress

import psycopg

from headwater.model import TableId
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.copybinary import take_rows
from headwater.sources.postgres.frames import Frames
from headwater.sources.postgres.wire import copy_out

#: Bytes of rows that become one batch.
CHUNK = 32 << 20

Chunk = tuple[list[Frames], bool]  # rows, and whether more may follow


def receive(
    server: Server,
    reader: psycopg.Connection,
    table: TableId,
    queries: Iterable[str],
    pace: Callable[[int], None],
) -> Generator[Chunk, None, None]:
    """What the queries give, in chunks of CHUNK bytes; `pace` is told of bytes that came."""
    held: list[Frames] = []
    size = 0
    for query in queries:
        for rows in take_rows(copy_out(server, reader, query, f"read {table}")):
            pace(rows.size)
            held.append(rows)
            size += rows.size
            if size >= CHUNK:
                yield held, True
                held, size = [], 0
    yield held, False


def ahead(chunks: Generator[Chunk, None, None], reader: psycopg.Connection) -> Generator[Chunk, None, None]:
    """The same chunks; while one is in work, a thread receives the next one.

    Left before its end, it leaves the connection closed.
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

    def __init__(self, chunks: Generator[Chunk, None, None], reader: psycopg.Connection) -> None:
        self._chunks, self._reader = chunks, reader
        self._waiting: queue.Queue[Chunk | BaseException] = queue.Queue(1)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwater-copy", daemon=True)

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
                    self._chunks.close()
                    return
                self._waiting.put(chunk)
        except BaseException as failed:  # noqa: BLE001  raised again by `take`
            self._waiting.put(failed)
