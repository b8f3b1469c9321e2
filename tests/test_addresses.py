"""Several addresses on one server: what may be given, what is opened, and what is not."""

from __future__ import annotations

import contextlib
import errno
import socket
import uuid
from pathlib import Path
from typing import Any

import pytest
from helpers import Echo, connect, descriptors, receive_exactly, serving

from gevffi import Address, Handler, Server
from gevffi.listener import parse_addresses, resolve

V4, V4_TOO, UNIX = Address("127.0.0.1", 80), Address("127.0.0.1", 81), Address("/s", None)


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ("127.0.0.1:80", (V4,)),
        (("127.0.0.1", 80), (V4,)),
        (V4, (V4,)),
        (UNIX, (UNIX,)),
        (["127.0.0.1:80"], (V4,)),
        ([("127.0.0.1", 80)], (V4,)),
        ((("127.0.0.1", 80),), (V4,)),
        (("127.0.0.1:80", "127.0.0.1:81"), (V4, V4_TOO)),
        (("127.0.0.1:80", ("127.0.0.1", 81)), (V4, V4_TOO)),
        ((("127.0.0.1", 80), "127.0.0.1:81"), (V4, V4_TOO)),
        ((V4, V4_TOO), (V4, V4_TOO)),
        ((V4, UNIX), (V4, UNIX)),
        (["127.0.0.1:80", ("127.0.0.1", 81), UNIX], (V4, V4_TOO, UNIX)),
        (("unix:/s", "127.0.0.1:80", "[::1]:0"), (UNIX, V4, Address("::1", 0))),
    ],
    ids=repr,
)
def test_one_or_several(given: Any, addresses: tuple[Address, ...]) -> None:
    assert parse_addresses(given) == addresses
    server = Server(Handler(), given)
    assert server.addresses == addresses
    assert server.address == addresses[0]


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ([], []),
        ((), ()),
        (["127.0.0.1:80", "nowhere"], "nowhere"),
        (["127.0.0.1:80", ["127.0.0.1:81"]], ["127.0.0.1:81"]),
        (["127.0.0.1:80", None], None),
        (("localhost", "80"), "localhost"),
        (("127.0.0.1", 65536), ("127.0.0.1", 65536)),
        (["localhost", 80], "localhost"),
        ({"127.0.0.1:80"}, {"127.0.0.1:80"}),
        (b"127.0.0.1:80", b"127.0.0.1:80"),
        (range(2), 0),
    ],
    ids=repr,
)
def test_what_is_wrong_is_shown(given: Any, wrong: Any) -> None:
    with pytest.raises(ValueError, match="address must be") as caught:
        Server(Handler(), given)
    assert repr(wrong) in str(caught.value)


def is_served(address: Address) -> None:
    with connect(address) as sock:
        sock.sendall(b"x")
        assert receive_exactly(sock, 1) == b"x"


def is_gone(address: Address) -> bool:
    family, target = resolve(address)
    with socket.socket(family) as sock:
        return sock.connect_ex(target) in (errno.ECONNREFUSED, errno.ENOENT)


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("loops", [1, 3])
def test_every_family_on_one_server(loops: int, tmp_path: Path) -> None:
    name = f"unix:@gevffi-{uuid.uuid4()}"
    wanted: list[Any] = ["127.0.0.1:0", f"unix:{tmp_path}/s", ("127.0.0.1", 0), name]
    if has_ipv6():
        wanted.append("[::1]:0")
    handler = Echo()
    server = Server(handler, wanted, loops=loops)
    for _ in range(2):
        with server.running():
            addresses = server.addresses
            assert server.address == addresses[0]
            assert len(addresses) == len(wanted)
            assert [address.host for address in addresses[:3]] == [
                "127.0.0.1",
                f"{tmp_path}/s",
                "127.0.0.1",
            ]
            assert str(addresses[3]) == name
            assert addresses[0].port
            assert addresses[2].port not in (0, addresses[0].port)
            for address in addresses:
                is_served(address)
        assert server.addresses[0] == Address("127.0.0.1", 0)
        assert not (tmp_path / "s").exists()
        for address in addresses:
            assert is_gone(address)


def test_with_reuse_port_each_loop_listens_on_each_address() -> None:
    handler = Echo()
    before = descriptors()
    with serving(handler, ["127.0.0.1:0", "127.0.0.1:0"], loops=2, reuse_port=True) as server:
        opened = [fd for fd in descriptors() if fd not in before]
        assert len(set(server.addresses)) == 2
        listening = []
        for fd in opened:
            with contextlib.suppress(OSError), socket.socket(fileno=fd) as sock:
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    listening.append(sock.getsockname())
                sock.detach()
        assert sorted(listening) == sorted(server.addresses * 2)
        for address in server.addresses:
            seen = set()
            with contextlib.ExitStack() as stack:
                for _ in range(1000):  # the kernel hashes ports
                    stack.enter_context(connect(address))
                    seen.add(handler.until("connect").conn.loop.name)
                    if len(seen) == 2:
                        break
            assert seen == {"loop-0", "loop-1"}


@pytest.mark.parametrize("options", [{}, {"loops": 2}], ids=str)
def test_a_second_address_that_is_busy_leaves_nothing_open(
    options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        wanted = [f"unix:{path}", f"127.0.0.1:{port}", "127.0.0.1:0"]
        server = Server(Handler(), wanted, **options)
        before = descriptors()
        for run in (server.start, lambda: server.running().__enter__()):
            with pytest.raises(OSError, match=f"127.0.0.1:{port}") as caught:
                run()
            assert caught.value.errno == errno.EADDRINUSE
            assert descriptors() == before
            assert not path.exists()
            assert not server.loops
            assert server.addresses == parse_addresses(wanted)
    with server.running():
        connect(server.addresses[1]).close()


def test_reuse_port_and_a_unix_socket_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reuse_port.*unix:/s"):
        Server(Handler(), ["127.0.0.1:0", "unix:/s"], reuse_port=True)


def test_the_same_address_twice_is_busy() -> None:
    with serving(Handler()) as server:
        address = server.address
    before = descriptors()
    with pytest.raises(OSError, match=str(address)), serving(Handler(), [address, address]):
        pass
    assert descriptors() == before
