"""gev's protobuf framing: from literal bytes, in one read and split at every byte."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import Recorder, connect, receive_all, receive_exactly, serving
from hypothesis import given
from hypothesis import strategies as st
from protocols import pieces

from gevffi import Batch, CloseReason, Connection, Handler, LengthPrefixed, ProtocolError
from gevffi.protobuf import Protobuf, pack_message, unpack_message

# What gev's PackMessage makes of ("msg1", "\x0a\x03gev"), ("", "") and ("t", "").
FRAMES = (
    b"\x00\x00\x00\x0b\x00\x04msg1\x0a\x03gev",
    b"\x00\x00\x00\x02\x00\x00",
    b"\x00\x00\x00\x03\x00\x01t",
)
MESSAGES = [("msg1", b"\x0a\x03gev"), ("", b""), ("t", b"")]


class Answering(Recorder):
    """Sends every message back, under the same name."""

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        super().on_message(conn, ctx, data)
        return pack_message(ctx, data)


def test_frames_are_those_of_gev() -> None:
    assert [pack_message(*message) for message in MESSAGES] == list(FRAMES)
    assert [unpack_message(frame[4:]) for frame in FRAMES] == MESSAGES


@pytest.mark.parametrize("deliver", ["view", "bytes"])
def test_all_in_one_read(deliver: str) -> None:
    handler = Answering()
    with (
        serving(handler, protocol=Protobuf(deliver=deliver)) as server,
        connect(server) as sock,
    ):
        sock.sendall(b"".join(FRAMES))
        assert receive_exactly(sock, sum(map(len, FRAMES))) == b"".join(FRAMES)
    handler.next("connect")
    assert [handler.next("message").value for _ in FRAMES] == MESSAGES


@pytest.mark.parametrize("at", range(1, sum(map(len, FRAMES))))
def test_split_at_every_byte(at: int) -> None:
    handler = Answering()
    stream = b"".join(FRAMES)
    with pieces(handler, Protobuf()) as client:
        client.send(stream[:at])
        complete = handler.events.qsize()
        assert complete == sum(
            len(b"".join(FRAMES[: count + 1])) <= at for count in range(len(FRAMES))
        )
        client.send(stream[at:])
        assert receive_exactly(client.sock, len(stream)) == stream
        assert [handler.next("message").value for _ in FRAMES] == MESSAGES


def test_a_byte_at_a_time() -> None:
    handler = Answering()
    with pieces(handler, Protobuf()) as client:
        for byte in b"".join(FRAMES):
            client.send(bytes([byte]))
        assert [handler.next("message").value for _ in FRAMES] == MESSAGES


def test_data_is_a_slice_or_bytes_as_asked_for() -> None:
    class Types(Handler):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            return type(data).__name__.encode()

    for deliver, name in (("view", b"memoryview"), ("bytes", b"bytes")):
        protocol = Protobuf(deliver=deliver)
        with serving(Types(), protocol=protocol) as server, connect(server) as sock:
            sock.sendall(FRAMES[0])
            assert receive_exactly(sock, len(name)) == name


def test_a_message_larger_than_a_loops_memory() -> None:
    handler = Answering()
    frame = pack_message("large", bytes(range(256)) * 8192)
    protocol = Protobuf(max_size=4 << 20)
    with serving(handler, protocol=protocol) as server, connect(server) as sock:
        sock.sendall(frame)
        assert receive_exactly(sock, len(frame)) == frame


@pytest.mark.parametrize(
    ("bytes_sent", "reason"),
    [
        (b"\x00\x00\x00\x00", CloseReason.PROTOCOL_ERROR),
        (b"\x00\x00\x00\x01\x00", CloseReason.PROTOCOL_ERROR),
        (b"\x00\x00\x00\x02\x00\x01", CloseReason.PROTOCOL_ERROR),
        (b"\x00\x00\x00\x05\xff\xffabc", CloseReason.PROTOCOL_ERROR),
        (b"\x00\x00\x00\x05\x00\x04abc", CloseReason.PROTOCOL_ERROR),
        (b"\x00\x00\x00\x03\x00\x01\xff", CloseReason.PROTOCOL_ERROR),
        (b"\xff\xff\xff\xff", CloseReason.FRAME_TOO_LARGE),
        (b"\x80\x00\x00\x00", CloseReason.FRAME_TOO_LARGE),
        (b"\x00\x00\x04\x01", CloseReason.FRAME_TOO_LARGE),
    ],
    ids=[
        "no type length",
        "half a type length",
        "type of the next frame",
        "type length 65535",
        "type a byte too long",
        "type not UTF-8",
        "length -1",
        "most negative length",
        "a byte over the limit",
    ],
)
def test_malformed_frames_close_their_connection_only(
    bytes_sent: bytes, reason: CloseReason
) -> None:
    handler = Answering()
    with serving(handler, protocol=Protobuf(max_size=1024)) as server, connect(server) as other:
        handler.next("connect")
        with connect(server) as sock:
            sock.sendall(FRAMES[0] + bytes_sent)
            assert receive_all(sock) == FRAMES[0]  # the answer to what was right before
        assert handler.next("connect")
        assert handler.next("message").value == MESSAGES[0]
        assert handler.next("close").value is reason
        other.sendall(FRAMES[0])
        assert receive_exactly(other, len(FRAMES[0])) == FRAMES[0]


def test_the_largest_frame_passes() -> None:
    frame = pack_message("name", bytes(1024 - 2 - 4))
    protocol = Protobuf(max_size=1024)
    with serving(Answering(), protocol=protocol) as server, connect(server) as sock:
        sock.sendall(frame)
        assert receive_exactly(sock, len(frame)) == frame


def test_batches_are_of_undivided_frames() -> None:
    class Batches(Recorder):
        def on_batch(self, conn: Connection, batch: Batch) -> Any:
            return [pack_message(name, data) for name, data in map(unpack_message, batch)]

    handler = Batches()
    with serving(handler, protocol=Protobuf()) as server, connect(server) as sock:
        sock.sendall(b"".join(FRAMES))
        assert receive_exactly(sock, sum(map(len, FRAMES))) == b"".join(FRAMES)
        sock.sendall(b"\x00\x00\x00\x05\xff\xffabc")
        assert receive_all(sock) == b""
        sock.close()
        assert handler.until("close").value is CloseReason.PROTOCOL_ERROR


def test_a_connection_changes_to_it_and_back() -> None:
    class Both(Handler):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if ctx is None:
                conn.set_protocol(Protobuf(one_at_a_time=True))
                return pack_message("welcome", data)
            conn.set_protocol(LengthPrefixed(1))
            return b"%s %s" % (ctx.encode(), data)

    with serving(Both(), protocol=LengthPrefixed(1)) as server, connect(server) as sock:
        sock.sendall(b"\x02hi" + pack_message("a", b"b") + b"\x02ho" + pack_message("c", b"d"))
        wanted = pack_message("welcome", b"hi") + b"\x03a b"
        wanted += pack_message("welcome", b"ho") + b"\x03c d"
        assert receive_exactly(sock, len(wanted)) == wanted


@given(st.text(max_size=50), st.binary(max_size=200))
def test_what_is_packed_is_unpacked(name: str, payload: bytes) -> None:
    try:
        frame = pack_message(name, payload)
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    assert frame[:4] == (len(frame) - 4).to_bytes(4, "big")
    assert unpack_message(frame[4:]) == (name, payload)
    assert unpack_message(memoryview(frame)[4:]) == (name, payload)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_malformed(body: bytes) -> None:
    try:
        name, payload = unpack_message(body)
    except ProtocolError:
        return
    assert pack_message(name, payload)[4:] == body


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(ValueError, match="65536"):
        pack_message("x" * 65536, b"")
    with pytest.raises(ValueError, match="65536"):
        pack_message("\u00e9" * 32768, b"")
    assert len(pack_message("x" * 65535, b"")) == 65541
    with pytest.raises(TypeError):
        pack_message("name", "text")


@pytest.mark.parametrize("value", [1, -1, (1 << 30) + 1, True])
def test_a_limit_that_cannot_be_meant(value: Any) -> None:
    with pytest.raises(ValueError, match="max_size"):
        Protobuf(max_size=value)


def test_it_says_what_it_is() -> None:
    assert repr(Protobuf(max_size=2)) == "Protobuf(max_size=2)"
