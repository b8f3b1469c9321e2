"""EventLoop on its own: calls from threads, timers, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import (
    PATIENCE,
    Background,
    Echo,
    connect,
    receive_all,
    receive_exactly,
    serving,
    wait,
)

from gevffi import CloseReason, Connection, EventLoop, Options, Raw
from gevffi.protocol import receiver
from gevffi.timers import Timer, TimerQueue


class Running:
    """A loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = EventLoop(name="mine")
        self.background = Background(self.loop.run)

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of `function` on the loop's thread."""
        results: queue.Queue[Any] = queue.Queue()
        self.loop.call_soon_threadsafe(lambda: results.put(function()))
        return results.get(timeout=PATIENCE)

    def end(self) -> None:
        self.loop.stop()
        self.background.join()


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.end()


# ---- running ------------------------------------------------------------------------------------


def test_stop_before_run_ends_it_at_once() -> None:
    loop = EventLoop()
    loop.stop()
    loop.run()
    assert loop.finished


def test_run_twice_is_an_error_also_from_another_thread(running: Running) -> None:
    running.call(lambda: None)
    with pytest.raises(RuntimeError, match="mine has been run before"):
        running.loop.run()
    running.end()
    with pytest.raises(RuntimeError, match="mine has been run before"):
        running.loop.run()


def test_stop_from_its_own_thread_and_more_than_once() -> None:
    loop = EventLoop()
    loop.call_soon_threadsafe(loop.stop)
    loop.call_soon_threadsafe(loop.stop)
    loop.run()
    loop.stop()


def test_last_words_go_out_before_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    """And one whose callback raises does not keep the others from them."""

    class Polite(Echo):
        def on_stop(self, conn: Connection) -> None:
            conn.send(b"bye")
            if conn.context == "bad":
                raise ZeroDivisionError

    handler = Polite()
    with serving(handler) as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(3)]
        handler.next("connect").conn.context = "bad"
        for _ in socks[1:]:  # who is not yet accepted is reset
            handler.next("connect")
        server.stop()
        assert [receive_all(sock) for sock in socks] == [b"bye"] * 3
    reasons = sorted(handler.until("close").value.name for _ in socks)
    assert reasons == ["HANDLER_ERROR", "SHUTDOWN", "SHUTDOWN"]
    assert "ZeroDivisionError" in caplog.text


def test_a_wrong_timeout_of_stop_is_refused(running: Running) -> None:
    for timeout in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="timeout"):
            running.loop.stop(timeout)
    assert running.call(lambda: 1) == 1


def test_the_options_are_its_own() -> None:
    options = Options(max_events=7)
    assert EventLoop(options).options is options
    assert EventLoop().options == Options()


def test_in_loop(running: Running) -> None:
    assert not running.loop.in_loop()
    assert running.call(running.loop.in_loop) is True
    assert not running.loop.finished


# ---- calls from threads -------------------------------------------------------------------------


def test_calls_are_made_in_order_with_their_arguments(running: Running) -> None:
    made: list[tuple[int, str]] = []
    for number in range(1000):
        running.loop.call_soon_threadsafe(lambda *args: made.append(args), number, "a")
    running.call(lambda: None)
    assert made == [(number, "a") for number in range(1000)]


def test_calls_made_before_run_wait_for_it() -> None:
    loop = EventLoop()
    made: list[int] = []
    for number in range(3):
        loop.call_soon_threadsafe(made.append, number)
    loop.stop()
    loop.run()
    assert made == [0, 1, 2]


def test_calls_of_many_threads_are_all_made_each_threads_in_order(running: Running) -> None:
    made: list[tuple[int, int]] = []

    def call(thread: int) -> None:
        for number in range(500):
            running.loop.call_soon_threadsafe(made.append, (thread, number))

    callers = [Background(call, thread) for thread in range(8)]
    for caller in callers:
        caller.join()
    running.call(lambda: None)
    assert len(made) == 8 * 500
    for thread in range(8):
        assert [n for t, n in made if t == thread] == list(range(500))


def test_what_a_call_queues_is_called_too(running: Running) -> None:
    made: list[int] = []
    done = threading.Event()

    def again(left: int) -> None:
        made.append(left)
        if left:
            running.loop.call_soon_threadsafe(again, left - 1)
        else:
            done.set()

    running.loop.call_soon_threadsafe(again, 100)
    wait(done)
    assert made == list(range(100, -1, -1))


def test_an_exception_in_a_call_is_logged_and_the_loop_goes_on(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise LookupError("in a call")

    running.loop.call_soon_threadsafe(fail)
    assert running.call(lambda: 7) == 7
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("gevffi", logging.ERROR)
    assert "mine" in record.getMessage()
    assert isinstance(record.exc_info and record.exc_info[1], LookupError)


def test_a_call_after_the_end_does_nothing(running: Running) -> None:
    running.end()
    called = threading.Event()
    running.loop.call_soon_threadsafe(called.set)
    assert running.loop.finished
    assert not called.is_set()


# ---- timers -------------------------------------------------------------------------------------


def test_call_later_and_call_every_and_cancel() -> None:
    loop = EventLoop()
    made: list[str] = []

    def tick() -> None:
        made.append("tick")
        if made.count("tick") == 3:
            every.cancel()
            loop.call_later(0.02, last)

    def last() -> None:
        made.append("last")
        loop.stop()

    once = loop.call_later(0, made.append, "once")  # made first, so due first
    every = loop.call_every(0.002, tick)
    loop.call_later(0.001, made.append, "never").cancel()
    loop.run()
    assert made == ["once", "tick", "tick", "tick", "last"]
    assert once.cancelled
    assert every.cancelled


def test_timers_due_at_once_run_in_the_order_they_were_made() -> None:
    loop = EventLoop()
    made: list[int] = []
    for number in range(100):
        loop.call_later(0, made.append, number)
    loop.call_later(0, loop.stop)
    loop.run()
    assert made == list(range(100))


def test_timers_belong_to_the_loops_thread(running: Running) -> None:
    running.call(lambda: None)
    with pytest.raises(RuntimeError, match="thread of mine"):
        running.loop.call_later(1, print)
    with pytest.raises(RuntimeError, match="thread of mine"):
        running.loop.call_every(1, print)
    with pytest.raises(RuntimeError, match="thread of mine"):
        running.loop.schedule(Timer(print, ()), 1)
    timer = running.call(lambda: running.loop.call_later(1000, print))
    timer.cancel()


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, "1", None])
def test_wrong_delays_are_refused(delay: Any) -> None:
    loop = EventLoop()
    with pytest.raises(ValueError, match="delay"):
        loop.call_later(delay, print)
    with pytest.raises(ValueError, match="interval"):
        loop.call_every(delay, print)
    with pytest.raises(ValueError, match="interval"):
        loop.call_every(0, print)


