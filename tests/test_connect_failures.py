"""Outgoing connections that do not come about: one callback for each, and nothing is left."""

from __future__ import annotations

import errno
import logging
import math
import os
import queue
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Echo, Recorder, connect, descriptors, receive_exactly, serving
from outgoing import Names, call, deaf, looping, losing_nothing, nobody

from gevffi import CloseReason, Connection, EventLoop, Handler, Protocol, connector


@pytest.fixture(autouse=True)
def _nothing_is_lost() -> Iterator[None]:
    with losing_nothing():
        yield


def failure(ours: Recorder, conn: Connection) -> OSError:
    """Why `conn` could not be had, which is the only thing its handler hears."""
    event = ours.next("connect_failed")
    assert event.conn is conn
    assert not conn.connected
    assert repr(conn).endswith(" closed>")
    assert isinstance(event.value, OSError)
    return event.value


# ---- the other end ------------------------------------------------------------------------------


def test_refused() -> None:
    ours = Recorder()
    host, port = nobody()
    with looping() as loop:
        conn = loop.connect((host, port), ours)
        conn.send(b"dropped")
        exc = failure(ours, conn)
        assert type(exc) is ConnectionRefusedError
        assert exc.strerror == f"cannot connect to {host}:{port}: Connection refused"
        assert loop.connection_count == loop.load == 0

        # Nothing can be done with it any more, and nothing of it fails.
        conn.send(b"too late")
        conn.shutdown_write()
        conn.pause_reading()
        conn.resume_reading()
        conn.close()
        conn.abort()
        assert call(loop, lambda: conn.fileno()) == -1
        assert call(loop, lambda: conn.local_address) is None
        assert call(loop, lambda: conn.write_buffer_length) == 0
        assert conn.peer_address == (host, port)
    assert ours.rest() == []


def test_by_default_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    heard = threading.Event()

    class Deaf(Handler):
        def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
            super().on_connect_failed(conn, exc)
            heard.set()

    host, port = nobody()
    with caplog.at_level(logging.WARNING, "gevffi"), looping() as loop:
        loop.connect((host, port), Deaf())
        assert heard.wait(20)
    assert caplog.messages == [f"cannot connect to {host}:{port}: Connection refused"]


def test_no_answer() -> None:
    ours = Recorder()
    with deaf() as listener, looping() as loop:
        host, port = listener.getsockname()
        conn = loop.connect((host, port), ours, timeout=0.05)
        exc = failure(ours, conn)
        assert type(exc) is TimeoutError
        assert exc.errno == errno.ETIMEDOUT
        assert exc.strerror == f"cannot connect to {host}:{port}: no answer within 0.05 s"
    assert ours.rest() == []


def test_a_slow_answer_is_in_time() -> None:
    ours = Recorder()
    with deaf() as listener, looping() as loop:
        loop.connect(listener.getsockname(), ours, timeout=20)
        call(loop, lambda: None)
        listener.listen(5)
        listener.accept()[0].close()  # the one that was there before
        sock, _ = listener.accept()  # the kernel asks again after a second
        sock.close()
        ours.next("connect")


# ---- Unix sockets -------------------------------------------------------------------------------


def test_no_such_path(tmp_path: Path) -> None:
    ours = Recorder()
    with looping() as loop:
        exc = failure(ours, loop.connect(f"unix:{tmp_path}/none", ours))
        assert type(exc) is FileNotFoundError
        assert exc.strerror == f"cannot connect to unix:{tmp_path}/none: No such file or directory"


def test_a_path_nobody_listens_on(tmp_path: Path) -> None:
    ours = Recorder()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    with looping() as loop:
        exc = failure(ours, loop.connect(f"unix:{tmp_path / 'stale'}", ours))
        assert type(exc) is ConnectionRefusedError


def test_a_path_that_is_too_long() -> None:
    ours = Recorder()
    with looping() as loop:
        exc = failure(ours, loop.connect("unix:/" + "x" * 200, ours))
        assert exc.errno == errno.EINVAL
        assert "AF_UNIX path too long" in str(exc)


def test_a_unix_socket_with_a_full_backlog_is_tried_until_it_has_room(tmp_path: Path) -> None:
    ours = Recorder()
    name = str(tmp_path / "socket")
    with deaf(socket.AF_UNIX, name) as listener, looping() as loop:
        loop.connect(f"unix:{name}", ours, timeout=20).send(b"at last")
        call(loop, lambda: None)
        listener.accept()[0].close()
        sock, _ = listener.accept()
        with sock:
            assert receive_exactly(sock, 7) == b"at last"
        ours.next("connect")
        ours.until("close")


