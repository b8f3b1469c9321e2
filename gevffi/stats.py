"""What a loop has counted, and what it has at the moment.

Counting must not cost a message anything. So bytes, messages, events and turns are counted in C, on
lines of memory that are in hand there anyway (`csrc/stats.h`), and Python counts what is rare: a
connection that closes, a handler that fails. `EventLoop.stats` puts both together when somebody
asks, in whatever thread; the loop does not notice.

Each number is right by itself. They are read one after the other while the loop goes on, so they
need not belong to the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gevffi.connection_info import CloseReason
from gevffi.sys.reactor import TURN_BOUNDS, ReactorStats

_REASONS = tuple(CloseReason)

TURN_SECONDS: tuple[float, ...] = tuple(bound / 1e9 for bound in TURN_BOUNDS)
"""The longest turn each entry of `LoopStats.turns` counts, in seconds; the last has none."""


class Counters:
    """The part that Python counts. Written by the loop's thread, read by any."""

    __slots__ = ("closed", "handler_errors")

    def __init__(self) -> None:
        self.closed = dict.fromkeys(_REASONS, 0)
        self.handler_errors = 0


@dataclass(frozen=True, kw_only=True)
class LoopStats:
    """What `EventLoop.stats` returns. All of it counts from when the loop was made, but for what
    is said to be now."""

    connections: int
    """Open connections, now."""
    accepted: int
    """Connections its listeners took from the kernel. Where one loop accepts for several, they are
    counted there."""
    refused: int
    """Of them, those that were closed at once instead of being served."""
    closed: Mapping[CloseReason, int]
    """Connections that have closed, by reason; every reason is there."""
    bytes_received: int
    """Read from connections; also what was read only to be forgotten, from one that is closing."""
    bytes_sent: int
    """Given to the kernel, headers included."""
    messages_received: int
    """Calls of `on_message`, up to the last turn that is over: with `Raw` one for each read, with
    another protocol one for each message."""
    messages_sent: int
    """Replies and calls of `send`, also those that came too late for a connection."""
    unsent_bytes: int
    """Wait for peers to take them, now, in all connections."""
    events: int
    """Descriptors that were ready and were served."""
    turns: tuple[int, ...]
    """Turns of the loop, by how long they took: each entry counts those up to the same entry of
    `TURN_SECONDS` and over the one before; one entry more for those over the last."""
    turn_seconds: float
    """Seconds spent in all turns. Waiting for events is no part of a turn."""
    leases: int
    """Arenas that only views kept by handlers hold, now."""
    timers: int
    """Timers that are running, now."""
    calls: int
    """Calls from other threads (and `call_soon_threadsafe` on its own) that were made."""
    calls_waiting: int
    """Such calls that wait for their turn, now."""
    handler_errors: int
    """Exceptions that went to `on_error`."""


def loop_stats(
    reactor: ReactorStats,
    counters: Counters,
    *,
    connections: int,
    refused: int,
    leases: int,
    timers: int,
    calls: int,
    calls_waiting: int,
) -> LoopStats:
    """Put together what was counted in C, what was counted in Python, and what there is now."""
    return LoopStats(
        connections=connections,
        accepted=reactor.accepted,
        refused=refused,
        closed=dict(counters.closed),
        bytes_received=reactor.bytes_received,
        bytes_sent=reactor.bytes_sent,
        messages_received=reactor.messages_received,
        messages_sent=reactor.messages_sent,
        unsent_bytes=reactor.pending_bytes,
        events=reactor.events,
        turns=reactor.turns,
        turn_seconds=reactor.turn_ns / 1e9,
        leases=leases,
        timers=timers,
        calls=calls,
        calls_waiting=calls_waiting,
        handler_errors=counters.handler_errors,
    )
