"""The blocking client: `gevffi.Client`."""

from __future__ import annotations

import gc
import logging
import pickle
import queue
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Background, Echo, receive_all, receive_exactly, serving
from outgoing import Names, call, deaf, looping, losing_nothing, nobody, stdlib_echo
from protocols import Framed, Lines, Netstrings

from gevffi import (
    Client,
    CloseReason,
    Connection,
    ConnectionClosedError,
    EventLoop,
    Protocol,
    ReadBuffer,
    Server,
)
from gevffi import blocking as module


@pytest.fixture
def echo() -> Iterator[Server]:
    with serving(Echo()) as server:
        yield server


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate())


# ---- messages -----------------------------------------------------------------------------------


def test_send_and_receive(echo: Server) -> None:
    with Client(echo.address) as client:
        client.send(b"hello")
        message = client.receive(PATIENCE)
        assert type(message) is bytes
        assert message == b"hello"


def test_with_a_server_of_the_standard_library() -> None:
    with stdlib_echo() as address, Client(address) as client:
        for word in (b"one", bytearray(b"two"), memoryview(b"three")):
            client.send(word)
            assert client.receive(PATIENCE) == word


def test_over_a_unix_socket(tmp_path: Path) -> None:
    with serving(Echo(), f"unix:{tmp_path / 's'}") as server, Client(server.address) as client:
        client.send(b"hello")
        assert client.receive(PATIENCE) == b"hello"


def test_a_protocol_at_both_ends() -> None:
    words = [b"%d" % number * number for number in range(200)]
    with (
        serving(Echo(), protocol=Framed()) as server,
        Client(server.address, protocol=Framed()) as client,
    ):
        for word in words:
            client.send(word)
        assert [client.receive(PATIENCE) for _ in words] == words


def test_messages_outlive_the_client(echo: Server) -> None:
    with Client(echo.address) as client:
        client.send(b"hello")
        message = client.receive(PATIENCE)
    assert message == b"hello"


def test_what_unpacket_said_of_a_message() -> None:
    with (
        serving(Echo(), protocol=Lines()) as server,
        Client(server.address, protocol=Lines()) as client,
    ):
        client.send(b"one")
        client.send(b"two")
        assert client.receive_with_ctx(PATIENCE) == (1, b"one")
        assert client.receive_with_ctx(PATIENCE) == (2, b"two")


def test_messages_that_are_no_bytes(listener: socket.socket) -> None:
    class Numbers(Protocol):
        def unpacket(self, conn: Connection, buffer: ReadBuffer) -> tuple[Any, Any]:
            return (None, None) if buffer.is_empty else (None, buffer.read(1)[0])

        def packet(self, conn: Connection, reply: Any) -> Any:
            return bytes([reply])

    with Client(listener.getsockname(), protocol=Numbers()) as client:
        sock, _ = listener.accept()
        with sock:
            client.send(7)
            assert receive_exactly(sock, 1) == b"\7"
            sock.sendall(b"\1\2")
            assert client.receive(PATIENCE) == 1
            assert client.receive(PATIENCE) == 2


def test_receive_waits_no_longer_than_asked(echo: Server) -> None:
    with Client(echo.address) as client:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match=f"no message within {timeout} s"):
                client.receive(timeout)
        for wrong in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="timeout"):
                client.receive(wrong)
        client.send(b"hello")  # all is as before
        assert client.receive(PATIENCE) == b"hello"


def test_a_message_larger_than_every_buffer(echo: Server) -> None:
    """The server answers while it is being sent to: nobody waits for the other for ever."""
    size = 30_000_000
    with Client(echo.address) as client:
        sending = Background(client.send, bytes(size))
        left = size
        while left:
            left -= len(client.receive(PATIENCE))
        sending.join()


def test_send_returns_when_the_kernel_has_taken_it(listener: socket.socket) -> None:
    with Client(listener.getsockname()) as client:
        sock, _ = listener.accept()
        with sock:
            with pytest.raises(TimeoutError, match=r"not sent within 0\.01 s"):
                client.send(bytes(64_000_000), timeout=0.01)
            sending = Background(client.send, b"the end")
            data = receive_exactly(sock, 64_000_007)  # it went out all the same
            assert data[-7:] == b"the end"
            sending.join()


def test_several_threads(echo: Server) -> None:
    with Client(echo.address, protocol=Netstrings()) as client:
        received: queue.Queue[bytes] = queue.Queue()

        def send() -> None:
            for _ in range(50):
                client.send(b"x" * 100)

        def receive() -> None:
            for _ in range(50):
                received.put(client.receive(PATIENCE))

        for background in [Background(function) for function in (send, receive) * 3]:
            background.join()
        assert {received.get_nowait() for _ in range(150)} == {b"x" * 100}


# ---- the inbox ----------------------------------------------------------------------------------


