"""`python -m benchmarks`: measures gevffi beside its peers and writes down what came out."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmarks import chart, machine, report, terminal
from benchmarks.build import SOURCES, build
from benchmarks.cases import CASES, GROWTH_CASES, IDLE_CASES
from benchmarks.errors import BenchmarkError
from benchmarks.growth import run_growth
from benchmarks.idle import connections_allowed, measure_idle
from benchmarks.process import ROOT, Cores, raise_file_limit
from benchmarks.registry import PEERS
from benchmarks.run import run_case
from benchmarks.samples import GrowthSample, IdleSample, Sample


@dataclass(frozen=True)
class Plan:
    """How long a run takes.

    Attributes:
        rounds: measurements of each server in each case.
        seconds: length of a window.
        warmup: seconds of load before it.
        idle_share: how many of the idle connections are opened.
        idle_seconds: how long they are watched.
        growth_seconds: how long a loop is watched beside so many things.
    """

    rounds: int
    seconds: float
    warmup: float
    idle_share: float
    idle_seconds: float
    growth_seconds: float


ALL_CASES = [*CASES, *IDLE_CASES, *GROWTH_CASES]
# Above this load average something else is running, and the figures are to be taken with care.
BUSY_LOAD = 1.0
FULL = Plan(rounds=5, seconds=2.0, warmup=1.0, idle_share=1.0, idle_seconds=2.0, growth_seconds=1.0)
QUICK = Plan(
    rounds=1, seconds=0.3, warmup=0.3, idle_share=0.2, idle_seconds=0.3, growth_seconds=0.2
)
QUICK_CASES = ["100x64B", "1000x64B", "50x1KiB", "10x16KiB", "framed-64B", "ws-100x64B"]


def _rounds(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0.05 <= value <= 600):
        raise argparse.ArgumentTypeError(f"from 0.05 to 600, not {text}")
    return value


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="six of the cases in under a minute, for a first look"
    )
    parser.add_argument(
        "--rounds", type=_rounds, metavar="N", help=f"rounds a case ({FULL.rounds})"
    )
    parser.add_argument(
        "--seconds", type=_seconds, metavar="S", help=f"length of a window ({FULL.seconds:g})"
    )
    parser.add_argument(
        "--case", nargs="+", choices=ALL_CASES, metavar="NAME", help="only these cases"
    )
    parser.add_argument(
        "--peer", nargs="+", choices=list(PEERS), metavar="NAME", help="only these servers"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=ROOT / "benchmarks" / "results",
        help="where the results go (benchmarks/results)",
    )
    return parser.parse_args(arguments)


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that was asked for; `--rounds` and `--seconds` win over `--quick`."""
    plan = QUICK if options.quick else FULL
    if options.rounds is not None:
        plan = replace(plan, rounds=options.rounds)
    if options.seconds is not None:
        plan = replace(plan, seconds=options.seconds)
    return plan


def measure_all(
    console: Console, plan: Plan, cases: Sequence[str], peers: Sequence[str], command: str
) -> report.Results:
    """Run the cases with those of `peers` that are here.

    Raises:
        BenchmarkError: a measurement failed, or none of the peers is in any of the cases.
    """
    described = machine.describe()
    load = os.getloadavg()[0]
    cores = Cores.available()
    files = raise_file_limit()
    for name in SOURCES:
        build(name)
    absent = {name: why for name in peers if (why := PEERS[name].absent()) is not None}
    here = [name for name in peers if name not in absent]
    work = [
        (case, [name for name in case.peers if name in here])
        for case in CASES.values()
        if case.name in cases
    ]
    watched = [
        (idle_case, name)
        for idle_case in IDLE_CASES.values()
        if idle_case.name in cases
        for name in idle_case.connections
        if name in here
    ]
    growing = [
        (growth_case, [name for name in growth_case.peers if name in here])
        for growth_case in GROWTH_CASES.values()
        if growth_case.name in cases
    ]
    steps = sum(len(names) for _, names in (*work, *growing)) * plan.rounds + len(watched)
    if not steps:
        why = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise BenchmarkError(f"nothing to measure: no such peer in these cases. {why}".strip())
    samples: list[Sample] = []
    idle: list[IdleSample] = []
    growth: list[GrowthSample] = []
    notes: list[str] = []
    if load > BUSY_LOAD:
        notes.append(f"the machine was busy before this began (load average {load:.1f})")
    if cores.shared:
        notes.append("server and load share a core, the only one there is")
    with terminal.Bar(console, steps) as bar:
        for case, names in work:
            samples += run_case(
                case, names, plan.rounds, plan.seconds, plan.warmup, cores, bar.step
            )
        for idle_case, name in watched:
            wanted = round(idle_case.connections[name] * plan.idle_share)
            count = connections_allowed(wanted, files)
            if count < wanted:
                notes.append(
                    f"{idle_case.name}: {name} held {count:,} connections instead of {wanted:,}, "
                    f"because {files:,} open files are allowed"
                )
            bar.step(f"{idle_case.name}  {name}  {count:,} connections")
            idle.append(measure_idle(idle_case, name, count, plan.idle_seconds, cores))
        for growth_case, names in growing:
            counts = growth_case.counts
            if growth_case.connections:
                wanted = round(counts[-1] * plan.idle_share)
                most = connections_allowed(wanted, files)
                if names and most < wanted:
                    notes.append(
                        f"{growth_case.name}: {most:,} connections instead of {wanted:,}, because "
                        f"{files:,} open files are allowed"
                    )
                counts = tuple(sorted({min(count, most) for count in counts}))
            growth += run_growth(
                growth_case, names, plan.rounds, counts, plan.growth_seconds, cores, bar.step
            )
    return report.Results(described, command, asdict(plan), absent, notes, samples, idle, growth)


def main(arguments: Sequence[str]) -> int:
    """Run; returns the exit status."""
    options = parse(arguments)
    console = Console()
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    cases = options.case or (QUICK_CASES if options.quick else ALL_CASES)
    try:
        results = measure_all(
            console, plan_of(options), cases, options.peer or list(PEERS), command
        )
    except BenchmarkError as exc:
        print(f"benchmarks: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        return 130
    report.write(results, options.output)
    chart.draw(results, options.output / "chart.png")
    terminal.show(console, results)
    console.print(f"written to {options.output}: results.json, results.csv, table.md, chart.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
