"""The wire: COPY data from the server as whole buffers of messages, not one message after the other.

Two roads give the same `Frames`. On a connection without encryption libpq steps aside once it has logged in:
the command is sent and its answer read on the socket itself, up to and with ReadyForQuery, after which libpq
goes on as if nothing had been. With TLS or GSSAPI the bytes can only be had from libpq, one by one.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Collection, Iterator
from typing import Protocol

import numpy as np
import psycopg
from psycopg import pq

from headwater.errors import HeadwaterError, SourceError
from headwater.sources.postgres.cells import PAD, Ints
from headwater.sources.postgres.command import explain_result, run_command, wait_readable
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.frames import DATA, Frames, find_messages, lay_out, read_int32

#: Bytes of one buffer; longer messages get a longer one.
BUFFER = 4 << 20
#: Messages are handed on once there are this many bytes of them, or the first has waited this long.
_ENOUGH, _LINGER = 1 << 20, 0.05
#: Between two looks at the socket, so that each finds more than a few messages.
_PAUSE = 0.002
#: Room in a buffer below which the next read goes into a new one.
_SCANT = 64 << 10
#: Messages that libpq gives before the lock is let go.
_TURN = 4096

_COPY_BEGINS = frozenset(b"HW")
#: What says nothing of the data: notices, changed settings, NOTIFY, CopyDone and CommandComplete.
_PASSED_OVER = frozenset(b"NSAcC")
_ERROR, _READY = b"EZ"


class Receiver(Protocol):
    """An open COPY. One thread reads, any may write."""

    def read(self, seconds: float) -> Frames | None:
        """The next messages, none after `seconds` of silence; None at the end. Raises the server's errors."""
        ...

    def write(self, payload: bytes) -> None:
        """Send a CopyData."""
        ...

    def finish(self) -> None:
        """Say that we send no more; the server then comes to its end."""
        ...


def open_copy(  # noqa: PLR0913
    server: Server,
    connection: psycopg.Connection,
    command: str,
    doing: str,
    *,
    seconds: float = 60.0,
    lost: Collection[str] = (),
) -> Receiver:
    """Send a command that answers with COPY data; waits at most `seconds` for the answer to begin.

    Until `read` has returned None or raised, the connection is good for nothing else. SQLSTATEs in `lost` are
    raised as PositionLost.
    """
    raw = connection.pgconn
    if _is_plain(server, raw):
        receiver = _Socket(server, raw, doing, lost)
        receiver.ask(command, seconds)
        return receiver
    run_command(server, connection, command, doing, seconds=seconds, lost=lost)
    return _Libpq(server, raw, doing, lost)


def copy_out(
    server: Server, connection: psycopg.Connection, query: str, doing: str, *, seconds: float = 600.0
) -> Iterator[Frames]:
    """The messages of COPY `query` in binary, some at once: about 1 MiB of them.

    Raises SourceError after `seconds` without a word from the server. Anything but the regular end closes the
    connection: it may stand in the middle of a message.
    """
    whole = False
    try:
        command = f"copy ({query}) to stdout (format binary)"
        receiver = open_copy(server, connection, command, doing, seconds=seconds)
        heard = time.monotonic()
        while (frames := receiver.read(1.0)) is not None:
            if len(frames):
                yield frames
                heard = time.monotonic()
            elif time.monotonic() - heard > seconds:
                raise SourceError(f"cannot {doing}: no word from the server for {seconds:.0f} s")
        whole = True
    finally:
        if not whole:
            connection.close()


def _is_plain(server: Server, raw: pq.abc.PGconn) -> bool:
    """Whether what the server writes is what the socket gives."""
    if raw.ssl_in_use:
        return False
    modes = {option.keyword: option.val for option in raw.info}
    if modes.get(b"gssencmode") == b"disable":
        return True
    query = b"select encrypted from pg_stat_gssapi where pid = pg_backend_pid()"
    with server.guard("look at the connection"):
        result = raw.exec_(query)
    return result.ntuples == 1 and result.get_value(0, 0) == b"f"


