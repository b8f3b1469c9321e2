"""Signals during gevffi.sys calls: PEP 475.

A repeating timer signals the main thread, which is the one that blocks. Repeating, because a signal
may come just before the call, and then the next one must do.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from gevffi import sys as gsys

INTERVAL = 0.01


class InterruptedByTestError(Exception):
    """Raised by a signal handler, to end a call."""


def every_interval(action: Callable[[], object]) -> None:
    """Call `action` from a signal handler, again and again."""

    def handler(signum: int, frame: FrameType | None) -> None:
        action()

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)


def stop_signals() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Leave the signal as it was."""
    previous = signal.getsignal(signal.SIGALRM)
    yield
    stop_signals()
    signal.signal(signal.SIGALRM, previous)


def full_pipe() -> tuple[int, int]:
    """A blocking pipe without room for another byte."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    assert os.write(writer, bytes(size)) == size
    os.set_blocking(writer, True)
    return reader, writer


class Blocked:
    """A call that blocks, what ends it, and what it then returns."""

    def __init__(self, name: str) -> None:
        self.fds: list[int] = []
        self.sockets: list[socket.socket] = []
        self.call: Callable[[], object]
        self.unblock: Callable[[], object]
        getattr(self, name)()

    def readv(self) -> None:
        self.fds = reader, writer = [*os.pipe()]
        self.call = lambda: gsys.readv(reader, [bytearray(8)])
        self.unblock = lambda: os.write(writer, b"abc")
        self.result: object = 3

    def writev(self) -> None:
        self.fds = reader, writer = [*full_pipe()]
        self.call = lambda: gsys.writev(writer, [b"abc"])
        self.unblock = lambda: os.read(reader, 8192)
        self.result = 3

    def eventfd_read(self) -> None:
        fd = gsys.eventfd(0, gsys.EFD_CLOEXEC)
        self.fds = [fd]
        self.call = lambda: gsys.eventfd_read(fd)
        self.unblock = lambda: gsys.eventfd_write(fd, 5)
        self.result = 5

    def eventfd_write(self) -> None:
        fd = gsys.eventfd(0, gsys.EFD_CLOEXEC)
        gsys.eventfd_write(fd, 2**64 - 2)
        self.fds = [fd]
        self.call = lambda: gsys.eventfd_write(fd, 1)
        self.unblock = lambda: gsys.eventfd_read(fd)
        self.result = None

    def accept4(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.socket()
        self.sockets = [listener, client]

        def accept() -> str:
            fd, address = gsys.accept4(listener.fileno())
            self.fds.append(fd)
            return address.host

        self.call = accept
        self.unblock = lambda: client.connect(listener.getsockname())
        self.result = "127.0.0.1"

    def epoll_wait(self) -> None:
        epfd, fd = gsys.epoll_create(), gsys.eventfd()
        self.fds = [epfd, fd]
        gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, fd, gsys.EPOLLIN, 77)
        self.call = lambda: gsys.epoll_wait(epfd)
        self.unblock = lambda: gsys.eventfd_write(fd)
        self.result = [(77, gsys.EPOLLIN)]

    def kevent(self) -> None:
        """The change is made once: a second EV_DELETE would fail."""
        kq = gsys.kqueue()
        self.fds = [kq]
        filters = [gsys.Kevent(ident, gsys.EVFILT_USER) for ident in (1, 2)]
        gsys.kevent(kq, filters)
        gone = gsys.Kevent(1, gsys.EVFILT_USER, gsys.EV_DELETE)
        trigger = gsys.Kevent(2, gsys.EVFILT_USER, 0, gsys.NOTE_TRIGGER)
        self.call = lambda: [found.ident for found in gsys.kevent(kq, [gone], 2)]
        self.unblock = lambda: gsys.kevent(kq, [trigger])
        self.result = [2]

    def poller_wait(self) -> None:
        poller = gsys.Poller()
        self.fds = reader, writer = [*os.pipe()]
        token = poller.add(reader, gsys.READ)
        self.call = poller.wait
        self.unblock = lambda: os.write(writer, b"x")
        self.result = [(token, gsys.READ)]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        for sock in self.sockets:
            sock.close()


BLOCKING = [
    *("readv", "writev", "accept4"),
    *(name for name in ("eventfd_read", "eventfd_write") if hasattr(gsys, name)),
    *(name for name in ("epoll_wait", "kevent") if hasattr(gsys, name)),
    "poller_wait",
]


@pytest.fixture
def blocked(request: pytest.FixtureRequest) -> Iterator[Blocked]:
    blocked = Blocked(request.param)
    yield blocked
    stop_signals()
    blocked.close()


@pytest.mark.parametrize("blocked", BLOCKING, indirect=True)
def test_a_call_goes_on_after_a_signal_handler(blocked: Blocked) -> None:
    """The third signal's handler, which runs inside the blocked call, is what ends it."""
    numbers = itertools.count(1)

    def third_unblocks() -> None:
        # On a busy machine the next signal may come while this runs, even after the third. Each has
        # a number of its own, so that one alone is the third.
        if next(numbers) == 3:
            stop_signals()
            blocked.unblock()

    every_interval(third_unblocks)
    assert blocked.call() == blocked.result
    assert next(numbers) > 3


@pytest.mark.parametrize("blocked", BLOCKING, indirect=True)
def test_a_signal_handler_that_raises_ends_the_call(blocked: Blocked) -> None:
    def interrupt() -> None:
        stop_signals()
        raise InterruptedByTestError

    def signalled_call() -> None:
        every_interval(interrupt)
        blocked.call()

    with pytest.raises(InterruptedByTestError):
        signalled_call()


def wait_in_epoll(timeout: float) -> object:
    epfd = gsys.epoll_create()
    try:
        return gsys.epoll_wait(epfd, timeout=timeout)
    finally:
        os.close(epfd)


def wait_in_poller(timeout: float) -> object:
    with gsys.Poller() as poller:
        return poller.wait(timeout)


def wait_in_kqueue(timeout: float) -> object:
    kq = gsys.kqueue()
    try:
        return gsys.kevent(kq, max_events=1, timeout=timeout)
    finally:
        os.close(kq)


WAITS = [
    wait_in_poller,
    *([wait_in_epoll] if hasattr(gsys, "epoll_wait") else []),
    *([wait_in_kqueue] if hasattr(gsys, "kevent") else []),
]


@pytest.mark.parametrize("wait", WAITS)
def test_a_time_out_is_not_begun_anew_after_a_signal(wait: Callable[[float], object]) -> None:
    """Signals come faster than the time-out; begun anew, it would never end."""
    signals: list[None] = []

    def count() -> None:
        signals.append(None)
        if len(signals) == 1000:
            raise InterruptedByTestError

    every_interval(count)
    begin = time.monotonic()
    assert wait(5 * INTERVAL) == []
    assert time.monotonic() - begin >= 5 * INTERVAL
    assert signals


def test_a_wake_by_a_signal_handler_ends_the_wait() -> None:
    """Between the interrupted wait and the next, nobody sleeps: the wake must be remembered."""
    with gsys.Poller() as poller:
        every_interval(poller.wake)
        assert [poller.wait() for _ in range(20)] == [[]] * 20
        stop_signals()