def test_an_exception_in_a_timer_is_logged_and_the_loop_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = EventLoop(name="mine")
    loop.call_later(0, lambda: 1 // 0)
    loop.call_later(0.001, loop.stop)
    loop.run()
    (record,) = caplog.records
    assert isinstance(record.exc_info and record.exc_info[1], ZeroDivisionError)


def test_a_timer_that_is_never_due_does_not_keep_others_from_it() -> None:
    loop = EventLoop()
    loop.call_later(sys.float_info.max, print)
    loop.call_every(sys.float_info.max, print)
    loop.call_later(0.001, loop.stop)
    loop.run()
    assert loop.stats().timers == 3  # of which `stop` has added one


def test_many_cancelled_timers_do_not_pile_up() -> None:
    timers = TimerQueue()
    keep = [Timer(print, ()) for _ in range(100)]
    for timer in keep:
        timers.add(timer, 1000)
    for _ in range(10_000):
        passing = Timer(print, ())
        timers.add(passing, 1000)
        passing.cancel()
    assert len(timers.heap) <= 400
    assert {entry[2] for entry in timers.heap} >= set(keep)
    assert not any(timer.cancelled for timer in keep)


def test_the_right_timers_are_called_among_many_cancelled() -> None:
    loop = EventLoop()
    made: list[int] = []
    timers = [loop.call_later(number / 1e6, made.append, number) for number in range(5000)]
    for number, timer in enumerate(timers):
        if number % 10:
            timer.cancel()
    loop.call_later(0.005, loop.stop)
    loop.run()
    assert made == list(range(0, 5000, 10))


def test_timers_that_cancel_and_make_others_while_they_are_due() -> None:
    """The heap is rebuilt in the middle of a run over it."""
    loop = EventLoop()
    made: list[str] = []

    def first() -> None:
        made.append("first")
        for timer in doomed:
            timer.cancel()
        loop.call_later(0, made.append, "new")
        loop.call_later(0.001, loop.stop)

    loop.call_later(0, first)
    doomed = [loop.call_later(0, made.append, "doomed") for _ in range(300)]
    loop.run()
    assert made == ["first", "new"]


class Thing:
    """Something that can be seen to be gone."""


def test_a_cancelled_timer_lets_go_of_its_arguments() -> None:
    large = Thing()
    seen = weakref.ref(large)
    timer = EventLoop().call_later(1000, print, large)
    del large
    assert seen() is not None
    timer.cancel()
    assert seen() is None


# ---- connections --------------------------------------------------------------------------------


def test_give_takes_over_a_connected_socket(running: Running) -> None:
    handler = Echo()
    receive = receiver(handler, Raw(), 1 << 20)
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    ours.setblocking(False)
    peer = socket.AF_UNIX.to_bytes(2, "little")
    with theirs:
        running.loop.give(ours.detach(), peer, handler, Raw(), receive)
        conn = handler.next("connect").conn
        assert (running.loop.load, running.loop.connection_count) == (1, 1)
        assert conn.loop is running.loop
        theirs.sendall(b"pair")
        assert receive_exactly(theirs, 4) == b"pair"
        running.end()
        assert theirs.recv(1) == b""
    assert handler.until("close").value is CloseReason.SHUTDOWN
    assert (running.loop.load, running.loop.connection_count) == (0, 0)


def test_give_after_the_end_closes_the_socket(running: Running) -> None:
    running.end()
    handler = Echo()
    ours, theirs = socket.socketpair()
    with theirs:
        running.loop.give(ours.detach(), b"\1\0", handler, Raw(), handler.on_message)
        assert theirs.recv(1) == b""
    assert handler.rest() == []


def test_after_the_end_nothing_of_it_is_touched() -> None:
    """In the thread that ran it, which is still the loop's."""
    loop = EventLoop(name="mine")
    listening, theirs = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with listening, theirs:
        listener = loop.listen(listening.fileno(), lambda new: None)
        loop.stop()
        loop.run()
        for call in (
            lambda: loop.listen(listening.fileno(), lambda new: None),
            lambda: loop.unlisten(listener),
            lambda: loop.watch(theirs.fileno()),
        ):
            with pytest.raises(RuntimeError, match="mine has ended"):
                call()


def test_a_loop_that_was_torn_down_takes_no_connection() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    loop, handler = EventLoop(), Echo()
    loop.call_soon_threadsafe(interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    ours, theirs = socket.socketpair()
    with theirs:
        loop.give(ours.detach(), b"\1\0", handler, Raw(), handler.on_message)
        assert theirs.recv(1) == b""
    assert handler.rest() == []
    assert loop.load == 0
