"""The server's side of WebSockets, between `gevffi.Server` and a `Handler` of messages.

    gevffi.Server                                                   gevffi.ws.Handler
         │  bytes                                                              ▲
         ▼                                                                     │  on_open, ...
    Protocol ── the opening handshake ──▶ ServerAdapter ──▶ Connection ────────┘
                                                                ▲
                                                                └─ Frames, cut in C

A connection begins under a `Protocol`, which takes the handshake apart. Once it is accepted the
connection goes on under `Frames`.
"""

from __future__ import annotations

from typing import Any

from gevffi import _ws_handshake
from gevffi._ws_adapter import Adapter, LoopKeeper
from gevffi._ws_connection import Connection
from gevffi._ws_deflate import Deflate
from gevffi._ws_handler import Handler
from gevffi._ws_handshake import Answer
from gevffi._ws_http import Response
from gevffi._ws_terms import Terms
from gevffi.connection import Connection as Transport
from gevffi.handler import Handler as TransportHandler
from gevffi.listener import AddressLike
from gevffi.loop import EventLoop
from gevffi.options import OptionArgs
from gevffi.protocol import Protocol as TransportProtocol
from gevffi.readbuf import ReadBuffer


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
        ping_timeout: what it may take until something has come after a ping: a frame, the pong or
            another, or more of an unfinished one, or until the client has taken some of the output
            that waited for it; else the connection closes with 1011.
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
        self.terms = Terms(
            compression=compression,
            max_message_size=max_message_size,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            handshake_timeout=handshake_timeout,
            text=text,
        )
        if not (isinstance(upgrader, type) and issubclass(upgrader, _ws_handshake.Upgrader)):
            raise ValueError(f"upgrader must be gevffi.ws.Upgrader or a subclass, not {upgrader!r}")
        self.upgrader = upgrader(
            path=path,
            origins=origins,
            subprotocols=subprotocols,
            deflate=compression,
            max_header_size=max_header_size,
        )

    def wrap(self, handler: Handler) -> TransportHandler:
        """Return what a `gevffi.Server` with this protocol needs for a handler, to serve
        `handler` (gev: NewHandlerWrap)."""
        return ServerAdapter(handler, self)

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


class ServerArgs(OptionArgs, total=False):
    """What `gevffi.ws.Server` takes besides, for type checkers and editors: the arguments of
    `Protocol`, and `metrics_address`; the tests compare them."""

    path: str | None
    origins: Any
    subprotocols: Any
    upgrader: type[_ws_handshake.Upgrader]
    compression: Deflate | None
    max_message_size: int
    max_header_size: int
    ping_interval: float
    ping_timeout: float
    handshake_timeout: float
    text: str
    metrics_address: AddressLike | None


class ServerAdapter(Adapter):
    """Turns a server's callbacks into a WebSocket handler's; made by `Protocol.wrap`."""

    def __init__(self, handler: Handler, protocol: Protocol) -> None:
        super().__init__(handler, protocol.terms)
        self._upgrader = protocol.upgrader
        # Of connections without compression, and with it.
        self._plain = self._make_frames(server=True, compressed=False)
        self._compressed = self._make_frames(server=True, compressed=True)

    def on_connect(self, conn: Transport) -> None:
        """Wait for the handshake."""
        keeper = LoopKeeper.of(conn.loop, self._terms)
        ws = conn.context = Connection(conn, self, keeper)
        ws._opening = self._upgrader.opening(ws)
        keeper.put(ws, keeper.handshake)

    def on_stop(self, conn: Transport) -> None:
        """Tell the peer; one that is in the middle of its handshake is told in HTTP."""
        ws: Connection = conn.context
        if ws._opening is not None and ws._opening.begun:
            conn.send(Response(503).encode())
        super().on_stop(conn)

    def _answered(self, conn: Transport, ws: Connection, answer: Answer) -> None:
        conn.send(answer.data)
        keeper = ws._keeper
        keeper.drop(ws)
        if not answer.accepted or answer.request is None:
            conn.close()
            return
        ws._opened(
            self._plain if answer.deflate is None else self._compressed,
            server=True,
            max_message_size=self._terms.max_message_size,
            agreement=answer.deflate,
            subprotocol=answer.subprotocol,
        )
        if keeper.ping.delay:
            keeper.put(ws, keeper.ping)
        self._handler.on_open(ws, answer.request)

    def broadcast(self, loop: EventLoop, frame: bytes) -> None:
        """Send a frame to all clients of a loop. On its thread."""
        loop._broadcaster.send_frame(frame, (self._plain, self._compressed))
