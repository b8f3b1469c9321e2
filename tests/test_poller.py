"""Poller: readiness by token, wakes from other threads, and tokens that outlive their descriptor.

Signals are in test_sys_signals.py; the wake-up's interleavings, one by one, in c/poller.h.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import LIBKQUEUE, descriptors

from gevffi import sys as gsys
from gevffi.sys import ERROR, HANGUP, POLLER, READ, WRITE, Poller

PATIENCE = 20  # seconds until a thread that should have ended counts as stuck
Pair = tuple[socket.socket, socket.socket]
epoll_only = pytest.mark.skipif(
    POLLER != "epoll", reason="a kqueue forgets a descriptor that is closed, duplicates or not"
)
close_is_known = pytest.mark.skipif(
    LIBKQUEUE, reason="libkqueue does not learn that a descriptor was closed before its removal"
)


@pytest.fixture
def poller() -> Iterator[Poller]:
    with Poller() as poller:
        yield poller


@pytest.fixture
def ends() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


class Background:
    """A function on a thread of its own, which may get stuck without stopping the tests."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.result: list[object] = []
        self.thread = threading.Thread(
            target=lambda: self.result.append(function()), name="background", daemon=True
        )
        self.thread.start()

    def join(self) -> Any:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "stuck"
        return self.result[0]


def descriptors_of(open_poller: Callable[[], Poller]) -> tuple[Poller, dict[str, int]]:
    before = descriptors()
    poller = open_poller()
    opened = {what: fd for fd, what in descriptors().items() if fd not in before}
    return poller, opened


# ---- readiness -----------------------------------------------------------------------------


def test_events_carry_the_token_and_what_is_ready(poller: Poller, ends: Pair) -> None:
    left, right = ends
    token = poller.add(left.fileno(), READ | WRITE)
    assert poller.wait(10) == [(token, WRITE)]
    right.send(b"x")
    assert poller.wait(10) == [(token, READ | WRITE)]


def test_what_is_left_alone_is_reported_again(poller: Poller, ends: Pair) -> None:
    token = poller.add(ends[0].fileno(), READ)
    ends[1].send(b"x")
    assert [poller.wait(10) for _ in range(3)] == [[(token, READ)]] * 3


def test_modify_changes_the_interest(poller: Poller, ends: Pair) -> None:
    left, right = ends
    token = poller.add(left.fileno(), READ)
    assert poller.wait(0) == []
    poller.modify(token, WRITE)
    right.send(b"x")
    assert poller.wait(10) == [(token, WRITE)]
    poller.modify(token, READ)
    assert poller.wait(10) == [(token, READ)]


def test_hang_ups_are_reported_without_any_interest(poller: Poller, ends: Pair) -> None:
    left, right = ends
    token = poller.add(left.fileno(), READ | WRITE)
    poller.modify(token, 0)
    right.send(b"x")
    assert poller.wait(0) == []
    right.close()
    assert poller.wait(10) == [(token, HANGUP)]


def test_errors_are_reported_without_any_interest(poller: Poller) -> None:
    reader, writer = os.pipe()
    token = poller.add(writer, 0)
    os.close(reader)
    [(told, ready)] = poller.wait(10)
    assert told == token
    assert ready in (ERROR, HANGUP)  # epoll says the one, kqueues say the one or the other
    poller.remove(token)
    os.close(writer)


def test_no_more_events_than_max_events(ends: Pair) -> None:
    with Poller(max_events=1) as poller:
        tokens = {poller.add(end.fileno(), WRITE) for end in ends}
        seen = [poller.wait(10) for _ in range(4)]
        assert [len(events) for events in seen] == [1] * 4
        assert {token for events in seen for token, _ in events} == tokens


def test_a_time_out_ends_the_wait(poller: Poller, ends: Pair) -> None:
    poller.add(ends[0].fileno(), READ)
    assert poller.wait(0) == poller.wait(0.01) == []


# ---- tokens --------------------------------------------------------------------------------


