"""Frames that are sent, and what is wrong with those that come (RFC 6455, section 5).

The header of a frame without a mask is made here and not in C: a call costs more than the bytes.
Masking is C's. A frame that is masked is one `bytearray`; one that is not is a header to send in
front of a payload that need not be copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct

from gevffi.sys.websocket import mask

FIN = 0x80
RSV1 = 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

Payload = bytes | bytearray | memoryview
"""Bytes; a memoryview's items are bytes too."""

_pack_medium: Callable[..., bytes] = Struct("!BBH").pack
_pack_large: Callable[..., bytes] = Struct("!BBQ").pack


def header(first: int, size: int, masked: int = 0) -> bytes:
    """Return the header of a frame, without a masking key.

    Args:
        first: FIN | RSV1 | opcode.
        size: bytes of the payload.
        masked: 0x80 if a key follows.
    """
    if size < 126:
        return bytes((first, masked | size))
    if size < 0x10000:
        return _pack_medium(first, masked | 126, size)
    return _pack_large(first, masked | 127, size)


def masked_frame(first: int, payload: Payload) -> bytearray:
    """Return a whole frame as clients send it, with a key that nobody can foretell (5.3)."""
    key = os.urandom(4)
    frame = bytearray(header(first, len(payload), 0x80))
    frame += key
    start = len(frame)
    frame += payload
    mask(frame, key, start)
    return frame


class FrameError(Exception):
    """The peer broke the protocol. `code` and `reason` are what the connection closes with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


REASONS = {
    1002: "a frame that is none",
    1007: "text that is not UTF-8",
    1009: "a message over the limit",
}
"""What a cutter's codes mean."""
