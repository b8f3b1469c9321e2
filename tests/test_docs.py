"""What the documents show: each piece of code runs, and links lead somewhere."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Background, connect, receive_all, receive_exactly, serving, wait

from gevffi import EventLoop, Server, ws

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def pieces_of(path: Path) -> list[str]:
    """The pieces of code in a document."""
    pieces = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
    assert pieces
    return pieces


def run(name: str) -> dict[str, Any]:
    """Run the code of a document, one piece after the other; return what it has defined."""
    pieces = pieces_of(DOCS / name)
    namespace: dict[str, Any] = {"__name__": name}
    for piece in pieces:
        exec(compile(piece, name, "exec"), namespace)
    return namespace


def serve(document: dict[str, Any], handler: str, **options: Any) -> Any:
    return document["gevffi"].Server(document[handler](), "127.0.0.1:0", **options).running()


def turn(loop: EventLoop) -> None:
    """Wait until the loop has come around."""
    turned = threading.Event()
    loop.call_soon_threadsafe(turned.set)
    wait(turned)


def until(loop: EventLoop, condition: Callable[[], object]) -> None:
    """Turn the loop until something has happened, or fail."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        turn(loop)


@pytest.mark.parametrize(
    "path", [*DOCS.glob("*.md"), ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            slugs = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
            assert heading in slugs, target


def test_the_readmes_servers_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Server] = []
    monkeypatch.setattr(Server, "start", lambda server: started.append(server))
    namespace: dict[str, Any] = {"__name__": "README.md", "socket": socket}
    for piece in pieces_of(ROOT / "README.md"):
        code = compile(re.sub(r":(1833|9001)\"", ':0"', piece), "README.md", "exec")
        if "gevffi.Client" in piece:  # of a server that runs
            with started[0].running():
                exec(code, namespace)
        else:
            exec(code, namespace)
    namespace["sock"].close()
    assert capsys.readouterr().out == "b'hello'\n"
    echo, lines, framed, shout = started
    for server, message in ((echo, b"hi"), (lines, b"hi\n"), (framed, b"\0\0\0\2hi")):
        with server.running(), connect(server) as sock:
            sock.sendall(message)
            assert receive_exactly(sock, len(message)) == message
    with shout.running(), ws.Client(f"ws://{shout.address}/shout") as client:
        client.send_text("hi")
        assert client.receive(PATIENCE) == "HI"


def test_the_guides_first_handler_counts() -> None:
    document = run("guide.md")
    with serve(document, "Counting") as server, connect(server) as sock:
        sock.sendall(b"four")
        assert receive_exactly(sock, 15) == b"4 bytes so far\n"


def test_the_guides_protocol_batch_and_thread() -> None:
    document = run("guide.md")
    pairs = document["Pairs"]()
    with serve(document, "Counting", protocol=pairs) as server, connect(server) as sock:
        sock.sendall(b"kvK")
        assert receive_exactly(sock, 15) == b"1 bytes so far\n"
        sock.sendall(b"V")
        assert receive_exactly(sock, 15) == b"2 bytes so far\n"
    lines = document["gevffi"].Delimited(b"\n")
    with serve(document, "Sum", protocol=lines) as server, connect(server) as sock:
        sock.sendall(b"\x01\x02\n\n\xff\xff\n")
        assert receive_exactly(sock, 8) == b"3\n0\n510\n"
    with serve(document, "Slow") as server, connect(server) as sock:
        sock.sendall(b"slow")
        assert receive_exactly(sock, 4) == b"SLOW"


def test_the_guides_feed_leaves_out_who_does_not_keep_up() -> None:
    document = run("guide.md")
    feed = document["Feed"]()
    with serving(feed) as server, connect(server) as sock:
        loop = server.loops[0]
        until(loop, lambda: feed.listening)
        (conn,) = feed.listening
        for _ in range(500):  # twice what `write_limit` allows
            loop.call_soon_threadsafe(feed.push, bytes(65536))
            turn(loop)
        assert conn.connected
        assert not feed.listening
        reader = Background(receive_all, sock)
        until(loop, lambda: conn in feed.listening)
        conn.close()
        reader.join()


def test_the_guides_download_is_complete() -> None:
    document = run("guide.md")
    with serve(document, "Download") as server, connect(server) as sock:
        wanted = b"".join(bytes([number]) * 65536 for number in range(100))
        assert receive_all(sock) == wanted


def test_the_guides_whole_request_is_answered_at_its_end() -> None:
    document = run("guide.md")
    with serve(document, "WholeRequest") as server, connect(server) as sock:
        sock.sendall(b"request")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"7 bytes\n"


REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: frames\r\nConnection: Upgrade\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: frames\r\nConnection: Upgrade\r\n\r\n"
STREAM = REQUEST + b"\x00\x00\x00\x05hello" + b"\x00\x00\x40\x00" + bytes(0x4000)


@pytest.mark.parametrize("at", [*range(1, len(REQUEST) + 14), len(STREAM)])
def test_the_upgrade_keeps_the_frames_that_came_along(at: int) -> None:
    document = run("protocols.md")
    wanted = SWITCHING + STREAM[len(REQUEST) :]
    protocol = document["HEAD"]
    with serve(document, "Upgrade", protocol=protocol) as server, connect(server) as sock:
        sock.sendall(STREAM[:at])
        turn(server.loops[0])
        turn(server.loops[0])
        sock.sendall(STREAM[at:])
        assert receive_exactly(sock, len(wanted)) == wanted


def test_who_does_not_upgrade_is_told_and_closed() -> None:
    document = run("protocols.md")
    protocol = document["HEAD"]
    with serve(document, "Upgrade", protocol=protocol) as server, connect(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert receive_all(sock).startswith(b"HTTP/1.1 426 ")


def test_the_documents_protobuf_server_answers() -> None:
    document = run("protocols.md")
    frame = document["pack_message"]("type", b"payload")
    protocol = document["Protobuf"]()
    with serve(document, "Answers", protocol=protocol) as server, connect(server) as sock:
        sock.sendall(frame)
        assert receive_exactly(sock, len(frame)) == frame