class _Socket:
    """Reads the socket of a connection that libpq made; libpq itself stays away until the end.

    The buffer is filled from front to back and left alone behind: frames in it stay as they are.
    """

    def __init__(self, server: Server, raw: pq.abc.PGconn, doing: str, lost: Collection[str]) -> None:
        self._server, self._raw, self._doing, self._lost = server, raw, doing, lost
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(raw.socket, select.POLLIN)
        self._writable.register(raw.socket, select.POLLOUT)
        self._lock = threading.Lock()
        self._error: HeadwaterError | None = None
        self._ready = False  # the server waits for the next command
        self._closed = ""  # why nothing more can come
        self._answered = False
        self._data = np.empty(BUFFER + 2 * PAD, np.uint8)
        self._start = self._stop = PAD  # what has not been handed out

    def ask(self, command: str, seconds: float) -> None:
        """Send the command and wait for its answer to begin."""
        with self._server.guard(self._doing):
            self._raw.flush()
        self._send(b"Q", command.encode() + b"\0")
        deadline = time.monotonic() + seconds
        while True:
            self._fill(0.2, enough=1)
            heads, _ = self._find()
            for at in heads.tolist():
                kind, size = int(self._data[at]), self._size(at)
                self._start = at + 1 + size
                if kind in _COPY_BEGINS:
                    self._answered = True
                    return
                self._note(kind, at + 5, size - 4)
            if self._ready or self._closed:
                raise self._why()
            if time.monotonic() > deadline:
                raise SourceError(f"cannot {self._doing}: no answer within {seconds:.0f} s")

    def read(self, seconds: float) -> Frames | None:
        """See Receiver."""
        if not self._ready and not self._closed:
            # What came with the answer itself is there already.
            self._fill(0 if self._answered else seconds, enough=_ENOUGH)
            self._answered = False
        frames = self._take()
        if len(frames) or not (self._ready or self._closed):
            return frames
        if self._error is not None or not self._ready:
            raise self._why()
        return None

    def write(self, payload: bytes) -> None:
        """See Receiver."""
        self._send(b"d", payload)

    def finish(self) -> None:
        """See Receiver."""
        self._send(b"c", b"")

    def _why(self) -> HeadwaterError:
        """The error for an answer that ended otherwise than it should."""
        if self._error is not None:
            return self._error
        return self._server.explain(self._doing, "", self._closed or "the server sent no data")

    def _size(self, at: int) -> int:
        return int.from_bytes(self._data[at + 1 : at + 5].tobytes(), "big")

    def _find(self) -> tuple[Ints, int]:
        start, stop = self._start, self._stop
        # A long message is not searched again with each piece of it that comes.
        if stop - start < 5 or stop - start - 1 < self._size(start) < 1 << 31:
            return np.empty(0, np.int64), start
        return find_messages(self._data, start, stop)

    def _take(self) -> Frames:
        """The whole messages that are there."""
        heads, rest = self._find()
        sizes = read_int32(self._data, heads + 1) - 4
        other = np.flatnonzero(self._data[heads] != DATA)
        for k in other.tolist():
            self._note(int(self._data[heads[k]]), int(heads[k]) + 5, int(sizes[k]))
        self._start = rest
        if len(other):
            heads, sizes = np.delete(heads, other), np.delete(sizes, other)
        return Frames(self._data, heads + 5, sizes)

    def _note(self, kind: int, at: int, size: int) -> None:
        """Take in a message that is no data."""
        if kind == _ERROR:
            code, said = _read_error(self._data[at : at + size].tobytes())
            self._error = self._server.explain(self._doing, code, said, self._lost)
        elif kind == _READY:
            self._ready = True
        elif kind not in _PASSED_OVER:
            raise SourceError(f"cannot {self._doing}: a message of unknown kind {chr(kind)!r} in the stream")

    def _fill(self, seconds: float, *, enough: int) -> None:
        """Read what comes: nothing within `seconds`, or `enough` bytes, or what comes within _LINGER."""
        if not self._readable.poll(int(1000 * seconds)):
            return
        deadline = time.monotonic() + _LINGER
        got = 0
        while got < enough and not self._closed:
            size = self._recv()
            got += size
            if time.monotonic() > deadline:
                return
            if size < _SCANT and got < enough:
                time.sleep(_PAUSE)

    def _recv(self) -> int:
        """Read once; 0 when nothing is there."""
        if len(self._data) - PAD - self._stop < _SCANT:
            self._renew()
        room = self._data[self._stop : len(self._data) - PAD].data
        try:
            size = os.readv(self._raw.socket, [room])
        except BlockingIOError:
            return 0
        except OSError as failed:
            self._closed = os.strerror(failed.errno or 0)
            return 0
        if size == 0:
            self._closed = "server closed the connection unexpectedly"
        self._stop += size
        return size

    def _renew(self) -> None:
        """Go on in a new buffer; a message that fills more than half of one gets one twice as long."""
        rest = self._data[self._start : self._stop]
        self._data = np.empty(max(BUFFER, 2 * len(rest)) + 2 * PAD, np.uint8)
        self._data[PAD : PAD + len(rest)] = rest
        self._start, self._stop = PAD, PAD + len(rest)

    def _send(self, kind: bytes, payload: bytes) -> None:
        left = memoryview(kind + (len(payload) + 4).to_bytes(4, "big") + payload)
        with self._lock:
            while left:
                try:
                    left = left[os.write(self._raw.socket, left) :]
                except BlockingIOError:
                    if not self._writable.poll(60_000):
                        raise SourceError(f"cannot {self._doing}: the server takes no more") from None
                except OSError as failed:
                    said = os.strerror(failed.errno or 0)
                    raise self._server.explain(self._doing, "", said) from None


