"""The event loop: what runs in one thread, and all it is made of.

A loop turns (`turn.py`): it waits, reads, has handlers called and sends. The calling is in
`delivery.py`, and what else happens to connections in `lifecycle.py`. Here is what surrounds that:
starting and stopping, calls from other threads, timers, and how connections come. What a loop
tells of itself is in `loop_info.py`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gevffi.acceptor import Acceptor
from gevffi.arena import Arena
from gevffi.broadcast import Broadcaster
from gevffi.connection import Connection
from gevffi.connection_info import CloseReason
from gevffi.connector import Connector
from gevffi.delivery import Delivery
from gevffi.handler import Handler
from gevffi.lifecycle import Lifecycle
from gevffi.listener import AddressLike
from gevffi.loop_info import LoopInfo
from gevffi.mailbox import Mailbox
from gevffi.options import Options
from gevffi.outbox import Outbox
from gevffi.protocol import Protocol, Raw, Receive
from gevffi.sys.memory import default_pool
from gevffi.sys.reactor import Reactor
from gevffi.sys.results import Accepted
from gevffi.timers import Timer, TimerQueue, check_delay
from gevffi.turn import turn

logger = logging.getLogger("gevffi")

_EMPTY = memoryview(b"")


class EventLoop(LoopInfo):
    """A reactor for the thread that calls `run`.

    Args:
        options: limits and sizes; the defaults of `Options` when None.
        name: shown in logs.

    Raises:
        OSError: the kernel gave no descriptor.
        MemoryError: there is no memory for the arena.
    """

    def __init__(self, options: Options | None = None, *, name: str = "loop") -> None:
        super().__init__(options or Options(), name)
        pool = default_pool()
        self._reactor = Reactor(
            pool,
            max_events=self.options.max_events,
            read_budget=self.options.read_budget,
            write_high_water=self.options.write_high_water,
            write_limit=self.options.write_limit,
            idle_ms=math.ceil(self.options.idle_time * 1000),
            first_byte_ms=math.ceil(self.options.first_byte_timeout * 1000),
        )
        self._arena = Arena(self._reactor, pool, self.options.arena_size, self.options.max_leases)
        self._outbox = Outbox(self._reactor, self._arena)
        self._broadcaster = Broadcaster(self)
        self._timers = TimerQueue()
        self._life = Lifecycle(self, self._reactor)
        self._mailbox = Mailbox(self._reactor.wake)
        self._acceptor = Acceptor(self._reactor, self._timers, self._log, name)
        self._delivery = Delivery(
            self._reactor, self._arena, self._outbox, self._life.conns, self._life.failed
        )
        self._connector = Connector(self)
        self._stopping = False

    # ---- running --------------------------------------------------------------------------------

    def run(self) -> None:
        """Run in this thread until `stop`; then close everything and free the loop.

        Raises:
            RuntimeError: the loop has run before.
        """
        if self._thread is not None:
            raise RuntimeError(f"{self.name} has been run before; make a new loop")
        self._thread = threading.get_ident()
        try:
            turn(self)
        finally:
            self._finish()

    @contextlib.contextmanager
    def running(self, timeout: float = 5.0) -> Iterator[EventLoop]:
        """Run in a thread of its own for the length of a `with` block.

        Args:
            timeout: seconds that `stop` gets at the end of the block, which waits for it.

        Raises:
            RuntimeError: the loop has run before.
        """
        if self._thread is not None:
            raise RuntimeError(f"{self.name} has been run before; make a new loop")
        thread = threading.Thread(target=self.run, name=f"gevffi-{self.name}")
        thread.start()
        try:
            yield self
        finally:
            self.stop(timeout)
            thread.join()

    def stop(self, timeout: float = 5.0) -> None:
        """End `run`. From any thread; harmless when repeated, the shorter timeout counts.

        Listeners stop accepting and every connection closes as by `close()`, with
        `CloseReason.SHUTDOWN`, after `on_stop` of its handler. Connections that have not taken what
        was unsent within `timeout` seconds are aborted.

        Raises:
            ValueError: `timeout` is negative or not finite.
        """
        check_delay("timeout", timeout, zero=True)
        self.call_soon_threadsafe(self._stop, timeout)

    def _check_open(self) -> None:
        """Raise RuntimeError as `check_thread` does, and if the loop has ended: C has nothing of it
        any more."""
        self.check_thread()
        if self.finished:
            raise RuntimeError(f"{self.name} has ended")

    def _stop(self, timeout: float) -> None:
        self._stopping = True
        self._acceptor.close()
        self._connector.close()
        for conn in self._life.all():
            if conn.connected:
                self._life.guard(conn, conn._handler.on_stop)
            conn._close(CloseReason.SHUTDOWN)
        self.call_later(timeout, self._give_up)

    def _give_up(self) -> None:
        self._outbox.flush()
        self._life.close_flushed()  # with no timeout at all, this is the first chance
        for conn in self._life.all():
            conn._give_up(CloseReason.SHUTDOWN)

    def _finish(self) -> None:
        self._life.finish()
        self.finished = True
        for call, args in self._mailbox.close():
            if call == self._adopt:  # a connection on its way here
                self.refuse(args[0])
        self._connector.finish()
        self._life.conns.clear()
        self._reactor.close()
        self._arena.close()  # somebody may keep the loop, by a connection for one

    # ---- calls and timers -----------------------------------------------------------------------

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` in the loop's next turn. From any thread.

        Calls run in the order they were made here. The loop is woken once, however many are
        queued. After the loop has ended this does nothing.
        """
        self._mailbox.put(callback, args)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` once, in `delay` seconds. On the loop's thread, or before `run`.

        Raises:
            ValueError: `delay` is negative or not finite.
            RuntimeError: called from another thread.
        """
        check_delay("delay", delay, zero=True)
        return self.schedule(Timer(callback, args), delay)

    def call_every(self, interval: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` every `interval` seconds until cancelled. Threads and errors as
        for `call_later`; an interval of 0 is refused too."""
        check_delay("interval", interval, zero=False)
        return self.schedule(Timer(callback, args, interval), interval)

    def schedule(self, timer: Timer, delay: float) -> Timer:
        """Start a timer that is not running yet, due in `delay` seconds.

        Threads as for `call_later`.
        """
        self.check_thread()
        self._timers.add(timer, delay)
        return timer

    # ---- listeners and connections --------------------------------------------------------------

    def listen(self, fd: int, on_accept: Callable[[Accepted], object]) -> int:
        """Accept from a listening, non-blocking socket. On the loop's thread, or before `run`.

        `on_accept` owns the descriptor it is given; see `give`. Returns the listener's number.

        Raises:
            OSError: `fd` cannot be watched.
            RuntimeError: called from another thread, or the loop has ended.
        """
        self._check_open()
        return self._acceptor.listen(fd, on_accept)

    def watch(self, fd: int) -> None:
        """End waits when there is something to read from the socket `fd`, which is dropped.

        For `signal.set_wakeup_fd`, where the loop runs on the main thread: the signal's handler
        runs then. On the loop's thread, or before `run`.
        """
        self._check_open()
        self._reactor.watch(fd)

    def unlisten(self, listener: int) -> None:
        """Accept from it no more; closing the socket is its owner's. Threads as for `listen`."""
        self._check_open()
        self._acceptor.unlisten(listener)

    def give(
        self, fd: int, peer: bytes, handler: Handler, protocol: Protocol, receive: Receive
    ) -> None:
        """Have the loop take over a connected, non-blocking socket.

        From its own thread, and from one other at a time (the one that accepts).

        The descriptor is the loop's from now on, which closes it also when it cannot take it.

        Args:
            fd: the descriptor.
            peer: the peer's address, a raw `struct sockaddr`.
            handler: gets its callbacks, beginning with `on_connect`.
            protocol: dresses its replies.
            receive: `gevffi.protocol.receiver(handler, protocol, ...)`, made once for all.
        """
        self._given += 1
        self._take(fd, peer, handler, protocol, receive)

    def _take(
        self, fd: int, peer: bytes, handler: Handler, protocol: Protocol, receive: Receive
    ) -> None:
        """`give`, for one that has counted the connection as given."""
        if self.in_loop():
            self._adopt(fd, peer, handler, protocol, receive)
        elif not self._mailbox.put(self._adopt, (fd, peer, handler, protocol, receive)):
            self.refuse(fd)

    def refuse(self, fd: int) -> None:
        """Close a connection that a listener accepted and that nobody will serve, and count it.

        Threads as for `give`.
        """
        self.refused_count += 1
        os.close(fd)

    def _adopt(
        self, fd: int, peer: bytes, handler: Handler, protocol: Protocol, receive: Receive
    ) -> None:
        if self._stopping or self.finished:
            self._life.ended += 1
            self.refuse(fd)
            return
        try:
            token = self._reactor.adopt(fd)
        except OSError:
            self._life.ended += 1
            self.refuse(fd)
            raise
        conn = Connection(self, token, peer, handler, protocol, receive)
        conn._served = True
        self._life.admit(conn)
        self._life.guard(conn, handler.on_connect)

    def connect(
        self,
        address: AddressLike,
        handler: Handler,
        protocol: Protocol | None = None,
        timeout: float = 10.0,
    ) -> Connection:
        """Make a connection to `address`. From any thread; returns at once.

        The connection begins in the state connecting. Then either `handler.on_connect` is called,
        and everything is as for an accepted connection, or `handler.on_connect_failed`; never
        during this call. Meanwhile `send`, `shutdown_write`, `close` and `pause_reading` may be
        used and take effect after `on_connect`. The loop's `Options` count here too.

        Args:
            address: as for `Server`, with a port. The addresses of a name are tried one after the
                other; it is looked up in a thread, so that the loop goes on. An empty host is
                this machine.
            handler: gets the callbacks of this connection.
            protocol: cuts messages; `Raw()` when None.
            timeout: seconds until it is a `TimeoutError`, looking up included. Each address gets
                its share of them.

        Raises:
            ValueError: a bad address or timeout; the message names it.
            TypeError: the handler is no `Handler`, or the protocol no `Protocol`.
            RuntimeError: the loop has ended.
        """
        protocol = Raw() if protocol is None else protocol
        return self._connector.connect(address, handler, protocol, timeout)

    # ---- broadcast ------------------------------------------------------------------------------

    def broadcast(self, data: Any, connections: Iterable[Connection] | None = None) -> None:
        """Send the same `data` to many connections of this loop. On the loop's thread.

        See `Server.broadcast`, which does this for all loops, from any thread.

        Args:
            data: bytes-like, or what the protocol's `packet` takes.
            connections: this loop's; None for all open ones that came by `give`.

        Raises:
            TypeError: `data` is not bytes-like (and no protocol makes it so). Nothing was sent.
            ValueError: a connection is another loop's. Nothing was sent.
            RuntimeError: called from another thread.
        """
        self.check_thread()
        self._broadcaster.send(data, connections)

    def _cut_again(self, conn: Connection) -> None:
        """After `resume_reading`: what a protocol had left in the buffer, and only then what is
        new, which may be the end."""
        if conn._pending_input is not None:  # unless `set_protocol` has taken it
            try:
                conn._receive(conn, None, _EMPTY)
            except Exception as exc:
                self._life.failed(conn, exc)
        if conn._cutting:
            self._reactor.set_reading(conn._token, True)

    # ---- errors ---------------------------------------------------------------------------------

    def _log(self, exc: Exception) -> None:
        logger.error("%s: %r", self.name, exc, exc_info=exc)