def test_a_full_inbox_holds_the_peer_back_until_it_is_received(listener: socket.socket) -> None:
    chunk, count = bytes(1 << 20), 64
    with Client(listener.getsockname(), inbox_limit=100_000) as client:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(0.2)
            sent = 0
            try:
                while True:  # until nothing moves any more
                    sent += sock.send(chunk)
            except TimeoutError:
                pass
            assert sent < count * len(chunk)
            assert client._inbox._size < 100_000 + 2 * client._loop.options.read_budget
            sock.settimeout(PATIENCE)
            rest = count * len(chunk) - sent
            sending = Background(sock.sendall, bytes(rest))
            left = count * len(chunk)
            while left:
                left -= len(client.receive(PATIENCE))
            sending.join()
            sock.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionClosedError):
                client.receive(PATIENCE)


def test_small_messages_fill_it_too(listener: socket.socket) -> None:
    with Client(listener.getsockname(), protocol=Lines(), inbox_limit=1000) as client:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"\n" * 1000)
            sock.sendall(b"end\n")
            sock.shutdown(socket.SHUT_WR)
            loop = client.connection.loop
            while client._inbox._size < 1000:
                call(loop, lambda: None)
            for _turn in range(3):
                call(loop, lambda: None)
            assert client._inbox._size < 1000 + 2 * module.OVERHEAD
            assert list(client) == [b""] * 1000 + [b"end"]


# ---- how it ends --------------------------------------------------------------------------------


def test_iteration_ends_with_the_peer(listener: socket.socket) -> None:
    with Client(listener.getsockname(), protocol=Lines()) as client:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"one\ntwo\n")
        assert list(client) == [b"one", b"two"]
        assert list(client) == []


def test_iteration_does_not_hide_another_end(listener: socket.socket) -> None:
    with Client(listener.getsockname(), protocol=Netstrings()) as client:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"3:one,x")
            messages = iter(client)
            assert next(messages) == b"one"
            with pytest.raises(ConnectionClosedError, match="PROTOCOL_ERROR") as caught:
                next(messages)
            assert caught.value.reason is CloseReason.PROTOCOL_ERROR


def test_the_peer_has_gone(listener: socket.socket) -> None:
    with Client(listener.getsockname()) as client:
        listener.accept()[0].close()
        with pytest.raises(ConnectionClosedError, match="the connection has closed: EOF"):
            client.receive(PATIENCE)
        with pytest.raises(ConnectionClosedError, match="EOF") as caught:
            client.send(b"too late", PATIENCE)
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.reason is CloseReason.EOF


def test_the_peer_goes_while_one_sends_and_another_receives(listener: socket.socket) -> None:
    with Client(listener.getsockname()) as client:
        sock, _ = listener.accept()

        def fails(function: Any, *args: Any) -> None:
            with pytest.raises(ConnectionClosedError, match="RESET"):
                function(*args)

        sending = Background(fails, client.send, bytes(64_000_000))
        receiving = Background(fails, client.receive)
        receive_exactly(sock, 1)
        sock.close()  # with bytes unread: a reset
        sending.join()
        receiving.join()


def test_what_a_protocol_raises_is_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Protocol):
        def packet(self, conn: Connection, reply: Any) -> Any:
            raise LookupError("no packet for this")

    with (
        serving(Echo()) as server,
        caplog.at_level(logging.INFO, "gevffi"),
        Client(server.address, protocol=Odd()) as client,
    ):
        with pytest.raises(ConnectionClosedError, match="HANDLER_ERROR") as caught:
            client.send(b"x", PATIENCE)
        assert isinstance(caught.value.__cause__, LookupError)
    assert caplog.messages == []  # it is told to who can do something about it


def test_the_server_stops() -> None:
    with serving(Echo()) as server:
        client = Client(server.address)
        client.send(b"hello")
        assert client.receive(PATIENCE) == b"hello"
    with pytest.raises(ConnectionClosedError, match="EOF"):
        client.receive(PATIENCE)
    client.close()


def test_close(listener: socket.socket) -> None:
    with losing_nothing():
        before = threads()
        client = Client(listener.getsockname(), protocol=Lines())
        sock, _ = listener.accept()
        with sock:
            assert threads() == sorted([*before, "gevffi-client"])
            sock.sendall(b"unread\n")
            while not client._inbox._size:
                call(client.connection.loop, lambda: None)
            client.send(b"bye")
            client.close()
            assert receive_all(sock) == b"bye\n"
        client.close()
        assert threads() == before
        # What had come in is there all the same.
        assert client.receive(0) == b"unread"
        with pytest.raises(ConnectionClosedError, match="LOCAL"):
            client.receive()
        with pytest.raises(ConnectionClosedError, match="LOCAL"):
            client.send(b"too late")
        with pytest.raises(ConnectionClosedError, match="LOCAL"):
            list(client)


def test_close_from_another_thread_wakes_who_waits(echo: Server) -> None:
    client = Client(echo.address)

    def receive() -> None:
        with pytest.raises(ConnectionClosedError, match="LOCAL"):
            client.receive()

    receiving = Background(receive)
    client.close()
    receiving.join()


