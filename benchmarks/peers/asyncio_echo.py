"""asyncio's `Protocol`: the fastest thing the standard library's event loop offers.

`Protocol` rather than streams, because streams cost a task and several futures a message.
asyncio turns TCP_NODELAY on by itself. `serve` is shared with the uvloop peers, which run the
same code on another loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

BACKLOG = 4096


class Echo(asyncio.Protocol):
    """One connection; sends back whatever comes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(protocol: Callable[[], asyncio.Protocol]) -> None:
    """Listen on a free port of 127.0.0.1, say which, and serve for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=BACKLOG)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Echo))
