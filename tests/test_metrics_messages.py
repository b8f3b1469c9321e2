"""Messages that are counted: what a protocol makes of the bytes, however they arrived."""

from __future__ import annotations

from typing import Any

from helpers import Echo, Recorder, connect, held, receive_all, receive_exactly
from protocols import Framed, framed
from scraping import Checked, ask, measured, scrape, settle

from gevffi import Connection, Protocol, ReadBuffer


def test_messages_are_what_the_protocol_makes_of_the_bytes() -> None:
    """Several in one read, one in several reads, and none; replies of two pieces are one."""
    payloads = [b"a" * number for number in range(50)]
    handler = Echo()
    with measured(handler, protocol=Framed()) as server, connect(server) as sock:
        ask(sock, framed(*payloads))
        settle(server)
        now = scrape(server)
        assert now("messages_received_total") == now("messages_sent_total") == 50
        for byte in framed(b"slowly"):
            sock.sendall(bytes([byte]))
            settle(server)
        assert receive_exactly(sock, 10) == framed(b"slowly")
        settle(server)
        now = scrape(server)
        assert now("messages_received_total") == now("messages_sent_total") == 51
        ask(sock, framed(bytes(100_000)))  # the payload goes by pointer
        settle(server)
        now = scrape(server)
        assert now("messages_received_total") == now("messages_sent_total") == 52
        sent = sum(4 + len(payload) for payload in payloads) + 10 + 100_004
        assert now("bytes_received_total") == now("bytes_sent_total") == sent


def test_messages_before_an_error_count_and_those_behind_it_do_not() -> None:
    class Stops(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if data == b"stop":
                conn.close()
            return b"ok"

    handler = Stops()
    with measured(handler, protocol=Checked()) as server:
        with connect(server) as sock:
            sock.sendall(framed(b"1", b"2", b"stop", b"4", b"5"))
            assert receive_exactly(sock, 18) == framed(b"ok", b"ok", b"ok")
            handler.until("close")
        with connect(server) as sock:
            sock.sendall(framed(b"1", b"2") + b"\xff" * 8)
            assert receive_all(sock) == framed(b"ok", b"ok")
        handler.until("close")
        settle(server)
        now = scrape(server)
        assert now("messages_received_total") == now("messages_sent_total") == 5


def test_messages_of_a_connection_that_paused() -> None:
    class Pausing(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            if data == b"pause":
                conn.pause_reading()
            return data

    handler = Pausing()
    with measured(handler, protocol=Framed()) as server, connect(server) as sock:
        sock.sendall(framed(b"1", b"pause", b"3", b"4"))
        assert receive_exactly(sock, 14) == framed(b"1", b"pause")
        settle(server)
        assert scrape(server)("messages_received_total") == 2
        handler.until("message").conn.resume_reading()
        assert receive_exactly(sock, 10) == framed(b"3", b"4")
        settle(server)
        now = scrape(server)
        assert now("messages_received_total") == now("messages_sent_total") == 4


def test_what_nobody_hears_is_no_message() -> None:
    """Two connections are read in one turn, and the first one's message closes the second."""
    conns: list[Connection] = []
    heard: list[bytes] = []

    class Assassin(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            heard.append(bytes(data))
            for other in conns:
                other.close()

    handler = Assassin()
    with measured(handler) as server, connect(server) as one, connect(server) as two:
        conns += [handler.next("connect").conn, handler.next("connect").conn]
        with held(server.loops[0]):
            one.sendall(b"first")
            two.sendall(b"second")
        handler.until("close")
        handler.until("close")
        settle(server)
        now = scrape(server)
        assert len(heard) == 1
        assert now("messages_received_total") == 1
        assert now("bytes_received_total") == 11


class Parts(Protocol):
    """A reply is any number of pieces."""

    def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
        return (None, buffer.read(1)) if buffer else (None, None)

    def packet(self, conn: Connection, reply: Any) -> Any:
        return tuple(reply)


def test_a_reply_of_many_pieces_is_one_message() -> None:
    """Also where it is sent in parts, since a buffer that may change does not wait."""
    reply = [b"small", bytearray(9000), bytearray(9000), b"x" * 9000, b"end", bytearray(9000)]
    size = sum(map(len, reply))
    with measured(Recorder(lambda data: reply), protocol=Parts()) as server:
        with connect(server) as sock:
            for count in (1, 2, 7):
                sock.sendall(b"?" * count)
                receive_exactly(sock, size * count)
        settle(server)
        with connect(server) as sock:  # what was carried over goes with the next
            sock.sendall(b"?")
            receive_exactly(sock, size)
            settle(server)
            now = scrape(server)
            assert now("messages_received_total") == 11
            assert now("bytes_sent_total") == 11 * size
            assert now("messages_sent_total") == 11
