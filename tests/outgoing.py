"""What the tests of outgoing connections share: a loop, and those at the other end who
answer, refuse, or never do."""

from __future__ import annotations

import contextlib
import gc
import itertools
import queue
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

from helpers import PATIENCE, descriptors

from gevffi import EventLoop, Options


@contextlib.contextmanager
def looping(**options: Any) -> Iterator[EventLoop]:
    """A loop in the background."""
    with EventLoop(Options(**options), name="out").running() as loop:
        yield loop


@contextlib.contextmanager
def losing_nothing() -> Iterator[None]:
    """At the end of the block there are the descriptors there were before it."""
    with looping():  # the pool of all loops opens its own with the first one, for good
        pass
    gc.collect()  # what others have left behind is not to go meanwhile
    before = descriptors()
    yield
    assert descriptors() == before


def call(loop: EventLoop, function: Callable[[], Any]) -> Any:
    """The result of `function` on the loop's thread."""
    results: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            results.put((function(), None))
        except Exception as exc:
            results.put((None, exc))

    loop.call_soon_threadsafe(run)
    result, error = results.get(timeout=PATIENCE)
    if error is not None:
        raise error
    return result


@contextlib.contextmanager
def deaf(family: socket.AddressFamily = socket.AF_INET, name: Any = ("127.0.0.1", 0)) -> Any:
    """A listener that accepts nobody and whose backlog is full: a connect to it takes for ever.

    Yields the listener.
    """
    with socket.socket(family) as listener, contextlib.ExitStack() as stack:
        listener.bind(name)
        listener.listen(0)
        # One connection fits into a backlog of 0.
        hog = stack.enter_context(socket.socket(family))
        hog.connect(listener.getsockname())
        yield listener


def _bound() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


_unheard = itertools.cycle([_bound(), _bound()])  # they never listen, and keep others from it


def nobody() -> tuple[str, int]:
    """An address where a connection is refused. It is another one than the last."""
    return next(_unheard).getsockname()  # type: ignore[no-any-return]


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@contextlib.contextmanager
def stdlib_echo() -> Iterator[tuple[str, int]]:
    """The standard library's server, echoing; yields its address."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address  # type: ignore[misc]
        finally:
            server.shutdown()
            thread.join()


class Names:
    """Stands in for `socket.getaddrinfo`, where `known` are the names that are."""

    def __init__(self, monkeypatch: Any, **known: list[Any]) -> None:
        self._known = known
        self._real = socket.getaddrinfo
        self.asked = threading.Event()
        self.answer = threading.Event()
        """Clear it, and an answer takes until it is set."""
        self.answer.set()
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *, flags: int = 0, **rest: Any) -> Any:
        if flags & socket.AI_NUMERICHOST or host is None:
            return self._real(host, port, flags=flags, **rest)
        self.asked.set()
        assert self.answer.wait(PATIENCE)
        if host not in self._known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in self._known[host]
        ]