def test_a_token_is_never_used_again(poller: Poller, ends: Pair) -> None:
    tokens = set()
    for _ in range(1000):
        token = poller.add(ends[0].fileno(), READ)
        tokens.add(token)
        poller.remove(token)
    assert len(tokens) == 1000


def test_a_removed_token_is_silent_and_unknown(poller: Poller, ends: Pair) -> None:
    token = poller.add(ends[0].fileno(), WRITE)
    poller.remove(token)
    assert poller.wait(0) == []
    with pytest.raises(ValueError, match=f"token {token} is not registered"):
        poller.remove(token)
    with pytest.raises(ValueError, match=f"token {token} is not registered"):
        poller.modify(token, READ)


def reuse_number(fd: int) -> tuple[int, int]:
    """Close `fd` and give its number to the reading end of a new pipe; returns both ends."""
    reader, writer = os.pipe()
    os.dup2(reader, fd)
    os.close(reader)
    return fd, writer


@close_is_known
def test_a_duplicate_that_lives_on_reports_nothing_under_the_new_token(poller: Poller) -> None:
    """Closing a duplicated descriptor leaves its registration; its events are nobody's."""
    fd, old_writer = os.pipe()
    old_token = poller.add(fd, READ)
    duplicate = os.dup(fd)
    reader, writer = reuse_number(fd)
    token = poller.add(reader, READ)
    assert token != old_token

    os.write(old_writer, b"old")
    assert poller.wait(0) == []
    os.write(writer, b"new")
    assert {event for _ in range(3) for event in poller.wait(10)} == {(token, READ)}

    poller.remove(token)
    for end in (duplicate, old_writer, reader, writer):
        os.close(end)


@epoll_only
def test_a_duplicate_that_lives_on_is_silent_once_removed(poller: Poller) -> None:
    fd, writer = os.pipe()
    token = poller.add(fd, READ)
    duplicate = os.dup(fd)
    os.write(writer, b"x")
    os.close(fd)
    assert poller.wait(10) == [(token, READ)]
    with pytest.raises(OSError, match=r"Poller\.remove: Bad file descriptor"):
        poller.remove(token)
    assert poller.wait(10) == []
    for end in (duplicate, writer):
        os.close(end)


@close_is_known
def test_an_old_token_does_not_touch_the_new_owner_of_the_number(poller: Poller) -> None:
    fd, old_writer = os.pipe()
    old_token = poller.add(fd, READ)
    reader, writer = reuse_number(fd)
    with pytest.raises(FileNotFoundError, match=r"Poller\.modify"):
        poller.modify(old_token, READ)
    token = poller.add(reader, READ)
    with pytest.raises(ValueError, match=f"token {old_token} is not registered"):
        poller.modify(old_token, 0)
    with pytest.raises(ValueError, match=f"token {old_token} is not registered"):
        poller.remove(old_token)
    os.write(writer, b"x")
    assert poller.wait(10) == [(token, READ)]
    for end in (old_writer, reader, writer):
        os.close(end)


# ---- wakes ---------------------------------------------------------------------------------


def test_a_wake_before_the_wait_ends_it(poller: Poller) -> None:
    poller.wake()
    assert Background(poller.wait).join() == []


def test_a_wake_from_another_thread_ends_the_wait(poller: Poller) -> None:
    background = Background(poller.wait)
    poller.wake()
    assert background.join() == []


def test_a_wake_does_not_hide_events(poller: Poller, ends: Pair) -> None:
    token = poller.add(ends[0].fileno(), WRITE)
    poller.wake()
    assert poller.wait() == [(token, WRITE)]


def test_a_thousand_wakes_of_a_busy_poller_write_nothing() -> None:
    poller, opened = descriptors_of(Poller)
    with poller:
        for _ in range(1000):
            poller.wake()
        if sys.platform == "linux":  # libkqueue, too, ends a wait by an eventfd
            with pytest.raises(BlockingIOError):
                gsys.eventfd_read(opened["anon_inode:[eventfd]"])
        assert Background(poller.wait).join() == []


