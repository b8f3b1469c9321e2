"""RingBuffer against a bytearray, step by step, with views kept to see that none ever changes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gevffi.ringbuf import RingBuffer
from gevffi.sys.memory import Pool

PAGE = 4096
LIMIT = 5 * PAGE - 7  # not a power of two, and no multiple of anything
sizes = st.one_of(st.integers(0, 20), st.integers(0, LIMIT + 10), st.sampled_from([PAGE, PAGE - 1]))


class Model(RuleBasedStateMachine):
    """What `held` says, the buffer must say."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.buffer = RingBuffer(PAGE, LIMIT, self.pool)
        self.held = bytearray()
        self.ahead = 0
        self.kept: list[tuple[memoryview, bytes]] = []
        self.written = 0

    def keep(self, view: memoryview, expected: bytes) -> None:
        assert view == expected
        self.kept.append((view, expected))

    @rule(n=sizes)
    def write(self, n: int) -> None:
        data = bytes((self.written + i) % 251 for i in range(n))
        if len(self.held) + n > LIMIT:
            with pytest.raises(BufferError, match=f"cannot write {n} bytes"):
                self.buffer.write(data)
        else:
            assert self.buffer.write(data) == n
            self.held += data
            self.written += n

    @rule(n=sizes)
    def retrieve(self, n: int) -> None:
        if n > len(self.held):
            with pytest.raises(BufferError, match=f"cannot retrieve {n} bytes"):
                self.buffer.retrieve(n)
        else:
            self.buffer.retrieve(n)
            del self.held[:n]
            self.ahead = 0

    @rule()
    def retrieve_all(self) -> None:
        self.buffer.retrieve_all()
        self.held.clear()
        self.ahead = 0

    @rule(n=sizes)
    def read(self, n: int) -> None:
        assert self.buffer.read(n) == self.held[:n]
        del self.held[:n]
        self.ahead = 0

    @rule(n=sizes)
    def readinto(self, n: int) -> None:
        target = bytearray(n)
        count = self.buffer.readinto(target)
        assert count == min(n, len(self.held))
        assert target[:count] == self.held[:count]
        del self.held[:count]
        self.ahead = 0

    @rule(n=sizes)
    def peek(self, n: int) -> None:
        assert self.buffer.peek(n) == self.held[:n]

    @rule(n=sizes)
    def peek_and_keep(self, n: int) -> None:
        self.keep(self.buffer.peek(n), bytes(self.held[:n]))

    @rule(n=sizes)
    def virtual_read_and_keep(self, n: int) -> None:
        self.keep(self.buffer.virtual_read(n), bytes(self.held[self.ahead : self.ahead + n]))
        self.ahead = min(self.ahead + n, len(self.held))

    @rule()
    def virtual_flush(self) -> None:
        self.buffer.virtual_flush()
        del self.held[: self.ahead]
        self.ahead = 0

    @rule()
    def virtual_revert(self) -> None:
        self.buffer.virtual_revert()
        self.ahead = 0

    @rule(needle=st.binary(min_size=1, max_size=3), start=sizes)
    def find(self, needle: bytes, start: int) -> None:
        assert self.buffer.find(needle, start) == self.held.find(needle, start)

    @precondition(lambda self: len(self.held) >= 8)
    @rule(data=st.data())
    def integers(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.held) - 8))
        assert self.buffer.peek_uint8(at) == self.held[at]
        assert self.buffer.peek_uint16(at) == int.from_bytes(self.held[at : at + 2], "big")
        assert self.buffer.peek_uint32(at) == int.from_bytes(self.held[at : at + 4], "big")
        assert self.buffer.peek_uint64(at) == int.from_bytes(self.held[at : at + 8], "big")

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def let_a_view_go(self, data: st.DataObject) -> None:
        del self.kept[data.draw(st.integers(0, len(self.kept) - 1))]

    @invariant()
    def agrees(self) -> None:
        assert len(self.buffer) == len(self.held)
        assert self.buffer.virtual_length == len(self.held) - self.ahead
        assert self.buffer.is_empty == (not self.held)
        assert self.buffer.is_full == (len(self.held) == LIMIT)
        assert self.buffer.peek() == self.held
        assert len(self.held) <= self.buffer.capacity <= 8 * PAGE
        if not self.held:
            assert self.buffer.capacity == PAGE

    @invariant()
    def kept_views_never_change(self) -> None:
        for view, expected in self.kept:
            assert view == expected

    def teardown(self) -> None:
        self.buffer.close()
        self.kept_views_never_change()
        self.kept.clear()
        assert self.pool.stats().used_rings == 0


TestRingBuffer = Model.TestCase
TestRingBuffer.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
