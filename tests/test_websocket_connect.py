"""A client's opening handshake, from literal bytes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gevffi._ws_connect import ClientOpening, HandshakeError, Opened, parse_url
from gevffi._ws_deflate import Deflate
from gevffi._ws_http import accept_value

# RFC 6455, section 1.2
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n"
    b"\r\n"
)
URL = "ws://server.example.com/chat"


@pytest.fixture(autouse=True)
def _the_key_of_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce"[:size])


def opening(**options: Any) -> ClientOpening:
    return ClientOpening(URL, subprotocols=["chat", "superchat"], **options)


def opened(response: bytes, **options: Any) -> Opened:
    found = opening(**options).feed(response)
    assert found is not None
    return found


def changed(old: bytes, new: bytes) -> bytes:
    assert RESPONSE.count(old) == 1, old
    return RESPONSE.replace(old, new)


def extended(extension: bytes) -> bytes:
    return changed(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: " + extension + b"\r\n\r\n")


def test_the_example_of_the_rfc() -> None:
    client = opening(origin="http://example.com", headers={"Cookie": "a=1"})
    assert client.request == (
        b"GET /chat HTTP/1.1\r\n"
        b"Host: server.example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Origin: http://example.com\r\n"
        b"Sec-WebSocket-Protocol: chat, superchat\r\n"
        b"Cookie: a=1\r\n"
        b"\r\n"
    )
    found = client.feed(RESPONSE + b"\x81\x00")
    assert found is not None
    assert found.subprotocol == "chat"
    assert found.deflate is None
    assert found.rest == b"\x81\x00"
    assert found.headers["upgrade"] == "websocket"
    assert accept_value(KEY.decode()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_split_at_every_byte() -> None:
    for place in range(1, len(RESPONSE)):
        client = opening()
        assert client.feed(RESPONSE[:place]) is None
        found = client.feed(memoryview(RESPONSE + b"\x81")[place:])
        assert found is not None
        assert found.rest == b"\x81"


@pytest.mark.parametrize(
    "response",
    [
        changed(b"Upgrade: websocket", b"upgrade: WebSocket"),
        changed(b"Connection: Upgrade", b"Connection: keep-alive, upgrade"),
        changed(b"Sec-WebSocket-Protocol: chat\r\n", b""),
        changed(b" Switching Protocols", b" Whatever"),
    ],
)
def test_what_is_accepted(response: bytes) -> None:
    opened(response)


@pytest.mark.parametrize(
    ("message", "response"),
    [
        ("the server speaks no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("the server speaks no HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("the server answers 404", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("the server answers 200", RESPONSE.replace(b"101", b"200")),
        (
            "the server answers 426",
            b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n" + RESPONSE,
        ),
        ("Upgrade is not websocket", changed(b"Upgrade: websocket\r\n", b"")),
        ("Upgrade is not websocket", changed(b"Upgrade: websocket", b"Upgrade: h2c")),
        ("Connection does not contain upgrade", changed(b"Connection: Upgrade\r\n", b"")),
        ("Connection does not contain upgrade", changed(b"n: Upgrade", b"n: keep-alive")),
        ("Accept is not for our key", changed(b"s3pP", b"S3PP")),
        ("Accept is not for our key", re.sub(rb"Sec-WebSocket-Accept.*?\n", b"", RESPONSE)),
        ("subprotocol 'other', not offered", changed(b"l: chat", b"l: other")),
        ("subprotocol 'chat, superchat'", changed(b"l: chat", b"l: chat, superchat")),
        ("extension that was not offered", extended(b"permessage-deflate")),
        ("Sec-WebSocket-Extensions is malformed", extended(b"a b")),
    ],
)
def test_what_is_refused(message: str, response: bytes) -> None:
    with pytest.raises(HandshakeError, match=message) as caught:
        opened(response)
    if b"HTTP/1.1 1" in response[:10] or b"HTTP/1.1 4" in response[:10]:
        assert caught.value.status == int(response[9:12])
        assert caught.value.headers is not None


def test_an_answer_is_no_longer_than_the_limit() -> None:
    assert opened(RESPONSE + b"\x81", max_header_size=len(RESPONSE)).rest == b"\x81"
    with pytest.raises(HandshakeError, match="the server's answer is too long"):
        opened(RESPONSE, max_header_size=len(RESPONSE) - 1)


def test_compression_is_agreed_on() -> None:
    deflate = Deflate()
    client = opening(deflate=deflate)
    offer = b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    assert b"\r\nSec-WebSocket-Extensions: " + offer + b"\r\n" in client.request
    found = client.feed(extended(b"permessage-deflate; server_max_window_bits=10"))
    assert found is not None
    assert found.deflate is not None
    assert (found.deflate.server_bits, found.deflate.client_bits) == (10, 12)
    assert opened(RESPONSE, deflate=deflate).deflate is None
    for wrong in (b"permessage-foo", offer + b", permessage-deflate", offer + b"; x"):
        with pytest.raises(HandshakeError, match=r"not offered|malformed"):
            opened(extended(wrong), deflate=deflate)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("ws://a", ("a", 80, "a", "/")),
        ("WS://A.b:80/c?d=e", ("a.b", 80, "a.b", "/c?d=e")),
        ("ws://127.0.0.1:9001?q", ("127.0.0.1", 9001, "127.0.0.1:9001", "/?q")),
        ("ws://[::1]:9001/%20", ("::1", 9001, "[::1]:9001", "/%20")),
        ("ws://[::1]/", ("::1", 80, "[::1]", "/")),
    ],
)
def test_urls(url: str, parts: tuple[str, int, str, str]) -> None:
    assert parse_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        *("wss://a", "http://a", "a", "", "ws://", "ws:///a", "ws://a:0", "ws://a:99999"),
        *("ws://a:b", "ws://u:p@a", "ws://a/#x", "ws://a/#", "ws://a/ b", "ws://a/\xe4"),
        *("ws://[::1", "ws://a b/", "ws://\xe4/", "ws://a/\x00"),
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        parse_url(url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subprotocols": "chat"}, "subprotocols must be tokens"),
        ({"subprotocols": ["a b"]}, "subprotocols must be tokens"),
        ({"max_header_size": 0}, "max_header_size must be at least 1"),
        ({"headers": {"Host": "b"}}, "'Host' cannot be the name"),
        ({"headers": [("X", "a\r\nb")]}, "cannot be the value of header field X"),
        ({"origin": "a\r\nb"}, "cannot be the value of header field Origin"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClientOpening(URL, **options)
