"""Changing the protocol of a connection, and pausing, with bytes that have come already."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from helpers import (
    PATIENCE,
    Recorder,
    connect,
    on_loop,
    receive_all,
    receive_exactly,
    serving,
    wait,
)
from protocols import Framed, framed, pieces

from gevffi import (
    CloseReason,
    Connection,
    Delimited,
    FixedSize,
    Handler,
    LengthPrefixed,
    Protocol,
    Raw,
    ReadBuffer,
)

# How each protocol is made, and how it frames a payload.
PROTOCOLS: dict[str, tuple[Any, Any]] = {
    "raw": (Raw, bytes),
    "python": (Framed, framed),
    "lengths": (lambda: LengthPrefixed(2, max_size=30), lambda b: len(b).to_bytes(2, "big") + b),
    "lines": (lambda: Delimited(b"\r\n", max_size=30), lambda b: b + b"\r\n"),
    "fixed": (lambda: FixedSize(8), bytes),
    "one": (lambda: Delimited(b"|", max_size=30, one_at_a_time=True), lambda b: b + b"|"),
}
SWITCH = b"switch!!"
BODIES = [b"8 bytes.", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"the last"]


class Switches(Recorder):
    """Goes on under `then` when it gets SWITCH; replies with all it gets."""

    def __init__(self, then: Protocol) -> None:
        super().__init__(lambda data: data)
        self.then = then

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        reply = super().on_message(conn, ctx, data)
        if bytes(data) == SWITCH:
            conn.send(b"old old.")
            conn.set_protocol(self.then)
        return reply


PAIRS = pytest.mark.parametrize(("before", "after"), list(itertools.product(PROTOCOLS, PROTOCOLS)))


@PAIRS
@pytest.mark.parametrize("deliver", ["once", "split"])
def test_from_on_message(before: str, after: str, deliver: str) -> None:
    make_old, old = PROTOCOLS[before]
    make_new, new = PROTOCOLS[after]
    first = [] if before == "raw" else [old(b"earlier.")]
    head = b"".join(first) + old(SWITCH)
    tail = b"".join(map(new, BODIES))
    wanted = b"".join(first) + old(b"old old.") + new(SWITCH) + tail
    # Raw has whatever has come for a message, so the switch has to come by itself.
    splits: Any = [len(head)] if before == "raw" else range(len(head + tail))
    if deliver == "once":
        splits = splits[:1]
    for at in splits:
        handler = Switches(make_new())
        with pieces(handler, make_old()) as client:
            stream = head + tail
            if at:
                client.send(stream[:at])
            client.send(stream[at:])
            if after == "raw":  # it may come in pieces
                wanted = b"".join(first) + old(b"old old.") + SWITCH + tail
            assert receive_exactly(client.sock, len(wanted)) == wanted
            assert "error" not in handler.rest()


@pytest.mark.parametrize("after", PROTOCOLS)
@pytest.mark.parametrize("before", [name for name in PROTOCOLS if name != "raw"])
def test_from_elsewhere_with_half_a_frame_there(before: str, after: str) -> None:
    """From a timer or another thread: what the old protocol waits for, the new one cuts. (Raw
    never waits.)"""
    make_old, _ = PROTOCOLS[before]
    make_new, new = PROTOCOLS[after]
    stream = new(b"8 bytes.")
    handler = Recorder()
    with pieces(handler, make_old()) as client:
        client.send(stream[:1])  # which no protocol but Raw is content with
        done = threading.Event()

        def switch() -> None:
            client.conn.set_protocol(make_new())
            done.set()

        loop = client.conn.loop
        loop.call_soon_threadsafe(loop.call_later, 0, switch)
        wait(done)
        client.send(stream[1:])
        got = handler.next("message").value[1]
        while after == "raw" and len(got) < len(stream):
            got += handler.next("message").value[1]
        assert got == b"8 bytes."
        assert handler.rest() == []


def test_a_new_handler_takes_over() -> None:
    second = Recorder(lambda data: data)

    class Upgrades(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            conn.set_protocol(LengthPrefixed(), second)
            return None

    first = Upgrades()
    with serving(first, protocol=Delimited()) as server, connect(server) as sock:
        sock.sendall(b"upgrade\n" + framed(b"one", b"two"))
        assert receive_exactly(sock, 14) == framed(b"one", b"two")
    assert [second.next("message").value[1] for _ in range(2)] == [b"one", b"two"]
    assert second.until("close")
    assert first.rest() == ["connect"]


def test_back_and_forth_in_one_read() -> None:
    line, lengths = Delimited(), LengthPrefixed(1)

    class Alternates(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            conn.context = not conn.context
            conn.set_protocol(lengths if conn.context else line)
            return data

    stream = b"".join(b"line\n\4byte" for _ in range(500))
    with pieces(Alternates(), line) as client:
        client.send(stream)
        # Each reply is dressed by the protocol that has just been set.
        wanted = b"\4linebyte\n" * 500
        assert receive_exactly(client.sock, len(wanted)) == wanted


def test_in_the_middle_of_a_run_with_replies_before() -> None:
    handler = Switches(Raw())
    with pieces(handler, Delimited()) as client:
        client.send(b"1\n2\n" + SWITCH + b"\n" + b"raw\nraw")
        wanted = b"1\n2\nold old.\n" + SWITCH + b"raw\nraw"
        assert receive_exactly(client.sock, len(wanted)) == wanted


@pytest.mark.parametrize("message", [b"head", None])
@pytest.mark.parametrize("parts", [(b"headrest",), (b"he", b"adrest")], ids=["once", "split"])
def test_from_unpacket(message: bytes | None, parts: tuple[bytes, ...]) -> None:
    class Head(Protocol):
        def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
            if len(buffer) < 4:
                return None, None
            head = buffer.read(4)
            conn.set_protocol(FixedSize(4))
            return None, message and head

    handler = Recorder(lambda data: data)
    with pieces(handler, Head()) as client:
        for part in parts:
            client.send(part)
        for expected in filter(None, (message, b"rest")):
            assert handler.next("message").value[1] == expected
            assert receive_exactly(client.sock, 4) == expected


def test_what_is_no_protocol() -> None:
    handler = Recorder()
    with pieces(handler, Delimited()) as client:
        with pytest.raises(TypeError, match=r"must be a gevffi\.Protocol, not 7"):
            client.conn.set_protocol(7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"must be a gevffi\.Handler, not 7"):
            client.conn.set_protocol(Raw(), 7)  # type: ignore[arg-type]
        client.send(b"fine\n")
        assert handler.next("message").value[1] == b"fine"


def test_from_a_closed_connection() -> None:
    handler = Recorder()
    with serving(handler, protocol=Delimited()) as server:
        with connect(server):
            conn = handler.next("connect").conn
        handler.until("close")
        conn.set_protocol(Raw())
        conn.resume_reading()
        with connect(server) as sock:
            sock.sendall(b"fine\n")
            assert handler.until("message").value[1] == b"fine"


# ---- pausing ------------------------------------------------------------------------------------


class Pauses(Handler):
    """Pauses after each message that `when` picks, and resumes when it is told to."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.got: list[bytes] = []
        self.paused = False
        self.while_paused = 0
        self.resumed = 0
        self.done = threading.Event()

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        self.while_paused += self.paused
        self.got.append(bytes(data))
        if len(self.got) % self.every == 0:
            conn.pause_reading()
            self.paused = True
            conn.loop.call_later(0, self.resume, conn)
        if data == b"the end.":
            self.done.set()
        return data

    def resume(self, conn: Connection) -> None:
        self.paused = False
        self.resumed += 1
        conn.resume_reading()


