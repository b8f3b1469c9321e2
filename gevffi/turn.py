"""The turns of a loop, one after the other.

                 C, GIL free                                    Python
 ┌─────────────────────────────────────────┐      ┌─────────────────────────────────┐
 │ for each connection: one send, or keep  │      │ frames   -> on_message -> reply │
 │   the rest and arm for writable         │      │ accepted -> on_connect          │
 │ epoll_wait                              ├─────▶│ changes  -> on_drain, on_close  │
 │ accept4 new connections                 │      │ calls from threads, timers      │
 │ recv each ready socket into the arena   │      │                                 │
 │ flush what is writable                  │      └────────────────┬────────────────┘
 └─────────────────────────────────────────┘                       │
                     ▲            what is to be sent               │
                     └─────────────────────────────────────────────┘

A turn crosses into C once, however many connections are ready: what the handlers of one turn want
sent leaves at the beginning of the next, before it waits. Only what must be sent before a
connection closes, or before the arena changes, leaves earlier, in a call of its own.

A server whose clients wait for each reply has few messages in a turn, so what a turn costs is a
good part of what a message costs. Hence one long function that looks up nothing twice, and has the
inner loop for reads that are messages as they are. The inner loops for frames that were cut in C
are in `delivery.py`.

There is no test for connections that are closing or paused: these have a `_receive` that discards,
or gives back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevffi.outbox import LARGE, join
from gevffi.sys.errors import check
from gevffi.sys.numbers import FEW, int32s, int64s, pack_few_int64s, unpack_few_triples
from gevffi.sys.reactor import NULL, addresses, hold, poll
from gevffi.sys.results import DUE, FRAMES, MORE, RUNS

if TYPE_CHECKING:
    from gevffi.loop import EventLoop


def turn(loop: EventLoop) -> None:
    """Turn until the loop has stopped. On its thread."""
    arena, outbox, delivery, life = loop._arena, loop._outbox, loop._delivery, loop._life
    conns, failed, switched = life.conns, life.failed, delivery.switched
    pieces, blob, large = outbox.pieces, outbox.blob, outbox.large
    mailbox, timers, log = loop._mailbox, loop._timers, loop._log
    calls = mailbox.calls
    handle, frames = loop._reactor.handle, loop._reactor.results.frames
    pack, unpack = pack_few_int64s, unpack_few_triples
    view: Any
    conn: Any
    receive: Any
    message: Any
    while True:  # CPython 3.11 would not specialize the code of a `while` with a condition
        if loop._stopping and not life.count:
            return
        count = len(pieces)
        found = poll(
            handle,
            arena.start,
            timers.due,
            count,
            pack[count](*pieces) if count < FEW else int64s(count).pack(*pieces),
            hold(blob) if blob else NULL,
            len(blob),
            addresses(large) if large else NULL,
        )
        if found < 0:
            check(found, "gev_loop_poll")
        if count:
            pieces.clear()
            blob.clear()
            if large:
                large.clear()
        if switched:
            switched.clear()
        read = found & FRAMES
        if read:
            view = arena.view
            if view is None:
                view = arena.read()[0]
            back = 0
            row = iter(unpack[read](frames) if read < FEW else int32s(3 * read).unpack_from(frames))
            for slot, start, end in zip(row, row, row):  # noqa: B905 - a step more
                back -= 1  # what says "this frame, to where it came from"
                conn = conns[slot]
                if switched and conn in switched:  # by somebody else's callback
                    delivery.unread_frame(conn, start, end)
                    continue
                try:
                    message = view[start:end]
                    receive = conn._receive  # CPython 3.11 is slow at calling an attribute
                    reply = receive(conn, None, message)
                    if reply is None:
                        continue
                    if switched and conn in switched:
                        conn._send_packet(reply)
                    elif reply is message:  # leaves from where it was read
                        pieces.append(back)
                    else:
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
                    failed(conn, exc)
            view = conn = receive = message = reply = None  # or these would count as kept
        if found > FRAMES:
            if found & RUNS:
                delivery.runs()
            if found & MORE:
                _more(loop)
            if found & DUE:
                timers.run_due(log)
        if calls:
            mailbox.run(log)
        if outbox.parts or life.closing:
            outbox.flush()
            life.close_flushed()
        if read or found & RUNS:
            if arena.references() == arena.alone:
                arena.start = 0
            elif not arena.settle():
                outbox.flush()
                arena.move()


def _more(loop: EventLoop) -> None:
    results = loop._reactor.results
    head = results.unpack_head(results.head)
    changes, accepted, error, listener, _runs, _cuts, _moved, large = head
    if large:
        loop._delivery.large(large)
    if changes:
        loop._life.apply(changes)
    if accepted:
        loop._acceptor.hand_out(accepted)
    if error:
        loop._acceptor.rest(error, listener)
