"""A server's half of the opening handshake (RFC 6455, section 4.2), without sockets.

An `Upgrader` is what a server wants: a path, origins, subprotocols, compression, and hooks where
all that is not enough. For each connection it gives an `Opening`, which takes bytes as they come
and in the end answers: a 101 and what was agreed on, or a response that says no, after which the
connection closes.

    bytes ──▶ httptools ──▶ HTTP? ──▶ a handshake? ──▶ do we want it? ──▶ hooks ──▶ 101
                 │            │             │                 │               │
              400, 431     405, 400   on_http, 426, 400    404, 403       theirs to say

The parser is httptools, Python's wrapper of llhttp, the parser of Node.js. It takes 6 µs for what a
browser sends, h11 35 µs (and all of this file 25 to 45). Both are well kept; httptools comes as a
wheel for glibc and musl, x86 and ARM, CPython 3.9 to 3.14, and for the free-threaded 3.14 too,
whose GIL it does not bring back. It is strict: bare line feeds, folded lines, a blank before the
colon and control characters are errors. What it leaves to us is to stop after the first header
block, and to bound it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import httptools

from gevffi._ws_deflate import Agreement, Deflate
from gevffi._ws_head import Head
from gevffi._ws_http import (
    Fields,
    Headers,
    Request,
    Response,
    accept_value,
    check_fields,
    encode_head,
    has_token,
    is_token,
)
from gevffi._ws_rules import RefuseError, check_handshake, check_http

_OURS = {
    "connection",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
}


class Answer(NamedTuple):
    """How a handshake ended."""

    data: bytes  #: to be sent
    accepted: bool  #: if not, the connection is to be closed when `data` is sent
    request: Request | None  #: None if what came was not one
    subprotocol: str | None = None
    deflate: Agreement | None = None  #: None: messages are not compressed
    rest: bytes = b""  #: what came behind the request: the first frames


class Upgrader:
    """What a server accepts, and its hooks (gev: Upgrader).

    One object serves all connections. The hooks do nothing unless a subclass says otherwise; they
    run on the thread of the connection's loop, in the order they stand here, and any of them may
    raise `RefuseError`.

    Args:
        path: the only path there is, percent-encoded; any other is a 404. None: all are good.
        origins: whose pages may connect, such as "https://example.com"; others get a 403. None in
            it stands for clients that are no browsers and send no origin. None instead of it: all
            are good.
        subprotocols: what the server speaks, dearest first.
        deflate: how messages may be compressed; None: not at all.
        max_header_size: bytes of a request with all its headers; more is a 431.

    Raises:
        ValueError: an option that cannot be meant.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        origins: Sequence[str | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: Deflate | None = None,
        max_header_size: int = 16 * 1024,
    ) -> None:
        if path is not None and not (isinstance(path, str) and path.startswith("/")):
            raise ValueError(f"path must start with a slash, not be {path!r}")
        for name, value in (("origins", origins), ("subprotocols", subprotocols)):
            if isinstance(value, str):
                raise ValueError(f"{name} must be a list of strings, not {value!r}")
        for subprotocol in subprotocols:
            if not is_token(subprotocol):
                raise ValueError(f"subprotocols must be tokens of HTTP, not {subprotocol!r}")
        if not isinstance(max_header_size, int) or max_header_size < 1:
            raise ValueError(f"max_header_size must be at least 1, not {max_header_size!r}")
        self.path = path
        self.origins = None if origins is None else {_lower(origin) for origin in origins}
        self.subprotocols = tuple(subprotocols)
        self.deflate = deflate
        self.max_header_size = max_header_size

    def on_http(self, conn: Any, request: Request) -> Response | None:
        """Answer a GET that asks for no WebSocket: with a page, say.

        The path has not been looked at. None, the default, is a 404 or a 426.
        """

    def on_request(self, conn: Any, request: Request) -> None:
        """Look at the request as a whole; it is a good handshake (gev: OnRequest)."""

    def on_host(self, conn: Any, host: str) -> None:
        """Look at the Host field (gev: OnHost)."""

    def on_header(self, conn: Any, name: str, value: str) -> None:
        """Look at a header field; called for each (gev: OnHeader)."""

    def choose_subprotocol(self, conn: Any, request: Request) -> str | None:
        """Choose from `request.subprotocols`, or None for none (gev: Protocol).

        The default is the first of `subprotocols` that the client offers.
        """
        offered = request.subprotocols
        return next((name for name in self.subprotocols if name in offered), None)

    def before_upgrade(self, conn: Any, request: Request) -> Fields | None:
        """Return further header fields for the response (gev: OnBeforeUpgrade)."""

    def opening(self, conn: Any = None) -> Opening:
        """Begin with a new connection.

        Args:
            conn: what the hooks get.
        """
        return Opening(self, conn)


