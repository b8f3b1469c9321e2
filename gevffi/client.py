"""A client that blocks, for scripts and tests: send, receive, close.

    with gevffi.Client("127.0.0.1:1833", protocol=Framed()) as client:
        client.send(b"hello")
        print(client.receive(timeout=5))

Underneath is an outgoing `Connection` of an `EventLoop` that runs in a thread; what blocks here is
the caller only. Messages are copied out of the loop's memory into an inbox, as `bytes`, so they
outlive the loop:

         the loop's thread                                       callers
    on_message ──copy──▶ | newest | ... | oldest | ──▶ receive
                         |<-- inbox_limit bytes ->|

When it is full the connection pauses reading and TCP holds the peer back, until half of it has been
received.

A client has a loop and a thread of its own, which end with it, or shares those of others by
`loop=`. Its methods may be called from any thread but that of the loop, which they would block.
"""

from __future__ import annotations

import errno
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from gevffi.connection import Connection
from gevffi.connection_info import CloseReason
from gevffi.handler import Handler
from gevffi.listener import AddressLike
from gevffi.loop import EventLoop
from gevffi.options import MIB, Options
from gevffi.protocol import Protocol
from gevffi.timers import check_delay

GRACE = 5.0
"""Seconds past its time-out after which a loop that has said nothing does not run."""
OVERHEAD = 64
"""Bytes a message counts besides its own, so that small ones fill an inbox too."""


class ConnectionClosedError(ConnectionError):
    """The connection of a `Client` has closed.

    Its `__cause__` is what the protocol raised, where that is why.
    """

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason)
        self.reason = reason
        """Why it has closed."""

    def __str__(self) -> str:
        return f"the connection has closed: {self.reason.name}"


