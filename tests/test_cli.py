"""`python -m gevffi`, as it is typed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PATIENCE, receive_all, receive_exactly
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gevffi", *arguments]


@contextlib.contextmanager
def echo(
    *arguments: str, kind: str = "echo"
) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """The echo server in a process of its own, and where it says it listens."""
    process = subprocess.Popen(
        command(kind, "--address", "127.0.0.1:0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:2] == ["listening", "on"], words
        host, _, port = words[2].rpartition(":")
        yield process, (host, int(port))
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
            process.communicate()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_it_echoes_and_a_signal_ends_it_in_peace(number: signal.Signals) -> None:
    with echo() as (process, address), socket.create_connection(address, PATIENCE) as sock:
        for size in (1, 100, 100_000):
            sock.sendall(b"x" * size)
            assert receive_exactly(sock, size) == b"x" * size
        process.send_signal(number)
        assert receive_all(sock) == b""
        out, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, errors) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_as_soon_as_it_says_where_it_listens(number: signal.Signals) -> None:
    with echo() as (process, _address):
        process.send_signal(number)
        out, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, errors) == (0, "", "")


CAT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    sock.sendall(sys.stdin.buffer.read())
    sock.shutdown(socket.SHUT_WR)
    while piece := sock.recv(65536):
        sys.stdout.buffer.write(piece)
"""


def test_it_answers_a_client_that_is_not_ours() -> None:
    """netcat where it is installed, else the few lines of it that matter."""
    netcat = shutil.which("nc")
    client = [netcat, "-N"] if netcat else [sys.executable, "-c", CAT]
    text = "".join(f"line {number}\n" for number in range(1000))
    with echo() as (_process, (host, port)):
        answer = subprocess.run(
            [*client, host, str(port)],
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    assert answer.stdout == text


def test_idle_connections_are_closed() -> None:
    with (
        echo("--idle-time", "0.2") as (_process, address),
        socket.create_connection(address, PATIENCE) as sock,
    ):
        assert receive_all(sock) == b""


@pytest.mark.parametrize("more", [[], ["--reuse-port"]], ids=["one listens", "reuse-port"])
def test_several_loops(more: list[str]) -> None:
    with echo("--loops", "2", *more) as (process, address), contextlib.ExitStack() as stack:
        for number in range(20):
            sock = stack.enter_context(socket.create_connection(address, PATIENCE))
            sock.sendall(b"%2d" % number)
            assert receive_exactly(sock, 2) == b"%2d" % number
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, errors) == (0, "", "")


# For each protocol: messages, one that is too long, and what comes back of two and a half messages.
PROTOCOLS = {
    "raw": (b"a\n\0\0", b"", b"a\n\0\0"),
    "lines": (b"one\n\nthree", b"x" * 65537, b"one\n\n"),
    "length-prefixed": (b"\0\0\0\3one\0\0\0\0\0\x11", b"\0\0", b"\0\0\0\3one\0\0\0\0"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_message_is(protocol: str) -> None:
    stream, rest, answer = PROTOCOLS[protocol]
    with echo("--protocol", protocol) as (process, address):
        with socket.create_connection(address, PATIENCE) as sock:
            sock.sendall(stream)
            sock.shutdown(socket.SHUT_WR)
            assert receive_all(sock) == answer
        with socket.create_connection(address, PATIENCE) as sock:
            sock.sendall(stream)
            assert receive_exactly(sock, len(answer)) == answer
            if rest:
                sock.sendall(rest)
                assert receive_all(sock) == b""  # it is too long, and that closes
        assert process.poll() is None


def test_metrics_are_where_it_says() -> None:
    with echo("--metrics-address", "127.0.0.1:0") as (process, address):
        assert process.stdout is not None
        *words, url = process.stdout.readline().split()
        assert words == ["metrics", "at"]
        with socket.create_connection(address, PATIENCE) as sock:
            sock.sendall(b"hello")
            assert receive_exactly(sock, 5) == b"hello"
            curl = shutil.which("curl")
            if curl:
                command = [curl, "--silent", "--show-error", "--fail", url]
                text = subprocess.check_output(command, text=True, timeout=PATIENCE)
            else:
                text = urllib.request.urlopen(url, timeout=PATIENCE).read().decode()
        assert 'gevffi_bytes_received_total{loop="loop-0"} 5.0\n' in text
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--address", "nowhere"], "nowhere"),
        (["--address", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (["--address", "192.0.2.1:0"], "192.0.2.1:0"),
        (["--address", "unix:/no/such/directory/s"], "unix:/no/such/directory/s"),
        (["--loops", "0"], "loops"),
        (["--idle-time", "-1"], "idle_time"),
        (["--metrics-address", "9091"], "metrics_address"),
        (["--address", "127.0.0.1:0", "--metrics-address", "192.0.2.1:0"], "192.0.2.1:0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], word: str) -> None:
    done = run("echo", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("gevffi: ")
    assert word in line


def test_a_busy_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        done = run("echo", "--address", address)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert address in line
    assert "in use" in line


def test_the_command_line_explains_itself() -> None:
    done = run("echo", "--help")
    assert done.returncode == 0
    options = ("--address", "--loops", "--reuse-port", "--idle-time", "--protocol")
    for option in (*options, "--metrics-address"):
        assert option in done.stdout
    assert "127.0.0.1:1833" in done.stdout
    assert run().returncode == 2
    assert run("echo", "--loops", "two").returncode == 2
    assert run("echo", "--protocol", "words").returncode == 2


def test_ws_echo() -> None:
    with echo("--max-message-size", "1000", kind="ws-echo") as (process, (host, port)):
        with connect(f"ws://{host}:{port}") as client:
            assert client.response is not None
            assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
            for message in ("text", b"binary", "x" * 1000):
                client.send(message)
                assert client.recv(PATIENCE) == message
            client.send(b"x" * 1001)
            with pytest.raises(ConnectionClosedError, match="1009"):
                client.recv(PATIENCE)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 0


def test_ws_echo_without_compression() -> None:
    with (
        echo("--no-compression", "--loops", "2", kind="ws-echo") as (_process, (host, port)),
        connect(f"ws://{host}:{port}") as client,
    ):
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        client.send("text")
        assert client.recv(PATIENCE) == "text"


def test_ws_echo_says_what_is_wrong() -> None:
    found = run("ws-echo", "--max-message-size", "-1")
    assert (found.returncode, found.stdout) == (1, "")
    assert "max_message_size" in found.stderr
