"""Both sides against `websockets` without its sockets: what one sends the other reads."""

from __future__ import annotations

import pytest
from frame_buffer import FrameBuffer
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, Protocol
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from gevffi._ws_connect import ClientOpening
from gevffi._ws_deflate import Agreement, Deflate
from gevffi._ws_frames import BINARY, FIN, PING, TEXT
from gevffi._ws_handshake import Upgrader
from gevffi._ws_messages import Messages, Output, State

LIMIT = 1 << 20
CHAT = [Subprotocol("chat")]
URL = "ws://127.0.0.1:9001/chat?x=1"

DEFLATES: list[Deflate | None] = [
    None,
    Deflate(threshold=0),
    Deflate(threshold=0, server_max_window_bits=15, client_max_window_bits=15, mem_level=8),
    Deflate(threshold=0, server_max_window_bits=9, client_max_window_bits=9),
    Deflate(threshold=0, server_no_context_takeover=True, client_no_context_takeover=True),
]
MESSAGES = [
    (TEXT, b"Hello"),
    (TEXT, b""),
    (TEXT, "h\u00e9llo \u20ac \U0001f600 ".encode() * 200),
    (BINARY, bytes(range(256)) * 300),
    (BINARY, b"\x00" * 70_000),
    (TEXT, b"Hello"),
]


def sent_by(peer: Protocol) -> bytes:
    return b"".join(peer.data_to_send())


def joined(output: Output) -> bytes:
    return b"".join(output)


def our_server(deflate: Deflate | None) -> tuple[Messages, Agreement | None, ClientProtocol]:
    """Our server, and their client, after their handshake."""
    factory = ClientPerMessageDeflateFactory(client_max_window_bits=True)
    extensions = None if deflate is None else [factory]
    theirs = ClientProtocol(parse_uri(URL), subprotocols=CHAT, extensions=extensions)
    theirs.send_request(theirs.connect())
    upgrader = Upgrader(path="/chat", subprotocols=["chat"], deflate=deflate)
    answer = upgrader.opening().feed(sent_by(theirs))
    assert answer is not None
    assert answer.accepted
    theirs.receive_data(answer.data)
    [response] = theirs.events_received()
    assert isinstance(response, Response)
    assert theirs.handshake_exc is None
    assert theirs.subprotocol == answer.subprotocol == "chat"
    ours = Messages(server=True, max_message_size=LIMIT, agreement=answer.deflate)
    return ours, answer.deflate, theirs


def our_client(deflate: Deflate | None) -> tuple[Messages, Agreement | None, ServerProtocol]:
    """Our client, and their server, after their handshake."""
    opening = ClientOpening(URL, subprotocols=["chat"], deflate=deflate)
    extensions = None if deflate is None else [ServerPerMessageDeflateFactory()]
    theirs = ServerProtocol(subprotocols=CHAT, extensions=extensions)
    theirs.receive_data(opening.request)
    [request] = theirs.events_received()
    assert isinstance(request, Request)
    assert request.path == "/chat?x=1"
    theirs.send_response(theirs.accept(request))
    opened = opening.feed(sent_by(theirs))
    assert opened is not None
    assert opened.subprotocol == "chat"
    ours = Messages(server=False, max_message_size=LIMIT, agreement=opened.deflate)
    return ours, opened.deflate, theirs


@pytest.fixture(params=["server", "client"])
def side(request: pytest.FixtureRequest) -> str:
    """Which side is ours."""
    return str(request.param)


def opened(
    side: str, deflate: Deflate | None
) -> tuple[Messages, FrameBuffer, ClientProtocol | ServerProtocol]:
    ours, agreement, theirs = our_server(deflate) if side == "server" else our_client(deflate)
    assert (agreement is None) == (deflate is None)
    buffer = FrameBuffer(
        from_client=side == "server", deflate=agreement is not None, max_message_size=LIMIT
    )
    return ours, buffer, theirs


