"""What a user writes: callbacks, each called on the thread of the connection's loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from gevffi.batch import Batch
    from gevffi.connection import Connection
    from gevffi.connection_info import CloseReason

logger = logging.getLogger("gevffi")


class Handler:
    """The callbacks of a server's or a client's connections.

    One handler serves all connections; what belongs to one of them goes into `conn.context`.
    For each connection `on_connect` comes first and `on_close` last, each exactly once, and all
    callbacks run one after the other on the thread of that connection's loop: never block in one.
    Of a connection that `EventLoop.connect` was to make and could not, `on_connect_failed` is the
    only one.

    An exception in a callback is given to `on_error` and closes that connection with
    `CloseReason.HANDLER_ERROR`; the others go on.
    """

    def on_connect(self, conn: Connection) -> None:
        """The connection is open; `conn.send` works (gev: OnConnect)."""

    def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
        """A connection asked for with `EventLoop.connect` cannot be had. `conn` is closed.

        Logs it to the logger "gevffi". To try again call `conn.loop.connect`, but not at once: by
        `conn.loop.call_later`, for one.

        Args:
            conn: what `connect` returned.
            exc: why: `ConnectionRefusedError`, `TimeoutError`, `socket.gaierror` for a name that
                is not known, `ConnectionAbortedError` after `conn.close()` or `conn.abort()` and
                when the loop stops, or another one. If all addresses of a name have failed, the
                message has the reason of each, and the type is that of the first.
        """
        logger.warning("%s", exc.strerror)

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        """A message has arrived (gev: OnMessage).

        Args:
            conn: whose it is.
            ctx: what the protocol's `unpacket` said of it; None for a protocol without.
            data: the message; from `Raw` a read-only `memoryview` of whatever bytes were there.
                It is a slice of the receive memory, not a copy, and stays valid and unchanged for
                as long as anybody keeps it.

        Returns:
            What to send back, through the protocol's `packet`; None for nothing. It is sent also if
            the callback has called `conn.close()`.
        """

    on_batch: Callable[[Any, Batch], Any] | None = None
    """`on_batch(conn, batch)`, if a handler defines it, is called instead of `on_message`: once for
    all frames of a read, as a `gevffi.Batch`. It needs a protocol that is cut in C. Returns a list
    (or tuple, or batch) of replies, a single reply, or None. The batch itself, returned as it came,
    takes no step for each of its frames."""

    def on_close(self, conn: Connection, reason: CloseReason) -> None:
        """The connection is gone; nothing can be sent any more (gev: OnClose)."""

    def on_eof(self, conn: Connection) -> bool | None:
        """The peer will send no more, but may still be reading (it called shutdown(SHUT_WR)).

        Return True to keep our side open until `conn.close()`. Otherwise what is unsent is sent
        and the connection closes with `CloseReason.EOF`. Not called when our side has ended before,
        by `shutdown_write`: then that was the end of the connection.
        """
        return None

    def on_high_water(self, conn: Connection) -> None:
        """Unsent output has passed `write_high_water`; reading from this peer is paused."""

    def on_drain(self, conn: Connection) -> None:
        """Unsent output is down to half of `write_high_water`; reading goes on."""

    def on_stop(self, conn: Connection) -> None:
        """The loop stops, and closes this connection next: the time for last words to the peer."""

    def on_error(self, conn: Connection, exc: Exception) -> None:
        """A callback or the protocol raised `exc`. The connection is being closed.

        Logs it with its traceback to the logger "gevffi". Override to do something else.
        """
        logger.error("connection %s: %r", conn, exc, exc_info=exc)
