"""The asyncio peer on uvloop: the fastest event loop for Python in wide use (libuv, Cython)."""

from __future__ import annotations

import uvloop

from benchmarks.peers.asyncio_echo import Echo, serve

if __name__ == "__main__":
    uvloop.run(serve(Echo))
