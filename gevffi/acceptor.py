"""The listening sockets of a loop.

Accepting happens in C, in batches; here each new descriptor goes to the one who listens, who owns
it from then on. When the process or the machine is out of descriptors, C takes the listener out of
the poller, because it would be ready for ever without getting any further; it is tried again ten
times a second, so new connections are taken soon after descriptors are free again, and the loop
does not spin in the meantime.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from gevffi.sys.reactor import Reactor
from gevffi.sys.results import Accepted
from gevffi.timers import Timer, TimerQueue

logger = logging.getLogger("gevffi")

PAUSE = 0.1
"""Seconds a listener rests when there are no descriptors."""


class Acceptor:
    """Hands out what the listeners of one loop accept. Belongs to the loop's thread.

    Args:
        reactor: accepts.
        timers: the loop's, to try again later.
        failed: gets the exceptions of those who listen.
        name: the loop's, for the log.
    """

    def __init__(
        self,
        reactor: Reactor,
        timers: TimerQueue,
        failed: Callable[[Exception], None],
        name: str,
    ) -> None:
        self._reactor = reactor
        self._timers = timers
        self._failed = failed
        self._name = name
        self._takers: dict[int, Callable[[Accepted], object]] = {}  # by listener
        self._resting: set[int] = set()

    def listen(self, fd: int, on_accept: Callable[[Accepted], object]) -> int:
        """Accept from the listening socket `fd`; returns the listener's number."""
        listener = self._reactor.listen(fd)
        self._takers[listener] = on_accept
        return listener

    def unlisten(self, listener: int) -> None:
        """Accept from it no more."""
        del self._takers[listener]
        self._resting.discard(listener)
        self._reactor.unlisten(listener)

    def close(self) -> None:
        """Stop listening altogether."""
        for listener in list(self._takers):
            self.unlisten(listener)

    def hand_out(self, count: int) -> None:
        """Give the turn's new connections to those who listen."""
        for new in self._reactor.results.accepted(count):
            take = self._takers.get(new.listener)
            if take is None:  # unlistened by a callback of this very turn
                os.close(new.fd)
                continue
            if new.listener in self._resting:
                self._resting.discard(new.listener)
                logger.warning("%s: accepting again", self._name)
            try:
                take(new)
            except Exception as exc:
                self._failed(exc)

    def rest(self, error: int, listener: int) -> None:
        """A listener ran into `error`, an errno, and was taken out of the poller."""
        if listener not in self._resting:
            self._resting.add(listener)
            logger.warning(
                "%s: cannot accept connections for now: %s", self._name, os.strerror(error)
            )
        self._timers.add(Timer(self._try_again, (listener,)), PAUSE)

    def _try_again(self, listener: int) -> None:
        if listener in self._resting:
            try:
                self._reactor.resume_accept(listener)
            except OSError as exc:
                self.rest(exc.errno or 0, listener)
