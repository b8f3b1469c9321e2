"""Between the callbacks of a `gevffi.Connection` and those of a WebSocket: what both sides share.

    gevffi.Handler                                                  gevffi.ws.Handler
         │  on_close, on_drain, ...                                            ▲
         ▼                                                                     │  on_message, ...
      Adapter ──▶ Connection ◀── Frames ───────────────────────────────────────┘
         │             ▲
         └── Keeper ───┘ pings, deadlines

How a connection becomes a WebSocket is for `_ws_server` and `_ws_connector`, each with an adapter
of its own.
"""

from __future__ import annotations

import weakref
from typing import Any

from gevffi._ws_connection import Connection
from gevffi._ws_delivery import Frames
from gevffi._ws_handler import Handler
from gevffi._ws_http import Response
from gevffi._ws_keeper import Deadlines, Keeper
from gevffi._ws_messages import State
from gevffi._ws_terms import Terms
from gevffi.connection import Connection as Transport
from gevffi.connection_info import CloseReason
from gevffi.handler import Handler as TransportHandler
from gevffi.loop import EventLoop

_INTERNAL_ERROR = 1011
_GOING_AWAY = 1001

# Held by their connections and timers alone, so that no loop is held from here.
_keepers: weakref.WeakValueDictionary[tuple[int, Terms], LoopKeeper] = weakref.WeakValueDictionary()


class Adapter(TransportHandler):
    """Turns a connection's callbacks into a WebSocket handler's. Its `context` is the WebSocket."""

    def __init__(self, handler: Handler, terms: Terms) -> None:
        self._handler = handler
        self._terms = terms

    # ---- what the loop calls --------------------------------------------------------------------

    def on_message(self, conn: Transport, ctx: Any, data: Any) -> Any:
        """Take what the handshake came to; frames have a way of their own."""
        if data is not None:
            self._answered(conn, conn.context, data)

    def _answered(self, conn: Transport, ws: Any, answer: Any) -> None:
        raise NotImplementedError

    def _make_frames(self, *, server: bool, compressed: bool) -> Frames:
        """What cuts the frames of connections on these terms."""
        terms = self._terms
        return Frames(
            self._handler,
            server=server,
            compression=terms.compression if compressed else None,
            max_message_size=terms.max_message_size,
            text_as_bytes=terms.text == "bytes",
        )

    def on_close(self, conn: Transport, reason: CloseReason) -> None:
        """Tell the handler, if the handshake was done."""
        ws: Connection = conn.context
        ws._keeper.drop(ws)
        ws._opening = ws._left = None
        messages = ws._messages
        if messages is not None:
            if messages.state is not State.CLOSED:
                messages.receive_eof()
            self._handler.on_close(ws, messages.code, messages.reason)

    def on_high_water(self, conn: Transport) -> None:
        """Tell the handler."""
        self._handler.on_high_water(conn.context)

    def on_drain(self, conn: Transport) -> None:
        """Tell the handler."""
        self._handler.on_drain(conn.context)

    def on_stop(self, conn: Transport) -> None:
        """Tell the peer."""
        ws: Connection = conn.context
        if ws._messages is not None:
            ws._close(_GOING_AWAY, "")

    def on_error(self, conn: Transport, exc: Exception) -> None:
        """Tell the handler, and the peer."""
        ws: Connection = conn.context
        ws._fail(_INTERNAL_ERROR, "")
        self._handler.on_error(ws, exc)


class LoopKeeper(Keeper):
    """What is to happen when, for the connections of a loop that are kept on the same terms."""

    @classmethod
    def of(cls, loop: EventLoop, terms: Terms) -> LoopKeeper:
        """The one for both. On the loop's thread."""
        keeper = _keepers.get((id(loop), terms))
        if keeper is None:
            keeper = _keepers[id(loop), terms] = cls(loop, terms)
        return keeper

    def __init__(self, loop: EventLoop, terms: Terms) -> None:
        self.handshake = Deadlines(terms.handshake_timeout, self._no_handshake)
        self.ping = Deadlines(terms.ping_interval, self._ping)
        self.answer = Deadlines(terms.ping_timeout, self._no_answer)
        self.closing = Deadlines(loop.options.close_timeout, self._no_close)
        super().__init__(loop, (self.handshake, self.ping, self.answer, self.closing))

    def _no_handshake(self, ws: Connection) -> None:
        ws.transport.send(Response(408).encode())
        ws.transport._close(CloseReason.TIMEOUT)

    def _ping(self, ws: Connection) -> None:
        if ws.connected:
            conn = ws.transport
            ws._heard = False
            ws._unfinished = conn.read_buffer_length
            ws._sent = ws.loop._reactor.sent(conn._token) if conn.write_buffer_length else -1
            ws._ping(b"")
            self.put(ws, self.answer)

    def _lives(self, ws: Connection) -> bool:
        """Whether something has come from the peer since the last ping.

        In the middle of a long frame it cannot answer, but that has grown then. While it is behind
        with reading nothing is read from it either, but it has taken some of what waited then.
        """
        conn = ws.transport
        return (
            ws._heard
            or conn.read_buffer_length != ws._unfinished
            or 0 <= ws._sent < ws.loop._reactor.sent(conn._token)
        )

    def _no_answer(self, ws: Connection) -> None:
        if ws._paused or self._lives(ws):
            self.put(ws, self.ping)
        elif ws.connected:
            ws._fail(_INTERNAL_ERROR, "no answer to a ping")
            ws.transport._close(CloseReason.TIMEOUT)

    def _no_close(self, ws: Connection) -> None:
        ws.transport._close(CloseReason.TIMEOUT)
