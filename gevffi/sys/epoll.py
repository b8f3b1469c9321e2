"""epoll(7), one call at a time, with the 64 bits of data that `select.epoll` keeps for itself.

An epoll set remembers for each descriptor the events it waits for and a number of the caller's
choice, and answers with that number. `select.epoll` always puts the descriptor there, which cannot
tell a descriptor from another that got the same number later; here it is the caller's to fill.
"""

from __future__ import annotations

from select import EPOLL_CLOEXEC

from gevffi._ffi import ffi, lib
from gevffi.sys.errors import retry, retry_wait

# linux/eventpoll.h; the select module has the flags of epoll_ctl, but not its operations.
EPOLL_CTL_ADD = 1
EPOLL_CTL_DEL = 2
EPOLL_CTL_MOD = 3


def epoll_create(flags: int = EPOLL_CLOEXEC) -> int:
    """Create an epoll set and return its descriptor. epoll_create1(2).

    Raises:
        OSError: no descriptors left, or an unknown flag.
    """
    return retry("epoll_create", lib.gev_epoll_create, flags)


def epoll_ctl(epfd: int, op: int, fd: int, events: int = 0, data: int | None = None) -> None:
    """Add, change or remove a descriptor of an epoll set. epoll_ctl(2).

    Args:
        op: `EPOLL_CTL_ADD`, `EPOLL_CTL_MOD` or `EPOLL_CTL_DEL`.
        events: `EPOLLIN`, `EPOLLOUT`, `EPOLLET`... `EPOLLERR` and `EPOLLHUP` are always reported.
        data: what `epoll_wait` answers with, 0 to 2**64 - 1; `fd` by default.

    Raises:
        ValueError: `data` is out of that range.
        OSError: `FileExistsError` for adding twice, `FileNotFoundError` for one that is not there,
            EPERM for what cannot be polled (a regular file), and the rest of epoll_ctl(2).
    """
    if data is None:
        data = fd & 0xFFFFFFFF  # a wrong, negative one is for the kernel to refuse
    elif not 0 <= data < 2**64:
        raise ValueError(f"epoll_ctl: data must be 0 to 2**64 - 1, not {data}")
    retry("epoll_ctl", lib.gev_epoll_ctl, epfd, op, fd, events, data)


def epoll_wait(
    epfd: int, max_events: int = 1024, timeout: float | None = None
) -> list[tuple[int, int]]:
    """Wait until a descriptor of the set is ready. epoll_wait(2).

    Args:
        max_events: the most to return at once.
        timeout: seconds; 0 looks without waiting, `None` (the default) waits for ever.

    Returns:
        The data and the events of each ready descriptor; none when the time is up.

    Raises:
        ValueError: `max_events` is less than 1, or `timeout` negative.
        OSError: see epoll_wait(2). Not for EINTR: the wait goes on after a signal's handler.
    """
    if max_events < 1:
        raise ValueError(f"epoll_wait: max_events must be at least 1, not {max_events}")
    events = ffi.new("uint32_t[]", max_events)
    data = ffi.new("uint64_t[]", max_events)
    count = retry_wait("epoll_wait", timeout, lib.gev_epoll_wait, epfd, events, data, max_events)
    return list(zip(ffi.unpack(data, count), ffi.unpack(events, count), strict=True))
