"""Ring buffers: bytes in at one end, read-only views out at the other, nothing copied on the way.

`ReadBuffer` (`readbuf.py`) is the reading half, over any span of memory; `RingBuffer` adds memory
of its own, and writing. It works alone, without a server::

    from gevffi.ringbuf import RingBuffer

    buffer = RingBuffer()
    buffer.write(b"\\x00\\x00\\x00\\x05hello")
    size = buffer.peek_uint32()
    buffer.retrieve(4)
    data = buffer.peek(size)        # a memoryview of the ring itself
    buffer.retrieve(size)

The memory is mapped twice in a row, so what is readable is always one contiguous view, also where
the ring wraps round:

            start          capacity            end
    |.........|##############|##################|.........|
    |<---- the ring -------->|<---- the same bytes ------>|

                    readable: view[start:end], always
                    writable: the rest of the ring, from `end` on

Views outlive their bytes: one that somebody keeps never changes. The buffer keeps count of the
free bytes that no living view can have shown (`_clean`), and only when a write needs more than
these does it ask whether any view is alive. If none is, all free bytes are clean again. If one is,
the buffer moves to fresh memory, taking the unread bytes along, and the old memory returns to its
pool with the last view. So a write costs one comparison, and a copy only where somebody kept
something.

Not thread-safe; the views may die in any thread.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from operator import index
from typing import Any

from gevffi.readbuf import ReadBuffer
from gevffi.sys.memory import Pool, Region, default_pool

__all__ = ["ReadBuffer", "RingBuffer"]

_EMPTY = memoryview(b"")


class RingBuffer(ReadBuffer):
    """A growing buffer of bytes over mirrored memory.

    It starts with `capacity` bytes, doubles as it has to, and goes back to its first capacity when
    it empties. It may be used in a `with` block, which closes it.

    A forked child gets none of the bytes: using the buffer there raises `ValueError`, and views
    of it show zeros.

    Args:
        capacity: bytes to start with; rounded up to a power of two and a page (4096).
        limit: the most bytes it will hold.
        pool: where its memory is from; default: the pool of the process.

    Raises:
        ValueError: `capacity` is less than 1, or `limit` less than `capacity`.
        MemoryError, OSError: no memory; see `gevffi.sys.memory.Pool.take`.
    """

    __slots__ = ("__weakref__", "_clean", "_first", "_limit", "_pool", "_region", "_size")

    _region: Region | None  # None once it is closed
    _size: int  # of the region
    _first: int  # the size it started with
    _clean: int  # bytes from `_end` on that may be written without looking; within `_limit`

    def __init__(
        self, capacity: int = 4096, limit: int = 16 << 20, pool: Pool | None = None
    ) -> None:
        if index(capacity) < 1:
            raise ValueError(f"capacity must be at least 1 byte, not {capacity}")
        if index(limit) < capacity:
            raise ValueError(f"limit must be at least capacity ({capacity} bytes), not {limit}")
        self._limit = limit
        self._pool = default_pool() if pool is None else pool
        region = self._pool.take(capacity)
        self._first = region.size
        self._settle(region, 0)
        _open.add(self)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: {len(self)} bytes to read, "
            f"capacity {self.capacity}, limit {self._limit}>"
        )

    @property
    def capacity(self) -> int:
        """How many bytes it holds before it has to grow."""
        return self._size

    @property
    def limit(self) -> int:
        """How many bytes it holds at the most."""
        return self._limit

    @property
    def is_full(self) -> bool:
        """Whether it holds as many bytes as `limit` allows."""
        return len(self) >= self._limit

    def write(self, data: Any) -> int:
        """Append all of `data` or, if it raises, nothing; return how many bytes that were.

        Args:
            data: anything with the buffer protocol; it is copied.

        Raises:
            BufferError: `limit` would be passed.
            MemoryError, OSError: no memory to grow; see `gevffi.sys.memory.Pool.take`.
            TypeError: `data` is not bytes-like.
        """
        view = memoryview(data)
        n = view.nbytes
        if n > self._clean:
            self._make_room(n)
        end = self._end
        self._region.buffer[end : end + n] = view if view.c_contiguous else view.tobytes()  # type: ignore[union-attr]
        self._end = end + n
        self._clean -= n
        return n

    def retrieve(self, n: int) -> None:  # its docstring is ReadBuffer's
        start = self._start + n
        end = self._end
        if n < 0 or start > end:
            self._no_retrieve(n)
        size = self._size
        if start >= size:
            start -= size
            self._end = end = end - size
        self._start = start
        self._ahead = 0
        if start == end and size > self._first:
            self._shrink()

    retrieve.__doc__ = ReadBuffer.retrieve.__doc__

    def close(self) -> None:
        """Give the memory back, as far as nobody has views of it; the bytes in it are lost.

        Everything but `close` and `repr` raises `ValueError` afterwards.
        """
        self._leave(_Closed)

    def __enter__(self) -> RingBuffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self, state: type[_Closed]) -> None:
        self._region = None
        self._clean = 0
        self._window(_EMPTY, 0, 0)
        self.__class__ = state

    def _settle(self, region: Region, held: int) -> None:
        """Go on in `region`, whose first `held` bytes are what there is to read."""
        self._region = region
        self._size = region.size
        self._clean = min(region.size, self._limit) - held
        self._window(region.root, 0, held)

    def _make_room(self, n: int) -> None:
        """See to it that `n` bytes may be written."""
        held = self._end - self._start
        if n > self._limit - held:
            raise BufferError(
                f"cannot write {n} bytes: {held} are held and the limit is {self._limit}"
            )
        region = self._region
        assert region is not None
        if region.borrowed() or held + n > region.size:
            self._move(max(held + n, region.size))
        else:
            self._clean = min(region.size, self._limit) - held

    def _move(self, size: int) -> None:
        """Take what there is to read to a fresh region of `size` bytes at least."""
        region = self._pool.take(size)
        held, ahead = self._end - self._start, self._ahead
        region.buffer[0:held] = self._view[self._start : self._end]
        self._settle(region, held)
        self._ahead = ahead

    def _shrink(self) -> None:
        # Should there be no memory for it, the buffer stays large; retrieve must not fail for that.
        with contextlib.suppress(MemoryError, OSError):
            self._move(self._first)


class _Closed(RingBuffer):
    """What a RingBuffer turns into when its memory is gone.

    A class of its own, so that the others need not ask on every call.
    """

    __slots__ = ()
    _why = "this RingBuffer is closed"

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name == "close":
            return object.__getattribute__(self, name)
        raise ValueError(type(self)._why)

    def __len__(self) -> int:
        raise ValueError(type(self)._why)

    def __enter__(self) -> RingBuffer:
        raise ValueError(type(self)._why)

    def __repr__(self) -> str:
        return f"<RingBuffer: {type(self)._why}>"

    def close(self) -> None:
        """Do nothing, as it is."""


class _Forked(_Closed):
    __slots__ = ()
    _why = "this RingBuffer belongs to the process that forked this one"


_open: weakref.WeakSet[RingBuffer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for buffer in list(_open):
        if not isinstance(buffer, _Closed):
            buffer._leave(_Forked)


os.register_at_fork(after_in_child=_after_fork_in_child)