class Opening(Head):
    """The handshake of one connection; made by `Upgrader.opening`."""

    __slots__ = ("_conn", "_method", "_target", "_upgrader", "_version")

    def __init__(self, upgrader: Upgrader, conn: Any) -> None:
        super().__init__(httptools.HttpRequestParser, upgrader.max_header_size)
        self._upgrader = upgrader
        self._conn = conn
        self._target = b""
        self._method = self._version = ""

    @property
    def begun(self) -> bool:
        """Whether something has come from the client."""
        return self._room < self._upgrader.max_header_size

    def feed(self, data: bytes | bytearray | memoryview) -> Answer | None:
        """Take what has come from the client.

        Returns:
            None if that is not all of the request. Otherwise the answer, and then nothing more may
            be fed.

        Raises:
            Exception: what a hook raised, but for `RefuseError`; a 500 would be the answer.
        """
        try:
            rest = self._parse(data)
        except httptools.HttpParserError as exc:
            return Answer(Response(400, f"{exc}\n").encode(), False, None)
        if rest is not None:
            return self._answer(rest)
        if self._room == 0:
            most = self._upgrader.max_header_size
            return Answer(Response(431, f"more than {most} bytes\n").encode(), False, None)
        return None

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target; httptools calls this."""
        if not self._complete:
            self._target += url

    def _line(self) -> None:
        self._method = self._parser.get_method().decode()
        self._version = self._parser.get_http_version()

    def _answer(self, rest: bytes) -> Answer:
        target = self._target.decode("latin-1")
        request = Request(self._method, target, self._version, Headers(self._fields))
        try:
            check_http(request)
            if not has_token(request.headers.get("Upgrade"), "websocket"):
                response = self._upgrader.on_http(self._conn, request)
                if response is not None:
                    return Answer(response.encode(), False, request)
            return self._accept(request, rest)
        except RefuseError as refusal:
            return Answer(refusal.response.encode(), False, request)

    def _accept(self, request: Request, rest: bytes) -> Answer:
        upgrader, conn = self._upgrader, self._conn
        if upgrader.path is not None and request.path != upgrader.path:
            raise RefuseError(404)
        key = check_handshake(request)
        if upgrader.origins is not None and _lower(request.origin) not in upgrader.origins:
            raise RefuseError(403, "this origin may not connect\n")
        upgrader.on_request(conn, request)
        upgrader.on_host(conn, request.host)
        for name, value in request.headers.items():
            upgrader.on_header(conn, name, value)
        subprotocol = upgrader.choose_subprotocol(conn, request)
        if subprotocol is not None and subprotocol not in request.subprotocols:
            raise ValueError(f"the client does not offer the subprotocol {subprotocol!r}")
        further = check_fields(upgrader.before_upgrade(conn, request) or (), _OURS)

        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_value(key)),
        ]
        if subprotocol is not None:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        agreement = None
        if upgrader.deflate is not None:
            agreement = upgrader.deflate.accept(request.extensions)
            if agreement is not None:
                fields.append(("Sec-WebSocket-Extensions", agreement.response))
        head = encode_head("HTTP/1.1 101 Switching Protocols", [*fields, *further])
        return Answer(head, True, request, subprotocol, agreement, rest)


def _lower(origin: str | None) -> str | None:
    return origin and origin.lower()
