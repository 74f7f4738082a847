"""COPY ... TO STDOUT (FORMAT binary): rows as they come, in pieces, received ahead of who decodes them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress

import psycopg

from headwater.model import TableId
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.copybinary import take_rows
from headwater.sources.postgres.frames import PIECE, Frames
from headwater.sources.postgres.wire import copy_out

#: Pieces that wait to be decoded, while the server waits with the next; one of huge rows waits alone.
_WAITING, _HUGE = 6, 2 * PIECE
_PAUSE = 0.01

Piece = tuple[list[Frames], bool]  # rows, and whether more may follow


def receive(
    server: Server,
    reader: psycopg.Connection,
    table: TableId,
    queries: Iterable[str],
    pace: Callable[[int], None],
) -> Generator[Piece, None, None]:
    """What the queries give, in pieces fit for decoding; `pace` is told of bytes that came."""
    held: list[Frames] = []
    size = 0
    for query in queries:
        for rows in take_rows(copy_out(server, reader, query, f"read {table}")):
            pace(rows.size)
            # Frames that share a buffer are decoded as one, so they had better not be parted.
            if size >= PIECE or (held and 2 * size >= PIECE and rows.data is not held[0].data):
                yield held, True
                held, size = [], 0
            held.append(rows)
            size += rows.size
    yield held, False


def ahead(pieces: Generator[Piece, None, None], reader: psycopg.Connection) -> Generator[Piece, None, None]:
    """The same pieces; while one is in work, a thread receives the next ones.

    Left before its end, it leaves the connection closed.
    """
    first = next(pieces)
    if not first[1]:
        yield first
        return
    with _Receiver(pieces, reader) as receiver:
        yield first
        while (piece := receiver.take())[1]:
            yield piece
        yield piece


class _Receiver:
    """The thread, and the few pieces that wait."""

    def __init__(self, pieces: Generator[Piece, None, None], reader: psycopg.Connection) -> None:
        self._pieces, self._reader = pieces, reader
        self._waiting: queue.Queue[Piece | BaseException] = queue.Queue(_WAITING)
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

    def take(self) -> Piece:
        """The next piece; raises what ended the thread."""
        found = self._waiting.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _run(self) -> None:
        try:
            for piece in self._pieces:
                if self._left.is_set():
                    self._pieces.close()
                    return
                self._make_room(piece)
                self._waiting.put(piece)
        except BaseException as failed:  # noqa: BLE001  raised again by `take`
            self._waiting.put(failed)

    def _make_room(self, piece: Piece) -> None:
        huge = sum(part.size for part in piece[0]) > _HUGE
        while huge and not self._waiting.empty() and not self._left.is_set():
            time.sleep(_PAUSE)