def test_abort_makes_the_close_short(listener: socket.socket) -> None:
    with Client(listener.getsockname()) as client:
        sock, _ = listener.accept()
        with sock:
            client.connection.abort()
            client.close()
            with pytest.raises(ConnectionResetError):
                receive_all(sock)


def test_shutdown_write(listener: socket.socket) -> None:
    with Client(listener.getsockname()) as client:
        sock, _ = listener.accept()
        with sock:
            client.send(b"question")
            client.shutdown_write()
            with pytest.raises(BrokenPipeError):
                client.send(b"too late")
            assert receive_all(sock) == b"question"
            sock.sendall(b"answer")
        assert b"".join(client) == b"answer"


def test_one_that_is_dropped_leaves_nothing(listener: socket.socket) -> None:
    with losing_nothing():
        client = Client(listener.getsockname())
        thread = client._thread
        gone = weakref.ref(client)
        sock, _ = listener.accept()
        with sock:
            del client
            gc.collect()
            assert gone() is None
            assert receive_all(sock) == b""
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_script_that_forgets_to_close_ends(listener: socket.socket) -> None:
    host, port = listener.getsockname()
    script = f"import gevffi; client = gevffi.Client(({host!r}, {port})); client.send(b'bye')"
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, timeout=60, stderr=subprocess.PIPE
    )
    assert done.returncode == 0
    assert done.stderr == b""
    sock, _ = listener.accept()
    with sock:
        assert receive_exactly(sock, 3) == b"bye"


# ---- it cannot connect --------------------------------------------------------------------------


def test_refused() -> None:
    with losing_nothing():
        before = threads()
        host, port = nobody()
        with pytest.raises(ConnectionRefusedError, match=f"cannot connect to {host}:{port}: "):
            Client((host, port))
        assert threads() == before


def test_no_answer() -> None:
    with losing_nothing(), deaf() as listener, pytest.raises(TimeoutError, match="no answer"):
        Client(listener.getsockname(), timeout=0.05)


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch)
    with losing_nothing(), pytest.raises(socket.gaierror, match="nowhere:80: Name or service"):
        Client("nowhere:80")


def test_wrong_arguments() -> None:
    before = threads()
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout"):
            Client(nobody(), timeout=wrong)
    with pytest.raises(ValueError, match="inbox_limit"):
        Client(nobody(), inbox_limit=0)
    with pytest.raises(ValueError, match="'nonsense'"):
        Client("nonsense")
    assert threads() == before


# ---- a loop for several -------------------------------------------------------------------------


def test_several_share_a_loop_and_its_thread(echo: Server) -> None:
    before = threads()
    with looping() as loop:
        clients = [Client(echo.address, loop=loop) for _ in range(5)]
        assert threads() == sorted([*before, "gevffi-out"])
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        for number, client in enumerate(clients):
            assert client.receive(PATIENCE) == b"%d" % number
        clients.pop().close()
        for client in clients:  # the others go on, and so does the loop
            client.send(b"again")
            assert client.receive(PATIENCE) == b"again"
        assert loop.connection_count == 4
    for client in clients:
        with pytest.raises(ConnectionClosedError, match="SHUTDOWN"):
            client.receive()
        client.close()


def test_one_that_shares_is_dropped(listener: socket.socket) -> None:
    with looping() as loop:
        client = Client(listener.getsockname(), loop=loop)
        sock, _ = listener.accept()
        with sock:
            del client
            gc.collect()
            assert receive_all(sock) == b""


def test_a_loop_that_does_not_run(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.01)
    with pytest.raises(TimeoutError, match="idle does not run"):
        Client(listener.getsockname(), timeout=0.01, loop=EventLoop(name="idle"))


def test_a_loop_that_has_ended(listener: socket.socket) -> None:
    with looping() as loop:
        pass
    with pytest.raises(RuntimeError, match="out has ended"):
        Client(listener.getsockname(), loop=loop)


def test_on_the_thread_of_its_loop_it_would_wait_for_itself(echo: Server) -> None:
    with looping() as loop, Client(echo.address, loop=loop) as client:
        for function in (
            lambda: Client(echo.address, loop=loop),
            lambda: client.send(b"x"),
            client.receive,
            client.close,
        ):
            with pytest.raises(RuntimeError, match="would block the thread of out"):
                call(loop, function)
        client.send(b"hello")
        assert client.receive(PATIENCE) == b"hello"


def test_running_again_is_an_error() -> None:
    loop = EventLoop(name="mine")
    with loop.running():
        call(loop, lambda: None)
    with pytest.raises(RuntimeError, match="mine has been run before"), loop.running():
        pass


def test_the_error_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(ConnectionClosedError(CloseReason.IDLE)))
    assert copy.reason is CloseReason.IDLE
    assert str(copy) == "the connection has closed: IDLE"
