"""eventfd(2): a counter that can be polled. Linux only."""

from __future__ import annotations

from os import EFD_CLOEXEC, EFD_NONBLOCK

from gevffi._ffi import ffi, lib
from gevffi.sys.errors import retry


def eventfd(initial: int = 0, flags: int = EFD_CLOEXEC | EFD_NONBLOCK) -> int:
    """Create an eventfd, a counter that can be polled, and return its descriptor. eventfd(2).

    Args:
        initial: the counter's first value, 0 to 2**32 - 1.
        flags: `EFD_CLOEXEC` and `EFD_NONBLOCK`, both by default, and `EFD_SEMAPHORE`.

    Raises:
        ValueError: `initial` is out of that range.
        OSError: see eventfd(2).
    """
    if not 0 <= initial < 2**32:
        raise ValueError(f"eventfd: initial must be 0 to 2**32 - 1, not {initial}")
    return retry("eventfd", lib.gev_eventfd, initial, flags)


def eventfd_read(fd: int) -> int:
    """Return the counter of the eventfd `fd` and set it to 0 (count it down, if a semaphore).

    Raises:
        OSError: `BlockingIOError` when the counter is 0 and the descriptor non-blocking, EINVAL
            when `fd` is something else.
    """
    value = ffi.new("uint64_t *")
    retry("eventfd_read", lib.gev_eventfd_read, fd, value)
    return int(value[0])


def eventfd_write(fd: int, value: int = 1) -> None:
    """Add `value`, 0 to 2**64 - 2, to the counter of the eventfd `fd`.

    Raises:
        ValueError: `value` is out of that range.
        OSError: `BlockingIOError` when the counter would pass 2**64 - 2 and the descriptor is
            non-blocking.
    """
    if not 0 <= value <= 2**64 - 2:
        raise ValueError(f"eventfd_write: value must be 0 to 2**64 - 2, not {value}")
    retry("eventfd_write", lib.gev_eventfd_write, fd, value)
