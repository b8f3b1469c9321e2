"""Broadcast: the same bytes to many connections; who gets them, who does not, in which order."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import (
    PATIENCE,
    Background,
    Recorder,
    by_client,
    clients,
    connect,
    on_loop,
    receive_all,
    receive_exactly,
    serving,
    wait,
)

from gevffi import CloseReason, Connection, Server

MANY = 500


@pytest.fixture(autouse=True, scope="module")
def files() -> Iterator[None]:
    """Room for many connections, both ends of which are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- everybody ----------------------------------------------------------------------------------


def test_five_hundred_get_every_byte() -> None:
    handler = Recorder()
    pieces = [random.Random(n).randbytes(n * 37 % 3000) for n in range(40)]
    with serving(handler) as server, clients(server, handler, MANY) as socks:
        for piece in pieces[:20]:
            server.broadcast(piece)
        for piece in pieces[20:]:
            on_loop(server.loops[0], server.broadcast, piece)
        wanted = b"".join(pieces)
        assert all(receive_exactly(sock, len(wanted)) == wanted for sock in socks)
        server.stop()
        assert all(receive_all(sock) == b"" for sock in socks)
    assert set(handler.rest()) == {"close"}


def test_those_that_come_and_go_between_two_broadcasts() -> None:
    handler = Recorder()
    with serving(handler) as server, clients(server, handler, 20) as socks:
        server.broadcast(b"one")
        for sock in socks[:10]:
            assert receive_exactly(sock, 3) == b"one"
            sock.close()
            handler.until("close")
        server.broadcast(b"two")
        on_loop(server.loops[0], lambda: None)  # it is done before anybody else comes
        with clients(server, handler, 15) as more:  # in the slots of those that left
            server.broadcast(b"three")
            server.stop()
            assert [receive_all(sock) for sock in socks[10:]] == [b"onetwothree"] * 10
            assert [receive_all(sock) for sock in more] == [b"three"] * 15


@pytest.mark.parametrize("options", [{"loops": 3}, {"loops": 3, "reuse_port": True}], ids=str)
def test_all_connections_of_all_loops(options: Any) -> None:
    handler = Recorder()
    with serving(handler, **options) as server, clients(server, handler, 60) as socks:
        server.broadcast(b"from a thread,")
        on_loop(server.loops[1], server.broadcast, bytearray(b"from a loop,"))
        on_loop(server.loops[1], server.loops[1].broadcast, b" of mine")
        mine = server.loops[1].connection_count
        for loop in server.loops:
            on_loop(loop, lambda: None)  # what was given to it before has been done
        server.stop()
        got = [receive_all(sock) for sock in socks]
    assert got.count(b"from a thread,from a loop, of mine") == mine
    assert got.count(b"from a thread,from a loop,") == 60 - mine


def test_only_those_that_are_named() -> None:
    handler = Recorder()
    with serving(handler, loops=2) as server, contextlib.ExitStack() as stack:
        pairs = list(by_client(server, handler, 12))
        socks = [stack.enter_context(sock) for sock, _ in pairs]
        conns = [conn for _, conn in pairs]
        server.broadcast(b"list ", conns[::2])
        server.broadcast(b"set ", set(conns[::3]))
        server.broadcast(b"generator ", (conn for conn in conns[::4]))
        server.broadcast(b"nobody ", [])
        server.broadcast(b"all")
        for loop in server.loops:
            on_loop(loop, lambda: None)
        server.stop()
        for number, sock in enumerate(socks):
            words = [b"list "] * (number % 2 == 0) + [b"set "] * (number % 3 == 0)
            words += [b"generator "] * (number % 4 == 0)
            assert receive_all(sock) == b"".join(words) + b"all"


def test_nobody_is_there() -> None:
    handler = Recorder()
    server = Server(handler, "127.0.0.1:0")
    server.broadcast(b"not started")
    with server.running():
        server.broadcast(b"nobody")
        on_loop(server.loops[0], server.broadcast, b"nobody")
        with clients(server, handler, 1) as (sock,):
            server.broadcast(b"")
            server.broadcast(b"x")
            assert receive_exactly(sock, 1) == b"x"
    server.broadcast(b"stopped")


# ---- who reads slowly ---------------------------------------------------------------------------


class Narrow(Recorder):
    """Gives connections a small send buffer in the kernel."""

    def on_connect(self, conn: Connection) -> None:
        with socket.socket(fileno=conn.fileno()) as borrowed:
            borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
            borrowed.detach()
        super().on_connect(conn)


def small_window(server: Server) -> socket.socket:
    """A socket with a small receive buffer, so that the server's send soon falls short."""
    sock = socket.socket()
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert server.address.port is not None
    sock.connect((server.address.host, server.address.port))
    return sock


