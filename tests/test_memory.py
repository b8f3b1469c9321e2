"""Regions and their pool: who may still look, what comes back when, what it costs the kernel."""

from __future__ import annotations

import errno
import gc
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gevffi._build_config import configure
from gevffi.sys import memory
from gevffi.sys.memory import Pool, Region, default_pool

PAGE = 4096

one_file_a_pool = pytest.mark.skipif(
    "memory_linux" not in {path.stem for path in configure().sources},
    reason="in this build a ring has a memory object, and so two mappings, of its own",
)


def mappings() -> int:
    """How many of our process's mappings are of a pool's file, or of its rings' objects."""
    maps = Path("/proc/self/maps").read_text()
    return maps.count("memfd:gevffi") + maps.count("/dev/shm/gev")


def run(program: str) -> str:
    """Run a program of its own, since fork and limits are no good in pytest's process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- mappings ----------------------------------------------------------------------------


def test_the_second_half_is_the_first() -> None:
    region = Pool().take(10_000)
    assert region.size == 16384
    assert len(region.buffer) == 2 * region.size
    region.buffer[0:3] = b"abc"
    region.buffer[region.size - 1 : region.size + 1] = b"xy"
    assert bytes(region.root[region.size - 1 : region.size + 3]) == b"xybc"
    assert region.base[0] == ord("y")


@one_file_a_pool
def test_many_rings_cost_one_mapping_each() -> None:
    """More rings than the kernel could map with two mappings each."""
    count = 34_000
    gc.collect()  # no pool of an earlier test may go while this one counts
    before = mappings()
    pool = Pool(max_bytes=count * PAGE, max_rings=count)
    regions = [pool.take(PAGE) for _ in range(count)]
    for number, region in enumerate(regions):
        region.buffer[0:4] = number.to_bytes(4, "big")
    made = mappings() - before
    assert made <= count + count // 1024 + 2
    assert made <= pool.stats().mappings
    for number, region in enumerate(regions):
        assert region.buffer[PAGE : PAGE + 4] == number.to_bytes(4, "big")
    del region
    regions.clear()
    assert pool.stats().used_bytes == 0
    del pool
    assert mappings() == before


def test_sizes_may_be_mixed() -> None:
    pool = Pool(max_bytes=64 << 20)
    sizes = [PAGE, 1 << 20, 2 * PAGE, 8 << 20, PAGE, 1 << 16] * 3
    regions = [pool.take(size) for size in sizes]
    for number, region in enumerate(regions):
        region.buffer[0 : region.size] = bytes([number]) * region.size
    for number, region in enumerate(regions):
        assert region.buffer[region.size :] == bytes([number]) * region.size
    assert pool.stats().used_bytes == sum(sizes)


# ---- bounds ------------------------------------------------------------------------------


def test_bounds_are_errors_with_the_numbers() -> None:
    pool = Pool(max_bytes=2 * PAGE, max_rings=2)
    first, second = pool.take(1), pool.take(1)
    with pytest.raises(OSError, match="8192 bytes in 2 rings are held") as caught:
        pool.take(1)
    assert caught.value.errno == errno.ENOBUFS
    assert "max_bytes=8192, max_rings=2" in str(caught.value)
    del first, second
    with pytest.raises(OSError, match="no ring of 8193 bytes"):
        pool.take(8193)
    with pytest.raises(OSError, match="gev_pool_take"):
        pool.take(1 << 100)
    assert pool.take(8192).size == 8192  # the two small ones made way


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"max_bytes must be from 1 .* not 0"):
        Pool(max_bytes=0)
    with pytest.raises(ValueError, match=r"max_rings .* not -1"):
        Pool(max_rings=-1)
    with pytest.raises(ValueError, match=r"warm_bytes .* not -1"):
        Pool(warm_bytes=-1)
    with pytest.raises(ValueError, match="size must be at least 1 byte, not 0"):
        Pool().take(0)


def test_the_defaults_are_halves() -> None:
    pool = Pool()
    assert pool.max_rings == int(Path("/proc/sys/vm/max_map_count").read_text()) // 2
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert pool.max_bytes == pytest.approx(total / 2, rel=0.01)
    assert pool.warm_bytes == 16 << 20


def test_warm_rings_come_first_and_cold_ones_are_zero() -> None:
    pool = Pool(warm_bytes=PAGE)
    first, second = pool.take(PAGE), pool.take(PAGE)
    first.buffer[0:1] = second.buffer[0:1] = b"x"
    places = [first.base, second.base]
    del first, second
    assert pool.stats() == (0, 0, PAGE, 2, pool.stats().mappings)
    first, second = pool.take(PAGE), pool.take(PAGE)
    assert [first.base, second.base] == places
    assert (first.buffer[0], second.buffer[0]) == (b"x", b"\0")
    assert pool.stats().warm_bytes == 0


def test_a_full_machine_is_an_error() -> None:
    program = """
import resource
from gevffi.sys.memory import Pool
pool = Pool(warm_bytes=0)
region = pool.take(4096)
before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
try:
    pool.take(1 << 20)
except OSError as exc:
    print(exc)
resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
large = pool.take(1 << 20)
large.buffer[:] = bytes(len(large.buffer))
assert pool.stats().used_rings == 2
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, hard))
try:
    pool.take(1 << 30)
except MemoryError as exc:
    print(exc)
