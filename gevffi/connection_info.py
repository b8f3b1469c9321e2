"""What is known of a connection: its state, both ends, what waits, and what the user keeps with it.

`Connection`, in `connection.py`, is this and what can be done. The states are numbers, since they
are looked at often:

    CONNECTING ──▶ OPEN ──▶ CLOSING ──▶ CLOSED

Properties that would ask C for something (`fileno`, `local_address`, `write_buffer_length`) raise
RuntimeError on another thread than the loop's.
"""

from __future__ import annotations

import socket
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any

from gevffi.sys.sockaddr import Address, decode_sockaddr

if TYPE_CHECKING:
    from gevffi.framing import Framing
    from gevffi.loop import EventLoop
    from gevffi.ringbuf import RingBuffer

OPEN, CLOSING, CLOSED, CONNECTING = range(4)
_STATE_NAMES = ("", " closing", " closed", " connecting")
_serial = count(1)


class CloseReason(Enum):
    """Why a connection closed; what `on_close` is told. Values are those of `gevffi.h`."""

    EOF = 0
    """The peer ended its side, and all that was to be sent has been sent."""
    RESET = 1
    """The peer reset the connection, or vanished while bytes were on their way to it."""
    LOCAL = 2
    """`close()` or `abort()` was called here."""
    IDLE = 3
    """No byte came or went for `idle_time`."""
    PROTOCOL_ERROR = 4
    """The peer sent what its protocol forbids."""
    FRAME_TOO_LARGE = 5
    """A frame was, or would have been, over the limit."""
    SLOW_CONSUMER = 6
    """Unsent bytes passed `write_limit`."""
    HANDLER_ERROR = 7
    """A callback of the handler, or the protocol, raised."""
    TIMEOUT = 8
    """The kernel gave up on the peer, or a deadline passed."""
    SHUTDOWN = 9
    """The loop or the server stopped."""
    NO_MEMORY = 10
    """There was no memory for what had to be kept."""


class ConnectionInfo:
    """The part of `Connection` that only tells."""

    __slots__ = (
        "__weakref__",
        "_framing",
        "_local",
        "_loop",
        "_peer",
        "_pending_input",
        "_state",
        "_token",
        "_values",
        "context",
        "id",
    )

    _framing: Framing | None

    def __init__(self, loop: EventLoop, token: int, peer: bytes | Address) -> None:
        self.id = next(_serial)
        """A number no other connection of this process has."""
        self.context: Any = None
        """The user's, for whatever belongs to this connection."""
        self._loop = loop
        self._token = token
        self._peer: bytes | Address = peer
        self._local: Address | None = None
        self._state = OPEN
        self._pending_input: RingBuffer | None = None
        self._values: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.peer_address}{_STATE_NAMES[self._state]}>"

    @property
    def loop(self) -> EventLoop:
        """The loop it belongs to."""
        return self._loop

    @property
    def connected(self) -> bool:
        """Whether it is open: neither still connecting, nor closed or about to be."""
        return self._state == OPEN

    @property
    def peer_address(self) -> Address:
        """Who is at the other end (gev: PeerAddr). Known also after the close.

        While it is connecting: what it connects to, which may be a name.
        """
        if type(self._peer) is bytes:
            self._peer = decode_sockaddr(self._peer)
        return self._peer  # type: ignore[return-value]

    @property
    def local_address(self) -> Address | None:
        """Our end; None while it is connecting, or when it is first asked for after the close."""
        if self._local is None and self._state in (OPEN, CLOSING):
            descriptor = self.fileno()
            if descriptor < 0:  # gone already, and `on_close` is on its way
                return None
            borrowed = socket.socket(fileno=descriptor)
            try:
                self._local = Address.of(borrowed.getsockname())
            finally:
                borrowed.detach()
        return self._local

    def fileno(self) -> int:
        """The descriptor, -1 when there is none.

        It is the loop's: set options on it, but leave its bytes.
        """
        if self._state == CLOSED:
            return -1
        self._loop.check_thread()
        return self._loop._reactor.fileno(self._token)

    @property
    def read_buffer_length(self) -> int:
        """Bytes of an unfinished frame (gev: ReadBufferLength)."""
        pending = self._pending_input
        if pending is not None:
            return len(pending)
        if self._framing is None or self._state in (CLOSED, CONNECTING):
            return 0
        self._loop.check_thread()
        return self._loop._reactor.kept(self._token)

    @property
    def write_buffer_length(self) -> int:
        """Unsent bytes that wait for the peer (gev: WriteBufferLength)."""
        if self._state == CLOSED:
            return 0
        self._loop.check_thread()
        if self._state == CONNECTING:
            return self._loop._connector.pending[self].queued  # type: ignore[index]
        return self._loop._reactor.pending(self._token)

    # ---- gev's key-value context ----------------------------------------------------------------

    def set(self, key: str, value: Any) -> None:
        """Keep `value` under `key` (gev: Set)."""
        if self._values is None:
            self._values = {}
        self._values[key] = value

    def get(self, key: str, default: Any = None) -> Any:
        """What was kept under `key`, or `default` (gev: Get)."""
        return default if self._values is None else self._values.get(key, default)

    def delete(self, key: str) -> None:
        """Forget what was kept under `key`, if anything (gev: Delete)."""
        if self._values is not None:
            self._values.pop(key, None)
