"""A server's opening handshake, from literal bytes: what is accepted, what refused, and how."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gevffi._ws_deflate import Deflate
from gevffi._ws_handshake import Answer, Upgrader
from gevffi._ws_http import Fields, Request, Response
from gevffi._ws_rules import RefuseError

# RFC 6455, section 1.2
REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n"
    b"\r\n"
)
PAGE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def changed(old: bytes, new: bytes, request: bytes = REQUEST) -> bytes:
    """The request with one thing changed."""
    assert request.count(old) == 1, old
    return request.replace(old, new)


def without(name: bytes) -> bytes:
    """The request without a field."""
    start = REQUEST.index(name + b":")
    return REQUEST[:start] + REQUEST[REQUEST.index(b"\r\n", start) + 2 :]


def answer(request: bytes, upgrader: Upgrader | None = None) -> Answer:
    """The answer to a request that comes in one piece."""
    found = (upgrader or Upgrader()).opening("conn").feed(request)
    assert found is not None
    return found


def status(found: Answer) -> int:
    """The status of an answer, which is well made."""
    head, _, body = found.data.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    version, code, _ = first.split(" ", 2)
    assert version == "HTTP/1.1"
    assert found.accepted == (code == "101")
    if not found.accepted:
        values = dict(field.split(": ", 1) for field in fields)
        assert int(values["Content-Length"]) == len(body)
        assert "close" in values["Connection"].split(", ")
        assert found.rest == b""
        if code == "426":
            assert values["Sec-WebSocket-Version"] == "13"
            assert values["Upgrade"] == "websocket"
        if code == "405":
            assert values["Allow"] == "GET"
    return int(code)


def test_the_example_of_the_rfc() -> None:
    found = answer(REQUEST, Upgrader(subprotocols=["chat"]))
    assert found.data == RESPONSE
    assert found.accepted
    assert found.subprotocol == "chat"
    assert found.deflate is None
    assert found.rest == b""
    request = found.request
    assert request is not None
    assert (request.method, request.path, request.query) == ("GET", "/chat", "")
    assert (request.host, request.origin) == ("server.example.com", "http://example.com")
    assert request.subprotocols == ("chat", "superchat")


def test_split_at_every_byte() -> None:
    stream = REQUEST + b"\x81\x80"
    whole = answer(stream, Upgrader(subprotocols=["chat"]))
    assert whole.rest == b"\x81\x80"
    for place in range(1, len(stream)):
        opening = Upgrader(subprotocols=["chat"]).opening()
        found = opening.feed(stream[:place])
        if place < len(REQUEST):
            assert found is None
            found = opening.feed(memoryview(stream)[place:])
            assert found is not None
            assert found.rest == b"\x81\x80"
        else:
            assert found is not None
            assert found.rest == stream[len(REQUEST) : place]
        assert found.data == RESPONSE


def test_byte_by_byte() -> None:
    opening = Upgrader(subprotocols=["chat"]).opening()
    for i in range(len(REQUEST) - 1):
        assert opening.feed(REQUEST[i : i + 1]) is None
    found = opening.feed(REQUEST[-1:])
    assert found is not None
    assert found.data == RESPONSE


@pytest.mark.parametrize(
    "request_",
    [
        changed(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
        changed(b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: ,upgrade,"),
        changed(b"Upgrade: websocket", b"Upgrade: h2c, WebSocket"),
        changed(b"Upgrade: websocket", b"UPGRADE:websocket  "),
        changed(b"Host: server.example.com", b"host: [::1]:8080"),
        changed(b"GET /chat", b"GET http://server.example.com/chat"),
        changed(b"GET /chat", b"GET /chat?a=1&b=2"),
        changed(b"Origin: http://example.com", b"X-Empty:"),
        changed(b"Origin: http://example.com", b"Cookie: a=\xff\xfe"),
        changed(b"Origin: http://example.com", b"Content-Length: 0"),
        changed(b"Origin: http://example.com", b"Sec-WebSocket-Extensions: x; y=1; z, w"),
        changed(b"Sec-WebSocket-Protocol: chat, superchat", b"Sec-WebSocket-Protocol: , a ,b"),
        without(b"Origin"),
        without(b"Sec-WebSocket-Protocol"),
        b"\r\n" + REQUEST,
    ],
)
def test_what_is_accepted(request_: bytes) -> None:
    assert status(answer(request_, Upgrader(path="/chat"))) == 101


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        # no HTTP
        (400, b"\x16\x03\x01\x02\x00"),
        (400, b"SSH-2.0-OpenSSH_9.2\r\n"),
        (400, b"HTTP/1.1 200 OK\r\n\r\n"),
        (400, b"get / HTTP/1.1\r\n"),
        (400, b"GET / \r\n"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, changed(b"Host: ", b"Host : ")),
        (400, changed(b"Host: ", b"Ho\x00st: ")),
        (400, changed(b"Host: ", b": ")),
        (400, changed(b"Origin: http", b"Origin: \x01http")),
        (400, changed(b"Origin: http", b"Origin: \r\n http")),
        (400, changed(b"Origin: http://example.com\r\n", b"Origin: http://example.com\n")),
        (400, changed(b"Origin: http://example.com", b"X: a\rb")),
        (400, changed(b" /chat ", b" /ch at ")),
        (400, changed(b" /chat ", b" /ch\xffat ")),
        # no HTTP for us
        (400, changed(b"HTTP/1.1", b"HTTP/1.0")),
        (400, changed(b"HTTP/1.1", b"HTTP/2.0")),
        (400, changed(b" /chat ", b" * ")),
        (400, changed(b" /chat ", b" http:// ")),
        (400, changed(b" /chat ", b" ftp://a/ ")),
        (400, without(b"Host")),
        (400, changed(b"Host: server.example.com", b"Host: a\r\nHost: b")),
        (400, changed(b"Host: server.example.com", b"Host: a\r\nHost: a")),
        (400, changed(b"Host: server.example.com", b"Host:")),
        (400, changed(b"Host: server.example.com", b"Host: a/b")),
        (400, changed(b"Host: server.example.com", b"Host: a@b")),
        (400, changed(b"Host: server.example.com", b"Host: a:port")),
        (405, changed(b"GET", b"POST")),
        (405, changed(b"GET", b"HEAD")),
        (405, changed(b"GET /chat", b"CONNECT a:80")),
        # no handshake
        (426, PAGE),
        (426, without(b"Upgrade")),
        (426, changed(b"Upgrade: websocket", b"Upgrade: h2c")),
        (426, changed(b"Upgrade: websocket", b"Upgrade: websocket2")),
        (426, without(b"Sec-WebSocket-Version")),
        (426, changed(b"Version: 13", b"Version: 8")),
        (426, changed(b"Version: 13", b"Version: 13, 8")),
        (426, changed(b"Version: 13", b"Version: 13\r\nSec-WebSocket-Version: 13")),
        # no good handshake
        (400, without(b"Connection")),
        (400, changed(b"Connection: Upgrade", b"Connection: keep-alive")),
        (400, changed(b"Connection: Upgrade", b"Connection: Upgrade-Insecure")),
        (400, without(b"Sec-WebSocket-Key")),
        (400, changed(b"dGhlIHNhbXBsZSBub25jZQ==", b"")),
        (400, changed(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ")),
        (400, changed(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZTE=")),
        (400, changed(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25!ZQ==")),
        (400, changed(b"dGhlIHNhbXBsZSBub25jZQ==", b"\xe4Ghl\xe4HNhbXBsZSBub25jZQ==")),
        (
            400,
            changed(b"ZQ==\r\n", b"ZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        ),
        (400, changed(b"Origin: http://example.com", b"Origin: http://a\r\nOrigin: http://b")),
        (400, changed(b"chat, superchat", b"chat, super chat")),
        (400, changed(b"chat, superchat", b"chat, chat")),
        (400, changed(b"chat, superchat", b'"chat"')),
        (400, changed(b"Origin: http://example.com", b"Content-Length: 5")),
        (400, changed(b"Origin: http://example.com", b"Transfer-Encoding: chunked")),
        (400, changed(b"Origin: http://example.com", b"Sec-WebSocket-Extensions: a b")),
        (400, changed(b"Origin: http://example.com", b"Sec-WebSocket-Extensions: a;")),
        (400, changed(b"Origin: http://example.com", b"Sec-WebSocket-Extensions: a; b=")),
        (400, changed(b"Origin: http://example.com", b'Sec-WebSocket-Extensions: a; b="c d"')),
        # not wanted
        (404, changed(b" /chat ", b" /chat/ ")),
        (404, changed(b" /chat ", b" /Chat ")),
        (404, changed(b" /chat ", b" http://server.example.com ")),
        (403, changed(b"Origin: http://example.com", b"Origin: http://example.org")),
        (403, changed(b"Origin: http://example.com", b"Origin: null")),
        (403, without(b"Origin")),
    ],
)
def test_what_is_refused(code: int, request_: bytes) -> None:
    path = "/" if request_ == PAGE else "/chat"
    upgrader = Upgrader(path=path, origins=["http://example.com"])
    assert status(answer(request_, upgrader)) == code
    # The same in small pieces, as far as it takes.
    opening = upgrader.opening()
    for i in range(len(request_)):
        found = opening.feed(request_[i : i + 1])
        if found is not None:
            assert status(found) == code
            return
    pytest.fail("never answered")


@given(st.binary(max_size=200), st.integers(0, len(REQUEST)), st.integers(0, 20))
def test_damage_is_answered_or_waited_for(noise: bytes, start: int, size: int) -> None:
    """No exception but those of hooks, and nothing that is not HTTP."""
    found = Upgrader().opening().feed(REQUEST[:start] + noise + REQUEST[start + size :])
    assert found is None or status(found) in {101, 400, 405, 426}


def test_a_request_is_no_longer_than_the_limit() -> None:
    upgrader = Upgrader(max_header_size=len(REQUEST))
    assert status(answer(REQUEST + b"\x81\x80", upgrader)) == 101
    upgrader = Upgrader(max_header_size=len(REQUEST) - 1)
    assert status(answer(REQUEST, upgrader)) == 431
    opening = upgrader.opening()
    for i in range(len(REQUEST) - 2):
        assert opening.feed(REQUEST[i : i + 1]) is None
    found = opening.feed(REQUEST[-2:-1])
    assert found is not None
    assert status(found) == 431
    endless = b"GET /" + b"a" * 20000
    assert status(answer(endless)) == 431
    assert status(answer(changed(b"Origin: ", b"X: " + b"a" * 20000 + b"\r\nOrigin: "))) == 431


def test_only_the_first_request_counts() -> None:
    found = answer(PAGE + b"POST /x HTTP/1.1\r\nHost: b\r\n\r\n")
    assert found.request is not None
    assert (found.request.method, found.request.path, found.request.host) == ("GET", "/", "a")
    assert status(answer(PAGE + b"\x00\x01")) == 426


def test_origins() -> None:
    upgrader = Upgrader(origins=["HTTP://Example.com", None])
    assert status(answer(REQUEST, upgrader)) == 101
    assert status(answer(without(b"Origin"), upgrader)) == 101
    assert (
        status(answer(changed(b"http://example.com", b"http://example.com.evil"), upgrader)) == 403
    )


@pytest.mark.parametrize(
    ("ours", "chosen"),
    [((), None), (("superchat", "chat"), "superchat"), (("other",), None), (("Chat",), None)],
)
def test_subprotocols(ours: tuple[str, ...], chosen: str | None) -> None:
    found = answer(REQUEST, Upgrader(subprotocols=ours))
    assert found.accepted
    assert found.subprotocol == chosen
    assert (b"Sec-WebSocket-Protocol" in found.data) == (chosen is not None)


def test_compression_is_agreed_on() -> None:
    offer = b"Sec-WebSocket-Extensions: foo, permessage-deflate; client_max_window_bits"
    request = changed(b"Origin: http://example.com", offer)
    found = answer(request, Upgrader(deflate=Deflate()))
    assert found.deflate is not None
    line = (
        b"Sec-WebSocket-Extensions: permessage-deflate; "
        b"server_max_window_bits=12; client_max_window_bits=12\r\n"
    )
    assert line in found.data
    plain = answer(request)
    assert plain.deflate is None
    assert b"Sec-WebSocket-Extensions" not in plain.data


class Hooked(Upgrader):
    """Records its hooks; the one called `refusing` says no."""

    def __init__(self, refusing: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.refusing = refusing
        self.calls: list[tuple[Any, ...]] = []

    def _called(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name == self.refusing:
            raise RefuseError(503, "later", {"Retry-After": "5"})

    def on_request(self, conn: Any, request: Request) -> None:
        self._called("request", conn, request.path)

    def on_host(self, conn: Any, host: str) -> None:
        self._called("host", conn, host)

    def on_header(self, conn: Any, name: str, value: str) -> None:
        self._called("header", conn, name, value)

    def choose_subprotocol(self, conn: Any, request: Request) -> str | None:
        self._called("subprotocol", conn)
        return request.subprotocols[-1]

    def before_upgrade(self, conn: Any, request: Request) -> Fields:
        self._called("upgrade", conn)
        return [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]

    def on_http(self, conn: Any, request: Request) -> Response:
        self._called("http", conn, request.path)
        return Response(200, "<p>hello", {"Content-Type": "text/html"})


def test_hooks_are_called_in_their_order() -> None:
    upgrader = Hooked()
    found = answer(REQUEST, upgrader)
    assert found.subprotocol == "superchat"
    assert b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n" in found.data
    names = [call[0] for call in upgrader.calls]
    assert names == ["request", "host", *["header"] * 7, "subprotocol", "upgrade"]
    assert upgrader.calls[:3] == [
        ("request", "conn", "/chat"),
        ("host", "conn", "server.example.com"),
        ("header", "conn", "Host", "server.example.com"),
    ]


@pytest.mark.parametrize("hook", ["request", "host", "header", "subprotocol", "upgrade"])
def test_every_hook_may_refuse(hook: str) -> None:
    upgrader = Hooked(hook)
    found = answer(REQUEST, upgrader)
    assert status(found) == 503
    assert b"\r\nRetry-After: 5\r\n" in found.data
    assert found.data.endswith(b"\r\n\r\nlater")
    assert upgrader.calls[-1][0] == hook


def test_hooks_see_good_handshakes_only() -> None:
    upgrader = Hooked(path="/chat")
    assert status(answer(changed(b"Version: 13", b"Version: 7"), upgrader)) == 426
    assert status(answer(changed(b"/chat", b"/other"), upgrader)) == 404
    assert upgrader.calls == []


def test_a_page_is_served_from_any_path() -> None:
    upgrader = Hooked(path="/chat")
    found = answer(PAGE, upgrader)
    assert status(found) == 200
    assert found.data == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 8\r\n"
        b"Connection: close\r\n\r\n<p>hello"
    )
    assert upgrader.calls == [("http", "conn", "/")]
    assert status(answer(b"GET / HTTP/1.0\r\n\r\n", upgrader)) == 200
    assert status(answer(changed(b"GET", b"POST", PAGE), upgrader)) == 405
    assert status(answer(PAGE, Hooked("http"))) == 503


def test_a_hook_of_no_sense_is_an_error_of_ours() -> None:
    class Wrong(Upgrader):
        field = ("X", "a")
        chosen: str | None = None

        def choose_subprotocol(self, conn: Any, request: Request) -> str | None:
            return self.chosen

        def before_upgrade(self, conn: Any, request: Request) -> Fields:
            return dict([self.field])

    upgrader = Wrong()
    assert status(answer(REQUEST, upgrader)) == 101
    for field in [
        ("X", "a\r\nY: b"),
        ("X\r\nY", "b"),
        ("", "b"),
        ("upgrade", "b"),
        ("X", "\u20ac"),
    ]:
        upgrader.field = field
        with pytest.raises(ValueError, match="cannot be the"):
            answer(REQUEST, upgrader)
    upgrader.chosen = "other"
    with pytest.raises(ValueError, match="does not offer the subprotocol 'other'"):
        answer(REQUEST, upgrader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "chat"}, "path must start with a slash, not be 'chat'"),
        ({"origins": "http://a"}, "origins must be a list of strings, not 'http://a'"),
        ({"subprotocols": "chat"}, "subprotocols must be a list of strings, not 'chat'"),
        ({"subprotocols": ["a b"]}, "subprotocols must be tokens of HTTP, not 'a b'"),
        ({"max_header_size": 0}, "max_header_size must be at least 1, not 0"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Upgrader(**options)


def test_headers() -> None:
    found = answer(changed(b"Origin: http://example.com", b"X-A: 1\r\nx-a: 2"))
    assert found.request is not None
    headers = found.request.headers
    assert headers["X-a"] == headers.get("x-A") == "1, 2"
    assert headers.get_all("x-a") == ["1", "2"]
    assert "X-A" in headers
    assert "Origin" not in headers
    assert headers.get("Origin") is None
    assert headers.get("Origin", "none") == "none"
    assert headers.get_all("Origin") == []
    assert len(headers) == 8
    assert list(headers)[4:6] == ["X-A", "x-a"]
    with pytest.raises(KeyError):
        headers["Origin"]
