"""The log: one START_REPLICATION stream, read ahead and kept alive by a thread while the caller is busy."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from struct import Struct

import psycopg

from headwater.errors import HeadwaterError, SourceError
from headwater.sources.postgres.command import identify
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.frames import Frames, lay_out
from headwater.sources.postgres.messages import EPOCH, Relation
from headwater.sources.postgres.position import format_lsn
from headwater.sources.postgres.quoting import quote_name, quote_option
from headwater.sources.postgres.wire import Receiver, open_copy

_STATUS = Struct(">cQQQqB")
_KEEPALIVE = Struct(">cQqB")

#: Seconds between status messages; the sender gives up on us after 60 (`wal_sender_timeout`).
_BEAT = 10.0
#: Bytes that are read ahead of the caller: enough that the sender need not wait while a window is decoded.
_AHEAD = 16 << 20
_PARTING_SECONDS = 3.0

#: The slot or publication is gone (42704), the slot is invalid (55000), its log was removed (58P01).
_LOST = ("42704", "55000", "58P01")


class Stream:
    """An open stream from one slot. `at`: every commit that starts before it has been handed out.

    Not for use by several threads, but for `confirm`.
    """

    def __init__(self, server: Server, sender: psycopg.Connection, slot: str, publication: str) -> None:
        self.server, self.slot, self.publication = server, slot, publication
        self.at = 0
        self.witness = ""
        self.relations: dict[int, Relation] = {}
        self.identity = identify(server, sender)
        self.pid = sender.info.backend_pid
        self._sender = sender
        self._receiver: Receiver | None = None
        self._returned: deque[Frames] = deque()
        self._seen = self._confirmed = 0
        self._closing = False
        self._turn = threading.Condition()
        self._waiting: deque[Frames] = deque()
        self._bytes = 0  # of what waits
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._receive, name="headwater-receive", daemon=True)

    def start(self, at: int, *, replay: bool = False) -> None:
        """Ask for every commit that starts at or after `at`; with `replay` also unconfirmed older ones."""
        names = quote_option(quote_name(self.publication))
        self._receiver = open_copy(
            self.server,
            self._sender,
            f"START_REPLICATION SLOT {quote_name(self.slot)} LOGICAL {format_lsn(0 if replay else at)}"
            f" (proto_version '1', publication_names {names})",
            self._doing,
            lost=_LOST,
        )
        self.at = at
        self._thread.start()

    def take(self, seconds: float) -> Frames:
        """The next messages as they came, headers included; none when nothing comes within `seconds`."""
        if self._returned:
            return self._returned.popleft()
        with self._turn:
            self._turn.wait_for(lambda: self._waiting or self._failure is not None, seconds)
            if self._waiting:
                frames = self._waiting.popleft()
                self._bytes -= frames.size
                self._turn.notify_all()
                return frames
        if self._failure is not None:
            raise self._failure
        return lay_out(())

    def put_back(self, frames: Frames) -> None:
        """Hand messages back: the next `take` gives them again."""
        if len(frames):
            self._returned.appendleft(frames)

    def note_keepalive(self, message: bytes) -> int:
        """Answer a keepalive if it asks for it; returns how far the server's log has been read."""
        _, seen, _, wants_reply = _KEEPALIVE.unpack(message)
        self.note_seen(seen)
        if wants_reply:
            self.ping(reply=False)
        return int(seen)

    def note_seen(self, lsn: int) -> None:
        """Remember how far the server's log has been read, for our status."""
        self._seen = max(self._seen, lsn)

    def confirm(self, lsn: int) -> None:
        """Let the server forget what lies before `lsn`; never goes back."""
        if lsn > self._confirmed:
            self._confirmed = lsn
            self.ping(reply=False)

    def ping(self, *, reply: bool = True) -> None:
        """Send our status; with `reply` the server answers with a keepalive."""
        now = int(time.time() * 1_000_000) - EPOCH
        seen = max(self._seen, self._confirmed)
        if self._receiver is not None:
            self._receiver.write(_STATUS.pack(b"r", seen, self._confirmed, self._confirmed, now, reply))

    def close(self, *, orderly: bool = True) -> None:
        """End the stream, `orderly` so that the last confirmation is sure to count."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._thread.is_alive():
            if orderly:
                self._part()
            # Whatever it waits for ends now.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._sender.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
            self._thread.join()
        self._sender.close()

    def _part(self) -> None:
        with contextlib.suppress(HeadwaterError):
            self.ping(reply=False)
            if self._receiver is not None:
                self._receiver.finish()
            self._thread.join(_PARTING_SECONDS)

    @property
    def _doing(self) -> str:
        return f"read from the replication slot {self.slot}"

    def _receive(self) -> None:
        """The thread: takes what comes, as far ahead as _AHEAD, and tells the server that we live."""
        beat = time.monotonic() + _BEAT
        try:
            while True:
                frames = self._receiver.read(0.2) if self._receiver else None
                if frames is None:
                    raise SourceError(
                        f"cannot {self._doing}: the server ended the stream", hint="headwater run"
                    )
                while not self._hand_over(frames):
                    beat = self._live(beat)
                beat = self._live(beat)
        except BaseException as failed:
            with self._turn:
                self._failure = failed
                self._turn.notify_all()

    def _live(self, beat: float) -> float:
        now = time.monotonic()
        if now < beat or self._closing:
            return beat
        self.ping(reply=False)
        return now + _BEAT

    def _hand_over(self, frames: Frames) -> bool:
        """Whether there was room for the messages, or nobody wants them any more."""
        with self._turn:
            room = self._turn.wait_for(lambda: self._closing or self._bytes < _AHEAD, _BEAT / 4)
            if room and len(frames) and not self._closing:
                self._waiting.append(frames)
                self._bytes += frames.size
                self._turn.notify_all()
        return room
