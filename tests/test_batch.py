"""Handlers with an `on_batch`: all frames of a read at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import Recorder, connect, receive_all, receive_exactly, serving
from protocols import framed, pieces

from gevffi import (
    Batch,
    CloseReason,
    Connection,
    Delimited,
    FixedSize,
    LengthPrefixed,
    Protocol,
    Raw,
    Server,
)


class Batches(Recorder):
    """Records batches as lists of bytes, keeps them, and answers with what `answer` makes."""

    def __init__(self, answer: Any = lambda batch: batch) -> None:
        super().__init__()
        self.answer = answer
        self.kept: list[Batch] = []

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        raise AssertionError("on_batch is called instead")

    def on_batch(self, conn: Connection, batch: Batch) -> Any:
        self.kept.append(batch)
        self._put("batch", conn, list(map(bytes, batch)))
        return self.answer(batch)


def test_one_call_for_all_frames_of_a_read() -> None:
    handler = Batches()
    with pieces(handler, LengthPrefixed()) as client:
        client.send(framed(b"a", b"", b"bcd") + b"\0\0")
        assert handler.next("batch").value == [b"a", b"", b"bcd"]
        client.send(b"\0\1e")
        assert handler.next("batch").value == [b"e"]
        wanted = framed(b"a", b"", b"bcd", b"e")
        assert receive_exactly(client.sock, len(wanted)) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (lambda batch: None, b""),
        (lambda batch: [], b""),
        (lambda batch: [b"no", bytearray(b"yes")], framed(b"no", b"yes")),
        (lambda batch: (b"tu", memoryview(b"ple")), framed(b"tu", b"ple")),
        (lambda batch: [np.zeros((7, 0)), np.ones(1)], framed(b"", np.ones(1).tobytes())),
        (lambda batch: batch, framed(b"one", b"two", b"three")),
        (lambda batch: batch[1:], framed(b"two", b"three")),
        (lambda batch: b"single", framed(b"single")),
        (lambda batch: b"", framed(b"")),
        (lambda batch: batch[0], framed(b"one")),
        (lambda batch: np.arange(4, dtype=np.uint8), framed(bytes(range(4)))),
        (lambda batch: [b"L" * 10_000, b"s"], framed(b"L" * 10_000, b"s")),
    ],
)
def test_what_it_may_return(answer: Any, wanted: bytes) -> None:
    handler = Batches(answer)
    with pieces(handler, LengthPrefixed()) as client:
        client.send(framed(b"one", b"two", b"three"))
        handler.next("batch")
        client.conn.send(b"end")
        assert receive_exactly(client.sock, len(wanted) + 7) == wanted + framed(b"end")


def test_a_batch_is_a_sequence() -> None:
    seen: list[Any] = []

    def look(batch: Batch) -> None:
        seen.append(
            [
                len(batch),
                bytes(batch[0]),
                bytes(batch[-1]),
                list(map(bytes, batch[1:])),
                list(map(bytes, batch[::2])),
                list(map(bytes, reversed(batch))),
                b"two" in batch,
                bytes(batch.span),
                repr(batch),
                batch.data.readonly and batch.starts.readonly and batch.ends.readonly,
            ]
        )
        with pytest.raises(IndexError):
            batch[3]

    with pieces(Batches(look), Delimited()) as client:
        client.send(b"one\ntwo\nthree\n")
        client.conn.send(b"")
        assert receive_exactly(client.sock, 1) == b"\n"
    assert seen == [
        [
            3,
            b"one",
            b"three",
            [b"two", b"three"],
            [b"one", b"three"],
            [b"three", b"two", b"one"],
            True,
            b"one\ntwo\nthree",
            "<Batch of 3 frames>",
            True,
        ]
    ]


def test_arrays_over_starts_and_ends() -> None:
    sums: list[int] = []

    def total(batch: Batch) -> None:
        starts, ends = np.asarray(batch.starts), np.asarray(batch.ends)
        assert starts.dtype == np.int32
        assert ends.dtype == np.int32
        assert not starts.flags.owndata
        data = np.frombuffer(batch.data, np.uint8)
        sums.extend(int(data[s:e].sum()) for s, e in zip(starts, ends, strict=True))
        assert (ends - starts).tolist() == list(map(len, batch))

    bodies = [bytes([i]) * (i % 7) for i in range(200)]
    with pieces(Batches(total), LengthPrefixed(1)) as client:
        for _ in range(2):
            client.send(b"".join(bytes([len(body)]) + body for body in bodies))
        client.conn.send(b"")
        assert receive_exactly(client.sock, 1) == b"\0"
    assert sums == 2 * list(map(sum, bodies))


def test_fixed_records_with_one_frombuffer() -> None:
    record = np.dtype([("number", "<u4"), ("price", "<f8"), ("rest", "S4")])
    records = np.zeros(1000, record)
    records["number"] = np.arange(1000)
    records["price"] = np.arange(1000) / 8
    got: list[Any] = []

    def take(batch: Batch) -> None:
        got.append(np.frombuffer(batch.span, record))

    with pieces(Batches(take), FixedSize(record.itemsize)) as client:
        data = records.tobytes()
        client.send(data[:7777])
        client.send(data[7777:])
        client.conn.send(b"end")
        assert receive_exactly(client.sock, 3) == b"end"
    assert np.concatenate(got).tobytes() == data


def test_kept_batches_stay_as_they_are() -> None:
    handler = Batches(lambda batch: b"ok")
    options = {"arena_size": 1 << 17, "max_leases": 3}
    with pieces(handler, Delimited(), **options) as client:
        for number in range(200):
            client.send(b"".join(b"%d %d\n" % (number, i) for i in range(500)))
    assert len(handler.kept) >= 200
    frames = [bytes(frame) for batch in handler.kept for frame in batch]
    assert frames == [b"%d %d" % (number, i) for number in range(200) for i in range(500)]
    assert [bytes(batch[0]) for batch in handler.kept][:1] == [b"0 0"]


def test_a_large_frame_is_a_batch_of_its_own() -> None:
    handler = Batches()
    body = bytes(range(256)) * 3000
    with pieces(handler, LengthPrefixed()) as client:
        stream = framed(body)
        client.send(stream[:10])
        client.sock.sendall(stream[10:] + framed(b"next"))
        wanted = stream + framed(b"next")
        assert receive_exactly(client.sock, len(wanted)) == wanted
        assert handler.next("batch").value == [body]
        assert handler.next("batch").value == [b"next"]
        client.send(framed(b"later"))
    assert bytes(handler.kept[0].span) == body
    assert np.asarray(handler.kept[0].starts).tolist() == [handler.kept[0].starts[0]]


def test_several_connections_in_a_turn() -> None:
    handler = Batches()
    with serving(handler, protocol=Delimited()) as server:
        socks = [connect(server) for _ in range(20)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%d a\n%d b\n" % (number, number))
        for number, sock in enumerate(socks):
            wanted = b"%d a\n%d b\n" % (number, number)
            assert receive_exactly(sock, len(wanted)) == wanted
            sock.close()


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [(lambda batch: [b"fine", 7, b"lost"], b"fine\n"), (lambda batch: 1 / 0, b"")],
    ids=["reply", "raises"],
)
def test_an_exception(answer: Any, wanted: bytes) -> None:
    handler = Batches(answer)
    with pieces(handler, Delimited()) as client:
        client.send(b"one\ntwo\n")
        assert receive_all(client.sock) == wanted
        client.sock.close()
        assert handler.until("close").value is CloseReason.HANDLER_ERROR


def test_pausing_and_switching_in_a_batch() -> None:
    class Switches(Batches):
        def on_batch(self, conn: Connection, batch: Batch) -> Any:
            if bytes(batch[-1]) == b"switch":
                conn.set_protocol(LengthPrefixed(1))
            if bytes(batch[-1]) == b"pause":
                conn.pause_reading()
                conn.loop.call_later(0, conn.resume_reading)
            return super().on_batch(conn, batch)

    handler = Switches()
    with pieces(handler, Delimited(one_at_a_time=True)) as client:
        client.send(b"1\npause\n2\nswitch\n\x012\x013")
        wanted = b"1\npause\n2\n\6switch\x012\x013"
        assert receive_exactly(client.sock, len(wanted)) == wanted
        got = [handler.next("batch").value for _ in range(5)]
        assert got == [[b"1"], [b"pause"], [b"2"], [b"switch"], [b"2", b"3"]]


class Own(Protocol):
    """Cut in Python."""


@pytest.mark.parametrize("protocol", [Raw(), Own(), None], ids=["raw", "python", "default"])
def test_a_protocol_without_batches(protocol: Protocol | None) -> None:
    with pytest.raises(ValueError, match="has an on_batch"):
        Server(Batches(), "127.0.0.1:0", protocol=protocol)


def test_switching_to_a_protocol_without_batches() -> None:
    class Switches(Batches):
        def on_batch(self, conn: Connection, batch: Batch) -> Any:
            conn.set_protocol(Raw())

    handler = Switches()
    with pieces(handler, Delimited()) as client:
        client.send(b"one\n")
        assert receive_all(client.sock) == b""
        assert isinstance(handler.next("error").value, ValueError)
