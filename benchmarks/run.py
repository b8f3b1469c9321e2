"""Runs the rounds of a case.

Every peer is measured once in a round, on a server started for that measurement alone, and the
order is turned by one from round to round: whatever drifts on the machine (heat, other work)
meets each peer in turn instead of always the same one.

A server is measured in its steady state, that is after a connection has come and gone. It
matters: a fresh asyncio server maps and unmaps its 256 KiB read buffer for every message, at four
times the CPU, until the first connection that ends teaches malloc better.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from benchmarks.build import program
from benchmarks.cases import Case
from benchmarks.client import connect
from benchmarks.errors import BenchmarkError
from benchmarks.process import Cores, Running, end, serving, spawn
from benchmarks.registry import PEERS
from benchmarks.samples import Sample

# The load generator gives a server 20 s at most for what is outstanding (load.c): before the
# window, at its end if nothing has come back in it, and after it. Longer than that is stuck.
GRACE_SECONDS = 80.0


def _shape(case: Case) -> list[str]:
    """The arguments that say what is sent."""
    if case.handshakes:
        return ["-H"]
    return [
        *("-m", str(case.size), "-d", str(case.depth)),
        *(["-f"] if case.framed else []),
        *(["-b"] if case.broadcast else []),
        *(["-W"] if case.websocket else []),
    ]


def drive(server: Running, case: Case, seconds: float, warmup: float, cores: frozenset[int]) -> str:
    """Run the load of `case` against a server; returns the line of JSON it printed.

    Args:
        server: the server.
        case: how many connections, and what they send.
        seconds: how long the window is in which messages count.
        warmup: seconds of load before the window opens.
        cores: where the load generator may run.

    Raises:
        BenchmarkError: bytes came back wrong, late or not at all, or a connection broke.
    """
    command = [
        str(program("echoload")),
        *("-p", str(server.port), "-s", str(server.pid)),
        *("-c", str(case.connections), "-t", str(seconds), "-w", str(warmup)),
        *_shape(case),
    ]
    process = spawn(command, cores, subprocess.PIPE, subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=warmup + seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchmarkError("the load did not end in time") from None
    finally:
        if process.poll() is None:
            end(process)
    if process.returncode != 0:
        raise BenchmarkError(f"the load failed: {errors.decode(errors='replace').strip()}")
    return output.decode()


def measure(
    case: Case, peer: str, number: int, seconds: float, warmup: float, cores: Cores
) -> Sample:
    """Start a server, load it, end it: one sample."""
    if not case.pinned:
        cores = cores.unpinned()
    with serving(peer, PEERS[peer].command, cores.server) as server:
        connect(server, websocket=case.websocket).close()
        line = drive(server, case, seconds, warmup, cores.load)
    return Sample.from_load(case.name, peer, number, line)


def run_case(
    case: Case,
    peers: Sequence[str],
    rounds: int,
    seconds: float,
    warmup: float,
    cores: Cores,
    progress: Callable[[str], None],
) -> list[Sample]:
    """Measure `peers` in `rounds` interleaved rounds.

    `progress` is called before each measurement with words for what comes next.
    """
    samples = []
    for number in range(rounds):
        turn = number % len(peers) if peers else 0
        for peer in (*peers[turn:], *peers[:turn]):
            progress(f"{case.name}  {peer}  round {number + 1}/{rounds}")
            samples.append(measure(case, peer, number, seconds, warmup, cores))
    return samples
