"""Reading, writing and accepting: one system call each, nothing kept in between.

The buffers given to `readv` and `writev` are not copied: `ffi.from_buffer` takes their addresses
and holds them in place for the length of the call. It would also hold them for as long as somebody
keeps the traceback of a call that raised, and a held `bytearray` cannot be resized; so they are let
go by hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gevffi._ffi import ffi, lib
from gevffi.sys.errors import retry
from gevffi.sys.sockaddr import Address, decode_sockaddr

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

SOCK_CLOEXEC: int = lib.SOCK_CLOEXEC
"""For `accept4`: the new descriptor is closed by exec."""
SOCK_NONBLOCK: int = lib.SOCK_NONBLOCK
"""For `accept4`: the new descriptor does not block."""

# sizeof(struct sockaddr_storage), which holds an address of any family.
_ADDRESS_ROOM = 128


def readv(fd: int, buffers: Iterable[WriteableBuffer]) -> int:
    """Read into `buffers`, one after the other, as far as there is something to read. readv(2).

    Args:
        fd: what to read from.
        buffers: writable, contiguous buffers, as many as you like. More than `IOV_MAX` (1024) are
            read in turns, the later ones only while there is more to read at once; so a datagram
            socket, where every turn is a datagram, should be given no more than that.

    Returns:
        The number of bytes, 0 at the end of the stream (or when the buffers have no room).

    Raises:
        BufferError: a buffer is read-only or not contiguous.
        TypeError: a buffer is not a buffer.
        OSError: `BlockingIOError` when a non-blocking descriptor has nothing to read, and the rest
            of readv(2).
    """
    return _transfer("readv", lib.gev_readv, fd, buffers)


def writev(fd: int, buffers: Iterable[ReadableBuffer]) -> int:
    """Write `buffers`, one after the other, as far as there is room. writev(2).

    A broken pipe or connection is a `BrokenPipeError` and never a SIGPIPE, whatever the process has
    set for that signal.

    Args:
        fd: what to write to.
        buffers: contiguous buffers, as many as you like. More than `IOV_MAX` (1024) are written in
            turns; on a datagram socket every turn is a datagram.

    Returns:
        The number of bytes, less than there were when the descriptor took no more.

    Raises:
        BufferError: a buffer is not contiguous.
        TypeError: a buffer is not a buffer.
        OSError: `BlockingIOError` when a non-blocking descriptor takes nothing,
            `BrokenPipeError`, and the rest of writev(2).
    """
    return _transfer("writev", lib.gev_writev, fd, buffers)


def _transfer(call: str, function: Any, fd: int, buffers: Iterable[Any]) -> int:
    writable = function is lib.gev_readv
    held: list[Any] = []
    try:
        try:
            held.extend(
                ffi.from_buffer("char[]", item, require_writable=writable) for item in buffers
            )
        except (TypeError, BufferError) as exc:
            raise type(exc)(f"{call}: buffer {len(held)}: {exc}") from None
        pieces = ffi.new("gev_piece[]", [(view, len(view)) for view in held])
        return retry(call, function, fd, pieces, len(held))
    finally:
        for view in held:
            ffi.release(view)


def accept4(fd: int, flags: int = SOCK_NONBLOCK | SOCK_CLOEXEC) -> tuple[int, Address]:
    """Accept a connection on the listening TCP or Unix socket `fd`. accept4(2).

    Where the system has no such call (macOS) it is accept(2) and fcntl(2).

    Args:
        flags: for the new descriptor, `SOCK_NONBLOCK` and `SOCK_CLOEXEC`; both by default.

    Returns:
        The new descriptor, which is the caller's to close, and the peer's address.

    Raises:
        OSError: `BlockingIOError` when a non-blocking socket has no connection waiting, and the
            rest of accept4(2).
        ValueError: the socket is of another family; the connection is closed.
    """
    address = ffi.new("uint8_t[]", _ADDRESS_ROOM)
    size = ffi.new("uint32_t *", _ADDRESS_ROOM)
    accepted = retry("accept4", lib.gev_accept4, fd, flags, address, size)
    try:
        return accepted, decode_sockaddr(bytes(ffi.buffer(address, size[0])))
    except ValueError:
        os.close(accepted)
        raise
