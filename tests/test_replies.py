"""What may be sent: every kind of buffer, every size, and what is no buffer.

Each way to send is tried: returned from `on_message`, sent from the loop, sent from another thread.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import pickle
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Background, Echo, Recorder, connect, receive_all, receive_exactly, serving

from gevffi import CloseReason, Connection

BYTES = bytes(range(256)) * 4096  # 1 MiB


class Pair(ctypes.Structure):
    _fields_ = (("a", ctypes.c_uint32), ("b", ctypes.c_uint32))


def mapped(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(data))
    memory.write(data)
    return memory


REPLIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: BYTES[:100],
    "large bytes": lambda: BYTES,
    "bytes at the threshold": lambda: BYTES[:8192],
    "bytes below the threshold": lambda: BYTES[:8191],
    "bytearray": lambda: bytearray(BYTES[:100]),
    "large bytearray": lambda: bytearray(BYTES),
    "memoryview": lambda: memoryview(BYTES)[1:100],
    "large memoryview": lambda: memoryview(BYTES)[1:],
    "view of a bytearray": lambda: memoryview(bytearray(BYTES[:100]))[3:],
    "large view of a bytearray": lambda: memoryview(bytearray(BYTES))[3:],
    "every second byte": lambda: memoryview(BYTES[:100])[::2],
    "every second byte of many": lambda: memoryview(BYTES)[::2],
    "backwards": lambda: memoryview(BYTES[:100])[::-1],
    "many backwards": lambda: memoryview(BYTES)[::-1],
    "view in two dimensions": lambda: memoryview(BYTES[:100]).cast("B", (10, 10)),
    "view of integers": lambda: memoryview(BYTES[:96]).cast("I"),
    "array('d')": lambda: array("d", [1.5, -2.5]),
    "large array('d')": lambda: array("d", range(100_000)),
    "array('d') of more bytes than items": lambda: array("d", range(8000)),
    "NumPy array": lambda: np.arange(100, dtype=np.uint8),
    "NumPy array of one": lambda: np.array([7], dtype=np.uint8),
    "large NumPy array": lambda: np.arange(100_000, dtype=np.float32),
    "NumPy matrix": lambda: np.arange(12, dtype=np.int32).reshape(3, 4),
    "NumPy columns": lambda: np.arange(12, dtype=np.int32).reshape(3, 4).T,
    "large NumPy columns": lambda: np.arange(90_000, dtype=np.int32).reshape(300, 300).T,
    "every third of a NumPy array": lambda: np.arange(90, dtype=np.int16)[::3],
    "mmap": lambda: mapped(BYTES[:5000]),
}


def as_bytes(data: Any) -> bytes:
    """The bytes of a buffer in the order its items read."""
    return memoryview(data).tobytes()


@pytest.mark.parametrize("kind", REPLIES)
def test_every_buffer_arrives_and_the_next_one_too(kind: str) -> None:
    data = REPLIES[kind]()
    wanted = as_bytes(data)

    class Sender(Recorder):
        def on_message(self, conn: Connection, ctx: Any, message: Any) -> Any:
            if message == b"send":
                conn.send(b"<")
                conn.send(data)
                return b">"
            return data if message == b"return" else message

    handler = Sender()
    with serving(handler) as server, connect(server) as sock, connect(server) as other:
        conns = {conn.peer_address: conn for conn in (handler.next("connect").conn for _ in "12")}
        sock.sendall(b"return")
        assert receive_exactly(sock, len(wanted)) == wanted
        sock.sendall(b"send")
        assert receive_exactly(sock, len(wanted) + 2) == b"<" + wanted + b">"
        conns[sock.getsockname()].send(data)
        assert receive_exactly(sock, len(wanted)) == wanted
        for last in (sock, other):
            last.sendall(b"ping")
            assert receive_exactly(last, 4) == b"ping"
    assert "error" not in handler.rest()


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "array", "NumPy"])
def test_no_bytes_are_no_message_and_no_end(kind: str) -> None:
    empty: Any = {
        "bytes": b"",
        "bytearray": bytearray(),
        "memoryview": memoryview(b""),
        "array": array("d"),
        "NumPy": np.empty(0, dtype=np.uint8),
    }[kind]

    class Nothing(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            conn.send(empty)
            conn.send(data)
            return empty

    handler = Nothing()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.send(empty)
        for _ in range(3):
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
        assert conn.connected


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_buffer_may_be_reused_as_soon_as_send_returns(size: int) -> None:
    class Reusing(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            buffer = bytearray(size)
            for mark in range(1, 6):
                buffer[:] = bytes([mark]) * size
                conn.send(buffer)
                conn.send(memoryview(buffer))
            buffer[:] = b"!" * size
            buffer.clear()  # nobody holds it
            return None

    handler = Reusing()
    with serving(handler) as server, connect(server) as sock:
        sock.sendall(b"x")
        wanted = b"".join(bytes([mark]) * 2 * size for mark in range(1, 6))
        assert receive_exactly(sock, len(wanted)) == wanted
        conn = handler.next("connect").conn
        buffer = bytearray(size)
        for mark in range(1, 6):  # and from another thread
            buffer[:] = bytes([mark]) * size
            conn.send(buffer)
            conn.send(memoryview(buffer))
        buffer.clear()
        assert receive_exactly(sock, len(wanted)) == wanted


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_returned_buffer_may_be_changed_by_the_next_message(size: int) -> None:
    buffer = bytearray(size)

    class Reusing(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            buffer[:] = bytes(data[:1]) * size
            return buffer

    # All these messages are in one turn: the sockets are ready before the loop is.
    with serving(Reusing()) as server:
        socks = [connect(server) for _ in range(8)]
        for number, sock in enumerate(socks):
            sock.sendall(bytes([number]))
        for number, sock in enumerate(socks):
            assert receive_exactly(sock, size) == bytes([number]) * size
            sock.close()


def test_an_echo_of_a_kept_view_is_right_whatever_came_since() -> None:
    kept: list[Any] = []

    class Keeper(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if data == b"all":
                for view in kept:
                    conn.send(view)
                return None
            kept.extend((data[:1], data[1:]))
            return b"." * len(data)

    with serving(Keeper()) as server, connect(server) as sock:
        wanted = b""
        for number in range(300):
            payload = b"<" + bytes([number % 256]) * (100 * number % 9000 + 2) + b">"
            sock.sendall(payload)
            # It may come in two pieces. A dot for each byte says that all of it has come.
            receive_exactly(sock, len(payload))
            wanted += payload
        sock.sendall(b"all")
        assert receive_exactly(sock, len(wanted)) == wanted


@pytest.mark.parametrize("max_leases", [0, 2, 1000])
def test_what_is_kept_and_returned_comes_back_through_all_moves_of_the_arena(
    max_leases: int,
) -> None:
    kept: list[Any] = []

    class Keeper(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            kept.append(data)
            return data

    with serving(Keeper(), arena_size=1 << 17, max_leases=max_leases) as server:
        socks = [connect(server) for _ in range(4)]
        for number in range(150):
            for sock in socks:
                sock.sendall(bytes([number]) * (61 * number))
            for sock in socks:
                assert receive_exactly(sock, 61 * number) == bytes([number]) * (61 * number)
        assert (server.loops[0].leases == max_leases) is (max_leases < 1000)
        assert sum(map(len, kept)) == 4 * sum(61 * number for number in range(150))
        for sock in socks:
            sock.close()


class NoBuffer:
    def __len__(self) -> int:
        return 5


WRONG: dict[str, Any] = {
    "str": "text",
    "empty str": "",
    "long str": "x" * 10_000,
    "int": 5,
    "zero": 0,
    "bool": True,
    "float": 1.5,
    "list": [1, 2, 3],
    "empty list": [],
    "long list": [1] * 10_000,
    "tuple": (b"a", b"b"),
    "dict": {},
    "set": {1},
    "range": range(3),
    "object": object(),
    "object with a length": NoBuffer(),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_reply_that_is_no_buffer_closes_that_connection_only_and_is_logged(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = WRONG[kind]

    class Wrong(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            return wrong if data == b"wrong" else data

    handler = Wrong()
    with serving(handler) as server, connect(server) as good, connect(server) as bad:
        bad.sendall(b"wrong")
        assert receive_all(bad) == b""
        event = handler.until("error")
        assert isinstance(event.value, TypeError)
        closed = handler.next("close")
        assert closed.value is CloseReason.HANDLER_ERROR
        assert closed.conn.peer_address == bad.getsockname()
        good.sendall(b"good")
        assert receive_exactly(good, 4) == b"good"
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.name == "gevffi"
    assert record.exc_info is not None


@pytest.mark.parametrize("data", [Pair(1, 2), pickle.PickleBuffer(b"pickled")], ids=repr)
def test_buffers_without_a_length(data: Any) -> None:
    wanted = bytes(memoryview(data))

    class Sender(Recorder):
        def on_message(self, conn: Connection, ctx: Any, message: Any) -> Any:
            conn.send(data)
            return data

    handler = Sender()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.send(data)
        assert receive_exactly(sock, len(wanted)) == wanted
        sock.sendall(b"x")
        assert receive_exactly(sock, 2 * len(wanted)) == 2 * wanted


@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 300_000, 5_000_000])
def test_large_echoes_come_back_byte_for_byte(size: int) -> None:
    data = (BYTES * 5)[:size]
    with serving(Echo()) as server, connect(server) as sock:
        sender = Background(sock.sendall, data)
        assert receive_exactly(sock, size) == data
        sender.join()
