"""What C has found in a turn, read in place.

    gev_turn   |numbers|   frames |slot start end|slot start end|...
                  │        runs   |slot first last end; start end tag|...
                  │        cuts   |start start ...|end end ...|tag tag ...|
                  │        large  |slot start size total tag|...
                  └─ how many there are of each

The arrays stay where they are for as long as the loop lives, so Python looks at them through views
that are made once, and has many numbers of a turn unpacked in one call. Only the cuts move, when
they need more room: their number says so.

Everything is valid until the next turn, and belongs to the loop's thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, NamedTuple

from gevffi._ffi import ffi, lib
from gevffi.sys.numbers import int32s

_ADDRESS_ROOM = 112
_RUN = Struct(f"{lib.GEV_RUN_NUMBERS}i")
_LARGE = Struct("i4I")
_HEAD = Struct("8i")  # the first numbers of a gev_turn
_RUNS, _CUTS, _CUTS_MOVED = 4, 5, 6

DUE: int = lib.GEV_DUE
"""In what `Reactor.poll` returns: it is as late as it was told."""
MORE: int = lib.GEV_MORE
"""In what `Reactor.poll` returns: there is more than frames and runs."""
RUNS: int = lib.GEV_RUNS
"""In what `Reactor.poll` returns: there are runs."""
FRAMES = RUNS - 1
"""The part of what `Reactor.poll` returns that is the number of frames."""


class Change:
    """What happened to a connection besides bytes: bits, and plain numbers since an IntFlag is slow
    to ask."""

    EOF: int = lib.GEV_CHANGE_EOF
    HIGH_WATER: int = lib.GEV_CHANGE_HIGH_WATER
    DRAINED: int = lib.GEV_CHANGE_DRAINED
    SENT: int = lib.GEV_CHANGE_SENT
    BAD_FRAME: int = lib.GEV_CHANGE_BAD_FRAME
    BAD_TEXT: int = lib.GEV_CHANGE_BAD_TEXT
    CLOSED: int = lib.GEV_CHANGE_CLOSED
    CONNECTED: int = lib.GEV_CHANGE_CONNECTED


class Accepted(NamedTuple):
    """A connection that a listener accepted and that nobody owns yet."""

    listener: int
    fd: int
    peer: bytes
    """The peer's address as the kernel gave it, a `struct sockaddr`."""


class Results:
    """What the last turn of a loop has found.

    Args:
        loop: a `gev_loop *`.
        max_events: events it serves in one turn.
    """

    def __init__(self, loop: Any, max_events: int) -> None:
        self._loop = loop
        turn = self._turn = lib.gev_loop_turn(loop)
        self.frames = ffi.buffer(turn.frames, 2 * max_events * 12)
        """Of each frame of a turn the slot, and where in the arena it starts and ends: 32-bit
        integers."""
        self._runs = memoryview(ffi.buffer(turn.runs, 2 * max_events * _RUN.size))
        self._large = memoryview(ffi.buffer(turn.large, 2 * max_events * _LARGE.size))
        self.head = ffi.buffer(turn, _HEAD.size)
        """What there is of a turn, for `unpack_head`."""
        self._cuts_moved = -1  # where `_cuts` is of
        self._changes = (turn.change_slot, turn.change_what, turn.change_reason)

    unpack_head = staticmethod(_HEAD.unpack_from)
    """How many changes and accepted connections; the errno that made a listener pause, 0 for none,
    and which one; what is for `runs` and `cuts`; and how many large frames."""

    def runs(self, head: tuple[int, ...]) -> Iterable[tuple[int, int, int, int, int, int, int]]:
        """Of each run the slot, its first cut, its last + 1, and where in the arena that ends; and
        start, end and tag of the first one, as `cuts` and `tags` have them."""
        return _RUN.iter_unpack(self._runs[: _RUN.size * head[_RUNS]])

    def cuts(self, head: tuple[int, ...]) -> tuple[Sequence[int], Sequence[int]]:
        """Where in the arena the frames of all runs start and end. `head` is what `unpack_head`
        has given in this turn."""
        if head[_CUTS_MOVED] != self._cuts_moved:
            self._find_cuts()
        unpack = int32s(head[_CUTS]).unpack_from
        return unpack(self._cuts), unpack(self._cuts, self._ends_at)

    def tags(self, head: tuple[int, ...]) -> Sequence[int]:
        """The first byte of each of these frames; means nothing but for WebSocket frames. Called
        behind `cuts`."""
        return int32s(head[_CUTS]).unpack_from(self._cuts, 2 * self._ends_at)

    def _find_cuts(self) -> None:
        turn = self._turn
        self._cuts_moved = turn.cuts_moved
        self._ends_at = 4 * turn.cut_room
        self._cuts = ffi.buffer(turn.starts, 3 * self._ends_at)

    def cut_arrays(
        self, head: tuple[int, ...], first: int, last: int
    ) -> tuple[memoryview, memoryview]:
        """The same of the cuts `first` to `last` - 1, as arrays of 32-bit integers that stay."""
        if head[_CUTS_MOVED] != self._cuts_moved:
            self._find_cuts()
        starts, ends = 4 * first, self._ends_at + 4 * first
        size = 4 * (last - first)
        return (
            memoryview(self._cuts[starts : starts + size]).cast("i"),
            memoryview(self._cuts[ends : ends + size]).cast("i"),
        )

    def large(self, count: int) -> list[tuple[int, int, int, int, int]]:
        """The turn's large frames: slot, where the payload starts, its size, the frame's, and its
        tag."""
        return [*_LARGE.iter_unpack(self._large[: _LARGE.size * count])]

    def used(self) -> int:
        """How far the turn has filled the arena."""
        return int(self._turn.used)

    def changes(self, count: int) -> Iterable[tuple[int, int, int]]:
        """The turn's changes: slot, `Change` bits, and the reason's number."""
        slots, whats, reasons = self._changes
        return zip(
            ffi.unpack(slots, count),
            ffi.unpack(whats, count),
            ffi.unpack(reasons, count),
            strict=True,
        )

    def accepted(self, count: int) -> list[Accepted]:
        """The turn's new connections; the caller owns the descriptors."""
        turn = self._turn
        addresses = ffi.buffer(turn.accepted_address, count * _ADDRESS_ROOM)
        result = []
        for i in range(count):
            at = i * _ADDRESS_ROOM
            peer = addresses[at : at + turn.accepted_size[i]]
            result.append(Accepted(turn.accepted_listener[i], turn.accepted_fd[i], peer))
        return result
