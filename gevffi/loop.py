"""The event loop: one thread, one turn after the other.

          C, GIL free                          Python                             C, GIL free
 ┌──────────────────────────────┐   ┌─────────────────────────────────┐   ┌──────────────────────┐
 │ epoll_wait                   │   │ accepted -> on_connect          │   │ for each connection  │
 │ accept4 new connections      │   │ frames   -> on_message -> reply │   │   one sendmsg, or    │
 │ recv each ready socket       ├──▶│ changes  -> on_drain, on_close  ├──▶│   keep the rest and  │
 │   into the arena             │   │ calls from threads, timers      │   │   arm for writable   │
 │ flush what is writable       │   │                                 │   │                      │
 └──────────────────────────────┘   └─────────────────────────────────┘   └──────────────────────┘

A turn crosses into C twice however many connections are ready, and spends a handful of Python
steps on a message: look the connection up, slice, call, append the reply. That inner loop is in
`delivery.py`; here is what surrounds it.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from gevffi.acceptor import Acceptor
from gevffi.arena import Arena
from gevffi.connection import CLOSING, OPEN, CloseReason, Connection
from gevffi.delivery import Delivery
from gevffi.framing import Framing
from gevffi.handler import Handler
from gevffi.mailbox import Mailbox
from gevffi.options import Options
from gevffi.outbox import Outbox
from gevffi.protocol import FrameTooLargeError, Protocol, ProtocolError, Receive
from gevffi.sys.errors import check
from gevffi.sys.memory import default_pool
from gevffi.sys.reactor import FRAMES, MORE, RUNS, Accepted, Change, Reactor
from gevffi.timers import Timer, TimerQueue, check_delay

logger = logging.getLogger("gevffi")

_REASONS = tuple(sorted(CloseReason, key=lambda reason: int(reason.value)))
_EMPTY = memoryview(b"")


class EventLoop:
    """A reactor for the thread that calls `run`.

    Args:
        options: limits and sizes; the defaults of `Options` when None.
        name: shown in logs.

    Raises:
        OSError: the kernel gave no descriptor.
        MemoryError: there is no memory for the arena.
    """

    def __init__(self, options: Options | None = None, *, name: str = "loop") -> None:
        self.options = options or Options()
        self.name = name
        pool = default_pool()
        self._reactor = Reactor(
            pool,
            max_events=self.options.max_events,
            read_budget=self.options.read_budget,
            write_high_water=self.options.write_high_water,
            write_limit=self.options.write_limit,
            idle_ms=math.ceil(self.options.idle_time * 1000),
        )
        self._arena = Arena(self._reactor, pool, self.options.arena_size, self.options.max_leases)
        self._outbox = Outbox(self._reactor, self._arena)
        self._timers = TimerQueue()
        self._conns: list[Connection | None] = []  # by slot
        self._framings: weakref.WeakKeyDictionary[Framing, int] = weakref.WeakKeyDictionary()
        self._mailbox = Mailbox(self._reactor.wake)
        self._acceptor = Acceptor(self._reactor, self._timers, self._log, name)
        self._delivery = Delivery(
            self._reactor, self._arena, self._outbox, self._conns, self._failed
        )
        self._closing: list[tuple[Connection, CloseReason]] = []
        self._given = 0  # connections ever given to this loop, by whoever accepts them
        self._ended = 0  # and ever closed, on its thread
        self._thread: int | None = None
        self._stopping = False
        self.finished = False
        """Whether `run` has ended. From any thread."""
        self.connection_count = 0
        """Open connections. From any thread."""

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
            while not self._stopping or self.connection_count:
                self._turn()
        finally:
            self._finish()

    def stop(self, timeout: float = 5.0) -> None:
        """End `run`. From any thread; harmless when repeated, the shorter timeout counts.

        Listeners stop accepting and every connection closes as by `close()`, with
        `CloseReason.SHUTDOWN`. Connections that have not taken what was unsent within `timeout`
        seconds are aborted.
        """
        check_delay("timeout", timeout, zero=True)
        self.call_soon_threadsafe(self._stop, timeout)

    def check_thread(self) -> None:
        """Raise RuntimeError if the loop runs in another thread than the calling one."""
        if self._thread is not None and not self.in_loop():
            raise RuntimeError(
                f"this belongs to the thread of {self.name}; "
                "from another one use call_soon_threadsafe"
            )

    def _stop(self, timeout: float) -> None:
        self._stopping = True
        self._acceptor.close()
        for conn in self._open():
            conn._close(CloseReason.SHUTDOWN)
        self.call_later(timeout, self._give_up)

    def _give_up(self) -> None:
        self._outbox.flush()
        self._close_flushed()  # with no timeout at all, this is the first chance
        for conn in self._open():
            conn._give_up(CloseReason.SHUTDOWN)

    def _open(self) -> list[Connection]:
        return [conn for conn in self._conns if conn is not None]

    def _finish(self) -> None:
        # Nothing is left to close unless the loop is torn down by an exception.
        for slot, conn in enumerate(self._conns):
            if conn is not None:
                self._on_closed(slot, conn, CloseReason.SHUTDOWN)
        self.finished = True
        for call, args in self._mailbox.close():
            if call == self._adopt:  # a connection on its way here
                os.close(args[0])
        self._conns.clear()
        self._reactor.close()
        self._arena.close()  # somebody may keep the loop, by a connection for one

    def in_loop(self) -> bool:
        """Whether the calling thread is the one this loop runs on."""
        return self._thread == threading.get_ident()

    @property
    def load(self) -> int:
        """Connections given to this loop and not closed yet. From any thread."""
        return self._given - self._ended

    @property
    def leases(self) -> int:
        """Arenas that only views kept by handlers hold. From any thread."""
        return self._arena.leases

    # ---- calls and timers -----------------------------------------------------------------------

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` in the loop's next turn. From any thread.

        Calls run in the order they were made here. The loop is woken once, however many are
        queued. After the loop has ended this does nothing.
        """
        if self.in_loop():
            self._mailbox.put_here(callback, args)
        else:
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
        """Start a timer that is not running yet. Threads as for `call_later`."""
        self.check_thread()
        self._timers.add(timer, delay)
        return timer

    # ---- listeners and connections --------------------------------------------------------------

    def listen(self, fd: int, on_accept: Callable[[Accepted], object]) -> int:
        """Accept from a listening, non-blocking socket. On the loop's thread, or before `run`.

        `on_accept` owns the descriptor it is given; see `give`. Returns the listener's number.
        """
        self.check_thread()
        return self._acceptor.listen(fd, on_accept)

    def watch(self, fd: int) -> None:
        """End waits when there is something to read from the socket `fd`, which is dropped.

        For `signal.set_wakeup_fd`, where the loop runs on the main thread: the signal's handler
        runs then. On the loop's thread, or before `run`.
        """
        self.check_thread()
        self._reactor.watch(fd)

    def unlisten(self, listener: int) -> None:
        """Accept from it no more; closing the socket is its owner's."""
        self.check_thread()
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
        if self.in_loop():
            self._adopt(fd, peer, handler, protocol, receive)
        elif not self._mailbox.put(self._adopt, (fd, peer, handler, protocol, receive)):
            os.close(fd)

    def _adopt(
        self, fd: int, peer: bytes, handler: Handler, protocol: Protocol, receive: Receive
    ) -> None:
        if self._stopping:
            self._ended += 1
            os.close(fd)
            return
        try:
            token = self._reactor.adopt(fd)
        except OSError:
            self._ended += 1
            os.close(fd)
            raise
        conn = Connection(self, token, peer, handler, protocol, receive)
        if conn._framing is not None:
            self._reactor.frame(token, self._framing_number(protocol))
        slot = token & 0xFFFFFFFF
        if slot >= len(self._conns):
            self._conns.extend([None] * (slot + 1 - len(self._conns)))
        self._conns[slot] = conn
        self.connection_count += 1
        self._guard(conn, handler.on_connect)

    def _framing_number(self, protocol: Protocol) -> int:
        """What C knows a protocol by, 0 if that is not at all."""
        if not isinstance(protocol, Framing):
            return 0
        number = self._framings.get(protocol)
        if number is None:
            number = self._framings[protocol] = self._reactor.framing(protocol.description)
        return number

    # ---- a turn ---------------------------------------------------------------------------------

    def _turn(self) -> None:
        calls, timers = self._mailbox.calls, self._timers
        timeout = 0 if calls else timers.timeout_ms() if timers.heap else -1
        found = self._reactor.poll(self._arena.start, timeout)
        if found < 0:
            check(found, "epoll_wait")
        if self._delivery.switched:
            self._delivery.switched.clear()
        frames = found & FRAMES
        if frames:
            self._delivery.frames(frames)
        if found & RUNS:
            self._delivery.runs()
        if found & MORE:
            self._more()
        if calls:
            self._mailbox.run(self._log)
        if timers.heap:
            timers.run_due(self._log)
        self._outbox.flush()
        if self._closing:
            self._close_flushed()
        if found & (FRAMES | RUNS):
            self._arena.settle()

    def _more(self) -> None:
        self._delivery.large()
        changes, accepted, error, listener = self._reactor.more()
        if changes:
            self._apply(changes)
        if accepted:
            self._acceptor.hand_out(accepted)
        if error:
            self._acceptor.rest(error, listener)

    def _cut_again(self, conn: Connection) -> None:
        """After `resume_reading`: what a protocol had left in the buffer, and only then what is
        new, which may be the end."""
        if conn._pending_input is not None:  # unless `set_protocol` has taken it
            try:
                conn._receive(conn, None, _EMPTY)
            except Exception as exc:
                self._failed(conn, exc)
        if conn._cutting:
            self._reactor.set_reading(conn._token, True)

    def _apply(self, changes: int) -> None:
        for slot, what, reason in self._reactor.changes(changes):
            conn = self._conns[slot]
            assert conn is not None
            handler = conn._handler
            if what & Change.HIGH_WATER:
                self._guard(conn, handler.on_high_water)
            if what & Change.DRAINED:
                self._guard(conn, handler.on_drain)
            if what & Change.SENT:
                self._guard(conn, Connection._fire_sent)
            if what & Change.BAD_FRAME:
                self._bad_frame(conn, _REASONS[reason])
            if what & Change.CLOSED:
                self._on_closed(slot, conn, _REASONS[reason])
            elif (
                what & Change.EOF and conn._state == OPEN and not self._guard(conn, handler.on_eof)
            ):
                conn._close(CloseReason.EOF)

    def _on_closed(self, slot: int, conn: Connection, reason: CloseReason) -> None:
        conn._closed()
        self._conns[slot] = None
        self.connection_count -= 1
        self._ended += 1
        try:
            conn._handler.on_close(conn, reason)
        except Exception as exc:
            self._report(conn, exc)

    # ---- closing --------------------------------------------------------------------------------

    def _close_after_flush(self, conn: Connection, reason: CloseReason) -> None:
        self._closing.append((conn, reason))

    def _close_flushed(self) -> None:
        closing, self._closing = self._closing, []
        for conn, reason in closing:
            if conn._state != CLOSING:
                continue
            done = self._reactor.close_connection(conn._token, reason.value)
            if not done and not self._stopping:  # `_stop` has a deadline of its own
                conn._deadline = self.call_later(
                    self.options.close_timeout, conn._give_up, CloseReason.TIMEOUT
                )

    # ---- errors ---------------------------------------------------------------------------------

    def _guard(self, conn: Connection, callback: Callable[[Connection], Any]) -> Any:
        """Call back; an exception costs this connection only."""
        try:
            return callback(conn)
        except Exception as exc:
            self._failed(conn, exc)

    def _failed(self, conn: Connection, exc: Exception) -> None:
        if isinstance(exc, ProtocolError):  # the peer's fault, not the program's
            too_large = isinstance(exc, FrameTooLargeError)
            logger.info("connection %s: %s", conn, exc)
            conn._close(CloseReason.FRAME_TOO_LARGE if too_large else CloseReason.PROTOCOL_ERROR)
        else:
            self._report(conn, exc)
            conn._close(CloseReason.HANDLER_ERROR)

    def _bad_frame(self, conn: Connection, reason: CloseReason) -> None:
        logger.info("connection %s: %s under %r", conn, reason.name, conn._framing)
        conn._close(reason)

    def _report(self, conn: Connection, exc: Exception) -> None:
        try:
            conn._handler.on_error(conn, exc)
        except Exception as failure:
            self._log(failure)

    def _log(self, exc: Exception) -> None:
        logger.error("%s: %r", self.name, exc, exc_info=exc)
