"""Output that somebody does not take: peers that never read, read late, or read slowly.

Also what may be sent, and that it leaves whole and in order however the kernel takes it.
"""

from __future__ import annotations

import array
import contextlib
import random
import socket
import threading
from typing import Any

import numpy as np
import pytest
from faults import (
    QUIET,
    Echo,
    Recorder,
    audited,
    connect,
    cpu_used,
    on_loop,
    pattern,
    read,
    read_all,
    reset,
)

from gevffi import CloseReason, Connection


def test_a_peer_that_never_reads_is_paused_and_then_read_again() -> None:
    """Unsent output pauses reading, once told, without a spin; and nothing is lost."""
    handler = Echo()
    payload = pattern(24 << 20)
    with audited(handler) as server:
        client = connect(server, SO_RCVBUF=65536)
        writer = threading.Thread(target=client.sendall, args=(payload,))
        writer.start()
        handler.wait_for("high_water")
        assert cpu_used(server) < QUIET
        conn = handler.conns[0]
        unsent = on_loop(server, lambda: conn.write_buffer_length)
        assert 65536 < unsent < 65536 + 2 * (256 << 10)
        assert len(handler.received[conn.id]) < len(payload)
        assert handler.counts["high_water"] == 1
        assert handler.counts["drain"] == 0
        assert read(client, len(payload)) == payload
        writer.join()
        client.close()
        handler.wait_for("close")
    assert handler.counts["high_water"] == handler.counts["drain"]
    assert handler.reasons == [CloseReason.EOF]


def test_high_water_and_drain_take_turns_when_they_are_told_late() -> None:
    """With one event told a turn, output chokes again before its last drain has been told."""

    class Alternates(Recorder):
        def on_high_water(self, conn: Connection) -> None:
            super().on_high_water(conn)
            assert self.events[conn.id].count("high_water") == (
                self.events[conn.id].count("drain") + 1
            )

        def on_drain(self, conn: Connection) -> None:
            super().on_drain(conn)
            assert self.events[conn.id].count("high_water") == self.events[conn.id].count("drain")

    handler = Alternates()
    block = pattern(1 << 20)
    blocks = dict.fromkeys(range(8), 0)

    def refill() -> None:
        for i, conn in enumerate(handler.conns):
            if conn.write_buffer_length == 0 and blocks[i] < 12:
                blocks[i] += 1
                conn.send(block)
        if min(blocks.values()) < 12:
            server.loops[0].call_soon_threadsafe(refill)

    def drink(client: socket.socket) -> None:
        got.append(read(client, 12 * len(block)) == 12 * block)
        client.close()

    got: list[bool] = []
    with audited(handler, max_events=1, write_high_water=1024) as server:
        clients = [connect(server, SO_RCVBUF=8192) for _ in blocks]
        handler.wait_for("connect", len(clients))
        drinkers = [threading.Thread(target=drink, args=(client,)) for client in clients]
        for thread in drinkers:
            thread.start()
        server.loops[0].call_soon_threadsafe(refill)
        for thread in drinkers:
            thread.join()
        handler.wait_for("close", len(clients))
    assert got == [True] * 8
    assert not handler.errors


def test_over_the_write_limit_is_a_slow_consumer() -> None:
    handler = Recorder()
    with audited(handler, write_limit=1 << 20) as server:
        client = connect(server)
        handler.wait_for("connect")
        for _ in range(40):
            handler.conns[0].send(bytes(256 << 10))
        handler.wait_for("close")
        client.close()
    assert handler.reasons == [CloseReason.SLOW_CONSUMER]
    assert handler.counts["high_water"] <= 1


def test_never_reads_and_then_resets() -> None:
    handler = Echo()
    with audited(handler) as server:
        client = connect(server, SO_RCVBUF=4096)
        client.setblocking(False)
        payload = bytes(1 << 20)
        while not handler.counts["high_water"]:
            with contextlib.suppress(BlockingIOError):
                client.send(payload)
            on_loop(server, lambda: None)
        reset(client)
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.RESET]


