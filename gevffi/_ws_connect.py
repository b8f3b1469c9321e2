"""A client's half of the opening handshake (RFC 6455, section 4.1), without sockets.

A `ClientOpening` is made for a URL. Its `request` is sent, what comes back is fed to it, and in the
end it says what was agreed on, or raises.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

from gevffi._ws_deflate import Agreement, Deflate
from gevffi._ws_head import Head
from gevffi._ws_http import (
    Fields,
    Headers,
    accept_value,
    check_fields,
    encode_head,
    has_token,
    is_token,
    parse_extensions,
)

_OURS = {
    "host",
    "connection",
    "upgrade",
    "origin",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
}


class HandshakeError(Exception):
    """The server's answer opens no WebSocket.

    Args:
        status, headers: of the answer; None if it was no HTTP.
    """

    def __init__(
        self, message: str, status: int | None = None, headers: Headers | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class Opened(NamedTuple):
    """What was agreed on."""

    headers: Headers  #: of the server's answer
    subprotocol: str | None
    deflate: Agreement | None  #: None: messages are not compressed
    rest: bytes  #: what came behind the answer: the first frames


class Url(NamedTuple):
    """What a ws: URL says (RFC 6455, section 3)."""

    host: str  #: a name or an address, IPv6 without brackets
    port: int
    field: str  #: the same as a Host field, the port only if it is not 80
    target: str  #: path and query


def parse_url(url: str) -> Url:
    """Take a ws: URL apart.

    Raises:
        ValueError: it is another kind of URL, or none.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"url {url!r}: {exc}") from None
    if parts.scheme != "ws":
        raise ValueError(f"url must begin with ws:, not be {url!r} (TLS is for a proxy to add)")
    if not host or port == 0 or parts.username is not None:
        raise ValueError(f"url must have a host, a good port if any, and no user: {url!r}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if "#" in url or not (target + host).isascii() or not (target + host).isprintable():
        raise ValueError(f"url must be percent-encoded, and have no fragment: {url!r}")
    if " " in target or " " in host:
        raise ValueError(f"url must have no blanks: {url!r}")
    field = f"[{host}]" if ":" in host else host
    return Url(host, port or 80, field if port in {None, 80} else f"{field}:{port}", target)


class ClientOpening(Head):
    """The handshake of one connection, from the client's side.

    Args:
        url: "ws://host:port/path?query".
        subprotocols: what we speak, dearest first.
        origin: of the page we stand for, if we stand for one.
        deflate: how messages may be compressed; None: not at all.
        headers: further fields of the request.
        max_header_size: bytes of an answer with all its headers.

    Raises:
        ValueError: an option that cannot be meant.
    """

    __slots__ = (
        "_complete",
        "_deflate",
        "_fields",
        "_key",
        "_parser",
        "_room",
        "_status",
        "_subprotocols",
        "request",
        "url",
    )

    request: bytes  #: to be sent

    def __init__(
        self,
        url: str,
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        deflate: Deflate | None = None,
        headers: Fields = (),
        max_header_size: int = 16 * 1024,
    ) -> None:
        if isinstance(subprotocols, str) or not all(map(is_token, subprotocols)):
            raise ValueError(f"subprotocols must be tokens of HTTP, not {subprotocols!r}")
        if not isinstance(max_header_size, int) or max_header_size < 1:
            raise ValueError(f"max_header_size must be at least 1, not {max_header_size!r}")
        super().__init__(httptools.HttpResponseParser, max_header_size)
        self.url = parse_url(url)
        self._subprotocols = tuple(subprotocols)
        self._deflate = deflate
        self._status = 0
        self._key = base64.b64encode(os.urandom(16)).decode()
        fields = [
            ("Host", self.url.field),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", "13"),
        ]
        if origin is not None:
            fields += check_fields([("Origin", origin)])
        if subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        if deflate is not None:
            fields.append(("Sec-WebSocket-Extensions", deflate.offer))
        fields += check_fields(headers, _OURS)
        self.request = encode_head(f"GET {self.url.target} HTTP/1.1", fields)

    def feed(self, data: bytes | bytearray | memoryview) -> Opened | None:
        """Take what has come from the server.

        Returns:
            None if that is not all of its answer. Otherwise what was agreed on, and then nothing
            more may be fed.

        Raises:
            HandshakeError: it opens no WebSocket; the connection is of no more use.
        """
        try:
            rest = self._parse(data)
        except httptools.HttpParserError as exc:
            raise HandshakeError(f"the server speaks no HTTP: {exc}") from None
        if rest is not None:
            return self._opened(rest)
        if self._room == 0:
            raise HandshakeError("the server's answer is too long")
        return None

    def _line(self) -> None:
        self._status = self._parser.get_status_code()

    def _opened(self, rest: bytes) -> Opened:
        status, headers = self._status, Headers(self._fields)
        try:
            if status != HTTPStatus.SWITCHING_PROTOCOLS:
                raise ValueError(f"the server answers {status}")
            return Opened(headers, self._check(headers), self._agreement(headers), rest)
        except ValueError as exc:
            raise HandshakeError(str(exc), status, headers) from None

    def _check(self, headers: Headers) -> str | None:
        """Section 4.1, the second list; return the subprotocol."""
        if headers.get("Upgrade", "").lower() != "websocket":
            raise ValueError("the server's Upgrade is not websocket")
        if not has_token(headers.get("Connection"), "upgrade"):
            raise ValueError("the server's Connection does not contain upgrade")
        if headers.get("Sec-WebSocket-Accept") != accept_value(self._key):
            raise ValueError("the server's Sec-WebSocket-Accept is not for our key")
        subprotocol = headers.get("Sec-WebSocket-Protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise ValueError(f"the server chose the subprotocol {subprotocol!r}, not offered")
        return subprotocol

    def _agreement(self, headers: Headers) -> Agreement | None:
        extensions = parse_extensions(headers.get("Sec-WebSocket-Extensions"))
        if self._deflate is None:
            if extensions:
                raise ValueError("the server chose an extension that was not offered")
            return None
        return self._deflate.agree(extensions)
