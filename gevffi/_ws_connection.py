"""One WebSocket, as handlers see it, on top of a `gevffi.Connection`.

    C ──▶ Frames.take ──▶ whole message in one frame ──────────────────▶ on_message ──▶ reply
              │  ▲                                                           ▲
              │  └── frames that a pause has left                            │
              └────────▶ Messages: fragments, compression, control ──────────┘
                             └──▶ pong, close frame ──▶ sent

`_ws_delivery` does what is to be done for each message. Here is what anybody may ask of a
connection, and what follows from it: sending, closing, pausing.

A failure is told in two places: the peer gets a close frame with the code, and the connection below
closes with the `CloseReason` that goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gevffi._ws_frames import BINARY, FIN, TEXT, header
from gevffi._ws_messages import Messages, Output, State, close_payload
from gevffi.broadcast import by_loop
from gevffi.outbox import LARGE

if TYPE_CHECKING:
    from gevffi._ws_adapter import Adapter, LoopKeeper
    from gevffi._ws_deflate import Agreement
    from gevffi._ws_delivery import Frames
    from gevffi._ws_handshake import Opening
    from gevffi._ws_keeper import Deadlines
    from gevffi.connection import Connection as Transport
    from gevffi.loop import EventLoop
    from gevffi.sys.sockaddr import Address


class Connection:
    """A WebSocket. Made by a server, or by `connect`; handlers get it in every callback.

    Methods that send may be called from any thread, and do nothing once the connection is closing:
    a peer may leave at any moment, and `on_close` tells.
    """

    __slots__ = (
        "__weakref__",
        "_adapter",
        "_deadline",
        "_heard",
        "_keeper",
        "_left",
        "_messages",
        "_opening",
        "_paused",
        "_sent",
        "_unfinished",
        "context",
        "subprotocol",
        "transport",
    )
    _masks = False  # what it sends, as clients have to

    def __init__(self, transport: Transport, adapter: Adapter, keeper: LoopKeeper) -> None:
        self.transport = transport
        """The connection below. Send nothing on it."""
        self.context: Any = None
        """The user's, for whatever belongs to this connection."""
        self.subprotocol: str | None = None
        """What was agreed on."""
        self._adapter = adapter
        self._keeper = keeper
        self._opening: Opening | None = None
        self._messages: Messages | None = None  # from the handshake on
        self._deadline: Deadlines | None = None
        self._heard = False  # since the last ping: whole frames of the peer
        self._unfinished = 0  # at the last ping: bytes of a frame that was not whole
        self._sent = -1  # at the last ping, if output waited: what the kernel had taken of it all
        self._paused = False
        self._left: list[Any] | None = None  # what `take` is to be called with when reading goes on

    def __repr__(self) -> str:
        return f"<WebSocket {self.transport!r}>"

    # ---- sending --------------------------------------------------------------------------------

    def send_text(self, text: str | bytes | bytearray | memoryview) -> None:
        """Send a text message. From any thread.

        Args:
            text: what is not a `str` must be UTF-8, and is not looked at.

        Raises:
            TypeError: it is neither a `str` nor bytes-like.
        """
        self._post(TEXT, text.encode() if isinstance(text, str) else text)

    def send_binary(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message. From any thread; the caller may reuse its buffer at once.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        self._post(BINARY, data)

    def _post(self, opcode: int, data: Any) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a message must be bytes-like, not {data!r}")
        if isinstance(data, memoryview) and (data.itemsize != 1 or not data.c_contiguous):
            data = data.tobytes()
        loop = self.loop
        if loop.in_loop():
            self._send(opcode, data)
        else:
            loop.call_soon_threadsafe(self._send, opcode, bytes(data))

    def ping(self, data: bytes = b"") -> None:
        """Send a ping. From any thread.

        Raises:
            ValueError: more than 125 bytes.
        """
        if len(data) > 125:
            raise ValueError(f"a ping has at most 125 bytes, not {len(data)}")
        self._in_loop(self._ping, bytes(data))

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455, section 7.1.2). From any thread.

        No message is delivered or sent any more. The connection ends when the peer has answered,
        or `close_timeout` seconds later.

        Args:
            code: 1000 to 1003, 1007 to 1014, 3000 to 4999 (section 7.4); None for none.
            reason: for people, at most 123 bytes of UTF-8.

        Raises:
            ValueError: a code that may not be sent, a reason that is too long, or one without code.
        """
        close_payload(code, reason)
        self._in_loop(self._close, code, reason)

    def abort(self) -> None:
        """Reset the connection at once, without a closing handshake. From any thread."""
        self.transport.abort()

    def _in_loop(self, call: Any, *args: Any) -> None:
        if self.loop.in_loop():
            call(*args)
        else:
            self.loop.call_soon_threadsafe(call, *args)

    def _send(self, opcode: int, data: Any) -> None:
        if self._messages is not None:
            self._output(self._messages.send(opcode, data))

    def _ping(self, data: bytes) -> None:
        if self._messages is not None:
            self._output(self._messages.ping(data))

    def _close(self, code: int | None, reason: str) -> None:
        messages = self._messages
        if messages is not None and messages.state is State.OPEN:
            self.loop._delivery.end_run(self.transport)
            self._output(messages.close(code, reason))
            self._closes()
            self._keeper.put(self, self._keeper.closing)
            self.resume_reading()  # the peer's answer is wanted

    def _fail(self, code: int, reason: str) -> None:
        """Say what is wrong; closing the connection is the caller's."""
        if self._messages is not None:
            self._output(self._messages.fail(code, reason))
            self._closes()

    def _closes(self) -> None:
        """No message may be sent any more: broadcasts to all go without it."""
        self.transport._served = False
        self.loop._broadcaster.changed()

    def _output(self, pieces: Output) -> None:
        send = self.transport._send
        if len(pieces) == 2 and len(pieces[1]) < LARGE:
            send(b"".join(pieces), None)
            return
        if len(pieces) == 2 and self.transport.connected:
            self.loop._outbox.parts += 1  # they are one message
        for piece in pieces:
            send(piece, None)

    # ---- receiving ------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Deliver no more messages until `resume_reading`; the kernel holds the peer back.

        On the loop's thread. Pings are not answered meanwhile, and the peer is not expected to
        answer ours.

        Raises:
            RuntimeError: called from another thread.
        """
        self.loop.check_thread()
        self._paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Deliver messages again. On the loop's thread, as for `pause_reading`."""
        self.loop.check_thread()
        if self._paused:
            self._paused = False
            if self._left:
                self.loop.call_soon_threadsafe(self._go_on)
            else:
                self.transport.resume_reading()

    def _opened(
        self,
        frames: Frames,
        *,
        server: bool,
        max_message_size: int,
        agreement: Agreement | None,
        subprotocol: str | None,
    ) -> None:
        """The handshake is done: frames follow."""
        self.subprotocol = subprotocol
        self._opening = None
        self._messages = Messages(
            server=server, max_message_size=max_message_size, agreement=agreement
        )
        self.transport.set_protocol(frames)

    def _keep(self, *run: Any) -> None:
        """Keep a run of frames, which are in no memory of the loop's, until reading goes on."""
        self._left = [*(self._left or ()), run]

    def _end(self) -> None:
        """The closing handshake is done: a server closes TCP (section 7.1.1)."""
        self.transport.close()

    def _go_on(self) -> None:
        """With what there was when reading was paused, and only then with what is new."""
        if self._left and not self._paused and self.transport.connected:
            runs, self._left = self._left, None
            self.transport.resume_reading()  # in the next turn; until then one may pause again
            take = self.transport._protocol.take  # type: ignore[attr-defined]
            for run in runs:
                take(self.transport, *run)

    # ---- what is known of it --------------------------------------------------------------------

    @property
    def loop(self) -> EventLoop:
        """The loop it belongs to."""
        return self.transport.loop

    @property
    def connected(self) -> bool:
        """Whether messages can be sent: neither closed nor about to be."""
        messages = self._messages
        return messages is not None and messages.state is State.OPEN and self.transport.connected

    @property
    def id(self) -> int:
        """A number no other connection of this process has."""
        return self.transport.id

    @property
    def peer_address(self) -> Address:
        """Who is at the other end."""
        return self.transport.peer_address


