"""Protocols written in Python, over real sockets: cutting and dressing.

What they may do wrong, and pausing, are in test_protocol_errors.py.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from helpers import Recorder, connect, receive_all, receive_exactly, serving
from protocols import Framed, Lines, Netstrings, framed, lines, netstrings, pieces

from gevffi import Connection, Protocol, Raw, ReadBuffer

PAYLOADS = (b"one", b"", b"three", b"x" * 40, b"")
KINDS = pytest.mark.parametrize(
    ("protocol", "encode"),
    [(Framed(), framed), (Lines(), lines), (Netstrings(), netstrings)],
    ids=["lengths", "lines", "netstrings"],
)


@KINDS
def test_everything_in_one_read(protocol: Protocol, encode: Any) -> None:
    handler = Recorder(bytes)
    stream = encode(*PAYLOADS)
    with pieces(handler, protocol) as client:
        client.sock.sendall(stream)
        assert receive_exactly(client.sock, len(stream)) == stream
        assert [handler.next("message").value[1] for _ in PAYLOADS] == list(PAYLOADS)


@KINDS
def test_split_at_every_byte(protocol: Protocol, encode: Any) -> None:
    handler = Recorder(bytes)
    stream = encode(*PAYLOADS)
    with pieces(handler, protocol) as client:
        for at in range(1, len(stream)):
            client.send(stream[:at])
            client.send(stream[at:])
            assert receive_exactly(client.sock, len(stream)) == stream
            assert [handler.next("message").value[1] for _ in PAYLOADS] == list(PAYLOADS)
        assert client.conn.read_buffer_length == 0


@KINDS
def test_one_byte_at_a_time(protocol: Protocol, encode: Any) -> None:
    handler = Recorder(bytes)
    stream = encode(*PAYLOADS)
    with pieces(handler, protocol) as client:
        for at in range(len(stream)):
            client.send(stream[at : at + 1])
        assert receive_exactly(client.sock, len(stream)) == stream
        assert [handler.next("message").value[1] for _ in PAYLOADS] == list(PAYLOADS)


@KINDS
def test_a_large_frame_over_many_reads(protocol: Protocol, encode: Any) -> None:
    payload = bytes(range(11, 256)) * 10_000  # no newline in it
    handler = Recorder(lambda data: b"got %d" % len(data))
    with pieces(handler, protocol) as client:
        client.sock.sendall(encode(payload, b"next"))
        wanted = encode(b"got %d" % len(payload), b"got 4")
        assert receive_exactly(client.sock, len(wanted)) == wanted
        assert handler.next("message").value[1] == payload
        assert handler.next("message").value[1] == b"next"


def test_connections_do_not_mix_their_halves() -> None:
    handler = Recorder(bytes)
    with serving(handler, protocol=Framed()) as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(10)]
        streams = [framed(bytes([65 + number]) * (10 + number)) for number in range(10)]
        for at in range(20):
            for sock, stream in zip(socks, streams, strict=True):
                sock.sendall(stream[at : at + 1] if at < 13 else stream[13:] if at == 13 else b"")
        for sock, stream in zip(socks, streams, strict=True):
            assert receive_exactly(sock, len(stream)) == stream


def test_ctx_is_passed_through() -> None:
    handler = Recorder()
    with pieces(handler, Lines()) as client:
        client.sock.sendall(b"a\nb\n\n")
        assert [handler.next("message").value for _ in range(3)] == [(1, b"a"), (2, b"b"), (3, b"")]


def test_a_ctx_without_data_is_a_message() -> None:
    class Marks(Protocol):
        def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
            if buffer.is_empty:
                return None, None
            return buffer.read(1), None

    handler = Recorder(lambda data: b"!")
    with pieces(handler, Marks()) as client:
        client.sock.sendall(b"ab")
        assert receive_exactly(client.sock, 2) == b"!!"
        assert [handler.next("message").value for _ in range(2)] == [(b"a", None), (b"b", None)]


def test_no_reply_is_no_packet() -> None:
    packed: list[Any] = []

    class Watched(Framed):
        def packet(self, conn: Connection, reply: Any) -> Any:
            packed.append(bytes(reply))
            return super().packet(conn, reply)

    handler = Recorder(lambda data: None if data == b"quiet" else data)
    with pieces(handler, Watched()) as client:
        client.sock.sendall(framed(b"quiet", b"loud", b""))
        assert receive_exactly(client.sock, 12) == framed(b"loud", b"")
    assert packed == [b"loud", b""]


def test_send_goes_through_packet_from_every_thread() -> None:
    class Upper(Framed):
        def packet(self, conn: Connection, reply: Any) -> Any:
            return super().packet(conn, reply.upper().encode())

    class Greeter(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.send("hello")

    handler = Greeter(lambda data: "reply")
    with pieces(handler, Upper()) as client:
        assert receive_exactly(client.sock, 9) == framed(b"HELLO")
        client.conn.send("thread")
        assert receive_exactly(client.sock, 10) == framed(b"THREAD")
        client.sock.sendall(framed(b"?"))
        assert receive_exactly(client.sock, 9) == framed(b"REPLY")


@pytest.mark.parametrize("count", [0, 1, 3, 200])
@pytest.mark.parametrize("size", [0, 10, 10_000])
def test_a_packet_in_pieces(count: int, size: int) -> None:
    class Cut(Framed):
        def packet(self, conn: Connection, reply: Any) -> Any:
            return (bytes(reply),) if count == 1 else (b"z" * size,) * count

    handler = Recorder(lambda data: data)
    with pieces(handler, Cut()) as client:
        client.sock.sendall(framed(b"a"))
        client.sock.shutdown(socket.SHUT_WR)
        assert receive_all(client.sock) == (b"a" if count == 1 else b"z" * size * count)


def test_raw_as_a_subclass_cuts_what_is_there() -> None:
    class Mine(Raw):
        def packet(self, conn: Connection, reply: Any) -> Any:
            return b"[", reply, b"]"

    with pieces(Recorder(lambda data: data), Mine()) as client:
        client.sock.sendall(b"raw")
        assert receive_exactly(client.sock, 5) == b"[raw]"


def test_views_kept_across_messages_stay_as_they_were() -> None:
    kept: list[Any] = []

    class Keeper(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            assert data.readonly
            kept.append(data)
            return b"."

    wanted = [bytes([number % 251]) * (number * 37 % 3000) for number in range(1500)]
    stream = framed(*wanted)
    with pieces(Keeper(), Framed(), arena_size=1 << 17, max_leases=4) as client:
        for at in range(0, len(stream), 4999):  # some frames in the arena, some in a ring
            client.send(stream[at : at + 4999])
        receive_exactly(client.sock, 5 * len(wanted))
        assert [bytes(view) for view in kept] == wanted
    assert [bytes(view) for view in kept] == wanted  # and when the server is gone
