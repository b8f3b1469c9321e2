"""Deadlines of a loop's WebSockets: handshakes, pings, what must follow a ping, closing.

Every connection has one deadline at a time, and there are four kinds, each with a delay of its own
that is the same for all. So a queue for each kind is in order of time by itself: what is put in
goes to the end, what is due is at the front. One timer a loop waits for the soonest of the four
fronts; a hundred thousand connections cost an entry in a dict each.

    handshake   conn 7   conn 9                        due  3.1   9.8
    ping        conn 1   conn 4   conn 2               due 11.0  14.2  19.9
    answer      conn 3                                 due 17.5
    closing     -
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gevffi._ws_connection import Connection
    from gevffi.loop import EventLoop
    from gevffi.timers import Timer


class Deadlines:
    """The connections that wait for one kind of deadline.

    Args:
        delay: seconds from `Keeper.put` to the deadline.
        act: called with the connection when it has come.
    """

    __slots__ = ("act", "delay", "due")

    def __init__(self, delay: float, act: Callable[[Connection], object]) -> None:
        self.delay = delay
        self.act = act
        self.due: dict[Connection, float] = {}


class Keeper:
    """The deadlines of one loop. Belongs to its thread.

    Args:
        loop: whose connections they are.
        kinds: what deadlines there are.
    """

    def __init__(self, loop: EventLoop, kinds: tuple[Deadlines, ...]) -> None:
        self._loop = loop
        self._kinds = kinds
        self._timer: Timer | None = None
        self._timer_due = 0.0

    def put(self, conn: Connection, kind: Deadlines) -> None:
        """Give `conn` a deadline, instead of the one it may have."""
        self.drop(conn)
        due = time.monotonic() + kind.delay
        kind.due[conn] = due
        conn._deadline = kind
        if self._timer is None or due < self._timer_due:
            self._wait_until(due)

    def drop(self, conn: Connection) -> None:
        """Take the deadline of `conn` away."""
        if conn._deadline is not None:
            del conn._deadline.due[conn]
            conn._deadline = None

    def _wait_until(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._run)

    def _run(self) -> None:
        self._timer = None
        now = time.monotonic()
        for kind in self._kinds:
            ripe = []
            for conn, due in kind.due.items():
                if due > now:
                    break
                ripe.append(conn)
            for conn in ripe:
                self.drop(conn)
                try:
                    kind.act(conn)
                except Exception as exc:
                    self._loop._life.failed(conn.transport, exc)
        fronts = [next(iter(kind.due.values())) for kind in self._kinds if kind.due]
        if fronts and (self._timer is None or min(fronts) < self._timer_due):
            self._wait_until(min(fronts))
