"""The server: listeners, loops and their threads, from start to stop.

`start` runs the first loop in the thread that calls it, and each further one in a thread of its
own. So a server of one loop is a process of one thread, which is cheaper in the kernel: it has to
count references to the entries of a shared descriptor table on every call.

With one loop, that loop accepts. With several, the first one accepts for all and the balance
strategy picks; with `reuse_port` each loop has a listening socket of its own for every address, and
the kernel picks.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gevffi.admission import Admission
from gevffi.balance import Balance, Select, selector
from gevffi.broadcast import by_loop, fixed
from gevffi.connection import Connection
from gevffi.handler import Handler
from gevffi.listener import AddressesLike, AddressLike, Listener, parse_addresses
from gevffi.loop import EventLoop
from gevffi.options import OptionArgs, Options
from gevffi.protocol import Protocol, Raw, receiver
from gevffi.signals import stop_signals
from gevffi.sys.sockaddr import Address
from gevffi.timers import Timer, check_delay

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gevffi.metrics import Endpoint

logger = logging.getLogger("gevffi")


class Server:
    """A TCP (or Unix socket) server.

    Args:
        handler: gets the callbacks of all connections.
        address: "host:port", "[::1]:port", ":port" for every interface, (host, port) or
            "unix:/path"; or a list of any of these. Port 0 lets the kernel choose; see `addresses`.
        protocol: cuts messages; `Raw()` when None.
        balance: picks the loop of a new connection where one accepts for several: a `Balance` or
            any callable (loops, peer) -> EventLoop; `RoundRobin()` when None.
        metrics_address: where to serve the server's numbers to Prometheus (gev: MetricsServer), as
            `address`, but no Unix socket; nowhere when None. See `gevffi.metrics`.
        **options: see `gevffi.Options`.

    Raises:
        ValueError, TypeError: a bad address or option; the message names it.
        ImportError: `metrics_address` is given, and the package prometheus-client is not installed.
    """

    def __init__(
        self,
        handler: Handler,
        address: AddressesLike = "127.0.0.1:1833",
        *,
        protocol: Protocol | None = None,
        balance: Balance | Select | None = None,
        metrics_address: AddressLike | None = None,
        **options: Unpack[OptionArgs],
    ) -> None:
        self.options = Options(**options)
        self._wanted = parse_addresses(address)
        for wanted in self._wanted:
            if self.options.reuse_port and wanted.port is None:
                raise ValueError(f"reuse_port=True does not go with a Unix socket, {wanted}")
        self._protocol = Raw() if protocol is None else protocol
        select = selector(balance)
        self._admission = Admission(
            self.options.max_connections,
            None if self.options.reuse_port or self.options.loops == 1 else select,
            handler,
            self._protocol,
            receiver(handler, self._protocol, self.options.frame_limit),
        )
        self._timers: list[tuple[Timer, float]] = []  # asked for before the start
        self._lock = threading.Lock()
        self._listeners: list[tuple[int, Listener]] = []  # with the number of the loop
        self._metrics = None if metrics_address is None else self._endpoint(metrics_address)
        self._threads: list[threading.Thread] = []
        self._done = threading.Event()  # not while threads start, or a loop runs in `start`
        self._done.set()
        self._signals = 0  # since `start`
        self.loops: tuple[EventLoop, ...] = ()
        """The loops, while the server runs."""

    # ---- running --------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve until `stop` (gev: Start). Blocks.

        On the main thread, SIGINT and SIGTERM stop the server as `stop()` does, and a second one
        at once. Elsewhere signals are left alone.

        Raises:
            OSError: an address cannot be had; the message names it, and nothing is left open.
            RuntimeError: the server is running already.
        """
        self._signals = 0
        with stop_signals(self._signalled) as ear, self._serving(here=True):
            if ear is not None:
                self.loops[0].watch(ear)
            if self._signals:  # before there was a loop to tell
                self._stop_loops(self.options.close_timeout)
            self._run(self.loops[0])

    def _signalled(self, count: int) -> None:
        # The thread may be in the middle of anything, but the mailboxes' locks, the only ones this
        # needs, may be held by it already.
        self._signals = count
        self._stop_loops(self.options.close_timeout if count == 1 else 0)

    @contextlib.contextmanager
    def running(self, timeout: float = 5.0) -> Iterator[Server]:
        """Serve in the background for the length of a `with` block.

        Signals are left alone.

        Args:
            timeout: seconds that `stop` gets at the end of the block.

        Raises:
            OSError, RuntimeError: as for `start`.
        """
        with self._serving(here=False):
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
    def _serving(self, *, here: bool) -> Iterator[None]:
        """Have all loops run, but for the first one if the caller will run that `here`."""
        with self._lock:
            if self.loops:
                raise RuntimeError("the server is running already")
            try:
                self._open()
            except BaseException:
                self._end()
                raise
            self._done.clear()
        try:
            for loop in self.loops[1 if here else 0 :]:
                thread = threading.Thread(
                    target=self._run, args=(loop,), name=f"gevffi-{loop.name}"
                )
                thread.start()
                self._threads.append(thread)
            if not here:
                self._done.set()
            yield
        except BaseException:
            self._stop_loops(0)
            raise
        finally:
            self._done.set()
            self._wait()
            self._end()

    def _open(self) -> None:
        count = self.options.loops
        for wanted in self._wanted:
            for number in range(count if self.options.reuse_port else 1):
                listener = Listener(wanted, self.options)
                self._listeners.append((number, listener))
                wanted = listener.address  # the others share the port the kernel chose
        if self._metrics is not None:
            self._metrics.open()
        self.loops = tuple(
            EventLoop(self.options, name=f"loop-{number}") for number in range(count)
        )
        for number, listener in self._listeners:
            loop = self.loops[number]
            loop.listen(listener.socket.fileno(), self._admission.acceptor(loop, self.loops))
        for timer, delay in self._timers:
            self.loops[0].schedule(timer, delay)
        self._timers.clear()

    def _end(self) -> None:
        for _, listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._metrics is not None:
            self._metrics.close()
        self._threads = []
        self.loops = ()

    def _run(self, loop: EventLoop) -> None:
        try:
            loop.run()
        except BaseException:
            logger.critical("%s has failed, the server stops", loop.name, exc_info=True)
        finally:
            self._stop_loops(self.options.close_timeout)  # one loop less is no server

    def _wait(self) -> None:
        self._done.wait()
        for thread in self._threads:
            while thread.is_alive():
                # A signal that comes just before this falls asleep is heard when it wakes up.
                thread.join(0.1)

    def _stop_loops(self, timeout: float) -> None:
        loops = self.loops
        for loop in loops:
            loop.stop(timeout)
        for number, listener in self._listeners if loops else ():
            loops[number].call_soon_threadsafe(listener.close)  # then new clients are refused

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
        """Call `callback(*args)` every `interval` seconds (gev: RunEvery); see `run_after`.

        Raises:
            ValueError: `interval` is not more than 0, or not finite.
        """
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
        """The first of `addresses`."""
        return self.addresses[0]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What the server listens on, in the order given, with the ports the kernel chose once it
        runs."""
        listening = tuple(listener.address for number, listener in self._listeners if number == 0)
        return listening if len(listening) == len(self._wanted) else self._wanted

    def _endpoint(self, address: AddressLike) -> Endpoint:
        from gevffi.metrics import Endpoint  # an extra: not everybody has what it needs

        return Endpoint(self, address)

    @property
    def metrics_address(self) -> Address | None:
        """Where metrics are served, with the port the kernel chose once it runs; None: nowhere."""
        return None if self._metrics is None else self._metrics.address

    @property
    def connection_count(self) -> int:
        """Open connections of all loops. From any thread."""
        return sum(loop.connection_count for loop in self.loops)

    @property
    def refused_count(self) -> int:
        """Connections ever refused, for `max_connections`. From any thread."""
        return self._admission.refused_count
