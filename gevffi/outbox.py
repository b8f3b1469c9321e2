"""What a loop's callbacks want sent, gathered until the end of the turn.

Small pieces are joined into one blob as they come, so a caller may reuse its buffer at once; large
ones go to the kernel by pointer, without a copy, where that is safe: from `bytes`, which cannot
change, and from the arena, which nobody writes to before the turn is over. Any other large buffer
is copied once, since its owner may change it before the turn ends.

    blob     |piece 0|piece 1|piece 3|         tokens   A   A  ~B   C
                     ^       ^       ^         ends     10  20  20  34
    large    [piece 2]                         (a large piece: inverted token, no bytes in blob)
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

    __slots__ = ("_arena", "_reactor", "blob", "ends", "large", "tokens")

    def __init__(self, reactor: Reactor, arena: Arena) -> None:
        self._reactor = reactor
        self._arena = arena
        self.blob = bytearray()
        self.tokens: list[int] = []
        self.ends: list[int] = []
        self.large: list[Any] = []

    def add(self, token: int, data: Any) -> None:
        """Queue `data`, any bytes-like object, for the connection `token`.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        if len(data) < LARGE:
            self.blob += data
            self.tokens.append(token)
            self.ends.append(len(self.blob))
            if len(self.blob) > _FLUSH_AT:
                self.flush()
        else:
            self.add_large(token, data)

    def add_large(self, token: int, data: Any) -> None:
        """Queue `data` by pointer."""
        if type(data) is not bytes:
            view = memoryview(data)
            if not (view.contiguous and self._arena.holds(view)):
                data = bytes(view)
        self.large.append(data)
        self.tokens.append(~token)
        self.ends.append(len(self.blob))

    def flush(self) -> None:
        """Send everything."""
        if self.tokens:
            try:
                self._reactor.send(self.tokens, self.ends, self.blob, self.large)
            finally:
                # Emptied in place: the loop's inner loop holds these very objects.
                self.blob.clear()
                self.tokens.clear()
                self.ends.clear()
                self.large.clear()
