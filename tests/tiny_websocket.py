"""A WebSocket echo server in a few lines of the standard library that can be told to do wrong.

It is what the load generator and the harness are tested against: slow, a thread for each
connection, and easy to see through. `python tests/tiny_websocket.py` is a process of it that keeps
the contract of the benchmarks' peers.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY = 0x82
CLOSE = 0x88


@dataclass(frozen=True)
class Frame:
    """A frame of a client, as it came.

    Attributes:
        first: FIN, reserved bits and opcode.
        header: the bytes before the mask.
        mask: the four bytes of it.
        payload: what was masked, in the clear.
    """

    first: int
    header: bytes
    mask: bytes
    payload: bytes


def frame(payload: bytes, first: int = BINARY) -> bytes:
    """A frame as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


def answer(accept: bytes, status: bytes = b"101 Switching Protocols") -> bytes:
    """What a server says to an upgrade."""
    return (
        b"HTTP/1.1 " + status + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n\r\n"
    )


def echo(frame_: Frame, number: int) -> bytes:
    """What an honest server sends back for message `number` of a connection."""
    return frame(frame_.payload)


def close(frame_: Frame) -> bytes:
    """What it answers to a Close frame."""
    return frame(frame_.payload, CLOSE)


class Server(socketserver.ThreadingTCPServer):
    """The server; each of its functions makes what goes out, and `None` closes the connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.reply: Callable[[Frame, int], bytes | None] = echo
        self.close_reply: Callable[[Frame], bytes] = close
        self.upgrade: Callable[[bytes], list[bytes]] = lambda accept: [answer(accept)]
        self.to_all = False
        self.frames: list[Frame] = []
        self.closed = 0
        self.everybody: list[Any] = []
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Serve in a thread while the block runs; yields the port."""
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            with self:
                yield self.server_address[1]
        finally:
            self.shutdown()
            thread.join()


class Connection(socketserver.StreamRequestHandler):
    """One connection of it."""

    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            key = b""
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                key = value.strip() if name.lower() == b"sec-websocket-key" else key
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            self.server.everybody.append(self.request)
            for part in self.server.upgrade(accept):
                self.request.sendall(part)
            self.serve()

    def serve(self) -> None:
        number = 0
        while (got := read_frame(self.rfile)) is not None:
            if got.first == CLOSE:
                self.request.sendall(self.server.close_reply(got))
                with self.server.lock:
                    self.server.closed += 1
                return
            with self.server.lock:
                self.server.frames.append(got)
            reply = self.server.reply(got, number)
            if reply is None:
                return
            for sock in self.server.everybody if self.server.to_all else [self.request]:
                sock.sendall(reply)
            number += 1


def read_frame(file: BufferedIOBase) -> Frame | None:
    """The next frame of a client, or None when it is gone."""
    header = file.read(2)
    if len(header) < 2:
        return None
    size = header[1] & 127
    if size >= 126:
        header += file.read(2 if size == 126 else 8)
        size = int.from_bytes(header[2:], "big")
    mask = file.read(4)
    masked = file.read(size)
    if len(masked) < size:
        return None
    wide = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    payload = (int.from_bytes(masked, "big") ^ wide).to_bytes(size, "big")
    return Frame(header[0], header, mask, payload)


if __name__ == "__main__":
    with Server() as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