class Client:
    """A connection to a server, for code that waits. Open once it is made.

    Args:
        address: "host:port", "[::1]:port", (host, port) or "unix:/path"; see `EventLoop.connect`.
        protocol: cuts messages; `Raw()` when None: a message is whatever bytes were there.
        timeout: seconds that connecting may take.
        inbox_limit: bytes of messages nobody has received yet that pause reading. What one read
            brings comes on top.
        loop: one that runs in another thread, to share; when None, one of its own.

    Raises:
        ValueError: a bad address, timeout or limit; the message names it.
        OSError: it cannot connect, for a reason that `Handler.on_connect_failed` lists.
        RuntimeError: `loop` has ended, or runs in this thread.
    """

    def __init__(
        self,
        address: AddressLike,
        *,
        protocol: Protocol | None = None,
        timeout: float = 10.0,
        inbox_limit: int = MIB,
        loop: EventLoop | None = None,
    ) -> None:
        if inbox_limit < 1:
            raise ValueError(f"inbox_limit must be at least 1, not {inbox_limit!r}")
        self._inbox = _Inbox(inbox_limit)
        self._thread: threading.Thread | None = None
        self._write_ended = False
        if loop is None:
            # Unsent is what callers of `send` are waiting for, and no more. Reading goes on
            # meanwhile: a server that answers as it reads would otherwise wait for us, and we for
            # it.
            loop = EventLoop(Options(write_limit=1 << 30, write_high_water=1 << 30), name="client")
            # A script that forgets to close must end all the same.
            self._thread = threading.Thread(target=loop.run, name="gevffi-client", daemon=True)
            self._thread.start()
        self._loop = loop
        try:
            self._check_thread()
            self.connection = loop.connect(address, self._inbox, protocol, timeout)
            """What is underneath, for all that a client has no method for."""
            self._wait_open(timeout)
        except BaseException:
            self._end_loop(0)
            raise
        # If it is dropped without `close`, nothing stays behind.
        forgotten = self.connection.close if self._thread is None else loop.stop
        self._finalizer = weakref.finalize(self, forgotten)

    def _wait_open(self, timeout: float) -> None:
        try:
            if not self._inbox.wait_open(timeout + GRACE):
                raise TimeoutError(errno.ETIMEDOUT, f"{self._loop.name} does not run")
        except BaseException:
            self.connection.abort()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def send(self, data: Any, timeout: float | None = None) -> None:
        """Send `data` through the protocol's `packet`; return when the kernel has taken it all.

        Args:
            data: bytes-like; with a protocol of one's own, whatever its `packet` takes.
            timeout: seconds; None waits for as long as the connection is open.

        Raises:
            TypeError: `data` is not bytes-like (and no protocol makes it so).
            TimeoutError: the peer does not take it; what is left still goes out when it does.
            ConnectionClosedError: the connection has closed, before all was taken.
            BrokenPipeError: after `shutdown_write`.
        """
        self._check_thread()
        if self._write_ended:
            raise BrokenPipeError(errno.EPIPE, "send after shutdown_write")
        inbox = self._inbox
        taken: list[bool] = []
        self.connection.send(data, lambda _conn: inbox.mark(taken))
        inbox.wait_taken(taken, timeout)

    def receive(self, timeout: float | None = None) -> Any:
        """Return the next message.

        Args:
            timeout: seconds; None waits for as long as the connection is open.

        Returns:
            `bytes`; or whatever else a protocol in Python makes of them.

        Raises:
            TimeoutError: there was none in time.
            ConnectionClosedError: the connection has closed and no message is left.
        """
        return self.receive_with_ctx(timeout)[1]

    def receive_with_ctx(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Return `(ctx, data)` of the next message, `ctx` being what `unpacket` said of it.

        Otherwise like `receive`.
        """
        self._check_thread()
        message, resume = self._inbox.take(timeout)
        if resume:
            self.connection.resume_reading()
        return message

    def __iter__(self) -> Iterator[Any]:
        """The messages, until the peer ends (`CloseReason.EOF`).

        Raises:
            ConnectionClosedError: the connection has closed for another reason.
        """
        while True:
            try:
                message = self.receive()
            except ConnectionClosedError as exc:
                if exc.reason is CloseReason.EOF:
                    return
                raise
            yield message

    def shutdown_write(self) -> None:
        """End our side; go on receiving until the peer ends its own. See shutdown(2), SHUT_WR."""
        self._write_ended = True
        self.connection.shutdown_write()

    def close(self) -> None:
        """Close, and wait until it is closed. Harmless when repeated.

        As for `Connection.close`: if the peer goes on sending, that may take the `close_timeout` of
        the loop, 5 s by default. `connection.abort()` before it makes it short. Messages that have
        come in can still be received.
        """
        self._check_thread()
        self._finalizer.detach()
        self.connection.close()
        self._end_loop(self._loop.options.close_timeout)
        self._inbox.wait_closed()

    def _end_loop(self, timeout: float) -> None:
        if self._thread is not None:
            self._loop.stop(timeout)
            self._thread.join()

    def _check_thread(self) -> None:
        if self._loop.in_loop():
            raise RuntimeError(f"this would block the thread of {self._loop.name}")


class _Inbox(Handler):
    """What the loop's thread tells, and callers wait for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()  # guards all of these
        self._messages: deque[tuple[Any, Any]] = deque()
        self._size = 0
        self._full = False  # since then callers have not taken half of it
        self._open = False
        self._failure: OSError | None = None
        self._reason: CloseReason | None = None
        self._error: Exception | None = None

    # ---- on the loop's thread -------------------------------------------------------------------

    def on_connect(self, conn: Connection) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
        with self._changed:
            self._failure = exc
            self._changed.notify_all()

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> None:
        if isinstance(data, (memoryview, bytearray)):
            data = bytes(data)
        with self._changed:
            self._messages.append((ctx, data))
            self._size += _weight(data)
            full = self._size >= self._limit
            self._full = self._full or full
            self._changed.notify_all()
        if full:  # also if it was: a resume may have been on its way since before
            conn.pause_reading()

    def on_error(self, conn: Connection, exc: Exception) -> None:
        with self._changed:
            self._error = exc

    def on_close(self, conn: Connection, reason: CloseReason) -> None:
        with self._changed:
            self._reason = reason
            self._changed.notify_all()

    def mark(self, taken: list[bool]) -> None:
        """The kernel has taken what a caller waits for."""
        with self._changed:
            taken.append(True)
            self._changed.notify_all()

    # ---- callers --------------------------------------------------------------------------------

    def wait_open(self, timeout: float) -> bool:
        """Wait until it is open; False when nothing was heard. Raises what connecting failed of."""
        with self._changed:
            heard = self._changed.wait_for(lambda: self._open or self._failure, timeout)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return bool(heard)

    def take(self, timeout: float | None) -> tuple[tuple[Any, Any], bool]:
        """The oldest message, and whether reading may go on because of that."""
        with self._changed:
            self._wait(lambda: self._messages, timeout, "no message")
            if not self._messages:
                assert self._reason is not None
                raise ConnectionClosedError(self._reason) from self._error
            message = self._messages.popleft()
            self._size -= _weight(message[1])
            resume = self._full and self._size <= self._limit // 2
            if resume:
                self._full = False
            return message, resume

    def wait_taken(self, taken: list[bool], timeout: float | None) -> None:
        """Wait until `mark` was called with this list, or it is clear that it will not be."""
        with self._changed:
            self._wait(lambda: taken, timeout, "not sent")
            if not taken:
                assert self._reason is not None
                raise ConnectionClosedError(self._reason) from self._error

    def wait_closed(self) -> None:
        """Wait for the end."""
        with self._changed:
            self._wait(lambda: False, None, "")

    def _wait(self, ready: Callable[[], object], timeout: float | None, what: str) -> None:
        """Wait until `ready()` or the connection is closed. The caller has the lock."""
        if timeout is not None:
            check_delay("timeout", timeout, zero=True)
        if not self._changed.wait_for(lambda: ready() or self._reason is not None, timeout):
            raise TimeoutError(errno.ETIMEDOUT, f"{what} within {timeout:g} s")


def _weight(data: Any) -> int:
    return OVERHEAD + (len(data) if type(data) is bytes else 0)
