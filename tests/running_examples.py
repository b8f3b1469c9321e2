"""Examples in a process of their own, as somebody tries them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from helpers import PATIENCE

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


class Example:
    """A running example: connections to it, and what it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.host, _, port = self.until("listening on").rpartition(":")
        self.port = int(port)

    def until(self, words: str) -> str:
        """What follows `words` on the first line to come that begins with them."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(words):
                return line.removeprefix(words).strip()
        raise AssertionError(f"it ended without: {words}")

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), PATIENCE)

    def stop(self) -> None:
        """End it by SIGTERM, which has to go smoothly."""
        self.process.send_signal(signal.SIGTERM)
        _out, errors = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, errors) == (0, "")


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments]


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[Example]:
    process = subprocess.Popen(
        command(name, "127.0.0.1:0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    watchdog = threading.Timer(2 * PATIENCE, process.kill)
    watchdog.start()
    try:
        example = Example(process)
        yield example
        example.stop()
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
            process.communicate()