@pytest.mark.parametrize("every", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", [kind for kind in PROTOCOLS if kind != "raw"])
def test_pausing_loses_nothing(kind: str, every: int) -> None:
    make, encode = PROTOCOLS[kind]
    bodies = [b"%08d" % i for i in range(300)] + [b"the end."]
    stream = b"".join(map(encode, bodies))
    handler = Pauses(every)
    with serving(handler, protocol=make()) as server, connect(server) as sock:
        sock.sendall(stream)
        assert receive_exactly(sock, len(stream)) == stream
        wait(handler.done)
    assert handler.got == bodies
    assert handler.while_paused == 0
    assert handler.resumed >= len(bodies) // every - 1


@pytest.mark.parametrize("protocol", [LengthPrefixed(max_size=1 << 22), FixedSize(100_004)])
def test_pausing_with_large_frames(protocol: Protocol) -> None:
    bodies = [bytes([i]) * 100_000 for i in range(20)]
    stream = b"".join(map(framed, bodies))
    handler = Pauses(1)
    with serving(handler, protocol=protocol) as server, connect(server) as sock:
        sock.settimeout(PATIENCE)
        sender = threading.Thread(target=sock.sendall, args=(stream,))
        sender.start()
        assert receive_exactly(sock, len(stream)) == stream
        sender.join()
    assert b"".join(body[-100_000:] for body in handler.got) == b"".join(bodies)
    assert handler.while_paused == 0


def test_more_than_an_arena_is_given_back() -> None:
    """A large buffer of a protocol in Python becomes frames cut in C, which pause again."""
    bodies = [b"%08d" % i for i in range(40_000)]

    class Holds(Protocol):
        def unpacket(self, conn: Connection, buffer: Any) -> tuple[Any, Any]:
            if buffer.find(b"the end.") >= 0 and not conn.context:
                conn.context = True
                conn.loop.call_later(0, conn.set_protocol, FixedSize(8))
            return None, None

    handler = Pauses(1000)
    with serving(handler, protocol=Holds(), arena_size=1 << 17) as server, connect(server) as sock:
        stream = b"".join(bodies) + b"the end."
        sock.sendall(stream)
        assert receive_exactly(sock, len(stream)) == stream
    assert handler.got == [*bodies, b"the end."]
    assert handler.while_paused == 0


def test_pausing_and_closing_with_frames_given_back() -> None:
    class Ends(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            conn.pause_reading()
            conn.close()
            conn.resume_reading()
            return data

    handler = Ends()
    with pieces(handler, Delimited()) as client:
        client.send(b"1\n2\n3\n")
        assert receive_all(client.sock) == b"1\n"
        assert handler.next("message").value[1] == b"1"
        client.sock.close()
        assert handler.next("close").value is CloseReason.LOCAL


def test_resuming_and_switching_at_once() -> None:
    """What the old protocol would have been called for again belongs to the new one."""
    handler = Recorder()
    with pieces(handler, Framed()) as client:
        client.send(b"\0\0\0")

        def switch() -> None:
            client.conn.pause_reading()
            client.conn.resume_reading()
            client.conn.set_protocol(Raw())

        client.conn.loop.call_soon_threadsafe(switch)
        assert handler.next("message").value[1] == b"\0\0\0"
        client.send(b"x")
        assert handler.next("message").value[1] == b"x"


# ---- from another connection's callback ---------------------------------------------------------


class Meddles(Recorder):
    """The first message from anybody is for the other connection: `deed(other)`."""

    def __init__(self, deed: Any) -> None:
        super().__init__()
        self.deed = deed
        self.conns: list[Connection] = []

    def on_connect(self, conn: Connection) -> None:
        super().on_connect(conn)
        self.conns.append(conn)

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        super().on_message(conn, ctx, data)
        if self.deed is not None:
            deed, self.deed = self.deed, None
            deed(next(other for other in self.conns if other is not conn))


@pytest.mark.parametrize("before", [Delimited(), Raw()], ids=repr)
@pytest.mark.parametrize("after", [LengthPrefixed(1), Raw(), FixedSize(4), Framed()], ids=repr)
def test_the_other_one_has_been_read_in_the_same_turn(before: Protocol, after: Protocol) -> None:
    handler = Meddles(lambda other: other.set_protocol(after))
    data = b"\0\0\0\4abc\n" if isinstance(after, Framed) else b"\3ab\n"
    with (
        serving(handler, protocol=before) as server,
        connect(server) as one,
        connect(server) as two,
    ):
        loop = server.loops[0]
        handler.next("connect")
        handler.next("connect")
        held, go = threading.Event(), threading.Event()

        def hold() -> None:  # so that both have come when the next turn reads
            held.set()
            wait(go)

        loop.call_soon_threadsafe(hold)
        wait(held)
        one.sendall(data)
        two.sendall(data)
        go.set()
        first = handler.next("message")
        second = handler.next("message")
        assert first.conn is not second.conn
        expected = {LengthPrefixed: b"ab\n", Framed: b"abc\n"}.get(type(after), data)
        assert second.value[1] == expected
        assert handler.rest() == []
        # Counted when the next turn begins; what was given back is counted once.
        turned = threading.Event()
        loop.call_soon_threadsafe(loop.call_soon_threadsafe, turned.set)
        wait(turned)
        assert loop.stats().messages_received == 2


def test_the_other_one_has_been_read_in_part() -> None:
    """What the arena had no room for in that turn comes behind what it had."""

    class Longer(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> None:
            super().on_message(conn, ctx, data)
            if conn is not slow and conn._protocol is not lines:
                slow.set_protocol(lines)

    lines = Delimited(max_size=1 << 20)
    handler = Longer()
    with (
        serving(handler, protocol=lines, arena_size=1 << 18) as server,
        connect(server) as one,
        connect(server) as two,
    ):
        conns = [handler.next("connect").conn, handler.next("connect").conn]
        slow = next(c for c in conns if str(c.peer_address).endswith(f":{two.getsockname()[1]}"))
        quick = next(c for c in conns if c is not slow)
        first, line = bytes(60_000), b"".join(b"%07d " % i for i in range(50_000))
        kept: list[int] = []

        def look(conn: Connection) -> None:
            kept.append(conn.read_buffer_length)

        for sock, conn, data in ((one, quick, first), (two, slow, line)):
            sock.sendall(data)
            while kept[-1:] != [len(data)]:
                on_loop(server.loops[0], look, conn)

        def switch() -> None:  # the next turn takes all of the one, and a part of the other
            quick.set_protocol(Raw())
            slow.set_protocol(Raw())

        on_loop(server.loops[0], switch)
        assert handler.next("message").conn is quick
        two.sendall(b"\n")
        assert handler.next("message").value[1] == line
