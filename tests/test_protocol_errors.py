"""Protocols written in Python: errors, limits, and pausing in the middle of a batch."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import pytest
from helpers import Recorder, connect, receive_all, receive_exactly, serving, wait
from protocols import Framed, Lines, framed, pieces

from gevffi import CloseReason, Connection, FrameTooLargeError, Protocol, ProtocolError, ReadBuffer

# ---- errors -------------------------------------------------------------------------------------


class Strict(Lines):
    """Lines, some of which raise."""

    raises: dict[bytes, Exception] = {  # noqa: RUF012
        b"bad": ProtocolError("bad line"),
        b"big": FrameTooLargeError("big line"),
        b"bug": ZeroDivisionError("a bug"),
    }

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        for word, exc in self.raises.items():
            if buffer.peek(len(word)) == word:
                raise exc
        return super().unpacket(conn, buffer)


@pytest.mark.parametrize(
    ("word", "reason", "logged"),
    [
        (b"bad", CloseReason.PROTOCOL_ERROR, False),
        (b"big", CloseReason.FRAME_TOO_LARGE, False),
        (b"bug", CloseReason.HANDLER_ERROR, True),
    ],
)
def test_an_error_in_unpacket_comes_after_the_replies_before_it(
    word: bytes, reason: CloseReason, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Recorder(lambda data: data)
    with (
        serving(handler, protocol=Strict()) as server,
        connect(server) as sock,
        connect(server) as other,
    ):
        sock.sendall(b"one\ntwo\n" + word + b"\nfour\n")
        assert receive_all(sock) == b"one\ntwo\n"
        sock.close()
        assert handler.until("close").value is reason
        other.sendall(b"still here\n")
        assert receive_exactly(other, 11) == b"still here\n"
    assert any(record.levelno >= logging.ERROR for record in caplog.records) is logged


def test_an_error_in_packet_closes_that_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Framed):
        def packet(self, conn: Connection, reply: Any) -> Any:
            if reply == b"fault":
                raise LookupError("in packet")
            return super().packet(conn, reply)

    handler = Recorder(bytes)
    with pieces(handler, Faulty()) as client:
        client.sock.sendall(framed(b"fine", b"fault", b"never"))
        assert receive_all(client.sock) == framed(b"fine")
        assert isinstance(handler.until("error").value, LookupError)
        assert handler.next("close").value is CloseReason.HANDLER_ERROR
    assert len(caplog.records) == 1


def test_an_error_in_packet_for_another_thread_closes_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Recorder()
    with pieces(handler, Framed()) as client:
        client.conn.send(5)  # len(5)
        assert receive_all(client.sock) == b""
        assert isinstance(handler.next("error").value, TypeError)
        assert handler.next("close").value is CloseReason.HANDLER_ERROR
    assert len(caplog.records) == 1


@pytest.mark.parametrize("packet", ["text", 5, [b"a"], (b"a", "b"), (5,), None], ids=repr)
def test_a_packet_that_is_no_buffer_closes_that_connection(
    packet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Framed):
        def packet(self, conn: Connection, reply: Any) -> Any:
            return packet

    handler = Recorder(bytes)
    with pieces(handler, Wrong()) as client:
        client.sock.sendall(framed(b"x"))
        receive_all(client.sock)
        assert isinstance(handler.until("error").value, TypeError)
        assert handler.next("close").value is CloseReason.HANDLER_ERROR
    assert len(caplog.records) == 1


@pytest.mark.parametrize("result", [None, 5, (1,), (1, 2, 3), b"abc"], ids=repr)
def test_an_unpacket_that_returns_no_pair_closes_that_connection(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Framed):
        def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
            return result  # type: ignore[no-any-return]

    handler = Recorder()
    with pieces(handler, Wrong()) as client:
        client.sock.sendall(b"x")
        assert receive_all(client.sock) == b""
        handler.next("error")
        assert handler.next("close").value is CloseReason.HANDLER_ERROR
    assert len(caplog.records) == 1


def test_a_message_without_progress_is_an_error_and_no_spin(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Framed):
        def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
            return None, buffer.peek()

    handler = Recorder()
    with pieces(handler, Stuck()) as client:
        client.sock.sendall(b"x")
        assert receive_all(client.sock) == b""
        error = handler.next("error").value
        assert "Stuck.unpacket" in str(error)
        assert "1 bytes" in str(error)
        assert handler.next("close").value is CloseReason.HANDLER_ERROR
    assert len(caplog.records) == 1


def test_a_protocol_without_unpacket_closes_at_the_first_byte(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Recorder()
    with pieces(handler, Protocol()) as client:
        client.sock.sendall(b"x")
        assert receive_all(client.sock) == b""
        assert isinstance(handler.next("error").value, NotImplementedError)
    assert len(caplog.records) == 1


def test_no_more_is_delivered_when_the_handler_closes_in_the_middle() -> None:
    class Closing(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            if data == b"two":
                conn.close()
            return data

    handler = Closing()
    with pieces(handler, Lines()) as client:
        client.sock.sendall(b"one\ntwo\nthree\n")
        assert receive_all(client.sock) == b"one\ntwo\n"
        assert [handler.next("message").value[1] for _ in range(2)] == [b"one", b"two"]
        assert handler.next("close").value is CloseReason.LOCAL


# ---- limits -------------------------------------------------------------------------------------


def test_a_frame_may_fill_the_limit() -> None:
    handler = Recorder(lambda data: b"got")
    with pieces(handler, Framed(), frame_limit=1000) as client:
        frame = framed(b"x" * 997)  # 1001 bytes, 1000 of which may lie unfinished
        client.send(frame[:1000])
        client.sock.sendall(frame[1000:])
        assert receive_exactly(client.sock, 7) == framed(b"got")


@pytest.mark.parametrize("step", [1001, 500, 7])
def test_an_unfinished_frame_over_the_limit_closes(step: int) -> None:
    handler = Recorder(lambda data: data)
    with pieces(handler, Framed(), frame_limit=1000) as client:
        client.sock.sendall(framed(b"fine"))
        assert receive_exactly(client.sock, 8) == framed(b"fine")
        stream = framed(b"x" * 2000)[:1001]
        for at in range(0, len(stream), step):
            client.send(stream[at : at + step])
        assert receive_all(client.sock) == b""
        client.sock.close()
        assert handler.until("close").value is CloseReason.FRAME_TOO_LARGE


def test_many_small_frames_are_not_over_the_limit() -> None:
    handler = Recorder(lambda data: None)
    with pieces(handler, Framed(), frame_limit=100) as client:
        client.sock.sendall(framed(*[b"x" * 50] * 2000))
        assert all(handler.next("message").value == (None, b"x" * 50) for _ in range(2000))


# ---- pausing ------------------------------------------------------------------------------------


class Pausing(Recorder):
    """Pauses at every message that says so."""

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        if data == b"pause":
            conn.pause_reading()
        super().on_message(conn, ctx, data)
        return data


def test_pausing_in_the_middle_of_a_batch_and_resuming() -> None:
    handler = Pausing()
    with pieces(handler, Framed()) as client:
        client.send(framed(b"1", b"pause", b"2", b"pause", b"pause", b"3"))
        assert [handler.next("message").value[1] for _ in range(2)] == [b"1", b"pause"]
        client.send(framed(b"4"))
        assert handler.rest() == []
        client.conn.resume_reading()
        assert [handler.next("message").value[1] for _ in range(2)] == [b"2", b"pause"]
        client.send(b"")
        assert handler.rest() == []
        client.conn.resume_reading()
        assert handler.next("message").value[1] == b"pause"
        client.conn.resume_reading()
        assert [handler.next("message").value[1] for _ in range(2)] == [b"3", b"4"]
        whole = framed(b"1", b"pause", b"2", b"pause", b"pause", b"3", b"4")
        assert receive_exactly(client.sock, len(whole)) == whole


def test_what_was_left_comes_before_the_end_of_the_connection() -> None:
    handler = Pausing()
    with pieces(handler, Framed()) as client:
        client.send(framed(b"pause", b"2", b"3"))
        handler.next("message")
        client.sock.sendall(framed(b"4"))
        client.sock.shutdown(socket.SHUT_WR)
        client.conn.resume_reading()
        assert [handler.next("message").value[1] for _ in range(3)] == [b"2", b"3", b"4"]
        handler.next("eof")
        assert handler.next("close").value is CloseReason.EOF
        whole = framed(b"pause", b"2", b"3", b"4")
        assert receive_all(client.sock) == whole


def test_resuming_twice_and_pausing_again_at_once() -> None:
    handler = Pausing()
    with pieces(handler, Framed()) as client:
        client.send(framed(b"pause", b"2", b"3"))
        handler.next("message")

        def flicker() -> None:
            client.conn.resume_reading()
            client.conn.resume_reading()
            client.conn.pause_reading()

        client.conn.loop.call_soon_threadsafe(flicker)
        client.send(framed(b"4"))
        assert handler.rest() == []
        client.conn.resume_reading()
        assert [handler.next("message").value[1] for _ in range(3)] == [b"2", b"3", b"4"]


def test_the_length_of_an_unfinished_frame_is_known() -> None:
    lengths: list[int] = []
    handler = Recorder()
    with pieces(handler, Framed()) as client:
        client.send(framed(b"x" * 100)[:60])
        asked = threading.Event()

        def ask() -> None:
            lengths.append(client.conn.read_buffer_length)
            asked.set()

        client.conn.loop.call_soon_threadsafe(ask)
        wait(asked)
    assert lengths == [60]
