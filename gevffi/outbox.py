"""What a loop's callbacks want sent, gathered until the end of the turn.

Small pieces are joined into one blob as they come, and leave together:

    blob     |piece 0|piece 1|piece 2|
                     ^       ^       ^
    pieces   A 10    B 20    A 34            token and end, for one piece after the other

A large piece goes to the kernel at once, by pointer, together with what has been gathered before
it: its own system call costs less than copying it would. Either way the caller may reuse its
buffer when `add` returns; what the kernel does not take is copied then.

`iconcat(blob, data)` rather than `blob += data`, since `+=` asks the other side first, and a NumPy
array would add the numbers up.
"""

from __future__ import annotations

from operator import iconcat
from typing import Any

from gevffi.sys.reactor import Reactor

LARGE = 8192
"""Bytes from which a call is cheaper than a copy; measured."""
_FLUSH_AT = 1 << 20


class Outbox:
    """The unsent pieces of a turn. Belongs to the loop's thread."""

    __slots__ = ("_reactor", "blob", "pieces")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        # Emptied, never replaced: the loop's inner loop holds on to these very objects.
        self.blob = bytearray()
        self.pieces: list[int] = []

    def add(self, token: int, data: Any) -> None:
        """Send `data`, any bytes-like object, to the connection `token`.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        blob = self.blob
        try:
            if len(data) >= LARGE:
                self.add_large(token, data)
                return
            iconcat(blob, data)  # type: ignore[no-untyped-call]
        except TypeError:
            self.add_scattered(token, data)
            return
        self.pieces.append(token)
        self.pieces.append(len(blob))
        if len(blob) > _FLUSH_AT:
            self.flush()

    def add_large(self, token: int, data: Any) -> None:
        """Send `data` now, after all that was gathered."""
        if type(data) is not bytes and not memoryview(data).c_contiguous:
            data = memoryview(data).tobytes()
        try:
            self._reactor.send_large(self.pieces, self.blob, token, data)
        finally:
            if self.pieces:
                self._clear()

    def add_scattered(self, token: int, data: Any) -> None:
        """Send a copy of a buffer that has no length or does not lie in one piece.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        self.add(token, memoryview(data).tobytes())

    def flush(self) -> None:
        """Send everything."""
        if self.pieces:
            try:
                self._reactor.send(self.pieces, self.blob)
            finally:
                self._clear()

    def _clear(self) -> None:
        self.blob.clear()
        self.pieces.clear()
