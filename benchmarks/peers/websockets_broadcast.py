"""`websockets`, sending what it reads to everybody with its `broadcast`."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast

from benchmarks.peers.websockets_echo import serve

everybody: set[ServerConnection] = set()


async def hub(connection: ServerConnection) -> None:
    """Sends whatever comes to all of them."""
    everybody.add(connection)
    try:
        async for message in connection:
            broadcast(everybody, message)
    finally:
        everybody.discard(connection)


if __name__ == "__main__":
    asyncio.run(serve(hub))
