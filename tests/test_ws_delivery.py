"""WebSocket frames between C and the handler: runs that are left in the middle, in every way.

What a frame may hold is tested in test_ws_server.py, cutting alone in c/test_ws_input.c.
"""

from __future__ import annotations

import itertools
import threading
import zlib
from collections.abc import Callable
from typing import Any

import helpers
import pytest
from helpers import connect, on_loop, receive_all, receive_exactly, wait
from ws_helpers import CLOSE, CLOSE_BACK, REQUEST, Recorder, frame, opened, serving

import gevffi
from gevffi import ws

Reply = Callable[[ws.Connection, Any], Any]


def text(*messages: str) -> bytes:
    return b"".join(frame(0x81, message.encode()) for message in messages)


def back(first: int, payload: bytes) -> bytes:
    """A frame of the server."""
    masked = frame(first, payload)
    head = masked[: len(masked) - len(payload) - 4]
    return bytes((head[0], head[1] & 0x7F)) + head[2:] + payload


def texts(*messages: str) -> bytes:
    return b"".join(back(0x81, message.encode()) for message in messages)


# ---- replies of every kind, in one run ----------------------------------------------------------


class Named(str):
    """What is a `str`, and more."""


REPLIES: dict[str, tuple[Any, bytes]] = {
    "none": (None, b""),
    "str": ("é", b"\x81\x02\xc3\xa9"),
    "a kind of str": (Named("ab"), b"\x81\x02ab"),
    "empty": ("", b"\x81\x00"),
    "bytes": (b"ab", b"\x82\x02ab"),
    "bytearray": (bytearray(b"ab"), b"\x82\x02ab"),
    "view": (memoryview(b"ab"), b"\x82\x02ab"),
    "wide view": (memoryview(b"abcd").cast("H"), b"\x82\x04abcd"),
    "scattered view": (memoryview(b"abcd")[::2], b"\x82\x02ac"),
    "126": (b"x" * 126, back(0x82, b"x" * 126)),
    "large": (b"L" * 70_000, back(0x82, b"L" * 70_000)),
    "large str": ("L" * 9_000, back(0x81, b"L" * 9_000)),
}


@pytest.mark.parametrize("alone", [True, False])
def test_replies_of_every_kind_keep_their_order(alone: bool) -> None:
    def reply(conn: ws.Connection, message: str) -> Any:
        return REPLIES[message][0]

    with serving(Recorder(reply)) as server, opened(server) as sock:
        for _ in range(2):
            if alone:
                for name, (_reply, wanted) in REPLIES.items():
                    sock.sendall(text(name))
                    assert receive_exactly(sock, len(wanted)) == wanted, name
            else:
                wanted = b"".join(wanted for _reply, wanted in REPLIES.values())
                sock.sendall(text(*REPLIES))
                assert receive_exactly(sock, len(wanted)) == wanted


def test_a_buffer_may_be_used_again_in_the_next_message() -> None:
    buffer = bytearray(1)

    def reply(conn: ws.Connection, message: str) -> bytearray:
        buffer[:] = message.encode()
        return buffer

    with serving(Recorder(reply)) as server, opened(server) as sock:
        sock.sendall(text(*"abc"))
        assert receive_exactly(sock, 9) == b"\x82\x01a\x82\x01b\x82\x01c"


def test_bytes_as_text_and_views_as_binary() -> None:
    with serving(Recorder(), text="bytes") as server, opened(server) as sock:
        data = text("a", "b") + frame(0x82, b"c") + text("d")
        sock.sendall(data)
        assert receive_exactly(sock, 12) == texts("a", "b") + b"\x82\x01c" + texts("d")


def test_what_is_sent_in_a_callback_goes_out_between_the_replies() -> None:
    def reply(conn: ws.Connection, message: str) -> str:
        conn.send_text("before " + message)
        if message == "1":
            conn.send_binary(b"L" * 20_000)
        return message

    with serving(Recorder(reply)) as server, opened(server) as sock:
        wanted = texts("before 0", "0", "before 1")
        wanted += back(0x82, b"L" * 20_000) + texts("1", "before 2", "2")
        sock.sendall(text(*"012"))
        assert receive_exactly(sock, len(wanted)) == wanted


