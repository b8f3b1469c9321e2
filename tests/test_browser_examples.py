"""The WebSocket examples as people see them: their pages, in a real browser.

Chromium runs without a window and is told what to do over its DevTools protocol: `chromium.py` says
how it starts, and that these tests are skipped where there is none. What a page should not do, such
as running a script that somebody has written into the chat, Chromium would complain of, and
`Browser.tab` looks at the end that it has not.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

import chromium
import pytest
from chromium import Browser, Tab
from helpers import serving as serving_bytes
from running_examples import EXAMPLES, Example, running
from test_browser import Door
from test_ws_examples import brief, hear, open_at
from ws_helpers import serving

import gevffi
from gevffi import ws

OPEN = "document.body.dataset.state === 'open'"
JOINED = "document.body.dataset.state === 'joined'"
SAID = "[...document.querySelectorAll('.said .text')].map(entry => entry.textContent)"
NEWS = "[...document.querySelectorAll('.news')].map(entry => entry.textContent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.running() as browser:
        yield browser


@contextlib.contextmanager
def page(browser: Browser, example: Example) -> Iterator[Tab]:
    with browser.tab(f"http://{example.host}:{example.port}/") as tab:
        yield tab


def fill(tab: Tab, field: str, text: str) -> None:
    """Click into a field, write something, and press Enter."""
    tab.evaluate(f"document.getElementById('{field}').focus()")
    tab.type(text)
    tab.press("Enter")


@pytest.mark.parametrize("name", ["echo", "chat", "dashboard"])
def test_it_fits_on_a_phone(browser: Browser, name: str) -> None:
    with running(f"ws_{name}.py") as example, page(browser, example) as tab:
        tab.screen(360, 640)
        if name == "chat":
            fill(tab, "name", "W" * 20)
            tab.until(JOINED)
            fill(tab, "text", "W" * 1000)
            tab.until(f"{SAID}.length")
        else:
            tab.until(OPEN)
        assert tab.evaluate("document.documentElement.scrollWidth") == 360


def test_echo(browser: Browser) -> None:
    row = "document.getElementById('log').rows.length === %d && document.getElementById('log')"
    with running("ws_echo.py") as example, page(browser, example) as tab:
        tab.until(OPEN)
        assert "permessage-deflate" in tab.evaluate("document.getElementById('agreed').textContent")
        fill(tab, "text", "<b>h\u00e9llo</b>")
        assert tab.until((row % 1) + ".rows[0].cells[0].textContent") == "<b>h\u00e9llo</b>"
        tab.evaluate("document.querySelector('[data-bytes=\"1048576\"]').click()")
        assert tab.until((row % 2) + ".rows[0].cells[1].textContent") == "1048576"
        tab.evaluate("document.getElementById('many').click()")
        assert tab.until((row % 3) + ".rows[0].textContent").startswith("1000 round trips")
        assert tab.evaluate("document.querySelectorAll('.wrong').length") == 0


def test_a_chat_of_two(browser: Browser) -> None:
    texts = ["hello", "<script>document.title = 'bad'</script>", "<img src=x onerror=alert(1)>"]
    with running("ws_chat.py") as example, page(browser, example) as anna:
        fill(anna, "name", "<b>Anna")
        anna.until(JOINED)
        with page(browser, example) as bert:
            fill(bert, "name", "<B>ANNA")
            assert bert.until("document.getElementById('why').textContent")
            assert bert.evaluate("document.body.dataset.state") == "asking"
            fill(bert, "name", "Bert")  # what was there is selected, so that it goes
            bert.until(JOINED)
            anna.until(f"{NEWS}.at(-1) === 'Bert is here.'")
            for number, text in enumerate(texts):
                speaker, listener = (anna, bert) if number % 2 == 0 else (bert, anna)
                fill(speaker, "text", text)
                for tab in (speaker, listener):
                    tab.until(f"{SAID}.length === {number + 1}")
            for tab, own in ((anna, [True, False, True]), (bert, [False, True, False])):
                assert tab.evaluate(SAID) == texts
                entries = "[...document.querySelectorAll('.said')]"
                assert tab.evaluate(f"{entries}.map(e => e.classList.contains('own'))") == own
                assert tab.evaluate("document.title") == "Chat"
                assert (
                    tab.evaluate("document.querySelectorAll('#log script, #log img').length") == 0
                )
                assert tab.evaluate("document.getElementById('here').textContent") == (
                    "2: <b>Anna, Bert"
                )
            who = "document.querySelector('.said .who').textContent"
            assert bert.evaluate(who) == "<b>Anna"
        assert anna.until(f"{NEWS}.at(-1) !== 'Bert is here.' && {NEWS}.at(-1)") == "Bert has left."
        with page(browser, example) as carl:
            fill(carl, "name", "Carl")
            carl.until(JOINED)
            assert carl.evaluate(SAID) == texts


def test_the_chat_comes_back_after_the_server_does(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    make_server = importlib.import_module("ws_chat").make_server
    with contextlib.ExitStack() as stack:
        server = make_server("127.0.0.1:0")
        with server.running():
            address = str(server.address)
            tab = stack.enter_context(browser.tab(f"http://{address}/"))
            fill(tab, "name", "Anna")
            tab.until(JOINED)
        tab.until("document.body.dataset.state === 'lost'")
        assert tab.evaluate("document.getElementById('text').disabled")
        with make_server(address).running() as server, open_at(server) as bert:
            tab.until(JOINED)
            bert.send("Bert")
            assert brief(hear(bert))[2] == ["Anna", "Bert"]
            fill(tab, "text", "I am back")
            assert brief(hear(bert)) == ["said", "Anna", "I am back"]
            tab.errors.clear()  # it may have tried while there was nobody


def test_a_page_of_another_origin_may_not_join(browser: Browser) -> None:
    with (
        running("ws_chat.py") as example,
        serving(ws.Handler(), upgrader=Door) as other,
        browser.tab(f"http://{other.address}/") as tab,
    ):
        steps = f"""
            new Promise(done => {{
              const socket = new WebSocket("ws://{example.host}:{example.port}/ws");
              socket.onopen = () => done("open");
              socket.onclose = ({{ code }}) => done(code);
            }})
        """
        assert tab.evaluate(steps) == 1006
        (error,) = tab.errors
        assert "Unexpected response code: 403" in error
        tab.errors.clear()


def test_the_policy_of_the_page_holds(browser: Browser) -> None:
    """It may talk to its own server only, and run nothing that is written into it."""
    with (
        running("ws_chat.py") as example,
        serving_bytes(gevffi.Handler()) as other,
        page(browser, example) as tab,
    ):
        assert tab.evaluate(f"fetch('http://{other.address}/').catch(error => error.name)") == (
            "TypeError"
        )
        tab.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<b onclick=\"bad = 1\">x</b>')"
        )
        tab.evaluate("document.body.lastElementChild.click()")
        assert tab.evaluate("typeof bad") == "undefined"
        blocked = [error for error in tab.errors if "Content Security Policy" in error]
        assert len(blocked) >= 2
        tab.errors.clear()


def test_dashboard(browser: Browser) -> None:
    number = "Number(document.getElementById('%s').textContent.replace(/\\D/g, ''))"
    canvases = "[...document.querySelectorAll('canvas')]"
    with running("ws_dashboard.py") as example, page(browser, example) as tab:
        tab.until(OPEN)
        tab.until((number % "connections") + " === 1")
        # Something is drawn on each, and all of it moves.
        painted = f"{canvases}.map(c => c.getContext('2d').getImageData(0, 0, c.width, c.height))"
        painted += ".map(image => image.data.some(byte => byte !== 0))"
        assert tab.evaluate(painted) == [True] * 6
        tab.evaluate(f"globalThis.before = {canvases}.map(c => c.toDataURL()); 0")
        with open_at(example, "/echo") as echo:
            for _ in range(500):
                echo.send("hello")
                assert echo.recv() == "hello"
            tab.until((number % "echoed") + " === 500")
            tab.until((number % "connections") + " === 2")
        assert tab.evaluate(number % "messagesSent") >= 500
        tab.until(f"{canvases}.every((c, at) => c.toDataURL() !== before[at])")
        tab.until((number % "connections") + " === 1")
        # The knob makes traffic, and none again.
        tab.evaluate("document.getElementById('knob').focus()")
        tab.press("End")
        tab.until((number % "echoed") + " >= 1000")
        tab.press("Home")
        tab.until((number % "connections") + " === 1")


def test_the_dashboard_comes_back_after_the_server_does(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    make_server = importlib.import_module("ws_dashboard").make_server
    with contextlib.ExitStack() as stack:
        server = make_server("127.0.0.1:0")
        with server.running():
            address = str(server.address)
            tab = stack.enter_context(browser.tab(f"http://{address}/"))
            tab.until(OPEN)
        tab.until("document.body.dataset.state === 'closed'")
        with make_server(address).running():
            tab.until(OPEN)
            tab.until("document.getElementById('connections').textContent === '1'")
            tab.errors.clear()  # it may have tried while there was nobody
