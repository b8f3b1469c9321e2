"""Addresses as users write them, and listening sockets.

TCP options are set on the listening socket: Linux hands them on to every connection accepted from
it (tcp(7), and `sk_clone_lock` in the kernel), so an accepted connection costs no system call for
them.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from gevffi.options import Options
from gevffi.sys.sockaddr import Address

AddressLike: TypeAlias = "str | tuple[str, int] | Address"
AddressesLike: TypeAlias = "AddressLike | Sequence[AddressLike]"


def parse_addresses(addresses: AddressesLike) -> tuple[Address, ...]:
    """Return the one address, or all of a list or tuple of them, that `parse_address` makes of it.

    A tuple of two whose second item is a number is one address, (host, port).

    Raises:
        ValueError: there is none, or one of them is no address; the message shows it.
    """
    given: Any = addresses
    several = isinstance(given, Sequence) and not isinstance(given, (str, bytes, Address))
    if isinstance(given, tuple) and len(given) == 2:
        several = several and isinstance(given[1], (str, tuple))
    return tuple(map(parse_address, given)) if several and given else (parse_address(given),)


if sys.platform == "darwin":
    _TCP_KEEPIDLE = socket.TCP_KEEPALIVE  # its name there, tcp(4)
else:
    _TCP_KEEPIDLE = socket.TCP_KEEPIDLE


def parse_address(address: AddressLike) -> Address:
    """Return what "host:port", "[::1]:port", ":port", (host, port) or "unix:/path" means.

    An empty host means every interface; port 0 lets the kernel choose. "unix:@name" is a name in
    Linux's abstract namespace.

    Raises:
        ValueError: it is none of these; the message shows it.
    """
    if isinstance(address, tuple):
        if len(address) == 2 and isinstance(address[0], str):
            host, port = address
            if port is None and host:
                return Address(host, None)
            if type(port) is int and 0 <= port <= 65535 and _may_be_host(host):
                return Address(host, port)
    elif isinstance(address, str):
        if address.startswith("unix:"):
            path = address[5:]
            if path and "\0" not in path:
                return Address("\0" + path[1:] if path.startswith("@") else path, None)
        else:
            host, colon, number = address.rpartition(":")
            bracketed = host.startswith("[") and host.endswith("]")
            if bracketed:
                host = host[1:-1]
            plain = number.isascii() and number.isdigit() and len(number) <= 5
            fits = bracketed == (":" in host) and _may_be_host(host)
            if colon and plain and int(number) <= 65535 and fits:
                return Address(host, int(number))
    raise ValueError(
        "address must be 'host:port', '[ipv6]:port', ':port', (host, port) or 'unix:/path', "
        f"not {address!r}"
    )


def _may_be_host(host: str) -> bool:
    """Whether nothing is in it that is in no name and no number: blanks, control characters."""
    return host.isprintable() and " " not in host


class Listener:
    """A listening socket and what it listens on. Bound and listening once it is made.

    Raises:
        OSError: it cannot be had; the message names the address, and nothing is left open.
    """

    def __init__(self, address: Address, options: Options) -> None:
        self._inode: int | None = None
        try:
            self.socket = self._open(address, options)
        except (OSError, UnicodeError) as exc:  # the second: a host that no name can be
            number = getattr(exc, "errno", None) or errno.EINVAL
            why = getattr(exc, "strerror", None) or exc
            raise OSError(number, f"cannot listen on {address}: {why}") from exc
        self.address = Address.of(self.socket.getsockname())
        """What it listens on, with the port the kernel chose."""

    def _open(self, address: Address, options: Options) -> socket.socket:
        family, target = resolve(address)
        if family == socket.AF_UNIX and not address.host.startswith("\0"):
            _remove_stale(address.host)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                set_tcp_options(sock, options)
            if options.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                every = address.host == ""
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not every))
            sock.bind(target)
            sock.listen(options.backlog)
            if family == socket.AF_UNIX and not address.host.startswith("\0"):
                self._inode = os.stat(address.host).st_ino
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Stop listening; remove the path of a Unix socket, if it is still ours."""
        self.socket.close()
        if self._inode is not None:
            try:
                if os.stat(self.address.host).st_ino == self._inode:
                    os.unlink(self.address.host)
            except FileNotFoundError:
                pass
            self._inode = None


def resolve(address: Address) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """Return the family and what `bind` and `connect` take. Blocks if the host is a name.

    Raises:
        OSError: the host is not known.
    """
    if address.port is None:
        return socket.AF_UNIX, address.host
    if address.host == "":
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", address.port)
        return socket.AF_INET, ("0.0.0.0", address.port)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, _, _, _, target = found[0]
    return family, target  # type: ignore[return-value]


def set_tcp_options(sock: socket.socket, options: Options) -> None:
    """Set what `options` say of TCP on a socket that listens or connects."""
    if options.tcp_nodelay:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in (
            (_TCP_KEEPIDLE, options.keepalive),
            (socket.TCP_KEEPINTVL, options.keepalive_interval),
            (socket.TCP_KEEPCNT, options.keepalive_count),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, max(1, round(seconds)))


def _remove_stale(path: str) -> None:
    """Remove a Unix socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            pass  # it is alive, with a full backlog
