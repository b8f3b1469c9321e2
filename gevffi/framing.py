"""Protocols that are declared rather than written: their frames are cut in C, without the GIL.

    LengthPrefixed   |.. offset ..|length|......... body .........|
    Delimited        |.......... payload ..........|delimiter|
    FixedSize        |............ size ............|

A declaration says how frames are told apart; the loop cuts all frames of a read before Python
hears of the first, and the handler gets whole payloads. Headers and delimiters of what is sent are
added in C too. A frame over its limit closes the connection with CloseReason.FRAME_TOO_LARGE as
soon as its length has come, however little else has; a length that cannot be one, with
PROTOCOL_ERROR.

A subclass may override `packet` to dress replies itself; then C adds nothing.
"""

from __future__ import annotations

from operator import index
from typing import Any, SupportsIndex

from gevffi.options import MIB
from gevffi.protocol import Protocol
from gevffi.sys.framing import DELIMITED, FIXED_SIZE, LENGTH_PREFIXED, Description, describe, dress

MOST = 1 << 30
"""The most that any size may be, bytes."""


class Framing(Protocol):
    """Base of the declared protocols.

    Args:
        fields: those of `gev_framing` in `gevffi.h`.
        lead: bytes of a frame in front of its payload.
        max_reply: the most bytes a reply may have.
        deliver: "view" for read-only views of the receive memory, or "bytes". Bytes cost about the
            same for small messages and keep nothing else alive.
        one_at_a_time: cut one frame a turn, the next when the handler is done with this one.
    """

    cuts_in_c = True

    def __init__(
        self,
        fields: dict[str, Any],
        *,
        lead: int,
        max_reply: int,
        deliver: str,
        one_at_a_time: bool,
    ) -> None:
        if deliver not in ("view", "bytes"):
            raise ValueError(f"deliver must be 'view' or 'bytes', not {deliver!r}")
        self.lead = lead
        self.as_bytes = deliver == "bytes"
        packs = type(self).packet is not Protocol.packet
        self.max_reply = -1 if packs else max_reply
        """The most bytes C can dress; -1: none, as replies go through `packet`."""
        dressed = bool(fields.pop("dress", False)) and not packs
        self.description: Description = describe(
            **fields, dress=dressed, one_at_a_time=bool(one_at_a_time)
        )

    def frame(self, data: Any) -> bytes:
        """Return the whole frame for a message, as C would make it.

        Raises:
            ValueError: no frame can hold it.
        """
        self.check_reply(memoryview(data).nbytes)
        return dress(self.description, data)

    def check_reply(self, size: int) -> None:
        """Raise ValueError if no frame can hold `size` bytes."""
        if size > self.max_reply:
            raise ValueError(
                f"a message of {size} bytes does not fit into a frame of {self!r}, "
                f"which holds {self.max_reply}"
            )


class LengthPrefixed(Framing):
    """Frames that begin with their length.

    With the defaults alone, `LengthPrefixed()` is a big-endian length of 4 bytes, then as many
    bytes, which are the message. The general form is the one known from Netty's
    LengthFieldBasedFrameDecoder. Replies get their length in front where it comes first and alone
    (`offset` 0, `strip` equal to `width`, `adjustment` not positive); in every other form a reply
    is a whole frame already.

    Args:
        width: bytes of the length: 1, 2, 3, 4 or 8.
        byteorder: "big" or "little".
        offset: bytes of a frame in front of the length.
        adjustment: what to add to the length to get the number of bytes behind it: -width where it
            counts itself, for example.
        strip: bytes at the start of a frame that are not delivered; default: up to the end of the
            length.
        max_size: the most bytes behind the length.
        deliver, one_at_a_time: see `Framing`.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    def __init__(
        self,
        width: int = 4,
        *,
        byteorder: str = "big",
        offset: int = 0,
        adjustment: int = 0,
        strip: int | None = None,
        max_size: int = MIB,
        deliver: str = "view",
        one_at_a_time: bool = False,
    ) -> None:
        if width not in (1, 2, 3, 4, 8):
            raise ValueError(f"width must be 1, 2, 3, 4 or 8, not {width!r}")
        if byteorder not in ("big", "little"):
            raise ValueError(f"byteorder must be 'big' or 'little', not {byteorder!r}")
        within("offset", offset, 0, 4096)
        within("adjustment", adjustment, -MOST, MOST)
        within("max_size", max_size, 0, MOST)
        if strip is None:
            strip = offset + width
        within("strip", strip, 0, 4096 + 8)
        self._shown = f"width={width}, max_size={max_size}"
        dressed = offset == 0 and strip == width and adjustment <= 0
        most = (1 << 8 * width) - 1 + adjustment if dressed else MOST
        super().__init__(
            {
                "kind": LENGTH_PREFIXED,
                "max_size": max_size,
                "width": width,
                "little": byteorder == "little",
                "offset": offset,
                "adjustment": adjustment,
                "strip": strip,
                "dress": dressed,
            },
            lead=strip,
            max_reply=min(most, MOST),
            deliver=deliver,
            one_at_a_time=one_at_a_time,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown})"


class Delimited(Framing):
    """Frames that end with a delimiter, such as lines.

    Replies get the delimiter behind them (unless `keep`, where a reply has it already). That none
    contains it is up to the handler.

    Args:
        delimiter: 1 to 16 bytes.
        max_size: the most bytes of a frame, without its delimiter.
        keep: deliver the delimiter too.
        deliver, one_at_a_time: see `Framing`.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    def __init__(
        self,
        delimiter: bytes = b"\n",
        *,
        max_size: int = 65536,
        keep: bool = False,
        deliver: str = "view",
        one_at_a_time: bool = False,
    ) -> None:
        if not isinstance(delimiter, bytes) or not 1 <= len(delimiter) <= 16:
            raise ValueError(f"delimiter must be 1 to 16 bytes, not {delimiter!r}")
        within("max_size", max_size, 0, MOST)
        self._shown = f"{delimiter!r}, max_size={max_size}"
        super().__init__(
            {
                "kind": DELIMITED,
                "max_size": max_size,
                "delimiter": delimiter,
                "delimiter_size": len(delimiter),
                "keep": bool(keep),
                "dress": not keep,
            },
            lead=0,
            max_reply=MOST,
            deliver=deliver,
            one_at_a_time=one_at_a_time,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown})"


class FixedSize(Framing):
    """Frames of `size` bytes each. Replies go as they are.

    Args:
        size: bytes of every frame.
        deliver, one_at_a_time: see `Framing`.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    def __init__(self, size: int, *, deliver: str = "view", one_at_a_time: bool = False) -> None:
        within("size", size, 1, MOST)
        self._size = size
        super().__init__(
            {"kind": FIXED_SIZE, "size": size},
            lead=0,
            max_reply=MOST,
            deliver=deliver,
            one_at_a_time=one_at_a_time,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._size})"


def within(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError if the option `name` is not between `low` and `high`."""
    number = isinstance(value, SupportsIndex) and not isinstance(value, bool)
    if not number or not low <= index(value) <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value!r}")
