"""The WebSocket client that blocks: `gevffi.ws.Client`."""

from __future__ import annotations

import gc
import logging
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Background
from outgoing import call, deaf, looping, losing_nothing, nobody
from ws_helpers import Recorder, serving
from ws_peer import BINARY, CLOSE, PING, PONG, TEXT, Listener, Peer, bare

from gevffi import EventLoop, Server, blocking, ws


@pytest.fixture
def echo() -> Iterator[Server]:
    with serving(Recorder(), subprotocols=["echo"]) as server:
        yield server


def url(server: Server) -> str:
    return f"ws://{server.address}/"


class Answering:
    """A peer that a thread of its own lets in, so that a client can wait for it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.peer: Peer

    def __enter__(self) -> Answering:
        self._thread = Background(self._open)
        return self

    def _open(self) -> None:
        self._accepted = self._listener.accept()
        self.peer = self._accepted.__enter__()
        self.peer.open()

    def wait(self) -> Peer:
        self._thread.join()
        return self.peer

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        self._accepted.__exit__(None, None, None)


# ---- messages -----------------------------------------------------------------------------------


def test_send_and_receive(echo: Server) -> None:
    with ws.Client(url(echo), subprotocols=["echo"]) as client:
        assert client.opened.subprotocol == "echo"
        assert client.opened.headers["Upgrade"] == "websocket"
        for message in ("", "hé", "ü" * 100_000):
            client.send_text(message)
            assert client.receive(PATIENCE) == message
        client.send_text(b"bytes")
        assert client.receive(PATIENCE) == "bytes"
        for data in (b"", b"\0\xff", bytearray(b"x" * 500_000), memoryview(b"abcd")[::2]):
            client.send_binary(data)
            back = client.receive(PATIENCE)
            assert type(back) is bytes
            assert back == bytes(data)


def test_text_as_bytes(echo: Server) -> None:
    with ws.Client(url(echo), text="bytes") as client:
        client.send_text("hé")
        assert client.receive(PATIENCE) == "hé".encode()


def test_receive_in_vain(echo: Server) -> None:
    with ws.Client(url(echo)) as client:
        with pytest.raises(TimeoutError, match=r"no message within 0\.01 s"):
            client.receive(0.01)
        client.send_text("still there")
        assert client.receive(PATIENCE) == "still there"


def test_ping(echo: Server) -> None:
    with ws.Client(url(echo)) as client:
        assert 0 < client.ping(PATIENCE) < PATIENCE


def test_a_pong_may_answer_for_earlier_pings(listener: Listener) -> None:
    with Answering(listener) as answering, ws.Client(listener.url) as client:
        peer = answering.wait()
        with pytest.raises(TimeoutError, match=r"no pong within 0\.01 s"):
            client.ping(0.01)
        first = peer.frame()
        second = Background(client.ping, PATIENCE)
        third = peer.frame()
        assert first[0] == third[0] == PING
        assert first != third
        peer.send(PONG, b"of nobody's")
        peer.send(PONG, third[1])
        second.join()
        peer.send(PONG, first[1])  # too late, and not minded
        peer.send(TEXT, b"x")
        assert client.receive(PATIENCE) == "x"
        peer.send(CLOSE)
        peer.sock.shutdown(socket.SHUT_WR)


def test_many_threads_on_one_client(echo: Server) -> None:
    with ws.Client(url(echo)) as client:

        def send(name: str) -> None:
            for number in range(50):
                client.send_text(f"{name} {number}")

        threads = [Background(send, name) for name in "abc"]
        found = sorted(client.receive(PATIENCE) for _ in range(150))
        for thread in threads:
            thread.join()
        assert found == sorted(f"{name} {number}" for name in "abc" for number in range(50))


def test_the_inbox_is_bounded(listener: Listener) -> None:
    """Who does not receive holds the server back."""
    message = b"x" * 10_000
    with (
        Answering(listener) as answering,
        ws.Client(listener.url, inbox_limit=100_000) as client,
    ):
        peer = answering.wait()

        def send_all() -> None:
            peer.sock.sendall(bare(BINARY, message) * 2000 + bare(CLOSE))
            peer.sock.shutdown(socket.SHUT_WR)

        sender = Background(send_all)
        while client._inbox._size < 100_000:
            call(client.connection.loop, lambda: None)
        for _ in range(3):
            call(client.connection.loop, lambda: None)
            assert client._inbox._size <= 100_000 + len(message) + blocking.OVERHEAD
        assert list(client) == [message] * 2000
        sender.join()


# ---- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "code"), [(b"", 1005), (b"\x03\xe8", 1000), (b"\x03\xe9", 1001)]
)
def test_iteration_ends_in_good_order(listener: Listener, payload: bytes, code: int) -> None:
    with Answering(listener) as answering, ws.Client(listener.url) as client:
        peer = answering.wait()
        peer.sock.sendall(bare(TEXT, b"1") + bare(BINARY, b"2") + bare(CLOSE, payload))
        peer.sock.shutdown(socket.SHUT_WR)
        assert list(client) == ["1", b"2"]
        with pytest.raises(ws.ConnectionClosedError) as closed:
            client.receive()
        assert (closed.value.code, closed.value.reason) == (code, "")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (bare(CLOSE, b"\x0f\xa0why"), 4000, "the connection has closed: 4000 why"),
        (b"", 1006, "the connection has closed: 1006"),
        (bare(0x83), 1002, "the connection has closed: 1002 a frame that is none"),
    ],
)
def test_another_end_raises(listener: Listener, data: bytes, code: int, words: str) -> None:
    with Answering(listener) as answering, ws.Client(listener.url) as client:
        peer = answering.wait()
        peer.sock.sendall(bare(TEXT, b"1") + data)
        peer.sock.shutdown(socket.SHUT_WR)
        messages = iter(client)
        assert next(messages) == "1"
        for use in (lambda: next(messages), client.receive, client.ping):
            with pytest.raises(ws.ConnectionClosedError) as closed:
                use()
            assert closed.value.code == code
            assert str(closed.value) == words
        with pytest.raises(ws.ConnectionClosedError):
            client.send_text("x")


def test_the_error_is_a_connection_error_that_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ws.ConnectionClosedError(4000, "why")))
    assert issubclass(ws.ConnectionClosedError, ConnectionError)
    assert (error.code, error.reason, error.errno) == (4000, "why", None)


def test_close_says_so_and_waits(listener: Listener) -> None:
    with Answering(listener) as answering:
        client = ws.Client(listener.url)
        peer = answering.wait()
        peer.send(TEXT, b"before")
        while not client._inbox._size:
            call(client.connection.loop, lambda: None)
        closing = Background(client.close, 3000, "bye")
        assert peer.frame() == (CLOSE, b"\x0b\xb8bye")
        assert closing.thread.is_alive()
        peer.send(CLOSE, b"\x0b\xb8ok")
        peer.sock.shutdown(socket.SHUT_WR)
        closing.join()
        client.close()
        assert client.receive() == "before"
        with pytest.raises(ws.ConnectionClosedError, match="3000 ok"):
            client.receive()


def test_close_with_a_full_inbox(listener: Listener) -> None:
    with (
        Answering(listener) as answering,
        ws.Client(listener.url, inbox_limit=1) as client,
    ):
        peer = answering.wait()
        peer.sock.sendall(bare(TEXT, b"1") * 100 + bare(CLOSE, b"\x03\xe8"))
        while not client._inbox._size:
            call(client.connection.loop, lambda: None)
        closing = Background(client.close)
        assert peer.frame() == (CLOSE, b"\x03\xe8")
        peer.sock.shutdown(socket.SHUT_WR)
        closing.join()
        assert list(client) == ["1"]


def test_a_bad_code_closes_nothing(echo: Server) -> None:
    with ws.Client(url(echo)) as client:
        with pytest.raises(ValueError, match="close code must be"):
            client.close(1005)
        client.send_text("still there")
        assert client.receive(PATIENCE) == "still there"


def test_a_server_that_stops(echo: Server) -> None:
    with ws.Client(url(echo)) as client:
        echo.stop()
        assert list(client) == []
        with pytest.raises(ws.ConnectionClosedError, match="1001"):
            client.send_text("x")


def test_one_that_is_dropped_says_that_it_goes_away(listener: Listener) -> None:
    with Answering(listener) as answering:
        client = ws.Client(listener.url)
        peer = answering.wait()
        thread = client._thread
        assert thread is not None
        del client
        gc.collect()
        assert peer.frame() == (CLOSE, b"\x03\xe9")
        peer.sock.shutdown(socket.SHUT_WR)
        # Other tests count threads and descriptors, and this one ends by itself.
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_message_nobody_takes(listener: Listener) -> None:
    with Answering(listener) as answering, ws.Client(listener.url) as client:
        peer = answering.wait()
        with pytest.raises(TimeoutError, match=r"not sent within 0\.05 s"):
            client.send_binary(b"x" * (64 << 20), 0.05)
        peer.sock.close()
        with pytest.raises(ws.ConnectionClosedError, match="1006"):
            client.receive(PATIENCE)


# ---- it cannot be had ---------------------------------------------------------------------------


def test_what_it_raises(listener: Listener, echo: Server) -> None:
    with losing_nothing():
        with pytest.raises(ConnectionRefusedError):
            ws.Client("ws://{}:{}/".format(*nobody()))
        with deaf() as full, pytest.raises(TimeoutError):
            ws.Client("ws://{}:{}/".format(*full.getsockname()), timeout=0.05)
        with pytest.raises(TimeoutError, match="did not answer within"):
            ws.Client(listener.url, timeout=0.05)
        with (
            pytest.raises(ws.HandshakeError, match="answers 404"),
            serving(Recorder(), path="/there") as server,
        ):
            ws.Client(url(server))
        with pytest.raises(ValueError, match="url must begin with ws:"):
            ws.Client("http://a/")
        with pytest.raises(ValueError, match="inbox_limit must be at least 1"):
            ws.Client(url(echo), inbox_limit=0)
        with pytest.raises(TypeError, match="color"):
            ws.Client(url(echo), color="red")
    assert not [thread for thread in threading.enumerate() if "client" in thread.name]


def test_what_cannot_be_sent(echo: Server) -> None:
    with ws.Client(url(echo)) as client:
        bad: Any = "text"
        with pytest.raises(TypeError):
            client.send_binary(bad)
        bad = 7
        with pytest.raises(TypeError):
            client.send_text(bad)


# ---- loops --------------------------------------------------------------------------------------


def test_one_loop_for_many(echo: Server) -> None:
    with looping() as loop:
        clients = [ws.Client(url(echo), loop=loop) for _ in range(10)]
        for number, client in enumerate(clients):
            client.send_text(str(number))
        for number, client in enumerate(clients):
            assert client.receive(PATIENCE) == str(number)
        clients[0].close()
        clients[1].send_text("still there")
        assert clients[1].receive(PATIENCE) == "still there"
        with pytest.raises(RuntimeError, match="this would block"):
            call(loop, clients[1].receive)
    for client in clients[1:]:
        with pytest.raises(ws.ConnectionClosedError):
            client.receive()
        client.close()


def test_a_loop_that_does_not_run(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "GRACE", 0.01)
    with pytest.raises(TimeoutError, match="idle does not run"):
        ws.Client(listener.url, timeout=0.01, loop=EventLoop(name="idle"))


def test_a_script_that_forgets_to_close(echo: Server) -> None:
    script = (
        "import sys; from gevffi import ws\n"
        "client = ws.Client(sys.argv[1]); client.send_text('x'); print(client.receive())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, url(echo)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert (done.stdout, done.stderr) == ("x\n", "")


def test_nothing_is_logged(echo: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), ws.Client(url(echo)) as client:
        client.send_text("x")
        client.receive(PATIENCE)
    assert caplog.text == ""
