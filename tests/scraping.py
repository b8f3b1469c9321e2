"""What the tests of metrics share: a server that serves some, and what a scrape of it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

from helpers import PATIENCE, receive_exactly, wait
from prometheus_client.parser import text_string_to_metric_families
from protocols import Framed

from gevffi import (
    Connection,
    FrameTooLargeError,
    Handler,
    ProtocolError,
    ReadBuffer,
    Server,
)

LOCAL = "127.0.0.1:0"


class Scrape:
    """The samples of one scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """A sample by its labels; `loop-0` where no loop is named, but for the pool's."""
        if not name.startswith("pool_"):
            labels.setdefault("loop", "loop-0")
        return self.samples["gevffi_" + name, frozenset(labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples that have these labels."""
        return sum(
            value
            for (found, have), value in self.samples.items()
            if found == "gevffi_" + name and have >= labels.items()
        )

    def closed(self) -> Counter[str]:
        """Closed connections by reason, without the reasons that did not happen."""
        found: Counter[str] = Counter()
        for (name, labels), value in self.samples.items():
            if name == "gevffi_connections_closed_total":
                found[dict(labels)["reason"]] += int(value)
        return +found


def settle(server: Server) -> None:
    """Let every loop end the turn it is in, so that all of it is counted. One call for each."""
    for loop in server.loops:
        done = threading.Event()
        loop.call_soon_threadsafe(done.set)
        wait(done)


def scrape(server: Server) -> Scrape:
    assert server.metrics_address is not None
    url = f"http://{server.metrics_address}/metrics"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        return Scrape(response.read().decode())


def answered() -> None:
    """Wait until no thread answers a scrape any more: each ends a moment after its answer."""
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@contextlib.contextmanager
def measured(handler: Handler, **options: Any) -> Iterator[Server]:
    with Server(handler, LOCAL, metrics_address=LOCAL, **options).running() as server:
        yield server


def ask(sock: socket.socket, message: bytes) -> None:
    sock.sendall(message)
    assert receive_exactly(sock, len(message)) == message


class Checked(Framed):
    """Refuses long frames, and empty ones."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        if len(buffer) >= 4 and buffer.peek_uint32() > 1000:
            raise FrameTooLargeError("too long")
        if len(buffer) >= 4 and buffer.peek_uint32() == 0:
            raise ProtocolError("nothing")
        return super().unpacket(conn, buffer)
