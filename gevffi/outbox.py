"""What a loop's callbacks want sent, gathered until the end of the turn.

Small pieces are joined into one blob as they come, so a caller may reuse its buffer at once; large
ones go to the kernel by pointer, without a copy, where that is safe: from `bytes`, which cannot
change, and from the arena, which nobody writes to before the turn is over. Any other large buffer
is copied once, since its owner may change it before the turn ends.

    blob     |piece 0|piece 1|piece 3|
                     ^       ^       ^
    pieces   A 10    A 20   ~B 9000    C 34       token and end in the blob; or, for a large one,
    large                  [piece 2]              inverted token and size
"""

from __future__ import annotations

from typing import Any

from gevffi.arena import Arena
from gevffi.sys.reactor import Reactor

LARGE = 8192
"""Bytes from which a pointer is cheaper than a copy; measured."""
_FLUSH_AT = 1 << 20


class Outbox:
    """The unsent pieces of a turn. Belongs to the loop's thread."""

    __slots__ = ("_arena", "_reactor", "blob", "large", "pieces")

    def __init__(self, reactor: Reactor, arena: Arena) -> None:
        self._reactor = reactor
        self._arena = arena
        # Emptied, never replaced: the loop's inner loop holds on to these very objects.
        self.blob = bytearray()
        self.pieces: list[int] = []
        self.large: list[Any] = []

    def add(self, token: int, data: Any) -> None:
        """Queue `data`, any bytes-like object, for the connection `token`.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        if len(data) < LARGE:
            blob = self.blob
            blob += data
            self.pieces.append(token)
            self.pieces.append(len(blob))
            if len(blob) > _FLUSH_AT:
                self.flush()
        else:
            self.add_large(token, data)

    def add_large(self, token: int, data: Any) -> None:
        """Queue `data` by pointer."""
        size = len(data)
        if type(data) is not bytes:
            view = memoryview(data)
            size = view.nbytes
            if not (view.contiguous and self._arena.holds(view)):
                data = bytes(view)
        self.large.append(data)
        self.pieces.append(~token)
        self.pieces.append(size)

    def flush(self) -> None:
        """Send everything."""
        if self.pieces:
            try:
                self._reactor.send(self.pieces, self.blob, self.large)
            finally:
                self.blob.clear()
                self.pieces.clear()
                self.large.clear()
