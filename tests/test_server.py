"""Server: start, running, stop, from every thread and more than once.

Signals are in test_server_signals.py, loops and balance in test_balance.py.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import queue
import socket
import threading
from collections import Counter
from typing import Any

import pytest
from helpers import (
    PATIENCE,
    Background,
    Echo,
    Recorder,
    clients,
    connect,
    receive_all,
    receive_exactly,
    serving,
    wait,
)
from outgoing import losing_nothing

from gevffi import CloseReason, Connection, EventLoop, Handler, Server


def test_the_same_server_runs_again() -> None:
    handler = Echo()
    server = Server(handler, "127.0.0.1:0")
    for _ in range(3):
        with server.running() as running, connect(server) as sock:
            assert running is server
            assert len(server.loops) == 1
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
        assert not server.loops
        assert server.address == ("127.0.0.1", 0)


def test_running_twice_at_once_is_refused_and_harms_nothing() -> None:
    handler = Echo()
    with serving(handler) as server:
        with pytest.raises(RuntimeError, match="running already"), server.running():
            pass
        with pytest.raises(RuntimeError, match="running already"):
            server.start()
        with connect(server) as sock:
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"


def test_an_exception_in_the_block_comes_through_and_stops_the_server() -> None:
    server = Server(Handler(), "127.0.0.1:0")
    with pytest.raises(LookupError, match="mine"), server.running():
        raise LookupError("mine")
    assert not server.loops


def test_start_on_a_thread_blocks_until_stop() -> None:
    handler = Echo()
    server = Server(handler, "127.0.0.1:0")
    up = threading.Event()
    server.run_after(0, up.set)
    starter = Background(server.start)
    wait(up)
    with connect(server) as sock:
        sock.sendall(b"x")
        assert receive_exactly(sock, 1) == b"x"
        server.stop()
        assert sock.recv(1) == b""
    starter.join()
    assert handler.until("close").value is CloseReason.SHUTDOWN
    server.stop()
    server.stop()


def test_stop_just_after_a_start_began() -> None:
    for _ in range(50):
        server = Server(Handler(), "127.0.0.1:0", loops=2)
        starter = Background(server.start)
        while not server.loops and starter.thread.is_alive():
            pass
        server.stop()
        starter.join()
        assert not server.loops


def test_start_on_the_main_thread_ends_with_stop_from_another() -> None:
    handler = Echo()
    server = Server(handler, "127.0.0.1:0")
    failure: list[BaseException] = []

    def client() -> None:
        try:
            with connect(server) as sock:
                sock.sendall(b"x")
                assert receive_exactly(sock, 1) == b"x"
        except BaseException as exc:
            failure.append(exc)
        finally:
            server.stop()

    server.run_after(0, lambda: Background(client))
    for _ in range(2):
        server.start()
        server.run_after(0, lambda: Background(client))
    assert failure == []
    assert handler.until("close")


@pytest.mark.parametrize("loops", [1, 3])
def test_stop_from_a_callback_does_not_wait_for_itself(loops: int) -> None:
    server: Server

    class Stopping(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            server.stop()
            return b"bye"

    handler = Stopping()
    server = Server(handler, "127.0.0.1:0", loops=loops)
    up = threading.Event()
    server.run_after(0, up.set)
    starter = Background(server.start)
    wait(up)
    with connect(server) as sock:
        sock.sendall(b"stop")
        assert receive_all(sock) == b"bye"
    starter.join()
    assert handler.until("close").value is CloseReason.SHUTDOWN


def test_stop_sends_what_waits() -> None:
    handler = Recorder()
    big = bytes(range(256)) * 32_000  # more than the kernel ever takes at once
    with serving(handler) as server, connect(server) as sock:
        handler.next("connect").conn.send(big)
        handler.next("high_water")
        stopper = Background(server.stop)
        assert receive_all(sock) == big
        stopper.join()
        assert handler.until("close").value is CloseReason.SHUTDOWN


def test_stop_gives_up_on_a_peer_that_does_not_read() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server):
        handler.next("connect").conn.send(bytes(8 << 20))
        handler.next("high_water")
        server.stop(0.05)
        assert handler.until("close").value is CloseReason.SHUTDOWN


def test_a_shorter_timeout_counts_when_stop_is_repeated() -> None:
    handler = Recorder()
    with serving(handler, close_timeout=1000) as server, connect(server):
        conn = handler.next("connect").conn
        conn.send(bytes(8 << 20))
        handler.next("high_water")
        patient = Background(server.stop, 1000)
        server.stop(0)
        patient.join()
        assert handler.until("close").value is CloseReason.SHUTDOWN


def test_stop_may_be_more_patient_than_close() -> None:
    handler = Recorder()
    size = 8 << 20
    late = threading.Event()
    with serving(handler, close_timeout=0.01) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.send(bytes(size))
        handler.next("high_water")
        server.run_after(0.2, late.set)  # when `close` would have given up
        stopper = Background(server.stop, PATIENCE)
        wait(late)
        assert len(receive_all(sock)) == size
        stopper.join()
        assert handler.until("close").value is CloseReason.SHUTDOWN


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_a_wrong_timeout_is_refused_and_the_server_goes_on(timeout: float) -> None:
    with serving(Echo()) as server:
        with pytest.raises(ValueError, match="timeout"):
            server.stop(timeout)
        with connect(server) as sock:
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"


def test_stop_while_messages_are_in_flight_closes_each_exactly_once() -> None:
    handler = Echo()
    count = 20
    # All of them are taken: those in the backlog when the server stops are reset, and no handler
    # hears of them.
    with serving(handler, loops=2) as server, clients(server, handler, count) as socks:

        def talk(sock: socket.socket) -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    sock.sendall(b"x" * 64)
                    if not sock.recv(64):
                        break
            sock.close()

        talkers = [Background(talk, sock) for sock in socks]
        for _ in range(10 * count):
            handler.until("message")
        server.stop()
        for talker in talkers:
            talker.join()
    names = Counter(handler.rest())
    assert names["close"] == count
    assert names["error"] == 0


def test_a_loop_that_fails_stops_the_server(caplog: pytest.LogCaptureFixture) -> None:
    class Bomb(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            raise SystemExit(3)  # no Exception: not this connection's matter

    handler = Bomb()
    server = Server(handler, "127.0.0.1:0", loops=2)
    up = threading.Event()
    server.run_after(0, up.set)
    starter = Background(server.start)
    wait(up)
    with connect(server) as sock, connect(server):
        handler.next("connect")
        handler.next("connect")
        sock.sendall(b"x")
        starter.join()
    assert [handler.next("close").value for _ in range(2)] == [CloseReason.SHUTDOWN] * 2
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)
    assert not server.loops


def test_start_needs_an_event_loop_of_its_own() -> None:
    with serving(Handler(), loops=2) as server:
        assert all(isinstance(loop, EventLoop) for loop in server.loops)
        assert len({loop.name for loop in server.loops}) == 2


def test_a_server_that_drains_refuses_new_clients() -> None:
    handler = Recorder(lambda data: bytes(24 << 20))
    with serving(handler, write_limit=64 << 20) as server, connect(server) as slow:
        slow.sendall(b"x")
        handler.until("high_water")
        stopping = threading.Thread(target=server.stop, args=(10.0,))
        stopping.start()
        address = server.address
        told = 0
        while told != errno.ECONNREFUSED:
            with socket.socket() as client:
                told = client.connect_ex(address)
        assert len(receive_all(slow)) == 24 << 20
        stopping.join()


@pytest.mark.parametrize("number", [0, 2])
def test_a_thread_that_cannot_be_had_leaves_nothing_open(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name == f"gevffi-loop-{number}":
            raise RuntimeError("can't start new thread")
        start(thread)

    server = Server(Echo(), "127.0.0.1:0", loops=3)
    with losing_nothing():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            with pytest.raises(RuntimeError, match="new thread"), server.running():
                pass
        assert not server.loops
        gc.collect()
    with server.running(), connect(server) as sock:
        sock.sendall(b"x")
        assert receive_exactly(sock, 1) == b"x"


def test_the_first_loop_runs_in_the_thread_of_start() -> None:
    handler = Recorder()
    server = Server(handler, "127.0.0.1:0", loops=2)
    threads: queue.Queue[str] = queue.Queue()
    server.run_after(0, lambda: threads.put(threading.current_thread().name))
    starter = Background(server.start)
    assert threads.get(timeout=PATIENCE) == starter.thread.name
    with connect(server), connect(server):
        found = {handler.next("connect").thread for _ in range(2)}
        assert starter.thread.ident in found
        assert len(found) == 2
        server.stop()
    starter.join()
