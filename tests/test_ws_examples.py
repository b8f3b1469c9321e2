"""The WebSocket examples without a browser: what they serve, whom they let in, what they say."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import re
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import PATIENCE, connect, on_loop, receive_all, receive_exactly
from running_examples import EXAMPLES, Example, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync import client
from ws_helpers import REQUEST, RESPONSE, frame

from gevffi import ws

NAMES = ("echo", "chat", "dashboard")
OUR_REQUEST = REQUEST.replace(b"/chat?room=1", b"/ws").replace(b"server.example.com", b"[::1]:80")


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("ws_chat")


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("ws_dashboard")


def open_at(place: Any, path: str = "/ws", **options: Any) -> client.ClientConnection:
    """A WebSocket to an example."""
    host, port = (place.host, place.port) if isinstance(place, Example) else place.address
    socket: client.ClientConnection = client.connect(f"ws://{host}:{port}{path}", **options)
    return socket


def hear(socket: client.ClientConnection) -> dict[str, Any]:
    """The next message, which is JSON."""
    found: dict[str, Any] = json.loads(socket.recv(PATIENCE))
    return found


def hear_all(socket: client.ClientConnection) -> tuple[int, str]:
    """Read to the end; return the code and reason that the server closes with."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            socket.recv(PATIENCE)
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


def brief(event: dict[str, Any]) -> list[Any]:
    """An event of the chat without its time."""
    return [value for name, value in event.items() if name != "at"]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_needs_nothing_else_and_may_nothing_else(name: str) -> None:
    with running(f"ws_{name}.py") as example:

        def get(path: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection(example.host, example.port, PATIENCE)
            connection.request("GET", path)
            response = connection.getresponse()
            connection.close()
            return response

        page = get("/")
        html = page.read().decode()
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        addresses = set(re.findall(r"\w+://[\w.]+|\b(?:src|href)=\"(?!data:)", html))
        assert addresses == {"http://www.w3.org"}  # the name of SVG
        assert "innerHTML" not in html
        assert get("/nothing").status in (404, 426)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (101, b"Host: 127.0.0.1:9001"),
        (101, b"Host: LOCALHOST"),
        (101, b"Host: [::1]:9001\r\nOrigin: http://[::1]:9001"),
        (101, b"Host: 192.0.2.1\r\nOrigin: https://192.0.2.1"),
        (403, b"Host: 127.0.0.1:9001\r\nOrigin: http://127.0.0.1:9002"),
        (403, b"Host: 127.0.0.1:9001\r\nOrigin: http://127.0.0.1"),
        (403, b"Host: 127.0.0.1:9001\r\nOrigin: http://example.com"),
        (403, b"Host: 127.0.0.1:9001\r\nOrigin: http://["),
        (403, b"Host: 127.0.0.1:9001\r\nOrigin: null"),
        (403, b"Host: 127.0.0.1:9001\r\nOrigin:"),
        (403, b"Host: example.com\r\nOrigin: http://example.com"),
        (403, b"Host: 127.0.0.1.example.com:9001"),
    ],
)
def test_only_its_own_page_may_connect(chat: Any, status: int, line: bytes) -> None:
    with chat.make_server("127.0.0.1:0").running() as server, connect(server) as sock:
        sock.sendall(OUR_REQUEST.replace(b"Host: [::1]:80", line))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 %d " % status)


def test_echo() -> None:
    with running("ws_echo.py") as example, open_at(example) as socket:
        for message in ("text", b"bytes", "", "x" * (1 << 20)):
            socket.send(message)
            assert socket.recv(PATIENCE) == message
        socket.send("x" * ((1 << 20) + 1))
        assert hear_all(socket)[0] == 1009


def test_chat() -> None:
    with running("ws_chat.py") as example, contextlib.ExitStack() as stack:
        anna, bert, carl = (stack.enter_context(open_at(example)) for _ in range(3))
        anna.send(" Anna ")
        assert brief(hear(anna)) == ["welcome", "Anna", ["Anna"], []]
        for name in ("", " ", "x" * 21, "line\nend", "\u202eAnna", "anna", "\uff21nna"):
            bert.send(name)
            assert hear(bert)["kind"] == "refused", name
        bert.send("x" * 20)
        assert brief(hear(bert)) == ["welcome", "x" * 20, ["Anna", "x" * 20], []]
        assert brief(hear(anna)) == ["joined", "x" * 20]
        for text in ("<script>", "", "\u202e\n\u0000 é"):
            anna.send(text)
            for socket in (anna, bert):
                assert brief(hear(socket)) == ["said", "Anna", text]
        bert.send("€" * 1000)
        assert hear(anna)["text"] == "€" * 1000
        bert.send("x" * 3001)
        assert hear_all(bert)[0] == 1009
        assert brief(hear(anna)) == ["left", "x" * 20]
        carl.send("Carl")
        welcome = hear(carl)
        assert welcome["here"] == ["Anna", "Carl"]
        said = [event["text"] for event in welcome["said"]]
        assert said == ["<script>", "", "\u202e\n\u0000 é", "€" * 1000]
        assert hear(anna)["kind"] == "joined"
        carl.send(b"Carl")
        assert hear_all(carl) == (1003, "text only, please")
        assert brief(hear(anna)) == ["left", "Carl"]


