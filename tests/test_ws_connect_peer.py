"""WebSocket clients of ours against a server of others: `websockets`."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

import pytest
from helpers import PATIENCE
from outgoing import looping
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from ws_helpers import MESSAGES
from ws_peer import quiet

from gevffi import ws


@contextlib.contextmanager
def serving(
    handler: Callable[[ServerConnection], None], compression: str | None = "deflate"
) -> Iterator[str]:
    """Their server; yields its URL."""
    with serve(handler, "127.0.0.1", 0, compression=compression, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        finally:
            server.shutdown()
            thread.join()


def echo(conn: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in conn:
            conn.send(message)


@pytest.mark.parametrize("theirs", ["deflate", None])
@pytest.mark.parametrize(
    "ours",
    [
        ws.Deflate(),
        ws.Deflate(server_max_window_bits=15, client_max_window_bits=15),
        ws.Deflate(client_no_context_takeover=True, server_no_context_takeover=True),
        None,
    ],
)
def test_echo(ours: ws.Deflate | None, theirs: str | None) -> None:
    with serving(echo, theirs) as url, ws.Client(url, compression=ours) as client:
        assert (client.opened.deflate is not None) == (ours is not None and theirs is not None)
        for message in MESSAGES * 2:
            if isinstance(message, str):
                client.send_text(message)
            else:
                client.send_binary(message)
            assert client.receive(PATIENCE) == message
        assert client.ping(PATIENCE) > 0


def test_their_fragments_and_their_pings() -> None:
    pongs = []

    def handler(conn: ServerConnection) -> None:
        conn.send(["a", "b" * 1000, "c"])
        conn.send([b"1", b"2" * 70_000])
        pongs.append(conn.ping().wait(PATIENCE))

    with serving(handler) as url, ws.Client(url) as client:
        assert list(client) == ["a" + "b" * 1000 + "c", b"1" + b"2" * 70_000]
    assert pongs == [True]


def test_they_close() -> None:
    with serving(lambda conn: conn.close(4000, "enough")) as url:
        with ws.Client(url) as client, pytest.raises(ws.ConnectionClosedError) as closed:
            client.receive(PATIENCE)
        assert (closed.value.code, closed.value.reason) == (4000, "enough")


def test_we_close() -> None:
    told: queue.Queue[tuple[int, str]] = queue.Queue()

    def handler(conn: ServerConnection) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            conn.recv(PATIENCE)
        assert closed.value.rcvd is not None
        told.put((closed.value.rcvd.code, closed.value.rcvd.reason))

    with serving(handler) as url:
        recorder = quiet()
        with looping() as loop:
            conn = ws.connect(loop, url, recorder)
            recorder.next("open")
            conn.close(3000, "bye")
            assert recorder.next("close")[1] == (3000, "bye")
        # Nobody waits for the thread of their connection, not even the end of their server.
        assert told.get(timeout=PATIENCE) == (3000, "bye")


def test_they_refuse() -> None:
    with (
        serve(echo, "127.0.0.1", 0, subprotocols=None, origins=[None]) as server,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            with pytest.raises(ws.HandshakeError) as refused:
                ws.Client(f"ws://127.0.0.1:{port}/", origin="http://evil.example")
            assert refused.value.status == 403
        finally:
            server.shutdown()
            thread.join()
