"""`gevffi.ws.connect` until it is open, or cannot be: literal handshakes, deadlines, ends."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import threading
from typing import Any

import pytest
from helpers import receive_all, wait
from outgoing import Names, call, deaf, looping, losing_nothing, nobody
from ws_helpers import Recorder, serving
from ws_peer import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    ClientRecorder,
    Listener,
    answer_to,
    bare,
    talking,
)

from gevffi import EventLoop, ws

# ---- it opens -----------------------------------------------------------------------------------


def test_what_the_server_sees_and_what_the_client_is_told(loop: EventLoop) -> None:
    served, handler = Recorder(), ClientRecorder()
    origin = "http://example.com"
    with serving(served, path="/chat", subprotocols=["b", "c"], origins=[origin]) as server:
        conn = ws.connect(
            loop,
            f"ws://{server.address}/chat?room=1",
            handler,
            subprotocols=["a", "b"],
            origin=origin,
            headers={"Cookie": "x=1"},
        )
        assert handler.next("open")[0] is conn
        theirs, request = served.next("open")
        assert (request.path, request.query, request.origin) == ("/chat", "room=1", origin)
        assert request.headers["Cookie"] == "x=1"
        assert request.host == str(server.address)
        assert theirs.subprotocol == conn.subprotocol == "b"
        assert conn.connected
        assert conn.loop is loop
        assert conn.peer_address == server.address


def test_what_was_agreed_on(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    conn = ws.connect(loop, listener.url, handler, subprotocols=["b"])
    with listener.accept() as peer:
        peer.open(b"X-More: yes\r\nSec-WebSocket-Protocol: b\r\n")
        opened = handler.next("open")[1]
        assert (opened.subprotocol, opened.deflate) == ("b", None)
        assert opened.headers["x-more"] == "yes"
        assert conn.subprotocol == "b"


def test_a_name_is_looked_up(
    loop: EventLoop, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = listener.address.partition(":")
    Names(monkeypatch, **{"there.example": [(host, int(port))]})
    handler = ClientRecorder()
    ws.connect(loop, f"ws://there.example:{port}/", handler)
    with listener.accept() as peer:
        assert f"\r\nHost: there.example:{port}\r\n".encode() in peer.request()


def test_the_answer_split_at_every_byte_with_frames_right_behind(
    loop: EventLoop, listener: Listener
) -> None:
    """In two pieces, the first of which the client has certainly seen before the second comes."""
    behind = bare(TEXT, "é".encode()) + bare(PING, b"?") + bare(BINARY, b"\0\xff")
    at = 0
    while True:
        handler = ClientRecorder()
        conn = ws.connect(loop, listener.url, handler)
        with listener.accept() as peer:
            data = answer_to(peer.request()) + behind
            if at > len(data):
                break
            peer.sock.sendall(data[:at])
            call(loop, lambda: None)
            call(loop, lambda: None)
            peer.sock.sendall(data[at:])
            handler.next("open")
            assert handler.next("message")[1] == "é"
            assert handler.next("ping")[1] == b"?"
            assert bytes(handler.next("message")[1]) == b"\0\xff"
            assert peer.frame() == (TEXT, "é".encode())
            conn.abort()
            assert handler.next("close")[1] == (1006, "")
        at += 1


def test_a_close_right_behind_the_answer(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    ws.connect(loop, listener.url, handler)
    with listener.accept() as peer:
        peer.sock.sendall(answer_to(peer.request()) + bare(CLOSE, b"\x0f\xa0no"))
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.frame() == (CLOSE, b"\x0f\xa0")
        assert peer.ended()
    handler.next("open")
    assert handler.next("close")[1] == (4000, "no")


# ---- while it is not open yet -------------------------------------------------------------------


def test_what_is_sent_before_goes_out_after_what_on_open_sends(listener: Listener) -> None:
    class First(ClientRecorder):
        def on_open(self, conn: ws.Connection, request: Any) -> None:
            conn.send_text("first")

    loop = EventLoop()  # it does not run yet
    conn = ws.connect(loop, listener.url, First())
    data = bytearray(b"second")
    conn.send_binary(data)
    data[:] = b"xxxxxx"
    conn.ping(b"third")
    conn.close(3000, "fourth")
    conn.send_text("too late")
    with loop.running(), listener.accept() as peer:
        peer.open()
        assert peer.frame() == (TEXT, b"first")
        assert peer.frame() == (BINARY, b"second")
        assert peer.frame() == (PING, b"third")
        assert peer.frame() == (CLOSE, b"\x0b\xb8fourth")


def test_no_more_waits_than_write_limit(listener: Listener) -> None:
    handler = ClientRecorder()
    with looping(write_limit=1000, write_high_water=1000) as loop:
        conn = ws.connect(loop, listener.url, handler)
        conn.send_binary(b"x" * 1000)
        conn.send_binary(b"x")
        failed, exc = handler.next("connect_failed")
        assert failed is conn
        assert isinstance(exc, OSError)
        assert exc.errno == errno.ENOBUFS
        conn.send_binary(b"x")
        conn.close()
    assert handler.events.empty()


def test_paused_before_it_is_open(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    conn = call(loop, lambda: paused(ws.connect(loop, listener.url, handler)))
    with listener.accept() as peer:
        peer.sock.sendall(answer_to(peer.request()) + bare(TEXT, b"1"))
        handler.next("open")
        peer.send(TEXT, b"2")
        conn.send_text("x")
        assert peer.frame() == (TEXT, b"x")
        assert handler.events.empty()
        call(loop, conn.resume_reading)
        assert handler.next("message")[1] == "1"
        assert handler.next("message")[1] == "2"


def paused(conn: ws.Connection) -> ws.Connection:
    conn.pause_reading()
    conn.resume_reading()
    conn.pause_reading()
    return conn


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("asked", [False, True])
def test_given_up(loop: EventLoop, listener: Listener, how: str, asked: bool) -> None:
    """While TCP is on its way, and while the answer is."""
    handler = ClientRecorder()
    if not asked:
        conn = call(loop, lambda: given_up(ws.connect(loop, listener.url, handler), how))
    else:
        conn = ws.connect(loop, listener.url, handler)
        with listener.accept() as peer:
            peer.request()
            given_up(conn, how)
            failed = handler.next("connect_failed")
            handler.events.put(("connect_failed", *failed))
    failed_conn, exc = handler.next("connect_failed")
    assert failed_conn is conn
    assert isinstance(exc, ConnectionAbortedError)
    assert not conn.connected
    assert handler.events.empty()


def given_up(conn: ws.Connection, how: str) -> ws.Connection:
    getattr(conn, how)()
    return conn


@pytest.mark.parametrize("asked", [False, True])
def test_the_loop_stops(listener: Listener, asked: bool) -> None:
    handler = ClientRecorder()
    with looping() as loop:
        if asked:
            ws.connect(loop, listener.url, handler)
            with listener.accept() as peer:
                peer.request()
                loop.stop()
                assert peer.ended()
        else:
            call(loop, lambda: stopped(ws.connect(loop, listener.url, handler)))
    exc = handler.next("connect_failed")[1]
    assert isinstance(exc, ConnectionAbortedError)
    assert "the loop stops" in str(exc)
    assert handler.events.empty()
    with pytest.raises(RuntimeError, match="has ended"):
        ws.connect(loop, listener.url, handler)


def stopped(conn: ws.Connection) -> ws.Connection:
    conn.loop.stop()
    return conn


# ---- it cannot be had ---------------------------------------------------------------------------

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-Why: who knows\r\n\r\nno"


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("speaks no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("speaks no HTTP", bare(TEXT, b"hello, I am no HTTP at all")),
        ("the server answers 404", NOT_FOUND),
        ("the server answers 200", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("the server answers 302", b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"),
        (
            "Accept is not for our key",
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        ),
        ("Upgrade is not websocket", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n"),
        ("too long", b"HTTP/1.1 101 X\r\nX: " + b"x" * 20_000),
        ("ended the connection without an answer", b""),
        ("ended the connection without an answer", b"HTTP/1.1 101 Swit"),
    ],
)
def test_an_answer_that_opens_nothing(
    loop: EventLoop, listener: Listener, message: str, data: bytes
) -> None:
    handler = ClientRecorder()
    conn = ws.connect(loop, listener.url, handler)
    with listener.accept() as peer:
        peer.request()
        peer.sock.sendall(data)
        if "ended" in message:
            peer.sock.shutdown(socket.SHUT_WR)
        failed, exc = handler.next("connect_failed")
    assert failed is conn
    assert isinstance(exc, ws.HandshakeError)
    assert message in str(exc)
    assert exc.status == (int(message.split()[-1]) if "answers" in message else exc.status)
    conn.send_text("nobody hears it")
    conn.close()
    call(loop, lambda: None)
    assert handler.events.empty()


def test_an_answer_that_opens_nothing_is_told(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    ws.connect(loop, listener.url, handler)
    with listener.accept() as peer:
        peer.request()
        peer.sock.sendall(NOT_FOUND)
        exc = handler.next("connect_failed")[1]
    assert exc.status == 404
    assert exc.headers["X-Why"] == "who knows"


def test_a_server_of_ours_refuses(loop: EventLoop) -> None:
    handler = ClientRecorder()
    with serving(Recorder(), path="/there") as server:
        ws.connect(loop, f"ws://{server.address}/", handler)
        assert handler.next("connect_failed")[1].status == 404


def test_a_server_that_resets(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    ws.connect(loop, listener.url, handler)
    with listener.accept() as peer:
        peer.request()
        linger = struct.pack("ii", 1, 0)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert isinstance(handler.next("connect_failed")[1], ConnectionResetError)


def test_nobody_listens(loop: EventLoop) -> None:
    handler = ClientRecorder()
    host, port = nobody()
    conn = ws.connect(loop, f"ws://{host}:{port}/", handler)
    failed, exc = handler.next("connect_failed")
    assert failed is conn
    assert isinstance(exc, ConnectionRefusedError)


def test_nobody_accepts_in_time(loop: EventLoop) -> None:
    handler = ClientRecorder()
    with deaf() as full:
        ws.connect(loop, "ws://{}:{}/".format(*full.getsockname()), handler, timeout=0.05)
        assert isinstance(handler.next("connect_failed")[1], TimeoutError)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Swit"])
def test_nobody_answers_in_time(loop: EventLoop, listener: Listener, data: bytes) -> None:
    handler = ClientRecorder()
    ws.connect(loop, listener.url, handler, timeout=0.05)
    with listener.accept() as peer:
        with contextlib.suppress(ConnectionError):  # it may be late
            peer.sock.sendall(data)
        exc = handler.next("connect_failed")[1]
    assert isinstance(exc, TimeoutError)
    assert "did not answer within 0.05 s" in str(exc)


def test_the_deadline_is_over_once_it_is_open(loop: EventLoop, listener: Listener) -> None:
    handler = ClientRecorder()
    with talking(loop, listener, handler, timeout=5) as (conn, _peer):
        adapter: Any = conn._adapter
        assert adapter._timer is None


def test_nothing_stays_behind(listener: Listener) -> None:
    with losing_nothing(), looping() as loop:
        for data in (NOT_FOUND, b"", b"no HTTP\r\n\r\n"):
            handler = ClientRecorder()
            ws.connect(loop, listener.url, handler)
            with listener.accept() as peer:
                peer.request()
                peer.sock.sendall(data)
            handler.next("connect_failed")


def test_a_failure_is_logged_by_default(
    loop: EventLoop, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    class Default(ws.Handler):
        def on_connect_failed(self, conn: ws.Connection, exc: Exception) -> None:
            super().on_connect_failed(conn, exc)
            told.set()

    told = threading.Event()
    ws.connect(loop, listener.url, Default())
    with caplog.at_level(logging.WARNING, "gevffi"), listener.accept() as peer:
        peer.request()
        peer.sock.sendall(NOT_FOUND)
        with pytest.raises(ConnectionResetError):
            receive_all(peer.sock)
        wait(told)
    assert "the server answers 404" in caplog.text


def test_a_callback_that_raises(loop: EventLoop, listener: Listener) -> None:
    class Bad(ClientRecorder):
        def on_connect_failed(self, conn: ws.Connection, exc: Exception) -> None:
            raise ZeroDivisionError

    handler = Bad()
    ws.connect(loop, listener.url, handler)
    with listener.accept() as peer:
        peer.request()
    assert isinstance(handler.next("error")[1], ZeroDivisionError)


# ---- what cannot be meant -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://a/", {}, "url must begin with ws:"),
        ("wss://a/", {}, "url must begin with ws:"),
        ("ws://a/", {"timeout": 0}, "timeout must be"),
        ("ws://a/", {"ping_interval": -1}, "ping_interval must be"),
        ("ws://a/", {"ping_timeout": 0}, "ping_timeout must be"),
        ("ws://a/", {"max_message_size": -1}, "max_message_size must be"),
        ("ws://a/", {"max_header_size": 0}, "max_header_size must be"),
        ("ws://a/", {"max_header_size": None}, "max_header_size must be"),
        ("ws://a/", {"timeout": None}, "timeout must be"),
        ("ws://a/", {"compression": True}, "compression must be"),
        ("ws://a/", {"text": "utf-8"}, "text must be"),
        ("ws://a/", {"subprotocols": "chat"}, "subprotocols must be"),
        ("ws://a/", {"headers": {"Host": "b"}}, "'Host' cannot be"),
    ],
)
def test_bad_options(loop: EventLoop, url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ws.connect(loop, url, ws.Handler(), **options)


def test_a_handler_of_another_kind(loop: EventLoop) -> None:
    with pytest.raises(TypeError, match=r"handler must be a gevffi\.ws\.Handler"):
        ws.connect(loop, "ws://a/", object())  # type: ignore[arg-type]