@contextlib.contextmanager
def not_reading(server: ws.Server, first: bytes) -> Iterator[socket.socket]:
    """A member that has sent its first message, and takes little from the kernel."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect((server.address.host, server.address.port))
        sock.sendall(OUR_REQUEST + frame(0x81, first))
        assert receive_exactly(sock, len(RESPONSE)) == RESPONSE
        yield sock


def test_a_slow_member_is_closed_and_nobody_else_notices(chat: Any) -> None:
    with (
        chat.make_server("127.0.0.1:0", rate=1e9).running() as server,
        open_at(server) as anna,
        not_reading(server, b"Slow") as slow,
        open_at(server) as bert,
    ):
        for name, socket in (("Anna", anna), ("Bert", bert)):
            socket.send(name)
            while brief(hear(socket))[0] != "welcome":
                pass
        text = "x" * 3000
        event: dict[str, Any] = {}
        for _ in range(10_000):  # the kernel takes some for him, but not so much
            anna.send(text)
            for socket in (anna, bert):
                while (event := hear(socket))["kind"] == "joined":
                    pass
                if event["kind"] == "said":
                    assert event["text"] == text
            if event["kind"] == "left":
                break
        assert brief(event) == ["left", "Slow"]
        with contextlib.suppress(ConnectionResetError):
            receive_all(slow)


def test_who_writes_too_much_is_read_more_slowly(
    chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = []
    pause = ws.Connection.pause_reading

    def pause_reading(conn: ws.Connection) -> None:
        paused.append(conn)
        pause(conn)

    monkeypatch.setattr(ws.Connection, "pause_reading", pause_reading)
    # A clock that stands still: on a busy machine time that goes by pays for some of the messages.
    monkeypatch.setattr(chat, "time", SimpleNamespace(monotonic=lambda: 0.0, time=time.time))
    monkeypatch.setattr(chat, "BURST", 0.0105)  # ten messages
    with chat.make_server("127.0.0.1:0", rate=1000).running() as server, open_at(server) as anna:
        anna.send("Anna")
        hear(anna)
        with open_at(server, max_queue=None) as bert:  # else it would not read to the end
            bert.send("Bert")
            for number in range(40):
                bert.send(str(number))
        assert brief(hear(anna)) == ["joined", "Bert"]
        assert [hear(anna)["text"] for _ in range(40)] == [str(number) for number in range(40)]
        assert brief(hear(anna)) == ["left", "Bert"]
    assert len(paused) == 30


def test_dashboard() -> None:
    with running("ws_dashboard.py") as example, open_at(example, "/stats") as watch:
        message = hear(watch)
        assert message["about"]["history"] == 60
        assert len(message["about"]["turnSeconds"]) == 16
        first = hear(watch)["samples"][0]
        assert len(first["turns"]) == 17
        with open_at(example, "/echo") as echo:
            for number in range(100):
                echo.send(str(number))
                assert echo.recv(PATIENCE) == str(number)
            last = first
            while last["echoed"] < 100:
                (sample,) = hear(watch)["samples"]
                assert sample["time"] > last["time"]
                last = sample
        assert last["connections"] == 2
        assert last["messagesSent"] >= first["messagesSent"] + 100
        assert last["bytesReceived"] >= first["bytesReceived"] + 100
        with open_at(example, "/stats") as late:
            assert last in hear(late)["samples"]
        watch.send("hello")
        assert hear_all(watch)[0] == 1008
        for path in ("/", "/ws"):
            with pytest.raises(InvalidStatus, match="404"):
                open_at(example, path)


def test_who_does_not_keep_up_misses_samples(dashboard: Any) -> None:
    """It is left out until it has taken what waits for it, and then gets samples again."""
    example = dashboard.Dashboard()
    server = ws.Server(example, "127.0.0.1:0", upgrader=dashboard.Door, path="/stats")
    stats = OUR_REQUEST.replace(b"/ws", b"/stats")
    with server.running(), socket.socket() as sock, open_at(server, "/stats") as other:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect((server.address.host, server.address.port))
        sock.sendall(stats)
        assert receive_exactly(sock, len(RESPONSE)) == RESPONSE
        (loop,) = server.loops
        assert "about" in hear(other)

        on_loop(loop, example.watching.copy)  # a turn after the one that answered

        def sample() -> dict[str, Any]:
            loop.call_soon_threadsafe(example.sample, loop)
            (found,) = hear(other)["samples"]
            return dict(found)

        assert len(example.watching) == 2
        while len(example.watching) == 2:
            sample()
        assert sample()["unsentBytes"] > 0
        while len(example.watching) == 1:
            sock.recv(1 << 16)
            sample()
        assert len(example.watching) == 2
