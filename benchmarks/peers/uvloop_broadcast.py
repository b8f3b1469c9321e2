"""The asyncio peer that sends to everybody, on uvloop."""

from __future__ import annotations

import uvloop

from benchmarks.peers.asyncio_broadcast import Hub
from benchmarks.peers.asyncio_echo import serve

if __name__ == "__main__":
    uvloop.run(serve(Hub))
