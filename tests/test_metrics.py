"""Metrics: scraped over HTTP from a server at work, every number against what was really done.

Messages of protocols are in test_metrics_messages.py, the endpoint is in test_metrics_endpoint.py.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from helpers import (
    Background,
    Echo,
    Recorder,
    connect,
    held,
    receive_all,
    receive_exactly,
)
from protocols import Framed, framed
from scraping import LOCAL, Checked, ask, measured, scrape, settle

from gevffi import Address, Balance, CloseReason, Connection, EventLoop, Handler, Server
from gevffi.stats import TURN_SECONDS
from gevffi.sys.memory import default_pool


def test_connections_bytes_messages_and_events() -> None:
    handler = Echo()
    sizes = [1, 10, 100, 1000]
    with measured(handler) as server:
        before = scrape(server)
        for name in ("connections_open", "connections_accepted_total", "bytes_received_total"):
            assert before(name) == 0
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                sock = stack.enter_context(connect(server))
                for size in sizes:
                    ask(sock, b"x" * size)
            settle(server)
            after = scrape(server)
            assert after("connections_open") == 5
            assert after.closed() == {}
        for _ in range(5):
            handler.until("close")
        settle(server)
        ended = scrape(server)
    assert after("connections_accepted_total") == ended("connections_accepted_total") == 5
    assert ended("connections_open") == 0
    assert ended.closed() == {"eof": 5}
    for one in (after, ended):
        assert one("bytes_received_total") == one("bytes_sent_total") == 5 * sum(sizes)
        assert one("messages_received_total") == one("messages_sent_total") == 5 * len(sizes)
        assert one("connections_refused_total") == one("handler_errors_total") == 0
        assert one("unsent_bytes") == 0
    # One for each connection and each message; and in the end one for each end of a connection.
    assert after("events_total") == 5 + 5 * len(sizes)
    assert ended("events_total") == after("events_total") + 5
    assert ended("calls_total") == 2


def test_what_is_sent_without_being_asked_counts_too() -> None:
    class Greeter(Recorder):
        def on_connect(self, conn: Connection) -> None:
            conn.send(b"hello")
            conn.send(memoryview(b"you there" * 2000))

    with measured(Greeter()) as server, connect(server) as sock:
        assert len(receive_exactly(sock, 18005)) == 18005
        settle(server)
        now = scrape(server)
        assert now("messages_received_total") == now("bytes_received_total") == 0
        assert now("messages_sent_total") == 2
        assert now("bytes_sent_total") == 18005


def test_each_loop_has_its_own() -> None:
    with measured(Echo(), loops=2) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            ask(stack.enter_context(connect(server)), b"four")
        settle(server)
        now = scrape(server)
        for loop in ("loop-0", "loop-1"):
            assert now("connections_open", loop=loop) == 2
            assert now("bytes_received_total", loop=loop) == 8
            assert now("messages_sent_total", loop=loop) == 2
        # The first loop accepts for both.
        assert now("connections_accepted_total", loop="loop-0") == 4
        assert now("connections_accepted_total", loop="loop-1") == 0


class Closer(Recorder):
    """Does what a message says."""

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        if data == b"close":
            conn.close()
        elif data == b"abort":
            conn.abort()
        elif data == b"raise":
            raise LookupError("mine")
        elif data == b"flood":
            return bytes(16 << 20)
        return data

    def on_error(self, conn: Connection, exc: Exception) -> None:
        self._put("error", conn, exc)


def test_every_reason_is_the_one_that_on_close_was_told() -> None:
    handler = Closer()
    told: Counter[str] = Counter()

    def closed() -> None:
        told[handler.until("close").value.name.lower()] += 1

    with measured(
        handler, protocol=Checked(), write_limit=100_000, write_high_water=1000
    ) as server:
        for message in (b"close", b"abort", b"raise", b"raise", b"flood", b"x" * 1001, b""):
            with connect(server) as sock:
                sock.sendall(framed(message))
                closed()
        for _ in range(2):
            with connect(server):
                pass
            closed()
        with connect(server) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        closed()
        settle(server)
        now = scrape(server)
        assert now.closed() == told
        assert now("handler_errors_total") == 2
        assert now("connections_open") == 0
        assert now("connections_accepted_total") == 10
        with connect(server):
            handler.until("connect")
            (loop,) = server.loops
            server.stop(0)
    assert told == {
        "local": 2,
        "handler_error": 2,
        "slow_consumer": 1,
        "frame_too_large": 1,
        "protocol_error": 1,
        "eof": 2,
        "reset": 1,
    }
    assert loop.stats().closed[CloseReason.SHUTDOWN] == 1
    assert sum(loop.stats().closed.values()) == 11


def test_idle_connections() -> None:
    handler = Recorder()
    with measured(handler, idle_time=0.05) as server, connect(server), connect(server):
        handler.until("close")
        handler.until("close")
        assert scrape(server).closed() == {"idle": 2}


def test_what_waits_for_a_peer() -> None:
    size = 8 << 20
    handler = Recorder(lambda data: bytes(size))
    with measured(handler) as server, connect(server) as sock:
        sock.sendall(b"go")
        conn = handler.until("high_water").conn
        waiting: list[int] = []
        # At rest, or the kernel might take some more between one look and the other.
        with held(conn.loop, lambda: waiting.append(conn.write_buffer_length)):
            now = scrape(server)
        assert now("unsent_bytes") == waiting[0] > 0
        assert now("bytes_sent_total") == size - waiting[0]
        assert len(receive_exactly(sock, size)) == size
        handler.until("drain")
        settle(server)
        now = scrape(server)
        assert now("unsent_bytes") == 0
        assert now("bytes_sent_total") == size
        assert now("messages_sent_total") == 1


def test_timers_and_calls() -> None:
    with measured(Handler()) as server:
        timers = [server.run_after(1000, print) for _ in range(5)]
        timers.append(server.run_every(1000, print))
        settle(server)
        assert scrape(server)("timers") == 6
        timers[0].cancel()
        timers[5].cancel()
        now = scrape(server)
        assert now("timers") == 4
        assert now("calls_total") == 7
        assert now("calls_waiting") == 0
        (loop,) = server.loops
        with held(loop):
            for _ in range(3):
                loop.call_soon_threadsafe(str)
            now = scrape(server)  # the loop is held up, the scrape is not
            assert now("calls_total") == 8
            assert now("calls_waiting") == 3
        settle(server)
        now = scrape(server)
        assert now("calls_total") == 12
        assert now("calls_waiting") == 0


def test_leases_and_the_pool() -> None:
    kept: list[Any] = []
    piece = bytes(16384)

    class Keeper(Handler):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            kept.append(data)
            return data

    gc.collect()  # arenas of earlier tests' loops go now, and not between the two looks at the pool
    with measured(Keeper(), arena_size=128 << 10) as server, connect(server) as sock:
        assert scrape(server)("leases") == 0
        for _ in range(40):
            ask(sock, piece)
        settle(server)
        now = scrape(server)
        pool = default_pool().stats()
        assert now("leases") == server.loops[0].leases > 0
        for field in pool._fields:
            assert now(f"pool_{field}") == getattr(pool, field)
        assert now("pool_used_rings") > now("leases")
        kept.clear()
        ask(sock, b"x")  # the loop's inner loop held the last one
        kept.clear()
        settle(server)
        assert scrape(server)("leases") == 0


def test_turns() -> None:
    with measured(Echo()) as server, connect(server) as sock:
        for _ in range(100):
            ask(sock, b"x")
        settle(server)
        now = scrape(server)
        stats = server.loops[0].stats()
    bounds = [*map(str, TURN_SECONDS), "+Inf"]
    buckets = [now("turn_seconds_bucket", le=bound) for bound in bounds]
    assert buckets == sorted(buckets)
    assert buckets[-1] == now("turn_seconds_count") >= 100
    assert 0 < now("turn_seconds_sum") <= stats.turn_seconds
    assert len(stats.turns) == len(bounds)
    assert now.families["gevffi_turn_seconds"].type == "histogram"
    assert list(TURN_SECONDS) == sorted(TURN_SECONDS)
    assert (TURN_SECONDS[0], TURN_SECONDS[-1]) == (1e-05, 1.0)


class Refusing(Balance):
    """Takes every second connection."""

    def __init__(self) -> None:
        self.seen = 0

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        self.seen += 1
        if self.seen % 2:
            raise LookupError("no loop is good enough")
        return loops[1]


def test_refused_connections() -> None:
    handler = Echo()
    with measured(handler, loops=2, balance=Refusing()) as server:
        for number in range(6):
            with connect(server) as sock:
                if number % 2:
                    ask(sock, b"x")
                else:
                    assert receive_all(sock) == b""
        for _ in range(3):
            handler.until("close")
        settle(server)
        now = scrape(server)
        assert now("connections_accepted_total") == 6
        assert now("connections_refused_total") == 3
        assert now.total("connections_refused_total") == 3
        assert now.closed() == {"eof": 3}


# ---- while the loops are busy -------------------------------------------------------------------


def test_scraping_busy_loops_from_several_threads() -> None:
    """No counter ever goes back, and in the end everything is there."""
    enough = threading.Event()
    sent = [0, 0, 0]

    def talk(server: Server, number: int) -> None:
        payloads = framed(*(b"p" * size for size in range(20)))
        with connect(server) as sock:
            while True:
                ask(sock, payloads)
                sent[number] += 1
                if enough.is_set():  # not before it has said something
                    break

    def watch(server: Server) -> None:
        last: dict[Any, float] = {}
        for _ in range(30):
            now = scrape(server)
            for (name, labels), value in now.samples.items():
                if name.endswith(("_total", "_count", "_sum", "_bucket")):
                    assert value >= last.get((name, labels), 0), (name, labels)
            last = now.samples

    with measured(Echo(), protocol=Framed(), loops=2) as server:
        talkers = [Background(talk, server, number) for number in range(3)]
        watchers = [Background(watch, server) for _ in range(2)]
        try:
            for watcher in watchers:
                watcher.join()
        finally:
            enough.set()
        for talker in talkers:
            talker.join()
        settle(server)
        now = scrape(server)
        size = sum(range(20)) + 4 * 20
        assert min(sent) > 0
        for way in ("received", "sent"):
            assert now.total(f"messages_{way}_total") == 20 * sum(sent)
            assert now.total(f"bytes_{way}_total") == size * sum(sent)


def test_a_loop_tells_its_numbers_also_while_it_ends_and_afterwards() -> None:
    for _ in range(20):
        with Server(Echo(), LOCAL, loops=2).running() as server:
            loops = server.loops
            with connect(server) as sock:
                ask(sock, b"hello")
            ended = threading.Event()

            def ask_on(loops: Any = loops, ended: Any = ended) -> None:
                while not ended.is_set():
                    assert sum(loop.stats().bytes_received for loop in loops) == 5

            asking = Background(ask_on)
        ended.set()
        asking.join()
        assert sum(loop.stats().accepted for loop in loops) == 1
        assert sum(loop.stats().bytes_sent for loop in loops) == 5
