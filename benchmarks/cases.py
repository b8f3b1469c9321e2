"""The workloads, and what gevffi has to reach in each.

A target is a ratio: what gevffi does divided by what the peer does, messages per second of server
CPU unless the case says otherwise. They are written here, beside the workload, so that every
report shows the figure, the target and whether it was met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ECHO = ("gevffi", "gevffi-copy", "c-epoll", "uvloop", "asyncio", "socketserver")
WEBSOCKET = ("gevffi-ws", "picows", "socketify", "aiohttp", "websockets")


@dataclass(frozen=True)
class Case:
    """An echo workload, one where the server sends what it reads to everybody, or handshakes.

    Attributes:
        name: what the command line and the results call it.
        connections: how many stay open, or are being opened and closed.
        size: bytes in a message, the length prefix included when framed, a WebSocket's header not.
        depth: messages in flight on each connection.
        peers: who is measured; the first is the one compared with the others.
        framed: messages carry a 4-byte length prefix.
        broadcast: one of the connections sends, and every message goes to all of them; each that
            arrives counts, and the next is sent when the last one has.
        websocket: messages are the payload of binary WebSocket frames.
        handshakes: there are no messages; WebSockets are opened and closed, and each counts.
        pinned: server and load have a core each; otherwise both may use both.
        by_rate: ratios are made of messages per second rather than per second of server CPU, where
            the point is what a server makes of both cores.
        targets: the ratio to reach against a peer.
    """

    name: str
    connections: int
    size: int
    depth: int
    peers: tuple[str, ...] = ECHO
    framed: bool = False
    broadcast: bool = False
    websocket: bool = False
    handshakes: bool = False
    pinned: bool = True
    by_rate: bool = False
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The peer that the others are compared with."""
        return self.peers[0]

    @property
    def compares(self) -> str:
        """The figure ratios are made of: CPU time is what other work disturbs least."""
        return "messages_per_second" if self.by_rate else "messages_per_cpu_second"

    @property
    def about(self) -> str:
        """The workload in words."""
        size = f"{self.size // 1024} KiB" if self.size % 1024 == 0 else f"{self.size} B"
        if self.handshakes:
            words = f"opened, upgraded and closed, {self.connections} at a time; each is a message"
        elif self.broadcast:
            words = f"each {size} to {self.connections} connections, depth {self.depth}"
        else:
            words = f"{self.connections} connections x {size}, depth {self.depth}"
        words += ", length-prefixed" if self.framed else ""
        words = f"WebSockets: {words}" if self.websocket else words
        return words + ("" if self.pinned else ", both cores for both")


@dataclass(frozen=True)
class IdleCase:
    """Open connections that say nothing: what each costs in memory, and all of them in CPU.

    Attributes:
        name: what the command line and the results call it.
        connections: how many are held open, by peer; the first is the one with limits to keep.
        max_bytes: memory a connection that it may use at most.
        max_cpu_share: the share of a core that counts as idle: clock noise, not work.
        websocket: the connections are WebSockets.
    """

    name: str
    connections: Mapping[str, int]
    max_bytes: int
    max_cpu_share: float
    websocket: bool = False

    @property
    def subject(self) -> str:
        """The peer that has limits to keep."""
        return next(iter(self.connections))

    @property
    def about(self) -> str:
        """The workload in words."""
        return f"open {'WebSockets' if self.websocket else 'connections'} that say nothing"


@dataclass(frozen=True)
class GrowthCase:
    """More and more of something that does nothing: what a turn of the loop costs beside it.

    Attributes:
        name: what the command line and the results call it.
        about: the workload in words.
        things: what there is more and more of.
        counts: how many, fewest first.
        peers: who is measured; the first has the limit to keep.
        figures: what is measured, all in CPU microseconds, and what it is in two words; the first
            is the one that is not to grow.
        most_growth: how many times the first figure may be, beside the most, what it is beside few.
        connections: the things are connections to a server, rather than timers of a loop alone.
    """

    name: str
    about: str
    things: str
    counts: tuple[int, ...]
    peers: tuple[str, ...]
    figures: Mapping[str, str]
    most_growth: float
    connections: bool

    @property
    def subject(self) -> str:
        """The peer that has a limit to keep."""
        return self.peers[0]

    @property
    def flat(self) -> str:
        """The figure that is not to grow."""
        return next(iter(self.figures))


