"""gevffi.sys, readv and writev, and what every call says when it fails: against the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from gevffi import sys as gsys

IOV_MAX = os.sysconf("SC_IOV_MAX")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected, non-blocking TCP sockets."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        left = stack.enter_context(socket.create_connection(listener.getsockname()))
        right = stack.enter_context(listener.accept()[0])
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a blocking pipe, which the test may close."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def receive(fd: int, size: int) -> bytes:
    """Read exactly `size` bytes from a descriptor, waiting when there are none yet."""
    data = bytearray()
    with gsys.Poller() as poller:
        token = poller.add(fd, gsys.READ)
        while len(data) < size:
            assert poller.wait(10), f"{len(data)} of {size} bytes came"
            data += os.read(fd, size - len(data))
        poller.remove(token)
    return bytes(data)


# ---- readv and writev ----------------------------------------------------------------------


def test_pieces_go_out_in_order_and_come_in_one_after_the_other(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    pieces: list[Any] = [b"ab", b"", bytearray(b"cde"), memoryview(b"xfgx")[1:3]]
    assert gsys.writev(writer, pieces) == 7
    first, none, second, third = bytearray(3), bytearray(), bytearray(2), bytearray(b"....")
    assert gsys.readv(reader, [first, none, memoryview(second), third]) == 7
    assert [bytes(room) for room in (first, second, third)] == [b"abc", b"de", b"fg.."]


def test_the_pieces_may_come_from_a_generator(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    assert gsys.writev(writer, (bytes([byte]) for byte in b"abc")) == 3
    assert os.read(reader, 10) == b"abc"


@pytest.mark.parametrize("count", [IOV_MAX - 1, IOV_MAX, IOV_MAX + 1, 3 * IOV_MAX + 7])
def test_more_pieces_than_the_kernel_takes_at_once(
    count: int, pair: tuple[socket.socket, socket.socket]
) -> None:
    left, right = pair
    pieces = [index.to_bytes(2, "big") for index in range(count)]
    assert gsys.writev(left.fileno(), pieces) == 2 * count
    receive_into = [bytearray(2) for _ in range(count)]
    with gsys.Poller() as poller:
        token = poller.add(right.fileno(), gsys.READ)
        assert poller.wait(10)
        while right.recv(2 * count, socket.MSG_PEEK) != b"".join(pieces):
            assert poller.wait(10)
        poller.remove(token)
    assert gsys.readv(right.fileno(), receive_into) == 2 * count
    assert receive_into == pieces


def test_more_pieces_than_the_kernel_takes_at_once_through_a_pipe(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    count = 2 * IOV_MAX + 1
    assert gsys.writev(writer, [b"x"] * count) == count
    rooms = [bytearray(1) for _ in range(count)]
    assert gsys.readv(reader, rooms) == count
    assert b"".join(rooms) == b"x" * count


def test_a_write_takes_what_there_is_room_for(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    data = os.urandom(8 << 20)
    pieces = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    sent = gsys.writev(left.fileno(), pieces)
    assert 0 < sent < len(data)
    assert receive(right.fileno(), sent) == data[:sent]


def test_progress_before_an_error_is_the_result(pipe: tuple[int, int]) -> None:
    """A pipe of one page is full after the first turn, so the second fails with EAGAIN."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    size = 4 * IOV_MAX
    assert fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size) == size
    assert gsys.writev(writer, [b"abcd"] * (IOV_MAX + 1)) == size
    with pytest.raises(BlockingIOError, match="writev"):
        gsys.writev(writer, [b"abcd"])
    assert gsys.readv(reader, [bytearray(4) for _ in range(IOV_MAX + 1)]) == size
    with pytest.raises(BlockingIOError, match="readv"):
        gsys.readv(reader, [bytearray(4)])


