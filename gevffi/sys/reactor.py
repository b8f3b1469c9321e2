"""The loop in C, seen from Python: one object over `gev_loop`; `results.py` has what it finds.

A `Reactor` does not decide anything. It owns the C loop, and the few conversions between the two
worlds, each of which costs one call for a whole turn rather than one for every event.
`gevffi.loop.EventLoop` stands on it.

Everything here belongs to the loop's thread, but for `wake` and `stats`. A forked child has copies
of all reactors, over epoll instances that it shares with its parent: there they let go of these, or
the child's clean-up would make the parent deaf.
"""

from __future__ import annotations

import os
import threading
import weakref
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from gevffi._ffi import ffi, lib
from gevffi.sys.errors import check
from gevffi.sys.framing import Description, Numbers
from gevffi.sys.memory import Pool, Region, buffer_of
from gevffi.sys.numbers import int64s
from gevffi.sys.results import Results

_BYTES = ffi.typeof("uint8_t[]")
_INT64S = ffi.typeof("int64_t[]")
NULL = ffi.NULL

hold = ffi.from_buffer
"""Take hold of a C-contiguous buffer for `Reactor.send`: its memory stays for as long as the result
lives, whose `len` is its size in bytes."""

addresses: Callable[[list[Any]], Any] = partial(ffi.new, ffi.typeof("uint8_t *[]"))
"""The places of what `hold` has given, for C; valid for as long as the result and they live."""

hold_tokens: Callable[[array[int]], Any] = partial(ffi.from_buffer, _INT64S)
"""The same for an `array("q")` of tokens, for `Reactor.broadcast`; `len` is their number."""

now_ns: Callable[[], int] = lib.gev_now_ns
"""Nanoseconds of the clock that `Reactor.poll` waits by."""

NEVER = 0
"""Instead of a time of that clock: it does not come."""

poll: Callable[..., int] = lib.gev_loop_poll
"""Send, wait, accept, read, flush: all of it without the GIL. Called as it is, since a method
around it would be a step more in every turn.

Args:
    handle: a reactor's.
    start: where in the arena the reads go.
    due: the wait ends then at the latest, in nanoseconds of `now_ns`.
    count, numbers, blob, size, large: what to send, as `Reactor.send` has it.

Returns:
    The number of frames, plus RUNS when there are `runs`, plus MORE when there is more, plus DUE
    when it is `due`; or -errno. Results stay valid until the next call.
"""
_send: Callable[..., int] = lib.gev_loop_send

SEND_RUN: int = lib.GEV_SEND_RUN
"""Added to a token in what `Reactor.send` is told: its pieces follow, as a count and sizes."""
FIRST_AT: int = lib.GEV_FIRST_AT
"""How many bits further up the numbers there have the first byte of WebSocket frames, if any."""


class ReactorStats(NamedTuple):
    """What a C loop has counted since it was opened (`gev_loop_stats`)."""

    accepted: int  #: connections its listeners took from the kernel
    bytes_received: int
    bytes_sent: int  #: taken by the kernel
    messages_received: int
    messages_sent: int  #: given to `send`
    pending_bytes: int  #: wait for the kernel now
    events: int  #: descriptors that were ready and were served
    turn_ns: int  #: nanoseconds in turns, waits left out
    turns: tuple[int, ...]  #: by how long they took, as in `TURN_BOUNDS`


TURN_BOUNDS: tuple[int, ...] = tuple(
    int(lib.gev_turn_bound(bucket)) for bucket in range(lib.GEV_TURN_BUCKETS - 1)
)
"""The longest turn each entry of `ReactorStats.turns` counts, in nanoseconds; the last has none."""


