"""Several loops: how connections spread, by strategy or by the kernel."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from helpers import Echo, Recorder, connect, receive_all, receive_exactly, serving

from gevffi import (
    Address,
    Balance,
    CloseReason,
    Connection,
    EventLoop,
    LeastConnections,
    RoundRobin,
    Server,
)


def names(conns: Sequence[Connection]) -> list[str]:
    return [conn.loop.name for conn in conns]


@contextlib.contextmanager
def opened(server: Server, handler: Recorder, count: int) -> Iterator[list[Connection]]:
    """`count` connections, opened one after the other, as the server sees them."""
    with contextlib.ExitStack() as stack:
        conns = []
        for _ in range(count):
            stack.enter_context(connect(server))
            conns.append(handler.until("connect").conn)
        yield conns


@pytest.mark.parametrize("balance", [None, RoundRobin()], ids=["default", "RoundRobin"])
def test_round_robin_goes_around(balance: Balance | None) -> None:
    handler = Recorder()
    with (
        serving(handler, loops=3, balance=balance) as server,
        opened(server, handler, 9) as conns,
    ):
        assert names(conns) == [loop.name for loop in server.loops] * 3
        assert [loop.connection_count for loop in server.loops] == [3, 3, 3]
        assert [loop.load for loop in server.loops] == [3, 3, 3]


def test_each_connection_stays_on_the_thread_of_its_loop() -> None:
    handler = Echo()
    with serving(handler, loops=3) as server, contextlib.ExitStack() as stack:
        for sock in [stack.enter_context(connect(server)) for _ in range(6)]:
            for _ in range(3):
                sock.sendall(b"x")
                receive_exactly(sock, 1)
        seen: dict[str, set[int]] = {}
        messages = [handler.until("message") for _ in range(18)]
        for event in messages:
            seen.setdefault(event.conn.loop.name, set()).add(event.thread)
    assert len(seen) == 3
    assert all(len(threads) == 1 for threads in seen.values())
    assert len(set.union(*seen.values())) == 3


def test_least_connections_takes_the_emptiest_loop() -> None:
    handler = Recorder()
    with serving(handler, loops=3, balance=LeastConnections()) as server:
        first, second, third = (loop.name for loop in server.loops)
        socks = []
        conns = []
        for _ in range(6):
            socks.append(connect(server))
            conns.append(handler.next("connect").conn)
        assert names(conns) == [first, second, third] * 2
        for sock, conn in zip(socks, conns, strict=True):
            if conn.loop.name == second:
                sock.close()
                handler.until("close")
        with opened(server, handler, 3) as more:
            assert names(more) == [second, second, first]
        for sock in socks:
            sock.close()


def test_a_burst_spreads_too() -> None:
    handler = Recorder()
    with (
        serving(handler, loops=4, balance=LeastConnections()) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(80):
            stack.enter_context(connect(server))
        conns = [handler.until("connect").conn for _ in range(80)]
        assert set(Counter(names(conns)).values()) == {20}


class ByPort(Balance):
    """Even ports to the first loop, odd ones to the last."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Address]] = []

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        self.seen.append((len(loops), peer))
        assert peer.port is not None
        return loops[-(peer.port % 2)]


def test_a_strategy_of_ones_own_sees_loops_and_peer() -> None:
    balance = ByPort()
    handler = Recorder()
    with serving(handler, loops=3, balance=balance) as server:
        with opened(server, handler, 20) as conns:
            for conn in conns:
                assert conn.peer_address.port is not None
                assert conn.loop is server.loops[-(conn.peer_address.port % 2)]
        assert balance.seen == [(3, conn.peer_address) for conn in conns]


class Broken(Balance):
    """Does wrong once."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def select(self, loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        result, self.result = self.result, loops[0]
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]


@pytest.mark.parametrize("result", [LookupError("no loop"), None, "loop-0"], ids=repr)
def test_a_strategy_that_fails_costs_that_connection_only(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Echo()
    with serving(handler, loops=2, balance=Broken(result)) as server:
        with connect(server) as lost:
            assert receive_all(lost) == b""
        with connect(server) as sock:
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
        assert server.connection_count <= 1
    assert [record.name for record in caplog.records] == ["gevffi"]


def test_reuse_port_has_each_loop_listen_on_the_same_port() -> None:
    handler = Echo()
    with (
        serving(handler, loops=2, reuse_port=True) as server,
        contextlib.ExitStack() as stack,
    ):
        assert server.address.port
        seen = set()
        for _ in range(1000):  # the kernel hashes ports: that all go one way is out of the question
            sock = stack.enter_context(connect(server))
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
            seen.add(handler.until("connect").conn.loop.name)
            if len(seen) == 2:
                break
        assert seen == {loop.name for loop in server.loops}


def test_two_servers_share_a_port_with_reuse_port() -> None:
    one, two = Echo(), Echo()
    with serving(one, reuse_port=True) as first:
        with serving(two, first.address, reuse_port=True) as second:
            assert first.address == second.address
        with connect(first) as sock:  # the other has left: all connections are ours
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
        assert one.until("close").value is CloseReason.EOF


def test_sending_across_loops() -> None:
    """A chat: what one connection says, another one on another loop gets."""
    conns: list[Connection] = []

    class Chat(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            for other in conns:
                if other is not conn:
                    other.send(data)

    handler = Chat()
    with serving(handler, loops=2) as server, connect(server) as alice, connect(server) as bob:
        conns += [handler.next("connect").conn for _ in range(2)]
        assert conns[0].loop is not conns[1].loop
        for number in range(100):
            alice.sendall(b"%4d" % number)
            assert receive_exactly(bob, 4) == b"%4d" % number
            bob.sendall(b"%4d" % -number)
            assert receive_exactly(alice, 4) == b"%4d" % -number
