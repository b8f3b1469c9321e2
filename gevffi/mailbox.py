"""Calls that other threads ask a loop to make.

A thread appends its call and wakes the loop; the loop makes the calls of a turn in the order they
came. The wake-up costs a system call only when the loop sleeps, and only the first of many
(`poller_epoll.c` tells how). The lock is there for the end: once the mailbox is closed nobody
touches a loop that is gone, and nothing lies in it unseen.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

Call: TypeAlias = "tuple[Callable[..., object], tuple[Any, ...]]"


class Mailbox:
    """The calls waiting for one loop.

    Args:
        wake: ends the loop's wait; called from the threads that put calls in.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.calls: deque[Call] = deque()
        """What waits. Others only look whether it is empty."""
        self.made = 0
        """Calls that were made, or are being made."""
        self._lock = threading.RLock()  # a signal's handler may put while its thread is putting
        self._closed = False

    def put(self, callback: Callable[..., object], args: tuple[Any, ...]) -> bool:
        """Have the loop call `callback(*args)`; False when it has ended. From any thread."""
        with self._lock:
            if not self._closed:
                self.calls.append((callback, args))
                self._wake()
            return not self._closed

    def run(self, failed: Callable[[Exception], None]) -> None:
        """Make the calls there are; what they put in waits for the next turn."""
        count = len(self.calls)
        self.made += count
        for _ in range(count):
            callback, args = self.calls.popleft()
            try:
                callback(*args)
            except Exception as exc:
                failed(exc)

    def close(self) -> list[Call]:
        """Take no more calls, and return those that will not be made."""
        with self._lock:
            self._closed = True
            left = list(self.calls)
            self.calls.clear()
            return left
