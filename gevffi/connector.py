"""Outgoing connections of a loop: from an address to an open `Connection`.

A connection that is made here exists before its socket does. It goes through these steps, none of
which waits:

    connect() ──▶ look up ──▶ try an address ──established──▶ on_connect, then what was asked
                  a name,      │  ▲                            for meanwhile: send, close, ...
                  in a         │  │ the next one
                  thread       ▼  │
                    │         refused, unreachable, its time is over
                    ▼          ▼
                  on_connect_failed: no address is left, the whole time is over, or given up

Numeric addresses and Unix sockets need no looking up. The addresses of a name are tried one after
the other, in the order the system gives them (RFC 6724). As in Go, each gets an equal share of
the time that is left, but 2 s at least, so that a first one that never answers leaves some to the
next.

`Connecting` is one such connection. `Connector` has those of a loop and knows which slot of the C
loop is whose attempt; into the loop's own table a connection comes when it is open.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevffi.connection import Connection
from gevffi.connection_info import CONNECTING, OPEN, CloseReason
from gevffi.handler import Handler
from gevffi.listener import AddressLike, parse_address, set_tcp_options
from gevffi.protocol import Protocol, receiver
from gevffi.sys.results import Change
from gevffi.sys.sockaddr import Address
from gevffi.timers import Timer, check_delay

if TYPE_CHECKING:
    from gevffi.loop import EventLoop

FAIR_SHARE = 2.0
"""Seconds an address gets at least, unless less are left."""
KNOCK_AGAIN = 0.02
"""Seconds until a Unix socket with a full backlog is tried again: no event tells (connect(2))."""

_UNDER_WAY = (0, errno.EINPROGRESS, errno.EINTR)


class Connector:
    """The connections that one loop is making."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.pending: dict[Connection, Connecting] = {}
        """All of them. Other threads add to it, the rest belongs to the loop's thread."""
        self.attempts: dict[int, Connecting] = {}
        """Those with a socket whose connect(2) is under way, by slot."""

    def connect(
        self, address: AddressLike, handler: Handler, protocol: Protocol, timeout: float
    ) -> Connection:
        """Begin in the loop's next turn; see `EventLoop.connect`. From any thread."""
        check_delay("timeout", timeout, zero=False)
        wanted = parse_address(address)
        if wanted.port == 0:
            raise ValueError(f"address must have a port to connect to, not {address!r}")
        receive = receiver(handler, protocol, self._loop.options.frame_limit)
        conn = Connection(self._loop, -1, wanted, handler, protocol, receive)
        conn._state = CONNECTING
        connecting = self.pending[conn] = Connecting(self._loop, conn, wanted, timeout)
        taken = self._loop._mailbox.put(connecting.start, ())
        # The loop may be ending just now, and then it may or may not have told of this one.
        if not taken and self.pending.pop(conn, None) is not None:
            raise RuntimeError(f"{self._loop.name} has ended")
        return conn

    def settle(self, slot: int, what: int, reason: int) -> Connection | None:
        """C knows how an attempt ended. Returns the connection if it is open now."""
        connecting = self.attempts.pop(slot, None)
        if connecting is None:  # given up meanwhile
            return None
        if what & Change.CONNECTED:
            connecting.established()
            return connecting.conn
        connecting.attempt_failed(reason)
        return None

    def close(self) -> None:
        """The loop stops: give up all of them."""
        for connecting in list(self.pending.values()):
            connecting.give_up("the loop stops")

    def finish(self) -> None:
        """The loop has ended and makes no more calls: tell of them at once."""
        self.close()
        for connecting in list(self.pending.values()):
            connecting.tell()


