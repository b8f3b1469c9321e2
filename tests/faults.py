"""What the fault tests share: a handler that writes everything down, and a server that is audited.

`audited` is where every one of these tests ends, whatever else it looks at. When the server has
stopped, each connection must have had `on_connect` first and `on_close` last, once each; no
descriptor may be left; and the pool must hold what it held before. So a test need only make the
trouble.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from helpers import settle

import gevffi
from gevffi import CloseReason, Connection
from gevffi.sys.memory import default_pool

_HERE = Path(__file__).parent

SECONDS = 20.0
"""After which a test gives up; never what it waits."""


class Recorder(gevffi.Handler):
    """Writes down what it is told, and wakes whoever waits for it.

    A test overrides what it needs and calls `super()`.
    """

    def __init__(self) -> None:
        self.told = threading.Condition()
        self.conns: list[Connection] = []
        self.events: dict[int, list[str]] = {}
        self.received: dict[int, bytearray] = {}
        self.reasons: list[CloseReason] = []
        self.errors: list[Exception] = []
        self.counts: Counter[str] = Counter()

    def note(self, conn: Connection, event: str) -> None:
        """Write `event` down."""
        with self.told:
            self.events.setdefault(conn.id, []).append(event)
            self.counts[event] += 1
            self.told.notify_all()

    def wait(self, until: Callable[[], object], what: str) -> None:
        """Wait until something it was told makes `until()` true."""
        with self.told:
            if not self.told.wait_for(until, SECONDS):
                raise AssertionError(f"no {what}: {dict(self.counts)}, {self.reasons[-5:]}")

    def wait_for(self, event: str, times: int = 1) -> None:
        """Wait until `event` has been written down that often."""
        self.wait(lambda: self.counts[event] >= times, f"{times} x {event}")

    def wait_received(self, size: int, conn: int = 0) -> bytes:
        """Wait until a connection has sent `size` bytes; return them."""
        self.wait(
            lambda: len(self.conns) > conn and len(self.received[self.conns[conn].id]) >= size,
            f"{size} bytes",
        )
        return bytes(self.received[self.conns[conn].id])

    def on_connect(self, conn: Connection) -> None:
        with self.told:
            self.conns.append(conn)
            self.received[conn.id] = bytearray()
        self.note(conn, "connect")

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        self.received[conn.id] += data
        self.note(conn, "message")
        return None

    def on_close(self, conn: Connection, reason: CloseReason) -> None:
        with self.told:
            self.reasons.append(reason)
        self.note(conn, "close")

    def on_eof(self, conn: Connection) -> bool | None:
        self.note(conn, "eof")
        return None

    def on_high_water(self, conn: Connection) -> None:
        self.note(conn, "high_water")

    def on_drain(self, conn: Connection) -> None:
        self.note(conn, "drain")

    def on_error(self, conn: Connection, exc: Exception) -> None:
        self.errors.append(exc)
        super().on_error(conn, exc)


class Echo(Recorder):
    """The same, and sends everything back."""

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        super().on_message(conn, ctx, data)
        return data


def descriptors() -> list[str]:
    """What the process has open, by what it is."""
    settle()
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}").split(":")[0])
    return sorted(found)


def used_bytes() -> int:
    """What the pool of the process has given out."""
    return default_pool().stats().used_bytes


@contextlib.contextmanager
def audited(
    handler: Recorder, address: str = "127.0.0.1:0", **options: Any
) -> Iterator[gevffi.Server]:
    """Run a server in the background, and look at the books when it has stopped."""
    default_pool()  # its memory file stays open
    gc.collect()  # no ring of an earlier test may come back while this one counts
    before, memory = descriptors(), used_bytes()
    server = gevffi.Server(handler, address, **options)
    with server.running(timeout=SECONDS):
        yield server
    for conn in handler.conns:
        events = handler.events[conn.id]
        assert events[0] == "connect", events
        assert events[-1] == "close", events
        assert events.count("connect") == events.count("close") == 1, events
    assert len(handler.reasons) == len(handler.conns)
    assert server.connection_count == 0
    for exc in handler.errors:
        traceback.clear_frames(exc.__traceback__)  # the log keeps them, and they keep messages
    del server
    gc.collect()
    assert used_bytes() == memory
    assert descriptors() == before


def connect(server: gevffi.Server, **options: int) -> socket.socket:
    """Return a client's socket; `options` are of SOL_SOCKET, set before it connects."""
    address = server.address
    unix = address.port is None
    sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    sock.settimeout(SECONDS)
    for name, value in options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    sock.connect(address.host if unix else (address.host, address.port))
    return sock


def reset(sock: socket.socket) -> None:
    """Close with a reset (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read(sock: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        n = sock.recv_into(view)
        assert n, f"the end after {size - len(view)} of {size} bytes"
        view = view[n:]
    return bytes(data)


def read_all(sock: socket.socket) -> bytes:
    """Read up to the end."""
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def pattern(size: int) -> bytes:
    """Bytes that tell where in the stream they belong."""
    return np.arange((size + 3) // 4, dtype=">u4").tobytes()[:size]


def on_loop(server: gevffi.Server, call: Callable[..., object], *args: Any) -> Any:
    """Call on the first loop's thread; return the result."""
    result: list[Any] = []
    done = threading.Event()

    def run() -> None:
        try:
            result.append(call(*args))
        finally:
            done.set()

    server.loops[0].call_soon_threadsafe(run)
    assert done.wait(SECONDS)
    assert result, "the call raised"
    return result[0]


def cpu_used(server: gevffi.Server, seconds: float = 0.3) -> float:
    """Return the CPU seconds that the first loop's thread uses in the next `seconds`."""
    clock = on_loop(server, lambda: time.pthread_getcpuclockid(threading.get_ident()))
    over = threading.Event()
    start = time.clock_gettime(clock)
    server.run_after(seconds, over.set)
    assert over.wait(SECONDS)
    return time.clock_gettime(clock) - start


QUIET = 0.06
"""CPU seconds in `cpu_used` that a loop with nothing to do stays under; one that spins uses 0.3."""


def run_alone(program: str) -> str:
    """Run `program` in a new Python; return what it wrote, its log included."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(_HERE), str(_HERE.parent)))},
    )
    assert done.returncode == 0, (done.returncode, done.stdout)
    return done.stdout
