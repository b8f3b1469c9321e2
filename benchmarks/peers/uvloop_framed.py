"""Length-prefixed frames on uvloop, cut in Python: what a user of uvloop would write by hand.

    4 bytes, big-endian      length bytes
    ├─ length ───────────────┼─ payload ────┤

Written with care for speed: one pass over what came, replies of one read joined into one write.
"""

from __future__ import annotations

import asyncio
import struct
from typing import cast

import uvloop

from benchmarks.peers.asyncio_echo import serve

read_length = struct.Struct(">I").unpack_from
pack_length = struct.Struct(">I").pack


def on_message(data: bytes) -> bytes:
    """The user's handler; the call is part of what is measured."""
    return data


class FramedEcho(asyncio.Protocol):
    """One connection; a partial frame waits in `rest`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        start, end = 0, len(data)
        replies = []
        while end - start >= 4:
            (length,) = read_length(data, start)
            if end - start - 4 < length:
                break
            reply = on_message(data[start + 4 : start + 4 + length])
            replies.append(pack_length(len(reply)))
            replies.append(reply)
            start += 4 + length
        self.rest = data[start:]
        if replies:
            self.transport.write(b"".join(replies))


if __name__ == "__main__":
    uvloop.run(serve(FramedEcho))
