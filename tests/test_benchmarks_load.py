"""The load generator and the peers: does it count right, and does it notice a server's faults?

A benchmark that prints a figure for a server that loses bytes is worse than none, so most of this
drives the load generator, built with sanitizers, against small servers that do wrong in one way
each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from strict_builds import STRICT

from benchmarks import build, process, registry, run
from benchmarks.cases import Case
from benchmarks.errors import BenchmarkError
from benchmarks.samples import Sample

CORES = frozenset(os.sched_getaffinity(0))

Reply = Callable[[bytes, int], bytes | None]
"""Takes what was read and its position in the stream; None closes the connection."""


@pytest.fixture(scope="module")
def histogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints the quantiles of the numbers it reads."""
    folder = tmp_path_factory.mktemp("histogram")
    source, output = folder / "main.c", folder / "main"
    source.write_text(HISTOGRAM)
    sources = [str(source), str(build.HERE / "load" / "histogram.c")]
    include = f"-I{build.HERE / 'load'}"
    subprocess.run(["cc", *build.FLAGS, *STRICT, include, "-o", output, *sources], check=True)
    return output


class TinyServer(socketserver.ThreadingTCPServer):
    """An echo server in this process that can be told to do wrong."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), TinyConnection)
        self.reply = reply
        self.received = 0
        self.lock = threading.Lock()


class TinyConnection(socketserver.BaseRequestHandler):
    """One connection of it."""

    server: TinyServer

    def handle(self) -> None:
        position = 0
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(65536):
                with self.server.lock:
                    self.server.received += len(data)
                answer = self.server.reply(data, position)
                if answer is None:
                    return
                self.request.sendall(answer)
                position += len(data)


class Hub(socketserver.ThreadingTCPServer):
    """A server in this process that sends what it reads to everybody; `reply` makes what the
    connection number `n` gets of it, in the order of connecting."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, reply: Callable[[bytes, int], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubConnection)
        self.reply = reply
        self.received = 0
        self.everybody: list[socket.socket] = []

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.everybody.append(request)
        return True


class HubConnection(socketserver.BaseRequestHandler):
    """One connection of it."""

    server: Hub

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # somebody has left
            while data := self.request.recv(65536):
                self.server.received += len(data)
                for number, sock in enumerate(self.server.everybody):
                    sock.sendall(self.server.reply(data, number))


@contextlib.contextmanager
def tiny_server(reply: Reply) -> Iterator[TinyServer]:
    """Serve while the block runs."""
    with TinyServer(reply) as server, running(server):
        yield server


@contextlib.contextmanager
def hub(reply: Callable[[bytes, int], bytes]) -> Iterator[Hub]:
    """The same for a hub."""
    with Hub(reply) as server, running(server):
        yield server