class Connecting:
    """A connection on its way. Belongs to the loop's thread.

    Args:
        loop: whose it will be.
        conn: the connection, in the state CONNECTING.
        address: where to.
        timeout: seconds it may take.
    """

    def __init__(self, loop: EventLoop, conn: Connection, address: Address, timeout: float) -> None:
        self.conn = conn
        self._loop = loop
        self._address = address
        self._timeout = timeout
        self._deadline = 0.0
        self._timer: Timer | None = None
        self._targets: list[tuple[int, Any]] = []  # family and address; the next one is the last
        self._target: Any = None  # the address that is being tried
        self._errors: list[tuple[int, str]] = []  # of those that were
        self._failure: OSError | None = None
        self._deferred: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.queued = 0
        """Bytes that wait until it is open."""

    # ---- what is asked of the connection meanwhile ----------------------------------------------

    def defer(self, call: Callable[..., object], *args: Any) -> None:
        """Call this once it is open, after `on_connect`."""
        self._deferred.append((call, args))

    def send(self, data: Any, on_sent: Callable[[Connection], object] | None) -> None:
        """Keep `data` until then, within `write_limit`; it is not the caller's any more."""
        if isinstance(data, bytes):
            self.queued += len(data)
        limit = self._loop.options.write_limit
        if self.queued > limit:
            why = f"{self.queued} bytes are waiting for it, write_limit is {limit}"
            self._fail(OSError(errno.ENOBUFS, self._cannot(why)))
        else:
            self.defer(self.conn._send_guarded, data, on_sent)

    def close(self, reason: CloseReason) -> None:
        """Close after what was sent; at once when that is nothing."""
        if self._deferred:
            self.defer(self.conn._close, reason)
        else:
            self.give_up("it was closed")

    def give_up(self, why: str) -> None:
        """Go no further."""
        self._fail(OSError(errno.ECONNABORTED, self._cannot(why)))

    # ---- the way there --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; the time counts from here."""
        if self._failure is not None:
            return
        if self._loop._stopping:
            self.give_up("the loop stops")
            return
        self._deadline = time.monotonic() + self._timeout
        if self._address.port is None:
            self._found([(socket.AF_UNIX, self._address.host)])
            return
        try:
            numeric = self._look_up(socket.AI_NUMERICHOST)
        except (OSError, ValueError):  # a name then
            self._wait(self._timeout, self._time_over)
            try:
                threading.Thread(target=self._ask, name="gevffi-lookup", daemon=True).start()
            except RuntimeError as exc:  # there are too many
                self._fail(OSError(errno.EAGAIN, self._cannot(str(exc))))
            return
        self._found(numeric)

    def _look_up(self, flags: int = 0) -> list[tuple[int, Any]]:
        host, port = self._address
        # Nobody by name is this machine, as in Go.
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
        return [(family, target) for family, _, _, _, target in found]

    def _ask(self) -> None:
        """The system's resolver, in a thread of its own: it blocks for as long as it likes."""
        found: list[tuple[int, Any]] | OSError
        try:
            found = self._look_up()
        except OSError as exc:
            found = type(exc)(exc.errno, self._cannot(exc.strerror or str(exc)))
        except ValueError as exc:  # nothing that a name can be
            found = OSError(errno.EINVAL, self._cannot(str(exc)))
        self._loop.call_soon_threadsafe(self._answered, found)

    def _answered(self, found: list[tuple[int, Any]] | OSError) -> None:
        if isinstance(found, OSError):
            self._fail(found)
        elif self._failure is None:
            self._found(found)

    def _found(self, targets: list[tuple[int, Any]]) -> None:
        self._targets = targets[::-1]
        self._next()

    def _next(self) -> None:
        """Go on to the next address that is not refused at once."""
        while self._targets:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self._time_over()
                return
            self._wait(max(left / len(self._targets), min(left, FAIR_SHARE)), self._share_over)
            family, self._target = self._targets.pop()
            try:
                self._attempt(family)
                return
            except BlockingIOError:  # a Unix socket with a full backlog
                self._targets.append((family, self._target))
                self._wait(min(left, KNOCK_AGAIN), self._next)
                return
            except OSError as exc:
                # Without a number: "AF_UNIX path too long".
                self._note(exc.errno or errno.EINVAL, exc.strerror or str(exc))
        self._fail(OSError(self._errors[0][0], self._cannot("; ".join(self._tried()))))

    def _attempt(self, family: int) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                set_tcp_options(sock, self._loop.options)
            error = sock.connect_ex(self._target)
            if error not in _UNDER_WAY:
                raise OSError(error, os.strerror(error))
            self.conn._token = self._loop._reactor.adopt_connecting(sock.fileno())
            sock.detach()
        self._loop._connector.attempts[self.conn._token & 0xFFFFFFFF] = self

    def attempt_failed(self, error: int) -> None:
        """connect(2) has ended with this errno."""
        self.conn._token = -1
        self._note(error, os.strerror(error))
        self._next()

    def _share_over(self) -> None:
        if time.monotonic() >= self._deadline:
            self._time_over()
            return
        self._drop_attempt()
        self._note(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        self._next()

    def _drop_attempt(self) -> None:
        token, self.conn._token = self.conn._token, -1
        if token >= 0:
            del self._loop._connector.attempts[token & 0xFFFFFFFF]
            self._loop._reactor.abort_connection(token, errno.ECONNABORTED)

    def _wait(self, delay: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(delay, then)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- how it ends ----------------------------------------------------------------------------

    def established(self) -> None:
        """It is open: from here on it is a connection like any other."""
        conn, loop = self.conn, self._loop
        del loop._connector.pending[conn]
        self._stop_waiting()
        conn._peer = Address.of(self._target)
        conn._state = OPEN
        loop._made += 1
        loop._life.admit(conn)
        loop._life.guard(conn, conn._handler.on_connect)
        for call, args in self._deferred:
            call(*args)
        if conn._cutting:
            loop._reactor.set_reading(conn._token, True)

    def _cannot(self, why: str) -> str:
        return f"cannot connect to {self._address}: {why}"

    def _note(self, error: int, why: str) -> None:
        tried = Address.of(self._target)
        self._errors.append((error, why if tried == self._address else f"{tried}: {why}"))

    def _time_over(self) -> None:
        why = "; ".join((f"no answer within {self._timeout:g} s", *self._tried()))
        self._fail(OSError(errno.ETIMEDOUT, self._cannot(why)))

    def _tried(self) -> list[str]:
        return [why for _, why in self._errors]

    def _fail(self, exc: OSError) -> None:
        """Give everything back now; the handler is told when nobody's call is under way."""
        if self._failure is None:
            self._failure = exc
            self._stop_waiting()
            self._drop_attempt()
            self.conn._closed()
            self._loop.call_soon_threadsafe(self.tell)

    def tell(self) -> None:
        """Tell the handler that it has failed, once."""
        loop, conn = self._loop, self.conn
        if loop._connector.pending.pop(conn, None) is not None:
            assert self._failure is not None
            try:
                conn._handler.on_connect_failed(conn, self._failure)
            except Exception as exc:
                loop._life.report(conn, exc)
