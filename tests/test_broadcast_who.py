"""Whom a broadcast reaches: not the closing, not another server's; a frame for each protocol."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from helpers import (
    PATIENCE,
    Background,
    Recorder,
    by_client,
    clients,
    connect,
    on_loop,
    receive_all,
    receive_exactly,
    serving,
    wait,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from protocols import Framed, Lines, Netstrings, framed

from gevffi import CloseReason, Connection, EventLoop, Protocol, Raw, ReadBuffer
from gevffi.protocol import receiver

# ---- whom it passes over ------------------------------------------------------------------------


def test_those_that_are_closing_are_passed_over() -> None:
    """Also before the loop has begun to close them; and what they are owed is still sent."""

    class Leaves(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            server.broadcast(b"before ")
            getattr(conn, bytes(data).decode())()
            server.broadcast(b"after ")
            server.broadcast(b"after ", [conn])
            return b"reply"

    handler = Leaves()
    got = []
    with serving(handler) as server, clients(server, handler, 4) as (stays, *socks):
        for sock, how in zip(socks, (b"close", b"abort", b"shutdown_write"), strict=True):
            sock.sendall(how)
            try:
                got.append(receive_all(sock))
            except ConnectionResetError:
                got.append(b"reset")
        server.stop()
        assert receive_all(stays) == b"before after " * 3
    assert got[0] == b"before reply"
    assert got[1].endswith(b"reset")
    assert got[2] == b"before after " * 2 + b"before "


def test_inside_on_connect_and_on_close() -> None:
    class Announces(Recorder):
        def on_connect(self, conn: Connection) -> None:
            server.broadcast(b"+%d" % (conn.id - first))
            super().on_connect(conn)

        def on_close(self, conn: Connection, reason: CloseReason) -> None:
            server.broadcast(b"-%d" % (conn.id - first))
            server.broadcast(b"to the dead", [conn])
            super().on_close(conn, reason)

    handler = Announces()
    first = 0
    with serving(handler) as server, contextlib.ExitStack() as stack:
        ((sock, conn),) = by_client(server, handler, 1)
        stack.enter_context(sock)
        start = b"+%d" % conn.id
        first = conn.id
        ((other, _),) = by_client(server, handler, 1)
        assert receive_exactly(other, 2) == b"+1"
        other.close()
        handler.until("close")
        assert receive_exactly(sock, len(start) + 4) == start + b"+1-1"


def test_connections_the_server_does_not_serve_are_not_all() -> None:
    handler, mine = Recorder(), Recorder()
    with (
        serving(handler) as server,
        clients(server, handler, 1) as (sock,),
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        server.loops[0].connect(listener.getsockname(), mine, Framed())
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(PATIENCE)
            conn = mine.next("connect").conn
            server.broadcast(b"all")
            server.broadcast(b"you", [conn])
            assert receive_exactly(theirs, 7) == framed(b"you")
            assert receive_exactly(sock, 3) == b"all"


def test_while_the_server_stops() -> None:
    """Broadcasts from a thread that knows nothing: each client gets a beginning of it."""
    handler = Recorder()
    with serving(handler, loops=2) as server, clients(server, handler, 20) as socks:
        over = threading.Event()
        began = threading.Event()

        def talk() -> None:
            number = 0
            while not over.is_set():
                server.broadcast(number.to_bytes(4, "big"))
                number += 1
                if number == 50:
                    began.set()

        drinkers: list[bytes] = []
        readers = [Background(lambda s=sock: drinkers.append(receive_all(s))) for sock in socks]
        talker = Background(talk)
        wait(began)
        server.stop()
        over.set()
        talker.join()
        for reader in readers:
            reader.join()
        reasons = [handler.next("close").value for _ in socks]
    assert set(reasons) == {CloseReason.SHUTDOWN}
    longest = max(drinkers, key=len)
    assert longest == b"".join(n.to_bytes(4, "big") for n in range(len(longest) // 4))
    assert all(got and longest.startswith(got) for got in drinkers)


# ---- protocols ----------------------------------------------------------------------------------


class Counting(Framed):
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls: list[Connection] = []

    def packet(self, conn: Connection, reply: Any) -> Any:
        self.calls.append(conn)
        return super().packet(conn, reply)


def test_a_protocol_dresses_it_once() -> None:
    handler = Recorder()
    protocol = Counting()
    with serving(handler, protocol=protocol) as server, clients(server, handler, 50) as socks:
        server.broadcast(b"hello")
        server.broadcast(memoryview(b"0123456789")[::3])
        wanted = framed(b"hello", b"0369")
        assert [receive_exactly(sock, len(wanted)) for sock in socks] == [wanted] * 50
        assert len(protocol.calls) == 2


def test_protocols_of_one_loop_get_a_frame_each() -> None:
    handler = Recorder()
    loop = EventLoop()
    with contextlib.ExitStack() as stack:
        socks = []
        protocols: list[Protocol] = [Framed(), Lines(), Netstrings()]
        for protocol in protocols * 3:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.settimeout(PATIENCE)
            socks.append(stack.enter_context(theirs))
            receive = receiver(handler, protocol, 1000)
            loop.give(ours.detach(), b"", handler, protocol, receive)
        thread = Background(loop.run)
        conns = [handler.next("connect").conn for _ in socks]
        on_loop(loop, loop.broadcast, b"all")
        on_loop(loop, loop.broadcast, b"some", conns[2:5])
        loop.stop()
        wanted = [framed(b"all"), b"all\n", b"3:all,"] * 3
        for number, some in ((2, b"4:some,"), (3, framed(b"some")), (4, b"some\n")):
            wanted[number] += some
        assert [receive_all(sock) for sock in socks] == wanted
        thread.join()


def test_a_protocol_may_take_what_is_no_bytes() -> None:
    class Text(Lines):
        def packet(self, conn: Connection, reply: Any) -> Any:
            return reply.encode() + b"\n"

    handler = Recorder()
    with serving(handler, protocol=Text()) as server, clients(server, handler, 3) as socks:
        server.broadcast("grüße")
        wanted = "grüße\n".encode()
        assert [receive_exactly(sock, len(wanted)) for sock in socks] == [wanted] * 3


# ---- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2], (b"a", b"b"), object()], ids=repr)
def test_what_cannot_be_sent_raises_in_the_sender_and_reaches_nobody(data: Any) -> None:
    class Wrong(Recorder):
        def on_message(self, conn: Connection, ctx: Any, message: Any) -> Any:
            server.broadcast(data)

    handler = Wrong()
    with serving(handler) as server, connect(server) as sock, connect(server) as other:
        conns = [handler.next("connect").conn for _ in range(2)]
        with pytest.raises(TypeError):
            server.broadcast(data)
        with pytest.raises(TypeError):
            server.broadcast(data, conns)
        sock.sendall(b"x")
        assert receive_all(sock) == b""
        assert isinstance(handler.next("error").value, TypeError)
        assert handler.next("close").value is CloseReason.HANDLER_ERROR
        server.broadcast(b"fine")
        assert receive_exactly(other, 4) == b"fine"


def test_what_packet_raises_in_another_thread_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Fussy(Protocol):
        def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
            return None, None

        def packet(self, conn: Connection, reply: Any) -> Any:
            return bytes([1 // len(reply)]) + reply

    handler = Recorder()
    with (
        caplog.at_level(logging.ERROR, "gevffi"),
        serving(handler, protocol=Fussy()) as server,
        clients(server, handler, 2) as socks,
    ):
        server.broadcast(b"")
        server.broadcast(b"x")
        assert [receive_exactly(sock, 2) for sock in socks] == [b"\1x"] * 2
    (record,) = caplog.records
    assert "ZeroDivisionError" in record.getMessage()


def test_a_loop_takes_only_its_own_on_its_own_thread() -> None:
    handler = Recorder()
    with serving(handler, loops=2) as server, contextlib.ExitStack() as stack:
        pairs = list(by_client(server, handler, 2))
        socks = [stack.enter_context(sock) for sock, _ in pairs]
        conns = [conn for _, conn in pairs]
        loop = conns[0].loop
        with pytest.raises(RuntimeError, match="belongs to the thread of"):
            loop.broadcast(b"x")
        with pytest.raises(
            ValueError, match=f"belongs to {conns[1].loop.name}, not to {loop.name}"
        ):
            on_loop(loop, loop.broadcast, b"x", conns)
        server.stop()
        assert [receive_all(sock) for sock in socks] == [b"", b""]


def test_after_the_end_on_the_thread_it_ran_on() -> None:
    handler = Recorder()
    loop = EventLoop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    got: list[bytes] = []
    with theirs:
        reader = Background(lambda: got.append(receive_all(theirs)))
        protocol = Framed()
        loop.give(ours.detach(), b"", handler, protocol, receiver(handler, protocol, 100))
        loop.call_soon_threadsafe(loop.broadcast, b"x")
        loop.call_soon_threadsafe(loop.stop)
        loop.run()
        conn = handler.next("connect").conn
        loop.broadcast(b"late")
        loop.broadcast(b"late", [conn])
        reader.join()
    assert got == [framed(b"x")]


def test_after_a_loop_was_torn_down_with_output_unsent() -> None:
    class Ends(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            conn.send(b"unsent")
            raise SystemExit

    handler = Ends()
    loop = EventLoop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        loop.give(ours.detach(), b"", handler, Raw(), receiver(handler, Raw(), 100))
        theirs.sendall(b"x")
        with pytest.raises(SystemExit):
            loop.run()
        assert loop._outbox.pieces
        loop.broadcast(b"late")
        loop.broadcast(b"late", [handler.next("connect").conn])
        assert receive_all(theirs) == b""


# ---- any sequence -------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.just(0)),
        st.tuples(st.just("close"), st.integers(0, 7)),
        st.tuples(st.just("shut"), st.integers(0, 7)),
        st.tuples(st.just("send"), st.integers(0, 7)),
        st.tuples(st.just("all"), st.integers(0, 20_000)),
        st.tuples(st.just("some"), st.sets(st.integers(0, 7), max_size=4).map(tuple)),
    ),
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(STEPS, st.booleans())
def test_any_sequence_reaches_those_that_are_open(steps: Sequence[Any], inside: bool) -> None:
    """Each step in a call of its own, or all of them in one turn of the loop."""
    handler = Recorder()
    loop = EventLoop()
    thread = Background(loop.run)
    protocol = Framed()
    receive = receiver(handler, protocol, 1000)
    conns: list[Connection] = []
    socks: list[socket.socket] = []
    wanted: list[bytes] = []
    open_: list[bool] = []

    def take(name: str, value: Any) -> None:
        text = b"%s %r" % (name.encode(), value) if not isinstance(value, int) else bytes(value)
        if name == "open":
            if len(conns) < 8:
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                theirs.settimeout(PATIENCE)
                loop.give(ours.detach(), b"", handler, protocol, receive)
                conns.append(handler.until("connect").conn)  # one may have closed meanwhile
                socks.append(theirs)
                wanted.append(b"")
                open_.append(True)
        elif name == "all":
            loop.broadcast(text)
            for number, is_open in enumerate(open_):
                wanted[number] += framed(text) * is_open
        elif name == "some":
            chosen = [number for number in value if number < len(conns)]
            loop.broadcast(text, [conns[number] for number in chosen])
            for number in chosen:
                wanted[number] += framed(text) * open_[number]
        elif value < len(conns):
            if name == "send":
                conns[value].send(b"mine")
                wanted[value] += framed(b"mine") * open_[value]
            else:
                conns[value].close() if name == "close" else conns[value].shutdown_write()
                open_[value] = False

    def take_all() -> None:
        for step in steps:
            take(*step)

    if inside:
        on_loop(loop, take_all)
    else:
        for step in steps:
            on_loop(loop, take, *step)
    loop.stop(PATIENCE)
    got = [receive_all(sock) for sock in socks]
    thread.join()
    for sock in socks:
        sock.close()
    assert got == wanted
