"""A WebSocket client that blocks, for scripts and tests.

    with gevffi.ws.Client("ws://127.0.0.1:9001/chat") as client:
        client.send_text("hello")
        print(client.receive(timeout=5))

Underneath is a `Connection` of an `EventLoop` that runs in a thread; see `gevffi/blocking.py`. That
thread answers the server's pings and sends our own while the script does something else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gevffi._ws_connect import Opened
from gevffi._ws_connection import Connection
from gevffi._ws_connector import connect
from gevffi._ws_frames import BINARY, TEXT
from gevffi._ws_handler import Handler
from gevffi.blocking import BlockingClient, Inbox
from gevffi.loop import EventLoop
from gevffi.options import MIB

_IN_ORDER = frozenset({1000, 1001, 1005})


class ConnectionClosedError(ConnectionError):
    """The WebSocket of a `Client` has closed.

    Its `__cause__` is what raised here, where that is why.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the connection has closed: {code} {reason}".rstrip())
        self.code = code
        """As `Handler.on_close` gets it: 1006 if the server has vanished."""
        self.reason = reason
        """The same in words."""

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.code, self.reason)


class Client(BlockingClient):
    """A WebSocket to a server, for code that waits. Open once it is made.

    Its methods may be called from any thread but that of its loop, also from several at once.

    Args:
        url: "ws://host:port/path?query".
        timeout: seconds until it has to be open.
        inbox_limit: bytes of messages nobody has received yet that pause reading. What the last
            message brings comes on top.
        loop: one that runs in another thread, to share; when None, one of its own.
        **options: as for `connect`: `subprotocols`, `headers`, `max_message_size`, ...

    Raises:
        ValueError, TypeError: a bad URL or option; the message names it.
        HandshakeError: the server's answer opens no WebSocket.
        OSError: it cannot connect; `TimeoutError`: not in time.
        RuntimeError: `loop` has ended, or runs in this thread.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        inbox_limit: int = MIB,
        loop: EventLoop | None = None,
        **options: Any,
    ) -> None:
        inbox = _Inbox(inbox_limit)
        super().__init__(inbox, loop)
        self.connection = self._connect(
            lambda loop: connect(loop, url, inbox, timeout=timeout, **options), timeout
        )
        """What is underneath, for all that a client has no method for."""
        assert inbox.opened_with is not None
        self.opened: Opened = inbox.opened_with
        """What was agreed on: the subprotocol, and the headers of the server's answer."""
        self._pings = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def send_text(
        self, text: str | bytes | bytearray | memoryview, timeout: float | None = None
    ) -> None:
        """Send a text message; return when the kernel has taken it all.

        Args:
            text: what is not a `str` must be UTF-8, and is not looked at.
            timeout: seconds; None waits for as long as the connection is open.

        Raises:
            TimeoutError: the server does not take it; what is left still goes out when it does.
            ConnectionClosedError: the connection has closed, before all was taken.
        """
        self._send(TEXT, text.encode() if isinstance(text, str) else text, timeout)

    def send_binary(
        self, data: bytes | bytearray | memoryview, timeout: float | None = None
    ) -> None:
        """Send a binary message. Otherwise like `send_text`.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        self._send(BINARY, data, timeout)

    def _send(self, opcode: int, data: Any, timeout: float | None) -> None:
        self._check_thread()
        taken: list[bool] = []
        self.connection._post(opcode, data)
        self._loop.call_soon_threadsafe(self._mark_sent, taken)
        self._inbox.wait_marked(taken, timeout, "not sent")

    def _mark_sent(self, taken: list[bool]) -> None:
        # Nothing is sent behind a close frame; then the end is what callers hear.
        if self.connection.connected:
            self.connection.transport._send(b"", lambda _conn: self._inbox.mark(taken))

    def receive(self, timeout: float | None = None) -> Any:
        """Return the next message: a `str` for text, `bytes` for binary.

        Args:
            timeout: seconds; None waits for as long as the connection is open.

        Raises:
            TimeoutError: there was none in time.
            ConnectionClosedError: the connection has closed and no message is left.
        """
        self._check_thread()
        message, resume = self._inbox.take(timeout)
        if resume:
            self._loop.call_soon_threadsafe(self.connection.resume_reading)
        return message

    def __iter__(self) -> Iterator[Any]:
        """The messages, until the connection closes in good order: with 1000, 1001, or no code.

        Raises:
            ConnectionClosedError: it has closed with another code.
        """
        while True:
            try:
                message = self.receive()
            except ConnectionClosedError as exc:
                if exc.code in _IN_ORDER:
                    return
                raise
            yield message

    def ping(self, timeout: float | None = None) -> float:
        """Send a ping and wait for its pong; return the seconds that took.

        A pong waits behind the messages that have not been received: with a full inbox, and nobody
        who receives, it never comes.

        Raises:
            TimeoutError: no pong came in time.
            ConnectionClosedError: the connection has closed.
        """
        self._check_thread()
        began = time.monotonic()
        answered: list[bool] = []
        self._loop.call_soon_threadsafe(self._ping, answered)
        self._inbox.wait_marked(answered, timeout, "no pong")
        return time.monotonic() - began

    def _ping(self, answered: list[bool]) -> None:
        self._pings += 1
        data = self._pings.to_bytes(8, "big")
        self._inbox.pings[data] = answered
        self.connection._ping(data)

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Close, and wait until it is closed. Harmless when repeated.

        The server has to answer, and then to end the connection; it has the `close_timeout` of the
        loop for that, 5 s by default. `connection.abort()` before it makes it short. Messages that
        have come in can still be received.

        Args:
            code, reason: as for `Connection.close`.

        Raises:
            ValueError: as there.
        """
        self._check_thread()
        self.connection.close(code, reason)
        self._inbox.wait_closed()
        self._closed()


class _Inbox(Inbox, Handler):
    """An inbox that the connection's callbacks fill."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.opened_with: Opened | None = None
        self.pings: dict[bytes, list[bool]] = {}
        """Those whose pong has not come, oldest first. Belongs to the loop's thread."""

    def on_open(self, conn: Connection, request: Opened) -> None:
        self.opened_with = request
        self.opened()

    def on_connect_failed(self, conn: Connection, exc: Exception) -> None:
        self.failed(exc)

    def on_message(self, conn: Connection, message: Any) -> None:
        if isinstance(message, memoryview):
            message = bytes(message)
        # Also if it was full: a resume may have been on its way since before.
        if self.put(message, len(message)):
            conn.pause_reading()

    def on_pong(self, conn: Connection, data: bytes) -> None:
        if data not in self.pings:  # an answer to a ping of the connection's own
            return
        for ping in list(self.pings):  # one may answer for those before it (section 5.5.3)
            self.mark(self.pings.pop(ping))
            if ping == data:
                return

    def on_error(self, conn: Connection, exc: Exception) -> None:
        self.raised(exc)

    def on_close(self, conn: Connection, code: int, reason: str) -> None:
        self.ended(lambda: ConnectionClosedError(code, reason))
