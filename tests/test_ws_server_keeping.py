"""WebSocket servers over time: pings, deadlines, slow peers, pauses, threads, broadcasts, ends."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import weakref
from typing import Any

import pytest
from helpers import PATIENCE, Background, connect, on_loop, receive_all, receive_exactly
from ws_helpers import (
    CLOSE,
    CLOSE_BACK,
    HELLO,
    HELLO_BACK,
    REQUEST,
    RESPONSE,
    Recorder,
    frame,
    opened,
    serving,
)

from gevffi import Server, ws

PING = b"\x89\0"


def pause(conn: ws.Connection, message: Any) -> Any:
    """Reply, and take nothing more for now."""
    conn.pause_reading()
    return message


def asking(server: Server, data: bytes) -> socket.socket:
    """A client that has sent `data` before the server's time for its handshake begins to count."""
    socks: list[socket.socket] = []

    def ask() -> None:
        socks.append(connect(server))
        socks[0].sendall(data)

    on_loop(server.loops[0], ask)
    return socks[0]


def test_a_stalled_handshake_is_closed() -> None:
    handler = Recorder()
    with serving(handler, handshake_timeout=0.05) as server:
        for part in (b"", REQUEST[:-1]):
            with asking(server, part) as sock:
                assert receive_all(sock).startswith(b"HTTP/1.1 408 ")
        with asking(server, REQUEST) as sock:  # and one that is done is not
            assert receive_exactly(sock, len(RESPONSE)) == RESPONSE
            sock.sendall(HELLO)
            assert receive_exactly(sock, len(HELLO_BACK)) == HELLO_BACK
        handler.next("open")


def test_a_peer_that_answers_pings_stays_and_one_that_does_not_gets_1011() -> None:
    handler = Recorder()
    # The time-out is long enough for this thread to answer in time on a busy machine too.
    with (
        serving(handler, ping_interval=0.02, ping_timeout=2.0) as server,
        opened(server) as dead,
        opened(server) as living,
    ):
        handler.next("open")
        conn, _ = handler.next("open")
        data = b""
        dead.setblocking(False)
        while not data.endswith(b"no answer to a ping"):
            assert receive_exactly(living, 2) == PING
            living.sendall(frame(0x8A))
            with contextlib.suppress(BlockingIOError):
                data += dead.recv(100)
        assert data == PING + b"\x88\x15\x03\xf3no answer to a ping"
        dead.close()
        while (event := handler.events.get(timeout=20))[0] == "pong":
            assert event[1] is conn
        assert (event[0], event[2]) == ("close", (1011, "no answer to a ping"))
        assert conn.connected


def test_a_peer_in_the_middle_of_a_long_frame_stays_until_it_stalls() -> None:
    """It can answer no ping before the end of the frame."""
    handler = Recorder()
    sent = 0
    message = frame(0x82, bytes(1 << 20))
    with (
        serving(handler, compression=None, ping_interval=0.01, ping_timeout=1) as server,
        opened(server) as sock,
    ):
        # Each ping says that whatever was looked at before was found to be living.
        for _ in range(3):
            sock.sendall(message[sent : sent + 1000])
            sent += 1000
            assert receive_exactly(sock, 2) == PING
        sock.sendall(message[sent:])
        handler.next("open")
        handler.next("message")
        reply = b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)
        got = bytearray()
        while len(got) < len(reply):  # a ping may be in front
            got += sock.recv(1 << 20)
        sock.sendall(message[:1000])
        assert receive_all(sock).endswith(b"\x88\x15\x03\xf3no answer to a ping")
        assert handler.next("close")[1] == (1011, "no answer to a ping")


