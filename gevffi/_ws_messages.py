"""Messages and the closing handshake (RFC 6455, sections 5.4, 5.5 and 7), without sockets.

`Messages` is one connection after its handshake. It takes frames that have been cut, unmasked and
checked, and says what they mean; and it makes the frames to be sent. What it is not asked about: a
whole, uncompressed message in one frame needs no memory of what was before, so who cuts frames may
hand those to the user at once, while `state` is OPEN.

The closing handshake:

                 we close()           the peer's close        something is wrong      the end of TCP
    OPEN         send close           send close, echoing     send close             code 1006
                 ──▶ CLOSING          its code ──▶ CLOSED     ──▶ CLOSED             ──▶ CLOSED
    CLOSING      -                    ──▶ CLOSED              ──▶ CLOSED             code 1006
    (ours is out)                                                                    ──▶ CLOSED
    CLOSED       -                    -                       -                      -

Data is sent in OPEN only, and received in OPEN only: what comes after our own close is dropped, as
browsers do. Once CLOSED the server closes TCP; a client waits for that, for a while (7.1.1).

`code` and `reason` are, in the end: the peer's, if it sent a close frame (1005: one without a
code); else ours, if we found something wrong; else 1006. So a `close()` of ours that the peer never
answers ends with 1006.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from gevffi._ws_deflate import Agreement, DeflateError
from gevffi._ws_frames import (
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    REASONS,
    RSV1,
    TEXT,
    FrameError,
    Payload,
    header,
    masked_frame,
)
from gevffi.sys.websocket import UTF8_BAD, UTF8_OK, check_utf8

NO_CODE = 1005
"""The peer's close frame had no code. Never sent."""
ABNORMAL = 1006
"""The connection ended without a close frame from the peer. Never sent."""
INVALID_TEXT = 1007

Output = tuple[Payload, ...]
"""Pieces to send one behind the other; empty: nothing."""


