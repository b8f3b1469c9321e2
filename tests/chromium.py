"""A real browser for the tests: Chromium without a window, driven over its DevTools protocol.

Chromium is what GEVFFI_CHROMIUM names, or `chromium`, `chromium-browser` or `google-chrome` on the
PATH (Debian: apt-get install chromium). Where there is none, the tests that need it are skipped and
say so. It starts with a profile in a folder of its own, which goes when it does, and on its own it
asks nobody on the network for anything. Its sandbox is off, since that does not work for root in a
container; the pages it sees are ours.

It says on its standard error where DevTools listens: on a free port of 127.0.0.1. One WebSocket
there carries JSON for the browser and for all tabs, each of which is a session. (That WebSocket is
spoken by the `websockets` package, so that nothing here rests on what is tested.)

Nothing sleeps. `Tab.evaluate` waits for the promise that an expression is, and `Tab.until` makes
one that is kept as soon as the page has become so. All is bounded: an answer by PATIENCE, and
Chromium as a whole by `timeout`, even if nobody is left to stop it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import PATIENCE
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
LIFETIME = 300
"""Seconds after which Chromium ends whatever happens."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-breakpad",
    # A page that is left is gone, instead of being kept with its connections in case of a return.
    "--disable-features=BackForwardCache",
    # Tabs behind others go on as if they were in front.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)

_KEYS = {"Enter": 13, "End": 35, "Home": 36}
_UNTIL = """
new Promise(done => {
  const look = () => {
    let found;
    try { found = (%s); } catch (error) { found = null; }
    if (found) { watcher.disconnect(); done(found); }
    return found;
  };
  const watcher = new MutationObserver(look);
  look() || watcher.observe(document, {
    attributes: true, characterData: true, childList: true, subtree: true
  });
})
"""


def executable() -> str | None:
    """Where Chromium is."""
    named = os.environ.get("GEVFFI_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """Start Chromium, and stop it. Skips the test that asks where there is none."""
    found = executable()
    if found is None:
        pytest.skip(f"there is no Chromium: neither GEVFFI_CHROMIUM nor {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory(
        prefix="gevffi-chromium-", ignore_cleanup_errors=True
    ) as folder:
        # `timeout` makes a process group of Chromium and its children, and ends all of it.
        command = ["timeout", "--kill-after=5", str(LIFETIME), found, *FLAGS]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={folder}/profile", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "HOME": folder, "TMPDIR": folder},
        )
        errors: list[str] = []
        try:
            address = _listening(process, errors)
            with connect(address, compression=None, max_size=None) as socket:
                browser = Browser(socket)
                yield browser
                with contextlib.suppress(ConnectionClosed):  # before it has answered
                    browser.call("Browser.close")
            process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(PATIENCE)


def _listening(process: subprocess.Popen[str], errors: list[str]) -> str:
    """Wait until DevTools listens; go on reading what Chromium says, so that it is never stuck."""
    addresses: list[str] = []
    there = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                errors.append(line)
                if found := re.match(r"DevTools listening on (ws://\S+)", line):
                    addresses.append(found[1])
                    there.set()
        there.set()

    threading.Thread(target=read, daemon=True).start()
    there.wait(PATIENCE)
    assert addresses, f"Chromium does not start:\n{''.join(errors)}"
    return addresses[0]


class Browser:
    """A running Chromium. One thread."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._tabs: dict[str, Tab] = {}

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol, and wait for what it returns."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(request | ({"sessionId": session} if session else {})))
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                message = json.loads(self._socket.recv(deadline - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"{method} takes for ever: {params}") from None
            if message.get("id") == number:
                assert "error" not in message, (message["error"], method, params)
                return message["result"]
            if tab := self._tabs.get(message.get("sessionId", "")):
                tab.note(message)

    @contextlib.contextmanager
    def tab(self, url: str) -> Iterator[Tab]:
        """Open a tab that shares nothing with others, and have it load a page.

        When it is closed, nothing must have gone wrong on the page but what the test has taken out
        of `Tab.errors`.
        """
        context = self.call("Target.createBrowserContext")["browserContextId"]
        made = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        target = made["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        tab = self._tabs[attached["sessionId"]] = Tab(self, attached["sessionId"])
        try:
            for domain in ("Page", "Runtime", "Log"):
                tab.call(f"{domain}.enable")
            tab.open(url)
            yield tab
            tab.evaluate("0")  # after all that it had to tell before
            assert tab.errors == []
        finally:
            del self._tabs[tab.session]
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """A page; made by `Browser.tab`."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.session = session
        self.errors: list[str] = []
        """What went wrong on the page: exceptions, and what Chromium complains of."""
        self._browser = browser

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol for this tab."""
        return self._browser.call(method, self.session, **params)

    def note(self, message: dict[str, Any]) -> None:
        """An event has come."""
        params = message["params"]
        if message["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            thrown = details.get("exception", {})
            self.errors.append(thrown.get("description", details["text"]))
        elif message["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def open(self, url: str) -> None:
        """Load a page, and wait until it has."""
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert not failed, (url, failed)
        self.evaluate(
            "document.readyState === 'complete' ||"
            " new Promise(done => window.addEventListener('load', done)).then(() => true)"
        )

    def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript in the page; of a promise, what it is kept with. JSON only."""
        result = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, condition: str) -> Any:
        """Wait until an expression of what is in the document is true; return what it is."""
        return self.evaluate(_UNTIL % condition)

    def type(self, text: str) -> None:
        """Type, as somebody would, into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key: Enter, Home or End."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def screen(self, width: int, height: int) -> None:
        """Show the page on a screen of that size; a small one is a phone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2,
            mobile=width < 600,
        )
