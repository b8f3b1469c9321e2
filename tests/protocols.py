"""Protocols as a user writes them in Python, and a client that decides what one read is."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from helpers import Recorder, connect, serving, wait

from gevffi import Connection, Protocol, ProtocolError, ReadBuffer, Server


class Framed(Protocol):
    """A length of 4 bytes, then as many bytes."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        if len(buffer) < 4:
            return None, None
        size = buffer.peek_uint32()
        if len(buffer) < 4 + size:
            return None, None
        buffer.retrieve(4)
        data = buffer.peek(size)
        buffer.retrieve(size)
        return None, data

    def packet(self, conn: Connection, reply: Any) -> Any:
        return len(reply).to_bytes(4, "big"), reply


class Lines(Protocol):
    """Text up to a newline; `ctx` is the number of the line."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        end = buffer.find(b"\n")
        if end < 0:
            return None, None
        line = buffer.read(end)
        buffer.retrieve(1)
        number = conn.get("lines", 0) + 1
        conn.set("lines", number)
        return number, line

    def packet(self, conn: Connection, reply: Any) -> Any:
        return bytes(reply) + b"\n"


class Netstrings(Protocol):
    """b"5:hello," read virtually: taken back while anything is missing."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        digits = b""
        while (byte := bytes(buffer.virtual_read(1))) != b":":
            if not byte:
                return None, None  # the loop reverts
            if not byte.isdigit():
                raise ProtocolError(f"no digit: {byte!r}")
            digits += byte
        size = int(digits)
        data = buffer.virtual_read(size)
        if len(data) < size:
            return None, None
        comma = bytes(buffer.virtual_read(1))
        if not comma:
            return None, None
        if comma != b",":
            raise ProtocolError(f"no comma: {comma!r}")
        buffer.virtual_flush()
        return "netstring", data

    def packet(self, conn: Connection, reply: Any) -> Any:
        return (b"%d:" % len(reply), reply, b",")


def framed(*payloads: bytes) -> bytes:
    return b"".join(len(payload).to_bytes(4, "big") + payload for payload in payloads)


def lines(*payloads: bytes) -> bytes:
    return b"".join(payload + b"\n" for payload in payloads)


def netstrings(*payloads: bytes) -> bytes:
    return b"".join(b"%d:%s," % (len(payload), payload) for payload in payloads)


class Pieces:
    """Sends so that the server reads each piece by itself: the next one when it has been read."""

    def __init__(self, server: Server, sock: socket.socket, conn: Connection) -> None:
        self.sock = sock
        self.conn = conn

    def send(self, piece: bytes) -> None:
        self.sock.sendall(piece)
        # On loopback the bytes are in the server's socket when `sendall` returns, so they are read
        # in the turn of the second call or before.
        turned = threading.Event()
        call_soon = self.conn.loop.call_soon_threadsafe
        call_soon(call_soon, turned.set)
        wait(turned)


@contextlib.contextmanager
def pieces(handler: Recorder, protocol: Protocol, **options: Any) -> Iterator[Pieces]:
    with serving(handler, protocol=protocol, **options) as server, connect(server) as sock:
        yield Pieces(server, sock, handler.next("connect").conn)