"""
    assert run(program).split("\n") == [
        "[Errno 27] gev_pool_take: no ring of 1048576 bytes: File too large",
        "gev_pool_take: no memory for a ring of 1073741824 bytes",
    ]


# ---- who still looks ---------------------------------------------------------------------


@pytest.fixture
def region() -> Region:
    return Pool().take(PAGE)


def test_a_region_is_borrowed_while_any_view_lives(region: Region) -> None:
    for _ in range(100):
        assert not region.borrowed()
        root = region.root[:]
        assert root.readonly
        assert region.borrowed()
        inner = root[10:20][2:4]
        del root
        assert region.borrowed()
        array = np.frombuffer(inner, dtype=np.uint8)
        del inner
        assert region.borrowed()
        part = array[1:]
        del array
        assert region.borrowed()
        del part
        assert not region.borrowed()


def test_a_view_in_another_thread(region: Region) -> None:
    views: queue.Queue[memoryview | None] = queue.Queue()
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        view = views.get()
        taken.set()
        assert views.get() is None
        del view
        let_go.set()

    thread = threading.Thread(target=hold)
    thread.start()
    views.put(region.root[5:9])
    assert taken.wait(10)
    assert region.borrowed()
    views.put(None)
    assert let_go.wait(10)
    assert not region.borrowed()
    thread.join()


def test_the_ring_goes_back_with_the_last_view() -> None:
    pool = Pool()
    region = pool.take(PAGE)
    region.buffer[0:4] = b"kept"
    inner = region.root[0:8][0:4]
    array = np.frombuffer(inner, dtype=np.uint8)
    del region
    assert pool.stats().used_rings == 1
    del inner
    others = [pool.take(PAGE) for _ in range(10)]
    for other in others:
        other.buffer[0:4] = b"over"
    del other
    others.clear()
    assert pool.stats().used_rings == 1
    assert array.tobytes() == b"kept"
    del array
    assert pool.stats().used_rings == 0


def test_the_last_view_may_die_in_any_thread() -> None:
    pool = Pool(max_bytes=1 << 30)
    views: queue.Queue[memoryview | None] = queue.Queue()

    def drain() -> None:
        while views.get() is not None:
            pass

    threads = [threading.Thread(target=drain) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        views.put(pool.take(PAGE).root[1:2])
    for _ in threads:
        views.put(None)
    for thread in threads:
        thread.join()
    assert pool.stats().used_rings == 0
    assert pool.stats().rings <= 3001


def test_a_view_outlives_its_pool() -> None:
    gc.collect()  # no pool of an earlier test may go while this one counts
    before = mappings()
    view = Pool().take(PAGE).root[:]
    gc.collect()
    assert mappings() > before
    assert len(bytes(view)) == 2 * PAGE
    del view
    assert mappings() == before


def test_pools_in_cycles_are_collected() -> None:
    """The collector finalizes a cycle in any order, the pool before its rings too."""
    gc.collect()
    before = mappings()
    for _ in range(50):
        cycle: list[object] = []
        pool = Pool()
        regions = [pool.take(PAGE) for _ in range(5)]
        cycle += [cycle, pool, regions, [region.root[:] for region in regions]]
        del cycle, pool, regions
    gc.collect()
    assert mappings() == before


def test_where_counts_lie_a_region_is_always_borrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "COUNTS_ARE_TRUE", False)
    monkeypatch.setattr(memory, "getrefcount", id)
    assert Pool().take(PAGE).borrowed()


def test_find_reads_only_what_it_may(region: Region) -> None:
    region.buffer[0:6] = b"abcabc"
    root = region.root[:]
    assert memory.find(root, b"c", 0, 6) == 2
    assert memory.find(root, b"c", 3, 6) == 2
    assert memory.find(root, b"c", 3, 5) == -1
    del root
    assert not region.borrowed()


# ---- fork --------------------------------------------------------------------------------


def test_a_forked_child_touches_nothing_of_the_parents() -> None:
    program = """
import os
from gevffi.sys.memory import Pool, default_pool
default = default_pool()
assert default_pool() is default
pool = Pool(warm_bytes=0)
mine, shared = pool.take(4096), default.take(4096)
orphan = Pool(warm_bytes=0).take(4096).root[:]
mine.buffer[0:6] = shared.buffer[0:6] = b"parent"
view = mine.root[:]
told, tell = os.pipe()
if os.fork() == 0:
    result = [bytes(view[0:6]) == bytes(6)]
    mine.buffer[0:6] = shared.buffer[0:6] = b"child!"
    try:
        pool.take(4096)
    except OSError as exc:
        result.append(str(exc))
    fresh = default_pool()
    result += [fresh is not default, fresh.take(4096).size]
    del mine, shared, view, orphan
    result += [pool.stats().used_rings, default.stats().used_rings]
    maps = open("/proc/self/maps").read()
    result.append(maps.count("memfd:gevffi") + maps.count("/dev/shm/gev") <= 3)
    os.write(tell, repr(result).encode())
    os._exit(0)
assert os.wait()[1] == 0
print(os.read(told, 1000).decode())
print(view[0:6] == mine.buffer[0:6] == shared.buffer[0:6] == b"parent", len(orphan))
print(pool.take(4096).size)
"""
    child, parent, take = run(program).split("\n")
    stale = "[Errno 116] gev_pool_take: no ring of 4096 bytes: the pool was inherited by fork"
    assert child == repr([True, stale, True, 4096, 0, 0, True])
    assert (parent, take) == ("True 8192", "4096")


def test_fork_while_threads_take_and_give() -> None:
    program = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from gevffi.sys.memory import default_pool
stop = threading.Event()
def work():
    while not stop.is_set():
        default_pool().take(4096).root[:]
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
codes = []
for _ in range(30):
    child = os.fork()
    if child == 0:
        default_pool().take(4096).buffer[0:1] = b"x"
        os._exit(7)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads: thread.join()
print(set(codes), default_pool().stats().used_rings)
"""
    assert run(program) == "{7} 0"


def test_the_default_pool_is_one() -> None:
    assert default_pool() is default_pool()
