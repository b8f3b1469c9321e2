"""Connection.send from every thread, `on_sent`, and what happens when the peer does not read."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import Any

import pytest
from helpers import (
    Background,
    Echo,
    Recorder,
    connect,
    receive_all,
    receive_exactly,
    serving,
    wait,
)

from gevffi import CloseReason, Connection

# ---- sending ------------------------------------------------------------------------------------


class Greeter(Recorder):
    def on_connect(self, conn: Connection) -> None:
        conn.send(b"hello ")
        super().on_connect(conn)
        conn.send(b"there")


def test_send_works_inside_on_connect() -> None:
    handler = Greeter()
    with serving(handler) as server, connect(server) as sock:
        assert receive_exactly(sock, 11) == b"hello there"
        handler.next("connect")
        server.stop()
        assert handler.next("close").value is CloseReason.SHUTDOWN
    assert handler.rest() == []


def test_send_and_close_inside_on_connect() -> None:
    class Curt(Greeter):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.close()
            conn.close()
            conn.send(b" nobody gets this")

    handler = Curt()
    with serving(handler) as server, connect(server) as sock:
        assert receive_all(sock) == b"hello there"
        handler.next("connect")
        assert handler.next("close").value is CloseReason.LOCAL
    assert handler.rest() == []


def test_what_another_thread_sends_arrives_in_order() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        for number in range(1000):
            conn.send(number.to_bytes(4, "big"))
        got = receive_exactly(sock, 4000)
    assert got == b"".join(number.to_bytes(4, "big") for number in range(1000))


def test_eight_threads_send_at_once_and_messages_stay_whole() -> None:
    handler = Recorder()
    size, count = 600, 200
    with serving(handler, write_limit=1 << 24) as server, connect(server) as sock:
        conn = handler.next("connect").conn

        def send(mark: int) -> None:
            for _ in range(count):
                conn.send(bytes([mark]) * size)

        senders = [Background(send, mark) for mark in range(8)]
        got = receive_exactly(sock, 8 * count * size)
        for sender in senders:
            sender.join()
    pieces = [got[at : at + size] for at in range(0, len(got), size)]
    assert all(len(set(piece)) == 1 for piece in pieces)
    assert Counter(piece[0] for piece in pieces) == dict.fromkeys(range(8), count)


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2], {}, object()], ids=repr)
def test_sending_what_is_not_bytes_like_raises_in_the_sender(data: Any) -> None:
    caught: list[type] = []

    class Wrong(Echo):
        def on_message(self, conn: Connection, ctx: Any, message: Any) -> Any:
            try:
                conn.send(data)
            except TypeError:
                caught.append(TypeError)
            return message

    handler = Wrong()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        with pytest.raises(TypeError):
            conn.send(data)
        sock.sendall(b"x")
        assert receive_exactly(sock, 1) == b"x"
    assert caught == [TypeError]


def test_sending_to_the_closed_does_nothing() -> None:
    handler = Recorder()
    called = threading.Event()
    with serving(handler) as server:
        connect(server).close()
        conn = handler.until("close").conn
        conn.send(b"x", lambda conn: called.set())
        conn.close()
        conn.abort()
        conn.shutdown_write()
        conn.pause_reading()
        conn.resume_reading()
        done = threading.Event()
        conn.loop.call_soon_threadsafe(done.set)
        wait(done)
    conn.send(b"x")
    conn.close()
    assert not called.is_set()
    assert handler.rest() == []


# ---- on_sent ------------------------------------------------------------------------------------


def test_on_sent_is_called_in_order_on_the_loops_thread() -> None:
    handler = Recorder()
    calls: list[tuple[int, int]] = []
    done = threading.Event()
    with serving(handler) as server, connect(server) as sock:
        event = handler.next("connect")
        for number in range(10):
            size = (0, 10, 10_000, 1_000_000)[number % 4]

            def sent(conn: Connection, number: int = number) -> None:
                assert conn is event.conn
                calls.append((number, threading.get_ident()))
                if number == 9:
                    done.set()

            event.conn.send(bytes(size), sent)
        receive_exactly(sock, 3 * 10 + 2 * 10_000 + 2 * 1_000_000)
        wait(done)
    assert calls == [(number, event.thread) for number in range(10)]


def test_on_sent_waits_until_the_kernel_has_taken_all() -> None:
    handler = Recorder()
    big = bytes(8 << 20)
    sent = threading.Event()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.send(big, lambda conn: sent.set())
        handler.next("high_water")  # so far it has taken only some
        assert not sent.is_set()
        assert receive_exactly(sock, len(big)) == big
        wait(sent)


def test_on_sent_is_not_called_when_the_connection_closes_before() -> None:
    handler = Recorder()
    called = threading.Event()
    with serving(handler) as server, connect(server):
        conn = handler.next("connect").conn
        conn.send(bytes(8 << 20), lambda conn: called.set())
        handler.next("high_water")
        conn.abort()
        assert handler.until("close").value is CloseReason.LOCAL
    assert not called.is_set()


def test_on_sent_is_not_called_for_what_comes_after_shutdown_write() -> None:
    handler = Recorder()
    calls: list[str] = []
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.send(b"before", lambda conn: calls.append("before"))
        conn.shutdown_write()
        conn.send(b"after", lambda conn: calls.append("after"))
        assert receive_all(sock) == b"before"
        sock.close()  # maybe in the turn in which the loop hears that the kernel took "before"
        handler.until("close")
    assert calls == ["before"]


def test_an_exception_in_on_sent_closes_that_connection() -> None:
    def fail(conn: Connection) -> None:
        raise LookupError("in on_sent")

    handler = Recorder()
    with serving(handler) as server, connect(server) as sock:
        handler.next("connect").conn.send(b"x", fail)
        assert receive_all(sock) == b"x"
        assert isinstance(handler.next("error").value, LookupError)
        assert handler.next("close").value is CloseReason.HANDLER_ERROR


# ---- backpressure -------------------------------------------------------------------------------


def test_high_water_pauses_and_drain_goes_on() -> None:
    size = 8 << 20

    class Flood(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            if data == b"flood":
                conn.send(bytes(size))

    handler = Flood()
    with serving(handler) as server, connect(server) as sock:
        handler.next("connect")
        sock.sendall(b"flood")
        handler.next("message")
        handler.next("high_water")
        sock.sendall(b"later")
        receive_exactly(sock, size)
        handler.next("drain")
        assert handler.next("message").value == (None, b"later")


def test_a_peer_that_never_reads_is_closed_at_the_write_limit() -> None:
    handler = Recorder()
    with serving(handler, write_limit=1 << 20) as server, connect(server):
        conn = handler.next("connect").conn
        for _ in range(64):
            conn.send(bytes(1 << 18))
        assert handler.until("close").value is CloseReason.SLOW_CONSUMER
        with connect(server):
            handler.next("connect")


def test_on_sent_is_not_called_when_the_peer_has_reset() -> None:
    gone, called = threading.Event(), threading.Event()

    class Late(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            wait(gone)
            conn.send(b"too late", lambda conn: called.set())

    handler = Late()
    with serving(handler) as server:
        sock = connect(server)
        sock.sendall(b"x")
        handler.until("message")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        gone.set()
        assert handler.until("close").value is CloseReason.RESET
    assert not called.is_set()
