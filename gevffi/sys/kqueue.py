"""kqueue(2), one call at a time. BSD and macOS, and Linux where gevffi is built over libkqueue.

A kqueue has filters: an identifier (a descriptor, for those that read and write), a kind, and what
to do when it fires. One call both changes filters and waits for them, and the same tuple, a
`Kevent`, asks and answers. `select.kqueue` is the standard library's way to the same, on BSD and
macOS alone.

The constants are those of sys/event.h. Their values differ between systems.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gevffi._ffi import ffi, lib
from gevffi.sys.errors import retry, retry_wait

EVFILT_READ: int = lib.EVFILT_READ
EVFILT_WRITE: int = lib.EVFILT_WRITE
EVFILT_USER: int = lib.EVFILT_USER
EVFILT_TIMER: int = lib.EVFILT_TIMER
EVFILT_SIGNAL: int = lib.EVFILT_SIGNAL
EV_ADD: int = lib.EV_ADD
EV_DELETE: int = lib.EV_DELETE
EV_ENABLE: int = lib.EV_ENABLE
EV_DISABLE: int = lib.EV_DISABLE
EV_ONESHOT: int = lib.EV_ONESHOT
EV_CLEAR: int = lib.EV_CLEAR
EV_RECEIPT: int = lib.EV_RECEIPT
EV_DISPATCH: int = lib.EV_DISPATCH
EV_EOF: int = lib.EV_EOF
EV_ERROR: int = lib.EV_ERROR
NOTE_TRIGGER: int = lib.NOTE_TRIGGER


class Kevent(NamedTuple):
    """A filter to change, or one that has fired. `struct kevent`, kqueue(2).

    Attributes:
        ident: what is watched: for EVFILT_READ and EVFILT_WRITE a descriptor.
        filter: an EVFILT_ constant.
        flags: EV_ constants. In an answer EV_EOF, and with EV_ERROR the `data` is an errno.
        fflags: more, by filter: NOTE_TRIGGER, an error that came with EV_EOF...
        data: by filter: bytes to read, room to write, connections to accept...
        udata: the caller's own, as wide as a pointer.
    """

    ident: int
    filter: int
    flags: int = EV_ADD
    fflags: int = 0
    data: int = 0
    udata: int = 0


def kqueue() -> int:
    """Create a kqueue and return its descriptor, which is closed by exec. kqueue(2).

    Raises:
        OSError: no descriptors left.
    """
    return retry("kqueue", lib.gev_kqueue)


def kevent(
    kq: int,
    changes: Iterable[Kevent] = (),
    max_events: int = 0,
    timeout: float | None = None,
) -> list[Kevent]:
    """Change filters, then wait for one to fire. kevent(2).

    Args:
        changes: made in order.
        max_events: the most to return at once; with 0, the default, nothing is waited for.
        timeout: seconds; 0 looks without waiting, `None` (the default) waits for ever.

    Returns:
        The filters that have fired; none when the time is up. A change that failed is among them,
        with EV_ERROR and the errno in `data`, if there is room, and so is one with EV_RECEIPT, with
        EV_ERROR and 0. The flags say what has happened only, not how the filter was added.

    Raises:
        OverflowError: a number does not fit its place in `struct kevent`.
        ValueError: `max_events` or `timeout` is negative.
        OSError: see kevent(2); a change failed and there is no room to tell in the answer. Not for
            EINTR: the wait goes on after a signal's handler, and no change is made twice.
    """
    if max_events < 0:
        raise ValueError(f"kevent: max_events must be at least 0, not {max_events}")
    wanted = [tuple(change) for change in changes]
    asked = ffi.new("gev_kernel_event[]", wanted)
    events = ffi.new("gev_kernel_event[]", max_events)
    left = [len(wanted)]

    def call(milliseconds: int) -> int:
        count, left[0] = left[0], 0
        return int(lib.gev_kevent(kq, asked, count, events, max_events, milliseconds))

    found = retry_wait("kevent", timeout, call)
    return [_kevent(event) for event in ffi.unpack(events, found)]


def _kevent(event: Any) -> Kevent:
    return Kevent(event.ident, event.filter, event.flags, event.fflags, event.data, event.udata)