def test_whole_messages_fragments_pings_and_compressed_ones_in_one_run() -> None:
    """With compression agreed on: what is under the threshold goes plain, the rest squeezed."""
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    long = "long " * 100
    deflater, inflater = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)

    def squeezed(message: str) -> bytes:
        data = deflater.compress(message.encode()) + deflater.flush(zlib.Z_SYNC_FLUSH)
        return frame(0xC1, data[:-4])

    handler = Recorder()
    data = text("a") + frame(0x01, b"b") + frame(0x89, b"!") + text_end("c") + squeezed(long)
    data += squeezed("d") + text(long, "e") + CLOSE
    with serving(handler) as server, connect(server) as sock:
        sock.sendall(REQUEST[:-2] + extension + data)
        answer = receive_all(sock).partition(b"\r\n\r\n")[2]
    assert answer.startswith(texts("a") + b"\x8a\x01!" + texts("bc") + b"\xc1")
    assert answer.endswith(texts("e") + CLOSE_BACK)
    answer = answer[len(texts("a", "bc")) + 3 : -len(texts("e") + CLOSE_BACK)]
    found = []
    while answer:
        head, size = answer[:2]
        payload, answer = answer[2 : 2 + size], answer[2 + size :]
        if head == 0xC1:
            payload = inflater.decompress(payload + b"\0\0\xff\xff")
        found.append((head, payload.decode()))
    assert found == [(0xC1, long), (0x81, "d"), (0xC1, long)]
    handler.next("open")
    assert handler.next("message")[1] == "a"
    assert handler.next("ping")[1] == b"!"
    for message in ("bc", long, "d", long, "e"):
        assert handler.next("message")[1] == message


def text_end(message: str) -> bytes:
    return frame(0x80, message.encode())


# ---- left in the middle -------------------------------------------------------------------------


def on(trigger: str, act: Callable[[ws.Connection], object]) -> Reply:
    """Echo, but at `trigger` do something before."""

    def reply(conn: ws.Connection, message: Any) -> Any:
        if message == trigger:
            act(conn)
        return message

    return reply


@pytest.mark.parametrize("at", range(5))
def test_closing_in_the_middle(at: int) -> None:
    """What was answered before is sent; what comes behind is dropped, up to the peer's close."""
    handler = Recorder(on(str(at), lambda conn: conn.close(4000)))
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(text(*"01234") + CLOSE)
        assert receive_all(sock) == texts(*"01234"[:at]) + b"\x88\x02\x0f\xa0"
        handler.next("open")
        for n in range(at + 1):
            assert handler.next("message")[1] == str(n)
        assert handler.next("close")[1] == (1000, "")


@pytest.mark.parametrize("at", [0, 2, 4])
def test_ending_the_connection_below_in_the_middle(at: int) -> None:
    handler = Recorder(on(str(at), lambda conn: conn.transport.close()))
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(text(*"01234"))
        assert receive_all(sock) == texts(*"01234"[:at])
        sock.close()
        handler.next("open")
        for n in range(at + 1):
            assert handler.next("message")[1] == str(n)
        assert handler.next("close")[1] == (1006, "")


def test_aborting_in_the_middle() -> None:
    handler = Recorder(on("1", lambda conn: conn.abort()))
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(text(*"012"))
        handler.next("open")
        handler.next("message")
        handler.next("message")
        assert handler.next("close")[1] == (1006, "")


