"""gev's framing of protobuf messages: each comes with the name of its type.

    |length|type length|.... type ....|........ payload ........|
    |  4   |     2     |  type length |                         |
           |<----------------------- length ------------------->|

Both numbers are unsigned and big-endian. The outer frame is cut in C, as every `LengthPrefixed` is;
its two halves are told apart here. What the payload means is left to the package protobuf, or to
whatever else the two sides agree on: this module does not need it.

A frame that contradicts itself closes the connection with CloseReason.PROTOCOL_ERROR: one too short
for a type length, a type that would not fit into its frame, one that is not UTF-8. A length over
`max_size`, to which also belong those that are negative to whoever reads them as signed, closes it
with FRAME_TOO_LARGE at once.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from gevffi.framing import MOST, Framing, within
from gevffi.options import MIB
from gevffi.protocol import ProtocolError, Receive
from gevffi.sys.framing import LENGTH_PREFIXED

_HEADER = Struct(">IH")
_TYPE_LENGTH = 2  # bytes


class Protobuf(Framing):
    """Messages with the name of their type (gev: plugins/protobuf).

    `on_message` gets the name as `ctx`, a `str`, and the payload as `data`. A reply is a whole
    frame, made by `pack_message`. The frames of a batch are undivided; see `unpack_message`.

    Args:
        max_size: the most bytes behind the length: 2, the type and the payload.
        deliver, one_at_a_time: see `gevffi.Framing`.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    def __init__(
        self, *, max_size: int = MIB, deliver: str = "view", one_at_a_time: bool = False
    ) -> None:
        within("max_size", max_size, _TYPE_LENGTH, MOST)
        self._max_size = max_size
        super().__init__(
            {"kind": LENGTH_PREFIXED, "width": 4, "strip": 4, "max_size": max_size},
            lead=4,
            max_reply=MOST,
            deliver=deliver,
            one_at_a_time=one_at_a_time,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_size={self._max_size})"

    def frame_receiver(self, on_message: Receive) -> Receive:
        """Have `on_message` called with type and payload apart."""

        def receive(conn: Any, _ctx: Any, body: Any) -> Any:
            type_name, payload = unpack_message(body)
            return on_message(conn, type_name, payload)

        return receive


def pack_message(type_name: str, payload: Any) -> bytes:
    """Return the frame of a message (gev: PackMessage). From any thread.

    Args:
        type_name: at most 65535 bytes of UTF-8.
        payload: bytes-like; for a protobuf message its `SerializeToString()`.

    Raises:
        ValueError: the name or the whole is too long for its length to be told.
        TypeError: the payload is not bytes-like.
    """
    name = type_name.encode()
    if len(name) > 0xFFFF:
        raise ValueError(f"a type name has at most 65535 bytes, not {len(name)}")
    size = _TYPE_LENGTH + len(name) + memoryview(payload).nbytes
    if size > 0xFFFFFFFF:
        raise ValueError(f"a frame has at most 4294967295 bytes behind its length, not {size}")
    return b"".join((_HEADER.pack(size, len(name)), name, payload))


def unpack_message(body: Any) -> tuple[str, Any]:
    """Return type name and payload of what stands behind a frame's length.

    `Protobuf` does this before `on_message`; in `on_batch` it is the handler's. The payload is a
    slice of `body`.

    Args:
        body: `bytes` or a view of bytes.

    Raises:
        ProtocolError: it is malformed.
    """
    if len(body) < _TYPE_LENGTH:
        raise ProtocolError(f"a frame of {len(body)} bytes has no room for the length of its type")
    end = _TYPE_LENGTH + (body[0] << 8 | body[1])
    if end > len(body):
        raise ProtocolError(
            f"a type of {end - _TYPE_LENGTH} bytes does not fit into a frame of {len(body)}"
        )
    try:
        return str(body[_TYPE_LENGTH:end], "utf-8"), body[end:]
    except UnicodeDecodeError as exc:
        raise ProtocolError(f"the name of a type is not UTF-8: {exc}") from None
