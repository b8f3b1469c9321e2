"""Outgoing connections that come about: `EventLoop.connect`."""

from __future__ import annotations

import os
import queue
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import Echo, Recorder, connect, receive_all, receive_exactly, serving
from outgoing import Names, call, looping, nobody, stdlib_echo
from protocols import Framed, Lines

from gevffi import CloseReason, Connection, EventLoop, Protocol

# ---- to whom ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:0", "[::1]:0", f"unix:@gevffi-test-connect-{os.getpid()}"],
    ids=["ipv4", "ipv6", "unix"],
)
def test_to_a_server_of_ones_own(address: str) -> None:
    theirs, ours = Echo(), Recorder()
    with serving(theirs, address) as server, looping() as loop:
        conn = loop.connect(server.address, ours)
        event = ours.next("connect")
        assert event.conn is conn
        assert conn.connected
        assert conn.peer_address == server.address
        if server.address.port is not None:
            assert (
                call(loop, lambda: conn.local_address) == theirs.next("connect").conn.peer_address
            )
        conn.send(b"hello")
        message = ours.next("message")
        assert message.value == (None, b"hello")
        assert message.thread == event.thread != threading.get_ident()
        conn.close()
        assert ours.next("close").value is CloseReason.LOCAL
        assert theirs.until("close").value is CloseReason.EOF
    assert ours.rest() == []


def test_to_a_path(tmp_path: Path) -> None:
    ours = Recorder()
    with serving(Echo(), f"unix:{tmp_path / 'socket'}") as server, looping() as loop:
        conn = loop.connect(server.address, ours)
        conn.send(b"hello")
        ours.next("connect")
        assert ours.next("message").value == (None, b"hello")
        assert conn.peer_address == server.address


def test_to_a_server_of_the_standard_library() -> None:
    ours = Recorder()
    with stdlib_echo() as address, looping() as loop:
        conn = loop.connect(address, ours)
        conn.send(b"hello")
        ours.next("connect")
        assert ours.next("message").value == (None, b"hello")
        conn.shutdown_write()
        assert ours.next("close").value is CloseReason.EOF


def test_by_name() -> None:
    ours = Recorder()
    with serving(Echo()) as server, looping() as loop:
        conn = loop.connect(f"localhost:{server.address.port}", ours)
        assert conn.peer_address.host == "localhost"
        ours.next("connect")
        assert conn.peer_address == server.address


def test_an_empty_host_is_this_machine() -> None:
    ours = Recorder()
    with serving(Echo(), ":0") as server, looping() as loop:
        loop.connect(f":{server.address.port}", ours)
        ours.next("connect")


def test_the_addresses_of_a_name_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, unused = Recorder(), Recorder(), Recorder()
    with serving(theirs) as server, serving(unused) as other, looping() as loop:
        found = [nobody(), server.address, nobody(), other.address]
        Names(monkeypatch, somewhere=found)
        conn = loop.connect("somewhere:80", ours)
        ours.next("connect")
        theirs.next("connect")
        assert conn.peer_address == server.address
    assert unused.rest() == []


def test_the_loop_goes_on_while_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    with serving(Echo()) as server, looping() as loop:
        names = Names(monkeypatch, slow=[server.address])
        names.answer.clear()
        loop.connect("slow:80", ours)
        assert names.asked.wait(20)
        loop.connect(server.address, ours).send(b"meanwhile")
        ours.next("connect")
        assert ours.next("message").value == (None, b"meanwhile")
        names.answer.set()
        ours.next("connect")


def test_many_at_once() -> None:
    """More than a turn serves and than the table has room for."""
    ours = Recorder()
    with serving(Echo()) as server, looping(max_events=3) as loop:
        conns = {loop.connect(server.address, ours) for _ in range(150)}
        for number, conn in enumerate(conns):
            conn.send(b"%03d" % number)
        events = [ours.events.get(timeout=20) for _ in range(300)]
        opened: set[Connection] = set()
        for event in events:
            if event.name == "connect":
                opened.add(event.conn)
            else:
                assert event.name == "message"
                assert event.conn in opened
        assert opened == conns
        assert sorted(event.value[1] for event in events if event.value) == [
            b"%03d" % number for number in range(150)
        ]
        assert loop.connection_count == loop.load == 150
        for conn in conns:
            conn.abort()
        for _ in conns:
            ours.next("close")
        assert loop.connection_count == loop.load == 0


# ---- from where ---------------------------------------------------------------------------------


def test_from_the_loops_own_thread_nothing_is_called_before_it_returns() -> None:
    ours = Recorder()
    with serving(Echo()) as server, looping() as loop:

        def begin() -> list[str]:
            loop.connect(server.address, ours)
            return ours.rest()

        assert call(loop, begin) == []
        ours.next("connect")


