"""The memory a loop reads into, and what happens to it when a handler keeps a view.

All connections of a loop are read into one region, packed one read behind the other, and handlers
get slices of it:

    0         start                              used            reserve     size
    |  kept   |== read 0 ==|..|= read 1 =|..|....|----- free ----|-----------|

Usually nobody keeps a slice past its callback: the turn ends, the reference count of the region's
buffer says so, and the next turn starts at 0 again, in memory that is still in the cache. If
somebody does keep one, the region is not touched below `used` any more: the next turn starts there.
So keeping costs the bytes that are kept and their neighbours, not a fresh region every turn. When
such a region is full it is *leased*: the loop takes another one, and the leased one goes back to
the pool when its last slice dies.

Leases are bounded, by `max_leases` and by what the pool gives. Past that the loop reads into the
reserve, the last 64 KiB, which no slice ever shows: messages are copies then, until a lease has
ended or nobody keeps a slice of this region any more.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from typing import Any

from gevffi.sys.memory import COUNTS_ARE_TRUE, Pool, Region
from gevffi.sys.reactor import Reactor

logger = logging.getLogger("gevffi")

RESERVE = 65536
"""Bytes at the end of a region that are only read into to be copied; what a turn needs at least
(`MIN_READ` in `reactor.c`)."""


class Arena:
    """The receive memory of one loop. Belongs to the loop's thread, but for `leases`."""

    def __init__(self, reactor: Reactor, pool: Pool, size: int, max_leases: int) -> None:
        self._reactor = reactor
        self._pool = pool
        self._size = size
        self._max_leases = max_leases
        self._leased: list[weakref.ref[Any]] = []
        self._warned = False
        self._always_copying = not COUNTS_ARE_TRUE or max_leases == 0
        self._use(pool.take(size))
        if self._always_copying:
            self._use_reserve()

    def _use(self, region: Region) -> None:
        self.region = region
        self.start = 0
        """Where the next turn may write from."""
        self.view: memoryview | None = region.root
        """What a turn reads into, read-only, to be sliced; None: messages are delivered as copies,
        of what `read` returns."""
        self.references, self.alone = region.references, region.alone
        """As long as the one returns the other, nobody keeps a slice of it."""
        self._reactor.read_into(region, 0, self._size - RESERVE)

    def _use_reserve(self) -> None:
        self.start = 0
        self.view = None
        self.alone = -1
        self._reactor.read_into(self.region, self._size - RESERVE, RESERVE)

    def close(self) -> None:
        """Let go of the memory; kept views keep what they need of it."""
        del self.region, self.view, self.references

    def read(self) -> tuple[memoryview, Any]:
        """What this turn read into, read-only, to be sliced; and as what has slices of `bytes`."""
        region = self.region
        if self.view is not None:
            return self.view, region.buffer
        copied = region.root[self._size - RESERVE :][: self._reactor.results.used()].tobytes()
        return memoryview(copied), copied

    @property
    def leases(self) -> int:
        """Regions that only kept views hold. From any thread."""
        return sum(buffer() is not None for buffer in self._leased)

    def settle(self) -> bool:
        """End a turn that has delivered messages, some of which are kept, or copies: decide where
        the next one starts.

        Returns:
            Whether that is in the same memory; else `move` is to be called, once nothing that was
            read in this turn is to be sent any more.
        """
        if self.view is None:
            return self._always_copying
        self.start = self._reactor.results.used()
        return self._size - RESERVE - self.start >= RESERVE

    def move(self) -> None:
        """Read into other memory, or other parts of this one."""
        if self.region.borrowed():
            self._lease()
        else:
            self._use(self.region)

    def _lease(self) -> None:
        self._leased = [buffer for buffer in self._leased if buffer() is not None]
        if len(self._leased) < self._max_leases:
            with contextlib.suppress(MemoryError, OSError):
                region = self._pool.take(self._size)
                self._leased.append(weakref.ref(self.region.buffer))
                self._use(region)
                return
        if self.view is not None:
            self._use_reserve()
        if not self._warned:
            self._warned = True
            logger.warning(
                "kept views hold %d arenas of %d bytes, max_leases is %d: "
                "messages are delivered as copies for now",
                len(self._leased),
                self._size,
                self._max_leases,
            )
