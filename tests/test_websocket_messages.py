"""Messages and the closing handshake: what each frame means, and which are sent, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from frame_buffer import FrameBuffer
from hypothesis import given
from hypothesis import strategies as st

from gevffi._ws_deflate import Agreement, Deflate
from gevffi._ws_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    FrameError,
    header,
    masked_frame,
)
from gevffi._ws_messages import ABNORMAL, NO_CODE, Event, Messages, Output, State
from gevffi.sys.websocket import mask

LIMIT = 1000


def server(**options: Any) -> Messages:
    return Messages(server=True, max_message_size=LIMIT, **options)


def joined(output: Output) -> bytes:
    return b"".join(output)


def agreed(**options: Any) -> Agreement:
    found = Deflate(**options).accept([("permessage-deflate", [])])
    assert found is not None
    return found


class Peer:
    """A server or a client, fed with bytes; a failure is answered as it should be."""

    def __init__(self, *, is_server: bool, agreement: Agreement | None = None) -> None:
        self.messages = Messages(server=is_server, max_message_size=LIMIT, agreement=agreement)
        self.buffer = FrameBuffer(
            from_client=is_server, deflate=agreement is not None, max_message_size=LIMIT
        )
        self.events: list[tuple[int, bytes]] = []

    def feed(self, data: bytes) -> bytes:
        """Take `data`; return what is sent back."""
        sent = b""
        try:
            for tag, payload in self.buffer.feed(data):
                event = self.messages.receive(tag, payload)
                if event is not None:
                    self.events.append((event.opcode, bytes(event.data)))
                    sent += joined(event.reply)
        except FrameError as exc:
            sent += joined(self.messages.fail(exc.code, exc.reason))
        return sent


# ---- receiving ----------------------------------------------------------------------------------


def test_a_whole_message_is_not_copied() -> None:
    payload = memoryview(b"Hello")
    event = server().receive(FIN | TEXT, payload)
    assert event == Event(TEXT, payload)
    assert event.data is payload
    assert server().receive(FIN | BINARY, b"") == (BINARY, b"", ())


def test_fragments_are_copied_and_put_together() -> None:
    messages = server()
    for _ in range(2):
        room = bytearray(b"Hel")
        assert messages.receive(TEXT, memoryview(room)) is None
        room[:] = b"lo "
        ping = messages.receive(FIN | PING, b"!")
        assert ping == Event(PING, b"!", (b"\x8a\x01", b"!"))
        assert messages.receive(CONTINUATION, memoryview(room)) is None
        assert messages.receive(CONTINUATION, b"") is None
        room[:] = b"you"
        assert messages.receive(FIN | CONTINUATION, memoryview(room)) == (TEXT, b"Hello you", ())
    assert messages.receive(BINARY, b"") is None
    assert messages.receive(FIN | CONTINUATION, b"") == (BINARY, b"", ())


def test_a_pong_is_reported() -> None:
    assert server().receive(FIN | PONG, b"x") == (PONG, b"x", ())


def test_compressed_messages() -> None:
    messages = server(agreement=agreed())
    hello = bytes.fromhex("f248cdc9c90700")
    assert messages.receive(FIN | RSV1 | TEXT, hello) == (TEXT, b"Hello", ())
    assert messages.receive(RSV1 | BINARY, hello[:3]) is None
    assert messages.receive(FIN | CONTINUATION, hello[3:]) == (BINARY, b"Hello", ())
    # Those that are not, in between; the window is left alone.
    assert messages.receive(FIN | TEXT, b"plain") == (TEXT, b"plain", ())
    assert messages.receive(TEXT, b"pl") is None
    assert messages.receive(FIN | CONTINUATION, b"ain") == (TEXT, b"plain", ())
    assert messages.receive(FIN | RSV1 | TEXT, bytes.fromhex("f200110000")) == (TEXT, b"Hello", ())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1007, b"a\xffb"),
        (1007, b"a\xed\xa0\x80"),
        (1007, b"a\xe2\x82"),
        (1009, b"a" * (LIMIT + 1)),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_what_a_compressed_text_may_not_be(code: int, text: bytes, step: int) -> None:
    data = agreed().deflater(server=False).compress(text)
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    firsts = [RSV1 | TEXT, *[CONTINUATION] * (len(pieces) - 1)]
    firsts[-1] |= FIN
    messages = server(agreement=agreed())
    with pytest.raises(FrameError) as caught:
        list(map(messages.receive, firsts, pieces))
    assert caught.value.code == code
    # As binary there is nothing wrong with it but its size.
    firsts[0] = firsts[0] & ~TEXT | BINARY
    messages = server(agreement=agreed())
    if code == 1007:
        *_, event = map(messages.receive, firsts, pieces)
        assert event == (BINARY, text, ())


def test_bad_compressed_text_fails_before_its_message_ends() -> None:
    deflater = agreed().deflater(server=False)
    first = deflater.compress(b"good \xff") + b"\x00\x00\xff\xff"
    messages = server(agreement=agreed())
    with pytest.raises(FrameError) as caught:
        messages.receive(RSV1 | TEXT, first)
    assert caught.value.code == 1007


def test_what_is_not_deflate() -> None:
    messages = server(agreement=agreed())
    with pytest.raises(FrameError, match="1007: not deflate") as caught:
        messages.receive(FIN | RSV1 | BINARY, b"\xff\xff")
    reply = joined(messages.fail(caught.value.code, caught.value.reason))
    assert reply[:4] == b"\x88%c\x03\xef" % (len(reply) - 2)
    assert messages.code == 1007


# ---- sending ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\0\0\0\0\0\1\0\0"),
    ],
)
def test_a_server_sends_a_header_and_the_payload_itself(size: int, expected: bytes) -> None:
    payload = bytes(size)
    first, second = server().send(BINARY, payload)
    assert first == expected
    assert second is payload


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536])
def test_a_client_masks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"\x37\xfa\x21\x3d"
    monkeypatch.setattr("os.urandom", lambda size: key[:size])
    payload = bytes(i % 251 for i in range(size))
    client = Messages(server=False, max_message_size=LIMIT)
    [frame] = client.send(TEXT, payload)
    start = header(FIN | TEXT, size, 0x80) + key
    assert frame[: len(start)] == start
    assert start[1] & 0x80
    body = bytearray(frame[len(start) :])
    mask(body, key)
    assert body == payload


def test_the_masked_example_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: b"\x37\xfa\x21\x3d"[:size])
    assert masked_frame(FIN | TEXT, b"Hello").hex() == "818537fa213d7f9f4d5158"


def test_every_frame_of_a_client_has_a_key_of_its_own() -> None:
    client = Messages(server=False, max_message_size=LIMIT)
    keys = {bytes(client.send(TEXT, b"")[0][2:6]) for _ in range(50)}
    assert len(keys) == 50


def test_messages_are_compressed_from_the_threshold_on() -> None:
    messages = server(agreement=agreed(threshold=5, server_max_window_bits=15))
    assert joined(messages.send(TEXT, b"Hell")) == b"\x81\x04Hell"
    assert joined(messages.send(TEXT, b"Hello")).hex() == "c107f248cdc9c90700"
    assert joined(messages.send(BINARY, b"Hello")).hex() == "c205f200110000"
    assert joined(messages.ping(b"Hello")) == b"\x89\x05Hello"


def test_pings_and_pongs() -> None:
    messages = server()
    assert joined(messages.ping()) == b"\x89\x00"
    assert joined(messages.pong(b"a" * 125)) == b"\x8a\x7d" + b"a" * 125
    for make in (messages.ping, messages.pong):
        with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
            make(bytes(126))


# ---- closing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "code", "reason", "echo"),
    [
        (b"", NO_CODE, "", b"\x88\x00"),
        (b"\x03\xe8", 1000, "", b"\x88\x02\x03\xe8"),
        (b"\x03\xe9bye \xe2\x82\xac", 1001, "bye \u20ac", b"\x88\x02\x03\xe9"),
        (b"\x13\x87", 4999, "", b"\x88\x02\x13\x87"),
    ],
)
def test_the_peer_closes(payload: bytes, code: int, reason: str, echo: bytes) -> None:
    messages = server()
    event = messages.receive(FIN | CLOSE, memoryview(payload))
    assert event is not None
    assert event.opcode == CLOSE
    assert joined(event.reply) == echo
    assert messages.state is State.CLOSED
    assert (messages.code, messages.reason) == (code, reason)
    messages.receive_eof()
    assert (messages.code, messages.reason) == (code, reason)


@pytest.mark.parametrize(
    ("args", "frame"),
    [
        ((), b"\x88\x02\x03\xe8"),
        ((1001, "bye"), b"\x88\x05\x03\xe9bye"),
        ((None,), b"\x88\x00"),
        ((3000, "\u20ac" * 41), b"\x88\x7d\x0b\xb8" + b"\xe2\x82\xac" * 41),
    ],
)
def test_we_close_and_the_peer_answers(args: tuple[Any, ...], frame: bytes) -> None:
    messages = server()
    assert joined(messages.close(*args)) == frame
    assert messages.state is State.CLOSING
    event = messages.receive(FIN | CLOSE, b"\x03\xe8ok")
    assert event == Event(CLOSE, b"ok", ())
    assert (messages.state, messages.code, messages.reason) == (State.CLOSED, 1000, "ok")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536, -1])
def test_codes_that_are_never_sent(code: int) -> None:
    messages = server()
    for refused in (messages.close, messages.fail):
        with pytest.raises(ValueError, match=f"close code must be .* not {code}"):
            refused(code)
    assert messages.state is State.OPEN


def test_reasons_that_are_never_sent() -> None:
    messages = server()
    with pytest.raises(ValueError, match="at most 123 bytes of UTF-8, not 124"):
        messages.close(1000, "\u20ac" * 41 + "a")
    with pytest.raises(ValueError, match="a close reason needs a code"):
        messages.close(None, "a")
    with pytest.raises(ValueError, match="surrogates"):
        messages.close(1000, "\ud800")
    assert messages.state is State.OPEN


def test_we_close_and_tcp_ends() -> None:
    messages = server()
    messages.close()
    messages.receive_eof()
    assert (messages.state, messages.code) == (State.CLOSED, ABNORMAL)


def test_tcp_ends() -> None:
    messages = server()
    messages.receive(TEXT, b"unfinished")
    messages.receive_eof()
    assert (messages.state, messages.code, messages.reason) == (State.CLOSED, ABNORMAL, "")


def test_something_is_wrong() -> None:
    messages = server()
    assert joined(messages.fail(1002, "no")) == b"\x88\x04\x03\xeano"
    assert (messages.state, messages.code, messages.reason) == (State.CLOSED, 1002, "no")
    messages.receive_eof()
    assert messages.code == 1002


def test_something_is_wrong_after_our_close() -> None:
    messages = server()
    messages.close()
    assert messages.fail(1002) == ()
    assert (messages.state, messages.code) == (State.CLOSED, 1002)


AFTER: dict[str, Callable[[Messages], object]] = {
    "we close": lambda messages: messages.close(),
    "the peer closes": lambda messages: messages.receive(FIN | CLOSE, b"\x03\xe9"),
    "we fail": lambda messages: messages.fail(1011),
    "tcp ends": lambda messages: messages.receive_eof(),
}


@pytest.mark.parametrize("end", AFTER)
def test_afterwards_nothing_is_sent_and_no_data_is_heard(end: str) -> None:
    messages = server(agreement=agreed(threshold=0))
    messages.receive(TEXT, b"unfinished")
    AFTER[end](messages)
    code = messages.code
    assert messages.send(TEXT, b"Hello") == ()
    assert messages.ping() == messages.pong() == ()
    assert messages.close(1000) == ()
    for tag in (FIN | CONTINUATION, FIN | TEXT, FIN | RSV1 | TEXT, TEXT, FIN | PING, FIN | PONG):
        assert messages.receive(tag, b"x") is None
    if end != "we close":
        assert messages.receive(FIN | CLOSE, b"\x03\xf3") is None
        assert messages.fail(1002) == ()
        assert messages.code == code
    assert messages.reason == ""


# ---- with the cutter ----------------------------------------------------------------------------


def client_frame(first: int, payload: bytes) -> bytes:
    return bytes(masked_frame(first, payload))


@pytest.mark.parametrize(
    ("code", "frame"),
    [
        (1002, b"\x83\x80"),  # the opcode
        (1002, b"\xc1\x80"),  # RSV1
        (1002, b"\x81\x05Hello"),  # no mask
        (1002, b"\x09\x80"),  # a ping in fragments
        (1002, b"\x89\xfe\x00\x7e"),  # a ping too long
        (1002, b"\x80\x80"),  # nothing to continue
        (1002, b"\x82\xfe\x00\x7d"),  # a size too long
        (1002, b"\x88\x81"),  # half a code
        (1002, b"\x88\x82\0\0\0\0\x03\xed"),  # 1005
        (1007, b"\x88\x83\0\0\0\0\x03\xe8\xff"),
        (1007, b"\x81\x85\0\0\0\0a\xff"),
        (1009, b"\x82\xfe\x03\xe9"),
        (1009, b"\x82\xff\0\0\0\0\0\1\0\0"),
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_a_bad_frame_closes_after_the_good_ones(code: int, frame: bytes, step: int) -> None:
    peer = Peer(is_server=True)
    stream = client_frame(FIN | TEXT, b"first") + client_frame(FIN | PING, b"?") + frame
    sent = b"".join(peer.feed(stream[i : i + step]) for i in range(0, len(stream), step))
    assert peer.events == [(TEXT, b"first"), (PING, b"?")]
    assert sent[:3] == b"\x8a\x01?"
    assert sent[3] == 0x88
    assert int.from_bytes(sent[5:7], "big") == code
    assert sent[4] == len(sent) - 5
    assert (peer.messages.state, peer.messages.code) == (State.CLOSED, code)
    assert peer.messages.reason == sent[7:].decode()


def test_a_frame_buffer_gives_back_what_it_does_not_need() -> None:
    buffer = FrameBuffer(from_client=False, deflate=False, max_message_size=LIMIT)
    assert [bytes(payload) for _, payload in buffer.feed(b"\x81\x01a\x81\x01b\x81\x05Hel")] == [
        b"a",
        b"b",
    ]
    assert len(buffer._kept) == 5
    assert [bytes(payload) for _, payload in buffer.feed(b"lo")] == [b"Hello"]
    assert len(buffer._kept) == 0


payloads = st.one_of(st.text(max_size=90).map(str.encode), st.binary(max_size=300))


@given(
    st.lists(st.tuples(st.booleans(), payloads), max_size=6),
    st.booleans(),
    st.booleans(),
    st.integers(1, 400),
)
def test_what_is_sent_is_received(
    messages: list[tuple[bool, bytes]], to_server: bool, compress: bool, step: int
) -> None:
    agreement = agreed(threshold=20) if compress else None
    sender = Messages(server=not to_server, max_message_size=LIMIT, agreement=agreement)
    peer = Peer(is_server=to_server, agreement=agreement)
    stream, expected = b"", []
    for text, payload in messages:
        if text:
            payload = payload.decode("utf-8", "replace").encode()
        opcode = TEXT if text else BINARY
        stream += joined(sender.send(opcode, payload)) + joined(sender.ping(payload[:10]))
        expected += [(opcode, payload), (PING, payload[:10])]
    stream += joined(sender.close(3001, "done"))
    sent = b"".join(peer.feed(stream[i : i + step]) for i in range(0, len(stream), step))
    assert peer.events == [*expected, (CLOSE, b"done")]
    assert (peer.messages.code, peer.messages.reason) == (3001, "done")
    back = FrameBuffer(from_client=not to_server, deflate=False, max_message_size=LIMIT)
    answers = [(tag & 15, bytes(payload)) for tag, payload in back.feed(sent)]
    pongs = [(PONG, payload[:10]) for _, payload in messages]
    assert [answer for answer in answers if answer[0] == CLOSE] == [(CLOSE, b"\x0b\xb9")]
    assert len(answers) == len(pongs) + 1
