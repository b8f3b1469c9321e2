"""asyncio's way to send to everybody: a loop over `transport.write`."""

from __future__ import annotations

import asyncio
from typing import cast

from benchmarks.peers.asyncio_echo import serve

transports: set[asyncio.Transport] = set()


class Hub(asyncio.Protocol):
    """One connection; what it sends goes to all."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transports.add(self.transport)

    def data_received(self, data: bytes) -> None:
        for transport in transports:
            transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        transports.discard(self.transport)


if __name__ == "__main__":
    asyncio.run(serve(Hub))
