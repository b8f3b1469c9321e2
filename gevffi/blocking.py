"""What clients that block are made of: an inbox, and a loop that may be their own.

Underneath such a client is an outgoing connection of an `EventLoop` that runs in a thread; what
blocks is the caller only. The loop's thread puts messages into the inbox, callers take them out:

         the loop's thread                                       callers
      message ──copy──▶ | newest | ... | oldest | ──▶ receive
                        |<-- inbox_limit bytes ->|

When it is full the connection pauses reading and TCP holds the peer back, until half of it has been
received.

A client has a loop and a thread of its own, which end with it, or shares those of others. Its
methods may be called from any thread but that of the loop, which they would block.
"""

from __future__ import annotations

import errno
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from gevffi.loop import EventLoop
from gevffi.options import Options
from gevffi.timers import check_delay

GRACE = 5.0
"""Seconds past its time-out after which a loop that has said nothing does not run."""
OVERHEAD = 64
"""Bytes a message counts besides its own, so that small ones fill an inbox too."""


class Inbox:
    """What the loop's thread tells, and callers wait for.

    Args:
        limit: bytes from which on it is full.

    Raises:
        ValueError: `limit` is less than 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"inbox_limit must be at least 1, not {limit!r}")
        self._limit = limit
        self._changed = threading.Condition()  # guards all of these
        self._messages: deque[tuple[Any, int]] = deque()  # and what each weighs
        self._size = 0
        self._full = False  # since then callers have not taken half of it
        self._open = False
        self._failure: Exception | None = None
        self._end: Callable[[], Exception] | None = None  # makes what a caller gets from then on
        self._cause: Exception | None = None

    # ---- on the loop's thread -------------------------------------------------------------------

    def opened(self) -> None:
        """The connection is open."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def failed(self, exc: Exception) -> None:
        """There will be no connection."""
        with self._changed:
            self._failure = exc
            self._changed.notify_all()

    def put(self, message: Any, size: int) -> bool:
        """A message of `size` bytes has come. Returns whether reading must pause."""
        weight = OVERHEAD + size
        with self._changed:
            self._messages.append((message, weight))
            self._size += weight
            full = self._size >= self._limit
            self._full = self._full or full
            self._changed.notify_all()
        return full

    def raised(self, exc: Exception) -> None:
        """Something raised, and the connection will end of it."""
        with self._changed:
            self._cause = exc

    def ended(self, error: Callable[[], Exception]) -> None:
        """The connection is gone; `error` makes what callers get who want more of it."""
        with self._changed:
            self._end = error
            self._changed.notify_all()

    def mark(self, done: list[bool]) -> None:
        """What a caller waits for in `wait_marked` has happened."""
        with self._changed:
            done.append(True)
            self._changed.notify_all()

    # ---- callers --------------------------------------------------------------------------------

    def wait_open(self, timeout: float) -> bool:
        """Wait until it is open; False when nothing was heard. Raises what connecting failed of."""
        with self._changed:
            heard = self._changed.wait_for(lambda: self._open or self._failure, timeout)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return bool(heard)

    def take(self, timeout: float | None) -> tuple[Any, bool]:
        """The oldest message, and whether reading may go on because of that."""
        with self._changed:
            self._wait(lambda: self._messages, timeout, "no message")
            if not self._messages:
                self._raise_end()
            message, weight = self._messages.popleft()
            self._size -= weight
            resume = self._full and self._size <= self._limit // 2
            if resume:
                self._full = False
            return message, resume

    def wait_marked(self, done: list[bool], timeout: float | None, what: str) -> None:
        """Wait until `mark` was called with this list, or it is clear that it will not be."""
        with self._changed:
            self._wait(lambda: done, timeout, what)
            if not done:
                self._raise_end()

    def wait_closed(self) -> None:
        """Wait for the end."""
        with self._changed:
            self._wait(lambda: False, None, "")

    def _wait(self, ready: Callable[[], object], timeout: float | None, what: str) -> None:
        """Wait until `ready()` or the connection is closed. The caller has the lock."""
        if timeout is not None:
            check_delay("timeout", timeout, zero=True)
        if not self._changed.wait_for(lambda: ready() or self._end is not None, timeout):
            raise TimeoutError(errno.ETIMEDOUT, f"{what} within {timeout:g} s")

    def _raise_end(self) -> None:
        assert self._end is not None
        raise self._end() from self._cause


class Closeable(Protocol):
    """A connection, as far as it matters here."""

    def close(self) -> None:
        """End it in good order. From any thread."""

    def abort(self) -> None:
        """End it at once. From any thread."""


C = TypeVar("C", bound=Closeable)


class BlockingClient:
    """Base of the clients that block.

    Args:
        inbox: what their connection fills.
        loop: one that runs in another thread, to share; when None, one of its own.
    """

    def __init__(self, inbox: Any, loop: EventLoop | None) -> None:
        self._inbox = inbox
        self._thread: threading.Thread | None = None
        if loop is None:
            # Unsent is what callers are waiting for, and no more. Reading goes on meanwhile: a
            # server that answers as it reads would otherwise wait for us, and we for it.
            loop = EventLoop(Options(write_limit=1 << 30, write_high_water=1 << 30), name="client")
            # A script that forgets to close must end all the same.
            self._thread = threading.Thread(target=loop.run, name="gevffi-client", daemon=True)
            self._thread.start()
        self._loop = loop

    def _connect(self, begin: Callable[[EventLoop], C], timeout: float) -> C:
        """Wait until what `begin` makes is open."""
        try:
            self._check_thread()
            connection = begin(self._loop)
            try:
                if not self._inbox.wait_open(timeout + GRACE):
                    raise TimeoutError(errno.ETIMEDOUT, f"{self._loop.name} does not run")
            except BaseException:
                connection.abort()
                raise
        except BaseException:
            self._end_loop(0)
            raise
        # If it is dropped without `close`, nothing stays behind.
        forgotten = connection.close if self._thread is None else self._loop.stop
        self._finalizer = weakref.finalize(self, forgotten)
        return connection

    def _closed(self) -> None:
        """After the connection was told to close: wait until it is."""
        self._finalizer.detach()
        self._end_loop(self._loop.options.close_timeout)
        self._inbox.wait_closed()

    def _end_loop(self, timeout: float) -> None:
        if self._thread is not None:
            self._loop.stop(timeout)
            self._thread.join()

    def _check_thread(self) -> None:
        if self._loop.in_loop():
            raise RuntimeError(f"this would block the thread of {self._loop.name}")
