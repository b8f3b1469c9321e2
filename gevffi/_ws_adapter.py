"""Between the callbacks of a `gevffi.Connection` and those of a WebSocket: what both sides share.

    gevffi.Handler                                                  gevffi.ws.Handler
         │  on_message(bytes), on_close, ...                                   ▲
         ▼                                                                     │  on_message, ...
      Adapter ──▶ Connection: frames, messages ────────────────────────────────┘
         │             ▲
         └── Keeper ───┘ pings, deadlines

How a connection becomes a WebSocket is for `_ws_server` and `_ws_connector`, each with an adapter
of its own.
"""

from __future__ import annotations

from typing import Any

from gevffi._ws_connection import Connection
from gevffi._ws_frames import BINARY, TEXT
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


class Adapter(TransportHandler):
    """Turns a connection's callbacks into a WebSocket handler's. Its `context` is the WebSocket."""

    def __init__(self, handler: Handler, terms: Terms) -> None:
        self._handler = handler
        self._terms = terms
        as_bytes = terms.text == "bytes"
        self._text: Any = bytes if as_bytes else _decode
        self._text_types = (str, bytes) if as_bytes else (str,)

    # ---- what the loop calls --------------------------------------------------------------------

    def on_message(self, conn: Transport, ctx: Any, data: Any) -> Any:
        """Take what the handshake came to, and then frames."""
        if ctx is None:
            conn.context._take(data)
        elif data is not None:
            self._answered(conn, conn.context, data)

    def _answered(self, conn: Transport, ws: Any, answer: Any) -> None:
        raise NotImplementedError

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

    # ---- what connections call ------------------------------------------------------------------

    def message(self, ws: Connection, opcode: int, data: Any) -> None:
        """A message has come: deliver it, and send the reply."""
        message = self._text(data) if opcode == TEXT else memoryview(data).toreadonly()
        reply = self._handler.on_message(ws, message)
        if reply is None:
            return
        if isinstance(reply, self._text_types):
            ws._post(TEXT, reply.encode() if isinstance(reply, str) else reply)
        else:
            ws._post(BINARY, reply)

    def control(self, ws: Connection, is_ping: bool, data: Any) -> None:
        """A ping or a pong has come."""
        callback = self._handler.on_ping if is_ping else self._handler.on_pong
        callback(ws, bytes(data))


class LoopKeeper(Keeper):
    """What is to happen when, for the connections of a loop."""

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
            ws._heard = False
            ws._ping(b"")
            self.put(ws, self.answer)

    def _no_answer(self, ws: Connection) -> None:
        if ws._heard or ws._paused:
            self.put(ws, self.ping)
        elif ws.connected:
            ws._fail(_INTERNAL_ERROR, "no answer to a ping")
            ws.transport._close(CloseReason.TIMEOUT)

    def _no_close(self, ws: Connection) -> None:
        ws.transport._close(CloseReason.TIMEOUT)


def _decode(data: Any) -> str:
    return str(data, "utf-8")
