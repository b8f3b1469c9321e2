"""The peers: what each is, how its server is started, and what it needs to be there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from benchmarks.build import program
from benchmarks.process import ROOT


@dataclass(frozen=True)
class Peer:
    """A server to measure.

    Attributes:
        name: what the command line and the results call it.
        about: what it is, in a few words.
        command: starts it; the contract is in `benchmarks/peers/__init__.py`.
        requires: the module that has to be importable, or several with commas, or None.
    """

    name: str
    about: str
    command: tuple[str, ...]
    requires: str | None = None

    def absent(self) -> str | None:
        """Why this peer cannot be measured here, or None when it can."""
        if self.requires is None:
            return None
        # In a process of its own: what is found here must be what the server will find.
        result = subprocess.run(
            [sys.executable, "-c", f"import {self.requires}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if result.returncode == 0:
            return None
        return result.stderr.strip().rpartition("\n")[2] or f"cannot import {self.requires}"


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


_ALL = (
    Peer(
        "gevffi",
        "gevffi, raw echo",
        _module("gevffi", "echo", "--address", "127.0.0.1:0", "--loops", "1"),
        requires="gevffi.__main__",
    ),
    Peer(
        "gevffi-copy",
        "gevffi, answers with a copy",
        _module("benchmarks.peers.gevffi_copy"),
        requires="gevffi",
    ),
    Peer(
        "gevffi-two-loops",
        "gevffi, raw echo, two loops in threads",
        _module("gevffi", "echo", "--address", "127.0.0.1:0", "--loops", "2"),
        requires="gevffi.__main__",
    ),
    Peer(
        "gevffi-idle-time",
        "gevffi, raw echo, idle_time=60",
        _module("gevffi", "echo", "--address", "127.0.0.1:0", "--idle-time", "60"),
        requires="gevffi.__main__",
    ),
    Peer("c-epoll", "plain C epoll: the floor", (str(program("c_epoll_echo")),)),
    Peer("uvloop", "uvloop Protocol", _module("benchmarks.peers.uvloop_echo"), "uvloop"),
    Peer("asyncio", "asyncio Protocol", _module("benchmarks.peers.asyncio_echo")),
    Peer("socketserver", "socketserver, threads", _module("benchmarks.peers.socketserver_echo")),
    Peer(
        "gevffi-framed",
        "gevffi, frames cut in C, views",
        _module("benchmarks.peers.gevffi_framed", "view"),
        requires="gevffi.framing",
    ),
    Peer(
        "gevffi-framed-bytes",
        "gevffi, frames cut in C, bytes",
        _module("benchmarks.peers.gevffi_framed", "bytes"),
        requires="gevffi.framing",
    ),
    Peer(
        "gevffi-framed-copy",
        "gevffi, frames cut in C, answers with a copy",
        _module("benchmarks.peers.gevffi_framed", "copy"),
        requires="gevffi.framing",
    ),
    Peer(
        "gevffi-batch",
        "gevffi, frames cut in C, batches",
        _module("benchmarks.peers.gevffi_framed", "batch"),
        requires="gevffi.framing",
    ),
    Peer(
        "gevffi-unpacket",
        "gevffi, unpacket/packet in Python",
        _module("benchmarks.peers.gevffi_unpacket"),
        requires="gevffi.server",
    ),
    Peer(
        "uvloop-framed",
        "uvloop, frames cut in Python",
        _module("benchmarks.peers.uvloop_framed"),
        "uvloop",
    ),
    Peer(
        "gevffi-broadcast",
        "gevffi, server.broadcast",
        _module("benchmarks.peers.gevffi_broadcast"),
        requires="gevffi.server",
    ),
    Peer(
        "c-epoll-broadcast",
        "plain C epoll, a send for each",
        (str(program("c_epoll_broadcast")),),
    ),
    Peer(
        "uvloop-broadcast",
        "uvloop, transport.write for each",
        _module("benchmarks.peers.uvloop_broadcast"),
        "uvloop",
    ),
    Peer(
        "asyncio-broadcast",
        "asyncio, transport.write for each",
        _module("benchmarks.peers.asyncio_broadcast"),
    ),
    Peer(
        "gevffi-ws",
        "gevffi, WebSocket echo",
        _module("gevffi", "ws-echo", "--address", "127.0.0.1:0", "--loops", "1"),
        requires="gevffi.ws",
    ),
    Peer("picows", "picows on uvloop", _module("benchmarks.peers.picows_echo"), "picows, uvloop"),
    Peer(
        "socketify",
        "uWebSockets through socketify",
        _module("benchmarks.peers.socketify_echo"),
        "socketify",
    ),
    Peer("aiohttp", "aiohttp", _module("benchmarks.peers.aiohttp_echo"), "aiohttp"),
    Peer("websockets", "websockets", _module("benchmarks.peers.websockets_echo"), "websockets"),
    Peer(
        "gevffi-ws-broadcast",
        "gevffi, WebSocket broadcast",
        _module("benchmarks.peers.gevffi_ws_broadcast"),
        requires="gevffi.ws",
    ),
    Peer(
        "picows-broadcast",
        "picows on uvloop, a send for each",
        _module("benchmarks.peers.picows_broadcast"),
        "picows, uvloop",
    ),
    Peer(
        "websockets-broadcast",
        "websockets.broadcast",
        _module("benchmarks.peers.websockets_broadcast"),
        "websockets",
    ),
)

PEERS = {peer.name: peer for peer in _ALL}
