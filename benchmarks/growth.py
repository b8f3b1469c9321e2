"""The growth cases: what a turn costs beside more and more timers, or more and more connections.

A loop is measured beside the fewest first, then beside more of the same, and so on: what a turn
costs beside many is divided by what it cost beside few a moment ago, in the same process. Few are
the fewest that there are any of: the first timer costs a look at the clock.

timers       a process alone, see timers.py
connections  held as in idle.py: each has said one message. One more sends a message and waits for
             it, over and over, which turns the loop; then nobody says anything.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.cases import Case, GrowthCase
from benchmarks.client import MESSAGE, connect
from benchmarks.errors import BenchmarkError
from benchmarks.idle import SETTLE_SECONDS
from benchmarks.process import Cores, Running, cpu_seconds, end, serving, spawn
from benchmarks.registry import PEERS
from benchmarks.run import drive
from benchmarks.samples import GrowthSample, Sample

GRACE_SECONDS = 60.0


def measure_growth(
    case: GrowthCase, peer: str, number: int, counts: Sequence[int], seconds: float, cores: Cores
) -> list[GrowthSample]:
    """Measure one peer beside each of `counts`, for `seconds` each.

    Raises:
        BenchmarkError: it failed, or did not answer.
    """
    if case.connections:
        return _beside_connections(case, peer, number, counts, seconds, cores)
    return _beside_timers(case, peer, number, counts, seconds, cores)


def run_growth(
    case: GrowthCase,
    peers: Sequence[str],
    rounds: int,
    counts: Sequence[int],
    seconds: float,
    cores: Cores,
    progress: Callable[[str], None],
) -> list[GrowthSample]:
    """Measure `peers` in interleaved rounds, as `run.run_case` does."""
    samples = []
    for number in range(rounds):
        turn = number % len(peers) if peers else 0
        for peer in (*peers[turn:], *peers[:turn]):
            progress(f"{case.name}  {peer}  round {number + 1}/{rounds}")
            samples += measure_growth(case, peer, number, counts, seconds, cores)
    return samples


# ---- timers --------------------------------------------------------------------------------------


def _beside_timers(
    case: GrowthCase, peer: str, number: int, counts: Sequence[int], seconds: float, cores: Cores
) -> list[GrowthSample]:
    command = [sys.executable, "-m", "benchmarks.timers", peer, str(seconds), *map(str, counts)]
    process = spawn(command, cores.server, subprocess.PIPE, subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=seconds * len(counts) + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"the timers of {peer} did not end in time") from None
    finally:
        if process.poll() is None:
            end(process)
    if process.returncode != 0:
        story = errors.decode(errors="replace").strip()
        raise BenchmarkError(f"the timers of {peer} failed: {story}")
    return [
        GrowthSample(case.name, peer, number, **json.loads(line))
        for line in output.decode().splitlines()
    ]


# ---- connections ---------------------------------------------------------------------------------


def _beside_connections(
    case: GrowthCase, peer: str, number: int, counts: Sequence[int], seconds: float, cores: Cores
) -> list[GrowthSample]:
    samples = []
    held = 0
    with (
        contextlib.ExitStack() as stack,
        serving(peer, PEERS[peer].command, cores.server) as server,
    ):
        for count in counts:
            for _ in range(count - held):
                stack.enter_context(connect(server))
            held = count
            time.sleep(SETTLE_SECONDS)
            figures = {
                "turn_us": _echo(server, seconds, cores),
                "quiet_us_per_second": _silence(server, seconds),
            }
            samples.append(GrowthSample(case.name, peer, number, count, figures))
    return samples


def _echo(server: Running, seconds: float, cores: Cores) -> float:
    """CPU microseconds of the server for a message that it echoes."""
    busy = Case("one that echoes", 1, len(MESSAGE), 1)
    line = drive(server, busy, seconds, SETTLE_SECONDS, cores.load)
    return Sample.from_load(busy.name, server.name, 0, line).cpu_us_per_message


def _silence(server: Running, seconds: float) -> float:
    """CPU microseconds of the server a second while nobody says anything."""
    used = cpu_seconds(server.pid)
    begin = time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(server.pid) - used) / (time.monotonic() - begin) * 1e6
