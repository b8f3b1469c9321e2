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
good part of what a message costs; hence a function that looks up nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevffi.sys.errors import check
from gevffi.sys.reactor import DUE, FRAMES, MORE, RUNS

if TYPE_CHECKING:
    from gevffi.loop import EventLoop


def turn(loop: EventLoop) -> None:
    """Turn until the loop has stopped. On its thread."""
    arena, life = loop._arena, loop._life
    mailbox, timers = loop._mailbox, loop._timers
    calls = mailbox.calls
    outbox = loop._outbox
    pieces, blob, large = outbox.pieces, outbox.blob, outbox.large
    delivery = loop._delivery
    frames, runs, switched = delivery.frames, delivery.runs, delivery.switched
    poll, log = loop._reactor.poll, loop._log
    while True:  # CPython 3.11 would not specialize the code of a `while` with a condition
        if loop._stopping and not life.count:
            return
        found = poll(arena.start, timers.due, pieces, blob, large)
        if found < 0:
            check(found, "gev_loop_poll")
        if pieces:
            pieces.clear()
            if blob:
                blob.clear()
            if large:
                large.clear()
        if switched:
            switched.clear()
        read = found & FRAMES
        if read:
            frames(read)
        if found > FRAMES:
            if found & RUNS:
                runs()
            if found & MORE:
                _more(loop)
            if found & DUE:
                timers.run_due(log)
        if calls:
            mailbox.run(log)
        if outbox.parts or life.closing:
            outbox.flush()
            life.close_flushed()
        if (read or found & RUNS) and not arena.settle():
            outbox.flush()
            arena.move()


def _more(loop: EventLoop) -> None:
    loop._delivery.large()
    changes, accepted, error, listener = loop._reactor.more()
    if changes:
        loop._life.apply(changes)
    if accepted:
        loop._acceptor.hand_out(accepted)
    if error:
        loop._acceptor.rest(error, listener)
