"""The system-call layer: what gevffi asks of the kernel, one call at a time.

A server does not need this package: the reactor makes the same calls in batches, from C. It is for
those who build something else, for tests, and for finding out what the kernel says. Each name is
the name of the system call, with the manual page's arguments and Python's manners:

* A call that fails raises the `OSError` subclass for its errno, and the message names the call:
  ``BlockingIOError: [Errno 11] readv: Resource temporarily unavailable``.
* A call that a signal interrupts is taken up again after the handler has run (:pep:`475`), with
  what is left of its time-out; a handler that raises ends it.
* Descriptors are plain integers, and the caller closes them. All are created close-on-exec, and
  those that can be are non-blocking, unless `flags` says otherwise.
* The GIL is free while the kernel works. Buffers are passed by address and not copied.
* Times are seconds, sizes are bytes.

The calls of one system are there where that system is: `epoll_*` and `eventfd*` on Linux, `kqueue`
and `kevent` on BSD and macOS (and on Linux in a build over libkqueue). `POLLER` names the one,
"epoll" or "kqueue", that the reactor and `Poller` stand on.

`Poller` is the one thing here with a memory: an epoll set or a kqueue that other threads can wake,
and whose tokens are never used twice.

This folder is the only one that imports `gevffi._ffi`; everybody above it sees Python.
"""

from __future__ import annotations

import sys

from gevffi.sys.calls import SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, readv, writev
from gevffi.sys.errors import check
from gevffi.sys.poller import ERROR, HANGUP, POLLER, READ, WRITE, Poller
from gevffi.sys.sockaddr import Address, decode_sockaddr

__all__ = [
    "ERROR",
    "HANGUP",
    "POLLER",
    "READ",
    "SOCK_CLOEXEC",
    "SOCK_NONBLOCK",
    "WRITE",
    "Address",
    "Poller",
    "accept4",
    "check",
    "decode_sockaddr",
    "readv",
    "writev",
]

if sys.platform == "linux":
    from os import EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE
    from select import (
        EPOLL_CLOEXEC,
        EPOLLERR,
        EPOLLET,
        EPOLLEXCLUSIVE,
        EPOLLHUP,
        EPOLLIN,
        EPOLLONESHOT,
        EPOLLOUT,
        EPOLLPRI,
        EPOLLRDHUP,
    )

    from gevffi.sys.epoll import (
        EPOLL_CTL_ADD,
        EPOLL_CTL_DEL,
        EPOLL_CTL_MOD,
        epoll_create,
        epoll_ctl,
        epoll_wait,
    )
    from gevffi.sys.eventfd import eventfd, eventfd_read, eventfd_write

    __all__ += [
        "EFD_CLOEXEC",
        "EFD_NONBLOCK",
        "EFD_SEMAPHORE",
        "EPOLLERR",
        "EPOLLET",
        "EPOLLEXCLUSIVE",
        "EPOLLHUP",
        "EPOLLIN",
        "EPOLLONESHOT",
        "EPOLLOUT",
        "EPOLLPRI",
        "EPOLLRDHUP",
        "EPOLL_CLOEXEC",
        "EPOLL_CTL_ADD",
        "EPOLL_CTL_DEL",
        "EPOLL_CTL_MOD",
        "epoll_create",
        "epoll_ctl",
        "epoll_wait",
        "eventfd",
        "eventfd_read",
        "eventfd_write",
    ]

if POLLER == "kqueue":
    from gevffi.sys.kqueue import (
        EV_ADD,
        EV_CLEAR,
        EV_DELETE,
        EV_DISABLE,
        EV_DISPATCH,
        EV_ENABLE,
        EV_EOF,
        EV_ERROR,
        EV_ONESHOT,
        EV_RECEIPT,
        EVFILT_READ,
        EVFILT_SIGNAL,
        EVFILT_TIMER,
        EVFILT_USER,
        EVFILT_WRITE,
        NOTE_TRIGGER,
        Kevent,
        kevent,
        kqueue,
    )

    __all__ += [
        "EVFILT_READ",
        "EVFILT_SIGNAL",
        "EVFILT_TIMER",
        "EVFILT_USER",
        "EVFILT_WRITE",
        "EV_ADD",
        "EV_CLEAR",
        "EV_DELETE",
        "EV_DISABLE",
        "EV_DISPATCH",
        "EV_ENABLE",
        "EV_EOF",
        "EV_ERROR",
        "EV_ONESHOT",
        "EV_RECEIPT",
        "NOTE_TRIGGER",
        "Kevent",
        "kevent",
        "kqueue",
    ]
