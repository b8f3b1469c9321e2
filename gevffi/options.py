"""Every option there is, with its unit, its default and its check, in one place.

`Server` takes them as keyword arguments and a loop of one's own takes an `Options`. A value that
cannot be meant is refused here, by name, before a socket is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypedDict

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a server and its loops. Times are seconds, sizes are bytes.

    Raises:
        ValueError: a value is out of its range; the message names option and value.
        TypeError: there is no such option, or a value has the wrong type.
    """

    loops: int = 1
    """Event loops, each in a thread of its own (gev: NumLoops)."""
    reuse_port: bool = False
    """Each loop listens for itself with SO_REUSEPORT and the kernel balances (gev: ReusePort)."""
    backlog: int = 1024
    """Connections the kernel completes before they are accepted (listen(2))."""
    max_connections: int = 0
    """Open connections of all loops together, those they made themselves included. More are
    refused, with a reset, and counted in `Server.refused_count`; 0: no limit."""
    tcp_nodelay: bool = True
    """Send small messages at once (TCP_NODELAY)."""
    keepalive: float = 0
    """Silence before the kernel probes a peer (TCP_KEEPIDLE), whole seconds; 0: no probes."""
    keepalive_interval: float = 10
    """Between two probes (TCP_KEEPINTVL), whole seconds."""
    keepalive_count: int = 3
    """Unanswered probes that end a connection, with CloseReason.TIMEOUT (TCP_KEEPCNT)."""
    idle_time: float = 0
    """Silence after which a connection is closed, to within 0.1 s; 0: never (gev: IdleTime)."""
    first_byte_timeout: float = 0
    """How long an accepted connection may take to send its first byte, to within 0.1 s; then it is
    closed, with CloseReason.TIMEOUT; 0: for ever."""
    close_timeout: float = 5
    """How long a `close()` may wait for the peer to take what is unsent."""
    write_high_water: int = 64 * KIB
    """Unsent bytes of a connection that pause reading from it; half of it resumes."""
    write_limit: int = 16 * MIB
    """Unsent bytes of a connection that close it, with CloseReason.SLOW_CONSUMER."""
    frame_limit: int = 16 * MIB
    """Bytes of an unfinished frame that a pure-Python protocol may leave in its buffer; more
    close the connection with CloseReason.FRAME_TOO_LARGE."""
    read_budget: int = 256 * KIB
    """Read from one connection in one turn of its loop."""
    max_events: int = 64
    """Events one turn serves. A turn reads from all of them before it answers the first, so many
    more would be out of the processor's caches again by then."""
    arena_size: int = MIB
    """What a loop reads into; a power of two."""
    max_leases: int = 16
    """Arenas of a loop that kept views may hold; while they do, it delivers copies instead."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            wanted: tuple[type, ...] = (int, float) if field.type == "float" else (int,)
            if field.type == "bool":
                wanted = (bool,)
            elif isinstance(value, bool):
                wanted = ()
            if not isinstance(value, wanted):
                raise TypeError(f"{field.name} must be {field.type}, not {value!r}")
        self._within("loops", 1, 1024)
        self._within("backlog", 1, (1 << 31) - 1)
        self._within("max_connections", 0, (1 << 31) - 1)
        self._within("keepalive", 0, 32767)
        self._within("keepalive_interval", 1, 32767)
        self._within("keepalive_count", 1, 127)
        self._within("idle_time", 0, 1e9)
        self._within("first_byte_timeout", 0, 1e9)
        self._within("close_timeout", 0, 1e6)
        self._within("write_limit", 1, 1 << 30)
        self._within("write_high_water", 1, 1 << 30)
        if self.write_high_water > self.write_limit:
            raise ValueError(
                f"write_high_water ({self.write_high_water!r}) must not be over "
                f"write_limit ({self.write_limit!r})"
            )
        self._within("frame_limit", 1, 1 << 30)
        self._within("read_budget", 1, 1 << 30)
        self._within("max_events", 1, 65536)
        self._within("arena_size", 128 * KIB, 1 << 30)
        self._within("max_leases", 0, 1 << 16)
        if self.arena_size & (self.arena_size - 1):
            raise ValueError(f"arena_size must be a power of two, not {self.arena_size!r}")

    def _within(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # also refuses NaN
            raise ValueError(f"{name} must be between {low} and {high}, not {value!r}")


class OptionArgs(TypedDict, total=False):
    """The names and types of `Options` again, so that type checkers and editors know what `Server`
    takes; the tests compare the two."""

    loops: int
    reuse_port: bool
    backlog: int
    max_connections: int
    tcp_nodelay: bool
    keepalive: float
    keepalive_interval: float
    keepalive_count: int
    idle_time: float
    first_byte_timeout: float
    close_timeout: float
    write_high_water: int
    write_limit: int
    frame_limit: int
    read_budget: int
    max_events: int
    arena_size: int
    max_leases: int
