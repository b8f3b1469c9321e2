"""What the tests of WebSocket servers share: a handler that records, a client of literal bytes."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Callable, Iterator
from typing import Any

from helpers import PATIENCE, connect, receive_exactly

from gevffi import Server, ws

REQUEST = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)
KEY = b"\x37\xfa\x21\x3d"
HELLO = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"  # RFC 6455, section 5.7
HELLO_BACK = b"\x81\x05Hello"
CLOSE = b"\x88\x82\x37\xfa\x21\x3d\x34\x12"  # 1000
CLOSE_BACK = b"\x88\x02\x03\xe8"
MESSAGES: list[str | bytes] = [
    "",
    "hi",
    "ü" * 1000,
    b"",
    b"\0\xff",
    b"x" * 70_000,
    "y" * 500_000,
    b"z" * (1 << 20),
]


class Recorder(ws.Handler):
    """Puts each callback into a queue; `reply` makes the answer to a message."""

    def __init__(self, reply: Callable[[ws.Connection, Any], Any] = lambda conn, message: message):
        self.events: queue.Queue[tuple[str, ws.Connection, Any]] = queue.Queue()
        self._reply = reply

    def on_open(self, conn: ws.Connection, request: ws.Request) -> None:
        self.events.put(("open", conn, request))

    def on_message(self, conn: ws.Connection, message: Any) -> Any:
        self.events.put(("message", conn, message))
        return self._reply(conn, message)

    def on_ping(self, conn: ws.Connection, data: bytes) -> None:
        self.events.put(("ping", conn, data))

    def on_pong(self, conn: ws.Connection, data: bytes) -> None:
        self.events.put(("pong", conn, data))

    def on_close(self, conn: ws.Connection, code: int, reason: str) -> None:
        self.events.put(("close", conn, (code, reason)))

    def on_high_water(self, conn: ws.Connection) -> None:
        self.events.put(("high_water", conn, None))

    def on_drain(self, conn: ws.Connection) -> None:
        self.events.put(("drain", conn, None))

    def on_error(self, conn: ws.Connection, exc: Exception) -> None:
        self.events.put(("error", conn, exc))

    def next(self, name: str) -> tuple[ws.Connection, Any]:
        """The next callback, which has to be `name`."""
        found, conn, value = self.events.get(timeout=PATIENCE)
        assert found == name, (found, value)
        return conn, value


@contextlib.contextmanager
def serving(handler: ws.Handler, **options: Any) -> Iterator[Server]:
    """A WebSocket server in the background, on a port the kernel chose."""
    with ws.Server(handler, "127.0.0.1:0", **options).running() as server:
        yield server


@contextlib.contextmanager
def opened(server: Server, request: bytes = REQUEST) -> Iterator[socket.socket]:
    """A client whose handshake is done."""
    with connect(server) as sock:
        sock.sendall(request)
        assert receive_exactly(sock, len(RESPONSE)) == RESPONSE
        yield sock


def frame(first: int, payload: bytes = b"") -> bytes:
    """A frame of a client; `first` is its first byte."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    repeated = KEY * (size // 4 + 1)
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")
    return head + KEY + mixed.to_bytes(size, "big")
