"""What peers do to a server: reset, half-close, leave at once, dribble.

The reasons are the point: `on_close` tells why, and tells it once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import (
    QUIET,
    Echo,
    Recorder,
    audited,
    connect,
    cpu_used,
    on_loop,
    pattern,
    read,
    read_all,
    reset,
)

import gevffi
from gevffi import CloseReason, Connection


class Framed(gevffi.Protocol):
    """gev's example: a length of four bytes, then the payload."""

    def unpacket(self, conn: Connection, buffer: gevffi.ReadBuffer) -> tuple[Any, Any]:
        if len(buffer) < 4:
            return None, None
        size = buffer.peek_uint32()
        if len(buffer) < 4 + size:
            return None, None
        buffer.retrieve(4)
        return None, buffer.read(size)

    def packet(self, conn: Connection, reply: Any) -> Any:
        return len(reply).to_bytes(4, "big"), reply


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s"


def test_reset_while_idle() -> None:
    handler = Recorder()
    with audited(handler) as server:
        client = connect(server)
        handler.wait_for("connect")
        reset(client)
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.RESET]


def test_reset_in_the_middle_of_a_message_gives_its_ring_back() -> None:
    handler = Recorder()
    with audited(handler, protocol=Framed()) as server:
        client = connect(server)
        client.sendall(framed(b"whole") + b"\x00\x01\x00\x00half")
        handler.wait_for("message")
        assert on_loop(server, lambda: handler.conns[0].read_buffer_length) == 8
        reset(client)
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.RESET]
    assert handler.received[handler.conns[0].id] == b"whole"


class Flood(Recorder):
    """Answers a message with eight megabytes."""

    payload = pattern(8 << 20)

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        super().on_message(conn, ctx, data)
        return self.payload


def test_reset_with_unsent_output(address: str) -> None:
    handler = Flood()
    with audited(handler, address) as server:
        client = connect(server)
        client.sendall(b"go")
        handler.wait_for("high_water")
        reset(client)
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.RESET]


def test_end_and_then_reset_with_unsent_output_is_no_eof() -> None:
    """The output was lost, and CloseReason.EOF says that it was sent."""
    handler = Flood()
    with audited(handler, write_high_water=16 << 20) as server:
        client = connect(server)
        client.sendall(b"go")
        client.shutdown(socket.SHUT_WR)
        handler.wait_for("eof")
        reset(client)
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.RESET]


def test_half_close_gets_the_reply_and_then_the_end(address: str) -> None:
    handler = Flood()
    with audited(handler, address) as server:
        client = connect(server)
        client.sendall(b"go")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == Flood.payload
        client.close()
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.EOF]
    assert handler.counts["eof"] == 1


def test_half_close_kept_open_goes_on_sending(address: str) -> None:
    class Keeps(Recorder):
        def on_eof(self, conn: Connection) -> bool:
            super().on_eof(conn)
            return True

    handler = Keeps()
    with audited(handler, address) as server:
        client = connect(server)
        client.shutdown(socket.SHUT_WR)
        handler.wait_for("eof")
        assert cpu_used(server) < QUIET
        handler.conns[0].send(b"still here")
        assert read(client, 10) == b"still here"
        handler.conns[0].close()
        assert read_all(client) == b""
        client.close()
    assert handler.reasons == [CloseReason.LOCAL]
    assert handler.counts["eof"] == 1


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
def test_five_hundred_connect_and_leave_at_once(leave: Callable[[socket.socket], None]) -> None:
    handler = Recorder()
    with audited(handler) as server:
        clients = [connect(server) for _ in range(500)]
        for client in clients:
            leave(client)
        with connect(server) as last:
            last.sendall(b"served")
            handler.wait(
                lambda: any(bytes(got) == b"served" for got in handler.received.values()), "message"
            )
        handler.wait_for("close", 501)
    assert handler.counts["connect"] == 501
    wanted = CloseReason.RESET if leave is reset else CloseReason.EOF
    assert handler.reasons.count(wanted) >= 500


def test_five_hundred_unix_peers_leave_at_once(tmp_path: Path) -> None:
    handler = Recorder()
    with audited(handler, f"unix:{tmp_path}/s") as server:
        for client in [connect(server) for _ in range(500)]:
            client.close()
        handler.wait_for("close", 500)
    assert handler.reasons == [CloseReason.EOF] * 500


