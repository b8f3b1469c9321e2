"""gevffi.sys, the epoll calls: each against the kernel. Signals are in test_sys_signals.py."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from gevffi import sys as gsys

if not hasattr(gsys, "epoll_create"):
    pytest.skip("this system has no epoll", allow_module_level=True)


@pytest.fixture
def epfd() -> Iterator[int]:
    fd = gsys.epoll_create()
    yield fd
    os.close(fd)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


Pair = tuple[socket.socket, socket.socket]


def test_an_epoll_set_is_close_on_exec_unless_told(epfd: int) -> None:
    assert os.get_inheritable(epfd) is False
    other = gsys.epoll_create(0)
    assert os.get_inheritable(other) is True
    os.close(other)


def test_the_data_is_the_descriptor_by_default(epfd: int, ends: Pair) -> None:
    fd = ends[0].fileno()
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, fd, gsys.EPOLLIN | gsys.EPOLLOUT)
    assert gsys.epoll_wait(epfd, timeout=10) == [(fd, gsys.EPOLLOUT)]
    ends[1].send(b"x")
    assert gsys.epoll_wait(epfd, timeout=10) == [(fd, gsys.EPOLLIN | gsys.EPOLLOUT)]


@pytest.mark.parametrize("data", [0, 2**32, 2**64 - 1])
def test_the_data_is_64_bits_of_the_callers(data: int, epfd: int, ends: Pair) -> None:
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, ends[0].fileno(), gsys.EPOLLOUT, data)
    assert gsys.epoll_wait(epfd, timeout=10) == [(data, gsys.EPOLLOUT)]


@pytest.mark.parametrize("data", [-1, 2**64])
def test_data_out_of_range_is_named(data: int, epfd: int, ends: Pair) -> None:
    with pytest.raises(ValueError, match=rf"epoll_ctl: data .*not {data}"):
        gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, ends[0].fileno(), gsys.EPOLLOUT, data)


def test_modify_changes_events_and_data(epfd: int, ends: Pair) -> None:
    fd = ends[0].fileno()
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, fd, gsys.EPOLLOUT, 1)
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_MOD, fd, gsys.EPOLLIN, 2)
    assert gsys.epoll_wait(epfd, timeout=0) == []
    ends[1].send(b"x")
    assert gsys.epoll_wait(epfd, timeout=10) == [(2, gsys.EPOLLIN)]


def test_a_removed_descriptor_is_silent(epfd: int, ends: Pair) -> None:
    fd = ends[0].fileno()
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, fd, gsys.EPOLLOUT)
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_DEL, fd)
    assert gsys.epoll_wait(epfd, timeout=0) == []


def test_edge_triggered_events_come_once(epfd: int, ends: Pair) -> None:
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, ends[0].fileno(), gsys.EPOLLIN | gsys.EPOLLET)
    ends[1].send(b"x")
    assert len(gsys.epoll_wait(epfd, timeout=10)) == 1
    assert gsys.epoll_wait(epfd, timeout=0) == []


def test_no_more_events_than_asked_for_and_the_rest_next_time(epfd: int) -> None:
    fds = {gsys.eventfd(1) for _ in range(5)}
    for fd in fds:
        gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, fd, gsys.EPOLLIN | gsys.EPOLLONESHOT)
    batches = [gsys.epoll_wait(epfd, 2, timeout=0) for _ in range(4)]
    assert [len(batch) for batch in batches] == [2, 2, 1, 0]
    assert {data for batch in batches for data, _ in batch} == fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (gsys.EPOLL_CTL_ADD, FileExistsError),
        (gsys.EPOLL_CTL_MOD, FileNotFoundError),
        (gsys.EPOLL_CTL_DEL, FileNotFoundError),
    ],
)
def test_errors_of_epoll_ctl_name_the_call(
    operation: int, error: type[OSError], epfd: int, ends: Pair
) -> None:
    fd = ends[0].fileno()
    if operation == gsys.EPOLL_CTL_ADD:
        gsys.epoll_ctl(epfd, operation, fd, gsys.EPOLLIN)
    with pytest.raises(error, match="epoll_ctl: "):
        gsys.epoll_ctl(epfd, operation, fd, gsys.EPOLLIN)


def test_a_regular_file_cannot_be_polled(epfd: int) -> None:
    with open(__file__, "rb") as file, pytest.raises(PermissionError, match="epoll_ctl: "):
        gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, file.fileno(), gsys.EPOLLIN)


def test_what_is_not_open_cannot_be_polled(epfd: int) -> None:
    with pytest.raises(OSError, match="epoll_ctl: Bad file descriptor") as caught:
        gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, -1, gsys.EPOLLIN)
    assert caught.value.errno == errno.EBADF


def test_waiting_on_what_is_no_epoll_set(ends: Pair) -> None:
    with pytest.raises(OSError, match="epoll_wait: Invalid argument"):
        gsys.epoll_wait(ends[0].fileno(), timeout=0)


def test_a_wrong_flag_names_the_call() -> None:
    with pytest.raises(OSError, match="epoll_create: Invalid argument"):
        gsys.epoll_create(1)


@pytest.mark.parametrize("max_events", [0, -1])
def test_a_wrong_number_of_events_is_named(max_events: int, epfd: int) -> None:
    with pytest.raises(ValueError, match=rf"epoll_wait: max_events .*not {max_events}"):
        gsys.epoll_wait(epfd, max_events)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_wrong_time_out_is_named(timeout: float, epfd: int) -> None:
    with pytest.raises(ValueError, match=rf"epoll_wait: timeout .*not {timeout}"):
        gsys.epoll_wait(epfd, timeout=timeout)


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_time_out_past_what_the_kernel_counts(timeout: float, epfd: int, ends: Pair) -> None:
    gsys.epoll_ctl(epfd, gsys.EPOLL_CTL_ADD, ends[0].fileno(), gsys.EPOLLOUT)
    assert len(gsys.epoll_wait(epfd, timeout=timeout)) == 1
