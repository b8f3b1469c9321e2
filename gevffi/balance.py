"""Which loop gets a new connection, when one of them accepts for all.

A strategy sees the loops and the peer's address, and picks a loop. It is a `Balance` or any
function that takes these two, and runs on the accepting loop's thread. `loop.load` counts the
connections given to a loop and not yet closed, including those still on their way to it, so a burst
of new connections spreads. What a strategy raises is logged and costs the connection it was asked
for, nothing else.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from gevffi.loop import EventLoop
    from gevffi.sys.sockaddr import Address

Select: TypeAlias = "Callable[[Sequence[EventLoop], Address], EventLoop]"


class Balance:
    """Base of the strategies."""

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        """Return the loop that shall have the connection.

        Args:
            loops: all loops of the server, in a fixed order; at least two.
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


class SourceHash(Balance):
    """The loop that the peer's IP address stands for, whatever its port.

    As long as the number of loops is the same, a peer always comes to the same one, also after a
    restart. Peers behind one address (a proxy, a NAT) all share a loop.

    The peer of a Unix socket is known by the name its own end is bound to. Hardly any has one;
    those without cannot be told apart, and are dealt out one loop after the other.
    """

    def __init__(self) -> None:
        self._nameless = RoundRobin()

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        """Return the loop number `crc32(host) % len(loops)`."""
        if not peer.host:
            return self._nameless.select(loops, peer)
        return loops[zlib.crc32(os.fsencode(peer.host)) % len(loops)]


def selector(balance: Balance | Select | None) -> Select:
    """Return the function to ask: that of `RoundRobin()` for None.

    Raises:
        TypeError: `balance` is neither a `Balance` nor a function.
    """
    if balance is None:
        return RoundRobin().select
    if isinstance(balance, Balance):
        return balance.select
    if isinstance(balance, type) or not callable(balance):
        raise TypeError(
            f"balance must be a Balance or a callable (loops, peer) -> EventLoop, not {balance!r}"
        )
    return balance
