"""The examples, each in a process of its own, as somebody tries it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import runpy
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers import PATIENCE, Background, receive_all, receive_exactly
from running_examples import EXAMPLES, ROOT, command, running
from ws_helpers import Recorder
from ws_helpers import serving as ws_serving

from gevffi.protobuf import pack_message


def lines(sock: socket.socket) -> Callable[[], str]:
    """A function that returns the next line."""
    file = sock.makefile(encoding="utf-8", newline="\n")
    return lambda: file.readline().removesuffix("\n")


def test_echo() -> None:
    with running("echo.py") as example, example.connect() as sock:
        sock.sendall(b"hello")
        assert receive_exactly(sock, 5) == b"hello"
        while example.until("connections:") != "1":  # it tells as time goes by
            pass


def test_bufferlength_skips_who_is_too_slow() -> None:
    size = 16 << 20
    with (
        running("bufferlength.py", "0.05") as example,
        example.connect() as other,
        example.connect() as sock,
    ):
        sender = Background(sock.sendall, bytes(size))
        assert int(example.until("too slow:").split()[0]) > 10 * 1024
        assert receive_exactly(other, 12) == b"hello\n" * 2
        # It reads again, gets what it is owed, and then counts as one of the others.
        zeros = 0
        while zeros < size:
            zeros += sock.recv(1 << 20).count(0)
        assert receive_exactly(sock, 6).strip(b"hello\n") == b""
        sender.join()


def test_idleconnection_closes_who_is_silent() -> None:
    with running("idleconnection.py", "2") as example, example.connect() as sock:
        sock.sendall(b"hello")
        assert receive_all(sock) == b"hello"
        assert example.until("closed:").endswith(" IDLE")


def test_send_async_answers_from_other_threads() -> None:
    texts = [b"text %d" % number for number in range(10)]
    wanted = {hashlib.pbkdf2_hmac("sha256", text, b"salt", 10_000).hex() for text in texts}
    with running("send_async.py") as example, example.connect() as sock:
        sock.sendall(b"".join(text + b"\n" for text in texts))
        line = lines(sock)
        assert {line() for _ in texts} == wanted
        for _ in texts:
            example.until("sent to")


@pytest.mark.parametrize("who", ["client", "server"])
def test_wscat_sends_lines_and_shows_messages(who: str) -> None:
    handler = Recorder()
    with ws_serving(handler) as server:
        process = subprocess.Popen(
            command("wscat.py", f"ws://{server.address}/"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        watchdog = threading.Timer(2 * PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == f"connected to ws://{server.address}/\n"
            process.stdin.write("hé\n")
            process.stdin.flush()
            assert process.stdout.readline() == "hé\n"
            conn, _ = handler.next("open")
            if who == "server":
                conn.send_binary(b"123")
                conn.close(4000, "enough")
                assert process.stdout.readline() == "3 bytes\n"
                assert process.stderr is not None
                assert process.stderr.read() == "wscat: the connection has closed: 4000 enough\n"
            else:
                process.stdin.close()
            assert process.wait(PATIENCE) == (1 if who == "server" else 0)
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def test_wscat_says_what_is_wrong() -> None:
    done = subprocess.run(
        command("wscat.py", "http://a/"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("wscat: url must begin with ws:")


def test_protocol_frames() -> None:
    frames = b"\x00\x00\x00\x05hello\x00\x00\x00\x00\x00\x00\x00\x01!"
    with running("protocol.py") as example:
        with example.connect() as sock:
            sock.sendall(frames)
            assert receive_exactly(sock, len(frames)) == frames
        assert example.until("message:") == "b'hello'"
        with example.connect() as sock:
            sock.sendall(b"\x00\x10\x00\x01")
            assert receive_all(sock) == b""


def test_protobuf_messages() -> None:
    types: dict[str, Any] = runpy.run_path(str(EXAMPLES / "protobuf.py"))["TYPES"]
    # Msg1{name: "gev", id: 1}, as gev's client sends it.
    first = b"\x00\x00\x00\x0d\x00\x04msg1\x0a\x03gev\x10\x01"
    assert types["msg1"](name="gev", id=1).SerializeToString() == first[10:]
    answer = pack_message("msg2", b"\x0a\x03gev\x12\x07big gev\x18\x02")
    with running("protobuf.py") as example:
        with example.connect() as sock:
            sock.sendall(pack_message("msg3", b"") + first)
            assert receive_exactly(sock, len(answer)) == answer
            reply = types["msg2"].FromString(answer[10:])
            assert (reply.name, reply.alias, reply.id) == ("gev", "big gev", 2)
        assert example.until("unknown type:") == "'msg3'"
        assert example.until("msg1:") == "'gev'"
        with example.connect() as sock:
            sock.sendall(pack_message("msg1", b"\xff"))
            assert receive_all(sock) == b""


def test_chat() -> None:
    with running("chat.py") as example, contextlib.ExitStack() as stack:
        anna, bert, long = (stack.enter_context(example.connect()) for _ in range(3))
        hear_anna, hear_bert, hear_long = lines(anna), lines(bert), lines(long)
        anna.sendall(b"Anna\r\n")
        assert [hear_anna(), hear_anna()] == ["* your name?", "* hello, Anna; 1 here"]
        bert.sendall(b"Anna\nBert\nhello all\n")
        assert [hear_bert(), hear_bert()] == ["* your name?", "* another name, please"]
        assert hear_bert() == "* hello, Bert; 2 here"
        assert [hear_anna(), hear_anna()] == ["* Bert is here", "Bert: hello all"]
        long.sendall(b"Carl\n" + b"x" * 1001)
        assert [hear_long(), hear_long()] == ["* your name?", "* hello, Carl; 3 here"]
        assert hear_long() == ""  # closed: the line is too long
        long.shutdown(socket.SHUT_RDWR)
        assert [hear_anna(), hear_anna()] == ["* Carl is here", "* Carl has left"]
        bert.shutdown(socket.SHUT_WR)
        assert hear_anna() == "* Bert has left"


def test_ticks_numpy_adds_up_a_feed() -> None:
    ticks = runpy.run_path(str(EXAMPLES / "ticks_numpy.py"))["make_ticks"](20_000).tobytes()
    wanted: dict[int, list[Any]] = {}
    for _time, symbol, size, price, _venue in struct.iter_unpack("<QIId8s", ticks):
        line = wanted.setdefault(symbol, [0, 0, 0.0, 0.0])
        line[0] += 1
        line[1] += size
        line[2] += size * price
        line[3] = price
    with running("ticks_numpy.py") as example:
        address = f"{example.host}:{example.port}"
        fed = subprocess.run(
            command("ticks_numpy.py", address, "feed", "20000"),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=PATIENCE,
            check=True,
        )
        _header, *rows = [row.split() for row in fed.stdout.splitlines()]
        assert len(rows) == len(wanted) == 16
        for row in rows:
            count, volume, turnover, last = wanted[int(row[0])]
            assert [int(row[1]), int(row[2])] == [count, volume]
            assert float(row[3]) == pytest.approx(turnover / volume, abs=1e-4)
            assert float(row[4]) == pytest.approx(last, abs=1e-4)


@pytest.mark.parametrize(
    ("symbol", "price"), [(16, 1.0), (1 << 31, 1.0), (0, float("nan")), (0, 1e300), (0, -1.0)]
)
def test_ticks_numpy_refuses_what_is_no_tick(symbol: int, price: float) -> None:
    tick = struct.Struct("<QIId8s")
    with running("ticks_numpy.py") as example:
        with example.connect() as sock:
            sock.sendall(tick.pack(0, symbol, 1, price, b""))
            assert receive_all(sock) == b""
        with example.connect() as sock:
            sock.sendall(tick.pack(0, 3, 2, 1.5, b""))
            sock.shutdown(socket.SHUT_WR)
            _header, row = receive_all(sock).decode().splitlines()
            assert row.split() == ["3", "1", "2", "1.5000", "1.5000"]
