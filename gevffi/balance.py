"""Which loop gets a new connection, when one of them accepts for all.

A strategy sees the loops and picks one. It runs on the accepting loop's thread. `loop.load` counts
the connections given to a loop and not yet closed, including those still on their way to it, so a
burst of new connections spreads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gevffi.loop import EventLoop
    from gevffi.sys.sockaddr import Address


class Balance:
    """Base of the strategies."""

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        """Return the loop that shall have the connection.

        Args:
            loops: all loops of the server, in a fixed order; at least one.
            peer: the peer's address.
        """
        raise NotImplementedError


class RoundRobin(Balance):
    """One after the other (gev: RoundRobin). The default."""

    def __init__(self) -> None:
        self._next = 0

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        """Return the loop after the last one."""
        loop = loops[self._next % len(loops)]
        self._next += 1
        return loop


class LeastConnections(Balance):
    """The loop with the fewest connections (gev: LeastConnection)."""

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        """Return the loop with the lowest `load`; the first of equals."""
        return min(loops, key=lambda loop: loop.load)
