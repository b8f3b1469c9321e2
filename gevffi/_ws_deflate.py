"""permessage-deflate (RFC 7692): agreeing on it, and doing it, with zlib.

What a connection costs, in bytes, for windows of 2**w and zlib's memory level m (zconf.h), each
half only from the first compressed message on that goes its way:

    to compress      2**(w+2) + 2**(m+9) + 6 KiB      w=12, m=5: 38 KiB     w=15, m=8: 262 KiB
    to inflate       2**w + 7 KiB                     w=12: 11 KiB          w=15: 39 KiB

With `..._no_context_takeover` a half costs that only while a message is being worked on, and
nothing between messages; the price is time and a worse ratio.

zlib cannot make raw deflate data with a window of 256 bytes (w=8). It need not: with w=9 it
refers back by no more than 2**9 - 262 = 250 bytes (deflate.h, MAX_DIST), which an inflater with
w=8 has. So where 8 is agreed on, 9 is used to compress.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

from gevffi._ws_http import Parameters, format_extension

NAME = "permessage-deflate"
_TAIL = b"\x00\x00\xff\xff"
_BITS = re.compile(r"[89]|1[0-5]")
_MOST_ENDS = 8
"""Deflate streams that may end within a message. Nobody needs more than one; each costs a new
inflater for as little as two bytes."""


class DeflateError(Exception):
    """A compressed message is not to be read. `code` is what the connection closes with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Deflate:
    """How messages may be compressed: what a server accepts, what a client asks for.

    With the defaults it costs a connection up to 38 KiB to compress and 11 KiB to inflate, each
    from the first compressed message on that goes its way; with windows of 15 bits and a
    `mem_level` of 8 it is 262 and 39 KiB.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """

    server_max_window_bits: int = 12
    """The server's window is at most 2 to this many bytes, 8 to 15."""
    client_max_window_bits: int = 12
    """The client's. A client that cannot be told (few cannot) uses 15."""
    server_no_context_takeover: bool = False
    """The server forgets its window after each message."""
    client_no_context_takeover: bool = False
    """The client does."""
    mem_level: int = 5
    """zlib's memory for compressing, 1 to 9."""
    level: int = 6
    """zlib's effort, 0 to 9."""
    threshold: int = 256
    """Bytes from which on a message is compressed; deflate makes small ones larger or little
    smaller, and takes 10 times as long as all else."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("server_max_window_bits", 8, 15),
            ("client_max_window_bits", 8, 15),
            ("mem_level", 1, 9),
            ("level", 0, 9),
            ("threshold", 0, 1 << 31),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be between {low} and {high}, not {value!r}")

    def accept(self, offers: list[tuple[str, Parameters]]) -> Agreement | None:
        """Choose the first of a client's offers that can be met (RFC 7692, section 5).

        Args:
            offers: what `parse_extensions` gives, extensions of other names included.
        """
        for name, parameters in offers:
            if name == NAME:
                agreement = self._meet(_read(parameters, in_offer=True))
                if agreement is not None:
                    return agreement
        return None

    def _meet(self, offer: dict[str, int] | None) -> Agreement | None:
        if offer is None:
            return None
        server_bits = min(self.server_max_window_bits, offer.get("server_max_window_bits", 15))
        client_bits = 15  # unless it can be told
        if "client_max_window_bits" in offer:
            client_bits = min(self.client_max_window_bits, offer["client_max_window_bits"])
        return Agreement(
            options=self,
            server_bits=server_bits,
            client_bits=client_bits,
            server_forgets=self.server_no_context_takeover or "server_no_context_takeover" in offer,
            client_forgets=self.client_no_context_takeover or "client_no_context_takeover" in offer,
        )

    @property
    def offer(self) -> str:
        """What a client sends in Sec-WebSocket-Extensions."""
        parameters: Parameters = []
        if self.server_no_context_takeover:
            parameters.append(("server_no_context_takeover", None))
        if self.client_no_context_takeover:
            parameters.append(("client_no_context_takeover", None))
        if self.server_max_window_bits < 15:
            parameters.append(("server_max_window_bits", str(self.server_max_window_bits)))
        bits = self.client_max_window_bits
        parameters.append(("client_max_window_bits", str(bits) if bits < 15 else None))
        return format_extension(NAME, parameters)

    def agree(self, extensions: list[tuple[str, Parameters]]) -> Agreement | None:
        """Read a server's answer to `offer` (RFC 7692, section 7.1).

        Raises:
            ValueError: it is none that a server may give to that offer.
        """
        if not extensions:
            return None
        (name, parameters), *others = extensions
        if name != NAME or others:
            raise ValueError("the server chose an extension that was not offered")
        answer = _read(parameters, in_offer=False)
        if answer is None:
            raise ValueError(f"the server's parameters of {NAME} are malformed")
        server_bits = answer.get("server_max_window_bits", 15)
        # A server may ignore what we said of our own window (section 7.1.2.2), and allow more.
        client_bits = min(answer.get("client_max_window_bits", 15), self.client_max_window_bits)
        server_forgets = "server_no_context_takeover" in answer
        if server_bits > self.server_max_window_bits or (
            self.server_no_context_takeover and not server_forgets
        ):
            raise ValueError(f"the server's parameters of {NAME} go beyond what was offered")
        return Agreement(
            options=self,
            server_bits=server_bits,
            client_bits=client_bits,
            server_forgets=server_forgets,
            client_forgets=self.client_no_context_takeover
            or "client_no_context_takeover" in answer,
        )


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the two sides of a connection agreed on."""

    options: Deflate
    server_bits: int
    client_bits: int
    server_forgets: bool
    client_forgets: bool

    @property
    def response(self) -> str:
        """What the server sends in Sec-WebSocket-Extensions.

        A window of 15 bits is what goes without saying. That the client was given a smaller one
        means that it had asked to be told.
        """
        parameters: Parameters = []
        if self.server_forgets:
            parameters.append(("server_no_context_takeover", None))
        if self.client_forgets:
            parameters.append(("client_no_context_takeover", None))
        if self.server_bits < 15:
            parameters.append(("server_max_window_bits", str(self.server_bits)))
        if self.client_bits < 15:
            parameters.append(("client_max_window_bits", str(self.client_bits)))
        return format_extension(NAME, parameters)

    def deflater(self, *, server: bool) -> Deflater:
        """What compresses the messages of one side."""
        bits = self.server_bits if server else self.client_bits
        forgets = self.server_forgets if server else self.client_forgets
        return Deflater(bits, forgets, self.options)

    def inflater(self, *, server: bool, max_size: int) -> Inflater:
        """What inflates the messages of one side."""
        bits = self.server_bits if server else self.client_bits
        forgets = self.server_forgets if server else self.client_forgets
        return Inflater(bits, forgets, max_size)


