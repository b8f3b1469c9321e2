"""WebSockets that `gevffi.ws.connect` made: messages both ways, and what is malformed."""

from __future__ import annotations

import contextlib
import logging
import socket
import zlib
from typing import Any

import pytest
from helpers import Background, receive_all, receive_exactly
from hypothesis import given, settings
from hypothesis import strategies as st
from outgoing import call
from ws_helpers import Recorder, frame, serving
from ws_peer import (
    BINARY,
    CLOSE,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    ClientRecorder,
    Listener,
    bare,
    quiet,
    talking,
)

from gevffi import EventLoop, ws

# ---- messages -----------------------------------------------------------------------------------

MESSAGES: list[str | bytes] = [
    "",
    "hé",
    "ü" * 1000,
    b"",
    b"\0\xff",
    b"x" * 70_000,
    b"z" * (1 << 20),
]


@pytest.mark.parametrize("theirs", [ws.Deflate(), None])
@pytest.mark.parametrize(
    "ours",
    [
        ws.Deflate(),
        ws.Deflate(client_no_context_takeover=True, server_no_context_takeover=True, threshold=0),
        None,
    ],
)
def test_both_ways_with_a_server_of_ours(
    loop: EventLoop, ours: ws.Deflate | None, theirs: ws.Deflate | None
) -> None:
    handler = quiet()
    with serving(Recorder(), compression=theirs) as server:
        conn = ws.connect(loop, f"ws://{server.address}/", handler, compression=ours)
        opened = handler.next("open")[1]
        assert (opened.deflate is not None) == (ours is not None and theirs is not None)
        for message in MESSAGES * 2:
            if isinstance(message, str):
                conn.send_text(message)
            else:
                conn.send_binary(message)
            _, back = handler.next("message")
            assert type(back) is (str if isinstance(message, str) else memoryview)
            assert (back if isinstance(back, str) else bytes(back)) == message
        conn.ping(b"?")
        assert handler.next("pong")[1] == b"?"
        conn.close(3001, "done")
        assert handler.next("close")[1] == (3001, "")


def test_what_is_sent_is_masked_with_another_key_each_time(
    loop: EventLoop, listener: Listener
) -> None:
    with talking(loop, listener, quiet()) as (conn, peer):
        for _ in range(3):
            conn.send_text("Hello")
        heads = [receive_exactly(peer.sock, 11) for _ in range(3)]
        assert {head[:2] for head in heads} == {b"\x81\x85"}
        assert len({head[2:6] for head in heads}) == 3
        for size in (125, 126, 65535, 65536):
            conn.send_binary(b"x" * size)
            assert peer.frame() == (BINARY, b"x" * size)


