"""Descriptors: running out of them, their reuse, their duplicates, and fork.

What lowers a limit or forks runs in a process of its own.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from faults import (
    QUIET,
    Echo,
    Recorder,
    audited,
    connect,
    cpu_used,
    on_loop,
    read,
    read_all,
    reset,
    run_alone,
)

from gevffi import CloseReason, Connection

HERE = Path(__file__).parent


OUT_OF_DESCRIPTORS = """
import os, resource, socket, threading
from faults import *

limit = len(os.listdir("/proc/self/fd")) + 80
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
handler = Echo()
with audited(handler) as server:
    first = connect(server)
    handler.wait_for("connect")
    hog = []
    waiting = [connect(server) for _ in range(20)]  # each takes two descriptors
    handler.wait_for("connect", 21)
    try:
        while True:
            hog.append(os.dup(0))
    except OSError:
        pass
    os.close(hog.pop())
    waiting.append(connect(server))  # our side takes the last one
    assert cpu_used(server) < QUIET, "it spins"
    assert handler.counts["connect"] == 21
    for _ in range(10):
        first.sendall(b"goes on")
        assert read(first, 7) == b"goes on"
    for fd in hog:
        os.close(fd)
    waiting[-1].sendall(b"late")
    assert read(waiting[-1], 4) == b"late"
    for client in [first, *waiting]:
        client.close()
    handler.wait_for("close", 22)
print("done")
"""


def test_out_of_descriptors_neither_spins_nor_stops() -> None:
    output = run_alone(OUT_OF_DESCRIPTORS)
    assert output.count("cannot accept connections for now") == 1
    assert output.splitlines()[-1] == "done"


TWO_LISTENERS = """
import os, resource, socket, threading
from faults import *
from gevffi.protocol import Raw

handler = Echo()
loop = gevffi.EventLoop()
ears = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
for ear in ears:
    ear.setblocking(False)
    loop.listen(ear.fileno(), lambda new: loop.give(
        new.fd, new.peer, handler, Raw(), handler.on_message))
clients = [socket.socket() for _ in ears]
hog = []
used = len(os.listdir("/proc/self/fd")) + 2
resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
try:
    while True:
        hog.append(os.dup(0))
except OSError:
    pass
for client, ear in zip(clients, ears):
    client.settimeout(SECONDS)
    client.connect(ear.getsockname())
thread = threading.Thread(target=loop.run)
thread.start()
over = threading.Event()
loop.call_soon_threadsafe(lambda: loop.call_later(0.05, over.set))
assert over.wait(SECONDS)
for fd in hog:
    os.close(fd)
for client in clients:
    client.sendall(b"late")
    assert read(client, 4) == b"late"
    client.close()
handler.wait_for("close", 2)
loop.stop()
thread.join()
for ear in ears:
    ear.close()
print("done")
"""


def test_two_listeners_out_of_descriptors_both_come_back() -> None:
    """A turn tells one accept error; the other listener was taken out of the poller for good."""
    assert run_alone(TWO_LISTENERS).splitlines()[-1] == "done"


FORK = """
import os, sys
from faults import *

handler = Echo()
with audited(handler) as server:
    clients = [connect(server) for _ in range(5)]
    handler.wait_for("connect", 5)
    for how in ("exit", "_exit", "collect"):
        child = os.fork()
        if child == 0:
            if how == "_exit":
                os._exit(0)
            if how == "collect":
                for loop in server.loops:
                    loop._reactor.close()
                os._exit(0)
            threading._shutdown = lambda: None  # the loop's thread is not here to be joined
            sys.stdin.close()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            server._threads.clear()
            sys.exit(0)
        assert os.waitpid(child, 0)[0] == child
        for client in clients:
            client.sendall(how.encode())
            assert read(client, len(how)) == how.encode(), how
        with connect(server) as another:
            another.sendall(b"new")
            assert read(another, 3) == b"new", how
    for client in clients:
        client.close()
    handler.wait_for("close", 8)
print("done")
"""


def test_fork_disturbs_nothing() -> None:
    """epoll instances are shared with forked children; what one removes is gone for both."""
    assert run_alone(FORK).splitlines()[-1] == "done"


FORK_IN_HANDLER = """
import os, sys
from faults import *

class Forks(Echo):
    def on_message(self, conn, ctx, data):
        if data == b"fork":
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                sys.exit(0)  # ends the loop by an exception, and the thread with it
            os.waitpid(child, 0)
        return super().on_message(conn, ctx, data)

handler = Forks()
with audited(handler) as server:
    clients = [connect(server) for _ in range(5)]
    handler.wait_for("connect", 5)
    clients[0].sendall(b"fork")
    assert read(clients[0], 4) == b"fork"
    for client in clients:
        client.sendall(b"ping")
        assert read(client, 4) == b"ping"
        client.close()
    handler.wait_for("close", 5)
print("done")
"""


def test_fork_in_a_handler_whose_child_unwinds_disturbs_nothing() -> None:
    assert run_alone(FORK_IN_HANDLER).splitlines()[-1] == "done"


def test_a_reused_descriptor_never_gets_another_connections_bytes() -> None:
    """Close in a callback and accept at once: same descriptor, same slot, another peer."""

    class Names(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            conn.close()
            for old in self.conns[-20:]:
                if old is not conn:
                    old.send(b"ghost")
                    old.close()
            return bytes(data)

    handler = Names()
    with audited(handler) as server:
        for number in range(300):
            name = b"%d" % number
            with connect(server) as client:
                client.sendall(name)
                assert read_all(client) == name
        handler.wait_for("close", 300)
    for number, conn in enumerate(handler.conns):
        assert handler.received[conn.id] == b"%d" % number


def test_a_duplicated_descriptor_gives_no_ghost_events() -> None:
    """close(2) leaves epoll's registration behind while a duplicate is open."""
    copies: list[int] = []

    class Copies(Echo):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            if len(self.conns) == 1:
                copies.append(os.dup(conn.fileno()))

    handler = Copies()
    with audited(handler) as server:
        client = connect(server)
        handler.wait_for("connect")
        on_loop(server, handler.conns[0].close)
        handler.wait_for("close")
        other = connect(server)
        handler.wait_for("connect", 2)
        client.sendall(b"for nobody")
        assert cpu_used(server) < QUIET
        other.sendall(b"mine")
        assert read(other, 4) == b"mine"
        os.close(copies[0])
        client.close()
        other.close()
        handler.wait_for("close", 2)
    assert handler.received[handler.conns[0].id] == b""
    assert handler.reasons == [CloseReason.LOCAL, CloseReason.EOF]


def test_all_descriptors_close_on_exec_and_do_not_block() -> None:
    handler = Recorder()
    before = set(os.listdir("/proc/self/fd"))
    with audited(handler, loops=2) as server:
        clients = [connect(server) for _ in range(4)]
        handler.wait_for("connect", 4)
        known = before | {str(client.fileno()) for client in clients}
        ours = [int(number) for number in os.listdir("/proc/self/fd") if number not in known]
        ours = [fd for fd in ours if os.path.exists(f"/proc/self/fd/{fd}")]
        assert len(ours) >= 8  # a listener, two a loop, one a connection; some numbers may be old
        for fd in ours:
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        for conn in handler.conns:
            if conn.loop is server.loops[0]:
                assert fcntl.fcntl(on_loop(server, conn.fileno), fcntl.F_GETFL) & os.O_NONBLOCK
        for client in clients:
            reset(client)
        handler.wait_for("close", 4)