class Reactor:
    """A C loop and its results.

    Args:
        pool: where unsent output waits.
        max_events: events served in one turn.
        read_budget: bytes read from one connection in one turn.
        write_high_water: unsent bytes of a connection that pause reading from it.
        write_limit: unsent bytes of a connection that close it; at most 1 GiB.
        idle_ms: milliseconds without a byte that close a connection; 0 for never.
        first_byte_ms: milliseconds an adopted connection has for its first byte; 0 for no limit.

    Raises:
        OSError: the kernel gave no descriptor or no memory.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        max_events: int,
        read_budget: int,
        write_high_water: int,
        write_limit: int,
        idle_ms: int,
        first_byte_ms: int,
    ) -> None:
        limits = ffi.new(
            "gev_limits *",
            {
                "pool": pool.handle,
                "max_events": max_events,
                "read_budget": read_budget,
                "write_high_water": write_high_water,
                "write_limit": write_limit,
                "idle_ms": idle_ms,
                "first_byte_ms": first_byte_ms,
            },
        )
        out = ffi.new("gev_loop **")
        check(lib.gev_loop_open(out, limits), "gev_loop_open")
        _open.add(self)
        self._reading_stats = threading.Lock()  # the loop is not freed meanwhile
        self._last_stats: ReactorStats | None = None
        self._pool = pool  # the C loop takes rings from it for as long as it lives
        loop = self.handle = ffi.gc(out[0], lib.gev_loop_close)
        """The `gev_loop *`, for `poll`."""
        self._framings = Numbers(loop)
        self.results = Results(loop, max_events)
        """What the last `poll` has found."""

    def close(self) -> None:
        """Close every connection at once and free the loop. Nothing may be called after it."""
        _open.discard(self)
        with self._reading_stats:
            self._last_stats = self._read_stats()
            ffi.release(self.handle)
        del self._region, self._base

    # ---- a turn ---------------------------------------------------------------------------------

    def read_into(self, region: Region, offset: int, size: int) -> None:
        """Read into `size` bytes of `region`, from `offset` on; that is 0 in all results."""
        self._region = region
        self._base = region.base + offset
        lib.gev_loop_arena(self.handle, region.base + offset, size)

    def take_large(self, token: int, total: int) -> Any:
        """The memory of a large frame of this turn, an `ffi.buffer` whose slices are `bytes`; None
        if it is not to be had any more."""
        ring = lib.gev_conn_take_large(self.handle, token, total)
        return buffer_of(self._pool, ring) if ring else None

    def watch(self, fd: int) -> None:
        """End waits when there is something to read from the socket `fd`, and drop that."""
        check(lib.gev_loop_watch(self.handle, fd), "gev_loop_watch")

    def wake(self) -> None:
        """End the wait under way, or the next one. From any thread."""
        check(lib.gev_loop_wake(self.handle), "gev_loop_wake")

    def send(self, pieces: list[int], blob: bytearray, large: list[Any]) -> None:
        """Send what was gathered; without the GIL. See `gev_loop_send`.

        Args:
            pieces: the numbers that tell of the pieces.
            blob: the small pieces.
            large: the large ones, as `hold` gave them.
        """
        result = _send(
            self.handle,
            len(pieces),
            int64s(len(pieces)).pack(*pieces),
            hold(blob) if blob else NULL,
            len(blob),
            addresses(large) if large else NULL,
        )
        if result < 0:
            check(result, "sendmsg")

    # ---- broadcast ------------------------------------------------------------------------------

    def broadcast(self, tokens: Any, data: Any) -> None:
        """Send the same bytes to many connections, in one call without the GIL.

        Args:
            tokens: the connections, from `hold_tokens`; those that are gone or closing are passed
                over.
            data: the bytes as they are to leave, from `hold`.
        """
        check(
            lib.gev_loop_broadcast(self.handle, len(tokens), tokens, data, len(data)), "broadcast"
        )

    # ---- what it counts -------------------------------------------------------------------------

    def stats(self) -> ReactorStats:
        """Return what it has counted; after the close, up to then. From any thread."""
        with self._reading_stats:
            return self._last_stats or self._read_stats()

    def _read_stats(self) -> ReactorStats:
        stats = ffi.new("gev_loop_stats *")
        lib.gev_loop_read_stats(self.handle, stats)
        *counters, turns = (getattr(stats, name) for name in ReactorStats._fields)
        return ReactorStats._make((*counters, tuple(turns)))

    def recount(self, received: int, sent: int) -> None:
        """So many more messages, or fewer, than frames and pieces were received and sent."""
        lib.gev_loop_recount(self.handle, received, sent)

    # ---- listeners and connections --------------------------------------------------------------

    def listen(self, fd: int) -> int:
        """Accept from the listening socket `fd`; returns the listener's number."""
        return check(lib.gev_loop_listen(self.handle, fd), "gev_loop_listen")

    def unlisten(self, listener: int) -> None:
        """Accept from it no more. The socket stays its owner's."""
        check(lib.gev_loop_unlisten(self.handle, listener), "gev_loop_unlisten")

    def resume_accept(self, listener: int) -> None:
        """Go on after `accept_error`."""
        check(lib.gev_loop_resume_accept(self.handle, listener), "gev_loop_resume_accept")

    def adopt(self, fd: int) -> int:
        """Take over a connected, non-blocking socket; returns its token."""
        return check(lib.gev_loop_adopt(self.handle, fd), "gev_loop_adopt")

    def adopt_connecting(self, fd: int) -> int:
        """Take over a socket whose connect(2) is under way; returns its token.

        `Change.CONNECTED` tells that it is open: it reads from `set_reading` on. `Change.CLOSED`
        tells, with an errno for reason, that it is not, and is gone. `abort_connection`, with an
        errno, gives it up.
        """
        return check(lib.gev_loop_adopt_connecting(self.handle, fd), "epoll_ctl")

    # A connection may be gone in C before Python has heard of it, so none of these raises then.

    def close_connection(self, token: int, reason: int) -> bool:
        """Stop reading, send what waits, close. True when that is done already.

        `reason` is one of the GEV_REASON_ numbers, the value of a `gevffi.CloseReason`.
        """
        return bool(lib.gev_conn_close(self.handle, token, reason))

    def abort_connection(self, token: int, reason: int) -> None:
        """Drop what waits and reset the connection."""
        lib.gev_conn_abort(self.handle, token, reason)

    def give_up(self, token: int, reason: int) -> None:
        """At a deadline: close a connection that has sent everything, abort any other."""
        lib.gev_conn_give_up(self.handle, token, reason)

    def set_reading(self, token: int, on: bool) -> None:
        """Read from the connection, or leave its bytes with the kernel."""
        lib.gev_conn_read(self.handle, token, on)

    def frame(self, token: int, description: Description | None) -> None:
        """Cut the connection's input by this framing from now on; None: not at all."""
        lib.gev_conn_frame(self.handle, token, self._framings.of(description))

    def kept(self, token: int) -> int:
        """Bytes that were read and not delivered yet."""
        return int(lib.gev_conn_kept(self.handle, token))

    def unread(self, token: int, data: memoryview) -> None:
        """Have these bytes, which were read before, cut again."""
        lib.gev_conn_unread(self.handle, token, hold(_BYTES, data), data.nbytes, 0)

    def unread_arena(self, token: int, start: int, end: int, skip: int = 0) -> None:
        """The same with what this turn read into that part of the arena; it goes behind the first
        `skip` bytes of what is kept."""
        lib.gev_conn_unread(self.handle, token, self._base + start, end - start, skip)

    def shutdown_write(self, token: int) -> None:
        """End our side of the connection once what waits is sent."""
        lib.gev_conn_shutdown_write(self.handle, token)

    def pending(self, token: int) -> int:
        """Bytes that wait for the kernel."""
        return max(0, int(lib.gev_conn_pending(self.handle, token)))

    def queued(self, token: int) -> int:
        """Bytes ever given to `send` for this connection; negative when it is gone."""
        return int(lib.gev_conn_queued(self.handle, token))

    def sent(self, token: int) -> int:
        """Bytes of these that the kernel has taken; known until `Change.CLOSED` is reported."""
        return int(lib.gev_conn_sent(self.handle, token))

    def notify(self, token: int, position: int) -> None:
        """Report `Change.SENT` once the kernel has taken the bytes up to `position`."""
        lib.gev_conn_notify(self.handle, token, position)

    def fileno(self, token: int) -> int:
        """The connection's descriptor, or -1."""
        return max(-1, int(lib.gev_conn_fd(self.handle, token)))


_open: weakref.WeakSet[Reactor] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for reactor in list(_open):
        lib.gev_loop_forked(reactor.handle)
        reactor._reading_stats = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)
