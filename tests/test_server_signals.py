"""Signals stop a server that the main thread started, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PATIENCE, receive_all, receive_exactly

ROOT = Path(__file__).parent.parent

SERVER = """
import sys
import gevffi

def say(*words):
    print(*words, flush=True)

class Handler(gevffi.Handler):
    def on_connect(self, conn):
        say("connect")
    def on_message(self, conn, ctx, data):
        if data == b"flood":
            return bytes(8 << 20)
        return data
    def on_high_water(self, conn):
        say("high_water")
    def on_close(self, conn, reason):
        say("close", reason.name)

server = gevffi.Server(Handler(), "127.0.0.1:0", loops=int(sys.argv[1]), close_timeout=1000)
for round in range(int(sys.argv[2])):
    server.run_after(0, lambda: say(server.address.port))
    server.start()
    say("end")
"""


class Process:
    """A server in another process, and what it says."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", SERVER, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", int(self.line())), PATIENCE)

    def end(self) -> tuple[int, str, str]:
        """The exit status, and what nobody has read yet; ends of pipes are ends of the process."""
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        rest, errors = self.popen.stdout.read(), self.popen.stderr.read()
        return self.popen.wait(PATIENCE), rest.strip(), errors.strip()


@contextlib.contextmanager
def process(loops: int = 1, rounds: int = 1) -> Iterator[Process]:
    server = Process(str(loops), str(rounds))
    watchdog = threading.Timer(PATIENCE, server.popen.kill)
    watchdog.start()
    try:
        yield server
    finally:
        watchdog.cancel()
        if server.popen.poll() is None:
            server.popen.kill()
        server.popen.communicate()


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])


@SIGNALS
@pytest.mark.parametrize("loops", [1, 3])
def test_a_signal_closes_all_and_start_returns(number: signal.Signals, loops: int) -> None:
    with process(loops) as server, server.connect() as sock:
        sock.sendall(b"x")
        assert receive_exactly(sock, 1) == b"x"
        assert server.line() == "connect"
        server.popen.send_signal(number)
        assert receive_all(sock) == b""
        assert server.line() == "close SHUTDOWN"
        assert server.end() == (0, "end", "")


@SIGNALS
def test_a_signal_as_soon_as_it_listens(number: signal.Signals) -> None:
    with process() as server:
        assert server.line().isdigit()
        server.popen.send_signal(number)
        assert server.end() == (0, "end", "")


@SIGNALS
@pytest.mark.parametrize("loops", [1, 3])
def test_a_signal_lets_a_slow_peer_have_the_rest(number: signal.Signals, loops: int) -> None:
    with process(loops) as server, server.connect() as sock:
        assert server.line() == "connect"
        sock.sendall(b"flood")
        assert server.line() == "high_water"
        server.popen.send_signal(number)
        assert len(receive_all(sock)) == 8 << 20
        assert server.line() == "close SHUTDOWN"
        assert server.end() == (0, "end", "")


@SIGNALS
def test_a_second_signal_aborts(number: signal.Signals) -> None:
    with process() as server, server.connect() as sock:
        assert server.line() == "connect"
        sock.sendall(b"flood")
        assert server.line() == "high_water"
        with socket.create_connection(sock.getpeername(), PATIENCE) as quiet:
            assert server.line() == "connect"
            server.popen.send_signal(signal.SIGINT)
            assert receive_all(quiet) == b""  # so the first signal has been heard
            assert server.line() == "close SHUTDOWN"
        server.popen.send_signal(number)
        assert server.line() == "close SHUTDOWN"
        assert server.end() == (0, "end", "")


@SIGNALS
def test_a_second_signal_aborts_also_on_the_other_loops(number: signal.Signals) -> None:
    """The loop of the main thread has ended long before; what waits then is no loop."""
    with process(loops=2) as server, server.connect() as quiet:
        assert server.line() == "connect"
        with socket.create_connection(quiet.getpeername(), PATIENCE) as slow:  # on the second loop
            assert server.line() == "connect"
            slow.sendall(b"flood")
            assert server.line() == "high_water"
            server.popen.send_signal(signal.SIGINT)
            assert receive_all(quiet) == b""
            assert server.line() == "close SHUTDOWN"
            server.popen.send_signal(number)
            assert server.line() == "close SHUTDOWN"
            assert server.end() == (0, "end", "")


def test_many_signals_at_once_do_no_harm() -> None:
    with process() as server, server.connect() as sock:
        assert server.line() == "connect"
        sock.sendall(b"flood")
        assert server.line() == "high_water"
        for _ in range(50):
            server.popen.send_signal(signal.SIGINT)
            server.popen.send_signal(signal.SIGTERM)
        assert server.line() == "close SHUTDOWN"  # a signal after it is not the server's any more


def test_signals_are_counted_anew_at_each_start() -> None:
    with process(rounds=2) as server:
        assert server.line().isdigit()
        server.popen.send_signal(signal.SIGINT)
        assert server.line() == "end"
        with server.connect() as sock:
            assert server.line() == "connect"
            sock.sendall(b"flood")
            assert server.line() == "high_water"
            server.popen.send_signal(signal.SIGTERM)
            assert len(receive_all(sock)) == 8 << 20  # the first of this run: it drains
            assert server.line() == "close SHUTDOWN"
            assert server.end() == (0, "end", "")


def test_handlers_of_signals_are_put_back() -> None:
    code = """
import signal, threading, gevffi
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
server = gevffi.Server(gevffi.Handler(), "127.0.0.1:0")
server.run_after(0, lambda: threading.Thread(target=server.stop).start())
server.start()
assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
assert signal.set_wakeup_fd(-1) == -1
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=PATIENCE)
