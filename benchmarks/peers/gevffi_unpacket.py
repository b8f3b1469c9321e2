"""gevffi with a protocol in pure Python: what `unpacket` and `packet` cost over a raw echo.

    4 bytes, big-endian      length bytes
    ├─ length ───────────────┼─ payload ────┤

The protocol is the one gev's own example shows, written as a user of gevffi would.
"""

from __future__ import annotations

from typing import Any

import gevffi


class Framed(gevffi.Protocol):
    """A 4-byte length, then the payload."""

    def unpacket(self, conn: gevffi.Connection, buffer: gevffi.ReadBuffer) -> tuple[Any, Any]:
        if len(buffer) < 4:
            return None, None
        size = buffer.peek_uint32()
        if len(buffer) < 4 + size:
            return None, None
        buffer.retrieve(4)
        data = buffer.peek(size)
        buffer.retrieve(size)
        return None, data

    def packet(self, conn: gevffi.Connection, reply: Any) -> Any:
        return len(reply).to_bytes(4, "big"), reply


class Echo(gevffi.Handler):
    """Sends back whatever comes."""

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> Any:
        return data


if __name__ == "__main__":
    server = gevffi.Server(Echo(), "127.0.0.1:0", protocol=Framed())
    server.run_after(0, lambda: print(f"listening on {server.address}", flush=True))
    server.start()
