"""What a loop's callbacks want sent, gathered until the next turn begins by sending it.

Small pieces are joined into one blob as they come, so a caller may reuse its buffer at once. Large
ones go to the kernel by pointer. `bytes` and borrowed views cannot change, so they wait for the end
of the turn too; any other large buffer might, and everything is sent before `add` returns. A read
that is sent back as it came is told by its number in the turn, and needs neither.

    blob     |piece 0|piece 1|piece 3|
                     ^       ^       ^
    pieces   A 10    A 20   ~B 9000    C 34  ~4   token and end in the blob; for a large one
    large                  [piece 2]              inverted token and size; inverted number of a read

The replies to a run of frames are gathered in a list of their own and join the rest at once, when
the run has ended or something else is to be sent. Those to WebSocket messages go with the first
byte of their frames, which is the same for all that are gathered. As long as a handler returns each
message of a run as it came nothing is gathered: how far the run has come says it all, and that part
of it leaves from where it was read.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import iconcat, length_hint
from typing import TYPE_CHECKING, Any

from gevffi.arena import Arena
from gevffi.sys.reactor import FIRST_AT, SEND_RUN, Reactor, hold

if TYPE_CHECKING:
    from gevffi.connection import Connection

LARGE = 8192
"""Bytes from which a piece goes by pointer; smaller ones are copied into the blob."""

join: Callable[[bytearray, Any], object] = iconcat
"""Append a buffer. Not `+=`, which asks a NumPy array first and gets a sum."""
FLUSH_AT = 1 << 16
"""Bytes in the blob that are not to wait for the end of the turn."""


class Outbox:
    """The unsent pieces of a turn. Belongs to the loop's thread."""

    __slots__ = (
        "_arena",
        "_of",
        "_reactor",
        "_replies",
        "_tagged",
        "blob",
        "came",
        "first",
        "large",
        "lent",
        "parts",
        "pieces",
    )

    def __init__(self, reactor: Reactor, arena: Arena) -> None:
        self._reactor = reactor
        self._arena = arena
        # Emptied, never replaced: the loop's inner loop holds on to these very objects.
        self.blob = bytearray()
        self.pieces: list[int] = []
        self.large: list[Any] = []
        self.lent: Any = None
        """The memory of a large frame, while a handler is called with it."""
        self.parts = 0
        """Pieces that are no message of their own but go on with the one before."""
        self._replies: list[Any] = []
        self._of: Any = None  # whose they are
        self.came: list[Any] = []
        """The run under way, as long as each of its messages was returned as it came: its first
        cut, its last + 1, and an iterator over those that are left. Emptied, never replaced."""
        self._tagged = False  # they are messages of a WebSocket, and its protocol queues them
        self.first = 0
        """Of the frames of the replies that `frames_of` gathers: FIN and the opcode."""

    def replies_of(self, conn: Connection) -> list[Any]:
        """The list for the replies to a run of frames of `conn`, up to the next `commit`."""
        self._of = conn
        self._tagged = False
        return self._replies

    def frames_of(self, conn: Connection) -> list[Any]:
        """The list for the replies to a run of WebSocket frames; `first` goes with them."""
        self._of = conn
        self._tagged = True
        return self._replies

    def commit_came(self, under_way: int) -> None:
        """Queue what `came` tells of: all messages that were taken, but for the last one if that is
        `under_way` still (1, or 0)."""
        first, last, left = self.came
        self.came.clear()
        count = last - first - length_hint(left) - under_way
        if count:
            self.pieces += (self._of._token + SEND_RUN, ~count, first)

    def commit(self) -> None:
        """Queue the replies of the run, up to the one that is under way.

        Raises:
            ValueError, TypeError: a reply cannot be sent; those before it are queued.
        """
        if self.came:
            self.commit_came(1)
        replies, conn = self._replies, self._of
        if not replies:
            return
        if self._tagged:
            conn._protocol.commit(conn)
            return
        # There may be no framing any more, by `set_protocol` in the middle of the run.
        limit = LARGE - 1 if conn._packet is None else -1
        if conn._framing is not None:
            limit = min(limit, conn._framing.max_reply)
        try:
            sizes = [*map(len, replies)]
            size = sum(sizes)
            fit = size <= limit or max(sizes) <= limit
            joined = b"".join(replies) if fit else None
        except TypeError:  # one has no length, or is not bytes-like
            joined = None
        if joined is not None and len(joined) == size:
            replies.clear()
            self.blob.extend(joined)
            self.pieces.append(conn._token + SEND_RUN)
            self.pieces.append(len(sizes))
            self.pieces.extend(sizes)
            if len(self.blob) > FLUSH_AT:
                self.flush()
            return
        one_by_one = replies.copy()
        replies.clear()
        for reply in one_by_one:
            conn._send_packet(reply)

    def add(self, token: int, data: Any) -> None:
        """Send `data`, any bytes-like object, to the connection `token`.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        if self._replies or self.came:
            self.commit()
        try:
            if len(data) >= LARGE:
                self.add_large(token, data)
                return
            join(self.blob, data)
        except TypeError:
            self.add_scattered(token, data)
            return
        self.pieces.append(token)
        self.pieces.append(len(self.blob))
        if len(self.blob) > FLUSH_AT:
            self.flush()

    def is_fixed(self, data: Any) -> bool:
        """Whether these are bytes that nobody can change."""
        if type(data) is memoryview:
            data = data.obj
        return data is self._arena.region.buffer or type(data) is bytes or data is self.lent

    def add_large(self, token: int, data: Any, first: int = 0) -> None:
        """Send `data` by pointer; as a WebSocket frame, if it is given the first byte of one."""
        fixed = self.is_fixed(data)
        if type(data) is memoryview:
            data = memoryview(data)  # the caller may release its own
        try:
            base = hold(data)
        except (BufferError, ValueError):  # it does not lie in one piece
            base = hold(memoryview(data).tobytes())
        self.large.append(base)
        self.pieces.append(~token)
        self.pieces.append(len(base) | first << FIRST_AT)
        if not fixed:
            self.flush()

    def add_scattered(self, token: int, data: Any) -> None:
        """Queue a copy of a buffer that has no length or does not lie in one piece.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        self.add(token, memoryview(data).tobytes())

    def flush(self) -> None:
        """Send everything."""
        if self._replies or self.came:
            self.commit()
        if self.pieces:
            if self.parts:
                self._reactor.recount(0, -self.parts)
                self.parts = 0
            try:
                self._reactor.send(self.pieces, self.blob, self.large)
            finally:
                self.blob.clear()
                self.pieces.clear()
                self.large.clear()
