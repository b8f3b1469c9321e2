"""A client that blocks, for scripts and tests: send, receive, close.

    with gevffi.Client("127.0.0.1:1833", protocol=Framed()) as client:
        client.send(b"hello")
        print(client.receive(timeout=5))

Underneath is an outgoing `Connection` of an `EventLoop` that runs in a thread; see `blocking.py`.
Messages are copied out of the loop's memory, as `bytes`, so they outlive the loop.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from gevffi.blocking import BlockingClient, Inbox
from gevffi.connection import Connection
from gevffi.connection_info import CloseReason
from gevffi.handler import Handler
from gevffi.listener import AddressLike
from gevffi.loop import EventLoop
from gevffi.options import MIB
from gevffi.protocol import Protocol


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


class Client(BlockingClient):
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
        super().__init__(_Inbox(inbox_limit), loop)
        self._write_ended = False
        self.connection = self._connect(
            lambda loop: loop.connect(address, self._inbox, protocol, timeout), timeout
        )
        """What is underneath, for all that a client has no method for."""

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
        inbox.wait_marked(taken, timeout, "not sent")

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
        message: tuple[Any, Any]
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
        self.connection.close()
        self._closed()


class _Inbox(Inbox, Handler):
    """An inbox that the connection's callbacks fill."""

    def on_connect(self, conn: Connection) -> None:
        self.opened()

    def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
        self.failed(exc)

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> None:
        if isinstance(data, (memoryview, bytearray)):
            data = bytes(data)
        # Also if it was full: a resume may have been on its way since before.
        if self.put((ctx, data), len(data) if type(data) is bytes else 0):
            conn.pause_reading()

    def on_error(self, conn: Connection, exc: Exception) -> None:
        self.raised(exc)

    def on_close(self, conn: Connection, reason: CloseReason) -> None:
        self.ended(lambda: ConnectionClosedError(reason))