@pytest.mark.parametrize("pieces", [[], [b"", b""]], ids=["none", "empty"])
def test_nothing_to_write_writes_nothing(pieces: list[bytes]) -> None:
    """sendmsg would send an empty datagram; writev(2) sends none."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        right.setblocking(False)
        assert gsys.writev(left.fileno(), pieces) == 0
        with pytest.raises(BlockingIOError):
            right.recv(1)


def test_no_room_reads_nothing(pipe: tuple[int, int]) -> None:
    reader, _ = pipe
    assert gsys.readv(reader, []) == 0
    assert gsys.readv(reader, [bytearray(), bytearray()]) == 0


def test_the_end_of_a_stream_reads_zero_bytes(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(writer)
    assert gsys.readv(reader, [bytearray(1)]) == 0


def test_writing_to_a_file() -> None:
    fd = os.memfd_create("gevffi-test")
    try:
        assert gsys.writev(fd, [b"ab", b"c"]) == 3
        os.lseek(fd, 0, os.SEEK_SET)
        room = bytearray(5)
        assert gsys.readv(fd, [room]) == 3
        assert room == b"abc\0\0"
    finally:
        os.close(fd)


def test_a_read_only_buffer_is_refused_by_readv(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"abc")
    with pytest.raises(BufferError, match=r"readv: buffer 1: .*not writable"):
        gsys.readv(reader, [bytearray(1), memoryview(b"abc")])
    assert os.read(reader, 3) == b"abc"


@pytest.mark.parametrize("call", [gsys.readv, gsys.writev])
def test_a_buffer_in_strides_is_refused(call: Callable[..., int]) -> None:
    strided = memoryview(bytearray(6))[::2]
    with pytest.raises(BufferError, match=rf"{call.__name__}: buffer 0: .*contiguous"):
        call(-1, [strided])


@pytest.mark.parametrize("buffers", [["text"], b"abc", [None]])
def test_what_is_not_a_buffer_is_refused(buffers: list[bytes]) -> None:
    with pytest.raises(TypeError, match="writev: buffer 0: "):
        gsys.writev(-1, buffers)


def test_a_buffer_is_free_again_even_while_the_error_is_kept() -> None:
    room = bytearray(1)
    with pytest.raises(OSError, match="readv") as caught:
        gsys.readv(-1, [room])
    room += b"resized"
    assert caught.value.errno == errno.EBADF


# ---- errors --------------------------------------------------------------------------------


FAILING: dict[str, Callable[[], object]] = {
    "readv": lambda: gsys.readv(-1, [bytearray(1)]),
    "readv: nothing": lambda: gsys.readv(-1, []),
    "writev": lambda: gsys.writev(-1, [b"x"]),
    "writev: nothing": lambda: gsys.writev(-1, []),
    "accept4": lambda: gsys.accept4(-1),
    "eventfd_read": lambda: gsys.eventfd_read(-1),
    "eventfd_write": lambda: gsys.eventfd_write(-1),
    "epoll_ctl": lambda: gsys.epoll_ctl(-1, gsys.EPOLL_CTL_ADD, 0, gsys.EPOLLIN),
    "epoll_wait": lambda: gsys.epoll_wait(-1, timeout=0),
}


@pytest.mark.parametrize(
    "name", [name for name in FAILING if hasattr(gsys, name.partition(":")[0])]
)
def test_a_bad_descriptor_names_the_call(name: str) -> None:
    with pytest.raises(OSError, match=rf"{name.partition(':')[0]}: Bad file descriptor") as caught:
        FAILING[name]()
    assert caught.value.errno == errno.EBADF


def test_a_wrong_flag_names_the_call() -> None:
    with pytest.raises(OSError, match="eventfd: Invalid argument"):
        gsys.eventfd(0, -1)


def test_nothing_there_is_blocking_io_error(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(BlockingIOError, match="readv: Resource temporarily unavailable"):
        gsys.readv(pair[0].fileno(), [bytearray(1)])


def test_check_returns_counts_and_raises_the_rest() -> None:
    assert gsys.check(3, "call") == 3
    with pytest.raises(ConnectionResetError, match=r"\[Errno 104\] call: Connection reset by peer"):
        gsys.check(-errno.ECONNRESET, "call")


BROKEN_PIPE = """
import os, signal, socket
from gevffi import sys as gsys

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
reader, writer = os.pipe()
left, right = socket.socketpair()
os.close(reader)
right.close()
for fd in writer, left.fileno():
    for pieces in [b"x"], [b"x"] * 3000:
        try:
            gsys.writev(fd, pieces)
        except BrokenPipeError as exc:
            assert "writev: Broken pipe" in str(exc), exc
        else:
            raise AssertionError("no error")
        assert not signal.sigpending(), signal.sigpending()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask

# One that was pending before is not ours to take.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
signal.raise_signal(signal.SIGPIPE)
try:
    gsys.writev(writer, [b"x"])
except BrokenPipeError:
    pass
assert signal.sigpending() == {signal.SIGPIPE}
print("alive")
"""


def test_a_broken_pipe_raises_no_signal() -> None:
    """In a process of its own, which SIGPIPE would kill."""
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_PIPE], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
