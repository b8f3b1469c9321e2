"""`run_after` and `run_every`: before the start, while it runs, and cancelled from anywhere."""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
import time
from typing import Any

import pytest
from helpers import PATIENCE, Echo, Recorder, connect, receive_exactly, serving, wait

from gevffi import Connection, Handler, Server
from gevffi.timers import Timer


@pytest.fixture
def calls() -> queue.Queue[Any]:
    return queue.Queue()


def test_run_after_before_the_start_counts_from_the_start(calls: queue.Queue[Any]) -> None:
    server = Server(Handler(), "127.0.0.1:0", loops=2)
    timer = server.run_after(0.05, lambda *args: calls.put((args, threading.get_ident())), 1, "a")
    assert not timer.cancelled
    assert timer.interval is None
    started = time.monotonic()
    with server.running():
        in_loop = server.loops[0]
        args, thread = calls.get(timeout=PATIENCE)
        assert time.monotonic() - started >= 0.05
        assert args == (1, "a")
        in_loop.call_soon_threadsafe(lambda: calls.put(threading.get_ident()))
        assert calls.get(timeout=PATIENCE) == thread
    assert timer.cancelled
    assert calls.empty()


def test_run_every_before_and_after_the_start(calls: queue.Queue[Any]) -> None:
    server = Server(Handler(), "127.0.0.1:0")
    early = server.run_every(0.01, calls.put, "early")
    with server.running():
        late = server.run_every(0.01, calls.put, "late")
        assert (early.interval, late.interval) == (0.01, 0.01)
        seen = [calls.get(timeout=PATIENCE)]
        while seen.count("early") < 3 or seen.count("late") < 3:
            seen.append(calls.get(timeout=PATIENCE))
    assert not early.cancelled


def test_timers_are_called_in_the_order_they_are_due(calls: queue.Queue[Any]) -> None:
    server = Server(Handler(), "127.0.0.1:0")
    # Each counts from when it is set. They are so far apart that a thread that has to wait for its
    # core meanwhile does not change the order.
    for delay in (0.6, 0.2, 0.4, 0.2):
        server.run_after(delay, calls.put, delay)
    with server.running():
        assert [calls.get(timeout=PATIENCE) for _ in range(4)] == [0.2, 0.2, 0.4, 0.6]


def test_cancel_from_another_thread(calls: queue.Queue[Any]) -> None:
    with serving(Handler()) as server:
        (loop,) = server.loops
        every = server.run_every(0.001, calls.put, "every")
        assert calls.get(timeout=PATIENCE) == "every"
        timers: list[Timer] = []
        running, cancelled = threading.Event(), threading.Event()

        def begin() -> None:
            timers.append(server.run_after(0, calls.put, "never"))
            # Calls that are made one right after the other: the timer runs, and is not looked at
            # before it is cancelled, however long that takes on a busy machine.
            loop.call_soon_threadsafe(running.set)
            loop.call_soon_threadsafe(wait, cancelled)

        loop.call_soon_threadsafe(begin)
        wait(running)
        (never,) = timers
        assert not never.cancelled
        never.cancel()
        never.cancel()
        assert never.cancelled
        cancelled.set()
        every.cancel()
        settled = threading.Event()
        server.loops[0].call_soon_threadsafe(settled.set)
        wait(settled)  # a call that was under way is over
        while not calls.empty():
            assert calls.get() == "every"
        server.run_after(0.01, calls.put, "later")
        assert calls.get(timeout=PATIENCE) == "later"


def test_cancel_from_its_own_call(calls: queue.Queue[Any]) -> None:
    with serving(Handler()) as server:
        ready = threading.Event()

        def call() -> None:
            wait(ready)
            calls.put("called")
            timer.cancel()

        timer = server.run_every(0.001, call)
        ready.set()
        assert calls.get(timeout=PATIENCE) == "called"
        server.run_after(0.05, calls.put, "later")
        assert calls.get(timeout=PATIENCE) == "later"


def test_cancel_before_the_start(calls: queue.Queue[Any]) -> None:
    server = Server(Handler(), "127.0.0.1:0")
    server.run_after(0, calls.put, "never").cancel()
    server.run_every(0.001, calls.put, "never").cancel()
    server.run_after(0.05, calls.put, "later")
    with server.running():
        assert calls.get(timeout=PATIENCE) == "later"
    assert calls.empty()


def test_timers_asked_for_in_callbacks(calls: queue.Queue[Any]) -> None:
    server: Server

    class Timing(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            server.run_after(0.01, conn.send, bytes(data))

    with serving(Timing()) as server, connect(server) as sock:
        sock.sendall(b"later")
        assert receive_exactly(sock, 5) == b"later"


def test_an_exception_in_a_timer_is_logged_and_it_goes_on(
    calls: queue.Queue[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        calls.put("called")
        raise LookupError("in a timer")

    handler = Echo()
    with serving(handler) as server, connect(server) as sock:
        timer = server.run_every(0.01, fail)
        for _ in range(3):
            assert calls.get(timeout=PATIENCE) == "called"
        timer.cancel()
        sock.sendall(b"x")
        assert receive_exactly(sock, 1) == b"x"
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) >= 3
    assert all(isinstance(r.exc_info and r.exc_info[1], LookupError) for r in records)


@pytest.mark.parametrize("delay", [-1, -0.001, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("running", [False, True], ids=["before", "while it runs"])
def test_a_wrong_delay_is_refused_with_its_value(delay: float, running: bool) -> None:
    server = Server(Handler(), "127.0.0.1:0")

    def refuse() -> None:
        with pytest.raises(ValueError, match="delay") as caught:
            server.run_after(delay, print)
        assert repr(delay) in str(caught.value)
        with pytest.raises(ValueError, match="interval"):
            server.run_every(delay, print)
        with pytest.raises(ValueError, match="interval"):
            server.run_every(0, print)

    if running:
        with server.running():
            refuse()
    else:
        refuse()


def test_what_is_not_callable_is_refused() -> None:
    server = Server(Handler(), "127.0.0.1:0")
    with pytest.raises(TypeError, match="callable"):
        server.run_after(1, "callback")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        server.run_every(1, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("delay", [1e9, 1e18, 1e306, sys.float_info.max])
def test_a_timer_may_be_as_far_away_as_a_float_can_say(delay: float) -> None:
    handler = Echo()
    with serving(handler) as server, connect(server) as sock:
        server.run_after(delay, print)
        server.run_every(delay, print)
        for _ in range(3):
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"


@pytest.mark.parametrize("interval", [sys.float_info.min, 1e-12])
def test_a_tiny_interval_does_not_starve_the_others(interval: float) -> None:
    handler = Echo()
    called = threading.Event()
    with serving(handler) as server, connect(server) as sock:
        server.run_every(interval, called.set)
        wait(called)
        for _ in range(3):
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
