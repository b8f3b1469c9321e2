"""The inner loops: from what a turn has read to the handlers, and their replies to the outbox.

    frames   one for each read, where nothing is to be cut              -> on_message
    runs     all frames of a read, where they were cut in C             -> on_message, or on_batch
    large    frames too large for the arena, each in a ring of its own  -> the same

This is where the time goes, so a message gets a handful of steps and no more. There is no test for
connections that are closing: these have a `_receive` that discards. A handler that pauses reading,
or changes the protocol, in the middle of a run has the rest of the run given back: C keeps it, and
cuts it again when the time has come. The list of what is left of the run is emptied then, which
ends the loop over it.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import length_hint
from typing import TYPE_CHECKING, Any

from gevffi.arena import Arena
from gevffi.batch import Batch
from gevffi.outbox import LARGE, Outbox, join
from gevffi.sys.reactor import Reactor

if TYPE_CHECKING:
    from gevffi.connection import Connection

Failed = Callable[["Connection", Exception], None]


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
        # Of the turn's runs: those still to come, the next one last; where their frames start and
        # end, in arrays, once they were taken.
        self._waiting: list[tuple[int, int, int, int]] = []
        self._arrays: tuple[memoryview, memoryview] | None = None
        # The run under way: its connection, all starts, the ends that are left and an iterator over
        # them, the index after its last frame, and where in the arena the read ends.
        self._run: tuple[Connection, list[int], list[int], Any, int, int] | None = None

    def frames(self, count: int) -> None:
        """Deliver reads as they are."""
        conns = self._conns
        outbox = self._outbox
        blob, pieces = outbox.blob, outbox.pieces
        arena = self._arena
        view = arena.view()
        for slot, start, end in self._reactor.frames(count):
            conn: Any = conns[slot]
            try:
                reply = conn._receive(conn, None, view[start:end])
                if reply is not None:
                    try:
                        if len(reply) < LARGE:
                            join(blob, reply)
                            pieces.append(conn._token)
                            pieces.append(len(blob))
                        else:
                            outbox.add_large(conn._token, reply)
                    except TypeError:
                        outbox.add_scattered(conn._token, reply)
            except Exception as exc:
                self._failed(conn, exc)

    def runs(self) -> None:
        """Deliver frames that were cut in C."""
        reactor, outbox = self._reactor, self._outbox
        view, raw = self._arena.view(), self._arena.buffer()
        lists: Any = None  # starts and ends, made when the first run needs them
        waiting = self._waiting = list(reactor.runs())
        waiting.reverse()
        while waiting:
            slot, first, last, read_end = waiting.pop()
            conn: Any = self._conns[slot]
            replies = outbox.replies_of(conn)
            try:
                if conn._handler.on_batch is None:
                    lists = lists or self._lists()
                    starts, left = lists[0], lists[1][first:last]
                    following = iter(left)
                    self._run = (conn, starts, left, following, last, read_end)
                    data = raw if conn._framing.as_bytes else view
                    for start, end in zip(starts[first:last], following):  # noqa: B905 - it may shrink
                        reply = conn._receive(conn, None, data[start:end])
                        if reply is not None:
                            replies.append(reply)
                elif conn._cutting:
                    arrays = self._arrays = self._arrays or reactor.take_cuts()
                    batch = Batch(view, arrays[0][first:last], arrays[1][first:last])
                    _answer(conn, batch, replies)
                else:
                    reactor.recount(first - last, 0)
            except Exception as exc:
                self._commit(conn)
                self._failed(conn, exc)
            else:
                self._commit(conn)
            self._run = None
        self._arrays = None

    def _lists(self) -> Any:
        if self._arrays is None:
            return self._reactor.cuts()
        return [array.tolist() for array in self._arrays]

    def large(self) -> None:
        """Deliver the frames that have a ring of their own, which becomes theirs."""
        for slot, start, size, total in self._reactor.large():
            conn: Any = self._conns[slot]
            if conn is None or not conn._cutting:
                self._reactor.recount(-1, 0)
                continue  # told again when reading is resumed
            region = self._reactor.take_large(conn._token, total)
            if region is None:
                self._reactor.recount(-1, 0)
                continue
            replies = self._outbox.replies_of(conn)
            end = start + size
            try:
                if conn._handler.on_batch is None:
                    data = region.buffer if conn._framing.as_bytes else region.root()
                    reply = conn._receive(conn, None, data[start:end])
                    if reply is not None:
                        replies.append(reply)
                else:
                    one = memoryview(bytearray(8)).cast("i")
                    one[0], one[1] = start, end
                    one = one.toreadonly()
                    _answer(conn, Batch(region.root(), one[:1], one[1:]), replies)
            except Exception as exc:
                self._failed(conn, exc)
            self._commit(conn)

    def give_back(self, conn: Connection) -> None:
        """Have what was cut of a connection in this turn, and not delivered yet, cut again.

        Called while the connection's framing is still the one it was cut by.
        """
        run = self._run
        if run is not None and run[0] is conn:
            _conn, starts, left, following, last, read_end = run
            self._run = None
            count = length_hint(following)
            left.clear()
            if count:
                self._unread(conn, count, starts[last - count], read_end)
            return
        slot = conn._token & 0xFFFFFFFF
        for i, (other, first, last, read_end) in enumerate(self._waiting):
            if other == slot:
                del self._waiting[i]
                arrays = self._arrays
                start = arrays[0][first] if arrays else self._reactor.cut_start(first)
                self._unread(conn, last - first, start, read_end)
                return

    def _unread(self, conn: Any, count: int, start: int, read_end: int) -> None:
        self._reactor.recount(-count, 0)
        self._reactor.unread_arena(conn._token, start - conn._framing.lead, read_end)

    def _commit(self, conn: Connection) -> None:
        try:
            self._outbox.commit()
        except Exception as exc:
            self._failed(conn, exc)


def _answer(conn: Any, batch: Batch, replies: list[Any]) -> None:
    reply = conn._handler.on_batch(conn, batch)
    if isinstance(reply, (list, tuple, Batch)):
        replies.extend(reply)
    elif reply is not None:
        replies.append(reply)