def broadcast(conns: Iterable[Connection], message: str | bytes | bytearray | memoryview) -> None:
    """Send one message to many. From any thread.

    It is encoded once, and the loops are told once each. It is not compressed, as every connection
    compresses in its own context. (Only what clients send has to be masked, and so made for each.)

    Args:
        conns: any connections; those that are closing are passed over.
        message: a `str` goes as text, anything else as binary.
    """
    frame = encode(message)
    plain = []
    for conn in conns:
        if conn._masks:
            conn._post(TEXT if isinstance(message, str) else BINARY, payload_of(message))
        else:
            plain.append(conn)
    for loop, those in by_loop(plain).items():
        if loop.in_loop():
            send_to_all(loop, those, frame)
        else:
            loop.call_soon_threadsafe(send_to_all, loop, those, frame)


def encode(message: str | bytes | bytearray | memoryview) -> bytes:
    """Return the frame of a message, as servers send it."""
    opcode = TEXT if isinstance(message, str) else BINARY
    payload = payload_of(message)
    return header(FIN | opcode, len(payload)) + payload


def payload_of(message: str | bytes | bytearray | memoryview) -> bytes:
    """Return the payload of a message."""
    return message.encode() if isinstance(message, str) else bytes(message)


def send_to_all(loop: EventLoop, conns: Iterable[Connection], frame: bytes) -> None:
    """Send a frame to those of a loop's connections that are open. On the loop's thread."""
    loop.broadcast(
        frame,
        [
            conn.transport
            for conn in conns
            if conn._messages is not None and conn._messages.state is State.OPEN
        ],
    )
