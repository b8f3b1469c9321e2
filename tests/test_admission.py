"""`max_connections`: who gets in, who is refused and how, and what is said of it."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    PATIENCE,
    Background,
    Echo,
    Recorder,
    connect,
    descriptors,
    receive_all,
    receive_exactly,
    serving,
    wait,
)

from gevffi import Address, EventLoop, Raw, Server, admission
from gevffi.sys.results import Accepted

WAYS = pytest.mark.parametrize(
    "options", [{}, {"loops": 3}, {"loops": 3, "reuse_port": True}], ids=str
)


def is_refused(server: Server) -> None:
    """A reset; before `connect` has returned, if the server is that fast."""
    with pytest.raises(ConnectionResetError), connect(server) as sock:
        sock.recv(1)


def is_served(sock: socket.socket) -> None:
    sock.sendall(b"x")
    assert receive_exactly(sock, 1) == b"x"


@WAYS
def test_the_one_too_many_is_refused_and_the_others_are_not_disturbed(
    options: dict[str, Any],
) -> None:
    handler = Echo()
    with (
        serving(handler, max_connections=5, **options) as server,
        contextlib.ExitStack() as stack,
    ):
        socks = []
        for _ in range(5):
            socks.append(stack.enter_context(connect(server)))
            handler.next("connect")
        before = descriptors()
        for number in range(1, 8):
            is_refused(server)
            assert server.refused_count == number
        assert sum(loop.refused_count for loop in server.loops) == 7
        assert server.connection_count == 5
        assert descriptors() == before
        for sock in socks:
            is_served(sock)
            handler.next("message")
        assert handler.rest() == []  # no callback for those who were refused


@WAYS
def test_a_place_that_is_left_is_taken_again(options: dict[str, Any]) -> None:
    handler = Echo()
    with serving(handler, max_connections=1, **options) as server:
        for number in range(20):
            with connect(server) as sock:
                is_served(sock)
                is_refused(server)
                assert server.refused_count == number + 1
            handler.until("close")


@WAYS
def test_a_crowd_at_once_gets_exactly_the_places_there_are(options: dict[str, Any]) -> None:
    handler = Echo()
    clients, places = 60, 10
    told: queue.Queue[bytes] = queue.Queue()
    start, leave = threading.Barrier(clients), threading.Event()

    def client() -> None:
        start.wait(PATIENCE)
        try:
            with connect(server) as sock:
                sock.sendall(b"x")
                told.put(sock.recv(1))
                leave.wait(PATIENCE)
        except (ConnectionResetError, BrokenPipeError):
            told.put(b"refused")

    with serving(handler, max_connections=places, **options) as server:
        crowd = [Background(client) for _ in range(clients)]
        heard = sorted(told.get(timeout=PATIENCE) for _ in range(clients))
        assert heard == [b"refused"] * (clients - places) + [b"x"] * places
        assert server.connection_count == places
        assert server.refused_count == clients - places
        leave.set()
        for one in crowd:
            one.join()


def test_no_limit_is_no_limit() -> None:
    handler = Recorder()
    with serving(handler) as server, contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(server))
        for _ in range(200):
            handler.next("connect")
        assert server.refused_count == 0


def test_a_unix_peer_that_is_refused_sees_the_end(tmp_path: Path) -> None:
    handler = Echo()
    with serving(handler, f"unix:{tmp_path}/s", max_connections=1) as server:
        with connect(server) as sock:
            is_served(sock)
            with connect(server) as other:
                assert receive_all(other) == b""
            is_served(sock)
        assert server.refused_count == 1


def test_the_count_goes_on_when_the_server_runs_again() -> None:
    handler = Echo()
    server = Server(handler, "127.0.0.1:0", max_connections=1)
    for number in range(3):
        assert server.refused_count == number
        with server.running(), connect(server) as sock:
            is_served(sock)
            is_refused(server)


# ---- the strategy and the limit -----------------------------------------------------------------


def test_a_strategy_that_fails_takes_no_place(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Address] = []

    def fails_twice(loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        asked.append(peer)
        if len(asked) < 3:
            raise LookupError("no loop")
        return loops[1]

    handler = Echo()
    with serving(handler, loops=2, max_connections=1, balance=fails_twice) as server:
        for _ in range(2):
            with connect(server) as lost:
                assert receive_all(lost) == b""
        with connect(server) as sock:
            is_served(sock)
            for _ in range(3):
                is_refused(server)
        assert len(asked) == 3  # and not for those who are refused
        assert server.refused_count == 3


def test_a_place_is_taken_before_the_loop_is_chosen() -> None:
    """Loops accept at once, each on its thread; what one has let in, the other must know of."""
    asked, answer = threading.Event(), threading.Event()

    def slow(loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        asked.set()
        wait(answer)
        return loops[0]

    loops = [EventLoop(), EventLoop()]
    door = admission.Admission(1, slow, Recorder(), Raw(), lambda conn, ctx, data: None)
    ends = [socket.socketpair() for _ in range(2)]
    nobody = int(socket.AF_UNIX).to_bytes(2, sys.byteorder)
    first, second = (Accepted(0, ours.detach(), nobody) for ours, _ in ends)
    entering = Background(door.acceptor(loops[0], loops), first)
    wait(asked)
    door.acceptor(loops[1], loops)(second)
    assert (door.refused_count, loops[0].refused_count, loops[1].refused_count) == (1, 0, 1)
    answer.set()
    entering.join()
    assert [loop.load for loop in loops] == [1, 0]
    for loop in loops:
        loop.stop(0)
        loop.run()
    for _, theirs in ends:
        assert theirs.recv(1) == b""
        theirs.close()


# ---- the log ------------------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "gevffi" and record.levelno == logging.WARNING
    ]


def test_an_episode_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Echo()
    now = 1000.0
    monkeypatch.setattr(admission, "monotonic", lambda: now)
    with serving(handler, max_connections=1) as server, connect(server) as sock:
        is_served(sock)
        for _ in range(5):
            is_refused(server)
            now += admission.EPISODE  # also if it lasts for long
        is_served(sock)  # what was refused has been logged
        assert warnings(caplog) == [
            "loop-0: 1 connections are open, which is max_connections; more are refused"
        ]
        now += 0.001
        is_refused(server)
        is_refused(server)
        is_served(sock)
        assert len(warnings(caplog)) == 2


# ---- the example --------------------------------------------------------------------------------


def test_the_example_runs() -> None:
    root = Path(__file__).parent.parent
    program = subprocess.Popen(
        [sys.executable, str(root / "examples" / "maxconnection.py"), "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    watchdog = threading.Timer(PATIENCE, program.kill)
    watchdog.start()
    assert program.stdout is not None
    lines = program.stdout

    def said(start: str) -> str:
        """The rest of the next line that begins so; the example reports as time goes by, too."""
        return next(line.removeprefix(start) for line in lines if line.startswith(start)).strip()

    try:
        port = said("listening on 127.0.0.1:")
        address = Address("127.0.0.1", int(port))
        with connect(address) as one, connect(address) as two:
            for sock in (one, two):
                is_served(sock)
                assert said("connected: ") == "{}:{}".format(*sock.getsockname())
            with pytest.raises(ConnectionResetError), connect(address) as three:
                three.recv(1)
            while said("open: 2 refused: ") != "1":
                pass
        assert said("closed: ") == "EOF"
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0
    finally:
        watchdog.cancel()
        program.kill()
        program.communicate()
