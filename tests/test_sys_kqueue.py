"""gevffi.sys, the kqueue calls: each against the kernel, or libkqueue.

Signals are in test_sys_signals.py.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest
from helpers import LIBKQUEUE, settle

from gevffi import sys as gsys

if not hasattr(gsys, "kqueue"):
    pytest.skip("this build has no kqueue", allow_module_level=True)

from gevffi.sys import Kevent

PATIENCE = 20
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def kq() -> Iterator[int]:
    fd = gsys.kqueue()
    yield fd
    os.close(fd)
    settle()


@pytest.fixture
def ends(kq: int) -> Iterator[Pair]:
    """After the kqueue, so that it is closed before it."""
    left, right = socket.socketpair()
    with left, right:
        yield left, right
        for filter in (gsys.EVFILT_READ, gsys.EVFILT_WRITE):
            for end in (left, right):
                if end.fileno() >= 0:
                    delete = Kevent(end.fileno(), filter, gsys.EV_DELETE)
                    gsys.kevent(kq, [delete], 1, timeout=0)


def test_a_kqueue_is_close_on_exec(kq: int) -> None:
    assert os.get_inheritable(kq) is False


def test_a_filter_fires_and_says_who_it_is(kq: int, ends: Pair) -> None:
    fd = ends[0].fileno()
    wanted = Kevent(fd, gsys.EVFILT_READ, udata=sys.maxsize)
    assert gsys.kevent(kq, [wanted]) == []
    assert gsys.kevent(kq, max_events=8, timeout=0) == []
    ends[1].send(b"abc")
    [found] = gsys.kevent(kq, max_events=8, timeout=10)
    assert found == Kevent(fd, gsys.EVFILT_READ, flags=0, data=3, udata=sys.maxsize)
    assert gsys.kevent(kq, max_events=8) == [found]  # level-triggered


def test_changes_and_waiting_in_one_call(kq: int, ends: Pair) -> None:
    fd = ends[0].fileno()
    [found] = gsys.kevent(kq, [Kevent(fd, gsys.EVFILT_WRITE)], 8, timeout=10)
    assert (found.ident, found.filter) == (fd, gsys.EVFILT_WRITE)


def test_flags_say_what_happened_and_not_what_was_asked_for(kq: int, ends: Pair) -> None:
    """macOS and libkqueue give EV_ADD back."""
    asked = Kevent(ends[0].fileno(), gsys.EVFILT_READ, gsys.EV_ADD | gsys.EV_ENABLE)
    gsys.kevent(kq, [asked])
    ends[1].send(b"x")
    assert [found.flags for found in gsys.kevent(kq, max_events=8)] == [0]
    ends[0].recv(1)
    ends[1].close()
    assert [found.flags for found in gsys.kevent(kq, max_events=8)] == [gsys.EV_EOF]


def test_a_deleted_filter_is_silent(kq: int, ends: Pair) -> None:
    fd = ends[0].fileno()
    gsys.kevent(kq, [Kevent(fd, gsys.EVFILT_WRITE)])
    gsys.kevent(kq, [Kevent(fd, gsys.EVFILT_WRITE, gsys.EV_DELETE)])
    assert gsys.kevent(kq, max_events=8, timeout=0) == []


def test_a_user_filter_is_triggered_from_another_thread(kq: int) -> None:
    gsys.kevent(kq, [Kevent(7, gsys.EVFILT_USER, gsys.EV_ADD | gsys.EV_CLEAR)])
    found: list[Kevent] = []
    waiter = threading.Thread(target=lambda: found.extend(gsys.kevent(kq, max_events=1)))
    waiter.start()
    gsys.kevent(kq, [Kevent(7, gsys.EVFILT_USER, 0, gsys.NOTE_TRIGGER)])
    waiter.join(PATIENCE)
    assert [event.ident for event in found] == [7]
    assert gsys.kevent(kq, max_events=1, timeout=0) == []  # cleared


def test_no_more_events_than_asked_for(kq: int, ends: Pair) -> None:
    fds = {end.fileno() for end in ends}
    once = gsys.EV_ADD | gsys.EV_ONESHOT
    gsys.kevent(kq, [Kevent(fd, gsys.EVFILT_WRITE, once) for fd in fds])
    batches = [gsys.kevent(kq, max_events=1, timeout=0) for _ in range(3)]
    assert [len(batch) for batch in batches] == [1, 1, 0]
    assert {found.ident for batch in batches for found in batch} == fds


def test_a_change_that_fails_raises(kq: int) -> None:
    with pytest.raises(FileNotFoundError, match="kevent: "):
        gsys.kevent(kq, [Kevent(0, gsys.EVFILT_READ, gsys.EV_DELETE)])


def test_a_change_that_fails_is_told_where_there_is_room(kq: int) -> None:
    change = Kevent(0, gsys.EVFILT_READ, gsys.EV_DELETE)
    [told] = gsys.kevent(kq, [change], 1, timeout=0)
    assert told.flags & gsys.EV_ERROR
    assert (told.ident, told.data) == (0, errno.ENOENT)


def test_a_receipt_is_an_error_of_zero(kq: int, ends: Pair) -> None:
    change = Kevent(ends[0].fileno(), gsys.EVFILT_READ, gsys.EV_ADD | gsys.EV_RECEIPT)
    [told] = gsys.kevent(kq, [change], 1, timeout=0)
    assert told.flags & gsys.EV_ERROR
    assert told.data == 0


def test_waiting_on_what_is_no_kqueue(ends: Pair) -> None:
    with pytest.raises(OSError, match="kevent: ") as caught:
        gsys.kevent(ends[0].fileno(), max_events=1, timeout=0)
    assert caught.value.errno == (errno.ENOENT if LIBKQUEUE else errno.EBADF)


def test_a_wrong_number_of_events_is_named(kq: int) -> None:
    with pytest.raises(ValueError, match=r"kevent: max_events .*not -1"):
        gsys.kevent(kq, max_events=-1)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_wrong_time_out_is_named(timeout: float, kq: int) -> None:
    with pytest.raises(ValueError, match=rf"kevent: timeout .*not {timeout}"):
        gsys.kevent(kq, timeout=timeout)


@pytest.mark.parametrize(
    "wrong", [Kevent(-1, 0), Kevent(0, 0, udata=-1), Kevent(0, 0, data=1 << 63)]
)
def test_a_number_that_does_not_fit_is_refused(wrong: Kevent, kq: int) -> None:
    with pytest.raises(OverflowError):
        gsys.kevent(kq, [wrong])


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_time_out_past_what_is_counted(timeout: float, kq: int, ends: Pair) -> None:
    change = Kevent(ends[0].fileno(), gsys.EVFILT_WRITE)
    assert len(gsys.kevent(kq, [change], 1, timeout=timeout)) == 1
