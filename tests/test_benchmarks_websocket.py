"""The WebSocket part of the benchmarks: is every byte checked, is every handshake?

The load generator is built with sanitizers and driven against a WebSocket server of the tests' own,
which is honest or does wrong in one way.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_websocket
from tiny_websocket import Frame, Server, answer, echo, frame

from benchmarks import idle, process, registry, run
from benchmarks.cases import CASES, IDLE_CASES, WEBSOCKET, Case, IdleCase
from benchmarks.client import connect
from benchmarks.errors import BenchmarkError

CORES = process.Cores.available()


@pytest.fixture
def echoload(programs: dict[str, Path]) -> Path:
    """The load generator."""
    return programs["echoload"]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that runs, and is honest until told otherwise."""
    server = Server()
    with server.running():
        yield server


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, echoload: Path) -> str:
    """The name of a peer that is such a server in a process of its own."""
    command = (sys.executable, tiny_websocket.__file__)
    monkeypatch.setitem(registry.PEERS, "tiny", registry.Peer("tiny", "", command))
    monkeypatch.setattr(run, "program", lambda name: echoload)
    return "tiny"


def load(program: Path, server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the load generator against a server in this process."""
    port = server.server_address[1]
    command = [str(program), "-p", str(port), "-s", str(os.getpid()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def shape(connections: int, size: int, depth: int, seconds: float = 0.1) -> list[str]:
    """The arguments for WebSocket messages."""
    numbers = (("-c", connections), ("-m", size), ("-d", depth), ("-t", seconds), ("-w", 0))
    return ["-W", *(str(word) for pair in numbers for word in pair)]


# ---- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connections", "size", "depth"),
    [
        (3, 100, 4),
        (1, 1, 1),
        (2, 125, 1),
        (2, 126, 3),
        (1, 65535, 2),
        (2, 65536, 1),
        (1, 300_000, 3),
    ],
)
def test_every_message_is_accounted_for(
    echoload: Path, server: Server, connections: int, size: int, depth: int
) -> None:
    result = load(echoload, server, *shape(connections, size, depth))
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert len(server.frames) == found["all_messages"]
    assert 0 < found["messages"] <= found["all_messages"] - 2 * connections
    assert 0 < found["p50_us"] <= found["p999_us"]
    # A binary frame, unfragmented, masked, its length in the fewest bytes.
    header = bytearray(frame(b"\0" * size)[:-size])
    header[1] |= 0x80
    assert {got.header for got in server.frames} == {bytes(header)}
    masks = {got.mask for got in server.frames}
    assert len(masks) == len(server.frames)
    assert all(0 not in mask for mask in masks)
    assert len({got.payload for got in server.frames}) == len(server.frames) or size < 8


def test_an_answer_in_pieces_is_put_together(echoload: Path, server: Server) -> None:
    server.upgrade = lambda accept: [bytes([byte]) for byte in answer(accept)]
    result = load(echoload, server, *shape(2, 100, 1))
    assert (result.returncode, result.stderr) == (0, "")


def test_a_broadcast_is_checked_on_all(echoload: Path, server: Server) -> None:
    server.to_all = True
    result = load(echoload, server, *shape(20, 128, 1), "-b")
    assert result.stderr == ""
    assert json.loads(result.stdout)["all_messages"] == 20 * len(server.frames)


def later(wrong: bytes | None, got: Frame, number: int) -> bytes | None:
    """`wrong` for the fourth message, and the truth for all others."""
    return wrong if number == 3 else echo(got, number)


def flipped(payload: bytes, at: int) -> bytes:
    """The payload with one bit changed."""
    return payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        pytest.param(lambda f: frame(f.payload, 0x81), "message 3 .* byte 0 of 102", id="text"),
        pytest.param(lambda f: frame(f.payload, 0x02), "message 3 .* byte 0 of 102", id="not-fin"),
        pytest.param(lambda f: frame(b"", 0x89), "message 3 .* byte 0 of 102", id="ping"),
        pytest.param(
            lambda f: b"\x82\x7e\0\x64" + f.payload[:98],
            "message 3 .* byte 1 of 102",
            id="long-length",
        ),
        pytest.param(lambda f: b"\x82\xe4\0\0\0\0" + f.payload, "more came back", id="masked"),
        pytest.param(
            lambda f: frame(bytes(b ^ f.mask[i % 4] for i, b in enumerate(f.payload))),
            "message 3 .* byte 2 of 102",
            id="still-masked",
        ),
        pytest.param(
            lambda f: frame(flipped(f.payload, 99)), "message 3 .* byte 101 of 102", id="last-byte"
        ),
        pytest.param(lambda f: frame(f.payload) + b"x", "more came back", id="a-byte-too-many"),
        pytest.param(lambda f: None, "closed by the server", id="closed"),
    ],
)
def test_a_server_that_does_wrong_is_caught(
    echoload: Path, server: Server, wrong: object, complaint: str
) -> None:
    assert callable(wrong)
    server.reply = lambda got, number: later(wrong(got), got, number)
    result = load(echoload, server, *shape(2, 100, 1, seconds=20))
    assert (result.returncode, result.stdout) == (1, "")
    assert re.search(complaint, result.stderr)


# ---- the opening handshake ---------------------------------------------------------------------

WRONG_ANSWERS = {
    "refused": lambda accept: [answer(accept, b"403 Forbidden")],
    "another-key": lambda accept: [answer(accept[::-1])],
    "more-than-the-key": lambda accept: [answer(accept + b"=")],
    "no-key": lambda accept: [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"],
    "says-more": lambda accept: [answer(accept) + frame(b"hello")],
    "a-zero": lambda accept: [b"HTTP/1.1\0", answer(accept)],
    "endless": lambda accept: [b"HTTP/1.1 101 Yes\r\nX: " + b"x" * 3000],
}


@pytest.mark.parametrize("mode", ["messages", "handshakes"])
@pytest.mark.parametrize("which", WRONG_ANSWERS)
def test_a_wrong_answer_to_the_upgrade_is_caught(
    echoload: Path, server: Server, which: str, mode: str
) -> None:
    server.upgrade = WRONG_ANSWERS[which]
    # A window that is long, as it ends with the first answer.
    arguments = shape(1, 10, 1, 5) if mode == "messages" else (*HANDSHAKES, "-t", "5")
    result = load(echoload, server, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.search("upgrade to a WebSocket failed|answer is wrong", result.stderr)
    assert "Protocol error" in result.stderr


@pytest.mark.parametrize("mode", ["messages", "handshakes"])
def test_a_server_that_hangs_up_on_the_upgrade_is_caught(
    echoload: Path, server: Server, mode: str
) -> None:
    def hang_up(accept: bytes) -> list[bytes]:
        raise ConnectionAbortedError

    server.upgrade = hang_up
    result = load(echoload, server, *(shape(1, 10, 1) if mode == "messages" else HANDSHAKES))
    assert (result.returncode, result.stdout) == (1, "")
    assert "Connection reset by peer" in result.stderr


# ---- handshakes --------------------------------------------------------------------------------

HANDSHAKES = ("-H", "-c", "3", "-t", "0.3", "-w", "0")


def test_every_handshake_is_accounted_for(echoload: Path, server: Server) -> None:
    result = load(echoload, server, *HANDSHAKES)
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert server.frames == []
    assert len(server.everybody) == server.closed == found["all_messages"]
    assert 0 < found["messages"] <= found["all_messages"]
    assert 0 < found["p50_us"] <= found["p999_us"]


@pytest.mark.parametrize(
    ("close_reply", "complaint"),
    [
        pytest.param(lambda got: b"", "Close frame was not answered", id="nothing"),
        pytest.param(lambda got: frame(b"", 0x8A), "Close frame was not answered", id="pong"),
        pytest.param(lambda got: b"\x88\x05\x03", "Close frame was not answered", id="half"),
        pytest.param(lambda got: b"x" * 200, "more came than a Close frame", id="too-much"),
    ],
)
def test_a_close_that_is_not_answered_is_caught(
    echoload: Path, server: Server, close_reply: object, complaint: str
) -> None:
    assert callable(close_reply)
    server.close_reply = close_reply
    result = load(echoload, server, *HANDSHAKES)
    assert (result.returncode, result.stdout) == (1, "")
    assert complaint in result.stderr


def test_a_window_is_long_enough_for_a_handshake(echoload: Path, server: Server) -> None:
    def slow(got: Frame) -> bytes:
        time.sleep(0.1)
        return frame(got.payload, 0x88)

    server.close_reply = slow
    result = load(echoload, server, "-H", "-c", "1", "-t", "0.01", "-w", "0")
    assert result.stderr == ""
    assert json.loads(result.stdout)["messages"] > 0


def test_a_close_may_be_answered_without_a_code_or_with_a_reason(
    echoload: Path, server: Server
) -> None:
    replies = [frame(b"", 0x88), frame(b"\x03\xe8" + b"r" * 123, 0x88)]
    server.close_reply = lambda got: replies[server.closed % 2]
    result = load(echoload, server, *HANDSHAKES)
    assert (result.returncode, result.stderr) == (0, "")
    assert server.closed > 1


@pytest.mark.parametrize(
    "arguments",
    [["-H", "-m", "10"], ["-H", "-W"], ["-H", "-b"], ["-W", "-f", "-m9", "-d1"], ["-W"]],
)
def test_options_that_do_not_go_together(
    echoload: Path, server: Server, arguments: list[str]
) -> None:
    result = load(echoload, server, "-c", "1", "-t", "1", "-w", "0", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: echoload")
    assert server.everybody == []


# ---- the harness -------------------------------------------------------------------------------


def test_a_python_socket_is_a_websocket_too(server: Server) -> None:
    running = process.Running("it", os.getpid(), server.server_address[1])
    connect(running, b"hello", websocket=True).close()
    assert [got.payload for got in server.frames] == [b"hello"]


@pytest.mark.parametrize("which", ["refused", "another-key"])
def test_a_python_socket_notices_a_wrong_answer(server: Server, which: str) -> None:
    server.upgrade = WRONG_ANSWERS[which]
    running = process.Running("it", os.getpid(), server.server_address[1])
    with pytest.raises(BenchmarkError, match="asked for a WebSocket and got"):
        connect(running, websocket=True)


def test_a_python_socket_notices_a_wrong_echo(server: Server) -> None:
    server.reply = lambda got, number: frame(got.payload, 0x81)
    running = process.Running("it", os.getpid(), server.server_address[1])
    with pytest.raises(BenchmarkError, match="and got"):
        connect(running, websocket=True)


@pytest.mark.parametrize(
    "case",
    [
        Case("echo", 2, 64, 2, websocket=True),
        Case("handshakes", 2, 0, 0, websocket=True, handshakes=True),
    ],
    ids=lambda case: case.name,
)
def test_a_case_is_measured(tiny: str, case: Case) -> None:
    sample = run.measure(case, tiny, 0, 0.1, 0.05, CORES)
    assert sample.messages > 0
    assert sample.cpu_us_per_message > 0


@pytest.mark.parametrize(
    "case",
    [
        # Larger than a socket's buffers, so that the server has to keep what it could not send.
        Case("big", 2, 1_000_000, 4, websocket=True),
        Case("handshakes", 2, 0, 0, websocket=True, handshakes=True),
    ],
    ids=lambda case: case.name,
)
@pytest.mark.parametrize("peer", WEBSOCKET)
def test_a_peer_answers_under_load(
    peer: str, case: Case, echoload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (why := registry.PEERS[peer].absent()) is not None:
        pytest.skip(f"{peer} is not here: {why}")
    monkeypatch.setattr(run, "program", lambda name: echoload)
    assert run.measure(case, peer, 0, 0.1, 0.05, CORES).messages > 0


@pytest.mark.parametrize("peer", CASES["ws-broadcast-500x128B"].peers)
def test_a_peer_broadcasts(peer: str, echoload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (why := registry.PEERS[peer].absent()) is not None:
        pytest.skip(f"{peer} is not here: {why}")
    monkeypatch.setattr(run, "program", lambda name: echoload)
    case = Case("all", 10, 128, 4, broadcast=True, websocket=True)
    assert run.measure(case, peer, 0, 0.1, 0.05, CORES).messages > 0


def test_idle_websockets_are_weighed(tiny: str) -> None:
    found = idle.measure_idle(IDLE_CASES["ws-idle"], tiny, 50, 0.05, CORES)
    assert (found.case, found.connections) == ("ws-idle", 50)
    assert found.bytes_per_connection > 200


def test_the_cases_say_what_they_are() -> None:
    assert CASES["ws-50x1KiB"].about == "WebSockets: 50 connections x 1 KiB, depth 16"
    assert CASES["ws-broadcast-500x128B"].about == (
        "WebSockets: each 128 B to 500 connections, depth 1"
    )
    assert CASES["ws-handshakes"].about == (
        "WebSockets: opened, upgraded and closed, 50 at a time; each is a message"
    )
    assert IDLE_CASES["ws-idle"].about == "open WebSockets that say nothing"


@pytest.mark.parametrize("case", IDLE_CASES.values(), ids=list(IDLE_CASES))
def test_an_idle_case_names_peers_that_there_are(case: IdleCase) -> None:
    assert set(case.connections) <= set(registry.PEERS)
    assert case.subject.startswith("gevffi")
