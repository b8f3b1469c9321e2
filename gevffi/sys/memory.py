"""Mirrored memory: a pool of rings, and the regions that own one each.

A ring is a power of two of bytes, mapped twice in a row, so that every span of it is one run of
addresses, also across its end (`csrc/ring.c` draws it). `Pool` hands rings out and takes them back
(`csrc/pool.c`); `Region` is what a ring is to Python, and settles who may still be looking at it.

    Region ──▶ buffer (ffi.buffer) ──▶ owner (ffi.gc) ──▶ the ring goes back to the pool
                  ▲
                views            what CPython keeps for all memoryviews of one buffer
                  ▲
      root view ──┤              every slice of the root view, every slice of one, and every NumPy
      slice ──────┤              array over one, holds a reference to `views`, and not to the region
      array ──────┘

Two things follow, and all of gevffi's zero-copy rests on them:

* The ring goes back when the last of them is gone, in whatever thread, and not before. Nothing
  here ever unmaps or releases by hand.
* Whether anybody still looks is the reference count of `views`: `Region.borrowed`. Releasing a
  memoryview would not do instead, since its slices live on after that. The object has no name in
  Python; the garbage collector knows it as what a memoryview refers to.

Where reference counts do not tell the truth (PyPy) `COUNTS_ARE_TRUE` is false and a region counts
as borrowed for ever.

The memory is shared with forked children by nature of the mapping, so pools are dropped in the
child: their rings turn into private zeros, and `default_pool` makes a new one there.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from operator import index
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

from gevffi._ffi import ffi, lib

COUNTS_ARE_TRUE = sys.implementation.name == "cpython"

getrefcount: Callable[[object], int] = sys.getrefcount if COUNTS_ARE_TRUE else id


class PoolStats(NamedTuple):
    """What a pool has, at one moment."""

    used_bytes: int  #: in rings that somebody holds
    used_rings: int
    warm_bytes: int  #: in free rings that keep their pages
    rings: int  #: carved, held or free
    mappings: int  #: kernel mappings they cost, at most


class Region:
    """Owns one ring of a pool.

    Not thread-safe, except that its views may die in any thread.

    Args:
        pool: where the ring is from; its memory lives on until its last region is gone.
        ring: a `gev_ring *` that was taken from it, which is the region's from now on.
    """

    __slots__ = ("alone", "base", "buffer", "references", "ring", "root", "size")

    size: int  #: bytes; a power of two
    base: Any  #: `uint8_t *`: 2 * size bytes, the second half being the first half again
    buffer: Any  #: a writable `ffi.buffer` over them
    root: memoryview  #: the same read-only; to be sliced, as keeping itself is not `borrowed`
    ring: Any  #: `gev_ring *`
    references: Callable[[], int]  #: how many there are to `root` and what was made of it
    alone: int  #: what it returns when there are no slices

    def __init__(self, pool: Pool, ring: Any) -> None:
        self.ring = ring
        self.size = ring.size
        self.base = ring.base
        self.buffer = buffer_of(pool, ring)
        self.root = memoryview(self.buffer).toreadonly()
        if COUNTS_ARE_TRUE:
            self.references = partial(getrefcount, gc.get_referents(self.root)[0])
            self.alone = self.references()
        else:
            self.references, self.alone = int, -1

    def borrowed(self) -> bool:
        """Whether a slice of `root`, or anything made of one, is still alive, released or not.

        Costs one reference count, so it may be asked once a turn. Always true where
        `COUNTS_ARE_TRUE` is not.
        """
        return self.references() != self.alone


def buffer_of(pool: Pool, ring: Any) -> Any:
    """Return the memory of a ring that was taken from `pool`, as an `ffi.buffer` that owns it."""
    # Calls gev_ring_finalize(handle, ring, base). It holds the pool's handle, by which fork finds
    # the pool; and it uses no Python code, since it may run in the middle of anything: another
    # thread, a collection, the end of the interpreter.
    finalize = MethodType(MethodType(lib.gev_ring_finalize, pool.handle), ring)
    return ffi.buffer(ffi.gc(ring.base, finalize), 2 * ring.size)


class Pool:
    """A pool of mirrored rings. Thread-safe.

    Args:
        max_bytes: the most that may be held at one time; default: half of the machine's memory.
        max_rings: the most rings there may be, held or free; default: half of what the kernel
            allows in mappings (`vm.max_map_count`), as a ring costs between one and two.
        warm_bytes: how much memory free rings may keep, to be handed out again at once.

    Raises:
        ValueError: a bound is out of range.
        OSError: the system gives no memory file.
    """

    __slots__ = ("handle", "max_bytes", "max_rings", "warm_bytes")

    handle: Any  #: `gev_pool *`, for C

    def __init__(
        self,
        max_bytes: int | None = None,
        max_rings: int | None = None,
        warm_bytes: int = 16 << 20,
    ) -> None:
        self.max_bytes = _bound("max_bytes", _half_of_memory() if max_bytes is None else max_bytes)
        self.max_rings = _bound("max_rings", _half_of_maps() if max_rings is None else max_rings)
        self.warm_bytes = _bound("warm_bytes", warm_bytes, least=0)
        place = ffi.new("gev_pool **")
        result = lib.gev_pool_open(place, self.max_bytes, self.max_rings, self.warm_bytes)
        if result < 0:
            raise OSError(-result, f"gev_pool_open: {os.strerror(-result)}")
        self.handle = ffi.gc(place[0], lib.gev_pool_close)
        with _fork_lock:
            _handles.add(self.handle)

    def take(self, size: int) -> Region:
        """Return a region of at least `size` bytes, a power of two and a page at least.

        Its contents are undefined.

        Raises:
            ValueError: `size` is less than 1.
            MemoryError: the machine has no more memory or mappings.
            OSError: ENOBUFS: the pool's bounds are reached; ENOSPC, EFBIG: the system gives no
                more memory; ESTALE: the pool was inherited by fork.
        """
        if index(size) < 1:
            raise ValueError(f"size must be at least 1 byte, not {size}")
        place = ffi.new("gev_ring **")
        result = lib.gev_pool_take(self.handle, min(size, sys.maxsize), place)
        if result < 0:
            raise self._refusal(-result, size)
        return Region(self, place[0])

    def stats(self) -> PoolStats:
        """Return what the pool has now."""
        stats = ffi.new("gev_pool_stats *")
        lib.gev_pool_read_stats(self.handle, stats)
        return PoolStats(
            stats.used_bytes, stats.used_rings, stats.warm_bytes, stats.rings, stats.mappings
        )

    def _refusal(self, error: int, size: int) -> Exception:
        if error == errno.ENOMEM:
            return MemoryError(f"gev_pool_take: no memory for a ring of {size} bytes")
        reason = os.strerror(error)
        if error == errno.ENOBUFS:
            now = self.stats()
            reason = (
                f"the pool is full: {now.used_bytes} bytes in {now.used_rings} rings are held "
                f"(max_bytes={self.max_bytes}, max_rings={self.max_rings})"
            )
        elif error == errno.ESTALE:
            reason = "the pool was inherited by fork"
        return OSError(error, f"gev_pool_take: no ring of {size} bytes: {reason}")


def _bound(name: str, value: int, least: int = 1) -> int:
    if not least <= index(value) < 1 << 63:
        raise ValueError(f"{name} must be from {least} to 2**63 - 1, not {value}")
    return value


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _half_of_maps() -> int:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text()) // 2
    except OSError:  # no /proc: the kernel's own default
        return 65530 // 2


def find(data: memoryview, needle: Any, start: int, end: int) -> int:
    """Return the first place of `needle` in `data[start:end]`, counted from `start`, or -1.

    Nothing is copied.

    Args:
        data: contiguous bytes; `0 <= start <= end <= len(data)` is up to the caller.
        needle: anything contiguous with the buffer protocol; nothing is found at `start`.

    Raises:
        TypeError: `needle` has no buffer.
    """
    wanted = ffi.from_buffer(needle)
    at = lib.gev_find(ffi.from_buffer(data), start, end, wanted, len(wanted))
    return int(at) if at >= 0 else -1


# ---- the pool of the process, and fork ---------------------------------------------------

_fork_lock = threading.RLock()
# Of every pool that is open: the pool object may be gone, and views of its rings still there.
_handles: weakref.WeakSet[Any] = weakref.WeakSet()
_forking: list[Any] = []
_default: Pool | None = None


def default_pool() -> Pool:
    """Return the pool that all who name none share. One a process: a forked child gets its own."""
    global _default
    with _fork_lock:
        if _default is None:
            _default = Pool()
        return _default


def _before_fork() -> None:
    _fork_lock.acquire()
    _forking.extend(_handles)
    for handle in _forking:
        lib.gev_pool_lock(handle)


def _after_fork_in_parent() -> None:
    for handle in _forking:
        lib.gev_pool_unlock(handle)
    _forking.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    global _default
    for handle in _forking:
        lib.gev_pool_drop(handle)
        lib.gev_pool_unlock(handle)
    _default = None
    _forking.clear()
    _fork_lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