@contextlib.contextmanager
def running(server: socketserver.TCPServer) -> Iterator[None]:
    """Serve in a thread while the block runs."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def load(program: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the load generator against a server in this process."""
    command = [str(program), "-p", str(port), "-s", str(os.getpid()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("connections", "size", "depth"), [(3, 100, 4), (1, 1, 1), (5, 7, 3), (2, 200_000, 2)]
)
def test_every_message_is_accounted_for(
    programs: dict[str, Path], connections: int, size: int, depth: int
) -> None:
    with tiny_server(lambda data, _: data) as server:
        shape = ("-c", str(connections), "-m", str(size), "-d", str(depth))
        result = load(
            programs["echoload"], server.server_address[1], *shape, "-t", "0.1", "-w", "0"
        )
        assert result.stderr == ""
        found = json.loads(result.stdout)
    assert server.received == found["all_messages"] * size
    # Not counted: a greeting and a first message of each connection, and what was in flight when
    # the window closed.
    assert 0 < found["messages"] <= found["all_messages"] - 2 * connections
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["p999_us"]
    assert found["window_seconds"] >= 0.1
    assert found["server_cpu_seconds"] > 0


@pytest.mark.parametrize(
    ("connections", "size", "depth"), [(20, 128, 1), (1, 1, 1), (3, 7, 4), (3, 200_000, 2)]
)
def test_every_broadcast_message_is_accounted_for(
    programs: dict[str, Path], connections: int, size: int, depth: int
) -> None:
    with hub(lambda data, _: data) as server:
        shape = ("-c", str(connections), "-m", str(size), "-d", str(depth), "-b")
        result = load(
            programs["echoload"], server.server_address[1], *shape, "-t", "0.1", "-w", "0"
        )
        assert result.stderr == ""
        found = json.loads(result.stdout)
    assert len(server.everybody) == connections
    assert server.received * connections == found["all_messages"] * size
    assert 0 < found["messages"] <= found["all_messages"] - 2 * connections
    assert 0 < found["p50_us"] <= found["max_us"] * 1.01


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        pytest.param(
            lambda data, number: flip(data, 0, 99) if number == 2 else data,
            "connection 2: message 0 .* byte 99 of 100",
            id="a-byte",
        ),
        pytest.param(
            lambda data, number: data + b"x" if number == 1 else data,
            "connection 1: more came back",
            id="a-byte-too-many",
        ),
    ],
)
def test_a_broadcast_gone_wrong_on_one_connection_is_caught(
    programs: dict[str, Path], reply: Callable[[bytes, int], bytes], complaint: str
) -> None:
    with hub(reply) as server:
        shape = ("-c", "4", "-m", "100", "-d", "1", "-b")
        result = load(programs["echoload"], server.server_address[1], *shape, "-t", "20", "-w", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert re.search(complaint, result.stderr)


def test_framed_messages_carry_their_length(programs: dict[str, Path]) -> None:
    begin = bytearray()

    def reply(data: bytes, position: int) -> bytes:
        if position == 0:
            begin.extend(data[:4])
        return data

    with tiny_server(reply) as server:
        shape = ("-c", "1", "-m", "64", "-d", "1", "-f")
        result = load(
            programs["echoload"], server.server_address[1], *shape, "-t", "0.05", "-w", "0"
        )
    assert result.returncode == 0, result.stderr
    assert int.from_bytes(begin, "big") == 60


def test_a_window_is_long_enough_for_a_message(programs: dict[str, Path]) -> None:
    def slow(data: bytes, position: int) -> bytes:
        time.sleep(0.1)
        return data

    with tiny_server(slow) as server:
        shape = ("-c", "1", "-m", "64", "-d", "1")
        result = load(
            programs["echoload"], server.server_address[1], *shape, "-t", "0.01", "-w", "0"
        )
    assert result.stderr == ""
    assert json.loads(result.stdout)["messages"] > 0


def flip(data: bytes, position: int, where: int) -> bytes:
    """`data` with the byte at stream position `where` changed, if it is in there."""
    at = where - position
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if 0 <= at < len(data) else data


def swapped() -> Reply:
    """Answers each read with what was read the time before, on whichever connection."""
    before: list[bytes] = []

    def reply(data: bytes, position: int) -> bytes:
        before.append(data)
        return before[-2] if len(before) > 5 and len(before[-2]) == len(data) else data

    return reply


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        pytest.param(lambda d, at: flip(d, at, 1003), "message 10 .* byte 3 of 100", id="stamp"),
        pytest.param(lambda d, at: flip(d, at, 1099), "message 10 .* byte 99 of 100", id="body"),
        pytest.param(lambda d, at: flip(d, at, 0), "message 0 .* byte 0 of 100", id="first"),
        pytest.param(swapped(), "came back with byte", id="mixed-up"),
        pytest.param(lambda d, at: d + b"x", "more came back", id="a-byte-too-many"),
        pytest.param(lambda d, at: None if at >= 1000 else d, "closed by the server", id="closed"),
    ],
)
def test_a_server_that_does_wrong_is_caught(
    programs: dict[str, Path], reply: Reply, complaint: str
) -> None:
    with tiny_server(reply) as server:
        shape = ("-c", "2", "-m", "100", "-d", "1")
        result = load(programs["echoload"], server.server_address[1], *shape, "-t", "20", "-w", "0")
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.search(complaint, result.stderr)