def test_a_slow_reader_gets_every_byte_in_order() -> None:
    """Eight megabytes through a small window: most of it leaves by write events."""
    payload = pattern(8 << 20)
    taken: list[Connection] = []

    class Sends(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            half = len(payload) // 2
            conn.send(payload[:half])
            conn.send(memoryview(payload)[half:], on_sent=taken.append)

    handler = Sends()
    with audited(handler) as server:
        client = connect(server, SO_RCVBUF=8192)
        handler.wait_for("high_water")
        assert not taken
        got = bytearray()
        while len(got) < len(payload):
            got += client.recv(10_007)
        assert got == payload
        client.close()
        handler.wait_for("close")
    assert taken == handler.conns
    assert handler.counts["drain"] == 1


def test_large_and_small_pieces_leave_in_order_when_the_kernel_takes_part() -> None:
    """Copied pieces, pieces by pointer, and views of the arena, 600 of them in one turn."""
    rng = random.Random(1)

    class Mixes(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.wanted = bytearray()

        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            for number in range(600):
                size = rng.choice((0, 1, 7, 100, 8191, 8192, 8193, 20_000))
                piece: Any = pattern(size)
                if number % 4 == 1:
                    piece = bytearray(piece)
                elif number % 4 == 2:
                    piece = data[: size + 1]
                elif number % 4 == 3:
                    piece = memoryview(piece)
                self.wanted += piece
                conn.send(piece)
                if isinstance(piece, bytearray):
                    piece[:] = bytes(len(piece))  # the caller may reuse its buffer
                elif isinstance(piece, memoryview):
                    piece.release()  # and end its views
            return None

    handler = Mixes()
    with audited(handler) as server:
        client = connect(server, SO_RCVBUF=8192)
        # The loop itself sends it, so it is read when all of it is there, and in one read: another
        # one would wait until the answer to the first is drained.
        on_loop(server, client.sendall, pattern(40_000))
        handler.wait_received(40_000)
        on_loop(server, lambda: None)
        wanted = bytes(handler.wanted)
        assert read(client, len(wanted)) == wanted
        client.close()
        handler.wait_for("close")
    assert not handler.errors


def test_borrowed_views_sent_by_pointer_are_copied_before_the_arena_is_reused() -> None:
    """The peer does not read its echo while others fill the arena again and again."""
    handler = Echo()
    first = pattern(2 << 20)
    with audited(handler, arena_size=128 << 10, write_high_water=16 << 20) as server:
        stuck = connect(server, SO_RCVBUF=8192)
        stuck.sendall(first)
        handler.wait_received(len(first))
        with connect(server) as other:
            for round_ in range(100):
                noise = bytes([round_]) * 65536
                other.sendall(noise)
                assert read(other, len(noise)) == noise
        assert server.loops[0].leases == 0
        assert read(stuck, len(first)) == first
        stuck.close()
        handler.wait_for("close", 2)


@pytest.mark.parametrize(
    "reply",
    [
        np.arange(10, dtype=np.uint8),
        np.array([7], dtype=np.uint8),
        np.arange(5000, dtype=np.float64),
        np.arange(50_000, dtype=np.float64),
        array.array("d", range(1000)),
        bytearray(b"bytearray"),
        memoryview(b"0123456789")[2:5],
    ],
    ids=lambda reply: f"{type(reply).__name__}-{len(reply)}",
)
def test_anything_with_the_buffer_protocol_may_be_sent(reply: Any) -> None:
    """A NumPy array took `+=` over, and added itself to the output of the whole loop."""

    class Replies(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            conn.send(reply)
            return reply

    handler = Replies()
    with audited(handler) as server:
        client = connect(server)
        client.sendall(b"x")
        wanted = memoryview(reply).tobytes() * 2
        assert read(client, len(wanted)) == wanted
        handler.conns[0].send(reply)
        assert read(client, len(wanted) // 2) == memoryview(reply).tobytes()
        client.close()
        handler.wait_for("close")
    assert not handler.errors


@pytest.mark.parametrize("reply", ["text", "text" * 9999, 5, ["list"], object()], ids=repr)
def test_what_cannot_be_sent_costs_its_connection_only(reply: Any) -> None:
    class Replies(Echo):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            return reply if data == b"bad" else super().on_message(conn, ctx, data)

    handler = Replies()
    with audited(handler) as server:
        bad, good = connect(server), connect(server)
        bad.sendall(b"bad")
        assert read_all(bad) == b""
        good.sendall(b"good")
        assert read(good, 4) == b"good"
        bad.close()
        good.close()
        handler.wait_for("close", 2)
    assert sorted(r.name for r in handler.reasons) == ["EOF", "HANDLER_ERROR"]
    assert isinstance(handler.errors[0], TypeError)


def test_on_sent_is_called_also_when_the_connection_closes_at_once() -> None:
    sent: list[Connection] = []

    class Leaves(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.send(b"bye", on_sent=sent.append)
            conn.close()

    handler = Leaves()
    with audited(handler) as server, connect(server) as client:
        assert read_all(client) == b"bye"
        handler.wait_for("close")
    assert sent == handler.conns


def test_on_sent_is_not_called_for_what_is_dropped() -> None:
    sent: list[Connection] = []

    class Ends(Recorder):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.shutdown_write()
            conn.send(b"too late", on_sent=sent.append)

    handler = Ends()
    with audited(handler) as server, connect(server) as client:
        assert read_all(client) == b""
        client.close()
        handler.wait_for("close")
    assert sent == []
