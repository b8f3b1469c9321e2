"""Who gets in: what becomes of a new connection between its accept and its loop.

    accept4 ──▶ is there a place? ──no──▶ counted, reset
                        │
                       yes ──▶ which loop? ──▶ EventLoop.give
                               the strategy says, or the one that accepted

`max_connections` counts the connections of all loops together, from the moment they get in, so any
number of loops that accept at once (`reuse_port`) never let in one too many. A connection past it
is accepted, since in the kernel's queue it would wait for nobody knows what, and then closed at
once with a reset rather than an end (RST, not FIN):

* The peer cannot take it for an answer. An end without a byte is a whole answer in protocols that
  end one by closing (RFC 9112 6.3 for one); a reset is an error in all of them.
* It is always the same. Closing a socket that has unread input resets it (RFC 1122 4.2.2.13), so
  with an end it would depend on whether the peer's first bytes were faster.
* It leaves nothing behind. A socket that ends waits for the peer's own end, and then, as the side
  that closed first, in TIME_WAIT: a minute each, for connections nobody wanted.

A Unix socket knows no reset: its peer sees the end, or ECONNRESET if it had sent something.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from gevffi.balance import Select
from gevffi.handler import Handler
from gevffi.loop import EventLoop
from gevffi.protocol import Protocol, Receive
from gevffi.sys.results import Accepted
from gevffi.sys.sockaddr import decode_sockaddr

logger = logging.getLogger("gevffi")

EPISODE = 60.0
"""Refusals that are fewer seconds apart are one episode, and logged once."""

_RESET = struct.pack("ii", 1, 0)  # struct linger, socket(7)


class Admission:
    """Lets the new connections of a server in, or refuses them.

    Args:
        limit: connections that its loops may have together; 0 for any number.
        select: picks a loop; None if the one that accepts keeps the connection.
        handler, protocol, receive: see `EventLoop.give`.
    """

    def __init__(
        self,
        limit: int,
        select: Select | None,
        handler: Handler,
        protocol: Protocol,
        receive: Receive,
    ) -> None:
        self._limit = limit or math.inf
        self._select = select
        self._callbacks = (handler, protocol, receive)
        self._lock = threading.Lock()
        self._entering = 0  # let in, and not yet counted by a loop
        self._refused_at = -math.inf
        self.refused_count = 0
        """Connections refused. From any thread."""

    def acceptor(self, loop: EventLoop, loops: Sequence[EventLoop]) -> Callable[[Accepted], None]:
        """Return what to give to `loop.listen`, where `loop` is one of the server's `loops`."""
        return partial(self._accept, loop, loops)

    def _accept(self, loop: EventLoop, loops: Sequence[EventLoop], new: Accepted) -> None:
        if not self._enter(loops):
            self._refuse(loop, new.fd)
            return
        try:
            chosen = loop if self._select is None else choose(self._select, loops, new.peer)
        except BaseException:
            with self._lock:
                self._entering -= 1
            loop.refuse(new.fd)
            raise
        with self._lock:
            self._entering -= 1
            chosen._given += 1
        chosen._take(new.fd, new.peer, *self._callbacks)

    def _enter(self, loops: Sequence[EventLoop]) -> bool:
        with self._lock:
            if self._entering + sum(loop.load for loop in loops) >= self._limit:
                return False
            self._entering += 1
            return True

    def _refuse(self, loop: EventLoop, fd: int) -> None:
        now = monotonic()
        with self._lock:
            self.refused_count += 1
            loop.refused_count += 1
            first = now - self._refused_at > EPISODE
            self._refused_at = now
        with socket.socket(fileno=fd) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if first:
            logger.warning(
                "%s: %d connections are open, which is max_connections; more are refused",
                loop.name,
                self._limit,
            )


def choose(select: Select, loops: Sequence[EventLoop], peer: bytes) -> EventLoop:
    """Return the one of `loops` that the strategy wants.

    Raises:
        TypeError: it is none of them. And whatever the strategy raises.
    """
    chosen = select(loops, decode_sockaddr(peer))
    if not any(chosen is loop for loop in loops):
        raise TypeError(f"balance must return one of the server's loops, not {chosen!r}")
    return chosen
