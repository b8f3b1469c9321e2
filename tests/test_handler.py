"""Handler: which callback comes when, on which thread, how often, and what if it raises."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import Counter
from typing import Any

import pytest
from helpers import (
    Echo,
    Recorder,
    connect,
    receive_all,
    receive_exactly,
    serving,
)

from gevffi import CloseReason, Connection


def test_callbacks_come_in_order_on_the_thread_of_the_loop() -> None:
    handler = Echo()
    with serving(handler) as server, connect(server) as sock:
        sock.sendall(b"one")
        receive_exactly(sock, 3)
        sock.sendall(b"two")
        receive_exactly(sock, 3)
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b""
        events = [handler.next(name) for name in ("connect", "message", "message", "eof", "close")]
        assert [event.value for event in events[1:3]] == [(None, b"one"), (None, b"two")]
        assert events[-1].value is CloseReason.EOF
        assert len({event.conn for event in events}) == 1
        (thread,) = {event.thread for event in events}
        assert thread != threading.get_ident()
    assert handler.rest() == []


def test_messages_are_read_only_views() -> None:
    seen: list[tuple[bool, type]] = []

    class Looker(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            seen.append((data.readonly, type(data)))
            return data

    with serving(Looker()) as server, connect(server) as sock:
        sock.sendall(b"x")
        receive_exactly(sock, 1)
    assert seen == [(True, memoryview)]


def test_each_connection_opens_and_closes_exactly_once_however_it_ends() -> None:
    handler = Echo()
    with contextlib.ExitStack() as left_open:
        with serving(handler, loops=2) as server:
            for number in range(60):
                sock = connect(server)
                sock.sendall(b"x")
                receive_exactly(sock, 1)
                if number % 3 == 0:
                    sock.close()
                elif number % 3 == 1:  # a reset
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    sock.close()
                else:
                    left_open.enter_context(sock)
        assert server.connection_count == 0
    events = [handler.events.get_nowait() for _ in range(handler.events.qsize())]
    by_conn: dict[int, list[str]] = {}
    for event in events:
        by_conn.setdefault(event.conn.id, []).append(event.name)
    assert len(by_conn) == 60
    for names in by_conn.values():
        assert names[0] == "connect"
        assert names[-1] == "close"
        assert names.count("connect") == names.count("close") == 1
    reasons = Counter(event.value for event in events if event.name == "close")
    assert reasons[CloseReason.SHUTDOWN] >= 20
    assert set(reasons) <= {CloseReason.SHUTDOWN, CloseReason.EOF, CloseReason.RESET}


def test_a_reset_is_told_from_an_end() -> None:
    handler = Recorder()
    with serving(handler) as server:
        sock = connect(server)
        handler.next("connect")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert handler.next("close").value is CloseReason.RESET


class Failing(Recorder):
    """Raises in one callback."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def _put(self, name: str, conn: Connection, value: Any = None) -> None:
        here = name == self.where  # before the test is told, which may change it then
        super()._put(name, conn, value)
        if here:
            raise LookupError(f"in {name}")


@pytest.mark.parametrize(
    ("where", "order"),
    [
        ("connect", ["connect", "error", "close"]),
        ("message", ["connect", "message", "error", "close"]),
        ("eof", ["connect", "message", "eof", "error", "close"]),
    ],
)
def test_an_exception_closes_that_connection_only(
    where: str, order: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    handler = Failing("")
    with serving(handler) as server, connect(server) as other:
        other_id = handler.next("connect").conn.id
        handler.where = where
        with connect(server) as sock:
            if where != "connect":
                sock.sendall(b"x")
            if where == "eof":
                sock.shutdown(socket.SHUT_WR)
            events = [handler.next(name) for name in order]
        assert events[-1].value is CloseReason.HANDLER_ERROR
        assert isinstance(events[-2].value, LookupError)
        handler.where = ""
        other.sendall(b"still here")
        assert handler.next("message").conn.id == other_id
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.name == "gevffi"
    assert record.exc_info is not None
    assert "in " + where in str(record.exc_info[1])


def test_an_exception_in_on_close_is_logged_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Failing("close")
    with serving(handler) as server:
        connect(server).close()
        handler.until("close")
        assert isinstance(handler.next("error").value, LookupError)
        with connect(server):
            handler.next("connect")
            handler.where = ""
    assert [record.name for record in caplog.records] == ["gevffi"]


def test_on_error_may_ask_for_the_close_itself() -> None:
    """And may say something to the peer first."""

    class Polite(Failing):
        def on_error(self, conn: Connection, exc: Exception) -> None:
            conn.send(b"sorry")
            conn.close()

    handler = Polite("message")
    with serving(handler) as server, connect(server) as sock:
        sock.sendall(b"x")
        assert receive_all(sock) == b"sorry"
        assert handler.until("close").value is CloseReason.HANDLER_ERROR


def test_an_exception_in_on_error_itself_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Worse(Failing):
        def on_error(self, conn: Connection, exc: Exception) -> None:
            raise OverflowError("worse")

    handler = Worse("message")
    with serving(handler) as server, connect(server) as sock:
        sock.sendall(b"x")
        assert handler.until("close").value is CloseReason.HANDLER_ERROR
        handler.where = ""
        connect(server).close()
        handler.next("connect")
    assert any(isinstance(r.exc_info and r.exc_info[1], OverflowError) for r in caplog.records)
