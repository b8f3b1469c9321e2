"""What the tests of servers share: a handler that records, and sockets that wait.

Nothing here sleeps. A test waits for a callback in a queue, or for bytes on a blocking socket; both
give up after `PATIENCE` seconds, which only a broken server lets pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gevffi import Address, CloseReason, Connection, EventLoop, Handler, Server
from gevffi.sys import POLLER

PATIENCE = 20.0
"""Seconds until something that should have happened counts as missing."""

LIBKQUEUE = POLLER == "kqueue" and sys.platform == "linux"
"""This build has its kqueue from libkqueue and not from the system."""


def settle() -> None:
    """Wait until all that closed pollers had open is closed: libkqueue does that on a thread."""
    if LIBKQUEUE:
        ctypes.CDLL("libkqueue.so.0").libkqueue_drain_pending_close()


class Event(NamedTuple):
    """A callback: which, of which connection, on which thread, and with what."""

    name: str
    conn: Connection
    value: Any
    thread: int


class Recorder(Handler):
    """Puts each callback into a queue; `reply` makes the answer to a message.

    With `half_open`, our side stays open when the peer has ended its own.
    """

    def __init__(
        self, reply: Callable[[Any], Any] = lambda data: None, *, half_open: bool = False
    ) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self._reply = reply
        self._half_open = half_open

    def _put(self, name: str, conn: Connection, value: Any = None) -> None:
        self.events.put(Event(name, conn, value, threading.get_ident()))

    def on_connect(self, conn: Connection) -> None:
        self._put("connect", conn)

    def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
        self._put("connect_failed", conn, exc)

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        self._put("message", conn, (ctx, data if data is None else bytes(data)))
        return self._reply(data)

    def on_close(self, conn: Connection, reason: CloseReason) -> None:
        self._put("close", conn, reason)

    def on_eof(self, conn: Connection) -> bool | None:
        self._put("eof", conn)
        return self._half_open

    def on_high_water(self, conn: Connection) -> None:
        self._put("high_water", conn)

    def on_drain(self, conn: Connection) -> None:
        self._put("drain", conn)

    def on_error(self, conn: Connection, exc: Exception) -> None:
        super().on_error(conn, exc)
        self._put("error", conn, exc)

    def next(self, name: str) -> Event:
        """The next callback, which has to be `name`."""
        event = self.events.get(timeout=PATIENCE)
        assert event.name == name, event
        return event

    def until(self, name: str) -> Event:
        """The next callback called `name`; those before it are dropped."""
        while True:
            event = self.events.get(timeout=PATIENCE)
            if event.name == name:
                return event

    def rest(self) -> list[str]:
        """The names of the callbacks nobody has asked for yet."""
        return [self.events.get_nowait().name for _ in range(self.events.qsize())]


class Echo(Recorder):
    """A recorder that sends back what it gets."""

    def __init__(self, *, half_open: bool = False) -> None:
        super().__init__(lambda data: data, half_open=half_open)


@contextlib.contextmanager
def serving(handler: Handler, address: Any = "127.0.0.1:0", **options: Any) -> Iterator[Server]:
    """A server in the background, on a port the kernel chose."""
    with Server(handler, address, **options).running() as server:
        yield server


def connect(server: Server | Address) -> socket.socket:
    """A blocking socket connected to `server`.

    What is given to `send` leaves at once. It would else wait until the server's kernel has
    acknowledged what was sent before (up to 40 ms), and pieces would arrive as one.
    """
    address = server if isinstance(server, Address) else server.address
    if address.port is not None:
        sock = socket.create_connection((address.host, address.port), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(address.host)
    return sock


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes from `sock`."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        assert piece, f"the peer ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def receive_all(sock: socket.socket) -> bytes:
    """What `sock` gets until the peer ends."""
    data = bytearray()
    while piece := sock.recv(1 << 20):
        data += piece
    return bytes(data)


def wait(event: threading.Event) -> None:
    """Wait for `event`, or fail."""
    assert event.wait(PATIENCE), "it never happened"


def descriptors() -> dict[int, str]:
    """Every open descriptor of this process, with what it is."""
    settle()
    found = {}
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them is gone again
            found[int(entry.name)] = os.readlink(entry)
    return found


class Background:
    """A function on a thread of its own; `join` waits for it and raises what it raised."""

    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        self._error: BaseException | None = None
        self._function = function
        self._args = args
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._function(*self._args)
        except BaseException as exc:
            self._error = exc

    def join(self) -> None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "stuck"
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def clients(server: Server, handler: Recorder, count: int) -> Iterator[list[socket.socket]]:
    """`count` connected sockets that the server has taken."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(count)]
        for _ in socks:
            handler.next("connect")
        yield socks


def by_client(
    server: Server, handler: Recorder, count: int
) -> Iterator[tuple[socket.socket, Connection]]:
    """`count` sockets one by one, each with its connection."""
    for _ in range(count):
        sock = connect(server)
        yield sock, handler.until("connect").conn


def on_loop(loop: EventLoop, call: Callable[..., object], *args: Any) -> None:
    """Call on the thread of `loop`, and raise what it raises."""
    failed: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            call(*args)
        except BaseException as exc:
            failed.append(exc)
        finally:
            done.set()

    loop.call_soon_threadsafe(run)
    wait(done)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def held(loop: EventLoop, first: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Keep the loop in one call for the length of a `with` block. The call begins with `first`."""
    busy, go = threading.Event(), threading.Event()

    def hold() -> None:
        first()
        busy.set()
        wait(go)

    loop.call_soon_threadsafe(hold)
    wait(busy)
    try:
        yield
    finally:
        go.set()
