"""Stopping in the middle of everything: each connection gets its one `on_close`, with SHUTDOWN."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from faults import SECONDS, Echo, Recorder, audited, connect, on_loop, pattern, read_all

from gevffi import CloseReason, Connection


@pytest.mark.parametrize("timeout", [0, SECONDS])
@pytest.mark.parametrize("loops", [1, 2])
def test_stop_with_ten_thousand_messages_in_flight(loops: int, timeout: float) -> None:
    handler = Echo()
    with audited(handler, loops=loops) as server:
        clients = [connect(server) for _ in range(100)]
        handler.wait_for("connect", 100)
        for client in clients:
            client.sendall(bytes(64) * 100)
        closer = threading.Thread(target=list, args=(map(read_until_gone, clients),))
        closer.start()
        server.stop(timeout)
        closer.join()
    assert handler.reasons == [CloseReason.SHUTDOWN] * 100


def read_until_gone(client: Any) -> None:
    """Read to the end, or to a reset, and close."""
    try:
        read_all(client)
    except ConnectionResetError:
        pass
    finally:
        client.close()


def test_stop_from_a_handler_answers_first() -> None:
    class Last(Recorder):
        def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
            super().on_message(conn, ctx, data)
            server.stop()
            return b"last words"

    handler = Last()
    with audited(handler) as server, connect(server) as client, connect(server):
        handler.wait_for("connect", 2)
        client.sendall(b"x")
        assert read_all(client) == b"last words"
        handler.wait_for("close", 2)
    assert handler.reasons == [CloseReason.SHUTDOWN] * 2


def test_the_deadline_of_a_stop_is_its_own() -> None:
    """`close_timeout` must not cut it short, nor name another reason."""
    handler = Recorder()
    with audited(handler, close_timeout=0.01) as server:
        client = connect(server, SO_RCVBUF=8192)
        handler.wait_for("connect")
        payload = pattern(8 << 20)
        on_loop(server, handler.conns[0].send, payload)
        got: list[bytes] = []
        overdue = threading.Event()  # set long after close_timeout
        server.run_after(0.1, overdue.set)

        def late() -> None:
            overdue.wait(SECONDS)
            got.append(read_all(client))

        reader = threading.Thread(target=late)
        reader.start()
        server.stop(SECONDS)
        reader.join()
        client.close()
    assert got == [payload]
    assert handler.reasons == [CloseReason.SHUTDOWN]
