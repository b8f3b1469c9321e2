"""The reading half of a ring buffer: peek, retrieve and the virtual family over a span of memory.

This is what a protocol's `unpacket` is handed. The memory is somebody else's, the event loop's
arena or a `RingBuffer`'s ring, and none of it is copied: `peek` returns read-only views of it. For
the loop one object is pointed at one span after the other (`_window`), so there is little work a
call and no state but three numbers.

gev's semantics: peek looks, retrieve consumes, read does both. The virtual family reads on without
consuming, to be made final (flush) or taken back (revert), which spares a protocol keeping offsets.
Asking for more than there is gives what there is (peek, read) or raises with the numbers in the
message (integers, retrieve); never garbage.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, NoReturn

from gevffi.sys.memory import find


class _ByByteorder(dict[str, Callable[[Any, int], tuple[int]]]):
    """The functions that unpack one integer, by byte order."""

    def __init__(self, code: str) -> None:
        super().__init__(big=Struct(">" + code).unpack_from, little=Struct("<" + code).unpack_from)

    def __missing__(self, byteorder: object) -> NoReturn:
        raise ValueError(f"byteorder must be 'big' or 'little', not {byteorder!r}")


_UINT16, _UINT32, _UINT64 = _ByByteorder("H"), _ByByteorder("I"), _ByByteorder("Q")


class ReadBuffer:
    """Reads a span of memory, and keeps the place.

        |<- retrieved ->|<---------- len() ----------->|
                        |<- virtual ->|<- virtual_length |
                      start      start + ahead         end

    Sizes and offsets are bytes, counted from the first byte that is not retrieved.

    Args:
        data: anything contiguous with the buffer protocol; it is not copied, and the views made
            of it are read-only.
    """

    __slots__ = ("_ahead", "_end", "_start", "_view")

    _view: memoryview
    _start: int
    _end: int
    _ahead: int

    def __init__(self, data: Any) -> None:
        view = memoryview(data).toreadonly().cast("B")
        self._window(view, 0, len(view))

    def _window(self, view: memoryview, start: int, end: int) -> None:
        """Read `view[start:end]` from now on; `view` is read-only bytes and the span within it."""
        self._view = view
        self._start = start
        self._end = end
        self._ahead = 0

    def __len__(self) -> int:
        return self._end - self._start

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} bytes to read>"

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return self._start == self._end

    def peek(self, n: int = -1) -> memoryview:
        """Return a view of the first `n` bytes, or of what there is if that is less; -1: of all.

        Raises:
            ValueError: `n` is less than -1.
        """
        start = self._start
        end = self._end
        if 0 <= n < end - start:
            end = start + n
        elif n < -1:
            raise ValueError(f"n must be at least 0, or -1 for all, not {n}")
        return self._view[start:end]

    def peek_uint8(self, offset: int = 0) -> int:
        """Return the byte at `offset`.

        Raises:
            ValueError: `offset` is negative.
            BufferError: there is no byte at `offset`.
        """
        at = self._start + offset
        if offset < 0 or at >= self._end:
            self._no_uint(1, offset)
        return self._view[at]

    def peek_uint16(self, offset: int = 0, *, byteorder: str = "big") -> int:
        """Return the unsigned 2-byte integer at `offset`.

        Args:
            offset: bytes to skip.
            byteorder: "big" or "little".

        Raises:
            ValueError: `offset` is negative, or `byteorder` is neither.
            BufferError: there are not that many bytes.
        """
        at = self._start + offset
        if offset < 0 or at + 2 > self._end:
            self._no_uint(2, offset)
        return _UINT16[byteorder](self._view, at)[0]

    def peek_uint32(self, offset: int = 0, *, byteorder: str = "big") -> int:
        """Return the unsigned 4-byte integer at `offset`; see `peek_uint16`."""
        at = self._start + offset
        if offset < 0 or at + 4 > self._end:
            self._no_uint(4, offset)
        return _UINT32[byteorder](self._view, at)[0]

    def peek_uint64(self, offset: int = 0, *, byteorder: str = "big") -> int:
        """Return the unsigned 8-byte integer at `offset`; see `peek_uint16`."""
        at = self._start + offset
        if offset < 0 or at + 8 > self._end:
            self._no_uint(8, offset)
        return _UINT64[byteorder](self._view, at)[0]

    def find(self, needle: Any, start: int = 0) -> int:
        """Return the offset of the first `needle` at or after `start`, or -1. Copies nothing.

        Args:
            needle: bytes, or anything contiguous with the buffer protocol.
            start: bytes to skip; past the end nothing is found.

        Raises:
            ValueError: `start` is negative.
            TypeError: `needle` is not bytes-like.
        """
        if start < 0:
            raise ValueError(f"start must be at least 0, not {start}")
        if start > len(self):
            return -1
        at = find(self._view, needle, self._start + start, self._end)
        return at if at < 0 else start + at

    def retrieve(self, n: int) -> None:
        """Consume `n` bytes. Ends virtual reading, as `virtual_revert` does.

        Raises:
            ValueError: `n` is negative.
            BufferError: there are fewer than `n`; none is consumed.
        """
        start = self._start + n
        if n < 0 or start > self._end:
            self._no_retrieve(n)
        self._start = start
        self._ahead = 0

    def retrieve_all(self) -> None:
        """Consume what there is."""
        self.retrieve(self._end - self._start)

    def read(self, n: int = -1) -> bytes:
        """Consume and return `n` bytes, or what there is if that is less; -1: all.

        Raises:
            ValueError: `n` is less than -1.
        """
        data = bytes(self.peek(n))
        self.retrieve(len(data))
        return data

    def readinto(self, buffer: Any) -> int:
        """Consume as many bytes as fit into `buffer`, and return how many.

        Raises:
            TypeError: `buffer` is read-only or has no buffer.
        """
        with memoryview(buffer) as whole, whole.cast("B") as target:
            data = self.peek(len(target))
            n = len(data)
            target[:n] = data
        self.retrieve(n)
        return n

    def virtual_read(self, n: int = -1) -> memoryview:
        """Return a view of the next `n` bytes after those read virtually, and consume nothing.

        Fewer if there are fewer; -1: all. What is read so is consumed by `virtual_flush`, and
        read again after `virtual_revert`. Reading otherwise, too, goes on from the real start.

        Raises:
            ValueError: `n` is less than -1.
        """
        start = self._start + self._ahead
        end = self._end
        if 0 <= n < end - start:
            end = start + n
        elif n < -1:
            raise ValueError(f"n must be at least 0, or -1 for all, not {n}")
        self._ahead = end - self._start
        return self._view[start:end]

    @property
    def virtual_length(self) -> int:
        """How many bytes `virtual_read` has not reached."""
        return self._end - self._start - self._ahead

    def virtual_flush(self) -> None:
        """Consume what was read virtually."""
        self.retrieve(self._ahead)

    def virtual_revert(self) -> None:
        """Take virtual reading back: it starts again from the first byte."""
        self._ahead = 0

    def _no_uint(self, width: int, offset: int) -> NoReturn:
        if offset < 0:
            raise ValueError(f"offset must be at least 0, not {offset}")
        raise BufferError(
            f"a {8 * width}-bit integer at offset {offset} needs {offset + width} bytes, "
            f"and there are {len(self)}"
        )

    def _no_retrieve(self, n: int) -> NoReturn:
        if n < 0:
            raise ValueError(f"n must be at least 0, not {n}")
        raise BufferError(f"cannot retrieve {n} bytes: there are {len(self)}")