@pytest.mark.parametrize("deflate", DEFLATES)
def test_messages_go_both_ways(side: str, deflate: Deflate | None) -> None:
    ours, buffer, theirs = opened(side, deflate)
    for opcode, payload in MESSAGES:
        theirs.receive_data(joined(ours.send(opcode, payload)))
        [frame] = theirs.events_received()
        assert isinstance(frame, Frame)
        assert (frame.opcode, bytes(frame.data), frame.fin) == (opcode, payload, True)

        send = theirs.send_text if opcode == TEXT else theirs.send_binary
        send(payload)
        [event] = [ours.receive(*frame) for frame in buffer.feed(sent_by(theirs))]
        assert event == (opcode, payload, ())

        third = len(payload) // 3
        send(payload[:third], fin=False)
        theirs.send_ping(b"?")
        theirs.send_continuation(payload[third:], fin=True)
        found = [ours.receive(*frame) for frame in buffer.feed(sent_by(theirs))]
        assert found[0] is None
        assert found[1] is not None
        assert found[1].opcode == PING
        assert found[2] == (opcode, payload, ())
        theirs.receive_data(joined(found[1].reply))
        [pong] = theirs.events_received()
        assert isinstance(pong, Frame)
        assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"?")


@pytest.mark.parametrize("deflate", DEFLATES)
def test_their_message_in_many_fragments(side: str, deflate: Deflate | None) -> None:
    ours, buffer, theirs = opened(side, deflate)
    payload = "\u20ac".encode() * 500
    theirs.send_text(b"", fin=False)
    for start in range(0, len(payload), 7):
        theirs.send_continuation(payload[start : start + 7], fin=False)
    theirs.send_continuation(b"", fin=True)
    *_, event = [ours.receive(*frame) for frame in buffer.feed(sent_by(theirs))]
    assert event == (TEXT, payload, ())


def test_they_close(side: str) -> None:
    ours, buffer, theirs = opened(side, None)
    theirs.send_close(3000, "b\u20ac")
    [event] = [ours.receive(*frame) for frame in buffer.feed(sent_by(theirs))]
    assert event is not None
    assert (ours.state, ours.code, ours.reason) == (State.CLOSED, 3000, "b\u20ac")
    theirs.receive_data(joined(event.reply))
    theirs.receive_eof()
    assert theirs.state is CLOSED
    assert theirs.close_code == 3000


def test_we_close(side: str) -> None:
    ours, buffer, theirs = opened(side, None)
    theirs.receive_data(joined(ours.close(4000, "b\u20ac")))
    [frame] = buffer.feed(sent_by(theirs))
    ours.receive(*frame)
    assert (ours.state, ours.code) == (State.CLOSED, 4000)
    theirs.receive_eof()
    assert theirs.state is CLOSED
    assert (theirs.close_code, theirs.close_reason) == (4000, "b\u20ac")


@pytest.mark.parametrize(
    "frame",
    [
        b"\x83\x00",
        b"\x90\x00",
        b"\x09\x00",
        b"\x80\x00",
        b"\x88\x01a",
        b"\x88\x02\x03\xed",
        b"\x88\x03\x03\xe8\xff",
        b"\x01\x00\x81\x00",
    ],
)
def test_both_fail_with_the_same_code(frame: bytes) -> None:
    """Frames without masks: a client reads them."""
    _, _, theirs = our_server(None)
    theirs.receive_data(frame)
    theirs.receive_eof()
    sent = theirs.close_sent
    assert sent is not None
    buffer = FrameBuffer(from_client=False, deflate=False, max_message_size=LIMIT)
    codes = []
    try:
        codes += [tag for tag, _ in buffer.feed(frame) if not tag & FIN]
    except Exception as exc:
        codes.append(getattr(exc, "code", 0))
    assert codes[-1] == sent.code


def test_a_request_of_theirs_is_refused_in_a_way_they_read() -> None:
    theirs = ClientProtocol(parse_uri(URL))
    theirs.send_request(theirs.connect())
    answer = Upgrader(path="/other").opening().feed(sent_by(theirs))
    assert answer is not None
    theirs.receive_data(answer.data)
    theirs.receive_eof()
    [response] = theirs.events_received()
    assert isinstance(response, Response)
    assert response.status_code == 404
    assert response.body == b"404 Not Found\n"
