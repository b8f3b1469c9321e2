"""Declared framings over real sockets: cutting, dressing, and what closes.

The cutters alone are tested in c/test_framing.c, switching in test_set_protocol.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Echo, Recorder, connect, receive_all, receive_exactly, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from protocols import pieces

from gevffi import CloseReason, Connection, Delimited, FixedSize, Framing, LengthPrefixed

Encode = Callable[[bytes], bytes]


def length(width: int = 4, byteorder: Any = "big", plus: int = 0) -> Encode:
    return lambda body: (len(body) + plus).to_bytes(width, byteorder) + body


def behind(data: bytes) -> Encode:
    return lambda body: body + data


# A framing, how a payload becomes a frame, and whether replies are dressed to the same.
FRAMINGS: dict[str, tuple[Callable[..., Framing], Encode]] = {
    "1": (lambda **o: LengthPrefixed(1, **o), length(1)),
    "2 little": (lambda **o: LengthPrefixed(2, byteorder="little", **o), length(2, "little")),
    "3": (lambda **o: LengthPrefixed(3, **o), length(3)),
    "4": (lambda **o: LengthPrefixed(**o), length()),
    "8 little": (lambda **o: LengthPrefixed(8, byteorder="little", **o), length(8, "little")),
    "with itself": (lambda **o: LengthPrefixed(2, adjustment=-2, **o), length(2, plus=2)),
    "line": (lambda **o: Delimited(**o), behind(b"\n")),
    "crlf": (lambda **o: Delimited(b"\r\n", **o), behind(b"\r\n")),
    "16": (lambda **o: Delimited(b"0123456789ABCDEF", **o), behind(b"0123456789ABCDEF")),
    "fixed": (lambda **o: FixedSize(5, **o), bytes),
}
EACH = pytest.mark.parametrize("kind", FRAMINGS)


def payloads_for(kind: str) -> list[bytes]:
    if kind == "fixed":
        return [b"hello", b"world", b"\r\n\r\n\r", b"fives"]
    return [b"one", b"", b"th\rree", b"x" * 40, b"01234567", b""]


@EACH
@pytest.mark.parametrize("deliver", ["view", "bytes"])
@pytest.mark.parametrize("one", [False, True])
def test_all_at_once_and_split_at_every_byte(kind: str, deliver: str, one: bool) -> None:
    make, encode = FRAMINGS[kind]
    payloads = payloads_for(kind)
    stream = b"".join(map(encode, payloads))
    types: set[type] = set()

    def reply(data: Any) -> Any:
        types.add(type(data))
        return data

    handler = Recorder(reply)
    with pieces(handler, make(deliver=deliver, one_at_a_time=one)) as client:
        for at in range(len(stream)):
            if at:
                client.send(stream[:at])
            client.send(stream[at:])
            assert receive_exactly(client.sock, len(stream)) == stream
            assert [handler.next("message").value[1] for _ in payloads] == payloads
        for at in range(len(stream)):
            client.send(stream[at : at + 1])
        assert receive_exactly(client.sock, len(stream)) == stream
    assert types == ({bytes} if deliver == "bytes" else {memoryview})


@pytest.mark.parametrize(
    ("protocol", "stream", "payload"),
    [
        (LengthPrefixed(2, offset=2), b"ab\0\3xyz", b"xyz"),
        (LengthPrefixed(2, offset=2, strip=0), b"ab\0\3xyz", b"ab\0\3xyz"),
        (LengthPrefixed(2, offset=2, strip=2), b"ab\0\3xyz", b"\0\3xyz"),
        (LengthPrefixed(1, adjustment=2), b"\1abc", b"abc"),
        (LengthPrefixed(1, adjustment=2, strip=3), b"\1abc", b"c"),
        (LengthPrefixed(1, strip=0), b"\3abc", b"\3abc"),
        (Delimited(b"--", keep=True), b"a-b--", b"a-b--"),
    ],
)
def test_forms_whose_replies_are_whole_frames(
    protocol: Framing, stream: bytes, payload: bytes
) -> None:
    handler = Recorder(lambda data: stream)
    with pieces(handler, protocol) as client:
        client.send(stream * 2)
        assert receive_exactly(client.sock, 2 * len(stream)) == stream * 2
        assert handler.next("message").value[1] == payload
        assert handler.next("message").value[1] == payload


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: LengthPrefixed(5), "width must be 1, 2, 3, 4 or 8, not 5"),
        (lambda: LengthPrefixed(0), "width"),
        (lambda: LengthPrefixed(byteorder="middle"), "byteorder must be .* not 'middle'"),
        (lambda: LengthPrefixed(offset=-1), "offset must be .* not -1"),
        (lambda: LengthPrefixed(offset=4097), "offset must be .* not 4097"),
        (lambda: LengthPrefixed(adjustment=(1 << 30) + 1), "adjustment must be"),
        (lambda: LengthPrefixed(adjustment=-(1 << 30) - 1), "adjustment must be"),
        (lambda: LengthPrefixed(max_size=-1), "max_size must be .* not -1"),
        (lambda: LengthPrefixed(max_size=(1 << 30) + 1), "max_size must be"),
        (lambda: LengthPrefixed(max_size=True), "max_size must be .* not True"),
        (lambda: LengthPrefixed(max_size="9"), "max_size must be .* not '9'"),  # type: ignore[arg-type]
        (lambda: LengthPrefixed(strip=-1), "strip must be .* not -1"),
        (lambda: LengthPrefixed(strip=5000), "strip must be .* not 5000"),
        (lambda: LengthPrefixed(deliver="array"), "deliver must be .* not 'array'"),
        (lambda: Delimited(b""), "delimiter must be .* not b''"),
        (lambda: Delimited(b"x" * 17), "delimiter must be"),
        (lambda: Delimited("\n"), "delimiter must be"),  # type: ignore[arg-type]
        (lambda: Delimited(max_size=-1), "max_size must be .* not -1"),
        (lambda: Delimited(deliver="x"), "deliver must be .* not 'x'"),
        (lambda: FixedSize(0), "size must be .* not 0"),
        (lambda: FixedSize(1.5), "size must be .* not 1.5"),  # type: ignore[arg-type]
        (lambda: FixedSize((1 << 30) + 1), "size must be"),
        (lambda: FixedSize(8, deliver="x"), "deliver must be .* not 'x'"),
    ],
)
def test_options_that_cannot_be_meant(make: Callable[[], Framing], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()


def test_offset_and_width_at_their_limits_go_together() -> None:
    protocol = LengthPrefixed(8, offset=4096)
    handler = Recorder(lambda data: None)
    with pieces(handler, protocol) as client:
        client.send(b"o" * 4096 + (3).to_bytes(8, "big") + b"abc")
        assert handler.next("message").value[1] == b"abc"


# ---- replies ------------------------------------------------------------------------------------


REPLIES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "of a bytearray": lambda body: memoryview(bytearray(body)),
    "array": lambda body: np.frombuffer(body, np.uint8),
    "wide array": lambda body: np.frombuffer(body, np.uint32),
    "matrix": lambda body: np.frombuffer(body, np.uint16).reshape(len(body) // 4, 2),
    "scattered": lambda body: np.repeat(np.frombuffer(body, np.uint8), 2)[::2],
    "wide view": lambda body: memoryview(body).cast("I"),
}


@pytest.mark.parametrize("size", [0, 4, 8188, 8192, 40_000, 300_000])
@pytest.mark.parametrize("kind", REPLIES)
def test_replies_of_every_type_and_size(kind: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    made = REPLIES[kind]
    handler = Recorder(lambda data: made(body) if data == b"?" else data)
    stream = b"".join(map(length(), [b"?", b"!", b"?"]))
    wanted = b"".join(map(length(), [body, b"!", body]))
    with pieces(handler, LengthPrefixed()) as client:
        client.send(stream)
        assert receive_exactly(client.sock, len(wanted)) == wanted
        client.conn.send(made(body))  # from this thread
        assert receive_exactly(client.sock, 4 + size) == length()(body)


class Miscounts(bytes):
    def __len__(self) -> int:
        return 5


def test_replies_whose_lengths_are_not_bytes_but_add_up() -> None:
    """The first has seven rows of nothing, the second one item of eight bytes: eight and eight."""
    replies: dict[bytes, Any] = {
        b"1": np.zeros((7, 0)),
        b"2": np.ones(1),
        b"3": Miscounts(b"seven.."),
        b"4": Miscounts(b"iii"),
    }
    wanted = b"".join(length()(memoryview(reply).tobytes()) for reply in replies.values())
    with pieces(Recorder(lambda data: replies[bytes(data)]), LengthPrefixed()) as client:
        client.send(b"".join(map(length(), replies)))
        assert receive_exactly(client.sock, len(wanted)) == wanted


@pytest.mark.parametrize("size", [256, 9000])
def test_a_reply_that_does_not_fit(size: int) -> None:
    handler = Recorder(lambda data: bytes(size) if data == b"big" else data)
    with pieces(handler, LengthPrefixed(1)) as client:
        client.send(b"\1a\3big\1b")
        assert receive_all(client.sock)[:2] == b"\1a"
        error = handler.until("error").value
        assert isinstance(error, ValueError)
        assert f"{size} bytes" in str(error)
        assert "LengthPrefixed(width=1" in str(error)
        assert handler.until("close").value is CloseReason.HANDLER_ERROR


def test_the_largest_reply_fits() -> None:
    handler = Recorder(lambda data: bytes(255))
    with pieces(handler, LengthPrefixed(1)) as client:
        client.send(b"\0")
        assert receive_exactly(client.sock, 256) == b"\xff" + bytes(255)


@pytest.mark.parametrize("bad", [7, "text", [b"x"]])
def test_a_reply_that_is_none(bad: Any) -> None:
    handler = Recorder(lambda data: bad if data == b"bad" else data)
    with pieces(handler, LengthPrefixed(1)) as client:
        client.send(b"\1a\3bad\1b")
        assert receive_all(client.sock)[:2] == b"\1a"
        assert isinstance(handler.until("error").value, TypeError)
        assert handler.until("close").value is CloseReason.HANDLER_ERROR


def test_send_and_replies_keep_their_order() -> None:
    class Mixed(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            number = bytes(data)
            conn.send(b"before " + number)
            if number == b"3":
                conn.send(b"L" * 20_000)
            if number == b"5":
                conn.send(b"sent", lambda conn: None)  # flushes
            return b"reply " + number if number != b"4" else b"R" * 20_000

    wanted = []
    for i in range(8):
        wanted.append(b"before %d" % i)
        wanted += [b"L" * 20_000] if i == 3 else []
        wanted += [b"sent"] if i == 5 else []
        wanted.append(b"reply %d" % i if i != 4 else b"R" * 20_000)
    stream = b"".join(map(length(), wanted))
    with pieces(Mixed(), LengthPrefixed()) as client:
        client.send(b"".join(length()(b"%d" % i) for i in range(8)))
        assert receive_exactly(client.sock, len(stream)) == stream


def test_a_packet_of_its_own() -> None:
    class Loud(LengthPrefixed):
        def packet(self, conn: Connection, reply: Any) -> Any:
            return b"<", bytes(reply).upper(), b">"

    with pieces(Echo(), Loud()) as client:
        client.send(b"\0\0\0\1a\0\0\0\2bc")
        assert receive_exactly(client.sock, 7) == b"<A><BC>"


def test_a_framing_that_is_not_hashable() -> None:
    class Equal(LengthPrefixed):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]

    for width in (1, 2):  # all are equal, and yet they are not the same
        with pieces(Echo(), Equal(width)) as client:
            client.send(bytes(width - 1) + b"\3abc")
            assert receive_exactly(client.sock, width + 3) == bytes(width - 1) + b"\3abc"


# ---- what closes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "good", "bad", "reason"),
    [
        (LengthPrefixed(max_size=3), b"\0\0\0\3abc", b"\0\0\0\4", CloseReason.FRAME_TOO_LARGE),
        (LengthPrefixed(), b"\0\0\0\3abc", b"\xff\xff\xff\xff", CloseReason.FRAME_TOO_LARGE),
        (LengthPrefixed(8), bytes(7) + b"\3abc", b"\xff" * 8, CloseReason.FRAME_TOO_LARGE),
        (LengthPrefixed(2, adjustment=-2), b"\0\5abc", b"\0\1", CloseReason.PROTOCOL_ERROR),
        (Delimited(max_size=3), b"abc\n", b"abcd", CloseReason.FRAME_TOO_LARGE),
        (Delimited(b"\r\n", max_size=3), b"abc\r\n", b"abcd\r", CloseReason.FRAME_TOO_LARGE),
    ],
    ids=repr,
)
def test_a_bad_frame(protocol: Framing, good: bytes, bad: bytes, reason: CloseReason) -> None:
    for at in range(len(good) + 1):
        handler = Echo()
        with pieces(handler, protocol) as client:
            stream = good + good + bad
            client.send(stream[: len(good) + at])
            client.send(stream[len(good) + at :])
            assert receive_all(client.sock) == good + good
            assert [handler.next("message").value[1] for _ in range(2)] == [b"abc", b"abc"]
            client.sock.close()
            assert handler.next("close").value is reason


def test_an_exception_in_last_words_costs_its_connection_only() -> None:
    class Wordless(LengthPrefixed):
        def bad_frame(self, conn: Connection, *, too_large: bool, bad_text: bool) -> None:
            raise LookupError("no words")

    handler = Echo()
    with serving(handler, protocol=Wordless(max_size=3)) as server, connect(server) as other:
        with connect(server) as sock:
            sock.sendall(b"\0\0\0\4")
            assert receive_all(sock) == b""
        assert isinstance(handler.until("error").value, LookupError)
        assert handler.next("close").value is CloseReason.FRAME_TOO_LARGE
        other.sendall(b"\0\0\0\3abc")
        assert receive_exactly(other, 7) == b"\0\0\0\3abc"


def test_an_exception_in_the_middle_of_a_run() -> None:
    def reply(data: Any) -> Any:
        if data == b"3":
            raise LookupError("three")
        return data

    handler = Recorder(reply)
    with pieces(handler, Delimited()) as client:
        client.send(b"1\n2\n3\n4\n5\n")
        assert receive_all(client.sock) == b"1\n2\n"
        assert [handler.next("message").value[1] for _ in range(3)] == [b"1", b"2", b"3"]
        assert isinstance(handler.next("error").value, LookupError)
        client.sock.close()
        assert handler.next("close").value is CloseReason.HANDLER_ERROR


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_in_the_middle_of_a_run(how: str) -> None:
    class Closes(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            if data == b"3":
                getattr(conn, how)()
            return data

    handler = Closes()
    with pieces(handler, Delimited()) as client:
        client.send(b"1\n2\n3\n4\n5\n")
        if how == "close":
            assert receive_all(client.sock) == b"1\n2\n3\n"
        assert [handler.next("message").value[1] for _ in range(3)] == [b"1", b"2", b"3"]
        client.sock.close()
        assert handler.next("close").value is CloseReason.LOCAL


def test_frames_in_front_of_the_end() -> None:
    handler = Echo()
    with serving(handler, protocol=Delimited()) as server, connect(server) as sock:
        sock.sendall(b"1\n2\nunfinished")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"1\n2\n"
        assert handler.until("close").value is CloseReason.EOF


# ---- kept views ---------------------------------------------------------------------------------


@pytest.mark.parametrize("deliver", ["view", "bytes"])
def test_a_kept_view_outlives_a_million_messages(deliver: str) -> None:
    kept: list[Any] = []
    seen = [0]

    class Keeps(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            seen[0] += 1
            if seen[0] % 100_000 == 1:
                kept.append(data)
            return data if data[:4] == b"last" else None

    stream = b"".join(b"%07d\n" % i for i in range(50_000))
    protocol = Delimited(deliver=deliver)
    with (
        serving(Keeps(), protocol=protocol, arena_size=1 << 17) as server,
        connect(server) as sock,
    ):
        for _ in range(20):
            sock.sendall(stream)
        sock.sendall(b"last\n")
        assert receive_exactly(sock, 5) == b"last\n"
    assert seen[0] == 1_000_001
    assert [bytes(data) for data in kept] == [b"%07d" % 0] * 10 + [b"last"]


@pytest.mark.parametrize(
    "protocol", [LengthPrefixed(max_size=1 << 24), Delimited(max_size=1 << 24)]
)
def test_large_views_that_are_kept(protocol: Framing) -> None:
    encode = length() if isinstance(protocol, LengthPrefixed) else behind(b"\n")
    kept: list[Any] = []

    def reply(data: Any) -> bytes:
        kept.append(data)
        return b"%d" % len(data)

    bodies = [bytes([48 + i]) * (40_000 + 150_000 * i) for i in range(8)]
    with pieces(Recorder(reply), protocol) as client:
        for body in bodies:
            client.sock.sendall(encode(body))
            answer = encode(b"%d" % len(body))
            assert receive_exactly(client.sock, len(answer)) == answer
        assert all(data.readonly for data in kept)
        assert list(map(bytes, kept)) == bodies
    assert list(map(bytes, kept)) == bodies


@pytest.mark.parametrize("kind", [kind for kind in FRAMINGS if kind not in ("1", "fixed")])
def test_large_echoes(kind: str) -> None:
    make, encode = FRAMINGS[kind]
    size = 60_000 if kind in ("2 little", "with itself") else 1_000_000
    options = {"max_size": 1 << 24}
    stream = b"".join(map(encode, [b"small", b"y" * size, b"small", b"z" * size]))
    for deliver in ("view", "bytes"):
        handler = Echo()
        protocol = make(deliver=deliver, **options)
        with serving(handler, protocol=protocol) as server, connect(server) as sock:
            sock.sendall(stream)
            assert receive_exactly(sock, len(stream)) == stream


# ---- any frames, any pieces ---------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_frames_in_random_pieces(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(FRAMINGS)))
    one = data.draw(st.booleans())
    make, encode = FRAMINGS[kind]
    if kind == "fixed":
        body = st.binary(min_size=5, max_size=5)
    else:
        body = st.one_of(st.binary(max_size=20), st.integers(0, 200).map(lambda n: b"q" * n))
    payloads = data.draw(st.lists(body, max_size=30))
    if isinstance(make(), Delimited):
        end = encode(b"")
        payloads = [p.replace(b"\r", b"").replace(b"\n", b"").replace(end, b"") for p in payloads]
    stream = b"".join(map(encode, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    handler = Echo()
    with pieces(handler, make(one_at_a_time=one)) as client:
        for start, end_ in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            client.send(stream[start:end_])
        assert receive_exactly(client.sock, len(stream)) == stream
        assert [handler.next("message").value[1] for _ in payloads] == payloads


def test_a_handler_may_reuse_the_buffer_of_its_reply() -> None:
    """Also where the next message of the same read follows at once."""
    buffer = bytearray(4)

    def reply(data: Any) -> Any:
        buffer[:] = bytes(data)[::-1]
        return {b"a": buffer, b"b": memoryview(buffer), b"c": np.frombuffer(buffer, np.uint8)}[
            bytes(data[:1])
        ]

    frames = [b"a123", b"a456", b"b123", b"b456", b"c123", b"c456", b"a789"]
    with pieces(Recorder(reply), LengthPrefixed()) as client:
        client.send(b"".join(map(length(), frames)))
        expected = b"".join(length()(frame[::-1]) for frame in frames)
        assert receive_exactly(client.sock, len(expected)) == expected


def test_frames_behind_a_close_are_not_counted() -> None:
    class Closing(Echo):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            conn.close()
            return data

    with serving(Closing(), protocol=LengthPrefixed()) as server, connect(server) as sock:
        (loop,) = server.loops
        sock.sendall(length()(b"x") * 9)
        assert receive_all(sock) == length()(b"x")
    assert loop.stats().messages_received == 1
