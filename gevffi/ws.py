"""WebSockets (RFC 6455, RFC 7692): a server that is ready, clients, and what they are made of.

    from gevffi import ws

    class Echo(ws.Handler):
        def on_message(self, conn, message):
            return message

    ws.Server(Echo(), "127.0.0.1:9001").start()

`Handler` is what one writes, `Server` what one starts, `Connection` what one gets. `Upgrader` has
hooks for the opening handshake, and for answering plain HTTP from the same port. `connect` makes a
connection of a client, on a loop and with the same `Handler`; `Client` is one that blocks.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gevffi import server as _server
from gevffi._ws_client import Client, ConnectionClosedError
from gevffi._ws_connect import HandshakeError, Opened
from gevffi._ws_connection import Connection, broadcast, encode
from gevffi._ws_connector import connect
from gevffi._ws_deflate import Deflate
from gevffi._ws_handler import Handler
from gevffi._ws_handshake import Upgrader
from gevffi._ws_http import Headers, Request, Response
from gevffi._ws_rules import RefuseError
from gevffi._ws_server import Protocol, ServerAdapter, ServerArgs
from gevffi.balance import Balance, Select
from gevffi.listener import AddressesLike

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Client",
    "Connection",
    "ConnectionClosedError",
    "Deflate",
    "Handler",
    "HandshakeError",
    "Headers",
    "Opened",
    "Protocol",
    "RefuseError",
    "Request",
    "Response",
    "Server",
    "Upgrader",
    "broadcast",
    "connect",
]

_OURS = frozenset(inspect.signature(Protocol).parameters)


class Server(_server.Server):
    """A WebSocket server. Started and stopped as `gevffi.Server`; stopping tells every client that
    it goes away (1001).

    Args:
        handler: gets the callbacks of all connections.
        address, balance: see `gevffi.Server`.
        **options: `metrics_address` of `gevffi.Server`, and see `gevffi.ws.Protocol` and
            `gevffi.Options`.

    Raises:
        ValueError, TypeError: a bad address or option; the message names it.
    """

    def __init__(
        self,
        handler: Handler,
        address: AddressesLike = "127.0.0.1:9001",
        *,
        balance: Balance | Select | None = None,
        **options: Unpack[ServerArgs],
    ) -> None:
        if not isinstance(handler, Handler):
            raise TypeError(f"handler must be a gevffi.ws.Handler, not {handler!r}")
        rest: dict[str, Any] = {**options}
        protocol = Protocol(**{name: rest.pop(name) for name in _OURS & rest.keys()})
        self._adapter = ServerAdapter(handler, protocol)
        super().__init__(self._adapter, address, protocol=protocol, balance=balance, **rest)

    def broadcast(  # type: ignore[override]
        self,
        data: str | bytes | bytearray | memoryview,
        connections: Iterable[Connection] | None = None,
    ) -> None:
        """Send one message to many. From any thread; see `gevffi.ws.broadcast`.

        Args:
            data: a `str` goes as text, anything else as binary.
            connections: whom to send to; None for all of this server.
        """
        if connections is not None:
            broadcast(connections, data)
            return
        frame = encode(data)
        for loop in self.loops:
            if loop.in_loop():
                self._adapter.broadcast(loop, frame)
            else:
                loop.call_soon_threadsafe(self._adapter.broadcast, loop, frame)