def test_a_peer_that_is_behind_with_reading_stays_until_it_stalls() -> None:
    """Nothing is read from it meanwhile, and so no pong; but what waits for it grows less."""
    handler = Recorder()
    size, portion = 12 << 20, 256 << 10
    with (
        serving(
            handler, ping_interval=0.02, ping_timeout=1, write_limit=1 << 30, close_timeout=0.1
        ) as server,
        opened(server) as sock,
    ):
        conn, _ = handler.next("open")
        clock = threading.Semaphore(0)
        timer = server.run_every(0.05, clock.release)
        for _ in range(2):
            conn.send_binary(bytes(size))
        for _ in range(size // portion):  # 2.4 s
            assert clock.acquire(timeout=PATIENCE)
            receive_exactly(sock, portion)
        handler.next("high_water")
        assert handler.events.empty()
        timer.cancel()
        assert handler.next("close")[1] == (1011, "no answer to a ping")


def test_no_pings() -> None:
    """There is no deadline at all once the handshake is done."""
    handler = Recorder()
    with serving(handler, ping_interval=0) as server, opened(server) as sock:
        conn, _ = handler.next("open")
        sock.sendall(HELLO)
        receive_exactly(sock, len(HELLO_BACK))
        assert conn._deadline is None


def test_a_close_that_is_not_answered_ends_at_its_deadline() -> None:
    handler = Recorder(lambda conn, message: conn.close(4000, "enough"))
    with serving(handler, close_timeout=0.05) as server, opened(server) as sock:
        sock.sendall(HELLO + HELLO)
        assert receive_all(sock) == b"\x88\x08\x0f\xa0enough"
        sock.close()
        handler.next("open")
        handler.next("message")
        assert handler.next("close")[1] == (1006, "")


def test_a_close_that_is_answered() -> None:
    handler = Recorder(lambda conn, message: conn.close(4000))
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(HELLO + frame(0x89, b"late"))
        assert receive_exactly(sock, 4) == b"\x88\x02\x0f\xa0"
        sock.sendall(frame(0x88, b"\x0f\xa1ok"))
        assert receive_all(sock) == b""
        handler.next("open")
        handler.next("message")
        assert handler.next("close")[1] == (4001, "ok")


@pytest.mark.parametrize("data", [b"", HELLO[:3]])
def test_a_peer_that_vanishes(data: bytes) -> None:
    handler = Recorder()
    with serving(handler) as server:
        with opened(server) as sock:
            sock.sendall(data)
        handler.next("open")
        assert handler.next("close")[1] == (1006, "")


def test_a_slow_consumer_is_bounded() -> None:
    """Who sends and does not read is held back; who is sent to and does not read is closed."""
    handler = Recorder()
    with serving(handler, write_limit=1 << 20) as server, opened(server) as sock:
        conn, _ = handler.next("open")
        message = frame(0x82, bytes(100_000))
        sender = Background(sock.sendall, message * 500)
        while (event := handler.events.get(timeout=PATIENCE))[0] != "high_water":
            assert event[0] == "message"
        pending = []

        def look() -> None:
            pending.append(conn.transport.write_buffer_length)
            for _ in range(12):
                conn.send_binary(bytes(100_000))

        assert conn.connected
        on_loop(conn.loop, look)
        assert pending[0] <= 1 << 20
        while (event := handler.events.get(timeout=PATIENCE))[0] != "close":
            assert event[0] in ("message", "high_water")
        assert event[2][0] == 1006
        with pytest.raises(ConnectionError):  # it was held back until then
            sender.join()


def test_pausing_within_a_read_loses_and_delivers_nothing() -> None:
    handler = Recorder(pause)
    with serving(handler) as server, opened(server) as sock:
        handler.next("open")
        for _ in range(3):
            sock.sendall(b"".join(frame(0x81, b"%d" % n) for n in range(5)))
        sock.sendall(CLOSE)
        for n in [*range(5)] * 3:
            conn, message = handler.next("message")
            assert message == str(n)
            assert receive_exactly(sock, 3) == b"\x81\x01%d" % n
            assert handler.events.empty()
            conn.loop.call_soon_threadsafe(conn.resume_reading)
        assert receive_all(sock) == CLOSE_BACK
        assert handler.next("close")[1] == (1000, "")


def test_the_end_behind_a_pause() -> None:
    """What came before it is delivered all the same."""
    handler = Recorder(pause)
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(HELLO * 3 + CLOSE)
        sock.shutdown(socket.SHUT_WR)
        conn, _ = handler.next("open")
        for _ in range(3):
            handler.next("message")
            conn.loop.call_soon_threadsafe(conn.resume_reading)
        assert receive_all(sock) == HELLO_BACK * 3 + CLOSE_BACK
        assert handler.next("close")[1] == (1000, "")


def test_a_bad_frame_behind_a_pause() -> None:
    handler = Recorder(pause)
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(HELLO + frame(0x83))
        conn, _ = handler.next("open")
        handler.next("message")
        assert receive_exactly(sock, len(HELLO_BACK)) == HELLO_BACK
        conn.loop.call_soon_threadsafe(conn.resume_reading)
        assert receive_all(sock)[2:4] == b"\x03\xea"
        sock.close()
        assert handler.next("close")[1][0] == 1002


def test_sending_from_another_thread() -> None:
    handler = Recorder()
    with serving(handler) as server, opened(server) as sock:
        conn, _ = handler.next("open")
        data = bytearray(b"12")
        conn.send_binary(data)
        data[:] = b"xx"
        conn.send_text("é")
        conn.send_text(b"ok")
        conn.send_binary(memoryview(b"abcd")[::2])
        conn.ping(b"?")
        conn.close(3000, "bye")
        conn.send_text("too late")
        expected = b"\x82\x0212\x81\x02\xc3\xa9\x81\x02ok\x82\x02ac\x89\x01?\x88\x05\x0b\xb8bye"
        assert receive_exactly(sock, len(expected)) == expected
        sock.sendall(CLOSE)
        assert receive_all(sock) == b""


def test_what_cannot_be_sent_is_said_at_once() -> None:
    handler = Recorder()
    with serving(handler) as server, opened(server):
        conn, _ = handler.next("open")
        calls: list[tuple[Any, tuple[Any, ...], type[Exception]]] = [
            (conn.send_binary, ("text",), TypeError),
            (conn.send_text, (7,), TypeError),
            (conn.ping, (b"x" * 126,), ValueError),
            (conn.close, (1005,), ValueError),
            (conn.close, (1000, "x" * 124), ValueError),
            (conn.close, (None, "why"), ValueError),
            (conn.pause_reading, (), RuntimeError),
        ]
        for call, arguments, error in calls:
            with pytest.raises(error):
                call(*arguments)


@pytest.mark.parametrize("loops", [1, 2])
@pytest.mark.parametrize("message", ["text", b"binary" * 10_000], ids=["text", "binary"])
def test_broadcast(loops: int, message: str | bytes) -> None:
    handler = Recorder()
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with serving(handler, loops=loops) as server, contextlib.ExitStack() as stack:
        socks: list[socket.socket] = [stack.enter_context(opened(server)) for _ in range(9)]
        squeezed = stack.enter_context(connect(server))
        squeezed.sendall(REQUEST[:-2] + extension)
        socks.append(squeezed)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += squeezed.recv(1)
        conns = [handler.next("open")[0] for _ in socks]
        ws.broadcast(conns, message)
        conns[0].loop.call_soon_threadsafe(ws.broadcast, conns, message)
        server.broadcast(message)
        payload = message.encode() if isinstance(message, str) else message
        first = b"\x81" if isinstance(message, str) else b"\x82"
        size = len(payload)
        length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        expected = (first + length + payload) * 3
        for sock in socks:
            assert receive_exactly(sock, len(expected)) == expected


def test_broadcast_passes_over_who_is_closing() -> None:
    handler = Recorder()
    with serving(handler) as server, opened(server) as one, opened(server) as two:
        conns = [handler.next("open")[0] for _ in range(2)]
        by_port = {conn.peer_address.port: conn for conn in conns}
        by_port[one.getsockname()[1]].close()
        ws.broadcast(conns, "x")
        assert receive_exactly(two, 3) == b"\x81\x01x"
        assert receive_exactly(one, 4) == CLOSE_BACK
        one.sendall(CLOSE)
        assert receive_all(one) == b""


def test_broadcast_to_all_follows_who_comes_and_goes() -> None:
    """Neither to those in their handshake nor behind a close frame."""
    handler = Recorder()
    with serving(handler) as server, connect(server) as asking, opened(server) as one:
        asking.sendall(REQUEST[:-2])
        first, _ = handler.next("open")
        server.broadcast("1")
        assert receive_exactly(one, 3) == b"\x81\x011"
        with opened(server) as two:
            handler.next("open")
            server.broadcast("2")
            assert receive_exactly(two, 3) == b"\x81\x012"
            first.close()
            server.broadcast("3")
            assert receive_exactly(two, 3) == b"\x81\x013"
            assert receive_exactly(one, 7) == b"\x81\x012" + CLOSE_BACK
            two.sendall(CLOSE)
            assert receive_all(two) == CLOSE_BACK
        one.sendall(CLOSE)
        assert receive_all(one) == b""
        asking.sendall(b"\r\n")
        names = sorted(handler.events.get(timeout=PATIENCE)[0] for _ in range(3))
        assert names == ["close", "close", "open"]
        server.broadcast(b"4")
        assert receive_exactly(asking, len(RESPONSE) + 3) == RESPONSE + b"\x82\x014"


def test_a_stopped_server_can_be_started_again_and_keeps_no_loop() -> None:
    handler = Recorder()
    server = ws.Server(handler, "127.0.0.1:0")
    for _ in range(2):
        with server.running():
            loop = weakref.ref(server.loops[0])
            with opened(server) as sock:
                sock.sendall(HELLO + CLOSE)
                assert receive_all(sock) == HELLO_BACK + CLOSE_BACK
        del sock
        handler.events.queue.clear()  # the connection, and its loop
        gc.collect()
        assert loop() is None


def test_stopping_says_that_it_goes_away() -> None:
    handler = Recorder()
    with serving(handler) as server:
        sock = connect(server)
        sock.sendall(REQUEST + HELLO)
        handler.next("open")
        handler.next("message")
    with sock:
        assert receive_all(sock).endswith(HELLO_BACK + b"\x88\x02\x03\xe9")
    handler.next("close")


def test_stopping_answers_who_is_in_the_middle_of_a_handshake_with_503() -> None:
    """And who has asked for nothing yet gets no answer."""
    handler = Recorder()
    with serving(handler) as server:
        silent, asking = connect(server), connect(server)
        asking.sendall(REQUEST[:-2])
        with opened(server):  # behind the other one, whose bytes have been read by then
            handler.next("open")
    with silent, asking:
        assert receive_all(asking).startswith(b"HTTP/1.1 503 ")
        assert receive_all(silent) == b""
