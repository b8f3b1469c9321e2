"""gevffi.sys, accept4 and the eventfd calls: each against the kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from gevffi import sys as gsys

# ---- accept4 -------------------------------------------------------------------------------


def test_accept4_gives_a_descriptor_and_the_peers_address() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        fd, address = gsys.accept4(listener.fileno())
        with socket.socket(fileno=fd) as accepted:
            assert address == client.getsockname() == accepted.getpeername()
            assert os.get_blocking(fd) is False
            assert os.get_inheritable(fd) is False


def test_accept4_flags_are_the_callers() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        fd, _ = gsys.accept4(listener.fileno(), 0)
        assert os.get_blocking(fd) is True
        assert os.get_inheritable(fd) is True
        os.close(fd)


def test_accept4_without_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError, match="accept4"):
            gsys.accept4(listener.fileno())


def test_accept4_on_what_does_not_listen() -> None:
    with socket.socket() as sock, pytest.raises(OSError, match="accept4: Invalid argument"):
        gsys.accept4(sock.fileno())


def test_accept4_closes_what_it_cannot_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(raw: bytes) -> None:
        raise ValueError("no such family")

    monkeypatch.setattr("gevffi.sys.calls.decode_sockaddr", refuse)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        client.settimeout(10)
        with pytest.raises(ValueError, match="no such family"):
            gsys.accept4(listener.fileno())
        assert client.recv(1) == b""


# ---- eventfd -------------------------------------------------------------------------------


@pytest.fixture
def counter() -> Iterator[int]:
    fd = gsys.eventfd()
    yield fd
    os.close(fd)


def test_an_eventfd_counts_and_starts_again(counter: int) -> None:
    gsys.eventfd_write(counter)
    gsys.eventfd_write(counter, 41)
    assert gsys.eventfd_read(counter) == 42
    with pytest.raises(BlockingIOError, match="eventfd_read"):
        gsys.eventfd_read(counter)


def test_a_full_eventfd_takes_no_more(counter: int) -> None:
    gsys.eventfd_write(counter, 2**64 - 2)
    with pytest.raises(BlockingIOError, match="eventfd_write"):
        gsys.eventfd_write(counter)
    assert gsys.eventfd_read(counter) == 2**64 - 2


def test_an_eventfd_starts_where_told_and_counts_down_as_a_semaphore() -> None:
    fd = gsys.eventfd(2, gsys.EFD_SEMAPHORE | gsys.EFD_NONBLOCK | gsys.EFD_CLOEXEC)
    assert [gsys.eventfd_read(fd), gsys.eventfd_read(fd)] == [1, 1]
    with pytest.raises(BlockingIOError):
        gsys.eventfd_read(fd)
    os.close(fd)


def test_an_eventfd_is_nonblocking_and_close_on_exec(counter: int) -> None:
    assert os.get_blocking(counter) is False
    assert os.get_inheritable(counter) is False


def test_eventfd_calls_on_something_else_fail() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"abc")
    with pytest.raises(OSError, match="eventfd_read: Invalid argument"):
        gsys.eventfd_read(reader)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("value", [-1, 2**64 - 1])
def test_a_value_out_of_range_is_named(value: int, counter: int) -> None:
    with pytest.raises(ValueError, match=rf"eventfd_write: value .*not {value}"):
        gsys.eventfd_write(counter, value)
    with pytest.raises(ValueError, match=rf"eventfd: initial .*not {value}"):
        gsys.eventfd(value)
