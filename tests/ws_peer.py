"""What the tests of WebSocket clients share: a server of literal bytes, a handler that records."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from helpers import PATIENCE, receive_exactly
from ws_helpers import Recorder

from gevffi import EventLoop, ws
from gevffi._ws_frames import FIN, header
from gevffi._ws_http import accept_value
from gevffi.sys.websocket import mask

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n"


class ClientRecorder(Recorder):
    """Records of a client what there is besides."""

    def on_open(self, conn: ws.Connection, request: Any) -> None:
        assert isinstance(request, ws.Opened)
        assert request.rest == b""
        self.events.put(("open", conn, request))

    def on_connect_failed(self, conn: ws.Connection, exc: Exception) -> None:
        self.events.put(("connect_failed", conn, exc))


def quiet() -> ClientRecorder:
    """One that sends nothing back."""
    return ClientRecorder(lambda conn, message: None)


def bare(first: int, payload: bytes = b"") -> bytes:
    """A frame of a server; `first` is its first byte."""
    return header(first, len(payload)) + payload


def answer_to(request: bytes, more: bytes = b"") -> bytes:
    """What opens a WebSocket; `more` are further header fields."""
    lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:-2])
    accept = accept_value(lines[b"Sec-WebSocket-Key"].decode()).encode()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + more + b"\r\n"
    )


class Peer:
    """A server's end of a connection; what it sends leaves at once.

    Args:
        sock: connected.
    """

    def __init__(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    def request(self) -> bytes:
        """The client's request."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += receive_exactly(self.sock, 1)
        return data

    def open(self, more: bytes = b"") -> None:
        """Do the handshake."""
        self.sock.sendall(answer_to(self.request(), more))

    def send(self, first: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self.sock.sendall(bare(first, payload))

    def frame(self) -> tuple[int, bytes]:
        """The client's next frame, which has to be masked: its first byte, its payload."""
        first, size = receive_exactly(self.sock, 2)
        assert size & 0x80, "not masked"
        size &= 0x7F
        if size >= 126:
            size = int.from_bytes(receive_exactly(self.sock, 2 if size == 126 else 8), "big")
        key = receive_exactly(self.sock, 4)
        payload = bytearray(receive_exactly(self.sock, size))
        mask(payload, key)
        return first, bytes(payload)

    def ended(self) -> bool:
        """Wait for the client's end."""
        return self.sock.recv(1) == b""


class Listener:
    """Where clients of a test connect to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.address = "{}:{}".format(*sock.getsockname())
        self.url = f"ws://{self.address}/chat?room=1"

    @contextlib.contextmanager
    def accept(self) -> Iterator[Peer]:
        """The next client."""
        sock, _ = self._sock.accept()
        with sock:
            sock.settimeout(PATIENCE)
            yield Peer(sock)


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """A port of one's own."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(PATIENCE)
        yield Listener(sock)


@contextlib.contextmanager
def talking(
    loop: EventLoop, listener: Listener, handler: ClientRecorder, more: bytes = b"", **options: Any
) -> Iterator[tuple[ws.Connection, Peer]]:
    """A client that is open, and its peer."""
    conn = ws.connect(loop, listener.url, handler, **options)
    with listener.accept() as peer:
        peer.open(more)
        assert handler.next("open")[0] is conn
        yield conn, peer


TEXT, BINARY, CLOSE, PING, PONG = (FIN | opcode for opcode in (1, 2, 8, 9, 10))
