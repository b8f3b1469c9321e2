"""A WebSocket server on real sockets, driven by literal bytes."""

from __future__ import annotations

import socket
import zlib
from typing import Any

import helpers
import pytest
from helpers import connect, receive_all, receive_exactly
from hypothesis import given, settings
from hypothesis import strategies as st
from ws_helpers import (
    CLOSE,
    CLOSE_BACK,
    HELLO,
    HELLO_BACK,
    REQUEST,
    RESPONSE,
    Recorder,
    frame,
    opened,
    serving,
)

import gevffi
from gevffi import ws

CONVERSATION = REQUEST + HELLO + frame(0x82, b"\0\xff") + frame(0x89, b"?") + CLOSE
ANSWERS = RESPONSE + HELLO_BACK + b"\x82\x02\0\xff" + b"\x8a\x01?" + CLOSE_BACK


def test_a_conversation() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server) as sock:
        sock.sendall(CONVERSATION)
        assert receive_all(sock) == ANSWERS
        conn, request = handler.next("open")
        assert (request.path, request.query) == ("/chat", "room=1")
        assert handler.next("message") == (conn, "Hello")
        _, data = handler.next("message")
        assert type(data) is memoryview
        assert data.readonly
        assert bytes(data) == b"\0\xff"
        assert handler.next("ping") == (conn, b"?")
        assert handler.next("close") == (conn, (1000, ""))
        assert not conn.connected
    assert handler.events.empty()


def test_split_at_every_byte() -> None:
    """In two pieces, the first of which the server has certainly seen before the second comes."""
    handler = Recorder()
    with serving(handler) as server:
        for at in range(1, len(CONVERSATION)):
            with connect(server) as first, connect(server) as second:
                first.sendall(CONVERSATION[:at])
                second.sendall(CONVERSATION)  # the one loop answers it after what came before
                assert receive_all(second) == ANSWERS
                first.sendall(CONVERSATION[at:])
                assert receive_all(first) == ANSWERS, at


