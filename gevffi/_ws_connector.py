"""The client's side of WebSockets, on a loop: from a URL to an open `Connection`.

    connect() ──▶ TCP, by EventLoop.connect ──▶ the request, its answer ──▶ on_open, then what was
                          │                              │                  asked for meanwhile
                          ▼                              ▼
                  on_connect_failed: no address is left, the time is over, another answer, given up

A `ClientConnection` is a `Connection` that exists before it is open, sends masked frames, and
leaves it to the server to close TCP. Each has an adapter of its own, as each has its own URL. What
cuts frames is shared by all that have the same handler and terms, and deadlines are kept together
for all of a loop that have the same terms.
"""

from __future__ import annotations

import errno
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from gevffi._ws_adapter import Adapter, LoopKeeper
from gevffi._ws_connect import ClientOpening, HandshakeError, Opened
from gevffi._ws_connection import Connection
from gevffi._ws_deflate import Deflate
from gevffi._ws_delivery import Frames
from gevffi._ws_handler import Handler
from gevffi._ws_http import Fields
from gevffi._ws_terms import Terms
from gevffi.connection import Connection as Transport
from gevffi.connection_info import CloseReason
from gevffi.loop import EventLoop
from gevffi.protocol import Protocol
from gevffi.readbuf import ReadBuffer
from gevffi.timers import Timer

# Held by their connections alone, so that no handler is held from here.
_frames: weakref.WeakValueDictionary[tuple[int, Terms, bool], Frames] = (
    weakref.WeakValueDictionary()
)


def connect(
    loop: EventLoop,
    url: str,
    handler: Handler,
    *,
    timeout: float = 10.0,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    headers: Fields = (),
    compression: Deflate | None = Deflate(),  # noqa: B008 - it is frozen
    max_message_size: int = 1 << 20,
    max_header_size: int = 16 * 1024,
    ping_interval: float = 20,
    ping_timeout: float = 20,
    text: str = "str",
) -> Connection:
    """Make a WebSocket to `url`. From any thread; returns at once.

    Later, and never during this call, either `handler.on_open` is called, and from there on it is
    a connection like those of a server, or `handler.on_connect_failed`. What is sent meanwhile
    waits, up to the loop's `write_limit`, and goes out after what `on_open` sends. Times are
    seconds, sizes bytes.

    Args:
        loop: whose connection it will be; its `Options` count.
        url: "ws://host:port/path?query", percent-encoded. Names and addresses are as for
            `EventLoop.connect`.
        handler: gets the callbacks of this connection.
        timeout: until it is a `TimeoutError`: looking up, connecting and the server's answer
            together.
        subprotocols: what we speak, dearest first.
        origin: of the page we stand for, if we stand for one.
        headers: further fields of the request.
        compression: how messages may be compressed; None: not at all.
        max_message_size: the most bytes of a message, over all its frames, inflated.
        max_header_size: the most bytes of the answer's head.
        ping_interval: between two pings to the server; 0: none.
        ping_timeout: what it may take until something has come after a ping: a frame, the pong or
            another, or more of an unfinished one, or until the server has taken some of the output
            that waited for it; else the connection closes with 1011.
        text: "str", or "bytes" to have text delivered as `bytes`.

    Raises:
        ValueError: a bad URL or option; the message names it.
        TypeError: `handler` is no `Handler`.
        RuntimeError: the loop has ended.
    """
    if not isinstance(handler, Handler):
        raise TypeError(f"handler must be a gevffi.ws.Handler, not {handler!r}")
    terms = Terms(
        compression=compression,
        max_message_size=max_message_size,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        handshake_timeout=timeout,
        text=text,
    )
    opening = ClientOpening(
        url,
        subprotocols=subprotocols,
        origin=origin,
        deflate=compression,
        headers=headers,
        max_header_size=max_header_size,
    )
    adapter = ClientAdapter(handler, terms, opening)
    loop.call_soon_threadsafe(adapter.begin)
    address = (opening.url.host, opening.url.port)
    # The callbacks may come before this returns, and set it too.
    adapter.ws.transport = loop.connect(address, adapter, _Answer(), timeout)
    return adapter.ws


