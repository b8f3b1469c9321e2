"""The connections of a loop, from the moment they are open to their `on_close`.

Messages are `delivery.py`'s. Here is everything else that happens to a connection: what C reports
of a turn as changes, closing, and what becomes of an exception.

    admit ──▶ on_connect ──▶ on_high_water, on_drain, on_sent, on_eof ──▶ closed ──▶ on_close
                   │                          │                             ▲
                   └────── an exception ──────┴──▶ on_error, close ─────────┘

Every callback but those of messages goes through `guard`: what it raises costs this connection
alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevffi.connection import Connection
from gevffi.connection_info import CLOSING, OPEN, CloseReason
from gevffi.protocol import FrameTooLargeError, ProtocolError
from gevffi.stats import Counters
from gevffi.sys.reactor import Reactor
from gevffi.sys.results import Change

if TYPE_CHECKING:
    from gevffi.loop import EventLoop

logger = logging.getLogger("gevffi")

_REASONS = tuple(sorted(CloseReason, key=lambda reason: int(reason.value)))


class Lifecycle:
    """The open and closing connections of `loop`. Belongs to its thread, but for the numbers.

    Args:
        loop: whose they are.
        reactor: knows them by slot.
    """

    def __init__(self, loop: EventLoop, reactor: Reactor) -> None:
        self._loop = loop
        self._reactor = reactor
        self.conns: list[Connection | None] = []
        """By slot. Extended, never replaced: the delivery holds on to it."""
        self.count = 0
        """Of those that are open or closing."""
        self.ended = 0
        """Connections ever closed, and those that were given to the loop and did not get in."""
        self.counters = Counters()
        self.closing: list[tuple[Connection, CloseReason]] = []
        """To be closed when the outbox was flushed."""

    # ---- who is there ---------------------------------------------------------------------------

    def admit(self, conn: Connection) -> None:
        """Take in a connection whose token C has just given; tell it of no callback."""
        loop = self._loop
        if conn._framing is not None:
            self._reactor.frame(conn._token, conn._framing.description)
        slot = conn._token & 0xFFFFFFFF
        if slot >= len(self.conns):
            self.conns.extend([None] * (slot + 1 - len(self.conns)))
        self.conns[slot] = conn
        loop._broadcaster.changed()
        self.count += 1

    def all(self) -> list[Connection]:
        """Return all of them."""
        return [conn for conn in self.conns if conn is not None]

    # ---- what C reports -------------------------------------------------------------------------

    def apply(self, changes: int) -> None:
        """Tell the handlers of a turn's changes."""
        for slot, what, reason in self._reactor.results.changes(changes):
            conn = self.conns[slot] if slot < len(self.conns) else None
            if conn is None:  # it was connecting
                conn = self._loop._connector.settle(slot, what, reason)
                if conn is None:
                    continue
            handler = conn._handler
            if what & Change.HIGH_WATER:
                self.guard(conn, handler.on_high_water)
            if what & Change.DRAINED:
                self.guard(conn, handler.on_drain)
            if what & Change.SENT:
                self.guard(conn, Connection._fire_sent)
            if what & Change.BAD_FRAME:
                self._bad_frame(conn, _REASONS[reason], bool(what & Change.BAD_TEXT))
            if what & Change.CLOSED:
                self._closed(slot, conn, _REASONS[reason])
            elif what & Change.EOF and conn._state == OPEN and not self.guard(conn, handler.on_eof):
                conn._close(CloseReason.EOF)

    def _bad_frame(self, conn: Connection, reason: CloseReason, bad_text: bool) -> None:
        logger.info("connection %s: %s under %r", conn, reason.name, conn._framing)
        too_large = reason is CloseReason.FRAME_TOO_LARGE
        try:
            conn._protocol.bad_frame(conn, too_large=too_large, bad_text=bad_text)
        except Exception as exc:
            self.report(conn, exc)
        finally:
            self._close_for(conn, reason)

    def _closed(self, slot: int, conn: Connection, reason: CloseReason) -> None:
        conn._closed()
        self.conns[slot] = None
        self.count -= 1
        self.ended += 1
        self.counters.closed[reason] += 1
        try:
            conn._handler.on_close(conn, reason)
        except Exception as exc:
            self.report(conn, exc)

    # ---- closing --------------------------------------------------------------------------------

    def close_flushed(self) -> None:
        """Begin the closes that were asked for, now that what was sent before them is with C."""
        closing, self.closing = self.closing, []
        loop = self._loop
        for conn, reason in closing:
            if conn._state != CLOSING:
                continue
            done = self._reactor.close_connection(conn._token, reason.value)
            if not done and not loop._stopping:  # `stop` has a deadline of its own
                conn._deadline = loop.call_later(
                    loop.options.close_timeout, conn._give_up, CloseReason.TIMEOUT
                )

    def finish(self) -> None:
        """The loop ends. Nothing is left to close unless an exception tore it down."""
        for slot, conn in enumerate(self.conns):
            if conn is not None:
                self._closed(slot, conn, CloseReason.SHUTDOWN)

    # ---- errors ---------------------------------------------------------------------------------

    def guard(self, conn: Connection, callback: Callable[[Connection], Any]) -> Any:
        """Call back; an exception costs this connection only."""
        try:
            return callback(conn)
        except Exception as exc:
            self.failed(conn, exc)

    def failed(self, conn: Connection, exc: Exception) -> None:
        """A callback or the protocol of `conn` raised: close it."""
        if isinstance(exc, ProtocolError):  # the peer's fault, not the program's
            too_large = isinstance(exc, FrameTooLargeError)
            logger.info("connection %s: %s", conn, exc)
            conn._close(CloseReason.FRAME_TOO_LARGE if too_large else CloseReason.PROTOCOL_ERROR)
        else:
            self.report(conn, exc)
            self._close_for(conn, CloseReason.HANDLER_ERROR)

    def _close_for(self, conn: Connection, reason: CloseReason) -> None:
        """Close it for this reason, also where the callback itself has just asked for a close."""
        conn._close(reason)
        self.closing = [(one, reason if one is conn else why) for one, why in self.closing]

    def report(self, conn: Connection, exc: Exception) -> None:
        """Tell the handler of an exception that closes nothing any more."""
        self.counters.handler_errors += 1
        try:
            conn._handler.on_error(conn, exc)
        except Exception as failure:
            self._loop._log(failure)
