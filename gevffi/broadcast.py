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
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gevffi.protocol import Protocol, Raw
from gevffi.sys.reactor import hold, hold_tokens

if TYPE_CHECKING:
    from gevffi.connection import Connection
    from gevffi.loop import EventLoop


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
        if connections is not None:
            groups = self._grouped(connections)
        else:
            if self._everyone is None:
                self._everyone = self._grouped(conn for conn in loop._open() if conn._served)
            groups = self._everyone
        # All frames first: a `packet` may raise, or send something itself.
        frames = [(tokens, _frame(conn, data)) for conn, tokens in groups]
        loop._outbox.flush()
        for tokens, frame in frames:
            loop._reactor.broadcast(tokens, frame)

    def _grouped(self, connections: Iterable[Connection]) -> list[tuple[Connection, Any]]:
        """The open ones by protocol: one of them, and the tokens of all, for C."""
        groups: dict[int, tuple[Connection, array[int]]] = {}
        for conn in connections:
            if conn._loop is not self._loop:
                raise ValueError(f"{conn} belongs to {conn.loop.name}, not to {self._loop.name}")
            if conn.connected:
                protocol = id(conn._protocol)  # by identity: it may define `==`
                if protocol not in groups:
                    groups[protocol] = (conn, array("q"))
                groups[protocol][1].append(conn._token)
        return [(conn, hold_tokens(tokens)) for conn, tokens in groups.values()]


def _frame(conn: Connection, data: Any) -> Any:
    """What all connections of `conn`'s protocol get for `data`, in one piece and held for C."""
    if type(conn._protocol) is not Raw:
        data = conn._protocol.packet(conn, data)
        if type(data) is tuple:
            data = b"".join([memoryview(piece).tobytes() for piece in data])
    try:
        return hold(data)
    except (BufferError, ValueError):  # it does not lie in one piece
        return hold(memoryview(data).tobytes())


def by_loop(connections: Iterable[Connection]) -> dict[EventLoop, list[Connection]]:
    """The connections of each loop."""
    loops: dict[EventLoop, list[Connection]] = {}
    for conn in connections:
        loops.setdefault(conn.loop, []).append(conn)
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