class State(Enum):
    """Of the closing handshake."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Event(NamedTuple):
    """What a frame meant, and what must be answered."""

    opcode: int  #: TEXT, BINARY, CLOSE, PING or PONG
    data: Payload  #: of a text checked UTF-8, of a close frame the reason
    reply: Output = ()  #: a pong, or our half of the closing handshake


class Messages:
    """A connection from the opening handshake on.

    Args:
        server: which side this is.
        max_message_size: bytes a message may inflate to.
        agreement: how messages are compressed; None: they are not.
    """

    __slots__ = (
        "_compressed",
        "_deflater",
        "_inflater",
        "_opcode",
        "_parts",
        "_server",
        "_utf8",
        "code",
        "reason",
        "state",
    )

    def __init__(
        self, *, server: bool, max_message_size: int, agreement: Agreement | None = None
    ) -> None:
        self._server = server
        self._deflater = self._inflater = None
        if agreement is not None:
            self._deflater = agreement.deflater(server=server)
            self._inflater = agreement.inflater(server=not server, max_size=max_message_size)
        self._parts: bytearray | None = None  # of the message under way
        self._opcode = 0  # of the same
        self._compressed = False
        self._utf8 = UTF8_OK
        self.state = State.OPEN
        self.code = ABNORMAL
        """Why the connection closed, once it has."""
        self.reason = ""
        """The same in words."""

    # ---- receiving ------------------------------------------------------------------------------

    def receive(self, tag: int, payload: Payload) -> Event | None:
        """Take a frame.

        Args:
            tag: its first byte, FIN | RSV1 | opcode.
            payload: copied if it is needed for longer than this call, unless it is a whole message.

        Returns:
            A message, a ping or pong, or the peer's close; None for a fragment, and for what comes
            when nothing counts any more.

        Raises:
            FrameError: a compressed message is not what it should be; `fail` with its code.
        """
        opcode = tag & 0x0F
        if self.state is not State.OPEN:
            if opcode == CLOSE and self.state is State.CLOSING:
                return self._receive_close(payload)
            return None
        if opcode < CLOSE:
            return self._receive_data(tag, opcode, payload)
        if opcode == PING:
            return Event(PING, payload, self._frame(FIN | PONG, payload))
        if opcode == PONG:
            return Event(PONG, payload)
        return self._receive_close(payload)

    def _receive_data(self, tag: int, opcode: int, payload: Payload) -> Event | None:
        last = bool(tag & FIN)
        if opcode != CONTINUATION:
            self._opcode, self._compressed, self._utf8 = opcode, bool(tag & RSV1), UTF8_OK
        if self._compressed:
            payload = self._inflate(payload, last)
        if last and self._parts is None:
            return Event(self._opcode, payload)
        if self._parts is None:
            self._parts = bytearray()
        self._parts += payload
        if not last:
            return None
        message, self._parts = self._parts, None
        return Event(self._opcode, message)

    def _inflate(self, payload: Payload, last: bool) -> bytes:
        assert self._inflater is not None, "RSV1 was not agreed on; the cutter lets none through"
        try:
            data = self._inflater.inflate(payload, last)
        except DeflateError as exc:
            raise FrameError(exc.code, exc.reason) from None
        if self._opcode == TEXT:
            self._utf8 = check_utf8(self._utf8, data)
            if self._utf8 == UTF8_BAD or (last and self._utf8 != UTF8_OK):
                raise FrameError(INVALID_TEXT, REASONS[INVALID_TEXT])
        return data

    def _receive_close(self, payload: Payload) -> Event:
        self.code = int.from_bytes(payload[:2], "big") if len(payload) else NO_CODE
        self.reason = str(payload[2:], "utf-8")
        reply: Output = ()
        if self.state is State.OPEN:  # "typically echos the status code", section 5.5.1
            reply = self._frame(FIN | CLOSE, bytes(payload[:2]))
        self._end()
        return Event(CLOSE, payload[2:], reply)

    def receive_eof(self) -> None:
        """TCP has ended: nothing more will come or go."""
        self._end()

    def _end(self) -> None:
        self.state = State.CLOSED
        self._parts = self._inflater = self._deflater = None

    # ---- sending --------------------------------------------------------------------------------

    def send(self, opcode: int, message: Payload) -> Output:
        """Make a message of one frame.

        Args:
            opcode: TEXT (and `message` is UTF-8) or BINARY.

        Returns:
            What to send; nothing once the connection is closing.
        """
        if self.state is not State.OPEN:
            return ()
        deflater = self._deflater
        if deflater is not None and len(message) >= deflater.threshold:
            return self._frame(FIN | RSV1 | opcode, deflater.compress(message))
        return self._frame(FIN | opcode, message)

    def ping(self, data: Payload = b"") -> Output:
        """Make a ping.

        Raises:
            ValueError: more than 125 bytes.
        """
        return self._control(PING, data)

    def pong(self, data: Payload = b"") -> Output:
        """Make a pong that nobody asked for (section 5.5.3).

        Raises:
            ValueError: more than 125 bytes.
        """
        return self._control(PONG, data)

    def _control(self, opcode: int, data: Payload) -> Output:
        if len(data) > 125:
            raise ValueError(f"a ping or pong has at most 125 bytes, not {len(data)}")
        return self._frame(FIN | opcode, data) if self.state is State.OPEN else ()

    def close(self, code: int | None = 1000, reason: str = "") -> Output:
        """Begin the closing handshake.

        Args:
            code: 1000 to 1003, 1007 to 1014, 3000 to 4999 (section 7.4); None for none.
            reason: for people, at most 123 bytes of UTF-8.

        Returns:
            The close frame; nothing if the connection is closing already.

        Raises:
            ValueError: a code that may not be sent, a reason that is too long, or one without code.
        """
        payload = close_payload(code, reason)
        if self.state is not State.OPEN:
            return ()
        self.state = State.CLOSING
        self._parts = self._inflater = self._deflater = None
        return self._frame(FIN | CLOSE, payload)

    def fail(self, code: int, reason: str = "") -> Output:
        """Fail the connection (section 7.1.7): something is wrong that is not to be mended.

        Returns:
            The close frame, unless one was sent before. Then TCP is to be closed.
        """
        if self.state is State.CLOSED:
            return ()
        reply: Output = ()
        if self.state is State.OPEN:
            reply = self._frame(FIN | CLOSE, close_payload(code, reason))
        self.code, self.reason = code, reason
        self._end()
        return reply

    def _frame(self, first: int, payload: Payload) -> Output:
        if self._server:
            return (header(first, len(payload)), payload)
        return (masked_frame(first, payload),)


def close_payload(code: int | None, reason: str) -> bytes:
    """Return the payload of a close frame.

    Raises:
        ValueError: a code that may not be sent, a reason that is too long, or one without code.
    """
    if code is None:
        if reason:
            raise ValueError("a close reason needs a code")
        return b""
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ValueError(f"close code must be 1000-1003, 1007-1014 or 3000-4999, not {code!r}")
    encoded = reason.encode()
    if len(encoded) > 123:
        raise ValueError(f"a close reason has at most 123 bytes of UTF-8, not {len(encoded)}")
    return code.to_bytes(2, "big") + encoded
