"""Senders on many threads, greedy peers, small limits, silence.

Counts decide here, never times: a record tells who sent it and where it belongs.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import zlib
from typing import Any

import pytest
from faults import SECONDS, Echo, Recorder, audited, connect, on_loop, pattern, read

from gevffi import CloseReason, Connection


def record(sender: int, number: int) -> bytes:
    """A frame that tells who sent it, its place, and whether it is whole."""
    payload = pattern((number * 7919) % 20_000)
    head = struct.pack(">HIII", sender, number, len(payload), zlib.crc32(payload))
    return head + payload


def check_records(stream: bytes, senders: int, each: int) -> None:
    """Every record is whole, and each sender's are in order."""
    expected = [0] * senders
    at = 0
    while at < len(stream):
        sender, number, size, crc = struct.unpack_from(">HIII", stream, at)
        at += 14
        assert zlib.crc32(stream[at : at + size]) == crc
        assert number == expected[sender]
        expected[sender] += 1
        at += size
    assert expected == [each] * senders


@pytest.mark.parametrize("connections", [1, 3])
def test_send_from_eight_threads_at_once(connections: int) -> None:
    each = 60
    handler = Recorder()
    with audited(handler) as server:
        clients = [connect(server) for _ in range(connections)]
        handler.wait_for("connect", connections)
        start = threading.Barrier(8)

        def send(sender: int) -> None:
            start.wait(SECONDS)
            for number in range(each):
                for conn in handler.conns:
                    conn.send(record(sender, number))

        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
        for thread in threads:
            thread.start()
        size = 8 * sum(len(record(0, number)) for number in range(each))
        for client in clients:
            check_records(read(client, size), 8, each)
            client.close()
        for thread in threads:
            thread.join()
        handler.wait_for("close", connections)


def test_broadcast_from_a_handler_and_interleaved_sends_keep_their_order() -> None:
    class Broadcasts(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            for number in range(200):  # more than one sendmsg takes, a connection
                for other in self.conns:
                    other.send(record(0, number))
            return None

    handler = Broadcasts()
    with audited(handler) as server:
        clients = [connect(server) for _ in range(5)]
        handler.wait_for("connect", 5)
        clients[0].sendall(b"x")
        size = sum(len(record(0, number)) for number in range(200))
        for client in clients:
            check_records(read(client, size), 1, 200)
            client.close()
        handler.wait_for("close", 5)


def test_a_flood_does_not_keep_another_from_being_served() -> None:
    """A budget for each connection: while one sends without end, another's ping-pong goes on."""
    first_after: list[int] = []

    class Serves(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if data != b"ping":  # of the flood a read may be as short
                self.flood += 1
                return None
            first_after.append(self.flood)
            return data

        flood = 0

    handler = Serves()
    with audited(handler, read_budget=4096) as server:
        greedy, modest = connect(server), connect(server)
        over = threading.Event()

        def pour() -> None:
            block = bytes(1 << 20)
            while not over.is_set():
                greedy.sendall(block)

        def ping() -> int:
            modest.sendall(b"ping")
            return handler.flood

        thread = threading.Thread(target=pour)
        thread.start()
        # What lies ready when the ping does: it must be served after a turn, not after all of it.
        for _ in range(50):
            before = on_loop(server, ping)
            assert read(modest, 4) == b"ping"
            assert first_after[-1] - before <= 2
        over.set()
        thread.join()
        greedy.close()
        modest.close()
        handler.wait_for("close", 2)


@pytest.mark.parametrize(
    "options",
    [
        {"arena_size": 128 << 10},
        {"read_budget": 1000, "max_events": 3},
        {"max_events": 1},
        {"arena_size": 128 << 10, "read_budget": 1 << 20, "max_events": 7},
    ],
    ids=str,
)
def test_small_limits_serve_everybody_byte_for_byte(options: dict[str, Any]) -> None:
    handler = Echo()
    payloads = [bytes([i]) * (20_000 + i) + pattern(20_000) for i in range(60)]
    with audited(handler, **options) as server:
        clients = [connect(server) for _ in payloads]
        for client, payload in zip(clients, payloads, strict=True):
            client.sendall(payload)
        for client, payload in zip(clients, payloads, strict=True):
            assert read(client, len(payload)) == payload
            client.close()
        handler.wait_for("close", len(payloads))


def test_idle_time_closes_the_silent_and_not_the_active() -> None:
    """Active: who sends, and who is sent to. A paused one hears nothing, so it is silent."""

    class Talks(Echo):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if data == b"pause":
                conn.pause_reading()
                return b"paused"
            return super().on_message(conn, ctx, data)

    handler = Talks()
    with audited(handler, idle_time=2) as server:  # longer than this thread is ever kept waiting
        sends, listens = connect(server), connect(server)
        handler.wait_for("connect", 2)
        kept = handler.conns[1]
        talk = server.run_every(0.02, lambda: kept.send(b"tick"))
        paused = connect(server)
        paused.sendall(b"pause")
        assert read(paused, 6) == b"paused"
        silent = [connect(server) for _ in range(200)]
        for _tick in range(1000):  # twenty seconds of them
            if handler.counts["close"] == 201:
                break
            sends.sendall(b"ping")
            assert read(sends, 4) == b"ping"
            with contextlib.suppress(ConnectionError):
                paused.sendall(b"unread")
            assert read(listens, 4) == b"tick"
        assert handler.reasons == [CloseReason.IDLE] * 201
        assert on_loop(server, lambda: [conn.connected for conn in handler.conns[:2]]) == [True] * 2
        talk.cancel()
        handler.wait_for("close", 203)
        for client in [sends, listens, paused, *silent]:
            client.close()
    assert handler.reasons == [CloseReason.IDLE] * 203


def test_an_idle_time_under_a_millisecond_is_not_never() -> None:
    handler = Recorder()
    with audited(handler, idle_time=0.0001) as server, connect(server):
        handler.wait_for("close")
    assert handler.reasons == [CloseReason.IDLE]
