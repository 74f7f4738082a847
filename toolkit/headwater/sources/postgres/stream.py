"""The wire: one START_REPLICATION stream, kept alive by a thread while the caller is busy elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from struct import Struct

import psycopg
from psycopg import pq

from headwater.errors import SourceError
from headwater.sources.postgres.command import explain_result, identify, run_command, wait_readable
from headwater.sources.postgres.connect import Server
from headwater.sources.postgres.messages import EPOCH, Relation
from headwater.sources.postgres.position import format_lsn
from headwater.sources.postgres.quoting import quote_name, quote_option

_STATUS = Struct(">cQQQqB")
_KEEPALIVE = Struct(">cQqB")

#: Seconds between status messages; the sender gives up on us after 60 (`wal_sender_timeout`).
_BEAT = 10.0
#: The most that one `take` hands out: the lock is let go in between, so that the thread gets its turn.
_BATCH_MESSAGES, _BATCH_BYTES = 4096, 4 << 20
_PARTING_SECONDS = 3.0

#: The slot or publication is gone (42704), the slot is invalid (55000), its log was removed (58P01).
_LOST = ("42704", "55000", "58P01")


class Stream:
    """An open stream from one slot. `at`: every commit that starts before it has been handed out.

    Not for use by several threads; the thread inside shares nothing but the connection, under a lock.
    """

    def __init__(self, server: Server, sender: psycopg.Connection, slot: str, publication: str) -> None:
        self.server, self.slot, self.publication = server, slot, publication
        self.at = 0
        self.witness = ""
        self.relations: dict[bytes, Relation] = {}
        self.identity = identify(server, sender)
        self.pid = sender.info.backend_pid
        self._sender, self._raw = sender, sender.pgconn
        self._lock = threading.Lock()
        self._returned: deque[bytes] = deque()
        self._seen = self._confirmed = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="headwater-keepalive", daemon=True)

    def start(self, at: int, *, replay: bool = False) -> None:
        """Ask for every commit that starts at or after `at`; with `replay` also unconfirmed older ones."""
        names = quote_option(quote_name(self.publication))
        run_command(
            self.server,
            self._sender,
            f"START_REPLICATION SLOT {quote_name(self.slot)} LOGICAL {format_lsn(0 if replay else at)}"
            f" (proto_version '1', publication_names {names})",
            f"read from the replication slot {self.slot}",
            lost=_LOST,
        )
        self.at = at
        self._raw.nonblocking = 1
        self._thread.start()

    def take(self, seconds: float) -> list[bytes]:
        """The next messages as they came, headers included; [] when nothing comes within `seconds`."""
        if self._returned:
            batch = list(self._returned)
            self._returned.clear()
            return batch
        with self.server.guard("read the log"):
            batch = self._drain()
            if not batch:
                wait_readable(self._raw, seconds)
                with self._lock:
                    self._raw.consume_input()
                batch = self._drain()
        return batch

    def put_back(self, messages: list[bytes]) -> None:
        """Hand messages back: the next `take` gives them again."""
        self._returned.extendleft(reversed(messages))

    def note_keepalive(self, message: bytes) -> int:
        """Answer a keepalive if it asks for it; returns how far the server's log has been read."""
        _, seen, _, wants_reply = _KEEPALIVE.unpack(message)
        self._seen = max(self._seen, seen)
        if wants_reply:
            self.ping(reply=False)
        return int(seen)

    def confirm(self, lsn: int) -> None:
        """Let the server forget what lies before `lsn`; never goes back."""
        if lsn > self._confirmed:
            self._confirmed = lsn
            self.ping(reply=False)

    def ping(self, *, reply: bool = True) -> None:
        """Send our status; with `reply` the server answers with a keepalive."""
        with self.server.guard("answer the server"), self._lock:
            self._send(reply=reply)

    def close(self, *, orderly: bool = True) -> None:
        """End the stream, `orderly` so that the last confirmation is sure to count."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        if orderly:
            with contextlib.suppress(psycopg.Error):
                self._part()
        self._sender.close()

    def _part(self) -> None:
        if (
            self._raw.status != pq.ConnStatus.OK
            or self._raw.transaction_status != pq.TransactionStatus.ACTIVE
        ):
            return
        self._send(reply=False)
        self._raw.put_copy_end()
        self._raw.flush()
        deadline = time.monotonic() + _PARTING_SECONDS
        while time.monotonic() < deadline:
            size, _ = self._raw.get_copy_data(1)
            if size < 0:
                return
            if size == 0:
                wait_readable(self._raw, 0.1)
                self._raw.consume_input()

    def _drain(self) -> list[bytes]:
        batch: list[bytes] = []
        room, get = _BATCH_BYTES, self._raw.get_copy_data
        with self._lock:
            while len(batch) < _BATCH_MESSAGES and room > 0:
                size, data = get(1)
                if size <= 0:
                    break
                room -= size
                batch.append(bytes(data))
            else:
                return batch
        if size < 0 and not batch:
            self._raise_end()
        return batch

    def _raise_end(self) -> None:
        result = self._raw.get_result()
        doing = f"read from the replication slot {self.slot}"
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise explain_result(self.server, result, doing, _LOST)
        raise SourceError(f"cannot {doing}: the server ended the stream", hint="headwater run")

    def _send(self, *, reply: bool) -> None:
        now = int(time.time() * 1_000_000) - EPOCH
        seen = max(self._seen, self._confirmed)
        self._raw.put_copy_data(_STATUS.pack(b"r", seen, self._confirmed, self._confirmed, now, reply))
        self._raw.flush()

    def _keep_alive(self) -> None:
        while not self._closing.wait(_BEAT):
            try:
                with self._lock:
                    self._send(reply=False)
            except psycopg.Error:
                return  # the next `take` meets the same error and raises it
