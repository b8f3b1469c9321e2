"""Messages of a run that a handler returns as they came, among others that it answers otherwise.

The former leave from where they were read, and nothing is noted of each. So whatever else happens
between two of them has to see that the first one leaves before it and the second one behind it.
What a message says is what its handler does with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Echo, Recorder, connect, receive_all, receive_exactly, serving, wait
from hypothesis import given, settings
from hypothesis import strategies as st
from protocols import pieces

from gevffi import Batch, CloseReason, Connection, Delimited, FixedSize, Framing, LengthPrefixed

ECHO, COPY, NOTHING, MUTABLE, SEND, PAUSE, SWITCH, AGAIN, FLUSH = b"=", b"c", b"-", *b"m<p!2f"
CLOSE, RAISE = b"x", b"*"
Dress = Callable[[bytes], bytes]


class Told(Recorder):
    """Does what each message tells it to; `protocol` is that of all its connections."""

    def __init__(self, protocol: Framing) -> None:
        super().__init__()
        self.protocol = protocol

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        what = data[0]
        if what == COPY[0]:
            return bytes(data)
        if what == NOTHING[0]:
            return None
        if what == MUTABLE:
            return bytearray(data)
        if what == SEND:
            conn.send(b"<<<<")
        elif what == PAUSE:
            conn.pause_reading()
            conn.loop.call_soon_threadsafe(conn.resume_reading)
        elif what == SWITCH:
            conn.set_protocol(self.protocol)
        elif what == AGAIN:
            conn.send(data)
        elif what == FLUSH:
            conn.send(b"ffff", on_sent=lambda conn: None)
        elif what == CLOSE[0]:
            conn.close()
        elif what == RAISE[0]:
            raise ZeroDivisionError
        return data


def answer(message: bytes, dress: Dress) -> bytes:
    """What `Told` sends for a message."""
    what = message[0]
    if what in NOTHING + RAISE:
        return b""
    first = {SEND: b"<<<<", AGAIN: message, FLUSH: b"ffff"}.get(what)
    return (b"" if first is None else dress(first)) + dress(message)


def with_length(payload: bytes) -> bytes:
    return len(payload).to_bytes(2, "big") + payload


def with_length_4(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def as_line(payload: bytes) -> bytes:
    return payload + b"\r\n"


# A protocol; the frame of a payload; what its handler sees of it; and what it gets for a reply.
PROTOCOLS: dict[str, tuple[Callable[..., Framing], Dress, Dress, Dress]] = {
    "length": (lambda **o: LengthPrefixed(2, **o), with_length, bytes, with_length),
    "line": (lambda **o: Delimited(b"\r\n", **o), as_line, bytes, as_line),
    "kept": (lambda **o: Delimited(b"\r\n", keep=True, **o), as_line, as_line, bytes),
    "fixed": (lambda **o: FixedSize(4, **o), bytes, bytes, bytes),
    "bare": (
        lambda **o: LengthPrefixed(1, offset=1, **o),
        lambda payload: b"?" + len(payload).to_bytes(1, "big") + payload,
        bytes,
        bytes,
    ),
}
KINDS = st.sampled_from([*(ECHO * 6), *COPY, *NOTHING, *map(ord, "m<p!2f")])


def messages_for(kind: str, size: int) -> st.SearchStrategy[list[bytes]]:
    sizes = st.just(4) if kind == "fixed" else st.integers(1, size)
    one = st.tuples(KINDS, sizes).map(lambda pair: bytes([pair[0]]) + b"." * (pair[1] - 1))
    return st.lists(one, min_size=1, max_size=40)


@pytest.mark.parametrize("deliver", ["view", "bytes"])
@pytest.mark.parametrize("kind", PROTOCOLS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_everything_leaves_in_order(kind: str, deliver: str, data: st.DataObject) -> None:
    make, frame, as_seen, dress = PROTOCOLS[kind]
    messages = data.draw(messages_for(kind, 60 if kind == "bare" else 3000))
    ends = data.draw(st.sampled_from([None, CLOSE, RAISE]))
    sent = messages + ([ends + b"..."] * 3 if ends else [])
    answered = messages + ([ends + b"..."] if ends else [])
    wanted = b"".join(answer(as_seen(message), dress) for message in answered)
    protocol = make(deliver=deliver)
    handler = Told(protocol)
    with serving(handler, protocol=protocol) as server, connect(server) as sock:
        sock.sendall(b"".join(map(frame, sent)))
        assert receive_exactly(sock, len(wanted)) == wanted
        if ends:
            assert receive_all(sock) == b""
            reason = CloseReason.LOCAL if ends == CLOSE else CloseReason.HANDLER_ERROR
            assert handler.until("close").value is reason


def test_a_run_split_at_every_byte() -> None:
    frames = [with_length(message) for message in (b"=", b"<a", b"=bc", b"-", b"=", b"!", b"=d")]
    stream = b"".join(frames)
    wanted = b"".join(answer(frame[2:], with_length) for frame in frames)
    protocol = LengthPrefixed(2)
    with serving(Told(protocol), protocol=protocol) as server, connect(server) as sock:
        for at in range(1, len(stream)):
            sock.sendall(stream[:at])
            sock.sendall(stream[at:])
            assert receive_exactly(sock, len(wanted)) == wanted


def test_a_change_of_protocol_in_the_middle() -> None:
    """What was returned before is dressed by the old one, what is returned with it by the new."""

    class Upgrade(Echo):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if data == b"up":
                conn.set_protocol(Delimited(b"\n"))
            return data

    with serving(Upgrade(), protocol=LengthPrefixed(2)) as server, connect(server) as sock:
        sock.sendall(with_length(b"one") + with_length(b"two") + with_length(b"up") + b"three\n")
        wanted = with_length(b"one") + with_length(b"two") + b"up\nthree\n"
        assert receive_exactly(sock, len(wanted)) == wanted


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_a_batch_that_is_returned_itself(kind: str) -> None:
    """Under any protocol, also under another one than it was cut by, and behind what was sent."""
    make, frame, as_seen, dress = PROTOCOLS[kind]

    class Batches(Echo):
        def on_batch(self, conn: Connection, batch: Batch) -> Any:
            conn.send(b"<<<<")
            if bytes(batch[-1]).startswith(b"2"):
                conn.set_protocol(LengthPrefixed(4))
            return batch

    with pieces(Batches(), make()) as client:
        for last in (b"1...", b"2..."):
            messages = [b"....", last] if kind == "fixed" else [b"a", b"", b"b" * 60, last]
            client.send(b"".join(map(frame, messages)))
            under = dress if last == b"1..." else with_length_4
            wanted = dress(b"<<<<") + b"".join(under(as_seen(message)) for message in messages)
            assert receive_exactly(client.sock, len(wanted)) == wanted


def test_beside_connections_that_take_batches() -> None:
    start = threading.Event()

    class Mixed(Echo):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if data == b"batches please":
                conn.set_protocol(LengthPrefixed(2), Batches())
            elif data == b"all":  # so that everybody's next bytes are read in one turn
                conn.loop.call_later(0, wait, start)
            return data

    class Batches(Echo):
        def on_batch(self, conn: Connection, batch: Batch) -> Any:
            return batch

    few = [b"%d" % number * 50 for number in range(9)]
    stream = b"".join(map(with_length, few))
    with serving(Mixed(), protocol=LengthPrefixed(2)) as server:
        socks = [connect(server) for _ in range(6)]
        for sock in socks[1::2]:
            sock.sendall(with_length(b"batches please"))
            assert receive_exactly(sock, 16) == with_length(b"batches please")
        for _ in range(20):
            start.clear()
            socks[0].sendall(with_length(b"all"))
            for sock in socks:
                sock.sendall(stream)
            start.set()
            assert receive_exactly(socks[0], 5) == with_length(b"all")
            for sock in socks:
                assert receive_exactly(sock, len(stream)) == stream
        for sock in socks:
            sock.close()


def test_what_is_kept_and_returned_too() -> None:
    """A view that is kept holds the arena; what it shows leaves, and stays as it is."""
    kept: list[Any] = []

    class Keeper(Echo):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            kept.append(np.frombuffer(data, np.uint8))
            return data

    wanted = []
    with serving(Keeper(), protocol=LengthPrefixed(4)) as server, connect(server) as sock:
        for round_ in range(30):
            bodies = [bytes([round_, number]) * 500 for number in range(30)]
            wanted += bodies
            stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
            sock.sendall(stream)
            assert receive_exactly(sock, len(stream)) == stream
    assert [array.tobytes() for array in kept] == wanted


def test_each_counts_as_sent() -> None:
    handler = Echo()
    with serving(handler, protocol=LengthPrefixed(2)) as server, connect(server) as sock:
        sock.sendall(with_length(b"=") * 100)
        assert receive_exactly(sock, 300) == with_length(b"=") * 100
        loop = handler.until("message").conn.loop
        server.stop()
        assert receive_all(sock) == b""
    assert loop.stats().messages_sent == 100