def test_a_unix_socket_that_stays_full(tmp_path: Path) -> None:
    ours = Recorder()
    name = str(tmp_path / "socket")
    with deaf(socket.AF_UNIX, name), looping() as loop:
        exc = failure(ours, loop.connect(f"unix:{name}", ours, timeout=0.05))
        assert type(exc) is TimeoutError
        assert exc.strerror == f"cannot connect to unix:{name}: no answer within 0.05 s"


# ---- names --------------------------------------------------------------------------------------


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    Names(monkeypatch)
    with looping() as loop:
        exc = failure(ours, loop.connect("nowhere:80", ours))
        assert type(exc) is socket.gaierror
        assert exc.errno == socket.EAI_NONAME
        assert exc.strerror == "cannot connect to nowhere:80: Name or service not known"


def test_what_cannot_be_a_name() -> None:
    ours = Recorder()
    with looping() as loop:
        exc = failure(ours, loop.connect(("x" * 100 + ".org", 80), ours))
        assert exc.errno == errno.EINVAL
        assert "label" in str(exc)


def test_all_addresses_of_a_name_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    one, two = nobody(), nobody()
    Names(monkeypatch, somewhere=[one, two])
    with looping() as loop:
        exc = failure(ours, loop.connect("somewhere:80", ours))
        assert type(exc) is ConnectionRefusedError
        assert exc.strerror == (
            f"cannot connect to somewhere:80: {one[0]}:{one[1]}: Connection refused; "
            f"{two[0]}:{two[1]}: Connection refused"
        )


def test_an_address_that_never_answers_leaves_time_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connector, "FAIR_SHARE", 0.05)
    ours = Recorder()
    # A third of the time goes by with the first one.
    with deaf() as listener, socket.create_server(("127.0.0.1", 0)) as other, looping() as loop:
        addresses = [listener.getsockname(), nobody(), other.getsockname()]
        Names(monkeypatch, somewhere=addresses)
        before = len(descriptors())
        conn = loop.connect("somewhere:80", ours, timeout=3)
        sock, _ = other.accept()
        ours.next("connect")
        assert len(descriptors()) == before + 2  # the two ends of this one, no other attempt
        assert conn.peer_address == other.getsockname()
        conn.abort()
        ours.next("close")
        sock.close()


