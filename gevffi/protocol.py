"""How bytes become messages and replies become bytes.

A protocol cuts what has arrived into messages (`unpacket`) and dresses what is to be sent
(`packet`), gev's two halves. `Raw` does neither and costs nothing. A protocol written in Python is
any subclass of `Protocol`; an `Unpacker` drives it, one per server, in gev's way: `unpacket` is
called until it yields nothing, each message goes to `on_message`, each reply through `packet`.

A protocol sees new bytes where they were received, as a `ReadBuffer` over that part of the arena.
Only when it leaves an unfinished message behind does the connection get a ring of its own, from
the pool, until that message is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevffi.handler import Handler
from gevffi.ringbuf import ReadBuffer, RingBuffer

if TYPE_CHECKING:
    from gevffi.connection import Connection

Receive = Callable[["Connection", Any, memoryview], Any]
"""Takes what was read for a connection; returns what is to be sent as it is, or None."""


_NO_LIMIT = 1 << 31  # the ring need not count: an unfinished frame is measured here


class ProtocolError(Exception):
    """The peer sent what its protocol forbids; closes it with CloseReason.PROTOCOL_ERROR."""


class FrameTooLargeError(ProtocolError):
    """A frame is over the limit; closes the connection with CloseReason.FRAME_TOO_LARGE."""


class Protocol:
    """Base of protocols written in Python (gev: Protocol). One object serves all connections.

    Both methods run on the thread of the connection's loop.
    """

    cuts_in_c = False
    """Whether frames are cut in C by a declaration (`gevffi.framing`) instead of `unpacket`."""
    tagged = False
    """Whether they come with tags: of WebSockets alone (`_ws_delivery`), which take whole runs."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        """Take the next message out of `buffer` (gev: UnPacket).

        Args:
            conn: whose bytes they are.
            buffer: all bytes of the connection not taken yet. Valid during the call only; views
                of it (`peek`, `virtual_read`) stay valid for as long as they are kept.

        Returns:
            `(ctx, data)`, which `on_message` gets; `(None, None)` for "not enough yet", and then
            nothing may have been taken (a virtual read is reverted).

        Raises:
            ProtocolError: these bytes are not of this protocol. Any other exception counts as the
                protocol's own fault and closes with CloseReason.HANDLER_ERROR.
        """
        raise NotImplementedError

    def packet(self, conn: Connection, reply: Any) -> Any:
        """Dress a reply: return a bytes-like object, or a tuple of them (gev: Packet).

        The default sends it as it is.
        """
        return reply

    def bad_frame(self, conn: Connection, *, too_large: bool, bad_text: bool) -> None:
        """Called before a connection closes because of a frame that C has found bad: the last
        chance to say something to the peer. What it raises goes to `Handler.on_error`."""

    def frame_receiver(self, on_message: Receive) -> Receive:
        """What is called with each frame that was cut in C: `on_message`, unless a protocol has
        to look into frames before. Asked once for each handler."""
        return on_message


class Raw(Protocol):
    """No framing: a message is whatever bytes were there. The default."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        """Take everything."""
        if buffer.is_empty:
            return None, None
        data = buffer.peek()
        buffer.retrieve_all()
        return None, data


class Unpacker:
    """Drives a protocol written in Python for one handler."""

    def __init__(self, handler: Handler, protocol: Protocol, frame_limit: int) -> None:
        self._unpacket = protocol.unpacket
        self._on_message = handler.on_message
        self._frame_limit = frame_limit

    def receive(self, conn: Connection, _ctx: Any, data: memoryview) -> None:
        """Cut what was read, together with what was left from before."""
        pending = conn._pending_input
        if pending is None:
            buffer = ReadBuffer(data)
            self._cut(conn, buffer, 1 if data else 0)
            if conn._unpacker is not self:  # by `set_protocol`: the rest is for its successor
                conn._loop._reactor.unread(conn._token, buffer.peek())
            elif buffer and conn.connected:
                ring = RingBuffer(capacity=len(buffer), limit=_NO_LIMIT)
                ring.write(buffer.peek())
                conn._pending_input = ring
        else:
            pending.write(data)
            self._cut(conn, pending, 1 if data else 0)
            if conn._pending_input is pending and pending.is_empty:
                conn._drop_input()

    def _cut(self, conn: Connection, buffer: ReadBuffer, counted: int) -> None:
        """Deliver what can be cut. `counted`: as how many messages C counts this read."""
        unpacket, on_message = self._unpacket, self._on_message
        messages = 0
        try:
            while conn._cutting:
                before = len(buffer)
                ctx, data = unpacket(conn, buffer)
                # After a `set_protocol` in there a ring is closed: its bytes were given back.
                ours = conn._unpacker is self
                if ctx is None and data is None:
                    if not ours:
                        return
                    if before > self._frame_limit:
                        raise FrameTooLargeError(
                            f"an unfinished frame of {before} bytes or more, "
                            f"frame_limit is {self._frame_limit}"
                        )
                    buffer.virtual_revert()
                    return
                if ours and len(buffer) == before:
                    raise RuntimeError(
                        f"{unpacket.__qualname__} returned a message but took nothing of the "
                        f"{before} bytes in the buffer"
                    )
                messages += 1
                reply = on_message(conn, ctx, data)
                if reply is not None:
                    conn._send_packet(reply)
                if conn._unpacker is not self:
                    return
        finally:
            if messages != counted:
                conn._loop._reactor.recount(messages - counted, 0)


def receiver(handler: Handler, protocol: Protocol, frame_limit: int) -> Receive:
    """What a loop calls with what it has read for a connection.

    Raises:
        TypeError: the handler is no `Handler`, or the protocol no `Protocol`: a class of one, say.
        ValueError: the handler has an `on_batch` and the protocol no batches.
    """
    if not isinstance(handler, Handler):
        raise TypeError(f"handler must be a gevffi.Handler, not {handler!r}")
    if not isinstance(protocol, Protocol):
        raise TypeError(f"protocol must be a gevffi.Protocol, not {protocol!r}")
    if not protocol.cuts_in_c:
        if handler.on_batch is not None:
            raise ValueError(
                f"{handler!r} has an on_batch, which needs a protocol that is cut in C "
                f"(LengthPrefixed, Delimited, FixedSize), not {protocol!r}"
            )
        if type(protocol) is not Raw:
            return Unpacker(handler, protocol, frame_limit).receive
    return protocol.frame_receiver(handler.on_message)
