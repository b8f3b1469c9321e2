"""From the frames that C has cut and unmasked to a handler of messages, and its replies back.

    run      |0x82 ...|0x82 ...|0x81 ...|0x89 ...|0x01 ...|0x80 ...|       tags and payloads
                 │        │        │        │        └─ Messages ──┴──▶ one message ──▶ on_message
                 │        │        │        └─ Messages ──▶ pong ──▶ sent, and on_ping
                 └────────┴────────┴──▶ on_message ──▶ replies
                                                       │
                        one blob and one list of sizes ┴──▶ C adds the headers and sends

This is where the time goes. A whole message that is not compressed is a slice of what was read and
needs no memory of what was before; it takes a handful of steps, and so does a reply that is not to
be compressed. Everything else goes through `Messages`, in its turn.

Frames in a run are unmasked, so C cannot take them back. What a handler leaves of a run, because it
paused in the middle of it, is kept here, and nothing more is read until that has been handled. A
frame that is bad ends its run; C tells of it in the next turn, when the frames before it have been
answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gevffi._ws_frames import BINARY, CLOSE, FIN, PING, REASONS, TEXT, FrameError, Payload
from gevffi._ws_messages import State
from gevffi.framing import MOST, Framing
from gevffi.outbox import FLUSH_AT, LARGE, join
from gevffi.protocol import FrameTooLargeError, ProtocolError
from gevffi.sys.framing import WEBSOCKET
from gevffi.sys.reactor import FIRST_AT, SEND_RUN
from gevffi.sys.websocket import DEFLATE, FROM_CLIENT

if TYPE_CHECKING:
    from gevffi._ws_connection import Connection
    from gevffi._ws_deflate import Deflate
    from gevffi._ws_handler import Handler
    from gevffi.connection import Connection as Transport

_WHOLE_TEXT, _WHOLE_BINARY = FIN | TEXT, FIN | BINARY
_UPPER = {frame: frame << FIRST_AT for frame in (_WHOLE_TEXT, _WHOLE_BINARY)}
_TOO_LARGE = 1009
_PART = 256
"""Frames of a run that are begun at once: what a pause costs is no more than so many."""
_OPEN = State.OPEN

Run = tuple[Any, Any, Sequence[int], Sequence[int], Sequence[int], int, int]
"""A view, an object whose slices are `bytes`, starts, ends and tags, and which of them."""


class Frames(Framing):
    """The protocol of connections whose handshake is done; `conn.context` is the WebSocket.

    Args:
        handler: gets messages, pings and pongs.
        server: which side this is.
        compression: what was agreed on; None: messages are not compressed.
        max_message_size: bytes a message may have, over all its frames; at most `MOST`.
        text_as_bytes: text is delivered as `bytes`.
    """

    tagged = True

    def __init__(
        self,
        handler: Handler,
        *,
        server: bool,
        compression: Deflate | None,
        max_message_size: int,
        text_as_bytes: bool,
    ) -> None:
        flags = FROM_CLIENT * server | DEFLATE * (compression is not None)
        super().__init__(
            {"kind": WEBSOCKET, "size": flags, "max_size": max_message_size},
            lead=0,
            max_reply=MOST,
            deliver="bytes" if text_as_bytes else "view",
            one_at_a_time=False,
        )
        self._handler = handler
        self._on_message: Callable[[Any, Any], Any] = handler.on_message
        self._decodes = not text_as_bytes
        # The size from which on the run does not send: what is to be compressed, what is not to be
        # copied, and what has to be masked, which is all that a client sends.
        self._plain_below = LARGE if server else 0
        self._always_plain = server and compression is None
        if compression is not None:
            self._plain_below = min(self._plain_below, compression.threshold)
        self._of_bytes = _WHOLE_TEXT if text_as_bytes else _WHOLE_BINARY  # what they are sent as

    def __repr__(self) -> str:
        return "WebSocket"

    def frame(self, data: Any) -> Any:
        """Return `data`, which is a frame: that is all who broadcast send here."""
        return data

    def bad_frame(self, conn: Transport, *, too_large: bool, bad_text: bool) -> None:
        """Send the code that says what is wrong."""
        code = _TOO_LARGE if too_large else 1007 if bad_text else 1002
        conn.context._fail(code, REASONS[code])

    # ---- receiving ------------------------------------------------------------------------------

    def take(
        self,
        conn: Transport,
        view: Any,
        raw: Any,
        starts: Sequence[int],
        ends: Sequence[int],
        tags: Sequence[int],
        first: int,
        last: int,
    ) -> None:
        """Deliver a run of frames, and send the replies.

        Args:
            conn: whose frames they are.
            view: what was read, read-only.
            raw: the same as an object whose slices are `bytes`.
            starts, ends: of each payload in it.
            tags: the first byte of each frame.
            first, last: which of all these are this run's.
        """
        ws: Connection = conn.context
        ws._heard = True
        while conn._cutting and ws._messages.state is _OPEN:  # type: ignore[union-attr]
            until = last if last - first < _PART else first + _PART
            left = [*tags[first:until]]
            following = iter(left)
            delivery = conn._loop._delivery
            run = delivery.run = (conn, starts, left, following, until, -1)
            on_message = self._on_message
            decodes = self._decodes
            outbox = conn._loop._outbox
            replies = outbox.frames_of(conn)
            append = replies.append
            frame = 0  # the first byte of all that is in `replies`
            try:
                for start, end, tag in zip(starts[first:until], ends[first:until], following):  # noqa: B905 - it may shrink
                    if tag == _WHOLE_BINARY:
                        message: Any = view[start:end]
                    elif tag == _WHOLE_TEXT:
                        message = raw[start:end]
                        if decodes:
                            message = str(message, "utf-8")
                    else:
                        message = self._other(ws, tag, view[start:end])
                        if message is None:
                            continue
                    reply = on_message(ws, message)
                    if reply is None:
                        continue
                    kind = type(reply)
                    if kind is bytes:
                        wanted = self._of_bytes
                    elif kind is str:
                        reply = reply.encode()
                        wanted = _WHOLE_TEXT
                    else:
                        wanted = _WHOLE_BINARY
                        if reply is not message:
                            wanted, reply = self._as_message(reply)
                    if wanted != frame:
                        outbox.commit()
                        outbox.first = frame = wanted
                    append(reply)
                if delivery.run is run:
                    delivery.run = None
                    if replies:
                        self.commit(conn)
                    first = until
                else:
                    # Ended by a pause, or because it closes, and then its reply is not sent.
                    if not ws.connected:
                        replies.clear()
                    outbox.commit()
                    first = until - delivery.left
            except Exception as exc:
                delivery.run = None
                self._failed(conn, ws, exc)
                return
            if first == last:
                return
        self._take_later(conn, ws, (view, raw, starts, ends, tags, first, last))

    def take_one(
        self, conn: Transport, view: Any, raw: Any, start: int, end: int, tag: int
    ) -> None:
        """The same with a single frame, in fewer steps, as nothing can be left of it.

        What becomes of a message and its reply is written out in both, since a call more for each
        message would show.
        """
        ws: Connection = conn.context
        ws._heard = True
        if not conn._cutting or ws._messages.state is not _OPEN:  # type: ignore[union-attr]
            self._take_later(conn, ws, (view, raw, (start,), (end,), (tag,), 0, 1))
            return
        try:
            if tag == _WHOLE_BINARY:
                message: Any = view[start:end]
            elif tag == _WHOLE_TEXT:
                message = raw[start:end]
                if self._decodes:
                    message = str(message, "utf-8")
            else:
                message = self._other(ws, tag, view[start:end])
                if message is None:
                    return
            on_message = self._on_message  # CPython 3.11 is slow at calling an attribute
            reply = on_message(ws, message)
            if reply is None:
                return
            kind = type(reply)
            if kind is bytes:
                frame = self._of_bytes
            elif kind is str:
                reply = reply.encode()
                frame = _WHOLE_TEXT
            else:
                frame = _WHOLE_BINARY
                if reply is not message:
                    frame, reply = self._as_message(reply)
            size = len(reply)
            outbox = conn._loop._outbox
            if not conn._cutting or ws._messages.state is not _OPEN:  # type: ignore[union-attr]
                ws._send(frame & 0x0F, reply)
            elif size < self._plain_below:
                blob, pieces = outbox.blob, outbox.pieces
                join(blob, reply)
                end = len(blob)
                pieces.append(conn._token)
                pieces.append(end | _UPPER[frame])
                if end > FLUSH_AT:
                    outbox.flush()
            elif self._always_plain:
                outbox.add_large(conn._token, reply, frame)
            else:
                ws._send(frame & 0x0F, reply)
        except Exception as exc:
            self._failed(conn, ws, exc)

    def _take_later(self, conn: Transport, ws: Connection, run: Run) -> None:
        """With frames that are not to be delivered now."""
        view, raw, starts, ends, tags, first, last = run
        if not conn.connected:
            conn._loop._reactor.recount(first - last, 0)
        elif ws._messages.state is _OPEN:  # type: ignore[union-attr]
            if type(raw) is bytes:  # it was kept before, or is a copy
                ws._keep(*run)
                return
            offset = starts[first]
            data = bytes(view[offset : ends[last - 1]])
            ws._keep(
                memoryview(data),
                data,
                [start - offset for start in starts[first:last]],
                [end - offset for end in ends[first:last]],
                tags[first:last],
                0,
                last - first,
            )
        else:  # our side of the closing handshake is done, the peer's may be among them
            conn._loop._reactor.recount(first - last, 0)
            for i in range(first, last):
                self._other(ws, tags[i], view[starts[i] : ends[i]], count=0)

    def _other(self, ws: Connection, tag: int, payload: Any, count: int = -1) -> Any:
        """A frame that is no whole message; return the message that it completes, or None."""
        messages = ws._messages
        assert messages is not None
        ws.loop._outbox.commit()  # a close frame ends what may be sent
        event = messages.receive(tag, payload)
        if event is not None:
            ws._output(event.reply)
            if event.opcode == TEXT:
                return str(event.data, "utf-8") if self._decodes else bytes(event.data)
            if event.opcode == BINARY:
                return memoryview(event.data).toreadonly()
        if count:
            ws.loop._reactor.recount(count, 0)
        if event is not None:
            if event.opcode == CLOSE:
                ws._end()
            elif event.opcode == PING:
                self._handler.on_ping(ws, bytes(event.data))
            else:
                self._handler.on_pong(ws, bytes(event.data))
        return None

    def _failed(self, conn: Transport, ws: Connection, exc: Exception) -> None:
        """The handler raised, or a compressed message is none."""
        life = conn._loop._life
        try:
            conn._loop._outbox.commit()
        except Exception as first:
            life.failed(conn, first)
        if isinstance(exc, FrameError):
            ws._fail(exc.code, exc.reason)
            error = FrameTooLargeError if exc.code == _TOO_LARGE else ProtocolError
            exc = error(str(exc))
        life.failed(conn, exc)

    # ---- sending --------------------------------------------------------------------------------

    def _as_message(self, reply: Any) -> tuple[int, Payload]:
        """The first byte of the frame that `reply` is to be sent in, and its bytes, which nobody
        can change.

        Raises:
            TypeError: it is no message.
        """
        if isinstance(reply, str):
            return _WHOLE_TEXT, reply.encode()
        if isinstance(reply, bytes):
            return self._of_bytes, reply
        if isinstance(reply, (bytearray, memoryview)):
            return _WHOLE_BINARY, bytes(reply)
        raise TypeError(f"a message must be bytes-like, not {reply!r}")

    def commit(self, conn: Transport) -> None:
        """Queue the replies of a run.

        They are of one kind, `Outbox.first`.
        """
        outbox = conn._loop._outbox
        replies = outbox.frames_of(conn)
        sizes = [*map(len, replies)]
        if max(sizes) < self._plain_below:
            outbox.blob.extend(b"".join(replies))
            replies.clear()
            pieces = outbox.pieces
            pieces.append(conn._token + SEND_RUN)
            pieces.append(len(sizes) | outbox.first << FIRST_AT)
            pieces.extend(sizes)
            if len(outbox.blob) > FLUSH_AT:
                outbox.flush()
            return
        one_by_one = replies.copy()
        replies.clear()
        opcode = outbox.first & 0x0F
        for reply in one_by_one:
            conn.context._send(opcode, reply)
