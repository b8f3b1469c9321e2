"""The server: listeners, loops and their threads, from start to stop.

Several loops run in a thread each, and the thread that calls `start` only waits, so signals are
handled at once. A single loop runs in the main thread if that is where `start` is called: a process
of one thread is cheaper in the kernel, which has to count references to the entries of a shared
descriptor table on every call.

With one loop, that loop accepts. With several, the first one accepts for all and the balance
strategy picks; with `reuse_port` each loop has a listening socket of its own and the kernel picks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from gevffi.balance import Balance, RoundRobin
from gevffi.broadcast import by_loop, fixed
from gevffi.connection import Connection
from gevffi.handler import Handler
from gevffi.listener import AddressLike, Listener, parse_address
from gevffi.loop import EventLoop
from gevffi.options import Options
from gevffi.protocol import Protocol, Raw, receiver
from gevffi.sys.reactor import Accepted
from gevffi.sys.sockaddr import Address, decode_sockaddr
from gevffi.timers import Timer, check_delay

logger = logging.getLogger("gevffi")


class Server:
    """A TCP (or Unix socket) server.

    Args:
        handler: gets the callbacks of all connections.
        address: "host:port", "[::1]:port", ":port" for every interface, (host, port) or
            "unix:/path". Port 0 lets the kernel choose; see `address`.
        protocol: cuts messages; `Raw()` when None.
        balance: picks the loop of a new connection; `RoundRobin()` when None.
        **options: see `gevffi.Options`.

    Raises:
        ValueError, TypeError: a bad address or option; the message names it.
    """

    def __init__(
        self,
        handler: Handler,
        address: AddressLike = "127.0.0.1:1833",
        *,
        protocol: Protocol | None = None,
        balance: Balance | None = None,
        **options: Any,
    ) -> None:
        self.options = Options(**options)
        self._wanted = parse_address(address)
        if self.options.reuse_port and self._wanted.port is None:
            raise ValueError(f"reuse_port=True does not go with a Unix socket, {self._wanted}")
        self._handler = handler
        self._protocol = protocol or Raw()
        self._balance = balance or RoundRobin()
        self._receive = receiver(handler, self._protocol, self.options.frame_limit)
        self._timers: list[tuple[Timer, float]] = []  # asked for before the start
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._threads: list[threading.Thread] = []
        self._done = threading.Event()  # cleared while a loop runs in the thread of `start`
        self._done.set()
        self._bell: socket.socket | None = None
        self._caught = 0  # signals, since `start`
        self.loops: tuple[EventLoop, ...] = ()
        """The loops, while the server runs."""

    # ---- running --------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve until `stop` (gev: Start). Blocks.

        On the main thread, SIGINT and SIGTERM stop the server as `stop()` does, and a second one
        at once. Elsewhere signals are left alone.

        Raises:
            OSError: the address cannot be had; the message names it, and nothing is left open.
            RuntimeError: the server is running already.
        """
        if threading.current_thread() is not threading.main_thread():
            with self._serving():
                self._wait()
            return
        ear, bell = socket.socketpair()
        if self.options.loops == 1:
            with ear, bell, self._signals(bell), self._serving(spawn=False):
                try:
                    self.loops[0].watch(ear.fileno())
                    if self._caught:  # before there was a loop to tell
                        self._stop_loops(self.options.close_timeout)
                    self._run(self.loops[0])
                finally:
                    self._done.set()
            return
        with ear, bell, self._signals(bell), self._serving():
            # A signal or the end of a loop rings. (A lock could miss a signal that comes just
            # before the thread falls asleep.)
            heard = 0
            while not all(loop.finished for loop in self.loops):
                if heard != self._caught:
                    heard = self._caught
                    self._stop_loops(self.options.close_timeout if heard == 1 else 0)
                ear.recv(64)

    @contextlib.contextmanager
    def _signals(self, bell: socket.socket) -> Iterator[None]:
        """Have signals stop the server and ring `bell`: from before anybody can connect."""
        bell.setblocking(False)
        self._bell = bell
        self._caught = 0
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        wakeup = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            self._bell = None
            signal.set_wakeup_fd(wakeup)
            for number, action in before.items():
                signal.signal(number, action)

    @contextlib.contextmanager
    def running(self, timeout: float = 5.0) -> Iterator[Server]:
        """Serve in the background for the length of a `with` block.

        Args:
            timeout: seconds that `stop` gets at the end of the block.
        """
        with self._serving():
            try:
                yield self
            finally:
                self.stop(timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Stop accepting, send what waits, close every connection (gev: Stop). From any thread.

        Each connection gets `on_close` with `CloseReason.SHUTDOWN`. Waits for the end, unless it
        is called by a loop itself (from a callback). Harmless when repeated.

        Args:
            timeout: seconds after which connections that have not taken what was unsent are
                aborted; `close_timeout` when None.

        Raises:
            ValueError: `timeout` is negative or not finite.
        """
        if timeout is None:
            timeout = self.options.close_timeout
        check_delay("timeout", timeout, zero=True)
        with self._lock:  # a start under way comes first
            self._stop_loops(timeout)
        if not any(loop.in_loop() for loop in self.loops):
            self._wait()

    @contextlib.contextmanager
    def _serving(self, *, spawn: bool = True) -> Iterator[None]:
        self._begin(spawn=spawn)
        try:
            yield
        except BaseException:
            self.stop(0)
            raise
        finally:
            self._wait()
            self._end()

    def _begin(self, *, spawn: bool) -> None:
        with self._lock:
            if self.loops:
                raise RuntimeError("the server is running already")
            try:
                self._open()
            except BaseException:
                self._end()
                raise
            if not spawn:
                self._done.clear()
                return
            self._threads = [
                threading.Thread(target=self._run, args=(loop,), name=f"gevffi-{loop.name}")
                for loop in self.loops
            ]
            for thread in self._threads:
                thread.start()

    def _open(self) -> None:
        count = self.options.loops
        wanted = self._wanted
        for _ in range(count if self.options.reuse_port else 1):
            listener = Listener(wanted, self.options)
            self._listeners.append(listener)
            wanted = listener.address  # the others share the port the kernel chose
        self.loops = tuple(
            EventLoop(self.options, name=f"loop-{number}") for number in range(count)
        )
        for loop, listener in zip(self.loops, self._listeners, strict=False):
            loop.listen(listener.socket.fileno(), self._acceptor(loop))
        for timer, delay in self._timers:
            self.loops[0].schedule(timer, delay)
        self._timers.clear()

    def _end(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._threads = []
        self.loops = ()

    def _run(self, loop: EventLoop) -> None:
        try:
            loop.run()
        except BaseException:
            logger.critical("%s has failed, the server stops", loop.name, exc_info=True)
        finally:
            # One loop less is no server: the others stop too.
            self._stop_loops(self.options.close_timeout)
            bell = self._bell
            if bell is not None:
                with contextlib.suppress(OSError):
                    bell.send(b"\0")

    def _wait(self) -> None:
        for thread in self._threads:
            thread.join()
        self._done.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Only counted, where `start` waits: a signal may come in the middle of another one's work,
        # or while this thread holds a lock. A loop of this very thread is told without one.
        self._caught += 1
        if not self._done.is_set():
            self._stop_loops(self.options.close_timeout if self._caught == 1 else 0)

    def _stop_loops(self, timeout: float) -> None:
        for loop in self.loops:
            loop.stop(timeout)
        for loop, listener in zip(self.loops, self._listeners, strict=False):
            loop.call_soon_threadsafe(listener.close)  # then new clients are refused at once

    # ---- accepting ------------------------------------------------------------------------------

    def _acceptor(self, loop: EventLoop) -> Callable[[Accepted], None]:
        if self.options.reuse_port or len(self.loops) == 1:

            def accept(new: Accepted) -> None:
                loop.give(new.fd, new.peer, self._handler, self._protocol, self._receive)

        else:
            loops = self.loops

            def accept(new: Accepted) -> None:
                try:
                    chosen = self._balance.select(loops, decode_sockaddr(new.peer))
                    if chosen not in loops:
                        raise TypeError(f"{self._balance!r} chose no loop but {chosen!r}")
                except BaseException:
                    os.close(new.fd)
                    raise
                chosen.give(new.fd, new.peer, self._handler, self._protocol, self._receive)

        return accept

    # ---- broadcast ------------------------------------------------------------------------------

    def broadcast(self, data: Any, connections: Iterable[Connection] | None = None) -> None:
        """Send the same `data` to many connections. From any thread.

        Each loop sends to its connections in one call, straight from one buffer. Those that do not
        take all of it keep the rest as after `Connection.send`, up to `write_limit`, and hold up
        nobody else. It leaves behind what the calling thread has sent to them before. Connections
        that are closing or closed are passed over, as are those after `shutdown_write`.

        The protocol's `packet` is called once (on each loop, for each protocol) with one of the
        connections, and all get what it returns: a protocol that dresses its replies differently
        from connection to connection needs `Connection.send`.

        Args:
            data: bytes-like; with a protocol of one's own, whatever its `packet` takes. The caller
                may reuse its buffer as soon as this returns.
            connections: whom to send to; None for all open connections of this server.

        Raises:
            TypeError: `data` is not bytes-like (and no protocol makes it so).
            Exception: what `packet` raises, on a loop's thread; for the other loops it is logged.
        """
        targets: Mapping[EventLoop, list[Connection] | None]
        protocols: Iterable[Protocol]
        if connections is None:
            targets = dict.fromkeys(self.loops)
            protocols = (self._protocol,)
        else:
            connections = list(connections)
            targets = by_loop(connections)
            protocols = (conn._protocol for conn in connections)
        if not all(loop.in_loop() for loop in targets):
            data = fixed(data, protocols)
        for loop, conns in targets.items():
            if loop.in_loop():
                loop.broadcast(data, conns)
            else:
                loop.call_soon_threadsafe(loop.broadcast, data, conns)

    # ---- timers and what is known ---------------------------------------------------------------

    def run_after(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` in `delay` seconds, on the first loop's thread (gev: RunAfter).

        From any thread, also before the start, from which the time counts then. Returns the timer,
        for `cancel()`. Timers end with the server; a second start begins without.

        Raises:
            ValueError: `delay` is negative or not finite.
        """
        return self._schedule(Timer(callback, args), check_delay("delay", delay, zero=True))

    def run_every(self, interval: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` every `interval` seconds (gev: RunEvery); see `run_after`."""
        check_delay("interval", interval, zero=False)
        return self._schedule(Timer(callback, args, interval), interval)

    def _schedule(self, timer: Timer, delay: float) -> Timer:
        with self._lock:
            if self.loops:
                self.loops[0].call_soon_threadsafe(self.loops[0].schedule, timer, delay)
            else:
                self._timers.append((timer, delay))
        return timer

    @property
    def address(self) -> Address:
        """What the server listens on, with the port the kernel chose once it runs."""
        return self._listeners[0].address if self._listeners else self._wanted

    @property
    def connection_count(self) -> int:
        """Open connections of all loops. From any thread."""
        return sum(loop.connection_count for loop in self.loops)
