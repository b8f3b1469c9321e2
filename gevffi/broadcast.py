"""Broadcast: the same bytes to many connections of a loop, in one call of C.

    data ──packet, once──▶ |==== frame ====|       one buffer; C sends from it to each, no copies
                                ▲ ▲ ▲ ▲
    everyone   | token | token | token | ...       one array, kept from broadcast to broadcast

Whoever broadcasts to all pays no Python step for each of them. The array of tokens is made when it
is needed, and dropped when it is no longer true: a connection came, one began to close, one
changed its protocol. Connections of different protocols need different frames, so each protocol has
an array of its own; nearly always that is one.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from typing import Protocol as Structure

from gevffi.connection import Connection
from gevffi.connection_info import OPEN
from gevffi.protocol import Protocol, Raw
from gevffi.sys.reactor import hold, hold_tokens

if TYPE_CHECKING:
    from gevffi.loop import EventLoop


class HasLoop(Structure):
    """What belongs to a loop."""

    @property
    def loop(self) -> EventLoop:
        """It."""


C = TypeVar("C", bound=HasLoop)


class Broadcaster:
    """Sends to many connections of `loop`. Belongs to the loop's thread."""

    __slots__ = ("_everyone", "_loop")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._everyone: list[tuple[Connection, Any]] | None = None

    def changed(self) -> None:
        """A connection came, began to close, or has another protocol now."""
        self._everyone = None

    def send(self, data: Any, connections: Iterable[Connection] | None) -> None:
        """Send `data` to `connections`, or to all that the loop serves, after all earlier sends.

        Raises:
            TypeError: `data` is not bytes-like (and no protocol makes it so). Nothing was sent.
            ValueError: a connection is another loop's.
        """
        loop = self._loop
        groups = self._grouped(connections) if connections is not None else self._all()
        # All frames first: a `packet` may raise, or send something itself.
        frames = [(tokens, _frame(conn, data)) for conn, tokens in groups]
        if frames:  # or the loop may have ended, with output that nobody can send
            loop._outbox.flush()
        for tokens, frame in frames:
            loop._reactor.broadcast(tokens, frame)

    def send_frame(self, frame: bytes, protocols: Container[Protocol]) -> None:
        """Send a whole frame to all that the loop serves under these protocols."""
        groups = self._all()
        if groups:
            self._loop._outbox.flush()
        for conn, tokens in groups:
            if conn._protocol in protocols:
                self._loop._reactor.broadcast(tokens, hold(frame))

    def _all(self) -> list[tuple[Connection, Any]]:
        if self._everyone is None:
            served = (conn for conn in self._loop._life.all() if conn._served)
            self._everyone = self._grouped(served)
        return self._everyone

    def _grouped(self, connections: Iterable[Connection]) -> list[tuple[Connection, Any]]:
        """The open ones by protocol: one of them, and the tokens of all, for C."""
        loop = self._loop
        groups: dict[int, tuple[Connection, array[int]]] = {}  # by identity: it may define `==`
        last: Protocol | None = None
        for conn in connections:
            if conn._loop is not loop:
                raise ValueError(f"{conn} belongs to {conn.loop.name}, not to {loop.name}")
            if conn._state == OPEN:
                if conn._protocol is not last:
                    last = conn._protocol
                    tokens = groups.setdefault(id(last), (conn, array("q")))[1]
                tokens.append(conn._token)
        return [(conn, hold_tokens(tokens)) for conn, tokens in groups.values()]


def _frame(conn: Connection, data: Any) -> Any:
    """What all connections of `conn`'s protocol get for `data`, in one piece and held for C."""
    if conn._packet is None and conn._framing is not None:
        data = conn._framing.frame(data)
    elif type(conn._protocol) is not Raw:
        data = conn._protocol.packet(conn, data)
        if type(data) is tuple:
            data = b"".join([memoryview(piece).tobytes() for piece in data])
    try:
        return hold(data)
    except (BufferError, ValueError):  # it does not lie in one piece
        return hold(memoryview(data).tobytes())


def by_loop(connections: Iterable[C]) -> dict[EventLoop, list[C]]:
    """The connections of each loop, on whatever level."""
    loops: dict[EventLoop, list[C]] = defaultdict(list)
    for conn in connections:
        loops[conn.loop].append(conn)
    return loops


def fixed(data: Any, protocols: Iterable[Protocol]) -> Any:
    """`data` for another thread, as `Connection.send` does it: the caller may reuse its buffer.

    Raises:
        TypeError: it is not bytes-like, and one of the protocols sends it as it is.
    """
    if type(data) is bytes:
        return data
    if isinstance(data, (bytearray, memoryview)) or any(type(p) is Raw for p in protocols):
        return bytes(memoryview(data))
    return data