_ALL = (
    Case("100x64B", 100, 64, 1, targets={"c-epoll": 0.97, "uvloop": 1.15, "socketserver": 1.6}),
    Case("1000x64B", 1000, 64, 1, targets={"c-epoll": 0.95, "uvloop": 1.25, "socketserver": 1.9}),
    Case("50x1KiB", 50, 1024, 16, targets={"c-epoll": 0.85, "uvloop": 1.0, "socketserver": 1.5}),
    Case("10x16KiB", 10, 16384, 1, targets={"c-epoll": 0.95, "uvloop": 1.1, "socketserver": 1.4}),
    Case(
        "1000x64B-two-cores",
        1000,
        64,
        1,
        peers=("gevffi", "socketserver"),
        pinned=False,
        by_rate=True,
        targets={"socketserver": 3.0},
    ),
    Case(
        "two-loops",
        100,
        64,
        1,
        peers=("gevffi-two-loops", "gevffi"),
        pinned=False,
        targets={"gevffi": 0.8},  # at most 1.25 times the CPU of one loop
    ),
    Case(
        "framed-64B",
        50,
        64,
        32,
        peers=(
            "gevffi-framed",
            "gevffi-framed-bytes",
            "gevffi-framed-copy",
            "gevffi-unpacket",
            "gevffi",
            "uvloop-framed",
        ),
        framed=True,
        targets={"uvloop-framed": 1.5},
    ),
    Case(
        "batch-64B",
        50,
        64,
        32,
        peers=("gevffi-batch", "gevffi-framed", "uvloop-framed"),
        framed=True,
        targets={"uvloop-framed": 2.5},
    ),
    Case(
        "broadcast-500x128B",
        500,
        128,
        1,
        peers=(
            "gevffi-broadcast",
            "c-epoll-broadcast",
            "uvloop-broadcast",
            "asyncio-broadcast",
        ),
        broadcast=True,
        targets={"c-epoll-broadcast": 0.95, "uvloop-broadcast": 1.25},
    ),
    Case(
        "ws-100x64B",
        100,
        64,
        1,
        peers=WEBSOCKET,
        websocket=True,
        targets={"picows": 1.2, "websockets": 3.5},
    ),
    Case("ws-50x1KiB", 50, 1024, 16, peers=WEBSOCKET, websocket=True, targets={"picows": 5.0}),
    Case("ws-10x64KiB", 10, 65536, 1, peers=WEBSOCKET, websocket=True, targets={"picows": 1.1}),
    Case(
        "ws-broadcast-500x128B",
        500,
        128,
        1,
        peers=("gevffi-ws-broadcast", "picows-broadcast", "websockets-broadcast"),
        broadcast=True,
        websocket=True,
        targets={"picows-broadcast": 1.1, "websockets-broadcast": 1.9},
    ),
    Case("ws-handshakes", 50, 0, 0, peers=WEBSOCKET, websocket=True, handshakes=True),
)

CASES = {case.name: case for case in _ALL}

_ALL_IDLE = (
    IdleCase(
        "idle",
        # A thread each is what socketserver gives a connection, so it holds fewer.
        {
            "gevffi": 15000,
            "uvloop": 15000,
            "asyncio": 15000,
            "c-epoll": 15000,
            "socketserver": 2000,
        },
        max_bytes=640,
        max_cpu_share=0.001,
    ),
    IdleCase(
        "ws-idle",
        # Fewer where each takes its tens of kilobytes and its time to be opened.
        {
            "gevffi-ws": 15000,
            "picows": 5000,
            "socketify": 5000,
            "aiohttp": 5000,
            "websockets": 5000,
        },
        max_bytes=1024,
        max_cpu_share=0.001,
        websocket=True,
    ),
)

IDLE_CASES = {case.name: case for case in _ALL_IDLE}

_ALL_GROWTH = (
    GrowthCase(
        "timers",
        "pending timers, a loop that turns, none of them due",
        "timers",
        (0, 1_000, 10_000, 100_000),
        ("gevffi", "uvloop", "asyncio"),
        {"turn_us": "a turn", "add_us": "to make", "cancel_us": "to cancel", "fire_us": "to call"},
        most_growth=1.25,
        connections=False,
    ),
    GrowthCase(
        "idle-timers",
        "silent connections, with an idle time and without, and one that echoes",
        "connections",
        (100, 1_000, 15_000),
        ("gevffi-idle-time", "gevffi"),
        {"turn_us": "an echo", "quiet_us_per_second": "silent second"},
        most_growth=1.25,
        connections=True,
    ),
)

GROWTH_CASES = {case.name: case for case in _ALL_GROWTH}
