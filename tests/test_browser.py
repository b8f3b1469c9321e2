"""The WebSocket server and a real browser.

Chromium runs without a window and is told what to do over its DevTools protocol: `chromium.py` says
how it starts, and that these tests are skipped where there is none. The page comes from the server
it talks to, so that its origin is a real one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import chromium
import pytest
from chromium import Browser, Tab
from test_cli import echo
from ws_helpers import Recorder, serving

from gevffi import Server, ws

# `open` gives a socket once it is open, or is closed instead; `next` what comes, in its order.
PAGE = """<!DOCTYPE html><title>test</title><link rel="icon" href="data:,"><script>
function open(address, protocols = []) {
  const socket = new WebSocket(address, protocols);
  const came = [], asked = [];
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => asked.length ? asked.shift()(data) : came.push(data);
  socket.next = () => new Promise(done => came.length ? done(came.shift()) : asked.push(done));
  socket.closed = new Promise(done => {
    socket.onclose = ({ code, reason, wasClean }) => done([code, reason, wasClean]);
  });
  const opened = new Promise(done => { socket.onopen = done; });
  return Promise.race([opened, socket.closed]).then(() => socket);
}
</script>"""


class Door(ws.Upgrader):
    """Serves the page."""

    def on_http(self, conn: Any, request: ws.Request) -> ws.Response:
        return ws.Response(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.running() as browser:
        yield browser


@contextlib.contextmanager
def page(browser: Browser, server: Server) -> Iterator[Tab]:
    """A tab with the page of that server, in which `address` is where its WebSockets go."""
    with browser.tab(f"http://{server.address}/") as tab:
        tab.evaluate(f"globalThis.address = 'ws://{server.address}/'; 0")
        yield tab


def run(tab: Tab, steps: str) -> Any:
    """Run the body of an async function in the page; return what it does."""
    return tab.evaluate(f"(async () => {{ {steps} }})()")


def test_text_and_bytes_come_back(browser: Browser) -> None:
    handler = Recorder()
    with serving(handler, upgrader=Door) as server, page(browser, server) as tab:
        found = run(
            tab,
            """
            const socket = await open(address);
            const found = [];
            for (const size of [0, 1, 125, 126, 65535, 65536, (1 << 20) / 2]) {
              const text = "\\u00e9".repeat(size);
              socket.send(text);
              found.push(await socket.next() === text);
            }
            for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
              const bytes = Uint8Array.from({ length: size }, (_, at) => at * at >> 3);
              socket.send(bytes);
              const back = new Uint8Array(await socket.next());
              found.push(back.length === size && back.every((byte, at) => byte === bytes[at]));
            }
            socket.send("at once"); socket.send(new Uint8Array([1, 2])); socket.send("after it");
            found.push(await socket.next(), (await socket.next()).byteLength, await socket.next());
            return found;
            """,
        )
        assert found == [True] * 14 + ["at once", 2, "after it"]
        _conn, request = handler.next("open")
        assert request.origin == f"http://{server.address}"
        types = [type(handler.next("message")[1]) for _ in range(17)]
        assert types == [str] * 7 + [memoryview] * 7 + [str, memoryview, str]


@pytest.mark.parametrize(
    ("compression", "agreed"),
    [
        (ws.Deflate(), "; server_max_window_bits=12; client_max_window_bits=12"),
        (
            ws.Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
            "; server_no_context_takeover; client_no_context_takeover"
            "; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (ws.Deflate(server_max_window_bits=15, client_max_window_bits=15, threshold=0), ""),
        (ws.Deflate(server_max_window_bits=9, client_max_window_bits=9), None),
    ],
    ids=["default", "no context takeover", "large windows", "small windows"],
)
def test_messages_are_really_compressed(
    browser: Browser, compression: ws.Deflate, agreed: str | None
) -> None:
    with (
        serving(Recorder(), upgrader=Door, compression=compression) as server,
        page(browser, server) as tab,
    ):
        before = server.loops[0].stats()
        name, *found = run(
            tab,
            """
            const socket = await open(address);
            const found = [socket.extensions];
            for (let round = 0; round < 5; round++) {
              const words = Array.from({ length: 20000 }, (_, at) => `word ${at * round % 100}`);
              socket.send(words.join());
              found.push(await socket.next() === words.join());
            }
            return found;
            """,
        )
        stats = server.loops[0].stats()
        assert found == [True] * 5
        assert name.startswith("permessage-deflate")
        if agreed:
            parts = {part.strip() for part in name.split(";")}
            assert parts == {
                "permessage-deflate",
                *(part.strip() for part in agreed.split(";")[1:]),
            }
        assert stats.bytes_received - before.bytes_received < 200_000  # of 750 000
        assert stats.bytes_sent - before.bytes_sent < 200_000


def test_without_compression(browser: Browser) -> None:
    with (
        serving(Recorder(), upgrader=Door, compression=None) as server,
        page(browser, server) as tab,
    ):
        found = run(
            tab,
            """
            const socket = await open(address);
            socket.send("x".repeat(100000));
            return [socket.extensions, (await socket.next()).length];
            """,
        )
        assert found == ["", 100_000]
        assert server.loops[0].stats().bytes_received > 100_000


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", (1005, "")),
        ("1000", (1000, "")),
        ("3001, 'bye'", (3001, "bye")),
        ("4999, '\\u00e9'.repeat(61)", (4999, "é" * 61)),
    ],
)
def test_the_page_closes(browser: Browser, arguments: str, wanted: tuple[int, str]) -> None:
    handler = Recorder()
    with serving(handler, upgrader=Door) as server, page(browser, server) as tab:
        steps = f"const socket = await open(address); socket.close({arguments}); "
        code, _reason = wanted  # the server's answer has the same code, and no reason
        assert run(tab, steps + "return await socket.closed") == [code, "", True]
        conn, _request = handler.next("open")
        assert handler.next("close") == (conn, wanted)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), (1000, "")),
        ((None,), (1005, "")),
        ((1012, "back soon"), (1012, "back soon")),
        ((4000, "é" * 61), (4000, "é" * 61)),
    ],
    ids=str,
)
def test_the_server_closes(
    browser: Browser, arguments: tuple[Any, ...], wanted: tuple[int, str]
) -> None:
    handler = Recorder(lambda conn, message: conn.close(*arguments))
    with serving(handler, upgrader=Door) as server, page(browser, server) as tab:
        steps = "const socket = await open(address); socket.send('end'); "
        assert run(tab, steps + "return await socket.closed") == [*wanted, True]


def test_the_page_goes_away(browser: Browser) -> None:
    handler = Recorder()
    with serving(handler, upgrader=Door) as server:
        with page(browser, server) as tab:
            run(tab, "globalThis.kept = [await open(address), await open(address)]")
            conns = {handler.next("open")[0] for _ in range(2)}
            tab.open("about:blank")
            for _ in range(2):
                conn, (code, _reason) = handler.next("close")
                conns.remove(conn)
                assert code == 1001
        with page(browser, server) as tab:
            run(tab, "globalThis.kept = await open(address)")
            conn, _request = handler.next("open")
        found, (code, _reason) = handler.next("close")  # the tab is closed
        assert found is conn
        assert code in (1001, 1006)


def test_the_server_stops(browser: Browser) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(Recorder(), upgrader=Door))
        tab = stack.enter_context(page(browser, server))
        run(tab, "globalThis.socket = await open(address)")
        server.stop()
        code, _reason, _clean = tab.evaluate("socket.closed")
        assert code == 1001


@pytest.mark.parametrize("compression", [ws.Deflate(), None], ids=["small on the way", "as it is"])
def test_a_message_over_the_limit(browser: Browser, compression: ws.Deflate | None) -> None:
    with (
        serving(
            Recorder(), upgrader=Door, compression=compression, max_message_size=1000
        ) as server,
        page(browser, server) as tab,
    ):
        steps = "const socket = await open(address); socket.send('x'.repeat(%d)); "
        assert run(tab, steps % 1000 + "return (await socket.next()).length") == 1000
        code, _reason, _clean = run(tab, steps % 1001 + "return await socket.closed")
        assert code == 1009
        # Much of this is still on its way when the server has seen enough.
        code, _reason, _clean = run(tab, steps % (16 << 20) + "return await socket.closed")
        assert code == 1009


def test_a_handler_that_raises(browser: Browser) -> None:
    def raises(conn: ws.Connection, message: str) -> None:
        raise KeyError(message)

    handler = Recorder(raises)
    with serving(handler, upgrader=Door) as server, page(browser, server) as tab:
        steps = "const socket = await open(address); socket.send('boom'); "
        assert run(tab, steps + "return await socket.closed") == [1011, "", True]
        handler.next("open")
        handler.next("message")
        assert repr(handler.next("error")[1]) == "KeyError('boom')"


def test_pings_are_answered(browser: Browser) -> None:
    handler = Recorder()
    with serving(handler, upgrader=Door) as server, page(browser, server) as tab:
        run(tab, "globalThis.socket = await open(address)")
        conn, _request = handler.next("open")
        for data in (b"", b"still there?", bytes(125)):
            conn.ping(data)
            assert handler.next("pong") == (conn, data)


def test_subprotocols(browser: Browser) -> None:
    handler = Recorder()
    with (
        serving(handler, upgrader=Door, subprotocols=["second", "first"]) as server,
        page(browser, server) as tab,
    ):
        found = run(
            tab,
            """
            const found = [];
            for (const protocols of [["first", "other"], ["first", "second"], []])
              found.push((await open(address, protocols)).protocol);
            return found;
            """,
        )
        assert found == ["first", "second", ""]
        for subprotocol in ("first", "second", None):
            assert handler.next("open")[0].subprotocol == subprotocol
        # A browser does not stay where nobody speaks what it offers.
        steps = "return await (await open(address, ['other'])).closed"
        assert run(tab, steps) == [1006, "", False]
        (error,) = tab.errors
        assert "Sec-WebSocket-Protocol" in error
        tab.errors.clear()


def test_pages_of_other_origins_and_other_paths_are_refused(browser: Browser) -> None:
    handler = Recorder()
    with (
        serving(Recorder(), upgrader=Door) as good,
        serving(Recorder(), upgrader=Door) as bad,
        serving(handler, upgrader=Door, path="/", origins=[f"http://{good.address}"]) as server,
    ):
        address = f"ws://{server.address}"
        for place, path, status in ((bad, "/", 403), (server, "/", 403), (good, "/other", 404)):
            with page(browser, place) as tab:
                closed = run(tab, f"return (await open('{address}{path}')).closed")
                assert closed == [1006, "", False]  # a page is not told why
                (error,) = tab.errors
                assert f"Unexpected response code: {status}" in error
                tab.errors.clear()
        with page(browser, good) as tab:
            assert run(tab, f"return (await open('{address}/')).readyState") == 1  # OPEN
            _conn, request = handler.next("open")  # the first that got there
            assert request.origin == f"http://{good.address}"


def test_a_broadcast_to_two_tabs(browser: Browser) -> None:
    handler = Recorder()
    with (
        serving(handler, upgrader=Door, loops=2) as server,
        page(browser, server) as first,
        page(browser, server) as second,
    ):
        for tab in (first, second):
            run(tab, "globalThis.socket = await open(address)")
            handler.next("open")
        server.broadcast("to all")
        server.broadcast(b"bytes")
        for tab in (first, second):
            assert tab.evaluate("socket.next()") == "to all"
            assert run(tab, "return (await socket.next()).byteLength") == 5


def test_a_page_that_does_not_read(browser: Browser) -> None:
    """What it is sent waits for it; others are served meanwhile, and in the end all is there."""
    size, count = 1 << 16, 200
    handler = Recorder(lambda conn, message: message)
    with serving(handler, upgrader=Door, compression=None) as server, page(browser, server) as tab:
        run(tab, "globalThis.socket = await open(address)")
        conn, _request = handler.next("open")
        for number in range(count):
            conn.send_binary(bytes([number]) * size)
        found = run(
            tab,
            f"""
            const found = [];
            for (let number = 0; number < {count}; number++) {{
              const bytes = new Uint8Array(await socket.next());
              found.push(bytes.length === {size} && bytes.every(byte => byte === number));
            }}
            return found;
            """,
        )
        assert found == [True] * count


def test_ws_echo_of_the_command_line(browser: Browser) -> None:
    with (
        serving(Recorder(), upgrader=Door) as elsewhere,
        echo(kind="ws-echo") as (_process, (host, port)),
        page(browser, elsewhere) as tab,
    ):
        found = run(
            tab,
            f"""
            const socket = await open({json.dumps(f"ws://{host}:{port}/any/path")});
            socket.send("h\\u00e9llo");
            socket.send(new Uint8Array([0, 255]));
            const found = [await socket.next(), ...new Uint8Array(await socket.next())];
            socket.close(1000);
            return [...found, ...await socket.closed];
            """,
        )
        assert found == ["héllo", 0, 255, 1000, "", True]
