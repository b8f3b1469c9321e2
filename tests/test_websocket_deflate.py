"""permessage-deflate: the examples of RFC 7692, what is agreed on, and that nothing grows."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gevffi._ws_deflate import Agreement, Deflate, DeflateError, Inflater
from gevffi._ws_http import parse_extensions

LIMIT = 100_000


def accept(offer: str, **options: Any) -> str | None:
    """What a server answers to an offer."""
    agreement = Deflate(**options).accept(parse_extensions(offer))
    return None if agreement is None else agreement.response


def agreement(**options: Any) -> Agreement:
    """What comes of a client that can do everything."""
    found = Deflate(**options).accept([("permessage-deflate", [("client_max_window_bits", None)])])
    assert found is not None
    return found


def inflater(max_size: int = LIMIT, **options: Any) -> Inflater:
    return agreement(**options).inflater(server=True, max_size=max_size)


WIDE: dict[str, Any] = {"server_max_window_bits": 15, "client_max_window_bits": 15}
PMD = "permessage-deflate"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("", None),
        ("permessage-foo", None),
        (PMD, PMD),
        (f"foo; x=1, {PMD}", PMD),
        (f"{PMD}; client_max_window_bits", PMD),
        (f"{PMD}; client_max_window_bits=10", f"{PMD}; client_max_window_bits=10"),
        (f'{PMD}; client_max_window_bits="10"', f"{PMD}; client_max_window_bits=10"),
        (f"{PMD}; server_max_window_bits=10", f"{PMD}; server_max_window_bits=10"),
        (f"{PMD}; server_max_window_bits=8", f"{PMD}; server_max_window_bits=8"),
        (f"{PMD}; server_max_window_bits=15", PMD),
        (f"{PMD}; server_no_context_takeover", f"{PMD}; server_no_context_takeover"),
        (f"{PMD}; client_no_context_takeover", f"{PMD}; client_no_context_takeover"),
        # Declined: section 7.1, "a server MUST decline an offer ... if"
        (f"{PMD}; unknown", None),
        (f"{PMD}; server_no_context_takeover=1", None),
        (f"{PMD}; client_no_context_takeover=true", None),
        (f"{PMD}; server_max_window_bits", None),
        (f"{PMD}; server_max_window_bits=7", None),
        (f"{PMD}; server_max_window_bits=16", None),
        (f"{PMD}; server_max_window_bits=08", None),
        (f"{PMD}; server_max_window_bits=+9", None),
        (f"{PMD}; client_max_window_bits=0", None),
        (f"{PMD}; client_max_window_bits=ten", None),
        (f"{PMD}; client_max_window_bits; client_max_window_bits", None),
        (f"{PMD}; server_no_context_takeover; server_no_context_takeover", None),
        # The next one, then
        (f"{PMD}; server_max_window_bits=99, {PMD}", PMD),
        (
            f"{PMD}; server_max_window_bits=9; server_no_context_takeover, {PMD}",
            f"{PMD}; server_no_context_takeover; server_max_window_bits=9",
        ),
    ],
)
def test_what_a_server_accepts(offer: str, answer: str | None) -> None:
    assert accept(offer, **WIDE) == answer


def test_a_server_asks_for_less() -> None:
    assert accept(PMD) == f"{PMD}; server_max_window_bits=12"
    assert accept(f"{PMD}; client_max_window_bits; server_max_window_bits=14") == (
        f"{PMD}; server_max_window_bits=12; client_max_window_bits=12"
    )
    forgetful: dict[str, Any] = {
        "server_no_context_takeover": True,
        "client_no_context_takeover": True,
    }
    assert accept(PMD, **WIDE, **forgetful) == (
        f"{PMD}; server_no_context_takeover; client_no_context_takeover"
    )


@pytest.mark.parametrize(
    ("options", "offer"),
    [
        (WIDE, f"{PMD}; client_max_window_bits"),
        ({}, f"{PMD}; server_max_window_bits=12; client_max_window_bits=12"),
        (
            {**WIDE, "server_no_context_takeover": True, "client_no_context_takeover": True},
            f"{PMD}; server_no_context_takeover; client_no_context_takeover; "
            "client_max_window_bits",
        ),
    ],
)
def test_what_a_client_offers(options: dict[str, Any], offer: str) -> None:
    assert Deflate(**options).offer == offer
    assert accept(offer, **options) is not None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f"{PMD}; server_max_window_bits=12", (12, 11, False, False)),
        (f"{PMD}; server_max_window_bits=12; client_max_window_bits=15", (12, 11, False, False)),
        (
            f"{PMD}; server_max_window_bits=9; client_max_window_bits=10; "
            "server_no_context_takeover; client_no_context_takeover",
            (9, 10, True, True),
        ),
    ],
)
def test_what_a_client_makes_of_the_answer(answer: str, expected: tuple[object, ...]) -> None:
    deflate = Deflate(client_max_window_bits=11)
    found = deflate.agree(parse_extensions(answer))
    assert found is not None
    assert (
        *(found.server_bits, found.client_bits, found.server_forgets, found.client_forgets),
    ) == expected
    assert deflate.agree([]) is None


@pytest.mark.parametrize(
    "answer",
    [
        "permessage-foo",
        f"{PMD}; server_max_window_bits=12, {PMD}; server_max_window_bits=12",
        PMD,  # a window of 15 then, but 12 was the most
        f"{PMD}; server_max_window_bits=13",
        f"{PMD}; server_max_window_bits=12; client_max_window_bits",
        f"{PMD}; server_max_window_bits=12; unknown",
        f"{PMD}; server_max_window_bits=12; server_max_window_bits=12",
    ],
)
def test_what_a_client_refuses(answer: str) -> None:
    with pytest.raises(ValueError, match="the server"):
        Deflate().agree(parse_extensions(answer))
    with pytest.raises(ValueError, match="beyond what was offered"):
        Deflate(**WIDE, server_no_context_takeover=True).agree(parse_extensions(PMD))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server_max_window_bits", 7),
        ("server_max_window_bits", 16),
        ("client_max_window_bits", 7),
        ("client_max_window_bits", 16),
        ("mem_level", 0),
        ("mem_level", 10),
        ("level", -1),
        ("level", 10),
        ("threshold", -1),
        ("threshold", True),
    ],
)
def test_options_that_cannot_be_meant(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be between .* not {value}"):
        Deflate(**{name: value})  # type: ignore[arg-type]


def test_the_examples_of_the_rfc() -> None:
    # 7.2.3.1, in one piece and in two
    found = inflater()
    assert found.inflate(bytes.fromhex("f248cdc9c90700"), True) == b"Hello"
    first = found.inflate(bytes.fromhex("f248cd"), False)
    assert first + found.inflate(bytes.fromhex("c9c90700"), True) == b"Hello"
    # 7.2.3.2, with and without context
    shared = agreement(threshold=0, **WIDE).deflater(server=True)
    assert shared.compress(b"Hello").hex() == "f248cdc9c90700"
    assert shared.compress(b"Hello").hex() == "f200110000"
    found = inflater()
    assert found.inflate(bytes.fromhex("f248cdc9c90700"), True) == b"Hello"
    assert found.inflate(bytes.fromhex("f200110000"), True) == b"Hello"
    # 7.2.3.3, a block that is not compressed
    assert inflater().inflate(bytes.fromhex("000500faff48656c6c6f00"), True) == b"Hello"
    # 7.2.3.4, a block with BFINAL set; and on it goes
    found = inflater()
    for _ in range(20):
        assert found.inflate(bytes.fromhex("f348cdc9c9070000"), True) == b"Hello"
        assert found.inflate(bytes.fromhex("f248cdc9c90700"), True) == b"Hello"
    # 7.2.3.5, two blocks
    assert inflater().inflate(bytes.fromhex("f248050000 00ffffcac9c90700"), True) == b"Hello"
    # 7.2.3.6, an empty message; zlib itself says nothing the second time
    deflater = agreement().deflater(server=True)
    for _ in range(3):
        assert deflater.compress(b"") == b"\x00"
        assert found.inflate(b"\x00", True) == b""


texts = st.one_of(
    st.binary(max_size=2000),
    st.builds(
        lambda text, count: text * count, st.binary(min_size=1, max_size=40), st.integers(0, 200)
    ),
)


@settings(deadline=None)
@given(
    st.lists(texts, max_size=6),
    st.integers(8, 15),
    st.booleans(),
    st.integers(0, 9),
    st.integers(1, 60),
)
def test_round_trips(
    messages: list[bytes], bits: int, forgets: bool, level: int, step: int
) -> None:
    agreed = agreement(
        server_max_window_bits=bits,
        server_no_context_takeover=forgets,
        level=level,
        mem_level=max(level, 1),
    )
    assert (agreed.server_bits, agreed.server_forgets) == (bits, forgets)
    deflater = agreed.deflater(server=True)
    found = agreed.inflater(server=True, max_size=LIMIT)
    for message in messages:
        compressed = deflater.compress(message)
        pieces = [compressed[i : i + step] for i in range(0, len(compressed), step)]
        *firsts, last = pieces
        inflated = b"".join(found.inflate(piece, False) for piece in firsts)
        assert inflated + found.inflate(last, True) == message


def test_without_context_each_message_stands_alone() -> None:
    agreed = agreement(server_no_context_takeover=True)
    deflater = agreed.deflater(server=True)
    first, second = deflater.compress(b"Hello" * 20), deflater.compress(b"Hello" * 20)
    assert first == second
    found = agreed.inflater(server=True, max_size=LIMIT)
    assert found.inflate(first, True) == found.inflate(second, True) == b"Hello" * 20
    # What refers back over a message finds nothing there.
    with pytest.raises(DeflateError, match="not deflate") as caught:
        found.inflate(bytes.fromhex("f200110000"), True)
    assert caught.value.code == 1007


class Distances:
    """Reads raw deflate data (RFC 1951) for one thing: how far back it refers."""

    LENGTHS = (  # extra bits, and the first length
        *((0, i) for i in range(3, 11)),
        *((1 + i // 4, (((i % 4) + 4) << (1 + i // 4)) + 3) for i in range(20)),
        (0, 258),
    )
    BACK = (
        *((0, i) for i in range(1, 5)),
        *((1 + i // 2, (((i % 2) + 2) << (1 + i // 2)) + 1) for i in range(26)),
    )
    ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)

    def __init__(self, data: bytes) -> None:
        self.number, self.at, self.size = int.from_bytes(data, "little"), 0, 8 * len(data)
        self.longest = self.made = 0
        while self.at + 3 <= self.size:
            self.block()

    def bits(self, count: int) -> int:
        value = self.number >> self.at & ((1 << count) - 1)
        self.at += count
        return value

    def code(self, lengths: list[int]) -> dict[tuple[int, int], int]:
        codes, code = {}, 0
        for length in range(1, 16):
            code <<= 1
            for symbol, wanted in enumerate(lengths):
                if wanted == length:
                    codes[length, code] = symbol
                    code += 1
        return codes

    def symbol(self, codes: dict[tuple[int, int], int]) -> int:
        code = 0
        for length in range(1, 16):
            code = code << 1 | self.bits(1)
            if (length, code) in codes:
                return codes[length, code]
        raise ValueError("no such code")

    def block(self) -> None:
        self.bits(1)
        kind = self.bits(2)
        if kind == 0:
            self.at = -(-self.at // 8) * 8
            if self.at + 32 <= self.size:  # else it is the tail that was cut off
                size = self.bits(16)
                self.at += 16 + 8 * size
                self.made += size
            else:
                self.at = self.size
            return
        if kind == 1:
            literals = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
            back = [5] * 30
        else:
            count, backs, orders = self.bits(5) + 257, self.bits(5) + 1, self.bits(4) + 4
            first = [0] * 19
            for place in self.ORDER[:orders]:
                first[place] = self.bits(3)
            codes = self.code(first)
            lengths: list[int] = []
            while len(lengths) < count + backs:
                symbol = self.symbol(codes)
                if symbol < 16:
                    lengths.append(symbol)
                elif symbol == 16:
                    lengths += lengths[-1:] * (3 + self.bits(2))
                else:
                    lengths += [0] * (3 + self.bits(3) if symbol == 17 else 11 + self.bits(7))
            literals, back = lengths[:count], lengths[count:]
        codes, distances = self.code(literals), self.code(back)
        while (symbol := self.symbol(codes)) != 256:
            if symbol < 256:
                self.made += 1
                continue
            extra, base = self.LENGTHS[symbol - 257]
            self.made += base + self.bits(extra)
            extra, base = self.BACK[self.symbol(distances)]
            self.longest = max(self.longest, base + self.bits(extra))


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("level", [1, 6, 9])
def test_nothing_refers_back_further_than_the_window(bits: int, level: int) -> None:
    """Eight bits above all, which zlib does not know."""
    source = random.Random(bits)
    words = [source.randbytes(7) for _ in range(3 << bits - 8)]
    message = b"".join(source.choices(words, k=4000)) + bytes(1000)
    agreed = agreement(server_max_window_bits=bits, level=level)
    compressed = agreed.deflater(server=True).compress(message)
    seen = Distances(compressed)
    assert seen.made == len(message)
    assert 1 << bits - 2 < seen.longest <= 1 << bits
    strict = zlib.decompressobj(-bits)
    assert strict.decompress(compressed + b"\x00\x00\xff\xff") == message


def test_a_bomb_is_over_the_limit_after_no_more_than_the_limit() -> None:
    bomb = zlib.compress(bytes(50 << 20), 9)[2:-4]
    assert len(bomb) < 60_000
    found = inflater(1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DeflateError, match="inflates to more than 1048576 bytes") as caught:
            found.inflate(bomb, True)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.code == 1009


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_the_limit_counts_a_message_and_not_its_pieces(step: int) -> None:
    for size in (99, 100, 101):
        deflater = agreement().deflater(server=True)
        found = inflater(100)
        for _ in range(2):  # each message anew
            compressed = deflater.compress(bytes(size))
            pieces = [compressed[i : i + step] for i in range(0, len(compressed), step)]
            if size > 100:
                with pytest.raises(DeflateError, match="more than 100 bytes"):
                    list(map(found.inflate, pieces, [*[False] * (len(pieces) - 1), True]))
                break
            inflated = b"".join(found.inflate(piece, False) for piece in pieces)
            assert inflated + found.inflate(b"", True) == bytes(size)


def test_final_blocks_without_end_are_refused() -> None:
    """Each costs a new inflater, and two bytes."""
    assert inflater().inflate(b"\x03\x00" * 8 + b"\x00", True) == b""
    with pytest.raises(DeflateError, match="more than 8 final blocks") as caught:
        inflater().inflate(b"\x03\x00" * 40_000 + b"\x00", True)
    assert caught.value.code == 1007


@pytest.mark.parametrize("data", ["07", "ff", "000500000048656c6c6f"])
def test_what_is_not_deflate_is_refused(data: str) -> None:
    with pytest.raises(DeflateError, match="not deflate") as caught:
        inflater().inflate(bytes.fromhex(data), True)
    assert caught.value.code == 1007


@given(st.lists(st.tuples(st.binary(max_size=60), st.booleans()), max_size=5))
def test_noise_is_inflated_or_refused(pieces: list[tuple[bytes, bool]]) -> None:
    found = inflater(1000)
    with contextlib.suppress(DeflateError):  # and nothing else
        for piece, last in pieces:
            assert len(found.inflate(piece, last)) <= 1000


@pytest.mark.parametrize(
    ("bits", "mem_level", "compressing", "inflating"), [(12, 5, 38, 11), (15, 8, 262, 39)]
)
def test_memory_is_what_it_is_said_to_be(
    bits: int, mem_level: int, compressing: int, inflating: int
) -> None:
    """Half as much again is allowed for zlibs that are not zlib."""
    message = random.Random(0).randbytes(100_000)
    agreed = agreement(
        server_max_window_bits=bits, client_max_window_bits=bits, mem_level=mem_level
    )
    tracemalloc.start()
    try:
        deflater = agreed.deflater(server=True)
        found = agreed.inflater(server=True, max_size=LIMIT)
        nothing = tracemalloc.get_traced_memory()[0]
        assert nothing < 1000
        compressed = deflater.compress(message)
        both = tracemalloc.get_traced_memory()[0] - len(compressed)
        assert both - nothing < compressing * 1.5 * 1024
        assert found.inflate(compressed, True) == message
        assert tracemalloc.get_traced_memory()[0] - len(compressed) - both < inflating * 1.5 * 1024
    finally:
        tracemalloc.stop()
