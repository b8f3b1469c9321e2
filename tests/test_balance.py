"""Several loops: how connections spread, by strategy or by the kernel."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Echo, Recorder, connect, receive_all, receive_exactly, serving

from gevffi import (
    Address,
    Balance,
    CloseReason,
    Connection,
    EventLoop,
    LeastConnections,
    RoundRobin,
    Server,
    SourceHash,
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


class Equal:
    """Claims to be any loop."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize("function", [False, True], ids=["Balance", "callable"])
@pytest.mark.parametrize(
    ("result", "told"),
    [
        (LookupError("no loop"), "no loop"),
        (None, "balance must return one of the server's loops, not None"),
        ("loop-0", "balance must return one of the server's loops, not 'loop-0'"),
        (Equal(), "balance must return one of the server's loops, not <"),
    ],
    ids=["raises", "None", "name", "equal"],
)
def test_a_strategy_that_fails_costs_that_connection_only(
    result: Any, told: str, function: bool, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Echo()
    broken = Broken(result)
    with serving(handler, loops=2, balance=broken.select if function else broken) as server:
        with connect(server) as lost:
            assert receive_all(lost) == b""
        with connect(server) as sock:
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
        assert server.connection_count <= 1
    assert [record.name for record in caplog.records] == ["gevffi"]
    assert told in caplog.text


@pytest.mark.parametrize("wrong", [RoundRobin, 5, "RoundRobin", object()], ids=repr)
def test_what_is_no_strategy_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError, match="balance must be") as caught:
        Server(Echo(), "127.0.0.1:0", loops=2, balance=wrong)
    assert repr(wrong) in str(caught.value)


def test_any_callable_is_a_strategy() -> None:
    handler = Recorder()
    asked: list[tuple[Sequence[EventLoop], Address]] = []

    def last(loops: Sequence[EventLoop], peer: Address) -> EventLoop:
        asked.append((loops, peer))
        return loops[-1]

    with serving(handler, loops=3, balance=last) as server, opened(server, handler, 5) as conns:
        assert names(conns) == ["loop-2"] * 5
        assert asked == [(server.loops, conn.peer_address) for conn in conns]


# ---- by source ----------------------------------------------------------------------------------


def loop_of(server: Server, handler: Recorder, source: str) -> str:
    """The loop that a new connection from `source` comes to."""
    host, port = server.address
    assert port is not None
    with socket.create_connection((host, port), PATIENCE, (source, 0)):
        name = handler.until("connect").conn.loop.name
    handler.until("close")
    return name


def test_source_hash_brings_a_peer_to_the_same_loop_again() -> None:
    handler = Recorder()
    peers = [f"127.0.0.{number}" for number in range(1, 33)]
    found: list[list[str]] = []
    for _ in range(2):  # also when it starts anew
        with serving(handler, loops=3, balance=SourceHash()) as server:
            found += [[loop_of(server, handler, peer) for peer in peers] for _ in range(3)]
    assert all(again == found[0] for again in found)
    spread = Counter(found[0])
    assert len(spread) == 3
    assert min(spread.values()) > 3  # of 32; the hash is no matter of chance


def test_source_hash_is_the_same_in_every_process_and_knows_no_port() -> None:
    loops: Any = range(4)
    wanted: dict[str, Any] = {"192.0.2.1": 3, "192.0.2.2": 1, "2001:db8::1": 2, "/s": 0}
    for host, number in wanted.items():
        for port in (1, 65535):
            assert SourceHash().select(loops, Address(host, port)) == number


@pytest.mark.parametrize("named", [False, True])
def test_source_hash_and_unix_peers(named: bool, tmp_path: Path) -> None:
    """Those without a name come one loop after the other; a name is as good as an IP address."""
    handler = Recorder()
    with (
        serving(handler, f"unix:{tmp_path}/s", loops=3, balance=SourceHash()) as server,
        contextlib.ExitStack() as stack,
    ):
        found = []
        for _ in range(6):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            if named:
                sock.bind(str(tmp_path / "client"))
            sock.connect(server.address.host)
            found.append(handler.until("connect").conn.loop.name)
            if named:
                (tmp_path / "client").unlink()
    assert found == [found[0]] * 6 if named else ["loop-0", "loop-1", "loop-2"] * 2


# ---- by the kernel ------------------------------------------------------------------------------


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
