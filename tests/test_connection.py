"""What is known of a connection, and pausing it."""

from __future__ import annotations

import gc
import socket
import threading
from typing import Any

import pytest
from helpers import (
    Background,
    Recorder,
    connect,
    on_loop,
    receive_all,
    receive_exactly,
    serving,
    wait,
)

from gevffi import Address, CloseReason, Connection, FixedSize, Protocol, Raw, ReadBuffer, Server


class Whole(Protocol):
    """The same as Raw, in the way of any other protocol."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        return (None, buffer.read()) if buffer else (None, None)


# ---- what is known of a connection --------------------------------------------------------------


def test_ids_addresses_and_state() -> None:
    told: list[tuple[Any, Any, bool]] = []

    class Asking(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            told.append((conn.peer_address, conn.local_address, conn.connected))
            return data

        def on_close(self, conn: Connection, reason: CloseReason) -> None:
            told.append((conn.peer_address, conn.local_address, conn.connected))
            assert conn.fileno() == -1
            assert conn.write_buffer_length == conn.read_buffer_length == 0
            super().on_close(conn, reason)

    handler = Asking()
    with serving(handler) as server, connect(server) as sock:
        ours, theirs = sock.getsockname(), sock.getpeername()
        sock.sendall(b"x")
        receive_exactly(sock, 1)
        sock.close()
        conn = handler.until("close").conn
        assert told == [(ours, theirs, True), (ours, theirs, False)]
        assert conn.loop is server.loops[0]
        assert str(conn.id) in repr(conn)
        assert f"{ours[0]}:{ours[1]}" in repr(conn)


def test_addresses_first_asked_for_after_the_close() -> None:
    handler = Recorder()
    with serving(handler) as server:
        with connect(server) as sock:
            ours = sock.getsockname()
        conn = handler.until("close").conn
        assert conn.peer_address == ours
        assert conn.local_address is None


def test_addresses_first_asked_for_when_it_is_gone_and_nobody_was_told() -> None:
    told: list[Any] = []

    class Asks(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> None:
            conn.abort()
            told.append((conn.fileno(), conn.local_address))

    handler = Asks()
    with serving(handler) as server, connect(server) as sock:
        handler.next("connect")
        sock.sendall(b"x")
        assert handler.next("close").value is CloseReason.LOCAL
    assert told == [(-1, None)]


def test_ids_are_never_used_twice() -> None:
    handler = Recorder()
    ids = set()
    with serving(handler) as server:
        for _ in range(5):
            connect(server).close()
            ids.add(handler.until("close").conn.id)
    assert len(ids) == 5


def test_context_and_values_belong_to_one_connection() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server), connect(server):
        one, other = (handler.next("connect").conn for _ in range(2))
        assert one.context is None
        one.context = {"user": 1}
        one.set("name", "one")
        one.set("none", None)
        one.set("name", "uno")
        assert one.get("name") == "uno"
        assert one.get("none", 5) is None
        assert one.get("other") is None
        assert one.get("other", 5) == 5
        assert other.context is None
        assert other.get("name", "nothing") == "nothing"
        one.delete("name")
        one.delete("name")
        other.delete("name")
        assert one.get("name", "gone") == "gone"


def test_connection_count() -> None:
    handler = Recorder()
    server = Server(handler, "127.0.0.1:0", loops=2)
    assert server.connection_count == 0
    with server.running():
        socks = [connect(server) for _ in range(7)]
        for _ in socks:
            handler.next("connect")
        assert server.connection_count == 7
        for sock in socks[:3]:
            sock.close()
            handler.until("close")
        assert server.connection_count == 4
        for sock in socks[3:]:
            sock.close()
    assert server.connection_count == 0


def test_the_handler_may_ask_for_the_count() -> None:
    counts: list[int] = []
    server: Server

    class Counting(Recorder):
        def on_connect(self, conn: Connection) -> None:
            counts.append(server.connection_count)

        def on_close(self, conn: Connection, reason: CloseReason) -> None:
            counts.append(server.connection_count)
            super().on_close(conn, reason)

    handler = Counting()
    with serving(handler) as server:
        connect(server).close()
        handler.until("close")
    assert counts == [1, 0]


def test_a_closed_connection_is_forgotten() -> None:
    handler = Recorder()
    with serving(handler) as server:
        connect(server).close()
        conn = handler.until("close").conn
        gc.collect()
        holders = [o for o in gc.get_referrers(conn) if isinstance(o, (list, dict, set))]
        assert [holder for holder in holders if holder is not globals()] == []


# ---- pausing ------------------------------------------------------------------------------------


def test_paused_reading_delivers_nothing_and_resumed_delivers_all() -> None:
    handler = Recorder()
    size = 4 << 20
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.pause_reading()
        paused = threading.Event()
        conn.loop.call_soon_threadsafe(paused.set)
        wait(paused)
        sender = Background(sock.sendall, bytes(size))
        with connect(server) as other:  # served meanwhile
            handler.next("connect")
            other.sendall(b"x")
            assert handler.next("message").value == (None, b"x")
        handler.next("eof")
        handler.next("close")
        assert handler.rest() == []
        conn.resume_reading()
        got = 0
        while got < size:
            got += len(handler.next("message").value[1])
        sender.join()


@pytest.mark.parametrize("protocol", [Raw(), Whole(), FixedSize(4)], ids=["raw", "python", "c"])
def test_pausing_another_connection_whose_message_is_in_the_same_turn(protocol: Protocol) -> None:
    """Whoever is served first pauses the other, which gets its message when it is resumed."""

    class Rivals(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            if bytes(data) == b"stop":
                for other in conns - {conn}:
                    other.pause_reading()
            return data

    handler, conns = Rivals(), set()
    with serving(handler, protocol=protocol) as server, connect(server) as a, connect(server) as b:
        conns |= {handler.next("connect").conn, handler.next("connect").conn}

        def both_at_once() -> None:  # the loop waits here, so one turn finds both
            a.sendall(b"stop")
            b.sendall(b"stop")

        on_loop(server.loops[0], both_at_once)
        first = handler.next("message").conn
        (other,) = conns - {first}
        on_loop(server.loops[0], lambda: None)  # the turn is over
        assert handler.rest() == []
        (held,) = [sock for sock in (a, b) if Address.of(sock.getsockname()) == other.peer_address]
        held.sendall(b"more")
        held.shutdown(socket.SHUT_WR)
        other.resume_reading()
        got = b""
        while len(got) < 8:
            event = handler.next("message")
            assert event.conn is other
            got += event.value[1]
        assert got == b"stopmore"
        assert handler.next("eof").conn is other
        assert receive_all(held) == b"stopmore"


def test_what_asks_c_belongs_to_the_loop() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server):
        conn = handler.next("connect").conn
        with pytest.raises(RuntimeError, match="belongs to the thread of loop-0"):
            conn.fileno()
        with pytest.raises(RuntimeError, match="belongs to the thread of loop-0"):
            _ = conn.write_buffer_length
