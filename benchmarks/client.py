"""One connection made by Python itself, for everything that is not load.

A client that is not ours in any part: the standard library's socket, a message, its echo. As a
WebSocket it knows as much of RFC 6455 as that takes: the opening handshake and one short frame.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket

from benchmarks.errors import BenchmarkError
from benchmarks.process import Running

# 64 bytes that are a length-prefixed frame as well, for the servers that cut those.
MESSAGE = (60).to_bytes(4, "big") + bytes(range(60))
ANSWER_SECONDS = 10.0

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_BINARY = 0x82  # unfragmented
_MASKED = 0x80
_SHORT = 125  # the longest payload that needs no more than a byte for its length


def connect(server: Running, message: bytes = MESSAGE, *, websocket: bool = False) -> socket.socket:
    """Open a connection and see one message echoed on it; the caller closes it.

    Args:
        server: where to connect.
        message: what is sent; at most 125 bytes if it is to go into a WebSocket frame.
        websocket: upgrade the connection first, and send the message as a binary frame.

    Raises:
        BenchmarkError: the server refuses the upgrade, or the echo is wrong or does not come
            within `ANSWER_SECONDS`.
    """
    connection = socket.socket()
    try:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(("127.0.0.1", server.port))
        out = expected = message
        if websocket:
            _upgrade(connection)
            out, expected = _frames(message)
        connection.sendall(out)
        answer = b""
        while len(answer) < len(expected) and (more := connection.recv(len(expected))):
            answer += more
        if answer != expected:
            raise BenchmarkError(f"a Python socket sent {out!r} and got {answer!r} back")
    except OSError as exc:
        connection.close()
        raise BenchmarkError(f"a Python socket was not answered: {exc}") from exc
    except BaseException:
        connection.close()
        raise
    return connection


def _upgrade(connection: socket.socket) -> None:
    """Make it a WebSocket (RFC 6455, section 4)."""
    key = base64.b64encode(os.urandom(16))
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n") and (more := connection.recv(4096)):
        answer += more
    if not answer.startswith(b"HTTP/1.1 101 ") or accept not in answer:
        raise BenchmarkError(f"a Python socket asked for a WebSocket and got {answer!r}")


def _frames(message: bytes) -> tuple[bytes, bytes]:
    """The message as a client sends it, masked, and as a server sends it, not."""
    assert len(message) <= _SHORT
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(message))
    out = bytes([_BINARY, _MASKED | len(message)]) + mask + masked
    return out, bytes([_BINARY, len(message)]) + message
