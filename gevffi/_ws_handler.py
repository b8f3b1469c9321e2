"""What a user writes: the callbacks of WebSockets, each on the thread of the connection's loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gevffi._ws_connection import Connection

logger = logging.getLogger("gevffi")


class Handler:
    """The callbacks of a server's or a client's WebSockets.

    One handler serves all connections; what belongs to one of them goes into `conn.context`. For
    each connection `on_open` comes first and `on_close` last, each exactly once, and all callbacks
    run one after the other on the thread of that connection's loop: never block in one. Of a
    connection that `connect` was to make and could not, `on_connect_failed` is the only one.

    An exception in a callback is given to `on_error`, and that connection closes with 1011.
    """

    def on_open(self, conn: Connection, request: Any) -> None:
        """The handshake is done; messages can be sent.

        Args:
            conn: the connection.
            request: for a server, the client's `Request`. Keep of it what you need: as a whole it
                takes more memory than the connection. For a client, what was agreed on: `Opened`.
        """

    def on_connect_failed(self, conn: Connection, exc: Exception) -> None:
        """A connection asked for with `connect` cannot be had.

        Logs it to the logger "gevffi". To try again call `connect`, but not at once: by
        `conn.loop.call_later`, for one.

        Args:
            conn: what `connect` returned.
            exc: a `HandshakeError` if the server's answer opens no WebSocket. An `OSError` if there
                is none: `TimeoutError`, `ConnectionResetError`, and what
                `gevffi.Handler.on_connect_failed` lists.
        """
        logger.warning("%s", exc.strerror if isinstance(exc, OSError) else exc)

    def on_message(self, conn: Connection, message: Any) -> Any:
        """A message has arrived.

        Args:
            conn: whose it is.
            message: a `str` if it is text; a read-only `memoryview`, which may be kept, if it is
                binary. With text="bytes", text comes as `bytes`.

        Returns:
            What to send back: a `str` goes as text, anything bytes-like as binary, and None is
            nothing. With text="bytes", `bytes` go as text too, and have to be UTF-8.
        """

    def on_ping(self, conn: Connection, data: bytes) -> None:
        """The peer has sent a ping. The pong is on its way already."""

    def on_pong(self, conn: Connection, data: bytes) -> None:
        """The peer has sent a pong."""

    def on_close(self, conn: Connection, code: int, reason: str) -> None:
        """The connection is gone.

        Args:
            conn: the connection.
            code: the peer's (1005: it gave none); or ours, if something was wrong with what it
                sent; or 1006 if it vanished without a close frame.
            reason: the same in words.
        """

    def on_high_water(self, conn: Connection) -> None:
        """Unsent output has passed `write_high_water`; reading from this peer is paused."""

    def on_drain(self, conn: Connection) -> None:
        """Unsent output is down to half of `write_high_water`; reading goes on."""

    def on_error(self, conn: Connection, exc: Exception) -> None:
        """A callback or a hook raised `exc`. The connection is being closed.

        Logs it with its traceback to the logger "gevffi".
        """
        logger.error("%r: %r", conn, exc, exc_info=exc)