def test_one_of_five_hundred_that_does_not_read_is_closed_and_costs_nobody_else() -> None:
    handler = Narrow()
    piece = random.Random(1).randbytes(16384)
    with (
        serving(handler, write_limit=1 << 18) as server,
        clients(server, handler, MANY - 1) as socks,
        small_window(server) as stuck,
    ):
        slow = handler.next("connect").conn
        rounds = 0
        told: list[str] = []
        while "close" not in told:
            server.broadcast(piece)
            assert all(receive_exactly(sock, len(piece)) == piece for sock in socks)
            rounds += 1
            on_loop(slow.loop, lambda: None)
            while not handler.events.empty():
                event = handler.events.get()
                assert event.conn is slow
                told.append(event.name)
                reason = event.value
        assert rounds * len(piece) > 1 << 18
        assert told == ["high_water", "close"]
        assert reason is CloseReason.SLOW_CONSUMER
        server.broadcast(b"and on")
        assert all(receive_exactly(sock, 6) == b"and on" for sock in socks)
        stuck.close()


def test_what_a_slow_one_has_not_taken_waits_in_order() -> None:
    handler = Narrow()
    rng = random.Random(2)
    pieces = [rng.randbytes(rng.choice([1, 100, 9000, 70_000])) for _ in range(60)]
    with (
        serving(handler) as server,
        clients(server, handler, 20) as socks,
        small_window(server) as sock,
    ):
        slow = handler.next("connect").conn
        drinkers = [Background(receive_exactly, s, sum(map(len, pieces))) for s in socks]
        for piece in pieces:
            server.broadcast(piece)
        for drinker in drinkers:
            drinker.join()
        unsent: list[int] = []
        on_loop(slow.loop, lambda: unsent.append(slow.write_buffer_length))
        assert unsent[0] > 65536
        assert receive_exactly(sock, sum(map(len, pieces))) == b"".join(pieces)


def test_on_sent_tells_of_what_was_sent_and_not_of_what_was_broadcast() -> None:
    handler = Narrow()
    sent: list[str] = []
    done = threading.Event()
    big = bytes(1 << 20)
    with serving(handler) as server, small_window(server) as sock:
        conn = handler.next("connect").conn

        def last(_: Connection) -> None:
            sent.append("c")
            done.set()

        def talk() -> None:
            server.broadcast(b"a")
            conn.send(b"b", lambda _: sent.append("b"))
            server.broadcast(big)
            conn.send(b"c", last)
            server.broadcast(big)

        on_loop(conn.loop, talk)
        on_loop(conn.loop, lambda: None)
        on_loop(conn.loop, lambda: None)
        assert sent == ["b"]
        receive_exactly(sock, 2 + len(big) + 1)
        wait(done)
        receive_exactly(sock, len(big))
        assert sent == ["b", "c"]


# ---- order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 10_000], ids=["joined", "by pointer"])
def test_it_stays_in_order_with_what_is_sent(size: int) -> None:
    class Talks(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            conn.send(b"1" * size)
            server.broadcast(b"2" * size)
            conn.send(b"3" * size)
            server.broadcast(b"4" * size, [conn])
            conn.send(b"5" * size)
            return data  # a view of the arena

    handler = Talks()
    with serving(handler) as server, clients(server, handler, 2) as (sock, other):
        sock.sendall(b"6")
        assert receive_exactly(sock, 5 * size + 1) == b"".join(
            [*(b"%d" % number * size for number in range(1, 6)), b"6"]
        )
        assert receive_exactly(other, size) == b"2" * size


def test_it_stays_in_order_with_what_the_same_thread_sends() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        for number in range(500):
            conn.send(b"s%3d" % number)
            server.broadcast(b"b%3d" % number)
        got = receive_exactly(sock, 4000)
    assert got == b"".join(b"s%3db%3d" % (number, number) for number in range(500))


def test_the_callers_buffer_is_free_again() -> None:
    handler = Recorder()
    data = bytearray(b"first  ")
    with serving(handler, loops=2) as server, clients(server, handler, 4) as socks:
        conns_done = threading.Event()
        for loop in server.loops:
            loop.call_soon_threadsafe(wait, conns_done)  # it waits, so the call has to
        server.broadcast(data)
        server.broadcast(memoryview(data)[::-1])
        server.broadcast(np.arange(7, dtype=np.uint8)[::-1])
        data[:] = b"changed"
        conns_done.set()
        wanted = b"first    tsrif" + bytes(range(6, -1, -1))
        assert [receive_exactly(sock, 21) for sock in socks] == [wanted] * 4