@pytest.mark.parametrize("at", range(5))
def test_an_exception_in_the_middle(at: int) -> None:
    handler = Recorder(on(str(at), lambda conn: 1 // 0))
    with serving(handler) as server, opened(server) as sock:
        sock.sendall(text(*"01234"))
        assert receive_all(sock) == texts(*"01234"[:at]) + b"\x88\x02\x03\xf3"


def test_a_bad_message_in_the_middle() -> None:
    """It is inflated in Python, so C has seen nothing wrong in it."""
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with serving(Recorder()) as server, connect(server) as sock:
        sock.sendall(REQUEST[:-2] + extension + text("0", "1") + frame(0xC1, b"\xff") + text("2"))
        answer = receive_all(sock).partition(b"\r\n\r\n")[2]
        assert answer[:10] == texts("0", "1") + b"\x88" + answer[7:10]
        assert answer[8:10] == b"\x03\xef"  # 1007


def pause(conn: ws.Connection, message: Any) -> Any:
    conn.pause_reading()
    return message


def pause_and_resume(conn: ws.Connection, message: Any) -> Any:
    conn.pause_reading()
    conn.resume_reading()
    return message


def pause_and_resume_soon(conn: ws.Connection, message: Any) -> Any:
    conn.pause_reading()
    conn.loop.call_soon_threadsafe(conn.resume_reading)
    return message


@pytest.mark.parametrize("reply", [pause_and_resume, pause_and_resume_soon])
@pytest.mark.parametrize("text_type", ["str", "bytes"])
def test_many_small_messages_and_a_pause_at_each(reply: Reply, text_type: str) -> None:
    many = [str(n) for n in range(10_000)]
    with serving(Recorder(reply), text=text_type) as server, opened(server) as sock:
        sender = helpers.Background(sock.sendall, text(*many))
        assert receive_exactly(sock, len(texts(*many))) == texts(*many)
        sender.join()


def test_a_pause_where_messages_are_copies() -> None:
    with serving(Recorder(pause_and_resume_soon), max_leases=0) as server, opened(server) as sock:
        for _ in range(3):
            sock.sendall(text(*"01234") + frame(0x82, b"x" * 70_000))
            wanted = texts(*"01234") + back(0x82, b"x" * 70_000)
            assert receive_exactly(sock, len(wanted)) == wanted


@pytest.mark.parametrize("size", [1, 5_000, 70_000, 300_000])
def test_pauses_at_every_message(size: int) -> None:
    """Nothing is lost or unmasked twice, also of frames that have a ring of their own."""
    handler = Recorder(pause)
    messages = [bytes([n]) * size for n in range(6)]
    with serving(handler) as server, opened(server) as sock:
        stream = b"".join(frame(0x82, message) for message in messages) + CLOSE
        sender = helpers.Background(sock.sendall, stream)
        conn, _ = handler.next("open")
        for message in messages:
            assert bytes(handler.next("message")[1]) == message
            wanted = back(0x82, message)
            assert receive_exactly(sock, len(wanted)) == wanted
            assert handler.events.empty()
            conn.loop.call_soon_threadsafe(conn.resume_reading)
        assert receive_all(sock) == CLOSE_BACK
        sender.join()
        assert handler.next("close")[1] == (1000, "")


@pytest.mark.parametrize("size", [1, 200_000])
def test_paused_by_the_callback_of_another(size: int) -> None:
    """In the turn in which its own frames were cut; they come when it is resumed."""
    conns: list[ws.Connection] = []

    def reply(conn: ws.Connection, message: Any) -> None:
        for other in conns:
            if other is not conn and message == b"first":
                other.pause_reading()

    handler = Recorder(reply)
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    with serving(handler) as server, opened(server) as one, opened(server) as two:
        conns += (handler.next("open")[0], handler.next("open")[0])
        loop = conns[0].loop
        entered, leave = threading.Event(), threading.Event()
        loop.call_soon_threadsafe(entered.set)
        loop.call_soon_threadsafe(wait, leave)
        wait(entered)
        for sock in (one, two):  # the loop finds all of both in its next turn
            helpers.Background(sock.sendall, frame(0x82, b"first") + frame(0x82, data)).join()
        leave.set()
        got: dict[Any, list[bytes]] = {conn: [] for conn in conns}
        paused = None
        while paused is None or len(got[paused]) < 2:
            _name, conn, message = handler.events.get(timeout=helpers.PATIENCE)
            got[conn].append(bytes(message))
            if len(got[conn]) == 2 and paused is None:
                (paused,) = (other for other in conns if other is not conn)
                on_loop(loop, paused.resume_reading)
        for messages in got.values():
            assert messages == [b"first", data]


def test_half_a_frame_while_its_ring_grows_and_others_talk() -> None:
    """Text of a megabyte comes in pieces, on two connections in turn, with small ones between."""
    handler = Recorder(lambda conn, message: str(len(message)) if len(message) > 9 else message)
    long = "é€😀x" * 100_000
    stream = frame(0x81, long.encode()) + text("small")
    steps = [0, 1, 2, 5, 13, 14, 15, 300, 40_000, 90_001, 262_144, 600_000, 999_999, len(stream)]
    with (
        serving(handler) as server,
        opened(server) as one,
        opened(server) as two,
        opened(server) as third,
    ):
        for start, end in itertools.pairwise(steps):
            for sock in (one, two):
                sock.sendall(stream[start:end])
            third.sendall(text("ping"))
            assert receive_exactly(third, 6) == texts("ping")
        for sock in (one, two):
            wanted = texts(str(len(long)), "small")
            assert receive_exactly(sock, len(wanted)) == wanted


def test_messages_are_counted_as_such() -> None:
    """Not pings, fragments or headers."""
    handler = Recorder()
    with serving(handler) as server, opened(server) as sock:
        loop = server.loops[0]
        before = on_loop_stats(loop)
        sock.sendall(text("a") + frame(0x89) + frame(0x01, b"b") + text_end("c"))
        sock.sendall(frame(0x82, b"L" * 100_000))
        wanted = texts("a") + b"\x8a\0" + texts("bc") + back(0x82, b"L" * 100_000)
        assert receive_exactly(sock, len(wanted)) == wanted
        after = on_loop_stats(loop)
        assert after.messages_received - before.messages_received == 3
        assert after.messages_sent - before.messages_sent == 4  # and the pong


def on_loop_stats(loop: gevffi.EventLoop) -> Any:
    """What is counted, when the turns so far are."""
    for _ in range(2):
        on_loop(loop, lambda: None)
    return loop.stats()
