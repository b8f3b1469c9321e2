"""The numbers of a server for Prometheus (gev: MetricsServer).

    server = gevffi.Server(handler, "127.0.0.1:1833", metrics_address="127.0.0.1:9091")

serves them over HTTP for as long as the server runs. Who has a registry, or an endpoint, already
registers a collector there instead:

    prometheus_client.REGISTRY.register(gevffi.metrics.ServerCollector(server))

Nothing is counted here. The loops count anyway (`gevffi.stats`), and a scrape reads what they have,
on a thread of its own. So a scrape costs what its text costs to write, and a message nothing.

Needs the package prometheus-client: `pip install 'gevffi[metrics]'`. The HTTP server is its own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from gevffi.listener import AddressLike, parse_address
from gevffi.stats import TURN_SECONDS, LoopStats
from gevffi.sys.memory import PoolStats, default_pool
from gevffi.sys.sockaddr import Address

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError as exc:
    raise ImportError(
        "metrics need the package prometheus-client: pip install 'gevffi[metrics]'"
    ) from exc

if TYPE_CHECKING:
    from threading import Thread

    from gevffi.server import Server

# Name, what it says, and the field of LoopStats it is.
_COUNTERS = (
    ("connections_accepted", "Connections taken from the kernel.", "accepted"),
    ("connections_refused", "Connections closed at once instead of being served.", "refused"),
    ("bytes_received", "Bytes read from connections.", "bytes_received"),
    ("bytes_sent", "Bytes given to the kernel.", "bytes_sent"),
    ("messages_received", "Messages given to on_message.", "messages_received"),
    ("messages_sent", "Replies and calls of send.", "messages_sent"),
    ("events", "Descriptors that were ready and were served.", "events"),
    ("calls", "Calls made for other threads.", "calls"),
    ("handler_errors", "Exceptions that went to on_error.", "handler_errors"),
)
_GAUGES = (
    ("connections_open", "Open connections.", "connections"),
    ("unsent_bytes", "Bytes that wait for peers to take them.", "unsent_bytes"),
    ("leases", "Arenas that only views kept by handlers hold.", "leases"),
    ("timers", "Timers that are running.", "timers"),
    ("calls_waiting", "Calls from other threads that wait for their turn.", "calls_waiting"),
)
# Of the process, and with the fields of PoolStats.
_POOL_GAUGES = (
    ("pool_used_bytes", "Memory of rings that somebody holds.", "used_bytes"),
    ("pool_used_rings", "Rings that somebody holds.", "used_rings"),
    ("pool_warm_bytes", "Memory of free rings that keep their pages.", "warm_bytes"),
    ("pool_rings", "Rings there are, held or free.", "rings"),
    ("pool_mappings", "Kernel mappings they cost, at most.", "mappings"),
)


class ServerCollector(Collector):
    """What a server has counted, for a registry of prometheus_client. From any thread.

    While the server does not run there are metrics but no samples of them; each start counts from
    0 again, which Prometheus takes for the restart that it is.

    Args:
        server: whose loops are asked.
        namespace: what all names begin with. Two servers in one registry need two.
    """

    def __init__(self, server: Server, namespace: str = "gevffi") -> None:
        self._server = server
        self._namespace = namespace

    def describe(self) -> list[Metric]:
        """Return the metrics without samples: what the registry asks for to tell names apart."""
        return list(self._metrics({}, None))

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they are now."""
        loops = self._server.loops
        stats = {loop.name: loop.stats() for loop in loops}
        return self._metrics(stats, default_pool().stats() if loops else None)

    def _metrics(self, loops: dict[str, LoopStats], pool: PoolStats | None) -> Iterator[Metric]:
        for name, text, field in _COUNTERS:
            counter = CounterMetricFamily(self._name(name), text, labels=["loop"])
            for loop, stats in loops.items():
                counter.add_metric([loop], getattr(stats, field))
            yield counter
        for name, text, field in _GAUGES:
            gauge = GaugeMetricFamily(self._name(name), text, labels=["loop"])
            for loop, stats in loops.items():
                gauge.add_metric([loop], getattr(stats, field))
            yield gauge
        yield self._closed(loops)
        yield self._turns(loops)
        for name, text, field in _POOL_GAUGES:
            gauge = GaugeMetricFamily(self._name(name), text)
            if pool is not None:
                gauge.add_metric([], getattr(pool, field))
            yield gauge

    def _closed(self, loops: dict[str, LoopStats]) -> Metric:
        family = CounterMetricFamily(
            self._name("connections_closed"),
            "Connections that have closed, by gevffi.CloseReason.",
            labels=["loop", "reason"],
        )
        for loop, stats in loops.items():
            for reason, count in stats.closed.items():
                family.add_metric([loop, reason.name.lower()], count)
        return family

    def _turns(self, loops: dict[str, LoopStats]) -> Metric:
        family = HistogramMetricFamily(
            self._name("turn_seconds"),
            "Turns of the loop, by how long they took; waiting for events left out.",
            labels=["loop"],
        )
        bounds = [*map(repr, TURN_SECONDS), "+Inf"]
        for loop, stats in loops.items():
            buckets = list(zip(bounds, accumulate(stats.turns), strict=True))
            family.add_metric([loop], buckets, stats.turn_seconds)
        return family

    def _name(self, name: str) -> str:
        return f"{self._namespace}_{name}"


class Endpoint:
    """Serves the metrics of one server over HTTP, from a registry of its own. Made by `Server`.

    Not thread-safe, but for `address`.

    Args:
        server: whose metrics.
        address: as the server's own, but for Unix sockets.

    Raises:
        ValueError: a bad address; the message names it.
    """

    def __init__(self, server: Server, address: AddressLike) -> None:
        try:
            self._wanted = parse_address(address)
        except ValueError:
            self._wanted = Address("", None)
        if self._wanted.port is None:
            raise ValueError(
                "metrics_address must be 'host:port', '[ipv6]:port', ':port' or (host, port), "
                f"not {address!r}"
            )
        self._registry = CollectorRegistry()
        self._registry.register(ServerCollector(server))
        self._serving: tuple[WSGIServer, Thread] | None = None

    @property
    def address(self) -> Address:
        """What it listens on, with the port the kernel chose once it is open."""
        serving = self._serving
        return self._wanted if serving is None else Address.of(serving[0].server_address)

    def open(self) -> None:
        """Listen, and serve on a thread of its own.

        Raises:
            OSError: the address cannot be had; the message names it, and nothing is left open.
        """
        wanted = self._wanted
        assert wanted.port is not None
        host = wanted.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")
        try:
            self._serving = start_http_server(wanted.port, host, self._registry)
        except (OSError, UnicodeError) as exc:  # the second: a host that no name can be
            number = getattr(exc, "errno", None) or errno.EINVAL
            why = getattr(exc, "strerror", None) or exc
            raise OSError(number, f"cannot serve metrics on {wanted}: {why}") from exc

    def close(self) -> None:
        """Stop serving. Harmless when it is not open. A scrape under way still gets its answer."""
        if self._serving is None:
            return
        (server, thread), self._serving = self._serving, None
        with contextlib.suppress(OSError):
            # Ends its wait for connections, which would last for up to half a second more.
            server.socket.shutdown(socket.SHUT_RDWR)
        server.shutdown()
        thread.join()
        server.server_close()
