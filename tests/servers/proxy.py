"""The network between a client and a server, as bad as a test wants it.

`TcpProxy` knows nothing of what it carries; `HttpProxy` knows requests, so it can fail the third PUT.
"""

import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class TcpProxy:
    """A TCP proxy on 127.0.0.1 that can cut, stall, delay, or lose a reply after the request went through."""

    def __init__(self, port: int, host: str = "127.0.0.1", latency: float = 0.0) -> None:
        self.latency = latency
        """Seconds that every piece of data waits, in both directions."""
        self._target = (host, port)
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._swallows = 0
        self._cut_after: int | None = None
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread that waits in accept() keeps a closed socket listening; shutdown wakes it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._flowing.set()

    def through(self, url: str) -> str:
        """Return `url` with this proxy's address in place of the server's."""
        parts = urlsplit(url)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}"))

    def cut(self) -> None:
        """Reset every connection, and every new one until `resume`."""
        self._refusing = True
        with self._lock:
            victims = list(self._open)
        for victim in victims:
            _reset(victim)

    def cut_after(self, size: int) -> None:
        """Let `size` more bytes come from the server, then reset that connection, once."""
        self._cut_after = size

    def stall(self) -> None:
        """Hold all data back, connections stay open: what a dead route looks like."""
        self._flowing.clear()

    def resume(self) -> None:
        """Be a good network again for what is open (after `stall`) and what is new (after `cut`)."""
        self._refusing = False
        self._flowing.set()

    def swallow_reply(self, times: int = 1) -> None:
        """Let the next `times` requests through, but reset the connection instead of bringing the reply."""
        self._swallows += times

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        try:
            while data := source.recv(65536):
                if self.latency:
                    time.sleep(self.latency)
                self._flowing.wait()
                allowed = len(data) if is_request else self._allowed(len(data))
                sink.sendall(data[:allowed])
                if allowed < len(data):
                    break
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        with self._lock:
            self._open -= {source, sink}
        _reset(source)
        _reset(sink)

    def _allowed(self, size: int) -> int:
        """Return how many of `size` bytes of a reply may pass; fewer means cut."""
        with self._lock:
            if self._swallows:
                self._swallows -= 1
                return 0
            if self._cut_after is None:
                return size
            if size <= self._cut_after:
                self._cut_after -= size
                return size
            allowed, self._cut_after = self._cut_after, None
            return allowed


def _reset(connection: socket.socket) -> None:
    """End a connection with RST, so that the other side sees an error and no orderly end."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # close() alone does not wake a thread that reads from this socket.
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


@dataclass
class _Fault:
    """What happens to the next `times` requests of `method` (None: any) whose path contains `path`."""

    times: int
    status: int | None
    method: str | None
    path: str


class HttpProxy:
    """An HTTP proxy before `endpoint` that answers errors itself, or loses the reply of a done request."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint)
        self._target = (target.hostname or "127.0.0.1", target.port or 80)
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self.seen: list[tuple[str, str, int]] = []
        """Every request so far: method, path with query, status (0: the reply was lost)."""
        relay = type("Relay", (_Relay,), {"proxy": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), relay)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, times: int = 1, status: int = 503, method: str | None = None, path: str = "") -> None:
        """Answer the next `times` matching requests with `status`; the server never sees them."""
        self._faults.append(_Fault(times, status, method, path))

    def swallow(self, times: int = 1, method: str = "PUT", path: str = "") -> None:
        """Pass the next `times` matching requests on, wait for the reply, drop it and cut the connection."""
        self._faults.append(_Fault(times, None, method, path))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take_fault(self, method: str, path: str) -> _Fault | None:
        """Return the fault that this request meets, if any, and count it."""
        with self._lock:
            for fault in self._faults:
                if fault.times and fault.method in (None, method) and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> http.client.HTTPResponse:
        """Send a request on as it is: a signature covers its headers, Host among them."""
        upstream = http.client.HTTPConnection(*self._target, timeout=60)
        upstream.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body or None)
        return upstream.getresponse()


class _Relay(http.server.BaseHTTPRequestHandler):
    """One client connection of an `HttpProxy`."""

    protocol_version = "HTTP/1.1"
    proxy: HttpProxy

    def log_message(self, format: str, *words: object) -> None:
        pass

    def relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.take_fault(self.command, self.path)
        if fault and fault.status:
            self.answer(fault.status, {}, b"")
            return
        reply = self.proxy.forward(self.command, self.path, _end_to_end(self.headers.items()), body)
        content = reply.read()
        if fault:
            self.proxy.seen.append((self.command, self.path, 0))
            self.close_connection = True
            _reset(self.connection)
            return
        self.answer(reply.status, _end_to_end(reply.getheaders()), content)

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.proxy.seen.append((self.command, self.path, status))
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in map(str.lower, headers) and status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay


def _end_to_end(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that are meant for the other end, not for this connection."""
    return {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}