def test_the_time_is_over_with_the_last_address(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    with deaf() as listener, looping() as loop:
        (host, port) = first = nobody()
        Names(monkeypatch, somewhere=[first, listener.getsockname()])
        exc = failure(ours, loop.connect("somewhere:80", ours, timeout=2))
        assert type(exc) is TimeoutError
        assert exc.strerror == (
            "cannot connect to somewhere:80: no answer within 2 s; "
            f"{host}:{port}: Connection refused"
        )


def test_looking_up_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    with looping() as loop:
        names = Names(monkeypatch, slow=[nobody()])
        names.answer.clear()
        exc = failure(ours, loop.connect("slow:80", ours, timeout=0.05))
        assert type(exc) is TimeoutError
        names.answer.set()
    assert ours.rest() == []


def test_no_thread_to_look_up_in(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    with looping() as loop:
        with monkeypatch.context() as patch:

            def start(_self: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", start)
            exc = failure(ours, loop.connect("localhost:80", ours))
        assert exc.errno == errno.EAGAIN
        assert "can't start new thread" in str(exc)


# ---- giving up ----------------------------------------------------------------------------------

End = Callable[[Connection], object]
ENDS: list[End] = [Connection.close, Connection.abort]


@pytest.mark.parametrize("end", ENDS)
def test_closed_while_connecting(end: End) -> None:
    ours = Recorder()
    with deaf() as listener, looping() as loop:
        conn = loop.connect(listener.getsockname(), ours)
        fd = call(loop, conn.fileno)
        os.fstat(fd)

        def end_it() -> list[str]:
            end(conn)
            end(conn)
            assert not conn.connected
            return ours.rest()

        assert call(loop, end_it) == []  # nothing is called before it returns
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        assert type(failure(ours, conn)) is ConnectionAbortedError
    assert ours.rest() == []


@pytest.mark.parametrize("end", ENDS)
def test_closed_while_it_is_looked_up(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:
        names = Names(monkeypatch, slow=[listener.getsockname()])
        names.answer.clear()
        conn = loop.connect("slow:80", ours)
        assert names.asked.wait(20)
        end(conn)
        assert type(failure(ours, conn)) is ConnectionAbortedError
        names.answer.set()
        for thread in threading.enumerate():
            if thread.name == "gevffi-lookup":
                thread.join()
        call(loop, lambda: None)  # the answer has come, and nobody wants it
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert ours.rest() == []


@pytest.mark.parametrize("end", ENDS)
def test_closed_before_it_has_begun(end: End) -> None:
    ours = Recorder()
    with deaf() as listener, looping() as loop:

        def begin() -> Connection:
            conn = loop.connect(listener.getsockname(), ours)
            end(conn)
            return conn

        conn = call(loop, begin)
        assert type(failure(ours, conn)) is ConnectionAbortedError
    assert ours.rest() == []


def test_abort_drops_what_was_sent() -> None:
    ours = Recorder()
    with deaf() as listener, looping() as loop:
        conn = loop.connect(listener.getsockname(), ours)
        conn.send(b"dropped")
        conn.close()
        conn.abort()
        assert "it was aborted" in str(failure(ours, conn))


def test_closed_with_something_to_send_it_may_still_fail() -> None:
    ours = Recorder()
    with looping() as loop:
        conn = loop.connect(nobody(), ours)
        conn.send(b"lost")
        conn.close()
        assert type(failure(ours, conn)) is ConnectionRefusedError
    assert ours.rest() == []


def test_more_is_sent_than_may_wait() -> None:
    ours = Recorder()
    with deaf() as listener, looping(write_limit=1000, write_high_water=1000) as loop:
        conn = loop.connect(listener.getsockname(), ours)
        conn.send(bytes(1000))
        assert call(loop, lambda: conn.write_buffer_length) == 1000
        conn.send(b"1")
        exc = failure(ours, conn)
        assert exc.errno == errno.ENOBUFS
        assert "1001 bytes are waiting for it, write_limit is 1000" in str(exc)


def test_no_descriptor_left() -> None:
    ours = Recorder()
    with looping() as loop:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

        def begin() -> Connection:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            return loop.connect(nobody_is_asked, ours)

        nobody_is_asked = nobody()
        try:
            conn = call(loop, begin)
            exc = failure(ours, conn)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert exc.errno == errno.EMFILE


# ---- the loop ends ------------------------------------------------------------------------------


def test_stop_while_connecting() -> None:
    ours = Recorder()
    with deaf() as listener:
        with looping() as loop:
            conn = loop.connect(listener.getsockname(), ours)
            assert call(loop, conn.fileno) >= 0
        exc = failure(ours, conn)
        assert type(exc) is ConnectionAbortedError
        assert "the loop stops" in str(exc)
    assert ours.rest() == []


def test_stop_while_it_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Recorder()
    names = Names(monkeypatch, slow=[nobody()])
    names.answer.clear()
    with looping() as loop:
        conn = loop.connect("slow:80", ours)
        assert names.asked.wait(20)
    assert type(failure(ours, conn)) is ConnectionAbortedError
    names.answer.set()
    assert ours.rest() == []


def test_stop_and_connect_in_the_same_turn() -> None:
    for stop_first in (True, False):
        ours = Recorder()
        loop = EventLoop()
        if stop_first:
            loop.stop()
        conn = loop.connect(nobody(), ours)
        loop.stop()
        loop.run()
        assert type(failure(ours, conn)) is ConnectionAbortedError
        assert ours.rest() == []


def test_connect_while_it_stops() -> None:
    """One connection takes its time to close; nothing new begins meanwhile."""
    ours, slow = Recorder(), Recorder()
    tried: queue.Queue[Connection] = queue.Queue()

    class Again(Recorder):
        def on_close(self, conn: Connection, reason: CloseReason) -> None:
            tried.put(conn.loop.connect(listener.getsockname(), ours))

    again = Again()
    size = 12 << 20
    with socket.create_server(("127.0.0.1", 0)) as listener, looping() as loop:
        loop.connect(listener.getsockname(), slow).send(bytes(size))
        reader, _ = listener.accept()
        slow.until("high_water")
        loop.connect(listener.getsockname(), again)
        other, _ = listener.accept()
        again.next("connect")
        loop.stop(20)
        assert type(failure(ours, tried.get(timeout=20))) is ConnectionAbortedError
        assert slow.rest() == []
        receive_exactly(reader, size)
        reader.close()
        other.close()
        assert slow.until("close").value is CloseReason.SHUTDOWN
    assert ours.rest() == []


def test_connect_after_it_has_ended() -> None:
    ours = Recorder()
    with looping() as loop:
        pass
    with pytest.raises(RuntimeError, match="out has ended"):
        loop.connect(nobody(), ours)
    assert ours.rest() == []


def test_who_tries_again_at_once_does_not_keep_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Recorder):
        def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
            super().on_connect_failed(conn, exc)
            conn.loop.connect(conn.peer_address, self)

    ours = Stubborn()
    with deaf() as listener, caplog.at_level(logging.CRITICAL, "gevffi"):
        with looping() as loop:
            loop.connect(listener.getsockname(), ours)
            call(loop, lambda: None)
        names = ours.rest()
        assert names[-1] == "error"  # told that there is no loop any more
        assert set(names[:-1]) == {"connect_failed"}


def test_the_loop_is_torn_down() -> None:
    class TornError(BaseException):
        pass

    def tear() -> None:
        raise TornError

    ours = Recorder()
    with deaf() as listener:
        loop = EventLoop()
        conn = loop.connect(listener.getsockname(), ours)
        loop.call_soon_threadsafe(loop.call_later, 0, tear)
        with pytest.raises(TornError):
            loop.run()
        assert type(failure(ours, conn)) is ConnectionAbortedError
    assert ours.rest() == []


# ---- trying again, and mistakes -----------------------------------------------------------------


def test_trying_again_later() -> None:
    class Patient(Recorder):
        def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
            super().on_connect_failed(conn, exc)
            conn.loop.call_later(0.001, conn.loop.connect, conn.peer_address, self)

    ours = Patient()
    with socket.socket() as listener, looping() as loop:
        listener.bind(("127.0.0.1", 0))  # and does not listen yet
        loop.connect(listener.getsockname(), ours)
        ours.next("connect_failed")
        listener.listen()
        ours.until("connect").conn.abort()
        ours.until("close")


def test_on_connect_failed_raises() -> None:
    class Failing(Recorder):
        def on_connect_failed(self, conn: Connection, exc: OSError) -> None:
            super().on_connect_failed(conn, exc)
            raise LookupError("no")

    ours = Failing()
    with looping() as loop:
        conn = loop.connect(nobody(), ours)
        failure(ours, conn)
        event = ours.next("error")
        assert event.conn is conn
        assert isinstance(event.value, LookupError)
        assert call(loop, lambda: 1) == 1
    assert ours.rest() == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": math.inf}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"address": "127.0.0.1:0"}, "'127.0.0.1:0'"),
        ({"address": "127.0.0.1"}, "'127.0.0.1'"),
        ({"address": 80}, "80"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], named: str) -> None:
    ours = Recorder()
    with looping() as loop, pytest.raises(ValueError, match=named):
        loop.connect(**{"address": "127.0.0.1:1", "handler": ours, **wrong})
    assert ours.rest() == []


@pytest.mark.parametrize("wrong", [{"handler": Recorder}, {"protocol": Protocol}])
def test_what_is_no_handler_or_protocol(wrong: dict[str, Any]) -> None:
    (named,) = wrong
    with looping() as loop, pytest.raises(TypeError, match=f"{named} must be a gevffi"):
        loop.connect(**{"address": "127.0.0.1:1", "handler": Recorder(), **wrong})


def test_others_do_not_notice() -> None:
    """Connections of a loop go on while another one fails in every way."""
    ours, failing = Echo(), Recorder()
    with deaf() as listener, serving(ours) as server:
        with connect(server) as sock:
            loop = server.loops[0]
            for address in (nobody(), listener.getsockname(), "unix:/none"):
                loop.connect(address, failing, timeout=0.05)
                sock.sendall(b"here")
                assert receive_exactly(sock, 4) == b"here"
                failing.next("connect_failed")
            sock.sendall(b"here")
            assert receive_exactly(sock, 4) == b"here"
            ours.next("connect")
        ours.until("close")