def test_replies_and_pongs(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    with talking(loop, listener, handler) as (_conn, peer):
        peer.sock.sendall(bare(TEXT, b"a") + bare(PING, b"?") + bare(BINARY, b"b") + bare(PONG))
        assert [peer.frame() for _ in range(3)] == [(TEXT, b"a"), (PONG, b"?"), (BINARY, b"b")]
        assert [handler.events.get()[0] for _ in range(4)] == ["message", "ping", "message", "pong"]


def test_text_as_bytes(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    with talking(loop, listener, handler, text="bytes") as (_conn, peer):
        peer.send(TEXT, b"a")
        assert handler.next("message")[1] == b"a"
        assert peer.frame() == (TEXT, b"a")


def test_fragments_with_a_ping_between_byte_by_byte(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    text = "€uro".encode()
    with talking(loop, listener, handler) as (_conn, peer):
        data = bare(0x01, text[:2]) + bare(PING) + bare(0x00) + bare(0x80, text[2:])
        for at in range(len(data)):
            peer.sock.sendall(data[at : at + 1])
            call(loop, lambda: None)
        assert peer.frame() == (PONG, b"")
        assert peer.frame() == (TEXT, text)


def test_compressed_both_ways_in_fragments(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    options: dict[str, Any] = {"compression": ws.Deflate(threshold=0)}
    with talking(loop, listener, handler, DEFLATE, **options) as (_conn, peer):
        maker = zlib.compressobj(9, zlib.DEFLATED, -12)
        reader = zlib.decompressobj(-12)
        for _ in range(3):
            data = maker.compress(b"Hello" * 100) + maker.flush(zlib.Z_SYNC_FLUSH)
            assert data.endswith(b"\0\0\xff\xff")
            peer.sock.sendall(bare(0x41, data[:3]) + bare(PING) + bare(0x80, data[3:-4]))
            assert peer.frame() == (PONG, b"")
            first, payload = peer.frame()
            assert first == 0xC1
            assert reader.decompress(payload + b"\0\0\xff\xff") == b"Hello" * 100


def test_from_many_threads(loop: EventLoop) -> None:
    """Each one's messages come in its order, and whole."""
    handler = quiet()
    with serving(Recorder()) as server:
        conn = ws.connect(loop, f"ws://{server.address}/", handler)

        def send(name: str) -> None:
            for number in range(200):
                conn.send_text(f"{name} {number}")

        for thread in [Background(send, name) for name in "abcd"]:
            thread.join()
        handler.next("open")
        seen: dict[str, list[int]] = {name: [] for name in "abcd"}
        for _ in range(800):
            name, number = handler.next("message")[1].split()
            seen[name].append(int(number))
        assert all(numbers == [*range(200)] for numbers in seen.values())


def test_broadcast_to_servers_and_clients_alike(loop: EventLoop) -> None:
    """What clients send is masked, or the server would refuse it."""
    served, handler = Recorder(lambda conn, message: None), quiet()
    with serving(served) as server:
        ours = ws.connect(loop, f"ws://{server.address}/", handler)
        theirs = served.next("open")[0]
        handler.next("open")
        ws.broadcast([ours, theirs], "ü")
        call(loop, lambda: ws.broadcast([ours, theirs], bytearray(b"x")))
        assert served.next("message")[1] == handler.next("message")[1] == "ü"
        assert served.next("message")[1] == handler.next("message")[1] == b"x"


# ---- what is wrong ------------------------------------------------------------------------------

MALFORMED = [
    ("masked", frame(0x81, b"Hello"), 1002),
    ("masked ping", frame(0x89), 1002),
    ("reserved bit 1", bare(0xC1), 1002),
    ("reserved bit 2", bare(0xA1), 1002),
    ("reserved bit 3", bare(0x91), 1002),
    ("opcode 3", bare(0x83), 1002),
    ("opcode 11", bare(0x8B), 1002),
    ("fragmented ping", bare(0x09), 1002),
    ("ping of 126 bytes", b"\x89\x7e\x00\x7e", 1002),
    ("continuation of nothing", bare(0x80), 1002),
    ("text within text", bare(0x01) + bare(0x81), 1002),
    ("length not minimal", b"\x82\x7e\x00\x7d", 1002),
    ("length with its top bit", b"\x82\x7f" + b"\xff" * 8, 1002),
    ("close of one byte", bare(0x88, b"\x03"), 1002),
    ("close code 1005", bare(0x88, b"\x03\xed"), 1002),
    ("close reason not UTF-8", bare(0x88, b"\x03\xe8\xff"), 1007),
    ("not UTF-8", bare(0x81, b"\xff"), 1007),
    ("not UTF-8, unfinished frame", bare(0x81, b"abc\xffabcdef")[:-4], 1007),
    ("half a character", bare(0x81, b"\xc3"), 1007),
    ("too long", b"\x82\x7e\x04\x01", 1009),
    ("too long together", bare(0x02, b"x" * 1000) + b"\x80\x19", 1009),
]


@pytest.mark.parametrize(
    ("data", "code"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_what_is_malformed_closes_with_its_code_after_earlier_replies(
    loop: EventLoop, listener: Listener, data: bytes, code: int
) -> None:
    handler = ClientRecorder()
    with talking(loop, listener, handler, max_message_size=1024) as (_conn, peer):
        peer.sock.sendall(bare(TEXT, b"Hello") + data)
        assert peer.frame() == (TEXT, b"Hello")
        first, payload = peer.frame()
        assert (first, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
        assert peer.ended()
    handler.next("message")
    assert handler.next("close")[1][0] == code


def test_a_bomb_gets_1009(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    with talking(loop, listener, handler, DEFLATE, max_message_size=100) as (_conn, peer):
        maker = zlib.compressobj(9, zlib.DEFLATED, -12)
        bomb = (maker.compress(b"\0" * 20000) + maker.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(bomb) < 100
        peer.send(0xC2, bomb)
        first, payload = peer.frame()
        assert (first, payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
    assert handler.next("close")[1][0] == 1009


SOME_FRAMES = st.lists(
    st.one_of(
        st.builds(bare, st.integers(0, 255), st.binary(max_size=200)),
        st.builds(bare, st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x89, 0x8A])),
        st.binary(max_size=20),
    ),
    max_size=8,
)


def test_whatever_comes_raises_nothing_and_ends_with_one_close(
    loop: EventLoop, listener: Listener
) -> None:
    @settings(max_examples=100, deadline=None)
    @given(SOME_FRAMES)
    def check(frames: list[bytes]) -> None:
        handler = ClientRecorder()
        with (
            talking(loop, listener, handler, max_message_size=150) as (_conn, peer),
            contextlib.suppress(ConnectionError),
        ):
            peer.sock.sendall(b"".join(frames))
            peer.sock.shutdown(socket.SHUT_WR)
            receive_all(peer.sock)
        while (event := handler.events.get(timeout=20))[0] != "close":
            assert event[0] in {"message", "ping", "pong"}, event

    check()


def test_a_handler_that_raises(
    loop: EventLoop, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    class Logs(ClientRecorder):
        def on_error(self, conn: ws.Connection, exc: Exception) -> None:
            ws.Handler.on_error(self, conn, exc)
            super().on_error(conn, exc)

    handler = Logs(lambda conn, message: 1 // (len(message) - 1) and message)
    with talking(loop, listener, handler) as (_conn, peer), caplog.at_level(logging.ERROR):
        peer.sock.sendall(bare(TEXT, b"ab") + bare(TEXT, b"a") + bare(TEXT, b"ab"))
        assert peer.frame() == (TEXT, b"ab")
        assert peer.frame() == (CLOSE, b"\x03\xf3")
        assert peer.ended()
    for name in ("message", "message", "error"):
        handler.next(name)
    assert handler.next("close")[1] == (1011, "")
    assert "ZeroDivisionError" in caplog.text


def test_an_on_open_that_raises(loop: EventLoop, listener: Listener) -> None:
    class Bad(ClientRecorder):
        def on_open(self, conn: ws.Connection, request: Any) -> None:
            raise ZeroDivisionError

    handler = Bad()
    conn = ws.connect(loop, listener.url, handler)
    conn.send_text("x")
    with listener.accept() as peer:
        peer.open()
        assert peer.frame() == (CLOSE, b"\x03\xf3")
    assert isinstance(handler.next("error")[1], ZeroDivisionError)
    assert handler.next("close")[1] == (1011, "")
    assert handler.events.empty()
