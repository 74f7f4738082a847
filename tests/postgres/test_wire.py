"""The two roads from the socket: whole buffers of messages, exact for any bytes, and errors as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import pack, unpack_from

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.demo.server import EmbeddedPostgres
from headwater.errors import DecodeError, PreflightFailed, SourceError
from headwater.sources.postgres import wire
from headwater.sources.postgres.cells import PAD
from headwater.sources.postgres.connect import Server, make_server
from headwater.sources.postgres.frames import find_messages, lay_out
from postgres.test_copybinary import HEAD, TRAILER, copied
from servers.postgres import Database
from servers.proxy import TcpProxy
from servers.tls import Certificates


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + pack(">I", len(payload) + 4) + payload


def plain(raw: bytes) -> tuple[list[int], int]:
    """The five lines that `find_messages` must agree with."""
    heads, at = [], 0
    while at + 5 <= len(raw):
        (size,) = unpack_from(">i", raw, at + 1)
        if size < 4:
            raise DecodeError("too short")
        if at + 1 + size > len(raw):
            break
        heads.append(at)
        at += 1 + size
    return heads, at


def found(raw: bytes) -> tuple[list[int], int]:
    data = np.frombuffer(bytes(PAD) + raw + bytes(PAD), np.uint8)
    heads, rest = find_messages(data, PAD, PAD + len(raw))
    return (heads - PAD).tolist(), rest - PAD


#: Bytes that look like headers, and like what stands around them.
TRICKY = st.lists(
    st.sampled_from([b"d", b"\0", b"dd", b"d\0\0\0\4", b"d\0\0\0\5x", b"d\0\0\0\x0c", b"w", b"\n", b"\xff"])
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)


@given(st.lists(st.tuples(st.sampled_from([b"d"] * 6 + [b"S", b"Z", b"\0"]), TRICKY), max_size=30), TRICKY)
def test_messages_are_found_as_by_the_plain_loop(parts: list[tuple[bytes, bytes]], tail: bytes) -> None:
    raw = b"".join(message(*part) for part in parts)
    for data in (raw, raw + tail, raw[: len(raw) - len(tail)]):
        try:
            wanted = plain(data)
        except DecodeError:
            with pytest.raises(DecodeError):
                found(data)
        else:
            assert found(data) == wanted


@given(st.lists(st.sampled_from([b"d", b"\0", b"\4", b"\5", b"\6"]), max_size=60).map(b"".join))
def test_any_bytes_at_all(raw: bytes) -> None:
    try:
        wanted = plain(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            found(raw)
    else:
        assert found(raw) == wanted


def test_messages_that_hold_messages() -> None:
    """A payload may be a whole stream itself, up to the very end of its message."""
    inner = b"".join(message(b"d", b"x" * n) for n in range(50))
    raw = b"".join(message(b"d", inner[k:]) for k in range(60))
    assert found(raw) == plain(raw)
    assert len(plain(raw)[0]) == 60


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_frames_joined(parts: list[bytes]) -> None:
    frames = lay_out(parts)
    assert frames.joined().tobytes() == b"".join(parts)
    assert [frames.payload(k) for k in range(len(frames))] == parts
    assert frames.cut(1, 3).joined().tobytes() == b"".join(parts[1:3])


# --- on servers


def server_of(url: str) -> Server:
    return make_server(url, {})


def received(server: Server, reader: psycopg.Connection, query: str, **more: float) -> bytes:
    return b"".join(part.joined().tobytes() for part in wire.copy_out(server, reader, query, "read", **more))


def whole(rows: Iterable[Sequence[bytes]]) -> bytes:
    """What COPY sends for these rows."""
    return HEAD + b"".join(map(copied, rows)) + TRAILER


def number(value: int) -> bytes:
    return pack(">i", value)


Connect = Callable[[], tuple[Server, psycopg.Connection]]


@pytest.fixture(params=["plain", "tls"])
def connect(
    request: pytest.FixtureRequest,
    pg: Database,
    pg_tls: Callable[[str], EmbeddedPostgres],
    certificates: Certificates,
) -> Connect:
    """A reader over either road."""

    def open_one() -> tuple[Server, psycopg.Connection]:
        if request.param == "plain":
            server = server_of(pg.url)
        else:
            url = pg_tls("good").url.replace("127.0.0.1", "localhost").partition("?")[0]
            server = server_of(f"{url}?sslrootcert={certificates.ca}")
        reader = server.reader()
        kinds = {"plain": wire._Socket, "tls": wire._Libpq}
        receiver = wire.open_copy(server, reader, "copy (select 1) to stdout", "look")
        assert isinstance(receiver, kinds[request.param])
        while receiver.read(1.0) is not None:
            pass
        return server, reader

    return open_one


ROWS = "select i, repeat('d', i % 90), i % 7 from generate_series(1, 60000) i"


@pytest.mark.live
def test_copy_is_whole_and_the_connection_goes_on(connect: Connect) -> None:
    server, reader = connect()
    with reader:
        wanted = whole([number(i), b"d" * (i % 90), number(i % 7)] for i in range(1, 60001))
        for _ in range(2):
            assert received(server, reader, ROWS) == wanted
            assert reader.execute("select 7").fetchone() == (7,)
        assert received(server, reader, "select 1 where false") == whole([])


@pytest.mark.live
def test_long_rows(connect: Connect) -> None:
    server, reader = connect()
    with reader:
        got = received(server, reader, "select repeat('xy', 10000000), i from generate_series(1, 3) i")
        assert got == whole([b"xy" * 10_000_000, number(i)] for i in (1, 2, 3))


@pytest.mark.live
def test_notices_between_the_rows(connect: Connect) -> None:
    server, reader = connect()
    with reader:
        reader.execute(
            "create function pg_temp.noisy(i int) returns int language plpgsql as"
            " $$ begin if i % 100 = 0 then raise notice 'd%', i; end if; return i; end $$"
        )
        got = received(server, reader, "select pg_temp.noisy(i) from generate_series(1, 1000) i")
        assert got == whole([number(i)] for i in range(1, 1001))


@pytest.mark.live
@pytest.mark.parametrize(
    ("query", "kind", "said"),
    [
        ("select no_such_column", SourceError, "no_such_column"),
        ("select 1 / (i - 30000) from generate_series(1, 60000) i", SourceError, "division by zero"),
        ("select pg_read_file('/etc/hosts')", PreflightFailed, "permission denied"),
        ("select pg_terminate_backend(pg_backend_pid())", SourceError, "terminating connection"),
    ],
)
def test_what_the_server_says_is_raised(
    connect: Connect, query: str, kind: type[SourceError], said: str
) -> None:
    server, reader = connect()
    with reader:
        if kind is PreflightFailed:
            reader.execute("set role pg_monitor")
        with pytest.raises(kind, match=said):
            received(server, reader, query)
        assert reader.closed


@pytest.mark.live
def test_left_in_the_middle_the_connection_is_closed(connect: Connect) -> None:
    server, reader = connect()
    parts = wire.copy_out(server, reader, "select generate_series(1, 3000000)", "read")
    next(parts)
    parts.close()
    assert reader.closed


@pytest.mark.live
def test_silence_and_a_lost_connection_are_errors(pg: Database) -> None:
    with TcpProxy(pg.server.port) as proxy:
        server = server_of(proxy.through(pg.url))
        slow = "select pg_sleep(3)"
        with server.reader() as reader, pytest.raises(SourceError, match="no word|no answer"):
            received(server, reader, slow, seconds=0.5)
        with server.reader() as reader:
            parts = wire.copy_out(server, reader, "select generate_series(1, 3000000)", "read", seconds=1.0)
            next(parts)
            proxy.stall()
            with pytest.raises(SourceError, match="no word from the server"):
                list(parts)
        proxy.resume()
        with server.reader() as reader:
            proxy.cut_after(300_000)
            with pytest.raises(SourceError, match="cannot read"):
                received(server, reader, "select generate_series(1, 3000000)")
