"""RingBuffer and ReadBuffer by example: the wrap, the limits, growth, views that are kept."""

from __future__ import annotations

import array
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from gevffi.readbuf import ReadBuffer
from gevffi.ringbuf import RingBuffer
from gevffi.sys.memory import Pool

PAGE = 4096


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool that must have everything back in the end."""
    pool = Pool(max_bytes=1 << 24)
    yield pool
    assert pool.stats().used_rings == 0


@pytest.fixture
def buffer(pool: Pool) -> Iterator[RingBuffer]:
    with RingBuffer(PAGE, limit=8 * PAGE, pool=pool) as buffer:
        yield buffer


def pattern(n: int, first: int = 0) -> bytes:
    return bytes((first + i) % 251 for i in range(n))


# ---- reading -----------------------------------------------------------------------------


def test_the_docstring_example(buffer: RingBuffer) -> None:
    buffer.write(b"\x00\x00\x00\x05hello")
    size = buffer.peek_uint32()
    buffer.retrieve(4)
    data = buffer.peek(size)
    buffer.retrieve(size)
    assert bytes(data) == b"hello"
    assert buffer.is_empty


def test_peek_gives_what_there_is() -> None:
    buffer = ReadBuffer(b"abcdef")
    assert len(buffer) == 6
    assert bytes(buffer.peek(3)) == b"abc"
    assert bytes(buffer.peek(0)) == b""
    assert bytes(buffer.peek(100)) == b"abcdef"
    assert bytes(buffer.peek()) == b"abcdef"
    assert buffer.peek().readonly
    with pytest.raises(ValueError, match="-2"):
        buffer.peek(-2)


def test_integers_are_big_endian_unless_asked_otherwise() -> None:
    buffer = ReadBuffer(bytes(range(1, 10)))
    assert buffer.peek_uint8() == 1
    assert buffer.peek_uint8(8) == 9
    assert buffer.peek_uint16() == 0x0102
    assert buffer.peek_uint16(7) == 0x0809
    assert buffer.peek_uint32(1) == 0x02030405
    assert buffer.peek_uint64(1) == 0x0203040506070809
    assert buffer.peek_uint16(byteorder="little") == 0x0201
    assert buffer.peek_uint32(byteorder="little") == 0x04030201
    assert buffer.peek_uint64(byteorder="little") == 0x0807060504030201
    assert len(buffer) == 9


@pytest.mark.parametrize(("name", "width"), [("8", 1), ("16", 2), ("32", 4), ("64", 8)])
def test_an_integer_that_is_not_there(name: str, width: int) -> None:
    peek = getattr(ReadBuffer(b"12345678"), f"peek_uint{name}")
    peek(8 - width)
    with pytest.raises(BufferError, match=rf"offset {9 - width} needs 9 bytes, and there are 8"):
        peek(9 - width)
    with pytest.raises(ValueError, match="offset must be at least 0, not -1"):
        peek(-1)


def test_an_unknown_byteorder() -> None:
    with pytest.raises(ValueError, match="'middle'"):
        ReadBuffer(b"12345678").peek_uint32(byteorder="middle")


def test_retrieve_takes_no_more_than_there_is() -> None:
    buffer = ReadBuffer(b"abc")
    buffer.retrieve(1)
    with pytest.raises(BufferError, match="cannot retrieve 3 bytes: there are 2"):
        buffer.retrieve(3)
    with pytest.raises(ValueError, match="-1"):
        buffer.retrieve(-1)
    assert bytes(buffer.peek()) == b"bc"
    buffer.retrieve_all()
    assert buffer.is_empty


def test_read_and_readinto() -> None:
    buffer = ReadBuffer(b"abcdefghij")
    assert buffer.read(2) == b"ab"
    target = bytearray(3)
    assert buffer.readinto(target) == 3
    assert target == b"cde"
    numbers = array.array("H", [0])
    assert buffer.readinto(numbers) == 2
    assert numbers.tobytes() == b"fg"
    assert buffer.readinto(bytearray(10)) == 3
    assert buffer.read() == b""
    with pytest.raises(TypeError):
        ReadBuffer(b"x").readinto(b"read-only")


def test_find() -> None:
    buffer = ReadBuffer(b"xxone\r\ntwo\r\n")
    buffer.retrieve(2)
    assert buffer.find(b"\r\n") == 3
    assert buffer.find(bytearray(b"\r\n"), 4) == 8
    assert buffer.find(b"\r\n", 9) == -1
    assert buffer.find(b"x") == -1
    assert buffer.find(b"", 10) == 10
    assert buffer.find(b"", 11) == -1
    with pytest.raises(ValueError, match="-1"):
        buffer.find(b"x", -1)
    with pytest.raises(TypeError):
        buffer.find("text")
    assert ReadBuffer(b"").find(b"x") == -1


def test_virtual_reading() -> None:
    buffer = ReadBuffer(b"abcdefgh")
    assert bytes(buffer.virtual_read(3)) == b"abc"
    assert bytes(buffer.virtual_read(2)) == b"de"
    assert (len(buffer), buffer.virtual_length) == (8, 3)
    buffer.virtual_revert()
    assert buffer.virtual_length == 8
    assert bytes(buffer.virtual_read(3)) == b"abc"
    buffer.virtual_flush()
    assert bytes(buffer.peek()) == b"defgh"
    assert bytes(buffer.virtual_read(100)) == b"defgh"
    assert bytes(buffer.virtual_read()) == b""
    buffer.retrieve(1)
    assert bytes(buffer.virtual_read()) == b"efgh"
    with pytest.raises(ValueError, match="-3"):
        buffer.virtual_read(-3)


def test_any_contiguous_buffer_may_be_read() -> None:
    assert ReadBuffer(array.array("H", [0x4141, 0x4242])).read() == b"AABB"
    assert ReadBuffer(np.zeros((2, 3), dtype=np.uint8)).read() == bytes(6)


# ---- writing -----------------------------------------------------------------------------


def test_every_wrap_is_one_contiguous_view(pool: Pool) -> None:
    with RingBuffer(PAGE, limit=PAGE, pool=pool) as buffer:
        for turn in range(PAGE):
            data = pattern(PAGE, turn)
            buffer.write(data)
            assert buffer.peek() == data
            buffer.retrieve(PAGE - 1)
            assert buffer.peek_uint8() == data[-1]
            buffer.retrieve(1)
            buffer.write(b"!")
            buffer.retrieve(1)
        assert buffer.capacity == PAGE


def test_an_integer_and_a_needle_across_the_wrap(buffer: RingBuffer) -> None:
    buffer.write(bytes(PAGE - 2))
    buffer.retrieve(PAGE - 2)
    buffer.write(b"\x01\x02\x03\x04")
    assert buffer.peek_uint32() == 0x01020304
    assert buffer.find(b"\x02\x03") == 1


def test_write_counts_bytes_and_not_items(buffer: RingBuffer) -> None:
    assert buffer.write(array.array("I", [1, 2])) == 8
    assert buffer.write(np.arange(6, dtype=np.uint16).reshape(2, 3)) == 12
    assert buffer.write(memoryview(b"a-b-c-")[::2]) == 3
    assert buffer.write(b"") == 0
    expected = array.array("I", [1, 2]).tobytes() + np.arange(6, dtype=np.uint16).tobytes()
    assert buffer.read() == expected + b"abc"
    with pytest.raises(TypeError):
        buffer.write("text")
    assert buffer.is_empty


def test_growth_doubles_up_to_the_limit_and_shrinks_when_empty(buffer: RingBuffer) -> None:
    capacities = []
    for turn in range(8):
        buffer.write(pattern(PAGE, turn))
        capacities.append(buffer.capacity // PAGE)
    assert capacities == [1, 2, 4, 4, 8, 8, 8, 8]
    assert buffer.is_full
    assert buffer.peek() == b"".join(pattern(PAGE, turn) for turn in range(8))
    buffer.retrieve(8 * PAGE - 1)
    assert buffer.capacity == 8 * PAGE
    buffer.retrieve(1)
    assert buffer.capacity == PAGE


def test_past_the_limit_nothing_is_written(pool: Pool) -> None:
    with RingBuffer(limit=5000, pool=pool) as buffer:
        buffer.write(b"abc")
        with pytest.raises(BufferError, match=r"4998 bytes: 3 are held and the limit is 5000"):
            buffer.write(bytes(4998))
        assert bytes(buffer.peek()) == b"abc"
        buffer.write(bytes(4997))
        assert buffer.is_full


def test_the_limit_holds_where_the_ring_has_room(pool: Pool) -> None:
    with RingBuffer(capacity=100, limit=100, pool=pool) as buffer:
        buffer.write(bytes(100))
        with pytest.raises(BufferError, match="cannot write 1 bytes: 100 are held"):
            buffer.write(b"x")
        buffer.retrieve(1)
        buffer.write(b"x")
        assert buffer.is_full


def test_without_memory_nothing_is_lost(pool: Pool) -> None:
    small = Pool(max_bytes=2 * PAGE)
    with RingBuffer(pool=small) as buffer:
        buffer.write(b"abc")
        with pytest.raises(OSError, match="the pool is full"):
            buffer.write(bytes(PAGE))
        assert buffer.read() == b"abc"
        buffer.write(bytes(PAGE))


def test_without_memory_it_stays_large() -> None:
    small = Pool(max_bytes=4 * PAGE)
    with RingBuffer(pool=small) as buffer:
        buffer.write(bytes(2 * PAGE))
        rest = [small.take(PAGE), small.take(PAGE)]
        buffer.retrieve_all()
        assert buffer.capacity == 2 * PAGE
        buffer.write(b"still works")
        assert buffer.read() == b"still works"
        del rest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0}, "capacity must be at least 1 byte, not 0"),
        ({"capacity": -5}, "not -5"),
        ({"capacity": 100, "limit": 99}, r"capacity \(100 bytes\), not 99"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RingBuffer(**options)  # type: ignore[arg-type]


# ---- views that are kept -----------------------------------------------------------------


def test_a_kept_view_never_changes(buffer: RingBuffer) -> None:
    buffer.write(b"keep me")
    kept = buffer.peek()[2:][:3]
    buffer.retrieve_all()
    for turn in range(100):
        buffer.write(pattern(1000, turn))
        buffer.retrieve_all()
    assert bytes(kept) == b"ep "


def test_a_kept_view_does_not_cost_a_copy_before_it_has_to(pool: Pool) -> None:
    with RingBuffer(PAGE, pool=pool) as buffer:
        buffer.write(b"abc")
        kept = buffer.peek()
        for _ in range(10):
            buffer.write(b"more")
            buffer.retrieve(4)
        assert pool.stats().used_rings == 1
        assert bytes(kept) == b"abc"
        buffer.write(bytes(PAGE - 10))
        assert pool.stats().used_rings == 2
        del kept
        assert pool.stats().used_rings == 1


def test_without_views_it_never_moves(pool: Pool) -> None:
    with RingBuffer(PAGE, pool=pool) as buffer:
        for turn in range(100):
            buffer.write(pattern(3000, turn))
            assert buffer.peek(10) == pattern(10, turn)
            buffer.retrieve_all()
        assert pool.stats().rings == 1


def test_an_array_outlives_growth_and_close(pool: Pool) -> None:
    buffer = RingBuffer(PAGE, pool=pool)
    buffer.write(b"12345678")
    kept = np.frombuffer(buffer.peek(), dtype=np.uint32)[1:]
    buffer.write(bytes(3 * PAGE))
    buffer.close()
    assert pool.stats().used_rings == 1
    assert kept.tobytes() == b"5678"
    del kept
    assert pool.stats().used_rings == 0


def test_its_own_bytes_may_be_written_to_it(buffer: RingBuffer) -> None:
    buffer.write(pattern(PAGE))
    buffer.write(buffer.peek())
    assert buffer.peek() == pattern(PAGE) * 2
    buffer.retrieve(PAGE)
    buffer.write(buffer.peek())
    assert buffer.peek() == pattern(PAGE) * 2


def test_virtual_reading_goes_on_after_growth(buffer: RingBuffer) -> None:
    buffer.write(pattern(PAGE))
    assert buffer.virtual_read(100) == pattern(100)
    buffer.write(pattern(PAGE))
    assert buffer.virtual_read(2) == pattern(102)[100:]
    buffer.virtual_flush()
    assert buffer.peek(1) == pattern(103)[102:]


# ---- the end -----------------------------------------------------------------------------


def test_closed(pool: Pool) -> None:
    buffer = RingBuffer(pool=pool)
    buffer.write(b"abc")
    buffer.close()
    assert pool.stats().used_rings == 0
    buffer.close()
    assert "closed" in repr(buffer)
    assert isinstance(buffer, RingBuffer)
    with pytest.raises(ValueError, match="this RingBuffer is closed"):
        buffer.write(b"x")
    with pytest.raises(ValueError, match="closed"):
        buffer.peek()
    with pytest.raises(ValueError, match="closed"):
        len(buffer)
    with pytest.raises(ValueError, match="closed"), buffer:
        pass
    with pytest.raises(ValueError, match="closed"):
        print(buffer.capacity)


def test_repr(buffer: RingBuffer) -> None:
    buffer.write(b"abc")
    assert repr(buffer) == "<RingBuffer: 3 bytes to read, capacity 4096, limit 32768>"
    assert repr(ReadBuffer(b"ab")) == "<ReadBuffer: 2 bytes to read>"


FORKS = """
import os, sys
from gevffi.ringbuf import RingBuffer
buffer = RingBuffer()
buffer.write(b"of the parent")
kept = buffer.peek()
told, tell = os.pipe()
if os.fork() == 0:
    try:
        buffer.peek()
    except ValueError as exc:
        message = str(exc)
    own = RingBuffer()
    own.write(b"of the child")
    os.write(tell, f"{message}|{bytes(kept)!r}|{own.read()!r}".encode())
    buffer.close()
    os._exit(0)
assert os.wait()[1] == 0
print(os.read(told, 1000).decode(), bytes(kept), buffer.read(), sep="|")
"""


def test_a_forked_child_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=30, check=True
    )
    message, kept, own, still, parent = done.stdout.strip().split("|")
    assert message == "this RingBuffer belongs to the process that forked this one"
    assert kept == repr(bytes(13))
    assert own == repr(b"of the child")
    assert still == parent == repr(b"of the parent")