class ClientConnection(Connection):
    """A WebSocket that `connect` makes. Belongs to its loop as any other."""

    __slots__ = ("_early", "_early_size", "_failure")
    _masks = True

    def __init__(self, adapter: Adapter) -> None:
        # There is no transport yet, and the keeper is not needed before it is open.
        super().__init__(None, adapter, None)  # type: ignore[arg-type]
        self._early: list[tuple[Callable[..., object], tuple[Any, ...]]] | None = []
        """What was asked for while it is not open yet; None from then on, or when it cannot be."""
        self._early_size = 0
        self._failure: Exception | None = None
        """Why it cannot be, if not for what the connection below says."""

    def _send(self, opcode: int, data: Any) -> None:
        if self._early is None:
            super()._send(opcode, data)
            return
        limit = self.loop.options.write_limit
        self._early_size += len(data)
        if self._early_size > limit:
            why = f"{self._early_size} bytes are waiting for it, write_limit is {limit}"
            self._give_up(OSError(errno.ENOBUFS, self._cannot(why)))
        else:
            self._early.append((self._send, (opcode, bytes(data))))

    def _ping(self, data: bytes) -> None:
        if self._early is None:
            super()._ping(data)
        else:
            self._early.append((self._ping, (data,)))

    def _close(self, code: int | None, reason: str) -> None:
        if self._early is None:
            super()._close(code, reason)
        elif self._early:
            self._early.append((self._close, (code, reason)))
        else:
            self._give_up(OSError(errno.ECONNABORTED, self._cannot("it was closed")))

    def pause_reading(self) -> None:
        """Deliver no messages; one that is not open yet will be open without reading."""
        if self._early is None:
            super().pause_reading()
        else:
            self.loop.check_thread()
            self._paused = True

    def resume_reading(self) -> None:
        """Deliver messages again."""
        if self._early is None:
            super().resume_reading()
        else:
            self.loop.check_thread()
            self._paused = False

    def _end(self) -> None:
        """The closing handshake is done: wait until the server has closed TCP, for a while."""
        self.loop._delivery.end_run(self.transport)  # what follows is nobody's
        keeper = self._keeper
        if self._deadline is not keeper.closing:
            keeper.put(self, keeper.closing)

    def _give_up(self, exc: Exception) -> None:
        """It will not be open; the handler is told when the connection below is gone."""
        self._early = None
        self._failure = exc
        self.transport.abort()

    def _cannot(self, why: str) -> str:
        adapter: Any = self._adapter
        return f"cannot connect to {adapter.url}: {why}"


class _Answer(Protocol):
    """Takes the server's answer apart."""

    def unpacket(self, conn: Transport, buffer: ReadBuffer) -> tuple[Any, Any]:
        """Take what there is of it."""
        if buffer.is_empty:
            return None, None
        data = buffer.peek()
        answer: Opened | HandshakeError | None
        try:
            answer = conn.context._adapter.opening.feed(data)
        except HandshakeError as exc:
            answer = exc
        rest = len(answer.rest) if isinstance(answer, Opened) else 0
        buffer.retrieve(len(data) - rest)
        return self, answer


class ClientAdapter(Adapter):
    """Turns a client connection's callbacks into a WebSocket handler's."""

    def __init__(self, handler: Handler, terms: Terms, opening: ClientOpening) -> None:
        super().__init__(handler, terms)
        self.ws = ClientConnection(self)
        self.opening: ClientOpening | None = opening
        self.url = f"ws://{opening.url.field}{opening.url.target}"
        self._deadline = 0.0
        self._timer: Timer | None = None

    def begin(self) -> None:
        """The time counts from here. On the loop's thread."""
        self._deadline = time.monotonic() + self._terms.handshake_timeout

    # ---- what the loop calls --------------------------------------------------------------------

    def on_connect(self, conn: Transport) -> None:
        """Ask."""
        ws = conn.context = self.ws
        ws.transport = conn
        left = max(0.0, self._deadline - time.monotonic())
        self._timer = conn.loop.call_later(left, self._time_over)
        assert self.opening is not None
        conn.send(self.opening.request)

    def on_connect_failed(self, conn: Transport, exc: OSError) -> None:
        """Tell the handler."""
        ws = conn.context = self.ws
        ws.transport = conn
        self._failed(exc)

    def _answered(self, conn: Transport, ws: ClientConnection, answer: Any) -> None:
        if isinstance(answer, HandshakeError):
            why = ws._cannot(str(answer))
            ws._give_up(HandshakeError(why, answer.status, answer.headers))
            return
        self._stop_waiting()
        self.opening = None
        terms = self._terms
        ws._opened(
            self._cutting(compressed=answer.deflate is not None),
            server=False,
            max_message_size=terms.max_message_size,
            agreement=answer.deflate,
            subprotocol=answer.subprotocol,
        )
        if ws._paused:
            conn.pause_reading()
        keeper = ws._keeper = LoopKeeper.of(conn.loop, terms)
        if keeper.ping.delay:
            keeper.put(ws, keeper.ping)
        early, ws._early = ws._early, None
        self._handler.on_open(ws, answer._replace(rest=b""))
        for call, arguments in early or ():
            call(*arguments)

    def _cutting(self, *, compressed: bool) -> Frames:
        key = (id(self._handler), self._terms, compressed)
        frames = _frames.get(key)
        if frames is None:
            frames = _frames[key] = self._make_frames(server=False, compressed=compressed)
        return frames

    def on_close(self, conn: Transport, reason: CloseReason) -> None:
        """Tell the handler."""
        if self.opening is None:
            super().on_close(conn, reason)
        else:
            self._failed(self._why(reason))

    def _failed(self, exc: Exception) -> None:
        ws = self.ws
        self._stop_waiting()
        ws._early = self.opening = None
        self._handler.on_connect_failed(ws, ws._failure or exc)

    def _why(self, reason: CloseReason) -> Exception:
        cannot = self.ws._cannot
        if reason is CloseReason.EOF:
            return HandshakeError(cannot("the server ended the connection without an answer"))
        if reason is CloseReason.RESET:
            return ConnectionResetError(errno.ECONNRESET, cannot("the server reset the connection"))
        why = {CloseReason.LOCAL: "it was aborted", CloseReason.SHUTDOWN: "the loop stops"}
        return ConnectionAbortedError(errno.ECONNABORTED, cannot(why.get(reason, reason.name)))

    def _time_over(self) -> None:
        seconds = self._terms.handshake_timeout
        why = f"the server did not answer within {seconds:g} s"
        self.ws._give_up(TimeoutError(errno.ETIMEDOUT, self.ws._cannot(why)))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