def test_before_the_loop_runs() -> None:
    ours = Recorder()
    with serving(Echo()) as server:
        loop = EventLoop()
        loop.connect(server.address, ours, timeout=20).send(b"1")
        with loop.running():
            ours.next("connect")
            assert ours.next("message").value == (None, b"1")


def test_from_a_handler_of_a_server() -> None:
    """A relay: what comes in on one connection goes out on another of the same loop."""

    class Relay(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.context = conn.loop.connect(upstream.address, back)
            conn.context.context = conn

        def on_message(self, conn: Connection, ctx: Any, data: Any) -> None:
            conn.context.send(data)

        def on_close(self, conn: Connection, reason: CloseReason) -> None:
            conn.context.close()

    class Back(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> None:
            conn.context.send(data)

    relay, back = Relay(), Back()
    with (
        serving(Echo()) as upstream,
        serving(relay) as server,
        connect(server) as sock,
    ):
        sock.sendall(b"there and back")
        assert receive_exactly(sock, 14) == b"there and back"
        assert back.next("connect").thread == relay.next("connect").thread


# ---- what is asked of it before it is open ------------------------------------------------------


class Greeting(Recorder):
    """Says who it is, first of all."""

    def on_connect(self, conn: Connection) -> None:
        super().on_connect(conn)
        conn.send(b"I am here. ")


def test_what_is_sent_before_goes_out_after_what_on_connect_sends() -> None:
    ours, sent = Greeting(), queue.Queue[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:

        def begin() -> Connection:
            conn = loop.connect(listener.getsockname(), ours)
            reused = bytearray(b"one ")
            conn.send(reused)
            assert conn.write_buffer_length == 4
            reused[:] = b"two "
            conn.send(memoryview(reused), lambda conn: sent.put(b"two"))
            reused[:] = b"xxxx"
            assert conn.write_buffer_length == 8
            conn.send(b"three", lambda conn: sent.put(b"three"))
            return conn

        conn = call(loop, begin)
        sock, _ = listener.accept()
        with sock:
            assert receive_exactly(sock, 24) == b"I am here. one two three"
            assert sent.get(timeout=20) == b"two"
            assert sent.get(timeout=20) == b"three"
            conn.close()
            assert receive_all(sock) == b""
            ours.until("close")


def test_what_is_known_of_it_before() -> None:
    ours = Recorder()
    with serving(Echo()) as server, looping() as loop:

        def begin() -> Connection:
            conn = loop.connect(server.address, ours)
            assert not conn.connected
            assert conn.peer_address == server.address
            assert conn.local_address is None
            assert conn.fileno() == -1
            assert conn.write_buffer_length == conn.read_buffer_length == 0
            assert repr(conn) == f"<Connection {conn.id} {server.address} connecting>"
            assert loop.connection_count == loop.load == 0
            conn.context = "mine"
            return conn

        conn = call(loop, begin)
        assert ours.next("connect").conn.context == "mine"
        assert repr(conn) == f"<Connection {conn.id} {server.address}>"
        assert loop.connection_count == loop.load == 1


def test_something_that_cannot_be_sent_is_refused_at_once() -> None:
    ours = Recorder()
    with serving(Echo()) as server, looping() as loop:

        def begin() -> None:
            conn = loop.connect(server.address, ours)
            with pytest.raises(TypeError):
                conn.send("text")
            conn.send(b"bytes")

        call(loop, begin)
        ours.next("connect")
        assert ours.next("message").value == (None, b"bytes")


def test_close_before_it_is_open_sends_what_was_sent() -> None:
    ours = Recorder()
    big = bytes(range(256)) * 10_000
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:

        def begin() -> None:
            conn = loop.connect(listener.getsockname(), ours)
            conn.send(big)
            conn.close()
            conn.send(b"too late")

        call(loop, begin)
        sock, _ = listener.accept()
        with sock:
            assert receive_all(sock) == big
        ours.next("connect")
        assert ours.next("close").value is CloseReason.LOCAL


def test_shutdown_write_before_it_is_open() -> None:
    ours = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:

        def begin() -> None:
            conn = loop.connect(listener.getsockname(), ours)
            conn.send(b"question")
            conn.shutdown_write()
            conn.send(b"too late")

        call(loop, begin)
        sock, _ = listener.accept()
        with sock:
            assert receive_all(sock) == b"question"
            sock.sendall(b"answer")
        ours.next("connect")
        assert ours.next("message").value == (None, b"answer")
        assert ours.next("close").value is CloseReason.EOF


@pytest.mark.parametrize("protocol", [None, Lines()])
def test_pause_reading_before_it_is_open(protocol: Protocol | None) -> None:
    ours = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:

        def begin() -> Connection:
            conn = loop.connect(listener.getsockname(), ours, protocol)
            conn.pause_reading()
            return conn

        conn = call(loop, begin)
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"early\n")
            ours.next("connect")
            for _turn in range(3):
                call(loop, lambda: None)
            assert ours.rest() == []
            conn.resume_reading()
            assert ours.next("message").value[1].strip() == b"early"


def test_pause_and_resume_before_it_is_open() -> None:
    ours = Recorder()
    with serving(Greeting()) as server, looping() as loop:

        def begin() -> None:
            conn = loop.connect(server.address, ours)
            conn.pause_reading()
            conn.resume_reading()

        call(loop, begin)
        ours.next("connect")
        ours.next("message")


# ---- once it is open it is like any other -------------------------------------------------------


def test_a_protocol_at_both_ends() -> None:
    theirs = Recorder(lambda data: bytes(data).upper())
    ours = Recorder()
    with serving(theirs, protocol=Framed()) as server, looping() as loop:
        conn = loop.connect(server.address, ours, Framed())
        for word in (b"one", b"", b"three" * 100_000):
            conn.send(word)
        ours.next("connect")
        for word in (b"ONE", b"", b"THREE" * 100_000):
            assert ours.next("message").value == (None, word)


def test_its_time_to_connect_is_over_once_it_is_open() -> None:
    ours = Recorder()
    late = threading.Event()
    with serving(Echo()) as server, looping() as loop:
        # Long enough for a machine that has much else to do.
        conn = loop.connect(server.address, ours, timeout=2)
        ours.next("connect")
        call(loop, lambda: loop.call_later(2.05, late.set))
        assert late.wait(20)
        conn.send(b"still here")
        assert ours.next("message").value == (None, b"still here")


def test_a_packet_that_fails_comes_after_on_connect() -> None:
    class Odd(Protocol):
        def packet(self, conn: Connection, reply: Any) -> Any:
            raise LookupError("no packet")

    ours = Recorder()
    with serving(Echo()) as server, looping() as loop:
        loop.connect(server.address, ours, Odd()).send(b"1")
        ours.next("connect")
        assert isinstance(ours.next("error").value, LookupError)
        assert ours.next("close").value is CloseReason.HANDLER_ERROR


def test_on_connect_raises() -> None:
    class Failing(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            raise LookupError("no")

    ours = Failing()
    with serving(Greeting()) as server, looping() as loop:
        loop.connect(server.address, ours).send(b"dropped")
        ours.next("connect")
        assert isinstance(ours.next("error").value, LookupError)
        assert ours.next("close").value is CloseReason.HANDLER_ERROR
        assert ours.rest() == []


def test_what_the_peer_sent_before_it_left_is_delivered() -> None:
    ours = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:

        def begin() -> None:
            loop.connect(listener.getsockname(), ours)

        call(loop, begin)
        sock, _ = listener.accept()
        sock.sendall(b"bye")
        sock.close()
        ours.next("connect")
        assert ours.next("message").value == (None, b"bye")
        ours.next("eof")
        assert ours.next("close").value is CloseReason.EOF


class Looking(Recorder):
    """Looks at its socket at once: a moment later it may be idle, and closed."""

    def on_connect(self, conn: Connection) -> None:
        fd = conn.fileno()
        with socket.socket(fileno=os.dup(fd)) as sock:
            no_delay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            keep_idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        self._put("connect", conn, (bool(no_delay), keep_idle, os.get_inheritable(fd)))


def test_the_options_of_the_loop_count() -> None:
    ours = Looking()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with looping(keepalive=7, idle_time=0.2) as loop:
            loop.connect(listener.getsockname(), ours)
            assert ours.next("connect").value == (True, 7, False)
            assert ours.next("close").value is CloseReason.IDLE

        with looping(write_high_water=1 << 16, write_limit=1 << 22) as loop:
            conn = loop.connect(listener.getsockname(), ours)
            ours.next("connect")
            conn.send(bytes(6 << 20))
            conn.send(bytes(6 << 20))
            assert ours.until("close").value is CloseReason.SLOW_CONSUMER


def test_backpressure() -> None:
    ours = Recorder()
    size = 12 << 20
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:
        conn = loop.connect(listener.getsockname(), ours)
        conn.send(bytes(size))
        sock, _ = listener.accept()
        with sock:
            ours.next("connect")
            ours.next("high_water")
            receive_exactly(sock, size)
            ours.next("drain")


def test_stop_closes_it() -> None:
    ours = Recorder()
    with serving(Echo()) as server:
        with looping() as loop:
            loop.connect(server.address, ours)
            ours.next("connect")
        assert ours.next("close").value is CloseReason.SHUTDOWN
