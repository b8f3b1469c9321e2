"""Socket addresses as the kernel writes them, and as people read them.

`accept4` gets the peer's address with the connection, as a `struct sockaddr`. Decoding it here
saves the `getpeername` call that `socket.socket` would make for every connection, and works when
the peer is gone already.

     AF_INET    │family│port│address    │                        ip(7)
     AF_INET6   │family│port│flow label │address (16)│scope id│  ipv6(7)
     AF_UNIX    │family│path, NUL-terminated                     unix(7)
                │family│NUL, then an abstract name to the end
                │family│                                         unnamed
      bytes      0      2    4           8            24       28

The family is in the machine's byte order, and so is the scope id; ports are big-endian. BSD has a
length and one byte of family instead of the two; `gev_accept4` makes one of the other.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Literal, NamedTuple

_NATIVE: Literal["little", "big"] = sys.byteorder

_MAPPED = bytes(10) + b"\xff\xff"


class Address(NamedTuple):
    """One end of a connection.

    Attributes:
        host: an IPv4 or IPv6 address in numbers (a link-local one with its scope, "fe80::1%2"), or
            the path of a Unix socket: "" if it has no name, and with its leading NUL if the name
            is an abstract one. Bytes that are not text are kept as `os.fsdecode` keeps them.
        port: `None` for a Unix socket.

    `str()` gives "127.0.0.1:80", "[::1]:80", "unix:/path", and "unix:@name" for an abstract name.
    """

    host: str
    port: int | None

    @classmethod
    def of(cls, name: Any) -> Address:
        """Make one of what `socket.getsockname` returns."""
        if isinstance(name, tuple):
            return cls(name[0].removeprefix("::ffff:") if "." in name[0] else name[0], name[1])
        return cls(os.fsdecode(name), None)

    def __str__(self) -> str:
        if self.port is None:
            name = "@" + self.host[1:] if self.host.startswith("\0") else self.host
            return f"unix:{name}"
        if ":" in self.host:
            return f"[{self.host}]:{self.port}"
        return f"{self.host}:{self.port}"


def decode_sockaddr(raw: bytes) -> Address:
    """Decode a `struct sockaddr` of exactly the length that the kernel gave.

    Raises:
        ValueError: the family is none of AF_INET, AF_INET6 and AF_UNIX, or `raw` is too short.
    """
    family = int.from_bytes(raw[:2], _NATIVE) if len(raw) >= 2 else None
    if family == socket.AF_UNIX:
        path = raw[2:]
        if not path.startswith(b"\0") or sys.platform != "linux":  # abstract names are Linux's
            path = path.partition(b"\0")[0]
        return Address(os.fsdecode(path), None)
    if family == socket.AF_INET and len(raw) >= 8:
        return Address(socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big"))
    if family == socket.AF_INET6 and len(raw) >= 28:
        if raw[8:20] == _MAPPED:  # an IPv4 peer of a dual-stack listener, RFC 4291 2.5.5.2
            host = socket.inet_ntop(socket.AF_INET, raw[20:24])
        else:
            host = socket.inet_ntop(socket.AF_INET6, raw[8:24])
        scope = int.from_bytes(raw[24:28], _NATIVE)
        if scope:
            host = f"{host}%{scope}"
        return Address(host, int.from_bytes(raw[2:4], "big"))
    raise ValueError(f"not an IPv4, IPv6 or Unix socket address: {raw.hex() or 'empty'}")
