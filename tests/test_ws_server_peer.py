"""The WebSocket server against a client of others: `websockets`."""

from __future__ import annotations

import pytest
from helpers import PATIENCE
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect
from ws_helpers import MESSAGES, Recorder, serving

from gevffi import Server, ws


def url(server: Server) -> str:
    return f"ws://{server.address}/"


@pytest.mark.parametrize("theirs", ["deflate", None])
@pytest.mark.parametrize("ours", [ws.Deflate(), ws.Deflate(server_no_context_takeover=True), None])
def test_echo(ours: ws.Deflate | None, theirs: str | None) -> None:
    with (
        serving(Recorder(), compression=ours) as server,
        connect(url(server), compression=theirs, max_size=None, open_timeout=PATIENCE) as client,
    ):
        agreed = client.response is not None and client.response.headers.get(
            "Sec-WebSocket-Extensions"
        )
        assert bool(agreed) == (ours is not None and theirs is not None)
        for message in MESSAGES * 2:
            client.send(message)
            assert client.recv(PATIENCE) == message
        fragments: list[str] = ["a", "b" * 1000, "c"]
        client.send(fragments)
        assert client.recv(PATIENCE) == "a" + "b" * 1000 + "c"
        assert client.ping().wait(PATIENCE)


def test_closing() -> None:
    handler = Recorder(lambda conn, message: conn.close(1000, message))
    with serving(handler) as server, connect(url(server)) as client:
        client.send("done")
        with pytest.raises(ConnectionClosedOK) as closed:
            client.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "done")


def test_too_large() -> None:
    with serving(Recorder(), max_message_size=1000) as server, connect(url(server)) as client:
        client.send(b"x" * 1001)
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_refused() -> None:
    with serving(Recorder(), path="/there") as server:
        with pytest.raises(InvalidStatus) as refused:
            connect(url(server))
        assert refused.value.response.status_code == 404
