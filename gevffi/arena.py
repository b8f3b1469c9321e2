"""The memory a loop reads into, and what happens to it when a handler keeps a view.

All connections of a loop are read into one region, packed one read behind the other, and handlers
get slices of it:

    0         start                              used                    size
    |  kept   |== read 0 ==|..|= read 1 =|..|....|--------- free ---------|

Usually nobody keeps a slice past its callback: the turn ends, the reference count of the region's
buffer says so, and the next turn starts at 0 again, in memory that is still in the cache. If
somebody does keep one, the region is not touched below `used` any more: the next turn starts there.
So keeping costs the bytes that are kept and their neighbours, not a fresh region every turn. When
such a region is full it is *leased*: the loop takes another one, and the leased one goes back to
the pool when its last slice dies. Leases are bounded; past the bound messages are delivered as
copies, until some lease has ended.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

from gevffi.sys.memory import COUNTS_ARE_TRUE, Pool, Region
from gevffi.sys.reactor import Reactor

logger = logging.getLogger("gevffi")

MIN_FREE = 65536
"""Free bytes a turn needs; as in `reactor.c`."""


class Arena:
    """The receive memory of one loop. Belongs to the loop's thread, but for `leases`."""

    def __init__(self, reactor: Reactor, pool: Pool, size: int, max_leases: int) -> None:
        self._reactor = reactor
        self._pool = pool
        self._size = size
        self._max_leases = max_leases
        self._leased: list[weakref.ref[Any]] = []
        self._warned = False
        self.start = 0
        """Where the next turn may write from."""
        self.copying = not COUNTS_ARE_TRUE or max_leases == 0
        """Whether messages are delivered as copies."""
        self._take()

    def _take(self) -> None:
        self.region: Region = self._pool.take(self._size)
        self.start = 0
        self._reactor.read_into(self.region)

    def close(self) -> None:
        """Let go of the memory; kept views keep what they need of it."""
        del self.region

    def copy(self) -> memoryview:
        """A copy of what this turn read, in the place of a view of the region."""
        return memoryview(self.region.root()[: self._reactor.used()].tobytes())

    @property
    def leases(self) -> int:
        """Regions that only kept views hold. From any thread."""
        return sum(buffer() is not None for buffer in self._leased)

    def settle(self) -> None:
        """End a turn that has delivered messages: decide where the next one starts."""
        if self.copying:
            self.copying = not COUNTS_ARE_TRUE or self.leases >= self._max_leases
        elif not self.region.borrowed():
            self.start = 0
        else:
            self.start = self._reactor.used()
            if self._size - self.start < MIN_FREE:
                self._lease()

    def _lease(self) -> None:
        self._leased = [buffer for buffer in self._leased if buffer() is not None]
        self._leased.append(weakref.ref(self.region.buffer))
        self._take()
        if len(self._leased) >= self._max_leases:
            self.copying = True
            if not self._warned:
                self._warned = True
                logger.warning(
                    "kept views hold %d arenas of %d bytes, max_leases is %d: "
                    "messages are delivered as copies for now",
                    len(self._leased),
                    self._size,
                    self._max_leases,
                )
