"""The head of an HTTP message, as it comes: what both halves of the opening handshake share.

httptools parses; it would go on with whatever follows the header block, and has no bound. Both are
seen to here: the parser stops to count after the empty line, and gets no more than there is room
for.

    data ──▶ |=== request or status line, fields ===|empty line|=== rest ===|
             |<------------------- room ------------------- ...>|
"""

from __future__ import annotations

from typing import Any

import httptools


class Head:
    """Base of what takes a head apart. How long it may take is for others to say.

    Args:
        parser: httptools' class for the kind of message.
        room: the most bytes a head may have.
    """

    __slots__ = ("_complete", "_fields", "_parser", "_room")

    def __init__(self, parser: Any, room: int) -> None:
        self._room = room
        self._parser = parser(self)
        self._fields: list[tuple[str, str]] = []
        self._complete = False

    def _parse(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """Take what has come; return what is behind the head, or None if that is not complete.

        Raises:
            httptools.HttpParserError: it is no HTTP.
        """
        fits = data[: self._room]
        end = len(fits)
        try:
            self._parser.feed_data(fits)
        except httptools.HttpParserUpgrade as exc:
            end = exc.args[0]
        except httptools.HttpParserError:
            if not self._complete:  # behind the head it may find what it likes
                raise
        self._room -= len(fits)
        if not self._complete:
            return None
        del self._parser  # it holds us, too
        return bytes(data[end:])

    def _line(self) -> None:
        """The head is complete: ask the parser what its first line says."""
        raise NotImplementedError

    # ---- httptools calls these ------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header field."""
        if not self._complete:
            value = value.rstrip(b" \t")
            self._fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The empty line."""
        if not self._complete:
            self._complete = True
            self._line()
