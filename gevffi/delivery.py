"""From the frames that C has cut to the handlers, and their replies to the outbox.

    runs     all frames of a read                                       -> on_message, or on_batch
    large    frames too large for the arena, each in a ring of its own  -> the same

This is where the time goes, so a message gets a handful of steps and no more. A handler that pauses
reading, or changes the protocol, in the middle of a run has the rest of the run given back: C keeps
it, and cuts it again when the time has come. The list of what is left of the run is emptied then,
which ends the loop over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import length_hint
from typing import TYPE_CHECKING, Any

from gevffi.arena import Arena
from gevffi.batch import Batch
from gevffi.outbox import Outbox
from gevffi.sys.reactor import SEND_RUN, Reactor

if TYPE_CHECKING:
    from gevffi.connection import Connection

Failed = Callable[["Connection", Exception], None]

_MEASURED = frozenset((bytes, bytearray, memoryview))
"""Types whose lengths are bytes if their sum is. Others need not have as many bytes as items: an
array of seven rows without columns, and a float behind it, add up to the eight bytes of the float.
"""


class Delivery:
    """Delivers what a loop's turn has read. Belongs to the loop's thread.

    Args:
        reactor: has read it.
        arena: into this.
        outbox: takes the replies.
        conns: the loop's connections, by slot.
        failed: gets a connection and the exception its callback raised.
    """

    def __init__(
        self,
        reactor: Reactor,
        arena: Arena,
        outbox: Outbox,
        conns: list[Connection | None],
        failed: Failed,
    ) -> None:
        self._reactor = reactor
        self._arena = arena
        self._outbox = outbox
        self._conns = conns
        self._failed = failed
        # Whose protocol was changed in this turn; what the old one has in front of payloads; and
        # the bytes that it had left, which are given back, to be in front of what this turn read.
        self.switched: dict[Connection, tuple[int, int]] = {}
        # The run under way: its connection, all starts, the ends that are left and an iterator over
        # them, the index after its last frame, and where in the arena that frame ends; -1 for a run
        # that is not to be given back, as its frames are unmasked.
        self.run: tuple[Connection, Sequence[int], list[int], Any, int, int] | None = None
        self.left = 0
        """Frames that were left of the last run that was ended early."""

    def unread_frame(self, conn: Connection, start: int, end: int) -> None:
        """A read that is not to be delivered, since the protocol was changed: have it cut."""
        if conn.connected:
            self._reactor.unread_arena(conn._token, start, end, self.switched[conn][1])
        self._reactor.recount(-1, 0)

    def runs(self) -> None:
        """Deliver frames that were cut in C."""
        outbox, switched, results = self._outbox, self.switched, self._reactor.results
        view, raw = self._arena.read()
        head = results.unpack_head(results.head)
        lists: Any = None  # where frames start and end; made when the first run needs them
        tags: Any = None
        conns = self._conns
        for slot, first, last, end_of_last, begin, end, tag in results.runs(head):
            conn: Any = conns[slot]
            one = last - first == 1
            if switched and conn in switched:
                self._unread(conn, first, last, begin, end_of_last)
                continue
            if conn._tagged:
                if one:
                    conn._protocol.take_one(conn, view, raw, begin, end, tag)
                    continue
                lists = lists or results.cuts(head)
                tags = tags or results.tags(head)
                conn._protocol.take(conn, view, raw, *lists, tags, first, last)
                continue
            if not conn._cutting:
                self._unread(conn, first, last, begin, end_of_last)
                continue
            if conn._batches:
                starts, ends = results.cut_arrays(head, first, last)
                self._batch(conn, Batch(view[:], starts, ends), first)
                continue
            data = raw if conn._framing.as_bytes else view
            receive = conn._receive  # for all of the run: see `end_run`
            if one:
                try:
                    message = data[begin:end]
                    reply = receive(conn, None, message)
                    if reply is message and conn._packet is None and conn not in switched:
                        outbox.pieces += (conn._token + SEND_RUN, ~1, first)
                    elif reply is not None:
                        conn._send_packet(reply)
                except Exception as exc:
                    self._failed(conn, exc)
                continue
            lists = lists or results.cuts(head)
            replies = outbox.replies_of(conn)
            starts, left = lists[0], [*lists[1][first:last]]
            following = iter(left)
            self.run = (conn, starts, left, following, last, end_of_last)
            came = outbox.came
            if conn._packet is None:
                came += (first, last, following)
            try:
                for start, end in zip(starts[first:last], following):  # noqa: B905 - it may shrink
                    message = data[start:end]
                    reply = receive(conn, None, message)
                    if reply is message and came:
                        continue
                    if came:
                        outbox.commit_came(1)
                    if reply is None:
                        continue
                    if reply is message or type(reply) is bytes or outbox.is_fixed(reply):
                        replies.append(reply)
                    else:  # its owner may change it
                        conn._send_packet(reply)
                if came:
                    outbox.commit_came(0)
                else:
                    outbox.commit()
            except Exception as exc:
                self._commit(conn)
                self._failed(conn, exc)
            self.run = None

    def _unread(self, conn: Any, first: int, last: int, begin: int, end: int) -> None:
        """A run of a connection that was paused, or has another protocol, by somebody else's
        callback: have it cut again, from the frame on whose payload is at `begin`."""
        if conn.connected:
            self._reactor.unread_arena(conn._token, begin - self._lead(conn), end)
        self._reactor.recount(first - last, 0)

    def _batch(self, conn: Any, batch: Batch, first: int) -> None:
        """Deliver the frames of a run, whose first cut is `first`; -1 if they are none."""
        try:
            reply = conn._handler.on_batch(conn, batch)
            if reply is batch and first >= 0 and conn._packet is None and conn not in self.switched:
                self._outbox.pieces += (conn._token + SEND_RUN, ~len(batch), first)
                return
            several = isinstance(reply, (list, tuple))
            if type(reply) is Batch or (several and _MEASURED.issuperset(map(type, reply))):
                self._outbox.replies_of(conn).extend(reply)
                self._outbox.commit()
            elif several:
                for each in reply:
                    conn._send_packet(each)
            elif reply is not None:
                conn._send_packet(reply)
        except Exception as exc:
            self._failed(conn, exc)

    def _lead(self, conn: Any) -> int:
        """What stands in front of the payloads that were cut of a connection in this turn."""
        before = self.switched.get(conn)
        return conn._framing.lead if before is None else before[0]

    def large(self, count: int) -> None:
        """Deliver the frames that have a ring of their own, which becomes theirs."""
        for slot, start, size, total, tag in self._reactor.results.large(count):
            conn: Any = self._conns[slot]
            if conn is None or not conn._cutting or conn in self.switched:
                self._reactor.recount(-1, 0)
                continue  # told again, under another framing or when reading is resumed
            raw = self._reactor.take_large(conn._token, total)
            if raw is None:
                self._reactor.recount(-1, 0)
                continue
            self._outbox.lent = raw
            self._one_large(conn, raw, start, start + size, tag)
            self._outbox.lent = None

    def _one_large(self, conn: Any, raw: Any, start: int, end: int, tag: int) -> None:
        view = memoryview(raw).toreadonly()
        if conn._tagged:
            conn._protocol.take_one(conn, view, raw, start, end, tag)
            return
        if conn._batches:
            one = memoryview(bytearray(8)).cast("i")
            one[0], one[1] = start, end
            one = one.toreadonly()
            self._batch(conn, Batch(view, one[:1], one[1:]), -1)
            return
        try:
            data = raw if conn._framing.as_bytes else view
            reply = conn._receive(conn, None, data[start:end])
            if reply is not None:
                conn._send_packet(reply)
        except Exception as exc:
            self._failed(conn, exc)

    def end_run(self, conn: Connection) -> int:
        """End the run under way, if it is this connection's.

        What is left of WebSocket frames is for who runs them; the replies before are queued, so
        that a close frame comes behind them.

        Returns:
            How many frames are dropped.
        """
        run = self.run
        if run is None or run[0] is not conn:
            return 0
        self.run = None
        if self._outbox.came:
            self._outbox.commit_came(1)
        self.left = length_hint(run[3])
        run[2].clear()
        if run[5] < 0:
            self._commit(conn)
            return 0
        self._reactor.recount(-self.left, 0)
        return self.left

    def give_back(self, conn: Connection) -> None:
        """The same, and have the rest of the run cut again."""
        run = self.run
        count = self.end_run(conn)
        if run is not None and count:
            _conn, starts, _left, _following, last, end_of_last = run
            lead = conn._framing.lead  # type: ignore[union-attr]
            self._reactor.unread_arena(conn._token, starts[last - count] - lead, end_of_last)

    def _commit(self, conn: Connection) -> None:
        """Queue the replies before the one that is under way."""
        try:
            self._outbox.commit()
        except Exception as exc:
            self._failed(conn, exc)
