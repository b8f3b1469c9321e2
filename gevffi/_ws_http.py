"""The little of HTTP that a WebSocket handshake needs: header fields, their grammar, a response.

What cuts the bytes into header fields is a parser that others keep well (`_ws_handshake` says
which); this is about what the fields mean. Names are compared without regard to case, and a name
may come more than once. Bytes outside ASCII are kept as Latin-1, which loses none (RFC 9110,
section 5.5).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import overload

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields to send: a mapping, or pairs of name and value."""

Parameters = list[tuple[str, str | None]]
"""Of an extension: names, and values where they have one."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_ESCAPE = re.compile(r"\\(.)")


def accept_value(key: str) -> str:
    """What proves that a server has read the client's key (RFC 6455, section 4.2.2, 5.4)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID).digest()).decode()


class Headers:
    """The header fields of a request or a response, in their order. Read-only.

    `headers[name]` joins the values of a name that came more than once with a comma, which means
    the same (RFC 9110, section 5.2); a name that did not come is a `KeyError`.
    """

    __slots__ = ("_pairs", "_values")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = list(pairs)
        self._values: dict[str, list[str]] = {}
        for name, value in self._pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    @overload
    def get(self, name: str, default: str) -> str: ...
    @overload
    def get(self, name: str, default: None = None) -> str | None: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """Return what `headers[name]` does, or `default`."""
        values = self._values.get(name.lower())
        return default if values is None else ", ".join(values)

    def get_all(self, name: str) -> list[str]:
        """Return the values of all fields of that name, in their order."""
        return list(self._values.get(name.lower(), ()))

    def items(self) -> Iterator[tuple[str, str]]:
        """All fields, names as they were written."""
        return iter(self._pairs)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"Headers({self._pairs!r})"


class Request:
    """What a client asked for."""

    __slots__ = (
        "extensions",
        "headers",
        "host",
        "method",
        "path",
        "query",
        "subprotocols",
        "version",
    )

    def __init__(self, method: str, target: str, version: str, headers: Headers) -> None:
        path, _, query = target.partition("?")
        self.method = method
        self.path = path
        """As it was sent: percent-encoded, without the query."""
        self.query = query
        """What follows the first "?"; "" if nothing does."""
        self.version = version
        """Of HTTP: "1.1"."""
        self.headers = headers
        self.host = headers.get("Host", "")
        """The Host field, with the port if there is one."""
        self.subprotocols: tuple[str, ...] = ()
        """What the client offers, dearest first."""
        self.extensions: list[tuple[str, Parameters]] = []
        """The same."""

    @property
    def origin(self) -> str | None:
        """The Origin field, which browsers always send."""
        return self.headers.get("Origin")

    def __repr__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"<Request {self.method} {self.path}{query}>"


class Response:
    """An answer to a request that does not become a WebSocket. The connection closes after it.

    Args:
        status: of HTTP.
        body: text goes as UTF-8; None for one line that names the status.
        headers: further fields; Content-Type is plain text unless it is among them.

    Raises:
        ValueError: no such status, or a field that HTTP does not have.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: str | bytes | None = None, headers: Fields = ()) -> None:
        self.status = HTTPStatus(status)
        if body is None:
            body = f"{self.status.value} {self.status.phrase}\n"
        self.body = body.encode() if isinstance(body, str) else bytes(body)
        self.headers = check_fields(headers)

    def encode(self) -> bytes:
        """Return the response as it is sent."""
        given = {name.lower() for name, _ in self.headers}
        fields = [*self.headers, ("Content-Length", str(len(self.body)))]
        if "content-type" not in given:
            fields.append(("Content-Type", "text/plain; charset=utf-8"))
        if "connection" not in given:
            fields.append(("Connection", "close"))
        return encode_head(f"HTTP/1.1 {self.status.value} {self.status.phrase}", fields) + self.body


def encode_head(first: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return a start line, the fields, and the empty line after them."""
    lines = [first, *(f"{name}: {value}" for name, value in fields), "\r\n"]
    return "\r\n".join(lines).encode("latin-1")


def check_fields(fields: Fields, forbidden: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return `fields` as pairs.

    Raises:
        ValueError: a name or a value that HTTP does not have, or a name in `forbidden`.
    """
    pairs = list(fields.items() if isinstance(fields, Mapping) else fields)
    for name, value in pairs:
        if not is_token(name) or name.lower() in forbidden:
            raise ValueError(f"{name!r} cannot be the name of a further header field")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{value!r} cannot be the value of header field {name}")
    return pairs


def is_token(text: str) -> bool:
    """Whether `text` is a token (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def split_list(value: str | None) -> list[str]:
    """The elements of a comma-separated list; empty ones do not count (RFC 9110, 5.6.1.2)."""
    return [item for part in (value or "").split(",") if (item := part.strip(" \t"))]


def has_token(value: str | None, token: str) -> bool:
    """Whether `token`, in lower case, is in the list `value`."""
    return token in split_list(value and value.lower())


def parse_subprotocols(value: str | None) -> tuple[str, ...]:
    """Read Sec-WebSocket-Protocol (RFC 6455, sections 4.1 and 11.3.4).

    Raises:
        ValueError: an element is not a token, or comes twice.
    """
    found = tuple(split_list(value))
    if not all(map(is_token, found)) or len(set(found)) != len(found):
        raise ValueError("Sec-WebSocket-Protocol is malformed")
    return found


def parse_extensions(value: str | None) -> list[tuple[str, Parameters]]:
    """Read Sec-WebSocket-Extensions (RFC 6455, section 9.1).

    A quoted value must be a token too, so that no comma or semicolon hides in one.

    Raises:
        ValueError: it is not of that grammar.
    """
    found = []
    for element in split_list(value):
        name, *parameters = (part.strip(" \t") for part in element.split(";"))
        found.append((name, [_parse_parameter(parameter) for parameter in parameters]))
        if not is_token(name):
            raise ValueError("Sec-WebSocket-Extensions is malformed")
    return found


def _parse_parameter(parameter: str) -> tuple[str, str | None]:
    name, equals, value = (part.strip(" \t") for part in parameter.partition("="))
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _ESCAPE.sub(r"\1", value[1:-1])
    if not is_token(name) or (equals and not is_token(value)):
        raise ValueError("Sec-WebSocket-Extensions is malformed")
    return name, value if equals else None


def format_extension(name: str, parameters: Parameters) -> str:
    """Write one extension the way `parse_extensions` reads it."""
    written = (key if value is None else f"{key}={value}" for key, value in parameters)
    return "; ".join([name, *written])
