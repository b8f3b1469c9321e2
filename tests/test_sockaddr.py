"""Addresses: literal bytes as linux/in.h and friends lay them out, and what the kernel writes."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from gevffi.sys import Address, accept4, decode_sockaddr


def native(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little" if sys.byteorder == "little" else "big")


def inet(host: str, port: int) -> bytes:
    packed = socket.inet_pton(socket.AF_INET, host)
    return native(socket.AF_INET, 2) + port.to_bytes(2, "big") + packed + bytes(8)


def inet6(host: str, port: int, scope: int = 0) -> bytes:
    packed = socket.inet_pton(socket.AF_INET6, host)
    head = native(socket.AF_INET6, 2) + port.to_bytes(2, "big") + b"flow"
    return head + packed + native(scope, 4)


def unix(path: bytes) -> bytes:
    return native(socket.AF_UNIX, 2) + path


@pytest.mark.parametrize(
    ("raw", "address", "text"),
    [
        (inet("127.0.0.1", 80), ("127.0.0.1", 80), "127.0.0.1:80"),
        (inet("255.1.2.3", 65535), ("255.1.2.3", 65535), "255.1.2.3:65535"),
        (inet("0.0.0.0", 0), ("0.0.0.0", 0), "0.0.0.0:0"),
        (inet6("::1", 80), ("::1", 80), "[::1]:80"),
        (inet6("fe80::1", 1833, scope=2), ("fe80::1%2", 1833), "[fe80::1%2]:1833"),
        (inet6("::ffff:10.0.0.1", 1), ("10.0.0.1", 1), "10.0.0.1:1"),
        (inet6("::fffe:10.0.0.1", 1), ("::fffe:a00:1", 1), "[::fffe:a00:1]:1"),
        (unix(b"/run/x\0"), ("/run/x", None), "unix:/run/x"),
        (unix(b"/run/x\0left over"), ("/run/x", None), "unix:/run/x"),
        (unix(b"/" + b"x" * 107), ("/" + "x" * 107, None), "unix:/" + "x" * 107),
        (unix(b""), ("", None), "unix:"),
        (unix(b"\0name\0more"), ("\0name\0more", None), "unix:@name\0more"),
    ],
)
def test_an_address_from_its_bytes(raw: bytes, address: tuple[str, int | None], text: str) -> None:
    decoded = decode_sockaddr(raw)
    assert isinstance(decoded, Address)
    assert decoded == address
    assert str(decoded) == text


def test_a_path_that_is_not_text_keeps_its_bytes() -> None:
    assert os.fsencode(decode_sockaddr(unix(b"/\xff\xfe\0")).host) == b"/\xff\xfe"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02",
        native(socket.AF_INET, 2),
        inet("127.0.0.1", 80)[:7],
        inet6("::1", 80)[:27],
        native(socket.AF_NETLINK, 2) + bytes(10),
    ],
)
def test_what_is_no_address_is_refused_with_its_bytes(raw: bytes) -> None:
    with pytest.raises(ValueError, match=f"socket address: {raw.hex() or 'empty'}"):
        decode_sockaddr(raw)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::1", 80, 7, 0), ("::1", 80)),
        ("/run/x", ("/run/x", None)),
        ("", ("", None)),
        (b"\0name", ("\0name", None)),
    ],
)
def test_an_address_of_what_getsockname_returns(
    name: tuple[str, int] | str | bytes, address: tuple[str, int | None]
) -> None:
    assert Address.of(name) == address


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_tcp_peer_as_the_kernel_names_it(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        fd, address = accept4(listener.fileno())
        os.close(fd)
        assert address == client.getsockname()[:2]


@pytest.mark.parametrize("name", [None, "\0gevffi-test-{pid}", "{folder}/peer"])
def test_a_unix_peer_as_the_kernel_names_it(name: str | None, tmp_path: Path) -> None:
    path = str(tmp_path / "listener")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        if name is not None:
            name = name.format(pid=os.getpid(), folder=tmp_path)
            client.bind(name)
        client.connect(path)
        fd, address = accept4(listener.fileno())
        os.close(fd)
        assert address == Address(name or "", None)
