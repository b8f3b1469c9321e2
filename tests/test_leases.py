"""Views that handlers keep: they never change, they are counted, and their memory comes back.

Handlers get slices of the memory that the loop receives into. Every test here keeps some and has
the loop receive far more than that memory holds.
"""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from faults import SECONDS, Recorder, audited, connect, on_loop, pattern, read, used_bytes

from gevffi import Connection, Server

ARENA = 128 << 10
KEPT = b"keep this"


class Keeps(Recorder):
    """Keeps what `keep` makes of each message that begins with KEPT; echoes the rest."""

    def __init__(self, keep: Callable[[Any], Any]) -> None:
        super().__init__()
        self.keep = keep
        self.kept: list[Any] = []

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        if data[: len(KEPT)] == KEPT:
            self.kept.append(self.keep(data))
            return b"kept"
        return data


def keep_one(client: Any, number: int = 0) -> None:
    client.sendall(KEPT + bytes([number]) * 1000)
    assert read(client, 4) == b"kept"


def churn(client: Any, arenas: int = 40) -> None:
    """Fill `arenas` arenas with other bytes."""
    noise = b"\xee" * 32768
    for _ in range(arenas * ARENA // len(noise)):
        client.sendall(noise)
        assert read(client, len(noise)) == noise


def in_thread(data: Any) -> Any:
    """A slice that only another thread's frame holds, handed back when it is asked for."""
    ready, ask = threading.Event(), threading.Event()
    answer: list[bytes] = []

    def hold(view: Any) -> None:
        ready.set()
        ask.wait(SECONDS)
        answer.append(bytes(view))

    thread = threading.Thread(target=hold, args=(data[:],))
    thread.start()
    assert ready.wait(SECONDS)

    def finish() -> bytes:
        ask.set()
        thread.join(SECONDS)  # its frame holds the slice to the very end
        assert not thread.is_alive()
        return answer[0]

    return finish


def in_traceback(data: Any) -> Exception:
    view = data[:]
    try:
        raise LookupError
    except LookupError as exc:
        assert view
        return exc


def released(data: Any) -> Any:
    kept = data[2:][1:]
    data.release()
    return kept


WAYS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bytes], int]] = {
    "the view": (lambda data: data, bytes, 0),
    "a slice of a slice": (lambda data: data[1:][2:], bytes, 3),
    "a slice of a released view": (released, bytes, 3),
    "a numpy array": (lambda data: np.frombuffer(data[1:], np.uint8), lambda a: a.tobytes(), 1),
    "a slice of a numpy array": (
        lambda data: np.frombuffer(data, np.uint8)[5:],
        lambda a: a.tobytes(),
        5,
    ),
    "another thread": (in_thread, lambda finish: finish(), 0),
    "a traceback": (
        in_traceback,
        lambda exc: bytes(exc.__traceback__.tb_frame.f_locals["view"]),
        0,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_kept_never_changes(way: str) -> None:
    keep, read_back, offset = WAYS[way]
    handler = Keeps(keep)
    with audited(handler, arena_size=ARENA) as server, connect(server) as client:
        keep_one(client, 7)
        churn(client)
        assert server.loops[0].leases == 1
        assert read_back(handler.kept[0]) == (KEPT + b"\x07" * 1000)[offset:]
        handler.kept.clear()
        assert on_loop(server, lambda: server.loops[0].leases) == 0


def test_what_is_kept_cannot_be_written_to() -> None:
    handler = Keeps(lambda data: data)
    with audited(handler, arena_size=ARENA) as server, connect(server) as client:
        keep_one(client)
        (view,) = handler.kept
        assert view.readonly
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 0
        with pytest.raises(ValueError, match="read-only"):
            np.frombuffer(view, np.uint8)[0] = 0
        del view
        handler.kept.clear()


def leases(server: Server) -> int:
    return server.loops[0].leases


@pytest.mark.parametrize("bound", [0, 3])
def test_leases_are_bounded_and_then_messages_are_copies(
    bound: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once in the log; service goes on; and once the views are dead, so does zero-copy."""
    handler = Keeps(lambda data: data)
    with audited(handler, arena_size=ARENA, max_leases=bound) as server, connect(server) as client:
        keep_one(client)
        handler.kept.clear()
        before = on_loop(server, used_bytes)
        for number in range(30):
            keep_one(client, number)
            churn(client, 2)
            assert leases(server) <= bound
            assert used_bytes() <= before + bound * ARENA
        for number, view in enumerate(handler.kept):
            assert view == KEPT + bytes([number]) * 1000
            assert view.readonly
        assert len(caplog.records) == (bound > 0)  # with none allowed nothing has happened
        assert ("max_leases" in caplog.text) == (bound > 0)
        del view
        handler.kept.clear()
        churn(client, 2)
        assert leases(server) == 0
        assert used_bytes() == before


def test_views_outlive_connection_loop_and_server() -> None:
    gc.collect()
    before = used_bytes()
    handler = Keeps(lambda data: data)
    server = Server(handler, "127.0.0.1:0", arena_size=ARENA)
    with server.running(), connect(server) as client:
        for number in range(5):
            keep_one(client, number)
            churn(client, 2)
    views = handler.kept
    del handler, server
    gc.collect()
    assert used_bytes() > before
    for number, view in enumerate(views):
        assert view == KEPT + bytes([number]) * 1000
    del view
    views.clear()
    gc.collect()
    assert used_bytes() == before


def test_an_unhandled_exception_keeps_its_message_and_no_more() -> None:
    """The traceback holds the frame, the frame holds the view; nothing else may be harmed."""

    class Fails(Keeps):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            if data[:4] == b"fail":
                raise LookupError
            return super().on_message(conn, ctx, data)

        def on_error(self, conn: Connection, exc: Exception) -> None:
            self.errors.append(exc)

    handler = Fails(bytes)
    with audited(handler, arena_size=ARENA) as server, connect(server) as client:
        with connect(server) as bad:
            bad.sendall(b"fail " + pattern(500))
            assert bad.recv(1) == b""
        churn(client)
        frames = [frame for frame, _ in traceback.walk_tb(handler.errors[0].__traceback__)]
        assert frames[-1].f_locals["data"] == b"fail " + pattern(500)
        assert leases(server) == 1
        del frames
        handler.errors.clear()
        assert on_loop(server, leases, server) == 0
