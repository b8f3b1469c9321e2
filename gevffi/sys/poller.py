"""Poller: which descriptors are ready, told by tokens that are never used twice.

A descriptor is a small number that the kernel hands out again as soon as it is free, so an event
that names a descriptor may be about one that is gone. `Poller.add` therefore answers with a token,
a serial number: a generation that counts for all descriptors together. Events carry the token, and:

* An event of a token that was removed, found by the same wait or a later one, is dropped.
* Epoll keeps a registration for as long as any duplicate of the descriptor is open (dup(2),
  fork(2)): closing the number does not end it, and afterwards nothing can. Its events still carry
  the old token. They are reported while that token is registered, and dropped once it is removed or
  its number is added again; they never appear under the token of another descriptor.

So remove a descriptor before closing it. A Poller notices the slip when it can: adding a number
that it still has under an old token (which the kernel only allows after a close) retires that
token, and removing a token after the close raises what the kernel says.

A kqueue forgets a descriptor when its number is closed, duplicates or not, so there the old token
is simply silent. (libkqueue does not know of the close: it takes the number for the old descriptor,
and removing the token afterwards may crash it. There the removal has to come first.)

Level-triggered: what is ready and left alone is reported by every wait.
"""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import Any

from gevffi._ffi import ffi, lib
from gevffi.sys.errors import check, retry_wait

POLLER: str = "kqueue" if hasattr(lib, "gev_kqueue") else "epoll"
"""What waits in this build."""

READ: int = lib.GEV_READ
"""There is something to read, or a connection to accept, or the end of the stream."""
WRITE: int = lib.GEV_WRITE
"""There is room to write."""
ERROR: int = lib.GEV_ERROR
"""The descriptor is in error; reported whether asked for or not."""
HANGUP: int = lib.GEV_HANGUP
"""Both directions are closed; reported whether asked for or not. Over a kqueue, who waits for
`READ` is told that alone, and a pipe that nobody reads from is a hang-up rather than an `ERROR`."""


class Poller:
    """An epoll set or a kqueue, with a wake-up.

    `wake` and `close` may be called from any thread. The rest belongs to one thread, the one that
    waits. After a fork(2) the child shares an epoll set with its parent, and has no kqueue at all;
    it should make a poller of its own.

    Args:
        max_events: the most events that one `wait` returns.

    Raises:
        ValueError: `max_events` is less than 1.
        OSError: no descriptors left; a Poller takes two, or, over a kqueue, one.
    """

    def __init__(self, max_events: int = 1024) -> None:
        if max_events < 1:
            raise ValueError(f"Poller: max_events must be at least 1, not {max_events}")
        opened = ffi.new("gev_poller **")
        check(lib.gev_poller_open(opened, max_events), "Poller")
        # The C poller goes when the last reference to this does. A call under way in another
        # thread holds one, so that close() never frees what somebody is waiting in.
        self._poller: Any = ffi.gc(opened[0], lib.gev_poller_close)
        self._serial = itertools.count(1)
        self._registered: dict[int, tuple[int, int]] = {}  # token -> descriptor, interest
        self._tokens: dict[int, int] = {}  # descriptor -> its newest token

    def add(self, fd: int, interest: int) -> int:
        """Watch `fd` for `interest` and return its token.

        Args:
            interest: `READ`, `WRITE`, both, or 0 for errors and hang-ups only.

        Raises:
            ValueError: `interest` has other bits, or the poller is closed.
            OSError: `FileExistsError` if `fd` is watched already, EBADF if it is not open, EPERM if
                epoll cannot poll it (a regular file).
        """
        poller = self._open()
        _check_interest(interest)
        token = next(self._serial)
        check(lib.gev_poller_add(poller, fd, token, interest), "Poller.add")
        closed_unremoved = self._tokens.get(fd)
        if closed_unremoved is not None:
            del self._registered[closed_unremoved]
        self._tokens[fd] = token
        self._registered[token] = fd, interest
        return token

    def modify(self, token: int, interest: int) -> None:
        """Watch the descriptor of `token` for `interest` from now on.

        Raises:
            ValueError: `token` is not registered, `interest` has other bits than `READ` and
                `WRITE`, or the poller is closed.
            OSError: the descriptor was closed.
        """
        poller = self._open()
        _check_interest(interest)
        fd, old_interest = self._lookup(token)
        check(lib.gev_poller_modify(poller, fd, token, old_interest, interest), "Poller.modify")
        self._registered[token] = fd, interest

    def remove(self, token: int) -> None:
        """Stop watching the descriptor of `token`. Do this before closing the descriptor.

        The token is gone even if this raises.

        Raises:
            ValueError: `token` is not registered, or the poller is closed.
            OSError: the descriptor was closed before.
        """
        poller = self._open()
        fd, interest = self._lookup(token)
        del self._registered[token], self._tokens[fd]
        check(lib.gev_poller_remove(poller, fd, interest), "Poller.remove")

    def wait(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait until something is ready.

        Args:
            timeout: seconds; 0 looks without waiting, `None` (the default) waits for ever.

        Returns:
            The token of each ready descriptor with what it is ready for, an or of `READ`, `WRITE`,
            `ERROR` and `HANGUP`. Empty after the time-out, a `wake`, or events of removed tokens
            only; over a kqueue also, now and then, after something that is nobody's interest.

        Raises:
            ValueError: `timeout` is negative, or the poller is closed.
            OSError: see epoll_wait(2), kevent(2). Not for EINTR: the wait goes on after a signal's
                handler.
        """
        poller = self._open()
        count = retry_wait("Poller.wait", timeout, lib.gev_poller_wait, poller)
        registered = self._registered
        ready = []
        for event in ffi.unpack(lib.gev_poller_events(poller), count):
            token = event.token
            if token in registered:
                ready.append((token, event.ready))
        return ready

    def wake(self) -> None:
        """End the `wait` under way, or else the next one, at once. From any thread.

        However many wakes come before the waiting thread has come back, they end one wait. A wait
        may, rarely, end once more for a wake that another event forestalled.

        Raises:
            ValueError: the poller is closed.
        """
        check(lib.gev_poller_wake(self._open()), "Poller.wake")

    def close(self) -> None:
        """Close the poller; the descriptors it watches stay open. From any thread.

        A `wait` under way in another thread ends, and the poller's own descriptors are closed when
        it has. Closing again does nothing.
        """
        poller, self._poller = self._poller, None
        if poller is not None:
            lib.gev_poller_wake(poller)

    def __enter__(self) -> Poller:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> Any:
        poller = self._poller
        if poller is None:
            raise ValueError("the Poller is closed")
        return poller

    def _lookup(self, token: int) -> tuple[int, int]:
        try:
            return self._registered[token]
        except KeyError:
            raise ValueError(f"token {token} is not registered with this Poller") from None


def _check_interest(interest: int) -> None:
    if interest & ~(READ | WRITE):
        raise ValueError(f"interest must be READ, WRITE, both or 0, not {interest}")
