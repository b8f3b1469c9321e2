"""`websockets`, its asyncio server: the most used WebSocket library for Python.

Without compression and without keepalive, neither of which takes part in what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen

from benchmarks.peers.asyncio_echo import BACKLOG


async def echo(connection: ServerConnection) -> None:
    """Sends back whatever comes."""
    async for message in connection:
        await connection.send(message)


async def serve(handler: Callable[[ServerConnection], Awaitable[None]]) -> None:
    """Listen on a free port of 127.0.0.1, say which, and serve for ever."""
    async with listen(
        handler, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=BACKLOG
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"listening on 127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(echo))
