"""Listening sockets: where they can be had, and what they hand on to accepted connections."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest
from helpers import Echo, Recorder, connect, descriptors, receive_exactly, serving

from gevffi import Address, Connection, Handler, Options, Server


def test_the_address_shows_the_port_the_kernel_chose_while_it_runs() -> None:
    server = Server(Handler(), ("127.0.0.1", 0))
    assert server.address == ("127.0.0.1", 0)
    with server.running():
        host, port = server.address
        assert host == "127.0.0.1"
        assert port
        connect(server).close()


# ---- what cannot be had -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"loops": 3}, {"loops": 3, "reuse_port": True}], ids=str)
def test_a_busy_port_is_an_error_with_the_address_and_leaves_nothing_open(
    options: dict[str, Any],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        server = Server(Handler(), f"127.0.0.1:{port}", **options)
        before = descriptors()
        with pytest.raises(OSError, match=f"127.0.0.1:{port}") as caught, server.running():
            pass
        assert caught.value.errno == errno.EADDRINUSE
        assert descriptors() == before
        assert not server.loops
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            server.start()
        assert descriptors() == before
    with server.running():  # the port is free now, and the server as good as new
        connect(server).close()


def test_an_address_of_another_machine_is_an_error_with_the_address() -> None:
    with (
        pytest.raises(OSError, match=r"192\.0\.2\.1:0") as caught,
        Server(Handler(), "192.0.2.1:0").running(),
    ):
        pass
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("host", ["x" * 64, "[::1%nowhere]"])  # no name can be so long
def test_a_host_that_there_is_not_is_an_error_with_the_address(host: str) -> None:
    address = f"{host}:80"
    with pytest.raises(OSError, match=re.escape(address)), Server(Handler(), address).running():
        pass


def test_nothing_is_left_open_after_a_run() -> None:
    with serving(Echo(), loops=2) as server:  # warms up what a process opens once
        connect(server).close()
    before = descriptors()
    for _ in range(3):
        handler = Echo()
        with serving(handler, loops=2) as server, connect(server) as sock:
            sock.sendall(b"x")
            receive_exactly(sock, 1)
        assert descriptors() == before


# ---- families -----------------------------------------------------------------------------------


def ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_ipv6_where_there_is_any() -> None:
    handler = Echo()
    if not ipv6():
        with pytest.raises(OSError, match=r"\[::1\]:0"), serving(handler, "[::1]:0"):
            pass
        return
    with serving(handler, "[::1]:0") as server, connect(server) as sock:
        conn = handler.next("connect").conn
        assert conn.peer_address == sock.getsockname()[:2]
        assert str(conn.peer_address).startswith("[::1]:")
        sock.sendall(b"six")
        assert receive_exactly(sock, 3) == b"six"


class Asks(Echo):
    """Asks for the local address, so that other threads may from then on."""

    def on_connect(self, conn: Connection) -> None:
        assert conn.local_address is not None
        super().on_connect(conn)


def test_no_host_means_every_interface_and_ipv4_peers_look_like_it() -> None:
    handler = Asks()
    with serving(handler, ":0") as server:
        port = server.address.port
        assert port is not None
        with connect(Address("127.0.0.1", port)) as sock:
            conn = handler.next("connect").conn
            assert conn.peer_address == sock.getsockname()
            assert conn.local_address == sock.getpeername()
        if ipv6():
            handler.until("close")
            with connect(Address("::1", port)) as sock:
                assert handler.next("connect").conn.peer_address == sock.getsockname()[:2]


def test_a_unix_socket_is_there_while_the_server_runs(tmp_path: Path) -> None:
    path = tmp_path / "s"
    handler = Asks()
    server = Server(handler, f"unix:{path}")
    for _ in range(2):
        with server.running():
            assert server.address == Address(str(path), None)
            assert stat.S_ISSOCK(path.stat().st_mode)
            with connect(server) as sock:
                conn = handler.next("connect").conn
                assert conn.peer_address == Address("", None)
                assert conn.local_address == Address(str(path), None)
                sock.sendall(b"local")
                assert receive_exactly(sock, 5) == b"local"
            handler.until("close")
        assert not path.exists()


def test_a_stale_unix_path_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    with serving(Handler(), f"unix:{path}") as server:
        connect(server).close()
    assert not path.exists()


def test_a_unix_path_somebody_listens_on_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        before = descriptors()
        with (
            pytest.raises(OSError, match=f"unix:{path}") as caught,
            serving(Handler(), f"unix:{path}"),
        ):
            pass
        assert caught.value.errno == errno.EADDRINUSE
        assert descriptors() == before
        connect(Address(str(path), None)).close()


def test_a_file_that_is_no_socket_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(OSError, match=f"unix:{path}"), serving(Handler(), f"unix:{path}"):
        pass
    assert path.read_text() == "precious"


def test_a_unix_path_in_no_directory_is_an_error_with_the_path(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/none/s"
    with pytest.raises(FileNotFoundError, match=address), serving(Handler(), address):
        pass


def test_a_unix_path_that_is_too_long_is_an_error_with_the_path(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/{'x' * 200}"
    with pytest.raises(OSError, match=address), serving(Handler(), address):
        pass


def test_a_path_that_became_somebody_elses_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(Handler(), f"unix:{path}"):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_an_abstract_name_needs_no_file() -> None:
    name = f"gevffi-{uuid.uuid4()}"
    handler = Asks()
    with serving(handler, f"unix:@{name}") as server:
        assert str(server.address) == f"unix:@{name}"
        with connect(server) as sock:
            assert str(handler.next("connect").conn.local_address) == f"unix:@{name}"
            sock.sendall(b"abstract")
            assert receive_exactly(sock, 8) == b"abstract"
        with pytest.raises(OSError, match=name), serving(Handler(), f"unix:@{name}"):
            pass
    assert not Path(f"@{name}").exists()


# ---- options of sockets -------------------------------------------------------------------------


class SocketOptions(Recorder):
    """Reports what the kernel says of an accepted socket."""

    def on_connect(self, conn: Connection) -> None:
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            keepalive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            names = ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            found = {
                name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
            }
        self._put("options", conn, (bool(keepalive), found))


def options_of_accepted(**options: Any) -> tuple[bool, dict[str, int]]:
    handler = SocketOptions()
    with serving(handler, **options) as server, connect(server):
        keepalive, found = handler.next("options").value
    return keepalive, found


@pytest.mark.parametrize("more", [{}, {"loops": 2}, {"loops": 2, "reuse_port": True}], ids=str)
def test_tcp_options_arrive_at_accepted_connections(more: dict[str, Any]) -> None:
    keepalive, found = options_of_accepted(
        keepalive=61, keepalive_interval=7, keepalive_count=4, **more
    )
    assert keepalive
    assert found["TCP_NODELAY"]
    assert (found["TCP_KEEPIDLE"], found["TCP_KEEPINTVL"], found["TCP_KEEPCNT"]) == (61, 7, 4)


def test_tcp_options_by_default_and_switched_off() -> None:
    keepalive, found = options_of_accepted()
    assert not keepalive
    assert found["TCP_NODELAY"]
    keepalive, found = options_of_accepted(tcp_nodelay=False)
    assert not found["TCP_NODELAY"]


def test_a_fraction_of_a_second_still_asks_for_probes() -> None:
    keepalive, found = options_of_accepted(keepalive=0.25)
    assert keepalive
    assert found["TCP_KEEPIDLE"] == 1


def test_the_largest_backlog_is_one_the_kernel_takes() -> None:
    with serving(Handler(), backlog=Options(backlog=(1 << 31) - 1).backlog) as server:
        connect(server).close()


def test_every_descriptor_is_closed_on_exec() -> None:
    before = descriptors()
    handler = Recorder()
    with serving(handler, loops=2) as server, connect(server), connect(server):
        handler.next("connect")
        handler.next("connect")
        opened = [fd for fd in descriptors() if fd not in before]
        assert len(opened) >= 9  # 2 here, 2 accepted, a listener, a poller and an eventfd a loop
        assert [fd for fd in opened if os.get_inheritable(fd)] == []