def test_no_wake_is_lost_under_a_storm_of_threads(poller: Poller) -> None:
    """Each thread queues a number, wakes, and waits for the answer: a lost wake is a deadlock."""
    threads, rounds = 4, 500
    queue: deque[threading.Semaphore] = deque()

    def loop() -> int:
        served = 0
        while served < threads * rounds:
            poller.wait()
            while queue:
                queue.popleft().release()
                served += 1
        return served

    def client() -> int:
        answered = threading.Semaphore(0)
        for done in range(rounds):
            queue.append(answered)
            poller.wake()
            if not answered.acquire(timeout=PATIENCE):
                return done
        return rounds

    server = Background(loop)
    assert [done.join() for done in [Background(client) for _ in range(threads)]] == [rounds] * 4
    assert server.join() == threads * rounds


# ---- opening and closing -------------------------------------------------------------------


def test_its_descriptors_are_close_on_exec_and_closed() -> None:
    poller, opened = descriptors_of(Poller)
    assert opened
    if POLLER == "epoll":
        assert sorted(opened) == ["anon_inode:[eventfd]", "anon_inode:[eventpoll]"]
    assert not any(os.get_inheritable(fd) for fd in opened.values())
    poller.close()
    poller.close()
    assert not set(opened.values()) & set(descriptors())


def test_a_forgotten_poller_closes_its_descriptors() -> None:
    poller, opened = descriptors_of(Poller)
    del poller
    gc.collect()
    assert not set(opened.values()) & set(descriptors())


def test_close_ends_a_wait_under_way() -> None:
    poller, opened = descriptors_of(Poller)

    def wait_until_closed() -> str:
        waiting.set()
        try:
            while True:
                poller.wait()
        except ValueError as exc:
            return str(exc)

    waiting = threading.Event()
    background = Background(wait_until_closed)
    assert waiting.wait(PATIENCE)
    poller.close()
    assert background.join() == "the Poller is closed"
    assert not set(opened.values()) & set(descriptors())


def test_a_closed_poller_says_so() -> None:
    poller = Poller()
    poller.close()
    calls: list[Callable[[], object]] = [
        lambda: poller.add(0, READ),
        lambda: poller.modify(1, READ),
        lambda: poller.remove(1),
        lambda: poller.wait(0),
        poller.wake,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the Poller is closed"):
            call()


# ---- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("max_events", [0, -1])
def test_a_wrong_number_of_events_is_named(max_events: int) -> None:
    with pytest.raises(ValueError, match=f"max_events must be at least 1, not {max_events}"):
        Poller(max_events)


@pytest.mark.parametrize("interest", [4, 8, -1, READ | HANGUP])
def test_a_wrong_interest_is_named(interest: int, poller: Poller, ends: Pair) -> None:
    with pytest.raises(ValueError, match=f"interest must be .*not {interest}"):
        poller.add(ends[0].fileno(), interest)
    token = poller.add(ends[0].fileno(), WRITE)
    with pytest.raises(ValueError, match=f"interest must be .*not {interest}"):
        poller.modify(token, interest)
    assert poller.wait(10) == [(token, WRITE)]


def test_a_wrong_time_out_is_named(poller: Poller) -> None:
    with pytest.raises(ValueError, match=r"Poller\.wait: timeout .*not -1"):
        poller.wait(-1)


def test_adding_twice_leaves_the_first(poller: Poller, ends: Pair) -> None:
    token = poller.add(ends[0].fileno(), WRITE)
    with pytest.raises(FileExistsError, match=r"Poller\.add"):
        poller.add(ends[0].fileno(), READ)
    assert poller.wait(10) == [(token, WRITE)]
    poller.remove(token)


def test_adding_what_is_not_open(poller: Poller) -> None:
    with pytest.raises(OSError, match=r"Poller\.add: Bad file descriptor") as caught:
        poller.add(-1, READ)
    assert caught.value.errno == errno.EBADF


def test_pollers_share_a_descriptor_but_no_events(poller: Poller) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    with Poller() as other:
        token = poller.add(reader, READ)
        assert other.wait(0) == []
        other_token = other.add(reader, READ)
        poller.remove(token)
        assert poller.wait(0) == []
        assert other.wait(10) == [(other_token, READ)]
    os.close(reader)
    os.close(writer)
