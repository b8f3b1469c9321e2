"""The idle case: thousands of connections that say nothing.

Each connection echoes one message, so that the server has surely accepted it and has done for it
whatever it does for a connection in use, and then stays silent. The memory a connection costs is
the growth of the server's PSS, without pages of files, from the first connection to the last; what
the kernel keeps for a socket is the same for every server and not in it. Then the CPU clock is
read, and read again after a while: a server with nothing to do should do nothing.

The connections are held by the harness itself. The server is ended before they are closed.
"""

from __future__ import annotations

import contextlib
import time

from benchmarks.cases import IdleCase
from benchmarks.client import connect
from benchmarks.process import Cores, cpu_seconds, pss_bytes, serving
from benchmarks.registry import PEERS
from benchmarks.samples import IdleSample

# Descriptors for everything that is not one of the connections, in the harness or the server.
SPARE_FILES = 200
SETTLE_SECONDS = 0.2


def connections_allowed(wanted: int, file_limit: int) -> int:
    """How many connections a process may hold under a limit of `file_limit` descriptors."""
    return min(wanted, file_limit - SPARE_FILES)


def measure_idle(
    case: IdleCase, peer: str, connections: int, seconds: float, cores: Cores
) -> IdleSample:
    """Hold `connections` open to one server and watch it for `seconds`."""
    with contextlib.ExitStack() as held, serving(peer, PEERS[peer].command, cores.server) as server:
        held.enter_context(connect(server, websocket=case.websocket))
        before = pss_bytes(server.pid)
        for _ in range(connections):
            held.enter_context(connect(server, websocket=case.websocket))
        time.sleep(SETTLE_SECONDS)
        memory = pss_bytes(server.pid) - before
        used = cpu_seconds(server.pid)
        begin = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - begin
        used = cpu_seconds(server.pid) - used
    return IdleSample(case.name, peer, connections, memory, used, elapsed)