def _read(parameters: Parameters, *, in_offer: bool) -> dict[str, int] | None:
    """The parameters as numbers (15 for one without its value); None: they are not valid."""
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in found:
            return None
        if name in {"server_no_context_takeover", "client_no_context_takeover"}:
            if value is not None:
                return None
            found[name] = 1
        elif name in {"server_max_window_bits", "client_max_window_bits"}:
            if value is None:
                if not in_offer or name == "server_max_window_bits":
                    return None
                value = "15"
            if not _BITS.fullmatch(value):
                return None
            found[name] = int(value)
        else:
            return None
    return found


class Deflater:
    """Compresses the messages of one side of a connection, one after the other."""

    __slots__ = ("_bits", "_forgets", "_level", "_mem_level", "_zlib", "threshold")

    def __init__(self, bits: int, forgets: bool, options: Deflate) -> None:
        self._bits = max(bits, 9)
        self._forgets = forgets
        self._level, self._mem_level = options.level, options.mem_level
        self._zlib: Any = None
        self.threshold = options.threshold

    def compress(self, message: bytes | bytearray | memoryview) -> bytes:
        """Return the payload of a compressed message (RFC 7692, section 7.2.1)."""
        compressor = self._zlib
        if compressor is None:
            compressor = zlib.compressobj(self._level, zlib.DEFLATED, -self._bits, self._mem_level)
            if not self._forgets:
                self._zlib = compressor
        data: bytes = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        # When nothing came since the last flush, zlib has nothing to say: an empty block it is.
        return data[:-4] if data else b"\x00"


class Inflater:
    """Inflates the messages of one side of a connection, one after the other, piece by piece."""

    __slots__ = ("_bits", "_ends", "_forgets", "_max_size", "_size", "_zlib")

    def __init__(self, bits: int, forgets: bool, max_size: int) -> None:
        self._bits = bits
        self._forgets = forgets
        self._max_size = max_size
        self._zlib: Any = None
        self._size = 0  # of the message so far
        self._ends = 0  # deflate streams that have ended in it

    def inflate(self, piece: bytes | bytearray | memoryview, last: bool) -> bytes:
        """Inflate the next piece of a message; no more than the limit and one byte is ever made.

        Args:
            last: the message ends with it.

        Raises:
            DeflateError: over the limit (1009), or not deflate (1007).
        """
        try:
            found = self._inflate(piece)
            if last:
                found += self._inflate(_TAIL)
        except zlib.error as exc:
            raise DeflateError(1007, f"not deflate: {exc}") from None
        if last:
            self._size = self._ends = 0
            if self._forgets:
                self._zlib = None
        return found

    def _inflate(self, data: bytes | bytearray | memoryview) -> bytes:
        found = b""
        while True:
            inflater = self._zlib
            if inflater is None:
                inflater = self._zlib = zlib.decompressobj(-self._bits)
            piece: bytes = inflater.decompress(data, self._max_size - self._size + 1)
            found += piece
            self._size += len(piece)
            if self._size > self._max_size:
                raise DeflateError(1009, f"a message inflates to more than {self._max_size} bytes")
            if not inflater.eof:
                return found
            # A block with BFINAL set ends a stream within a message (section 7.2.3.4). What comes
            # then is a new stream; nobody's refers back over such an end.
            self._zlib = None
            self._ends += 1
            if self._ends > _MOST_ENDS:
                raise DeflateError(1007, f"more than {_MOST_ENDS} final blocks in a message")
            data = inflater.unused_data