def test_one_byte_at_a_time(address: str) -> None:
    handler = Echo()
    with audited(handler, address, protocol=Framed()) as server:
        client = connect(server)
        if server.address.port is not None:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(b"hello") + framed(b"") + framed(b"world"):
            client.send(bytes([byte]))
        assert read(client, 22) == framed(b"hello") + framed(b"") + framed(b"world")
        client.close()
        handler.wait_for("close")
    assert handler.counts["message"] == 3
    assert handler.reasons == [CloseReason.EOF]


def test_last_bytes_are_delivered_before_the_end(address: str) -> None:
    handler = Recorder()
    payload = pattern(300_000)
    with audited(handler, address, read_budget=4096) as server:
        client = connect(server)
        client.sendall(payload)
        client.close()
        handler.wait_for("close")
    assert handler.received[handler.conns[0].id] == payload
    assert handler.events[handler.conns[0].id][-2:] == ["eof", "close"]


class Pauses(Recorder):
    """Stops reading at its first message."""

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        conn.pause_reading()
        return super().on_message(conn, ctx, data)


def test_paused_and_the_peer_hangs_up_does_not_spin(address: str) -> None:
    """With nothing armed, epoll still reports a hang-up; and what came before it is not lost."""
    handler = Pauses()
    with audited(handler, address) as server:
        client = connect(server)
        client.sendall(b"first")
        handler.wait_received(5)
        client.sendall(b"second")
        handler.conns[0].shutdown_write()
        assert read_all(client) == b""
        client.close()
        assert cpu_used(server) < QUIET
        handler.conns[0].resume_reading()
        handler.wait_received(11)
        handler.conns[0].resume_reading()
        handler.wait_for("close")
    assert handler.received[handler.conns[0].id] == b"firstsecond"
    assert handler.reasons == [CloseReason.EOF]


def test_paused_in_the_middle_of_frames_and_the_peer_ends() -> None:
    """The end must not overtake the frames that the pause left in the buffer."""
    handler = Pauses()
    with audited(handler, protocol=Framed()) as server:
        client = connect(server)
        client.sendall(framed(b"a") + framed(b"b") + framed(b"c"))
        handler.wait_for("message")
        client.close()
        for count in (2, 3):
            handler.conns[0].resume_reading()
            handler.wait_for("message", count)
        handler.conns[0].resume_reading()
        handler.wait_for("close")
    assert handler.received[handler.conns[0].id] == b"abc"
    assert handler.reasons == [CloseReason.EOF]


def test_paused_and_reset_closes() -> None:
    """An error is reported without any read interest, and must not be ignored."""
    handler = Pauses()
    with audited(handler) as server:
        client = connect(server)
        client.sendall(b"first")
        handler.wait_received(5)
        on_loop(server, lambda: None)
        reset(client)
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.RESET]


def test_reply_survives_a_close_with_unread_input() -> None:
    """close(2) with unread input resets, and a reset destroys what the peer has not read yet."""

    class Answers(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            conn.send(Flood.payload)
            conn.close()

    handler = Answers()
    with audited(handler, read_budget=1) as server:
        client = connect(server)
        client.sendall(b"a request that is longer than what is read of it")
        assert read_all(client) == Flood.payload
        client.close()
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.LOCAL]


@pytest.mark.parametrize("unread", [True, False], ids=["lingering", "unsent"])
def test_a_peer_that_never_ends_is_dropped_after_close_timeout(unread: bool) -> None:
    class Answers(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            conn.send(b"bye" if unread else Flood.payload)
            conn.close()

    handler = Answers()
    with audited(handler, read_budget=1, close_timeout=0.2) as server:
        client = connect(server)
        client.sendall(b"never read" if unread else b"x")
        handler.wait_for("close")
        client.close()
    # All was sent to the one, and only its end was waited for.
    assert handler.reasons == [CloseReason.LOCAL if unread else CloseReason.TIMEOUT]


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel cannot be made to give up so soon"
)
@pytest.mark.parametrize("reading", [True, False], ids=["reading", "paused"])
def test_a_peer_the_kernel_gives_up_is_a_timeout(reading: bool) -> None:
    """As with keepalive, when a machine has vanished: the socket's error is ETIMEDOUT. Here the
    peer's window stays shut for longer than tcp(7), TCP_USER_TIMEOUT, allows."""

    class Sends(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            sock = socket.socket(fileno=conn.fileno())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 50)
            sock.detach()
            if not reading:
                conn.pause_reading()
            conn.send(Flood.payload)

    handler = Sends()
    with audited(handler, write_high_water=1 << 24) as server, connect(server):
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.TIMEOUT]
