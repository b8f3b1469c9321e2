"""The server's side of WebSockets, between `gevffi.Server` and a `Handler` of messages.

    gevffi.Server                                                   gevffi.ws.Handler
         │  bytes                                                              ▲
         ▼                                                                     │  on_open, ...
    Protocol ── the opening handshake ──▶ Adapter ──▶ Connection ──────────────┘
                                             │            ▲  ▲
                                             └─ Keeper ───┘  └─ Frames, cut in C
                                                pings, deadlines

A connection begins under a `Protocol`, which takes the handshake apart. Once it is accepted the
connection goes on under `Frames`.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

from gevffi import _ws_handshake
from gevffi._ws_connection import Connection, send_to_all
from gevffi._ws_deflate import Deflate
from gevffi._ws_delivery import Frames
from gevffi._ws_handler import Handler
from gevffi._ws_handshake import Answer
from gevffi._ws_http import Response
from gevffi._ws_keeper import Deadlines, Keeper
from gevffi._ws_messages import State
from gevffi.connection import CloseReason
from gevffi.connection import Connection as Transport
from gevffi.handler import Handler as TransportHandler
from gevffi.loop import EventLoop
from gevffi.protocol import Protocol as TransportProtocol
from gevffi.readbuf import ReadBuffer
from gevffi.sys.websocket import MOST

_INTERNAL_ERROR = 1011


class Protocol(TransportProtocol):
    """WebSockets for a `gevffi.Server` (gev: websocket.New), which takes a handler made by `wrap`.

        protocol = gevffi.ws.Protocol(path="/chat")
        gevffi.Server(protocol.wrap(Chat()), address, protocol=protocol).start()

    Times are seconds, sizes bytes.

    Args:
        path, origins, subprotocols, max_header_size: see `Upgrader`.
        upgrader: `Upgrader`, or a subclass of it with hooks.
        compression: how messages may be compressed; None: not at all.
        max_message_size: the most bytes of a message, over all its frames, inflated.
        ping_interval: between two pings to a client; 0: none.
        ping_timeout: what it may take until something comes after a ping; else the connection
            closes with 1011.
        handshake_timeout: what a client may take from connecting to the end of its handshake.
        text: "str", or "bytes" to have text delivered as `bytes`.

    Raises:
        ValueError: an option that cannot be meant.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        origins: Any = None,
        subprotocols: Any = (),
        upgrader: type[_ws_handshake.Upgrader] = _ws_handshake.Upgrader,
        compression: Deflate | None = Deflate(),  # noqa: B008 - it is frozen
        max_message_size: int = 1 << 20,
        max_header_size: int = 16 * 1024,
        ping_interval: float = 20,
        ping_timeout: float = 20,
        handshake_timeout: float = 10,
        text: str = "str",
    ) -> None:
        if compression is not None and not isinstance(compression, Deflate):
            raise ValueError(f"compression must be a Deflate or None, not {compression!r}")
        self.upgrader = upgrader(
            path=path,
            origins=origins,
            subprotocols=subprotocols,
            deflate=compression,
            max_header_size=max_header_size,
        )
        if text not in ("str", "bytes"):
            raise ValueError(f"text must be 'str' or 'bytes', not {text!r}")
        if isinstance(max_message_size, bool) or not 0 <= max_message_size <= MOST:
            raise ValueError(f"max_message_size must be 0 to {MOST}, not {max_message_size!r}")
        for name, seconds, least in (
            ("ping_interval", ping_interval, "0 or more"),
            ("ping_timeout", ping_timeout, "more than 0"),
            ("handshake_timeout", handshake_timeout, "more than 0"),
        ):
            if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and "than" in least):
                raise ValueError(f"{name} must be {least}, not {seconds!r}")
        self.max_message_size = max_message_size
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.handshake_timeout = handshake_timeout
        self.text_as_bytes = text == "bytes"

    def wrap(self, handler: Handler) -> TransportHandler:
        """Return what a `gevffi.Server` with this protocol needs for a handler, to serve
        `handler` (gev: NewHandlerWrap)."""
        return Adapter(handler, self)

    def unpacket(self, conn: Transport, buffer: ReadBuffer) -> tuple[Any, Any]:
        """Take what there is of the opening handshake."""
        if buffer.is_empty:
            return None, None
        ws = conn.context
        if not isinstance(ws, Connection):
            raise TypeError("the server's handler must be made by gevffi.ws.Protocol.wrap")
        assert ws._opening is not None
        data = buffer.peek()
        try:
            answer = ws._opening.feed(data)
        except Exception:  # of a hook
            conn.send(Response(500).encode())
            raise
        buffer.retrieve(len(data) - (len(answer.rest) if answer is not None else 0))
        return self, answer


