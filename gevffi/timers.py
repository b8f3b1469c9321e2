"""Timers of a loop: a binary heap by due time.

A turn of the loop is told when the first one is due, and tells when it is; so a hundred thousand
timers cost a turn what one does, and nothing until then. A cancelled timer stays in the heap as an
empty shell until its time comes, or until more than half of the heap is shells and it is rebuilt
(as asyncio does).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Any

from gevffi.sys.reactor import NEVER, now_ns


class Timer:
    """A call to be made later; made by `call_later`, `call_every`, `run_after`, `run_every`."""

    __slots__ = ("_call", "_queue", "interval")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], interval: float | None = None
    ) -> None:
        if not callable(callback):
            raise TypeError(f"a timer's callback must be callable, not {callback!r}")
        # One attribute, so that a `cancel` from another thread takes it away whole.
        self._call: tuple[Callable[..., object], tuple[Any, ...]] | None = (callback, args)
        self._queue: TimerQueue | None = None
        self.interval = interval
        """Seconds between calls; None for a single call."""

    def cancel(self) -> None:
        """Make no more calls. Harmless when repeated. From any thread."""
        if self._call is not None:
            self._call = None
            queue = self._queue
            if queue is not None:
                queue.shells += 1

    @property
    def cancelled(self) -> bool:
        """Whether no call will be made any more: cancelled, or a single call that is done."""
        return self._call is None


class TimerQueue:
    """The timers of one loop. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Timer]] = []
        """Due time, order and timer."""
        self.due = NEVER
        """When the first one is due, in nanoseconds of `now_ns`."""
        self._order = count()  # timers due at the same time run in the order they were made
        self.shells = 0
        """Cancelled entries still in the heap. Other threads may count at once and lose one,
        which only puts the rebuilding off."""

    def add(self, timer: Timer, delay: float) -> None:
        """Have `timer` called in `delay` seconds, and from then on at its interval."""
        if self.shells > 64 and self.shells > len(self.heap) // 2:
            self.heap = [entry for entry in self.heap if not entry[2].cancelled]
            heapq.heapify(self.heap)
            self.shells = 0
        timer._queue = self
        self._push(now_ns() + _nanoseconds(delay), timer)
        self.due = self.heap[0][0]

    @property
    def running(self) -> int:
        """Entries that are not cancelled. From any thread."""
        return max(0, len(self.heap) - self.shells)

    def _push(self, due: int, timer: Timer) -> None:
        heapq.heappush(self.heap, (due, next(self._order), timer))

    def run_due(self, failed: Callable[[Exception], None]) -> None:
        """Call what is due. An exception goes to `failed` and the timer goes on."""
        now = now_ns()
        for _turn in range(len(self.heap)):  # what the callbacks add waits for the next turn
            if self.heap[0][0] > now:
                break
            due, _order, timer = heapq.heappop(self.heap)
            call = timer._call
            if call is None:
                self.shells = max(0, self.shells - 1)
                continue
            interval = timer.interval
            if interval is None:
                timer._queue = None
                timer._call = None
            else:
                # A loop that was held up skips the calls it missed instead of making them in a row.
                step = _nanoseconds(interval)
                self._push(due + ((now - due) // step + 1) * step, timer)
            callback, args = call
            try:
                callback(*args)
            except Exception as exc:
                failed(exc)
        self.due = self.heap[0][0] if self.heap else NEVER


def _nanoseconds(seconds: float) -> int:
    # At most 285 years: a time so far away still fits into the 63 bits that C has for it.
    return math.ceil(min(seconds, 9e9) * 1e9)


def check_delay(name: str, seconds: float, *, zero: bool) -> float:
    """Return `seconds` if it can be a delay, else raise ValueError naming it."""
    try:
        good = math.isfinite(seconds) and (seconds > 0 or (zero and seconds == 0))
    except TypeError:  # it is no number at all
        good = False
    if not good:
        raise ValueError(
            f"{name} must be {'0 or more' if zero else 'more than 0'}, not {seconds!r}"
        )
    return seconds
