"""Handlers that raise, and handlers that close each other or themselves."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

import pytest
from faults import SECONDS, Echo, Recorder, audited, connect, on_loop, read, read_all

import gevffi
from gevffi import CloseReason, Connection


class OopsError(Exception):
    """What the handlers here raise."""


class Lines(gevffi.Protocol):
    """A message is a line; a word may make either half raise."""

    def unpacket(self, conn: Connection, buffer: gevffi.ReadBuffer) -> tuple[Any, Any]:
        end = buffer.find(b"\n")
        if end < 0:
            return None, None
        line = buffer.read(end + 1)
        if line == b"unpacket\n":
            raise OopsError("unpacket")
        return None, line

    def packet(self, conn: Connection, reply: Any) -> Any:
        if reply == b"packet\n":
            raise OopsError("packet")
        return reply


class Raises(Echo):
    """Raises where its first message says."""

    where = b""

    def oops(self, place: bytes) -> None:
        if self.where == place:
            raise OopsError(place.decode().strip())

    def on_connect(self, conn: Connection) -> None:
        super().on_connect(conn)
        self.oops(b"on_connect\n")

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        if data in (b"on_sent\n", b"water\n", b"thread\n"):
            if data == b"on_sent\n":
                conn.send(b"x", on_sent=lambda conn: self.oops(b"on_sent\n"))
            elif data == b"thread\n":
                thread = threading.Thread(target=conn.send, args=(b"packet\n",))
                thread.start()
                thread.join()
            else:
                conn.send(bytes(8 << 20))
            return None
        self.oops(data if data == b"on_message\n" else b"-")
        return super().on_message(conn, ctx, data)

    def on_high_water(self, conn: Connection) -> None:
        super().on_high_water(conn)
        self.oops(b"on_high_water\n")

    def on_drain(self, conn: Connection) -> None:
        super().on_drain(conn)
        self.oops(b"on_drain\n")

    def on_eof(self, conn: Connection) -> None:
        super().on_eof(conn)
        self.oops(b"on_eof\n")

    def on_close(self, conn: Connection, reason: CloseReason) -> None:
        super().on_close(conn, reason)
        self.oops(b"on_close\n")


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("on_connect", ""),
        ("on_message", "on_message"),
        ("on_sent", "on_sent"),
        ("on_high_water", "water"),
        ("on_drain", "water"),
        ("on_eof", ""),
        ("on_close", ""),
        ("unpacket", "unpacket"),
        ("packet", "packet"),
        ("packet", "thread"),
    ],
)
def test_an_exception_costs_its_connection_only(
    where: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged with its traceback, closed once, and the other connection goes on."""
    handler = Raises()
    with audited(handler, protocol=Lines()) as server:
        good = connect(server)
        handler.wait_for("connect")
        on_loop(server, lambda: None)  # the callback that told of it has returned
        handler.where = where.encode() + b"\n"
        bad = connect(server)
        if line:
            bad.sendall(line.encode() + b"\n")
        if where in ("on_eof", "on_close"):
            bad.shutdown(1)
        if line == "water":  # read only now: the kernel could take it all from one who reads
            handler.wait_for("high_water")
        read_all(bad)
        bad.close()
        handler.wait_for("close")
        on_loop(server, lambda: None)  # or it might not raise any more
        handler.where = b""
        good.sendall(b"goes on\n")
        assert read(good, 8) == b"goes on\n"
        good.close()
        handler.wait_for("close", 2)
    wanted = CloseReason.EOF if where == "on_close" else CloseReason.HANDLER_ERROR
    assert handler.reasons == [wanted, CloseReason.EOF]
    assert [str(exc) for exc in handler.errors] == [where]
    (record,) = caplog.records
    assert record.name == "gevffi"
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[1] is handler.errors[0]
    assert handler.errors[0].__traceback__ is not None


def test_an_exception_in_on_error_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    class Worse(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            raise OopsError("first")

        def on_error(self, conn: Connection, exc: Exception) -> None:
            self.errors.append(exc)
            raise OopsError("second")

    handler = Worse()
    with audited(handler) as server, connect(server) as client:
        client.sendall(b"x")
        assert read_all(client) == b""
        client.close()
        handler.wait_for("close")
        caplog.clear()
    assert handler.reasons == [CloseReason.HANDLER_ERROR]


def test_an_exception_in_a_timer_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ticks: list[int] = []
    enough = threading.Event()

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            enough.set()
        raise OopsError("tick")

    handler = Echo()
    with audited(handler) as server, connect(server) as client:
        timer = server.run_every(0.005, tick)
        assert enough.wait(SECONDS)
        timer.cancel()
        client.sendall(b"x")
        assert read(client, 1) == b"x"
    assert all(record.exc_info for record in caplog.records)
    assert len(caplog.records) >= 3


@pytest.mark.parametrize("delay", [1e300, 1e306, 1.7e308])
def test_a_timer_of_a_very_far_day_ends_nothing(delay: float) -> None:
    handler = Echo()
    with audited(handler) as server, connect(server) as client:
        server.run_after(delay, print)
        client.sendall(b"x")
        assert read(client, 1) == b"x"


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_another_connection_whose_message_is_in_the_same_turn(how: str) -> None:
    """Whoever is served first closes the rest; none of them gets its message."""

    class Rivals(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            for other in self.conns:
                if other is not conn:
                    for _ in range(3):
                        getattr(other, how)()
                    other.send(b"ignored")
            return b"won"

    handler = Rivals()
    with audited(handler) as server:
        clients = [connect(server) for _ in range(20)]
        handler.wait_for("connect", 20)

        def all_at_once() -> None:  # the loop waits here, so one turn finds all of them
            for client in clients:
                client.sendall(b"me")

        on_loop(server, all_at_once)
        handler.wait_for("close", 19)
        got = []
        for client in clients:
            try:
                got.append(client.recv(10))
            except ConnectionResetError:
                got.append(b"")
            client.close()
        assert sorted(got) == [b""] * 19 + [b"won"]
        handler.wait_for("close", 20)
    assert handler.counts["message"] == 1
    assert sorted(r.name for r in handler.reasons) == ["EOF"] + ["LOCAL"] * 19


def test_close_and_abort_from_many_threads_close_once() -> None:
    handler = Recorder()
    with audited(handler) as server:
        clients = [connect(server) for _ in range(30)]
        handler.wait_for("connect", 30)

        def all_of_it() -> None:
            for conn in handler.conns:
                conn.send(b"x")
                conn.close()
                conn.abort()
                conn.pause_reading()
                conn.resume_reading()
                conn.shutdown_write()
                conn.send(b"x", on_sent=lambda conn: None)

        threads = [threading.Thread(target=all_of_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        handler.wait_for("close", 30)
        for client in clients:
            client.close()
    assert handler.reasons == [CloseReason.LOCAL] * 30


def test_close_in_on_connect_sends_first_and_hears_nothing() -> None:
    class Refuses(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.send(b"no")
            conn.close()
            conn.send(b"ignored")
            assert not conn.connected

    handler = Refuses()
    with audited(handler) as server:
        for _ in range(20):
            client = connect(server)
            client.sendall(b"hello?")
            assert read(client, 2) == b"no"
            # A reset only answers what we sent after the end, and destroys nothing.
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
            client.close()
        handler.wait_for("close", 20)
    assert handler.counts["message"] == 0
    assert handler.reasons == [CloseReason.LOCAL] * 20