class Adapter(TransportHandler):
    """Turns a server's callbacks into a WebSocket handler's; made by `Protocol.wrap`."""

    def __init__(self, handler: Handler, protocol: Protocol) -> None:
        self._handler = handler
        self._protocol = protocol
        # Of connections without compression, and with it.
        self._plain, self._compressed = (
            Frames(
                handler,
                server=True,
                compression=compression,
                max_message_size=protocol.max_message_size,
                text_as_bytes=protocol.text_as_bytes,
            )
            for compression in (None, protocol.upgrader.deflate)
        )
        # Held by their connections and timers alone, so that no loop is held from here.
        self._keepers: weakref.WeakValueDictionary[int, LoopKeeper] = weakref.WeakValueDictionary()

    # ---- what the server calls ------------------------------------------------------------------

    def on_connect(self, conn: Transport) -> None:
        """Wait for the handshake."""
        keeper = self._keepers.get(id(conn.loop))
        if keeper is None:
            keeper = self._keepers[id(conn.loop)] = LoopKeeper(conn.loop, self._protocol)
        ws = conn.context = Connection(conn, self, keeper)
        ws._opening = self._protocol.upgrader.opening(ws)
        keeper.put(ws, keeper.handshake)

    def on_message(self, conn: Transport, ctx: Any, data: Any) -> Any:
        """Take the handshake's answer."""
        if data is not None:
            self._answer(conn, conn.context, data)

    def on_close(self, conn: Transport, reason: CloseReason) -> None:
        """Tell the handler."""
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

    def on_error(self, conn: Transport, exc: Exception) -> None:
        """Tell the handler, and the peer."""
        ws: Connection = conn.context
        ws._fail(_INTERNAL_ERROR, "")
        self._handler.on_error(ws, exc)

    # ---------------------------------------------------------------------------------------------

    def _answer(self, conn: Transport, ws: Connection, answer: Answer) -> None:
        conn.send(answer.data)
        keeper = ws._keeper
        keeper.drop(ws)
        if not answer.accepted or answer.request is None:
            conn.close()
            return
        ws._opened(
            self._plain if answer.deflate is None else self._compressed,
            server=True,
            max_message_size=self._protocol.max_message_size,
            agreement=answer.deflate,
            subprotocol=answer.subprotocol,
        )
        if keeper.ping.delay:
            keeper.put(ws, keeper.ping)
        self._handler.on_open(ws, answer.request)

    def go_away(self, loop: EventLoop) -> None:
        """Tell all clients of a loop that the server ends (1001). On its thread."""
        for ws in self._all(loop):
            ws._close(1001, "")

    def broadcast(self, loop: EventLoop, frame: bytes) -> None:
        """Send a frame to all clients of a loop. On its thread."""
        send_to_all(loop, self._all(loop), frame)

    def _all(self, loop: EventLoop) -> list[Connection]:
        contexts = [conn.context for conn in loop._life.all()]
        return [ws for ws in contexts if isinstance(ws, Connection) and ws._adapter is self]


class LoopKeeper(Keeper):
    """What is to happen when, for the connections of a loop."""

    def __init__(self, loop: EventLoop, protocol: Protocol) -> None:
        self.handshake = Deadlines(protocol.handshake_timeout, self._no_handshake)
        self.ping = Deadlines(protocol.ping_interval, self._ping)
        self.answer = Deadlines(protocol.ping_timeout, self._no_answer)
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
