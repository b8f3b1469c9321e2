"""WebSockets that `gevffi.ws.connect` made: closing, pings, pauses, slow servers, relays."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

import pytest
from helpers import Background
from outgoing import call, looping
from ws_helpers import Recorder, serving
from ws_peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    ClientRecorder,
    Listener,
    bare,
    quiet,
    talking,
)

from gevffi import EventLoop, Options, ws

# ---- closing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"", (1005, "")),
        (b"\x03\xe8", (1000, "")),
        (b"\x03\xe9away", (1001, "away")),
        (b"\x0f\xa0" + "é".encode(), (4000, "é")),
    ],
)
def test_the_server_closes_and_then_ends(
    loop: EventLoop, listener: Listener, payload: bytes, told: tuple[int, str]
) -> None:
    handler = quiet()
    with talking(loop, listener, handler) as (conn, peer):
        peer.sock.sendall(bare(CLOSE, payload) + bare(TEXT, b"dropped"))
        assert peer.frame() == (CLOSE, payload[:2])
        assert not conn.connected
        conn.send_text("dropped")
        peer.send(TEXT, b"dropped")
        for _ in range(3):  # the client does not end before the server does
            call(loop, lambda: None)
        peer.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.sock.recv(1)
        assert handler.events.empty()
        peer.sock.shutdown(socket.SHUT_WR)
        assert handler.next("close")[1] == told


def test_the_client_closes_and_the_server_ends(loop: EventLoop, listener: Listener) -> None:
    handler = quiet()
    with talking(loop, listener, handler) as (conn, peer):
        conn.close(3000, "bye")
        conn.close(3001, "again")
        conn.send_text("too late")
        assert peer.frame() == (CLOSE, b"\x0b\xb8bye")
        peer.send(TEXT, b"dropped")
        peer.send(CLOSE, b"\x0b\xb9ok")
        call(loop, lambda: None)
        assert handler.events.empty()
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.ended()
        assert handler.next("close")[1] == (3001, "ok")


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_server_that_never_ends_is_left(listener: Listener, first: str) -> None:
    handler = quiet()
    with (
        looping(close_timeout=0.05) as loop,
        talking(loop, listener, handler) as (conn, peer),
    ):

        def both_close() -> None:
            # Here, where the client cannot look at the clock meanwhile: the answer has to be there
            # before its short time is over.
            conn.close()
            peer.send(CLOSE, b"\x03\xe8")

        if first == "client":
            call(loop, both_close)
        else:
            peer.send(CLOSE, b"\x03\xe8")
        assert peer.frame() == (CLOSE, b"\x03\xe8")
        assert peer.ended()
        peer.sock.close()
        assert handler.next("close")[1] == (1000, "")


def test_a_close_that_is_not_answered(listener: Listener) -> None:
    handler = quiet()
    with (
        looping(close_timeout=0.05) as loop,
        talking(loop, listener, handler) as (conn, peer),
    ):
        conn.close()
        assert peer.frame() == (CLOSE, b"\x03\xe8")
        assert peer.ended()
        peer.sock.close()
        assert handler.next("close")[1] == (1006, "")


def test_a_close_while_reading_is_paused(loop: EventLoop, listener: Listener) -> None:
    """The answer is read all the same, and what came before it is not delivered."""
    handler = quiet()
    with talking(loop, listener, handler) as (conn, peer):
        call(loop, conn.pause_reading)
        peer.send(TEXT, b"dropped")
        conn.close()
        assert peer.frame() == (CLOSE, b"\x03\xe8")
        peer.send(CLOSE, b"\x03\xe8")
        peer.sock.close()
        assert handler.next("close")[1] == (1000, "")


@pytest.mark.parametrize("data", [b"", bare(TEXT, b"Hello")[:3]])
@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_vanishes(
    loop: EventLoop, listener: Listener, data: bytes, reset: bool
) -> None:
    handler = quiet()
    with talking(loop, listener, handler) as (conn, peer):
        peer.sock.sendall(data)
        if reset:
            linger = struct.pack("ii", 1, 0)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.sock.close()
        assert handler.next("close")[1] == (1006, "")
        assert not conn.connected


def test_abort(loop: EventLoop, listener: Listener) -> None:
    handler = quiet()
    with talking(loop, listener, handler) as (conn, peer):
        conn.abort()
        with pytest.raises(ConnectionResetError):
            peer.ended()
        assert handler.next("close")[1] == (1006, "")


def test_stopping_the_loop_says_that_it_goes_away(listener: Listener) -> None:
    handler = quiet()
    with looping() as loop, talking(loop, listener, handler) as (conn, peer):
        conn.send_text("last")
        loop.stop()
        assert peer.frame() == (TEXT, b"last")
        assert peer.frame() == (CLOSE, b"\x03\xe9")
        assert peer.ended()
        peer.sock.close()
        handler.next("close")


# ---- over time ----------------------------------------------------------------------------------


def test_a_server_that_answers_pings_stays_and_one_that_does_not_gets_1011(
    loop: EventLoop, listener: Listener
) -> None:
    living, dead = quiet(), quiet()
    # Long enough for this thread to answer in time on a busy machine too.
    options: dict[str, Any] = {"ping_interval": 0.02, "ping_timeout": 2.0}
    with (
        talking(loop, listener, living, **options) as (conn, peer),
        talking(loop, listener, dead, **options) as (_, silent),
    ):
        assert silent.frame() == (PING, b"")
        while dead.events.empty():
            assert peer.frame() == (PING, b"")
            peer.send(PONG)
        reason = "no answer to a ping"
        assert silent.frame() == (CLOSE, b"\x03\xf3" + reason.encode())
        assert silent.ended()
        assert dead.next("close")[1] == (1011, reason)
        assert conn.connected


def test_no_pings(loop: EventLoop, listener: Listener) -> None:
    with talking(loop, listener, quiet(), ping_interval=0) as (conn, _peer):
        assert conn._deadline is None


def test_connections_of_the_same_terms_share_their_deadlines(
    loop: EventLoop, listener: Listener
) -> None:
    with (
        talking(loop, listener, quiet()) as (one, _),
        talking(loop, listener, quiet()) as (two, _),
        talking(loop, listener, quiet(), ping_interval=7) as (three, _),
    ):
        assert one._keeper is two._keeper
        assert one._keeper is not three._keeper


def test_pause_and_resume(loop: EventLoop, listener: Listener) -> None:
    """One message at a time, however many came at once."""

    def pause(conn: ws.Connection, message: Any) -> Any:
        conn.pause_reading()
        return message

    handler = ClientRecorder(pause)
    with talking(loop, listener, handler) as (conn, peer):
        for _ in range(3):
            peer.sock.sendall(b"".join(bare(TEXT, b"%d" % n) for n in range(5)))
        for n in [*range(5)] * 3:
            assert handler.next("message")[1] == str(n)
            assert peer.frame() == (TEXT, b"%d" % n)
            assert handler.events.empty()
            call(loop, conn.resume_reading)


def test_a_server_that_reads_slowly(listener: Listener) -> None:
    handler = ClientRecorder()
    message = b"x" * 100_000
    with (
        looping(write_high_water=50_000, write_limit=100 << 20) as loop,
        talking(loop, listener, handler) as (_conn, peer),
    ):
        sender = Background(peer.sock.sendall, bare(BINARY, message) * 100)
        while handler.events.get(timeout=20)[0] != "high_water":
            pass
        for _ in range(100):
            assert peer.frame() == (BINARY, message)
        sender.join()
        while handler.events.get(timeout=20)[0] != "drain":
            pass


def test_a_server_that_does_not_read_at_all(listener: Listener) -> None:
    handler = ClientRecorder()
    with (
        looping(write_high_water=1000, write_limit=2000) as loop,
        talking(loop, listener, handler) as (conn, _peer),
    ):
        ended = threading.Event()
        handler.on_close = lambda *_: ended.set()  # type: ignore[method-assign]
        for _ in range(1000):
            conn.send_binary(b"x" * 100_000)
            if ended.is_set():
                break
            call(loop, lambda: None)
        assert ended.wait(20)


def test_in_a_callback_of_a_server() -> None:
    """A relay: one connection for each that came, on the same loop."""

    class Back(ws.Handler):
        def __init__(self, front: ws.Connection) -> None:
            self.front = front

        def on_message(self, conn: ws.Connection, message: Any) -> None:
            self.front.send_text(message)

        def on_close(self, conn: ws.Connection, code: int, reason: str) -> None:
            self.front.close(code, reason)

    class Relay(ws.Handler):
        def on_open(self, conn: ws.Connection, request: Any) -> None:
            conn.context = ws.connect(conn.loop, url, Back(conn))

        def on_message(self, conn: ws.Connection, message: Any) -> None:
            conn.context.send_text(message)
            conn.context.close(4000)

    with serving(Recorder()) as echo, serving(Relay(), loops=2) as relay:
        url = f"ws://{echo.address}/"
        handler = quiet()
        with EventLoop(Options()).running() as loop:
            conn = ws.connect(loop, f"ws://{relay.address}/", handler)
            conn.send_text("hello")
            handler.next("open")
            assert handler.next("close")[1] == (4000, "")