def test_nobody_listening_is_said(programs: dict[str, Path]) -> None:
    with tiny_server(lambda data, _: data) as server:
        port = server.server_address[1]
    result = load(programs["echoload"], port, "-c", "1", "-m", "1", "-d", "1", "-t", "1", "-w", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert "connect: Connection refused" in result.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("-p", "0"), ("-c", "none"), ("-m", "-3"), ("-d", "1.5"), ("-t", "nan")]
)
def test_a_wrong_option_is_named(programs: dict[str, Path], option: str, value: str) -> None:
    result = load(programs["echoload"], 1, option, value)
    assert result.returncode == 2
    assert f"{option}: {value}" in result.stderr


def test_a_frame_has_room_for_its_length(programs: dict[str, Path]) -> None:
    shape = ("-c", "1", "-m", "3", "-d", "1", "-t", "1", "-w", "0", "-f")
    result = load(programs["echoload"], 1, *shape)
    assert result.returncode == 2
    assert "at least 4 bytes, not 3" in result.stderr


HISTOGRAM = """
#include <stdio.h>
#include "histogram.h"
static struct histogram h;
int main(void)
{
    unsigned long long v;
    while (scanf("%llu", &v) == 1)
        histogram_add(&h, v);
    printf("%f %f %f %f", histogram_quantile(&h, 0), histogram_quantile(&h, 0.5),
           histogram_quantile(&h, 0.99), histogram_quantile(&h, 1));
}
"""


@pytest.mark.parametrize(
    "values",
    [[5], [127, 128, 129], list(range(0, 1_000_000, 7)), [2**k for k in range(64)], [2**64 - 1]],
    ids=["one", "edge", "even", "powers", "largest"],
)
def test_quantiles_are_within_a_percent(histogram: Path, values: list[int]) -> None:
    text = " ".join(map(str, values))
    result = subprocess.run([histogram], input=text, capture_output=True, text=True, check=True)
    ordered = sorted(values)
    ranks = [max(1, int(q * len(ordered) + 0.5)) for q in (0, 0.5, 0.99, 1)]
    exact = [ordered[rank - 1] for rank in ranks]
    assert [float(word) for word in result.stdout.split()] == pytest.approx(exact, rel=0.008)


@pytest.mark.parametrize(
    ("peer", "broadcast"),
    [
        ("c-epoll", False),
        ("asyncio", False),
        ("socketserver", False),
        ("gevffi-broadcast", True),
        ("c-epoll-broadcast", True),
        ("asyncio-broadcast", True),
    ],
)
def test_a_peer_answers_under_load(
    peer: str, broadcast: bool, programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Larger than a socket's buffers, so that the server has to keep what it could not send.
    monkeypatch.setattr(run, "program", programs.__getitem__)
    case = Case("big", 3, 1_000_000, 4, broadcast=broadcast)
    command = registry.PEERS[peer].command
    if peer.startswith("c-epoll"):  # the one with sanitizers
        command = (str(programs[Path(command[0]).name]),)
    with process.serving(peer, command, CORES) as server:
        line = run.drive(server, case, 0.4, 0.05, CORES)
    sample = Sample.from_load(case.name, peer, 0, line)
    assert sample.messages > 0
    assert sample.cpu_us_per_message * sample.messages_per_cpu_second == pytest.approx(1e6)


def test_a_failed_load_is_an_error(
    programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "program", programs.__getitem__)
    with tiny_server(lambda data, at: flip(data, at, 5)) as tiny:
        server = process.Running("it", os.getpid(), tiny.server_address[1])
        with pytest.raises(BenchmarkError, match="the load failed: connection 0: message 0"):
            run.drive(server, Case("c", 1, 10, 1), 1, 0, CORES)
