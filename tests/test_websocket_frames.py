"""Cutting frames: against a parser that is as plain as the RFC, whatever the pieces they come in.

What each malformed frame is refused with, byte by byte, is in `c/test_websocket.c`.
"""

from __future__ import annotations

import codecs
import struct
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from gevffi._ffi import ffi, lib
from gevffi.sys.websocket import MOST, UTF8_BAD, UTF8_OK, Cutter, check_utf8, mask

LIMIT = 200


class Outcome(NamedTuple):
    """What became of a stream."""

    frames: list[tuple[int, bytes]]
    error: int  #: the close code; 0: none
    seen: int  #: bytes there were when the error was said


class UnfinishedError(Exception):
    """The stream ends within a frame."""


class RefusedError(Exception):
    """`args`: the close code, and how many bytes it took to know."""


class Decoder:
    """Python's own, which says one byte late that a surrogate is no UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> bool:
        """Whether it can still be UTF-8."""
        try:
            self._decoder.decode(data)
        except UnicodeDecodeError:
            return False
        return not (self.pending[:1] == b"\xed" and self.pending[1:2] >= b"\xa0")

    @property
    def pending(self) -> bytes:
        """The beginning of a character."""
        return self._decoder.getstate()[0]


class Reference:
    """RFC 6455, section 5, read aloud. It knows at which byte each rule is broken."""

    def __init__(self, stream: bytes, from_client: bool, deflate: bool) -> None:
        self.stream, self.from_client, self.deflate = stream, from_client, deflate
        self.at = 0
        self.frames: list[tuple[int, bytes]] = []
        self.message: int | None = None
        self.message_size = 0
        self.decoder = Decoder()

    def take(self, count: int = 1) -> int:
        if self.at + count > len(self.stream):
            raise UnfinishedError
        self.at += count
        return int.from_bytes(self.stream[self.at - count : self.at], "big")

    def demand(self, holds: object, code: int = 1002) -> None:
        if not holds:
            raise RefusedError(code, self.at)

    def frame(self) -> None:
        first = self.take()
        opcode, control = first & 15, first & 8
        self.demand(not first & 0x30 and opcode in {0, 1, 2, 8, 9, 10})
        if control:
            self.demand(first & 0xC0 == 0x80)
        else:
            self.demand((opcode == 0) == (self.message is not None))
            self.demand(not first & 0x40 or (self.deflate and opcode))
        second = self.take()
        self.demand(bool(second & 0x80) == self.from_client)
        size = second & 0x7F
        self.demand(not control or size < 126)
        if size == 126:
            size = self.take(2)
            self.demand(size > 125)
        elif size == 127:
            self.demand(self.take() < 128)
            self.at -= 1
            size = self.take(8)
            self.demand(size > 0xFFFF)
        self.demand(opcode != 8 or size != 1)
        message = first if self.message is None else self.message
        if not control:
            compressed = message & 0x40
            limit = LIMIT + LIMIT // 4 + 64 if compressed else LIMIT
            self.demand(self.message_size + size <= limit, 1009)
        key = self.take(4).to_bytes(4, "big") if self.from_client else bytes(4)
        if control:
            payload = self.payload(size, key, "close" if opcode == 8 else "bytes")
        else:
            text = message & 0x4F == 1
            payload = self.payload(size, key, "text" if text else "bytes")
            self.message_size += size
            self.message = message
            if first & 0x80:
                self.demand(not text or not self.decoder.pending, 1007)
                self.message, self.message_size = None, 0
        self.frames.append((first, payload))

    def payload(self, size: int, key: bytes, kind: str) -> bytes:
        payload = bytearray()
        reason = Decoder()
        for i in range(size):
            payload.append(self.take() ^ key[i % 4])
            decoder = self.decoder if kind == "text" else reason if i >= 2 else None
            if kind != "bytes" and decoder is not None:
                self.demand(decoder.feed(bytes(payload[-1:])), 1007)
            if kind == "close" and i == 1:
                code = int.from_bytes(payload, "big")
                good = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
                self.demand(code in good)
        self.demand(not reason.pending, 1007)
        return bytes(payload)

    def run(self) -> Outcome:
        try:
            while True:
                self.frame()
        except UnfinishedError:
            return Outcome(self.frames, 0, len(self.stream))
        except RefusedError as exc:
            return Outcome(self.frames, *exc.args)


def cut(pieces: list[bytes], from_client: bool, deflate: bool) -> Outcome:
    """What a `Cutter` makes of the pieces."""
    cutter = Cutter(from_client=from_client, deflate=deflate, max_message_size=LIMIT)
    kept, seen = bytearray(), 0
    frames = []
    for piece in pieces:
        kept += piece
        seen += len(piece)
        while True:
            length, tag, begin, end = cutter.cut(kept)
            if length <= 0:
                break
            assert length == end == cutter.need
            frames.append((tag, bytes(kept[begin:end])))
            del kept[:length]
        if length < 0:
            return Outcome(frames, -length, seen)
        assert cutter.need == 0 or cutter.need > len(kept)
    return Outcome(frames, 0, seen)


def frame(first: int, payload: bytes, key: bytes | None = None) -> bytes:
    """A frame, made by hand."""
    size = len(payload)
    if size < 126:
        header = struct.pack("!BB", first, size)
    elif size < 1 << 16:
        header = struct.pack("!BBH", first, 126, size)
    else:
        header = struct.pack("!BBQ", first, 127, size)
    if key is None:
        return header + payload
    masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return header[:1] + bytes([header[1] | 0x80]) + header[2:] + key + masked


texts = st.one_of(
    st.text(max_size=60).map(str.encode),
    st.binary(max_size=20),
    st.sampled_from([b"\xe2\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"\xed\xa0\x80", b"\xf4\x90"]),
    st.binary(min_size=100, max_size=260),
)
closes = st.builds(
    lambda code, reason: code.to_bytes(2, "big") + reason[:123],
    st.sampled_from([1000, 1001, 1004, 1005, 1014, 1015, 2999, 3000, 4999, 5000, 999]),
    texts,
)
keys = st.binary(min_size=4, max_size=4)
firsts = st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0xC1, 0x42])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bool, bool]:
    """Frames that are right somewhere, and a bit of damage; and for whom."""
    from_client, deflate = draw(st.booleans()), draw(st.booleans())
    stream = bytearray()
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.integers(0, 9)) == 0:
            first, payload = 0x88, draw(closes)
        else:
            first, payload = draw(firsts), draw(texts)
        stream += frame(first, payload, draw(keys) if from_client else None)
    if draw(st.booleans()):
        stream[draw(st.integers(0, len(stream) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(stream), from_client, deflate


@given(streams(), st.lists(st.integers(0, 1500), max_size=8))
@example((b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01", False, False), [])
def test_any_stream_in_any_pieces(case: tuple[bytes, bool, bool], places: list[int]) -> None:
    stream, from_client, deflate = case
    expected = Reference(*case).run()
    event(f"ends with {expected.error}")
    whole = cut([stream], from_client, deflate)
    assert (whole.frames, whole.error) == expected[:2]
    bounds = sorted({0, len(stream), *(place for place in places if place < len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(bounds)]
    some = cut(pieces, from_client, deflate)
    assert (some.frames, some.error) == expected[:2]
    if expected.error:  # said with the piece that has the byte, whatever lies behind it
        assert some.seen == min(bound for bound in bounds if bound >= expected.seen)


@given(streams())
def test_any_stream_byte_by_byte(case: tuple[bytes, bool, bool]) -> None:
    stream, from_client, deflate = case
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    assert cut(pieces, from_client, deflate) == Reference(*case).run()


@given(st.binary(max_size=40), st.booleans(), st.booleans())
def test_noise_byte_by_byte(stream: bytes, from_client: bool, deflate: bool) -> None:
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    assert cut(pieces, from_client, deflate) == Reference(stream, from_client, deflate).run()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
@pytest.mark.parametrize("key", [None, b"\x37\xfa\x21\x3d"])
def test_headers_of_every_length(size: int, key: bytes | None) -> None:
    payload = bytes(i % 251 for i in range(size))
    made = frame(0x82, payload, key)
    room = ffi.new("uint8_t[14]")
    length = lib.gev_ws_header(room, 0x82, size, ffi.NULL if key is None else key)
    assert bytes(ffi.buffer(room, length)) == made[: len(made) - size]
    data = bytearray(made)
    cutter = Cutter(from_client=key is not None, deflate=False, max_message_size=70000)
    assert cutter.cut(data) == (len(made), 0x82, length, len(made))
    assert data[length:] == payload


@given(st.binary(max_size=300), keys, st.integers(0, 300))
def test_masking(data: bytes, key: bytes, start: int) -> None:
    start = min(start, len(data))
    masked = bytearray(data)
    mask(masked, key, start)
    expected = bytes(byte ^ key[i % 4] for i, byte in enumerate(data[start:]))
    assert masked == data[:start] + expected
    mask(masked, key, start)
    assert masked == data


@given(st.lists(texts, max_size=5))
def test_text_in_pieces(pieces: list[bytes]) -> None:
    state = UTF8_OK
    for piece in pieces:
        state = check_utf8(state, piece)
    decoder = Decoder()
    if not all(decoder.feed(piece) for piece in pieces):
        assert state == UTF8_BAD
    else:
        assert (state == UTF8_OK) == (not decoder.pending)
        assert state != UTF8_BAD


def test_arguments_that_cannot_be_meant() -> None:
    cutter = Cutter(from_client=True, deflate=False, max_message_size=MOST)
    with pytest.raises(ValueError, match="max_message_size must be 0 to"):
        Cutter(from_client=True, deflate=False, max_message_size=MOST + 1)
    with pytest.raises(ValueError, match="cut: start must be 0 to 3, not 4"):
        cutter.cut(bytearray(3), 4)
    with pytest.raises(ValueError, match="mask: key must have 4 bytes, not 3"):
        mask(bytearray(3), b"abc")
    with pytest.raises(ValueError, match="mask: start must be 0 to 3, not -1"):
        mask(bytearray(3), b"abcd", -1)
    with pytest.raises(BufferError):
        mask(memoryview(b"abc"), b"abcd")
    with pytest.raises(BufferError):
        cutter.cut(memoryview(b"abc"))
