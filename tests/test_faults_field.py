"""Faults of other libraries that no other test here would notice; docs/faults.md lists them all."""

from __future__ import annotations

import re
from pathlib import Path

from faults import (
    QUIET,
    Recorder,
    audited,
    connect,
    cpu_used,
    on_loop,
    pattern,
    read,
    reset,
    run_alone,
)

from gevffi import CloseReason, Connection

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "faults.md"


def test_sending_in_on_connect_to_who_has_reset_closes_once() -> None:
    """gev closes the descriptor twice, the second time perhaps somebody else's, when it sends from
    OnConnect and the peer is gone."""
    times = 200

    class Greets(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            for _ in range(3):
                conn.send(b"welcome")
                conn.loop._outbox.flush()  # what is refused is known here, in the callback

    def leave() -> None:
        for _ in range(times):
            reset(connect(server))

    handler = Greets()
    with audited(handler) as server:
        # The loop itself makes them, so none is accepted before it has gone.
        on_loop(server, leave)
        with connect(server) as last:
            assert read(last, 21) == b"welcome" * 3
        handler.wait_for("close", times + 1)
    assert handler.counts["connect"] == times + 1
    assert not handler.errors


def test_interest_in_writing_ends_with_the_output() -> None:
    """gev's kqueue poller never takes the write filter away: once output has waited, the loop is
    woken for ever by a socket that can be written to."""
    handler = Recorder()
    payload = pattern(8 << 20)
    with audited(handler) as server, connect(server, SO_RCVBUF=65536) as client:
        handler.wait_for("connect")
        on_loop(server, handler.conns[0].send, payload)
        assert on_loop(server, lambda: handler.conns[0].write_buffer_length)
        assert read(client, len(payload)) == payload
        handler.wait_for("drain")
        assert cpu_used(server) < QUIET
        assert not on_loop(server, lambda: handler.conns[0].write_buffer_length)
    assert handler.reasons[0] in (CloseReason.EOF, CloseReason.SHUTDOWN)


WITH_SIGPIPE = """
import signal, tempfile
from faults import *

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
large = bytes(100_000)


class Sends(Recorder):
    def on_message(self, conn, ctx, data):
        super().on_message(conn, ctx, data)
        for _ in range(20):
            conn.send(b"small")
            conn.send(large)
            conn.loop._outbox.flush()
            server.broadcast(b"to all")
        return large


# A Unix socket says EPIPE at once, where TCP says ECONNRESET first.
with tempfile.TemporaryDirectory() as folder:
    for address in (f"unix:{folder}/socket", "127.0.0.1:0"):
        handler = Sends()
        with audited(handler, address) as server:
            for _ in range(50):
                client = connect(server)
                client.sendall(b"x")
                reset(client)
            handler.wait_for("close", 50)
print("alive")
"""


def test_a_peer_that_has_gone_raises_no_sigpipe() -> None:
    """A send without MSG_NOSIGNAL kills a process that has SIGPIPE at its default."""
    assert run_alone(WITH_SIGPIPE) == "alive\n"


WITH_SIGNALS = """
import signal, socket, threading
import gevffi

calls = []


class Echo(gevffi.Handler):
    def on_message(self, conn, ctx, data):
        return data


def client():
    with socket.create_connection((server.address.host, server.address.port), 20) as sock:
        for size in (1, 1000, 1_000_000):
            for _ in range(20):
                sender = threading.Thread(target=sock.sendall, args=(bytes(size),))
                sender.start()
                left = size
                while left:
                    left -= len(sock.recv(left))
                sender.join()
    server.stop()


signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
server = gevffi.Server(Echo(), "127.0.0.1:0")
thread = threading.Thread(target=client)
server.run_after(0, thread.start)
server.start()
signal.setitimer(signal.ITIMER_REAL, 0)
thread.join()
assert calls
print("done")
"""


def test_signals_interrupt_nothing() -> None:
    """EINTR is no error and no end: the loop's own thread gets a thousand signals a second."""
    assert run_alone(WITH_SIGNALS) == "done\n"


def test_the_table_of_faults_names_tests_that_there_are() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| what goes wrong")]
    assert len(rows) > 25
    for row in rows:
        tests = re.findall(r"`([\w/]+\.(?:py|c))::(\w+)`", row)
        assert tests, row
        for file, name in tests:
            definition = f"static void {name}(void)" if file.endswith(".c") else f"def {name}("
            assert definition in (HERE / file).read_text(), f"{file}::{name}"
