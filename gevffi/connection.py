"""One connection, as handlers see it.

A `Connection` is small and owns no buffer: unsent output waits in C, received bytes belong to the
loop's arena, and only a protocol written in Python that left an unfinished frame behind has a ring
here. Its states:

    open ──close()──▶ closing (sends what waits, up to `close_timeout`) ──▶ closed
      └────────────────abort(), the peer, an error, a limit─────────────────▶ closed

One that `EventLoop.connect` makes is `connecting` before that; `connector.py` keeps what is asked
of it until it is open. What it tells of itself is in `connection_info.py`.

`on_close` is called on the way into `closed`, once, unless it never was open. Methods marked "from
any thread" are queued when another thread calls them, in order, and the loop is woken; the rest
belongs to the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevffi.connection_info import (
    CLOSED,
    CLOSING,
    CONNECTING,
    OPEN,
    CloseReason,
    ConnectionInfo,
)
from gevffi.framing import Framing
from gevffi.handler import Handler
from gevffi.protocol import Protocol, Raw, Receive, receiver
from gevffi.sys.sockaddr import Address

if TYPE_CHECKING:
    from gevffi.loop import EventLoop
    from gevffi.timers import Timer


def _discard(conn: Connection, _ctx: Any, data: memoryview) -> None:
    """What a connection does with bytes once it is closing."""
    if data or conn._framing is not None:
        conn._loop._reactor.recount(-1, 0)


def _give_back(conn: Connection, _ctx: Any, data: memoryview) -> None:
    """What one without a protocol does with bytes when it was paused since they were read."""
    reactor = conn._loop._reactor
    reactor.unread(conn._token, data)
    reactor.recount(-1, 0)


class Connection(ConnectionInfo):
    """A connection of a loop. Made by the loop; handlers get it in every callback."""

    __slots__ = (
        "_batches",
        "_cutting",
        "_deadline",
        "_handler",
        "_on_sent",
        "_packet",
        "_protocol",
        "_receive",
        "_served",
        "_tagged",
        "_unpacker",
        "_write_ended",
    )

    def __init__(
        self,
        loop: EventLoop,
        token: int,
        peer: bytes | Address,
        handler: Handler,
        protocol: Protocol,
        receive: Receive,
    ) -> None:
        super().__init__(loop, token, peer)
        self._cutting = True  # a protocol may take frames: open, and not paused
        self._install(handler, protocol, receive)
        self._on_sent: deque[tuple[int, Callable[[Connection], object]]] | None = None
        self._deadline: Timer | None = None
        self._write_ended = False  # by `shutdown_write`
        self._served = False  # one of those that a broadcast to all reaches

    def _install(self, handler: Handler, protocol: Protocol, receive: Receive) -> None:
        self._handler = handler
        self._protocol = protocol
        self._receive = receive
        # Its `packet`, unless that is the one that does nothing.
        packs = type(protocol).packet is not Protocol.packet
        self._packet: Callable[[Connection, Any], Any] | None = protocol.packet if packs else None
        self._framing = protocol if isinstance(protocol, Framing) else None
        # These are asked for each run, and here they are found faster.
        self._tagged = protocol.tagged
        self._batches = handler.on_batch is not None
        # What cuts in Python, so that it can tell when it is not wanted any more.
        self._unpacker = getattr(receive, "__self__", None)
        if not self._cutting:
            self._hold_back(receive)

    # ---- sending --------------------------------------------------------------------------------

    def send(self, data: Any, on_sent: Callable[[Connection], object] | None = None) -> None:
        """Send `data` through the protocol's `packet` (gev: Send). From any thread.

        The caller may reuse its buffer as soon as this returns. On a connection that is closing
        or closed this does nothing: a peer may leave at any moment, and `on_close` tells. Neither
        does it after `shutdown_write`. What is sent while it is still connecting waits, up to
        `write_limit`, and goes out after what `on_connect` sends.

        Args:
            data: bytes-like; with a protocol of one's own, whatever its `packet` takes.
            on_sent: called with the connection, on its loop's thread, when the kernel has taken
                all of `data`; not called if the connection closes before.

        Raises:
            TypeError: `data` is not bytes-like (and no protocol makes it so).
            ValueError: no frame of a declared protocol can hold it. From another thread that, and
                what `packet` raises, goes to `on_error` instead.
        """
        loop = self._loop
        if loop.in_loop():
            self._send(data, on_sent)
            return
        loop.call_soon_threadsafe(self._send_guarded, _own(data, self._packet), on_sent)

    def _send_guarded(self, data: Any, on_sent: Callable[[Connection], object] | None) -> None:
        try:
            self._send(data, on_sent)
        except Exception as exc:  # the thread that sent it is long gone; `packet` is to blame
            self._loop._life.failed(self, exc)

    def _send(self, data: Any, on_sent: Callable[[Connection], object] | None) -> None:
        if self._state != OPEN or self._write_ended:
            if self._state == CONNECTING:
                self._loop._connector.pending[self].send(_own(data, self._packet), on_sent)
            return
        self._send_packet(data)
        if on_sent is not None:
            loop = self._loop
            loop._outbox.flush()
            if self._on_sent is None:
                self._on_sent = deque()
            position = loop._reactor.queued(self._token)
            if position < 0:  # gone meanwhile; on_close is on its way
                return
            self._on_sent.append((position, on_sent))
            if len(self._on_sent) == 1:
                loop._reactor.notify(self._token, position)

    def _send_packet(self, reply: Any) -> None:
        add = self._loop._outbox.add
        packet = self._packet
        if packet is not None:
            reply = packet(self, reply)
            if type(reply) is tuple:
                self._loop._outbox.parts += len(reply) - 1
                for piece in reply:
                    add(self._token, piece)
                return
        elif self._framing is not None:
            size = memoryview(reply).nbytes
            if size > self._framing.max_reply:
                self._framing.check_reply(size)
        add(self._token, reply)

    def shutdown_write(self) -> None:
        """End our side once what waits is sent; go on receiving (gev: ShutdownWrite).

        From any thread. See shutdown(2), SHUT_WR.
        """
        self._in_loop(self._shutdown_write)

    def _shutdown_write(self) -> None:
        if self._state == OPEN:
            self._write_ended = True
            self._loop._outbox.flush()
            self._loop._reactor.shutdown_write(self._token)
        elif self._state == CONNECTING:
            self._loop._connector.pending[self].defer(self._shutdown_write)

    # ---- receiving ------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Deliver no more messages until `resume_reading`; the kernel holds the peer back.

        No frame is lost: what a protocol has not delivered yet comes after `resume_reading`. From
        any thread.
        """
        self._in_loop(self._set_reading, False)

    def resume_reading(self) -> None:
        """Deliver messages again. From any thread."""
        self._in_loop(self._set_reading, True)

    def _set_reading(self, on: bool) -> None:
        if self._state == OPEN and on != self._cutting:
            self._cutting = on
            self._hold_back(self._handler.on_message)
            if not on:
                self._loop._delivery.give_back(self)
            if on and self._pending_input is not None:
                self._loop.call_soon_threadsafe(self._loop._cut_again, self)
            else:
                self._loop._reactor.set_reading(self._token, on)
        elif self._state == CONNECTING:
            self._cutting = on
            self._hold_back(self._handler.on_message)

    def _hold_back(self, receive: Receive) -> None:
        """With `Raw` there is nobody else who would ask whether it is paused."""
        if type(self._protocol) is Raw:
            self._receive = receive if self._cutting else _give_back

    def set_protocol(self, protocol: Protocol, handler: Handler | None = None) -> None:
        """Go on under another protocol, and with another handler if one is given. From any thread.

        Bytes that were received but not delivered as a message yet are cut anew, by the new
        protocol; called in `on_message` that is all that follows this message. What was sent before
        is dressed by the old protocol; what is sent, or returned, afterwards by the new one. A new
        handler gets no `on_connect`, but it does get `on_close`.

        Raises:
            TypeError: `protocol` is not a `Protocol`, or `handler` not a `Handler`.
        """
        if not isinstance(protocol, Protocol):
            raise TypeError(f"protocol must be a gevffi.Protocol, not {protocol!r}")
        if handler is not None and not isinstance(handler, Handler):
            raise TypeError(f"handler must be a gevffi.Handler, not {handler!r}")
        self._in_loop(self._set_protocol, protocol, handler)

    def _set_protocol(self, protocol: Protocol, handler: Handler | None) -> None:
        if self._state not in (OPEN, CONNECTING):
            return
        loop = self._loop
        loop._outbox.flush()
        loop._delivery.give_back(self)
        handler = handler or self._handler
        receive = receiver(handler, protocol, loop.options.frame_limit)
        lead = 0 if self._framing is None else self._framing.lead
        left = 0 if self._pending_input is None else len(self._pending_input)
        loop._delivery.switched.setdefault(self, (lead, left))
        self._install(handler, protocol, receive)
        if self._state == CONNECTING:
            return
        if self._pending_input is not None:
            loop._reactor.unread(self._token, self._pending_input.peek())
            self._drop_input()
        framing = self._framing
        loop._reactor.frame(self._token, None if framing is None else framing.description)
        loop._broadcaster.changed()

    def _drop_input(self) -> None:
        pending, self._pending_input = self._pending_input, None
        if pending is not None:
            pending.close()

    # ---- closing --------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what waits, then close (gev: Close). From any thread; harmless when repeated.

        No message is delivered any more. If the peer has not taken everything within
        `close_timeout` seconds, the rest is dropped (CloseReason.TIMEOUT). Where closing at once
        could cost the peer bytes that are on their way, `on_close` waits until it has ended its
        side too, or for `close_timeout`.

        While it is connecting: if something was sent, that is still tried; otherwise, and by
        `abort()` in any case, it is given up, and `on_connect_failed` tells.
        """
        self._in_loop(self._close, CloseReason.LOCAL)

    def abort(self) -> None:
        """Drop what waits and reset the connection at once. From any thread."""
        self._in_loop(self._abort, CloseReason.LOCAL)

    def _close(self, reason: CloseReason) -> None:
        if self._state == OPEN:
            self._stop_receiving()
            self._loop._life.closing.append((self, reason))
        elif self._state == CONNECTING:
            self._loop._connector.pending[self].close(reason)

    def _abort(self, reason: CloseReason) -> None:
        if self._state == CONNECTING:
            self._loop._connector.pending[self].give_up("it was aborted")
        elif self._state != CLOSED:
            self._stop_receiving()
            self._loop._reactor.abort_connection(self._token, reason.value)

    def _give_up(self, reason: CloseReason) -> None:
        """At a deadline: the peer has not taken everything, or does not end its side."""
        if self._state != CLOSED:
            self._stop_receiving()
            self._loop._reactor.give_up(self._token, reason.value)

    def _stop_receiving(self) -> None:
        self._loop._delivery.end_run(self)
        self._state = CLOSING
        self._cutting = False
        self._receive = _discard
        self._loop._broadcaster.changed()

    def _closed(self) -> None:
        """The descriptor is gone: let go of all that belongs to it."""
        self._stop_receiving()
        self._state = CLOSED
        self._drop_input()
        self._on_sent = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _in_loop(self, call: Callable[..., object], *args: Any) -> None:
        if self._loop.in_loop():
            call(*args)
        else:
            self._loop.call_soon_threadsafe(call, *args)

    def _fire_sent(self) -> None:
        """Call the `on_sent` callbacks whose bytes the kernel has taken."""
        waiting = self._on_sent
        reactor = self._loop._reactor
        sent = reactor.sent(self._token)
        while waiting and waiting[0][0] <= sent:
            waiting.popleft()[1](self)
        if waiting:
            reactor.notify(self._token, waiting[0][0])


def _own(data: Any, packet: Callable[[Connection, Any], Any] | None) -> Any:
    """`data` as it may wait: a copy, unless nobody can change it or only `packet` knows how."""
    if packet is None or isinstance(data, (bytearray, memoryview)):
        return bytes(memoryview(data))
    return data
