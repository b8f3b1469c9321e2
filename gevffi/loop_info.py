"""What an event loop tells of itself, to whichever thread asks.

Everything here is a number or a name that one thread writes and any other may read at any moment,
also after the loop has ended; none of it waits for the loop.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from gevffi.options import Options
from gevffi.stats import LoopStats, loop_stats

if TYPE_CHECKING:
    from gevffi.arena import Arena
    from gevffi.lifecycle import Lifecycle
    from gevffi.mailbox import Mailbox
    from gevffi.sys.reactor import Reactor
    from gevffi.timers import TimerQueue


class LoopInfo:
    """The part of `gevffi.EventLoop` that may be asked from any thread."""

    _arena: Arena
    _life: Lifecycle
    _mailbox: Mailbox
    _reactor: Reactor
    _timers: TimerQueue

    def __init__(self, options: Options, name: str) -> None:
        self.options = options
        """The limits and sizes it was made with."""
        self.name = name
        """Shown in logs."""
        self.finished = False
        """Whether `run` has ended."""
        self.refused_count = 0
        """Connections closed at once instead of being served."""
        self._thread: int | None = None  # the one it runs in, or has run in
        self._given = 0  # connections ever given to this loop, by whoever accepts them
        self._made = 0  # by `connect`, on its thread

    def check_thread(self) -> None:
        """Raise RuntimeError if the loop runs in another thread than the calling one."""
        if self._thread is not None and not self.in_loop():
            raise RuntimeError(
                f"this belongs to the thread of {self.name}; "
                "from another one use call_soon_threadsafe"
            )

    def in_loop(self) -> bool:
        """Whether the calling thread is the one this loop runs on."""
        return self._thread == threading.get_ident()

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return self._life.count

    @property
    def load(self) -> int:
        """Connections given to this loop, or made by it, and not closed yet."""
        return self._given + self._made - self._life.ended

    @property
    def leases(self) -> int:
        """Arenas that only views kept by handlers hold."""
        return self._arena.leases

    def stats(self) -> LoopStats:
        """What the loop has counted, and what it has now. Also after the end."""
        return loop_stats(
            self._reactor.stats(),
            self._life.counters,
            connections=self.connection_count,
            refused=self.refused_count,
            leases=self.leases,
            timers=self._timers.running,
            calls=self._mailbox.made,
            calls_waiting=len(self._mailbox.calls),
        )
