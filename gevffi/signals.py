"""SIGINT and SIGTERM, as a server hears them.

A signal's handler in Python runs on the main thread only, between two steps of whatever that thread
does. While it sleeps in the kernel there are no steps, and a signal that comes just before it falls
asleep would not be noticed. So the interpreter is told to write a byte into a socket with each
signal (signal.set_wakeup_fd), and the loop of the main thread watches the other end:

    signal ──▶ the interpreter's C handler ──▶ bell ═══ ear ──▶ the loop's wait ends
                                                                      │
                                         heard(count)  ◀──  the handler in Python runs
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals(heard: Callable[[int], object]) -> Iterator[int | None]:
    """Have SIGINT and SIGTERM call `heard(1)`, `heard(2)` and so on, for a `with` block.

    What was there before is put back at its end. Elsewhere than on the main thread signals are left
    alone.

    Args:
        heard: called on the main thread, in the middle of whatever it does: it must take no lock
            that this thread may hold.

    Returns:
        The descriptor to watch (see `EventLoop.watch`); None elsewhere than on the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    numbers = count(1)

    def on_signal(number: int, frame: FrameType | None) -> None:
        heard(next(numbers))

    ear, bell = socket.socketpair()
    with ear, bell:
        bell.setblocking(False)
        before = {number: signal.signal(number, on_signal) for number in STOPPING}
        wakeup = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
        try:
            yield ear.fileno()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, action in before.items():
                signal.signal(number, action)
