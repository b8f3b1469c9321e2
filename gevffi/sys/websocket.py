"""WebSocket frames in C, one call at a time: cutting, masking, UTF-8 (RFC 6455, section 5).

A loop cuts frames by itself, many in one call. This is for those without a loop: a blocking client,
a test, a tool. Buffers are used in place and not copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevffi._ffi import ffi, lib

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MOST: int = lib.GEV_WS_MOST
"""The highest `max_message_size`, in bytes."""

FROM_CLIENT: int = lib.GEV_WS_SERVER
DEFLATE: int = lib.GEV_WS_DEFLATE
"""What `size` says of a WEBSOCKET framing: frames are masked; messages may be compressed."""

UTF8_OK: int = lib.GEV_UTF8_OK
"""The state of `check_utf8` at the end of a character, and the one to begin with."""
UTF8_BAD: int = lib.GEV_UTF8_BAD
"""The state of `check_utf8` after a byte that cannot be."""


def check_utf8(state: int, data: ReadableBuffer) -> int:
    """Go on checking text with `data`, its next piece; return the new state.

    Args:
        state: what the piece before gave, or `UTF8_OK`.

    Returns:
        `UTF8_OK`, `UTF8_BAD` (which stays), or another number: within a character.
    """
    with ffi.from_buffer(data) as held:
        return int(lib.gev_utf8_check(state, held, len(held)))


def mask(data: WriteableBuffer, key: bytes, start: int = 0) -> None:
    """XOR the four bytes of `key` over data[start:], in place. It undoes itself.

    Raises:
        BufferError: `data` is read-only.
        ValueError: `key` does not have four bytes, or `start` is behind the data.
    """
    if len(key) != 4:
        raise ValueError(f"mask: key must have 4 bytes, not {len(key)}")
    with ffi.from_buffer("uint8_t[]", data, require_writable=True) as held:
        if not 0 <= start <= len(held):
            raise ValueError(f"mask: start must be 0 to {len(held)}, not {start}")
        lib.gev_ws_mask(held + start, len(held) - start, key, 0)


class Cutter:
    """Finds the frames in what one side of a connection sends.

    Args:
        from_client: the frames come from a client, so they must be masked; else they must not be.
        deflate: permessage-deflate was agreed on, so messages may be compressed.
        max_message_size: bytes a message may have, over all its frames; at most `MOST`.

    Raises:
        ValueError: `max_message_size` is out of range.
    """

    __slots__ = ("_cut", "_ws", "need")

    need: int  #: bytes of the unfinished frame in all, once they are known; else 0

    def __init__(self, *, from_client: bool, deflate: bool, max_message_size: int) -> None:
        if not 0 <= max_message_size <= MOST:
            raise ValueError(f"max_message_size must be 0 to {MOST}, not {max_message_size}")
        flags = lib.GEV_WS_SERVER * from_client | lib.GEV_WS_DEFLATE * deflate
        self._ws: Any = ffi.new("gev_ws *")
        self._cut: Any = ffi.new("gev_cut *")
        self.need = 0
        lib.gev_ws_init(self._ws, flags, max_message_size)

    def cut(self, data: WriteableBuffer, start: int = 0) -> tuple[int, int, int, int]:
        """Cut the frame at data[start:], and unmask it there.

        Args:
            data: from `start` on, a frame's first byte and what has come behind it. If the frame
                was unfinished before, as that call has left it.

        Returns:
            `length, tag, begin, end`. A positive `length` is that of the frame; its payload is
            data[begin:end], and `tag` its first byte: FIN 0x80, RSV1 0x40, and the opcode. 0: the
            frame is unfinished. Negative: the peer broke the protocol, and this, as a positive
            number, is the code to close with.

        Raises:
            BufferError: `data` is read-only.
        """
        with ffi.from_buffer("uint8_t[]", data, require_writable=True) as held:
            if not 0 <= start <= len(held):
                raise ValueError(f"cut: start must be 0 to {len(held)}, not {start}")
            length = lib.gev_ws_cut(self._ws, held + start, len(held) - start, self._cut)
        cut = self._cut
        begin = start + cut.start
        self.need = cut.need
        return length, cut.tag, begin, begin + cut.size