def _read_error(payload: bytes) -> tuple[str, str]:
    """SQLSTATE and text of an ErrorResponse."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in payload.split(b"\0") if part}
    return fields.get(b"C", ""), fields.get(b"M", "no message")


class _Libpq:
    """Takes the messages from libpq, one by one, and does as little as can be with each."""

    def __init__(self, server: Server, raw: pq.abc.PGconn, doing: str, lost: Collection[str]) -> None:
        self._server, self._raw, self._doing, self._lost = server, raw, doing, lost
        self._lock = threading.Lock()
        self._ended = False
        raw.nonblocking = 1

    def read(self, seconds: float) -> Frames | None:
        """See Receiver."""
        parts: list[bytes] = []
        with self._server.guard(self._doing):
            size = 0 if self._ended else self._pull(parts)
            if not parts and not self._ended:
                wait_readable(self._raw, seconds)
                size = self._pull(parts)
            deadline = time.monotonic() + _LINGER
            while parts and size < _ENOUGH and not self._ended and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                size += self._pull(parts)
            if self._ended and not parts:
                self._end()
                return None
        return lay_out(parts)

    def write(self, payload: bytes) -> None:
        """See Receiver."""
        with self._server.guard(self._doing), self._lock:
            self._raw.put_copy_data(payload)
            self._raw.flush()

    def finish(self) -> None:
        """See Receiver."""
        with self._server.guard(self._doing), self._lock:
            self._raw.put_copy_end()
            self._raw.flush()

    def _pull(self, parts: list[bytes]) -> int:
        """Append what is there, up to about _ENOUGH bytes; returns how many those are."""
        total, size, broken = 0, 1, None
        # Each time libpq reads one record of TLS, which may hold one message.
        while size and total < _ENOUGH and not self._ended and broken is None:
            with self._lock:
                broken = self._consume()
                size = self._get(parts)
            total += size
        if broken is not None and not parts and not self._ended:
            raise broken
        return total

    def _get(self, parts: list[bytes]) -> int:
        get, total = self._raw.get_copy_data, 0
        for _ in range(_TURN):
            size, data = get(1)
            if size <= 0:
                self._ended = size < 0
                break
            parts.append(bytes(data))
            total += size
        return total

    def _consume(self) -> psycopg.Error | None:
        """Let libpq read; what it read before the connection broke may say why."""
        try:
            self._raw.consume_input()
        except psycopg.Error as failed:
            return failed
        return None

    def _end(self) -> None:
        """Take in how the COPY ended."""
        copying = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)
        failed = None
        while (result := self._raw.get_result()) is not None and result.status not in copying:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                failed = failed or explain_result(self._server, result, self._doing, self._lost)
        self._raw.nonblocking = 0
        if failed is not None:
            raise failed