def test_byte_by_byte() -> None:
    with serving(Recorder()) as server, connect(server) as sock:
        for at in range(len(CONVERSATION)):
            sock.sendall(CONVERSATION[at : at + 1])
        assert receive_all(sock) == ANSWERS


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 20])
def test_sizes(size: int) -> None:
    message = bytes(range(256)) * (size // 256 + 1)
    message = message[:size]
    with serving(Recorder()) as server, opened(server) as sock:
        sock.sendall(frame(0x82, message))
        head = frame(0x82, message)[: 2 if size < 126 else 4 if size < 65536 else 10]
        expected = bytes((head[0], head[1] & 0x7F)) + head[2:] + message
        assert receive_exactly(sock, len(expected)) == expected


def test_fragments_with_a_ping_between() -> None:
    with serving(Recorder()) as server, opened(server) as sock:
        sock.sendall(frame(0x01, b"Hel") + frame(0x89) + frame(0x00) + frame(0x80, b"lo"))
        assert receive_exactly(sock, 2 + len(HELLO_BACK)) == b"\x8a\0" + HELLO_BACK


MALFORMED = [
    ("unmasked", b"\x81\x05Hello", 1002),
    ("reserved bit 1", frame(0xC1), 1002),
    ("reserved bit 2", frame(0xA1), 1002),
    ("reserved bit 3", frame(0x91), 1002),
    ("opcode 3", frame(0x83), 1002),
    ("opcode 11", frame(0x8B), 1002),
    ("fragmented ping", frame(0x09), 1002),
    ("ping of 126 bytes", b"\x89\xfe\x00\x7e", 1002),
    ("continuation of nothing", frame(0x80), 1002),
    ("text within text", frame(0x01) + frame(0x81), 1002),
    ("length not minimal", b"\x82\xfe\x00\x7d", 1002),
    ("length with its top bit", b"\x82\xff" + b"\xff" * 8, 1002),
    ("close of one byte", frame(0x88, b"\x03"), 1002),
    ("close code 1005", frame(0x88, b"\x03\xed"), 1002),
    ("close reason not UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007),
    ("not UTF-8", frame(0x81, b"\xff"), 1007),
    ("not UTF-8, unfinished frame", frame(0x81, b"abc\xffabcdef")[:-4], 1007),
    ("half a character", frame(0x81, b"\xc3"), 1007),
    ("too long", b"\x82\xfe\x04\x01", 1009),
    ("too long together", frame(0x02, b"x" * 1000) + b"\x80\x99", 1009),
]


@pytest.mark.parametrize(
    ("data", "code"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_what_is_malformed_closes_with_its_code_after_earlier_replies(
    data: bytes, code: int
) -> None:
    handler = Recorder()
    with serving(handler, max_message_size=1024) as server:
        with opened(server) as sock:
            sock.sendall(HELLO + data)
            answer = receive_all(sock)
        handler.next("open")
        handler.next("message")
        assert answer.startswith(HELLO_BACK)
        answer = answer[len(HELLO_BACK) :]
        assert (answer[0], answer[1], len(answer)) == (0x88, len(answer) - 2, len(answer))
        assert int.from_bytes(answer[2:4], "big") == code
        assert handler.next("close")[1][0] == code
        with opened(server) as sock:  # others go on
            sock.sendall(HELLO)
            assert receive_exactly(sock, len(HELLO_BACK)) == HELLO_BACK


def test_a_bomb_gets_1009() -> None:
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with serving(Recorder(), max_message_size=100) as server, connect(server) as sock:
        maker = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = (maker.compress(b"\0" * 20000) + maker.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(bomb) < 100
        sock.sendall(REQUEST[:-2] + extension + frame(0xC2, bomb))
        answer = receive_all(sock)
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert b"permessage-deflate" in head
        assert rest[:1] == b"\x88"
        assert rest[2:4] == (1009).to_bytes(2, "big")


SOME_FRAMES = st.lists(
    st.one_of(
        st.builds(frame, st.integers(0, 255), st.binary(max_size=200)),
        st.builds(frame, st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x89, 0x8A])),
        st.binary(max_size=20),
    ),
    max_size=8,
)


def test_whatever_comes_raises_nothing_and_others_go_on() -> None:
    handler = Recorder()
    with serving(handler, max_message_size=150) as server, opened(server) as other:

        @settings(max_examples=150, deadline=None)
        @given(SOME_FRAMES)
        def check(frames: list[bytes]) -> None:
            with opened(server) as sock:
                sock.sendall(b"".join(frames))
                sock.shutdown(socket.SHUT_WR)
                receive_all(sock)
            other.sendall(HELLO)
            assert receive_exactly(other, len(HELLO_BACK)) == HELLO_BACK

        check()
    while not handler.events.empty():
        name, _, value = handler.events.get()
        assert name != "error", value


REFUSED = [
    (b"BLAH\r\n\r\n", 400),
    (REQUEST.replace(b"GET", b"POST"), 405),
    (REQUEST.replace(b"/chat", b"/other"), 404),
    (REQUEST.replace(b"Version: 13", b"Version: 8"), 426),
    (REQUEST.replace(b"Upgrade: websocket\r\n", b""), 426),
    (REQUEST.replace(b"nonce", b"").replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
    (REQUEST[:-2] + b"Origin: http://evil.example\r\n\r\n", 403),
    (REQUEST[:-2] + b"X: " + b"x" * 20000, 431),
]


@pytest.mark.parametrize(("request_", "status"), REFUSED)
def test_a_handshake_refused_is_answered_and_closed(request_: bytes, status: int) -> None:
    handler = Recorder()
    options = {"path": "/chat", "origins": [None, "http://good.example"]}
    with serving(handler, **options) as server, connect(server) as sock:
        sock.sendall(request_)
        assert receive_all(sock).startswith(b"HTTP/1.1 %d " % status)
    assert handler.events.empty()


class Page(ws.Upgrader):
    """Serves a page, refuses a name, adds a field."""

    def on_http(self, conn: Any, request: ws.Request) -> ws.Response | None:
        return ws.Response(200, "a page") if request.path == "/" else None

    def on_host(self, conn: ws.Connection, host: str) -> None:
        if host == "bad.example":
            raise ws.RefuseError(503, "not now")
        if host == "broken.example":
            raise ZeroDivisionError

    def before_upgrade(self, conn: ws.Connection, request: ws.Request) -> dict[str, str]:
        return {"X-Path": request.path}


def test_hooks() -> None:
    handler = Recorder()
    with serving(handler, upgrader=Page, subprotocols=["a", "b"]) as server:
        with connect(server) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            page = receive_all(sock)
            assert page.startswith(b"HTTP/1.1 200 ")
            assert page.endswith(b"\r\n\r\na page")
        with connect(server) as sock:
            sock.sendall(REQUEST.replace(b"server.example.com", b"bad.example"))
            answer = receive_all(sock)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert answer.endswith(b"not now")
        with connect(server) as sock:
            sock.sendall(REQUEST.replace(b"server.example.com", b"broken.example"))
            assert receive_all(sock).startswith(b"HTTP/1.1 500 ")
        assert isinstance(handler.next("error")[1], ZeroDivisionError)
        with connect(server) as sock:
            sock.sendall(REQUEST[:-2] + b"Sec-WebSocket-Protocol: c, b\r\n\r\n" + CLOSE)
            answer = receive_all(sock)
            assert b"\r\nX-Path: /chat\r\n" in answer
            assert b"\r\nSec-WebSocket-Protocol: b\r\n" in answer
        assert handler.next("open")[0].subprotocol == "b"


def test_text_as_bytes() -> None:
    handler = Recorder()
    with serving(handler, text="bytes") as server, opened(server) as sock:
        sock.sendall(HELLO + frame(0x82, b"12"))
        assert receive_exactly(sock, 11) == HELLO_BACK + b"\x82\x02" + b"12"
        handler.next("open")
        assert handler.next("message")[1] == b"Hello"
        assert type(handler.next("message")[1]) is memoryview


def test_an_exception_closes_with_1011_after_earlier_replies() -> None:
    def reply(conn: ws.Connection, message: Any) -> Any:
        return 1 // (len(message) - 1) and message

    handler = Recorder(reply)
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(frame(0x81, b"ab") + frame(0x81, b"a") + HELLO)
        assert receive_all(sock) == b"\x81\x02ab" + b"\x88\x02\x03\xf3"
        for name in ("open", "message", "message", "error"):
            handler.next(name)
        assert handler.next("close")[1] == (1011, "")


def test_a_reply_of_the_wrong_type_is_an_error() -> None:
    handler = Recorder(lambda conn, message: 7)
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(HELLO)
        assert receive_all(sock) == b"\x88\x02\x03\xf3"
        handler.next("open")
        handler.next("message")
        assert isinstance(handler.next("error")[1], TypeError)


def test_a_kept_message_stays_as_it_was() -> None:
    handler = Recorder()
    with serving(handler) as server, opened(server) as sock:
        for number in range(20):
            sock.sendall(frame(0x82, bytes([number]) * 1000) + frame(0x82, b"half")[:5])
            receive_exactly(sock, 1004)
            sock.sendall(frame(0x82, b"half")[5:])
            receive_exactly(sock, 6)
        handler.next("open")
        kept = [handler.next("message")[1] for _ in range(40)]
        assert kept[::2] == [bytes([number]) * 1000 for number in range(20)]
        assert kept[1::2] == [b"half"] * 20


def test_on_a_server_of_ones_own() -> None:
    handler = Recorder()
    protocol = ws.Protocol(path="/chat")
    server = gevffi.Server(protocol.wrap(handler), "127.0.0.1:0", protocol=protocol)
    with server.running(), opened(server) as sock:
        sock.sendall(HELLO + CLOSE)
        assert receive_all(sock) == HELLO_BACK + CLOSE_BACK


def test_a_handler_that_is_not_wrapped_is_told_so() -> None:
    handler = helpers.Recorder()
    with helpers.serving(handler, protocol=ws.Protocol()) as server, connect(server) as sock:
        sock.sendall(REQUEST)
        assert receive_all(sock) == b""
        error = handler.until("error").value
        assert isinstance(error, TypeError)
        assert "wrap" in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"max_message_size": -1},
        {"max_message_size": 1 << 40},
        {"max_message_size": "1 MiB"},
        {"max_header_size": None},
        {"ping_interval": None},
        {"ping_interval": -1},
        {"ping_timeout": 0},
        {"handshake_timeout": float("nan")},
        {"text": "latin-1"},
        {"path": "chat"},
        {"path": 1},
        {"upgrader": ws.Upgrader()},
        {"compression": True},
        {"loops": 0},
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        ws.Server(ws.Handler(), **options)


def test_an_option_that_is_none() -> None:
    with pytest.raises(TypeError, match="colour"):
        ws.Server(ws.Handler(), colour=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="handler"):
        ws.Server(gevffi.Handler())  # type: ignore[arg-type]
