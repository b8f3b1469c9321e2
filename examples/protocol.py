"""gev's protocol demo: frames of one's own, cut in Python.

    python examples/protocol.py [ADDRESS]

    |length|.... payload ....|      4 bytes, big-endian; then as many

This shows how a protocol is written. This very one is also there ready-made, cut in C:
`gevffi.LengthPrefixed()`.
"""

from __future__ import annotations

import sys
from typing import Any

import gevffi

HEADER = 4
MOST = 1 << 20


class ExampleProtocol(gevffi.Protocol):
    def unpacket(self, conn: gevffi.Connection, buffer: gevffi.ReadBuffer) -> tuple[Any, Any]:
        header = buffer.virtual_read(HEADER)  # taken back unless it is flushed
        if len(header) < HEADER:
            return None, None
        size = int.from_bytes(header, "big")
        if size > MOST:
            raise gevffi.FrameTooLargeError(f"a frame of {size} bytes")
        payload = buffer.virtual_read(size)
        if len(payload) < size:
            return None, None
        buffer.virtual_flush()
        return None, payload

    def packet(self, conn: gevffi.Connection, reply: Any) -> Any:
        return len(reply).to_bytes(HEADER, "big"), reply


class Example(gevffi.Handler):
    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> Any:
        print("message:", bytes(data), flush=True)
        return data


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    server = gevffi.Server(Example(), address, protocol=ExampleProtocol())
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM drains and stops
