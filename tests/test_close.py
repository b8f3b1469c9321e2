"""How connections end: close, abort, idleness, half-close from either side."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    Background,
    Echo,
    Recorder,
    connect,
    held,
    receive_all,
    receive_exactly,
    serving,
)

from gevffi import CloseReason, Connection
from gevffi.sys.memory import Pool

# ---- closing ------------------------------------------------------------------------------------


def test_close_sends_what_waits_first() -> None:
    handler = Recorder()
    big = bytes(range(256)) * 16_000
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.send(big)
        conn.close()
        assert receive_all(sock) == big
        assert handler.until("close").value is CloseReason.LOCAL


def test_close_drops_the_rest_when_the_peer_does_not_take_it_in_time() -> None:
    handler = Recorder()
    with serving(handler, close_timeout=0.05) as server, connect(server):
        conn = handler.next("connect").conn
        conn.send(bytes(8 << 20))
        conn.close()
        assert handler.until("close").value is CloseReason.TIMEOUT


def test_abort_drops_what_waits_and_resets() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        conn.send(bytes(8 << 20))
        conn.abort()
        assert handler.until("close").value is CloseReason.LOCAL
        with pytest.raises(ConnectionResetError):
            receive_all(sock)


def test_no_message_after_close() -> None:
    class Closing(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            conn.close()
            assert not conn.connected
            return b"bye"

    handler = Closing()
    with serving(handler) as server, connect(server) as sock:
        handler.next("connect")
        sock.sendall(b"1")
        assert receive_all(sock) == b"bye"
        with contextlib.suppress(OSError):
            sock.sendall(b"2")
    assert handler.next("message").value == (None, b"1")
    assert handler.next("close").value is CloseReason.LOCAL
    assert handler.rest() == []


def test_the_idle_are_closed_and_the_busy_are_not() -> None:
    handler = Echo()
    with (
        serving(handler, idle_time=2) as server,  # longer than this thread is ever kept waiting
        connect(server) as idle,
        connect(server) as busy,
    ):
        idle_port = idle.getsockname()[1]
        gone = Background(receive_all, idle)
        rounds = 0
        while gone.thread.is_alive():
            busy.sendall(b"x")
            assert receive_exactly(busy, 1) == b"x"
            rounds += 1
        gone.join()
        closed = handler.until("close")
        assert closed.value is CloseReason.IDLE
        assert closed.conn.peer_address.port == idle_port
        assert rounds


def test_an_idle_time_below_a_millisecond_is_not_never() -> None:
    handler = Recorder()
    with serving(handler, idle_time=0.0001) as server, connect(server):
        assert handler.until("close").value is CloseReason.IDLE


# ---- the first byte -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"loops": 2, "idle_time": 1000}], ids=str)
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_those_who_never_speak_are_closed_and_those_who_did_are_not(
    unix: bool, options: dict[str, Any], tmp_path: Path
) -> None:
    handler = Echo()
    address = f"unix:{tmp_path}/s" if unix else "127.0.0.1:0"
    with (
        serving(handler, address, first_byte_timeout=0.2, **options) as server,
        contextlib.ExitStack() as stack,
    ):
        with held(server.loops[0]):  # its time begins when its first byte is there
            speaks = stack.enter_context(connect(server))
            speaks.sendall(b"x")
        assert receive_exactly(speaks, 1) == b"x"
        speaker = handler.until("message").conn
        with connect(server) as silent:
            assert receive_all(silent) == b""
        closed = handler.until("close")
        assert closed.value is CloseReason.TIMEOUT
        assert closed.conn is not speaker
        speaks.sendall(b"y")  # its own time was over before
        assert receive_exactly(speaks, 1) == b"y"
        speaks.close()
        assert handler.until("close").value is CloseReason.EOF


def test_a_greeting_is_no_answer() -> None:
    class Greets(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.send(b"hello?")

    handler = Greets()
    with serving(handler, first_byte_timeout=0.05) as server, connect(server) as sock:
        assert receive_all(sock) == b"hello?"
        assert handler.until("close").value is CloseReason.TIMEOUT


def test_a_first_byte_timeout_below_a_millisecond_is_not_never() -> None:
    handler = Recorder()
    with serving(handler, first_byte_timeout=0.0001) as server, connect(server):
        assert handler.until("close").value is CloseReason.TIMEOUT


def test_a_half_open_peer_that_said_nothing_is_kept_for_the_handler() -> None:
    handler = Recorder(half_open=True)
    with serving(handler, first_byte_timeout=0.2) as server, contextlib.ExitStack() as stack:
        with held(server.loops[0]):  # its time begins when its end is there
            sock = stack.enter_context(connect(server))
            sock.shutdown(socket.SHUT_WR)
        handler.next("connect")
        conn = handler.next("eof").conn
        with connect(server) as late:  # its time is over after that of the first
            assert receive_all(late) == b""
            assert handler.until("close").conn is not conn
        conn.send(b"still here")
        conn.close()
        assert receive_all(sock) == b"still here"
        assert handler.until("close").value is CloseReason.LOCAL


# ---- no memory ----------------------------------------------------------------------------------


def test_output_that_there_is_no_memory_for_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(max_bytes=1 << 20)
    monkeypatch.setattr("gevffi.loop.default_pool", lambda: pool)
    handler = Recorder()
    with serving(handler, arena_size=128 << 10) as server, connect(server), connect(server) as sock:
        conn, other = handler.next("connect").conn, handler.next("connect").conn
        conn.send(bytes(15 << 20))
        assert handler.next("close")[:3] == ("close", conn, CloseReason.NO_MEMORY)
        other.send(b"goes on")
        assert receive_exactly(sock, 7) == b"goes on"


# ---- half-close ---------------------------------------------------------------------------------


def test_shutdown_write_ends_our_side_and_goes_on_receiving() -> None:
    handler = Recorder()
    with serving(handler) as server, connect(server) as sock:
        conn = handler.next("connect").conn
        big = bytes(2 << 20)
        conn.send(big)
        conn.shutdown_write()
        assert receive_all(sock) == big
        sock.sendall(b"still listening?")
        assert handler.until("message").value == (None, b"still listening?")
        sock.close()
        assert handler.until("close").value is CloseReason.EOF


def test_the_peers_end_closes_once_all_is_sent() -> None:
    big = bytes(range(256)) * 16_000
    handler = Recorder(lambda data: big)
    with serving(handler) as server, connect(server) as sock:
        sock.sendall(b"?")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == big
        assert handler.until("eof").conn
        assert handler.until("close").value is CloseReason.EOF


def test_on_eof_that_returns_true_keeps_our_side_open() -> None:
    handler = Recorder(half_open=True)
    with serving(handler) as server, connect(server) as sock:
        handler.next("connect")
        sock.sendall(b"query")
        sock.shutdown(socket.SHUT_WR)
        handler.next("message")
        conn = handler.next("eof").conn
        assert conn.connected
        conn.send(b"late ")
        assert receive_exactly(sock, 5) == b"late "
        conn.send(b"answer")
        conn.close()
        assert receive_all(sock) == b"answer"
        assert handler.next("close").value is CloseReason.LOCAL
    assert handler.rest() == []


def test_both_sides_half_closed_are_closed() -> None:
    handler = Recorder(half_open=True)
    with serving(handler) as server, connect(server) as sock:
        handler.next("connect")
        sock.shutdown(socket.SHUT_WR)
        handler.next("eof").conn.shutdown_write()
        assert receive_all(sock) == b""
        assert handler.next("close").value is CloseReason.EOF


def test_a_kept_half_open_connection_ends_with_the_server() -> None:
    handler = Recorder(half_open=True)
    with serving(handler) as server, connect(server) as sock:
        sock.shutdown(socket.SHUT_WR)
        handler.until("eof")
    assert handler.next("close").value is CloseReason.SHUTDOWN
